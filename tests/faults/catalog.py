"""The table of faults: what is damaged, how the reduction must end, and which words must say so.

Every fault is applied to a copy of a small night (observation 4: a standard, observation 5: a faint target, channel uv).  ``ends``
is the exit code: 2 refused at once, 1 something failed and the rest is done, 0 reduced.  ``says`` is a regular expression that must
be found in what the run tells (its output, its records, its verdicts).  Whatever happens, the other exposure must come out as without
the fault, nothing may be written outside of the output, and a traceback must not be the only explanation; the runner sees to it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits

from panacea_nb.simulate.archive import write_tar
from panacea_nb.simulate.damage import RawNight, with_cards

STAR, FAINT = 4, 5  # observations of the night
SCIENCE, CALIBRATION, GUIDER, HEADER = "science frame", "calibration", "guider", "header"


@dataclass(frozen=True)
class Fault:
    """One way to damage a night.

    Attributes
    ----------
    name : str
    group : str
        What is damaged; calibrations are reduced anew, for the others those of the undamaged night serve.
    what : str
        The damage in words.
    do : callable
        Damages the night.
    ends : int
        Exit code.
    says : str
        Regular expression.
    until : str
        Last stage that is run.
    options : tuple of str
        Further options of ``reduce``.
    quick : bool
        Whether it is part of ``make test``.
    """

    name: str
    group: str
    what: str
    do: Callable[[RawNight], Any]
    ends: int
    says: str
    until: str = "05"
    options: tuple[str, ...] = field(default=())
    quick: bool = False


FAULTS: list[Fault] = []


def fault(name: str, group: str, what: str, ends: int, says: str, **more: Any) -> Callable:
    """Add the decorated function to the table."""

    def add(do: Callable[[RawNight], Any]) -> Callable:
        FAULTS.append(Fault(name, group, what, do, ends, says, **more))
        return do

    return add


def simple(name: str, group: str, what: str, do: Callable, ends: int, says: str, **more: Any) -> None:
    FAULTS.append(Fault(name, group, what, do, ends, says, **more))


# --- tar files and their members --------------------------------------------------------------------------------------
LOST = "cut off|damaged|no end mark|lacks|missing"
simple(
    "tar-cut-late", SCIENCE, "tar cut short within its last member", lambda n: n.cut(FAINT, 0.9), 1, LOST, quick=True
)
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


@fault("tar-gzipped", SCIENCE, "tar compressed under its old name", 1, "damaged")
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
    quick=True,
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
    quick=True,
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
    "no counts of 16 bits|16 bits",
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
    "saturated|stops here",
)
simple(
    "frame-zero",
    SCIENCE,
    "every pixel zero",
    _image(lambda h, d: (h, np.zeros_like(d))),
    1,
    "constant|empty|stops here|no light",
)
simple(
    "frame-constant",
    SCIENCE,
    "every pixel 1000",
    _image(lambda h, d: (h, np.full_like(d, 1000))),
    1,
    "constant|empty|stops here|no light",
)
simple(
    "amplifier-dead",
    SCIENCE,
    "one amplifier did not read out: constant",
    _image(lambda h, d: (h, np.full_like(d, 1000)), "LL"),
    1,
    "constant|stops here|did not read",
)
simple(
    "amplifier-noisy",
    SCIENCE,
    "one amplifier reads with 60 e- of noise",
    _image(
        lambda h, d: (h, np.clip(d + np.random.default_rng(2).normal(0, 70, d.shape), 0, 65535).astype(np.uint16)), "LL"
    ),
    1,
    "noise|stops here|fail",
)
simple(
    "frame-flipped",
    SCIENCE,
    "both amplifiers stored the wrong way round",
    _image(lambda h, d: (h, np.ascontiguousarray(np.hstack([d[::-1, 2063::-1], d[:, 2064:]])))),
    1,
    "stops here|pattern|shift",
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


@fault("observation-misplaced", SCIENCE, "members of another observation in the tar", 0, "all done")
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


# --- headers ----------------------------------------------------------------------------------------------------------
def _cards(**cards: Any) -> Callable[[RawNight], None]:
    return lambda night: night.set_cards(FAINT, **cards)


def _raw(cards: str) -> Callable[[RawNight], None]:
    return lambda night: night.rewrite(FAINT, lambda m: {name: with_cards(c, cards) for name, c in m.items()})


simple(
    "exptime-missing",
    HEADER,
    "no EXPTIME, no REXPTIME",
    _cards(remove=("EXPTIME", "REXPTIME")),
    1,
    "EXPTIME",
    until="07",
)
simple("exptime-zero", HEADER, "EXPTIME 0", _cards(EXPTIME=0.0), 1, "exposure time|EXPTIME", until="07")
simple(
    "exptime-negative",
    HEADER,
    "EXPTIME -1: Panacea's rule serves",
    _cards(EXPTIME=-1.0),
    0,
    "EXPTIME -1 s is negative",
    until="07",
)
simple(
    "exptime-both-negative",
    HEADER,
    "EXPTIME and REXPTIME negative",
    _cards(EXPTIME=-1.0, REXPTIME=-1.0),
    1,
    "EXPTIME",
    until="07",
)
simple("exptime-text", HEADER, "EXPTIME is text", _cards(EXPTIME="long"), 1, "EXPTIME", until="07")
simple("exptime-nan", HEADER, "EXPTIME is NaN", _raw("EXPTIME =                  NaN"), 1, "EXPTIME", until="07")
simple("exptime-absurd", HEADER, "EXPTIME 1e30", _cards(EXPTIME=1e30), 1, "EXPTIME|exposure time", until="07")
simple(
    "gain-zero", HEADER, "GAIN and RDNOISE 0: defaults, recorded", _cards(GAIN=0.0, RDNOISE=0.0), 0, "GAIN", quick=True
)
simple("gain-negative", HEADER, "GAIN -1: default, recorded", _cards(GAIN=-1.0), 0, "GAIN")
simple("gain-text", HEADER, "GAIN is text: default, recorded", _cards(GAIN="unknown"), 0, "GAIN")
simple("gain-absurd", HEADER, "GAIN 1e6", _cards(GAIN=1e6), 0, "GAIN")
simple("ampname-unknown", HEADER, "AMPNAME names no amplifier", _cards(AMPNAME="ZZ"), 1, "AMPNAME")
simple("ampname-missing", HEADER, "no AMPNAME", _cards(remove=("AMPNAME",)), 0, "all done")
HOSTILE = {
    "html": "<script>alert(1)</script><b>x</b>",
    "shell": "$(touch /tmp/panacea_nb-evil); `reboot` | rm -rf ~",
    "python": "'''+__import__('os').system('touch /tmp/panacea_nb-evil')+'''",
    "path": "../../../../tmp/panacea_nb-evil_056_W",
    "template": "{{ 7*7 }} {% raw %} %(x)s {0}",
    "quotes": "\"' ; -- \\ \\n \t",
}
for _name, _text in HOSTILE.items():
    simple(
        f"object-{_name}",
        HEADER,
        f"OBJECT and QOBJECT hold {_name}",
        _cards(OBJECT=_text, QOBJECT=_text),
        0,
        "all done",
        until="10",
        quick=_name == "html",
    )
simple("object-long", HEADER, "OBJECT of 10 kB", _cards(OBJECT="A" * 10000), 0, "all done", until="10")
simple(
    "object-missing", HEADER, "no OBJECT, no QOBJECT", _cards(remove=("OBJECT", "QOBJECT")), 0, "all done", until="07"
)
simple(
    "object-bytes",
    HEADER,
    "OBJECT of control characters and bytes beyond ASCII",
    _raw("OBJECT  = '\x07\x1b[2J\xe9\xff\x00 star_056_W'"),
    0,
    "all done",
    until="07",
)
simple("object-number", HEADER, "OBJECT is a number", _cards(OBJECT=42), 0, "all done", until="07")
simple(
    "program-path", HEADER, "QPROG leads out of the output", _cards(QPROG="../../../evil"), 0, "all done", until="07"
)
simple(
    "program-cals", HEADER, "QPROG is CALS, the calibrations' folder", _cards(QPROG="CALS"), 0, "all done", until="07"
)
simple(
    "program-html", HEADER, "QPROG holds HTML", _cards(QPROG="<img src=x onerror=alert(1)>"), 0, "all done", until="10"
)
simple(
    "coordinates-missing",
    HEADER,
    "no TRAJRA, TRAJDEC, QRA, QDEC",
    _cards(remove=("TRAJRA", "TRAJDEC", "QRA", "QDEC")),
    0,
    "coordinates|TRAJRA|pointing",
    until="07",
)
simple(
    "coordinates-absurd",
    HEADER,
    "TRAJRA 999, TRAJDEC -200",
    _cards(TRAJRA=999.0, TRAJDEC=-200.0),
    0,
    "TRAJ|coordinates|pointing",
    until="07",
)
simple(
    "coordinates-text",
    HEADER,
    "QRA and TRAJRA are text",
    _cards(QRA="somewhere", TRAJRA="east"),
    0,
    "TRAJ|coordinates|pointing",
    until="07",
)
simple("parangle-missing", HEADER, "no PARANGLE", _cards(remove=("PARANGLE",)), 0, "PARANGLE", until="07")
simple(
    "keyword-doubled",
    HEADER,
    "EXPTIME twice, first one right",
    lambda n: n.rewrite(FAINT, lambda m: {k: with_cards(c, "EXPTIME = 300.0\nEXPTIME = -5.0") for k, c in m.items()}),
    0,
    "all done",
    until="07",
)


# --- calibrations -----------------------------------------------------------------------------------------------------
def _drop(kind: str) -> Callable[[RawNight], None]:
    def do(night: RawNight) -> None:
        for obsid in night.observations(kind):
            night.rewrite(
                obsid, lambda m: {name: c for name, c in m.items() if f"_{kind}.fits" not in name} or {"empty": b""}
            )

    return do


def _of_kind(kind: str, edit: Callable, *, first: bool = False) -> Callable[[RawNight], None]:
    """Edit the frames of all, or of the first, observation of a kind."""

    def do(night: RawNight) -> None:
        for obsid in night.observations(kind)[: 1 if first else None]:
            night.edit_frames(obsid, edit, exp=1 if first else 0)

    return do


def _bias_level(header: fits.Header, image: np.ndarray) -> tuple[fits.Header, np.ndarray]:
    """Every pixel as its row's overscan: no light."""
    level = np.median(image[:, 2066:], axis=1, keepdims=True)
    noise = np.random.default_rng(1).normal(0, 3.5, image.shape)
    return header, np.clip(level + noise, 0, 65535).astype(np.uint16)


CAL = {"until": "04"}
simple("bias-none", CALIBRATION, "no bias frames", _drop("zro"), 1, "bias|zro", **CAL)
simple("twilight-none", CALIBRATION, "no twilights", _drop("twi"), 1, "twilight|twi", **CAL)
simple("arc-none", CALIBRATION, "no arcs", _drop("cmp"), 1, "arc|cmp", **CAL)
simple(
    "twilight-and-flat-none",
    CALIBRATION,
    "neither twilights nor flats",
    lambda n: (_drop("twi")(n), _drop("flt")(n)),
    1,
    "twilight|flat",
    **CAL,
)
simple("arc-lamps-off", CALIBRATION, "all arc lamps off", _of_kind("cmp", _bias_level), 1, "arc|line", **CAL)
simple(
    "arc-saturated",
    CALIBRATION,
    "all arcs saturated",
    _of_kind("cmp", lambda h, d: (h, np.full_like(d, 65535))),
    1,
    "saturated|arc",
    **CAL,
)
simple(
    "twilight-dark", CALIBRATION, "twilights without light", _of_kind("twi", _bias_level), 1, "faint|twilight", **CAL
)
simple(
    "twilight-saturated",
    CALIBRATION,
    "twilights saturated",
    _of_kind("twi", lambda h, d: (h, np.full_like(d, 65535))),
    1,
    "saturated|twilight|stops here",
    **CAL,
)
simple(
    "twilight-one-saturated",
    CALIBRATION,
    "one twilight saturated, the others good",
    _of_kind("twi", lambda h, d: (h, np.full_like(d, 65535)), first=True),
    0,
    "saturated|left out|rejected",
    **CAL,
)
simple(
    "bias-one-with-light",
    CALIBRATION,
    "one bias frame with light in it",
    _of_kind(
        "zro",
        lambda h, d: (
            h,
            np.clip(d.astype(int) + np.pad(np.full((1032, 2064), 400), ((0, 0), (0, 64))), 0, 65535).astype(np.uint16),
        ),
        first=True,
    ),
    0,
    "bias|left out|rejected",
    **CAL,
)
simple(
    "bias-one-zero",
    CALIBRATION,
    "one bias frame all zero",
    _of_kind("zro", lambda h, d: (h, np.zeros_like(d)), first=True),
    0,
    "bias|left out|rejected",
    **CAL,
)
simple(
    "bias-saturated",
    CALIBRATION,
    "all bias frames saturated",
    _of_kind("zro", lambda h, d: (h, np.full_like(d, 65535))),
    1,
    "bias|saturated|stops here",
    **CAL,
)
simple(
    "arc-of-another-channel",
    CALIBRATION,
    "arcs whose lines lie elsewhere: mirrored",
    _of_kind("cmp", lambda h, d: (h, np.ascontiguousarray(np.hstack([d[:, 2063::-1], d[:, 2064:]])))),
    1,
    "stops here|line|arc",
    **CAL,
)
simple(
    "twilight-upside-down",
    CALIBRATION,
    "twilights whose fibres lie elsewhere",
    _of_kind("twi", lambda h, d: (h, np.ascontiguousarray(np.roll(d, 300, axis=0)))),
    1,
    "stops here|pattern",
    **CAL,
)


# --- guide cameras ----------------------------------------------------------------------------------------------------
def _guider(edit: Callable[[bytes], bytes]) -> Callable[[RawNight], None]:
    def do(night: RawNight) -> None:
        for path in night.guider_files():
            with tarfile.open(path) as tar:
                members = {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}
            write_tar(path, {name: edit(content) for name, content in members.items()}.items())

    return do


def _cut_guider(night: RawNight) -> None:
    for path in night.guider_files():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: len(content) // 3])


def _no_guider(night: RawNight) -> None:
    for path in night.guider_files():
        path.unlink()


FLUX = {"until": "07"}
simple("guider-none", GUIDER, "no guide frames: defaults, recorded", _no_guider, 0, "transparency", **FLUX)
simple("guider-cut", GUIDER, "tars of the guide cameras cut short", _cut_guider, 0, "guide|transparency|gc", **FLUX)
simple(
    "guider-absurd",
    GUIDER,
    "TRANSPAR 99, IQ -3, PUPILLUM 7",
    _guider(
        lambda c: with_cards(
            c, "TRANSPAR=                 99.0\nIQ      =                 -3.0\nPUPILLUM=                  7.0"
        )
    ),
    0,
    "transparency",
    **FLUX,
)
simple(
    "guider-no-fits",
    GUIDER,
    "guide frames that are no FITS files",
    _guider(lambda c: b"nothing" * 500),
    0,
    "transparency",
    **FLUX,
)
