"""Faults of science frames: tar files, their members, images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np

from panacea_nb.simulate.damage import RawNight

from .fault import FAINT, SCIENCE, fault, simple

LOST = "cut off|damaged|no end mark|lacks|missing"
simple("tar-cut-late", SCIENCE, "tar cut short within its last member", lambda n: n.cut(FAINT, 0.9), 1, LOST)
simple("tar-cut-early", SCIENCE, "tar cut short within its first member", lambda n: n.cut(FAINT, 0.1), 1, LOST)
simple("tar-empty", SCIENCE, "tar of no bytes", lambda n: n.replace(FAINT, b""), 1, "tar|empty|damaged")
simple(
    "tar-is-text",
    SCIENCE,
    "text in place of the tar",
    lambda n: n.replace(FAINT, b"quota exceeded\n" * 900),
    1,
    "damaged",
)
simple(
    "tar-is-noise",
    SCIENCE,
    "random bytes in place of the tar",
    lambda n: n.replace(FAINT, np.random.default_rng(3).bytes(40960)),
    1,
    "damaged",
)


@fault("tar-gzipped", SCIENCE, "tar compressed under its old name", 1, "compressed: gunzip")
def _(night: RawNight) -> None:
    import gzip

    night.replace(FAINT, gzip.compress(night.tar(FAINT).read_bytes(), 1))


@fault("tar-dangling-link", SCIENCE, "link that leads nowhere in place of the tar", 1, "cannot be read")
def _(night: RawNight) -> None:
    night.tar(FAINT).unlink()
    night.tar(FAINT).symlink_to(night.folder / "gone.tar")


@fault("tar-is-folder", SCIENCE, "folder in place of the tar", 1, "neither a tar file nor a folder|refused")
def _(night: RawNight) -> None:
    night.tar(FAINT).unlink()
    night.tar(FAINT).mkdir()


@fault("tar-noise-in-the-middle", SCIENCE, "a run of noise over a member's tar header", 1, "damaged")
def _(night: RawNight) -> None:
    with tarfile.open(night.tar(FAINT)) as tar:
        place = tar.getmembers()[1].offset
    content = bytearray(night.tar(FAINT).read_bytes())
    content[place : place + 512] = np.random.default_rng(5).bytes(512)
    night.replace(FAINT, bytes(content))


def _extra_member(night: RawNight, **info: Any) -> None:
    """Add a member of the given properties behind the others."""
    members = night.members(FAINT)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(info.pop("name"))
        for key, value in info.items():
            setattr(entry, key, value)
        tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    night.replace(FAINT, buffer.getvalue())


simple(
    "member-escapes",
    SCIENCE,
    "further member whose path leads out of the archive",
    lambda n: _extra_member(n, name="../../../evil.fits", size=2880),
    1,
    "leads out of the archive",
)
simple(
    "member-absolute",
    SCIENCE,
    "further member with an absolute path",
    lambda n: _extra_member(n, name="/tmp/panacea_nb-evil.fits", size=2880),
    1,
    "leads out of the archive",
)
simple(
    "member-link",
    SCIENCE,
    "further member that is a link to /etc/passwd",
    lambda n: _extra_member(n, name="lrs20000005/exp01/lrs2/x.fits", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    1,
    "link",
)
simple(
    "member-hard-link",
    SCIENCE,
    "further member that is a hard link",
    lambda n: _extra_member(n, name="lrs20000005/exp01/lrs2/x.fits", type=tarfile.LNKTYPE, linkname="../x"),
    1,
    "link",
)
simple(
    "member-device",
    SCIENCE,
    "further member that is a device",
    lambda n: _extra_member(n, name="lrs20000005/exp01/lrs2/x.fits", type=tarfile.CHRTYPE),
    1,
    "not a regular file",
)
simple(
    "member-foreign",
    SCIENCE,
    "further member with a name that is no frame's",
    lambda n: _extra_member(n, name="lrs20000005/notes.txt", size=100),
    0,
    "source found|all done",
)


def _in_frame(edit: Callable[[bytes], bytes], amp: str = "LL") -> Callable[[RawNight], None]:
    """Edit the bytes of one amplifier's file."""

    def do(night: RawNight) -> None:
        night.rewrite(FAINT, lambda m: {name: edit(c) if f"{amp}_" in name else c for name, c in m.items()})

    return do


def _image(edit: Callable, amps: str = "") -> Callable[[RawNight], None]:
    return lambda night: night.edit_frames(FAINT, edit, amps=amps)


FRAME = "LL|lacks|missing|cut off"
simple("frame-empty", SCIENCE, "FITS file of no bytes", _in_frame(lambda c: b""), 1, FRAME)
simple(
    "frame-cut", SCIENCE, "FITS file that ends within its image", _in_frame(lambda c: c[: len(c) // 2]), 1, "cut off"
)
simple("frame-header-cut", SCIENCE, "FITS file that ends within its header", _in_frame(lambda c: c[:1500]), 1, FRAME)
simple("frame-not-fits", SCIENCE, "text in place of a FITS file", _in_frame(lambda c: b"no frame\n" * 1000), 1, "FITS")
simple(
    "frame-no-end", SCIENCE, "header without END", _in_frame(lambda c: c.replace(b"END     ", b"ENDE    ", 1)), 1, "END"
)
simple(
    "frame-gone",
    SCIENCE,
    "one amplifier's file missing",
    lambda n: n.rewrite(FAINT, lambda m: {k: c for k, c in m.items() if "LL_" not in k}),
    1,
    "LL",
)
simple(
    "exposure-gone",
    SCIENCE,
    "observation without any file",
    lambda n: n.rewrite(FAINT, lambda m: {"lrs20000005/readme.txt": b"nothing"}),
    0,
    "all done",
)
simple(
    "frame-small", SCIENCE, "image of half the size", _image(lambda h, d: (h, d[:500, :1000]), "LL"), 1, "500 x 1000"
)
simple(
    "frame-cube", SCIENCE, "image with a third axis", _image(lambda h, d: (h, d[None]), "LL"), 1, "image of|axis|shape"
)
simple(
    "frame-float-nan",
    SCIENCE,
    "image of floats, some NaN",
    _image(lambda h, d: (h, np.where(d > 1200, np.nan, d).astype(np.float32)), "LL"),
    1,
    "numbers that no raw frame has",
)
simple(
    "frame-mixed-binning",
    SCIENCE,
    "one amplifier binned, the other not",
    _image(lambda h, d: (h, np.ascontiguousarray(d[:, ::2])), "LL"),
    1,
    "binn",
)
simple(
    "frame-binned",
    SCIENCE,
    "science binned, calibrations not",
    _image(lambda h, d: (h, np.ascontiguousarray(d[:, ::2]))),
    1,
    "binn",
)
simple(
    "frame-saturated",
    SCIENCE,
    "every pixel saturated",
    _image(lambda h, d: (h, np.full_like(d, 65535))),
    1,
    "every pixel holds 65535 ADU",
)
simple(
    "frame-zero",
    SCIENCE,
    "every pixel zero",
    _image(lambda h, d: (h, np.zeros_like(d))),
    1,
    "was not read out",
)
simple(
    "frame-constant",
    SCIENCE,
    "every pixel 1000",
    _image(lambda h, d: (h, np.full_like(d, 1000))),
    1,
    "was not read out",
)
simple(
    "amplifier-dead",
    SCIENCE,
    "one amplifier did not read out: constant",
    _image(lambda h, d: (h, np.full_like(d, 1000)), "LL"),
    1,
    "LL was not read out",
)
simple(
    "amplifier-noisy",
    SCIENCE,
    "one amplifier reads with 60 e- of noise",
    _image(
        lambda h, d: (h, np.clip(d + np.random.default_rng(2).normal(0, 70, d.shape), 0, 65535).astype(np.uint16)), "LL"
    ),
    1,
    "stops here.*cosmic_pixels",
)
simple(
    "frame-flipped",
    SCIENCE,
    "both amplifiers stored the wrong way round",
    _image(lambda h, d: (h, np.ascontiguousarray(np.hstack([d[::-1, 2063::-1], d[:, 2064:]])))),
    1,
    "stops here.*sky_binned",
    until="06",
)


@fault("frames-swapped", SCIENCE, "the amplifiers' files under each other's names", 1, "CCDHALF|swapped|name")
def _(night: RawNight) -> None:
    def swap(members):
        def other(name):
            return name.replace("LL_", "##_").replace("LU_", "LL_").replace("##_", "LU_")

        return {other(name): content for name, content in members.items()}

    night.rewrite(FAINT, swap)


@fault("frame-of-the-other-ifu", SCIENCE, "file of another IFU under this one's name", 1, "IFUSLOT|066")
def _(night: RawNight) -> None:
    night.set_cards(FAINT, IFUSLOT="066", SPECID="502", IFUID="7002")


@fault("observation-misplaced", SCIENCE, "members of another observation in the tar", 1, "where observation 5 belongs")
def _(night: RawNight) -> None:
    night.rewrite(FAINT, lambda m: {name.replace("lrs20000005", "lrs20000099"): content for name, content in m.items()})


@fault("observation-doubled", SCIENCE, "the observation unpacked beside its tar", 0, "there already|all done")
def _(night: RawNight) -> None:
    for name, content in night.members(FAINT).items():
        path = night.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@fault("folder-full-of-rubbish", SCIENCE, "foreign files in the night's folder", 0, "all done")
def _(night: RawNight) -> None:
    (night.folder / "core.1234").write_bytes(b"\0" * 5000)
    (night.folder / "lrs2xyz.tar").write_bytes(b"")
    (night.folder / "lrs20000077.tar.part").write_bytes(b"half")
    (night.folder / ".nfs0001").write_bytes(b"")
