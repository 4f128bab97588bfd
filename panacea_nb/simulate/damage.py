"""Damage a simulated raw night as real ones get damaged: whole tar files, their members, headers, images, guider frames.

Everything here rewrites files of a night in the layout of one tar per observation; a rewritten file replaces the old one, so that
a night that shares its files with another by hard links is safe.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .archive import write_tar

Members = dict[str, bytes]
Image = tuple[fits.Header, np.ndarray]


@dataclass(frozen=True)
class RawNight:
    """A night to damage.

    Attributes
    ----------
    root : Path
        Raw archive.
    night : str
        YYYYMMDD.
    """

    root: Path
    night: str

    @property
    def folder(self) -> Path:
        """Where the observations lie."""
        return self.root / self.night / "lrs2"

    def tar(self, obsid: int) -> Path:
        """File of an observation."""
        return self.folder / f"lrs2{obsid:07d}.tar"

    def observations(self, kind: str) -> list[int]:
        """Observations that hold frames of a kind (``zro``, ``twi``, ``cmp``, ``sci`` ...)."""
        found = []
        for path in sorted(self.folder.glob("lrs2*.tar")):
            with tarfile.open(path) as tar:
                if any(name.endswith(f"_{kind}.fits") for name in tar.getnames()):
                    found.append(int(path.stem[4:]))
        return found

    def members(self, obsid: int) -> Members:
        """Names and contents in an observation's tar."""
        with tarfile.open(self.tar(obsid)) as tar:
            return {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}

    def rewrite(self, obsid: int, edit: Callable[[Members], Members | None]) -> None:
        """Write an observation's tar anew from what ``edit`` makes of its members (or leaves of them, changed in place)."""
        members = self.members(obsid)
        write_tar(self.tar(obsid), (edit(members) or members).items())

    def replace(self, obsid: int, content: bytes) -> None:
        """Put any bytes in the place of an observation's tar."""
        path = self.tar(obsid)
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        os.replace(part, path)

    def cut(self, obsid: int, share: float) -> None:
        """Keep the first ``share`` of an observation's tar, as a full disk does."""
        content = self.tar(obsid).read_bytes()
        self.replace(obsid, content[: int(share * len(content))])

    def edit_frames(
        self, obsid: int, edit: Callable[[fits.Header, np.ndarray], Image | None], *, amps: str = "", exp: int = 0
    ) -> None:
        """Change headers and images (uint16, overscan included) of an observation's frames.

        Parameters
        ----------
        edit : callable
            Gets header and image; changes them in place or returns others.
        amps : str
            Amplifiers, such as ``LL LU``; all by default.  exp : exposure; 0 takes all.
        """

        def each(members: Members) -> Members:
            out = {}
            for name, content in members.items():
                chosen = not amps or any(f"{amp}_" in name.rsplit("/", 1)[-1] for amp in amps.split())
                if chosen and exp in (0, int(name.split("/exp")[1][:2])):
                    content = edited(content, edit)
                out[name] = content
            return out

        self.rewrite(obsid, each)

    def set_cards(self, obsid: int, *, remove: tuple[str, ...] = (), raw: str = "", **cards: object) -> None:
        """Set or remove header cards of all frames of an observation; ``raw`` are cards of 80 characters, put in as they are."""

        def each(header: fits.Header, image: np.ndarray) -> None:
            for name in remove:
                header.remove(name, ignore_missing=True)
            for name, value in cards.items():
                header[name] = value

        self.edit_frames(obsid, each)
        if raw:
            self.rewrite(obsid, lambda members: {name: with_cards(content, raw) for name, content in members.items()})

    def guider_files(self) -> list[Path]:
        """Tar files of the guide cameras."""
        return sorted((self.root / self.night).glob("gc[12]/*.tar"))


def edited(content: bytes, edit: Callable[[fits.Header, np.ndarray], Image | None]) -> bytes:
    """A FITS file whose header and image were changed."""
    with fits.open(io.BytesIO(content), memmap=False) as hdus:
        header, image = hdus[0].header, hdus[0].data.copy()
    header, image = edit(header, image) or (header, image)
    buffer = io.BytesIO()
    fits.PrimaryHDU(image, header).writeto(buffer, output_verify="ignore")
    return buffer.getvalue()


def with_cards(content: bytes, cards: str) -> bytes:
    """A FITS file with cards put in before END, whatever they are: astropy would refuse to write some that real headers hold.

    Cards of the same keyword are taken out first.
    """
    size = next(i for i in range(0, len(content), 80) if content[i : i + 8] == b"END     ")
    lines = [content[i : i + 80] for i in range(0, size, 80)]
    fresh = [line.encode("latin-1").ljust(80)[:80] for line in cards.splitlines()]
    names = {line[:8] for line in fresh} - {b"CONTINUE"}
    head = b"".join([line for line in lines if line[:8] not in names] + fresh) + b"END".ljust(80)
    data = content[-(-(size + 80) // 2880) * 2880 :]
    return head.ljust(-(-len(head) // 2880) * 2880) + data
