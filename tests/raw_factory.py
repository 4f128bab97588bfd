"""Raw archives for tests: real names, headers and sizes in all three layouts, with pixels only where a test reads them.

Where no pixels are given the tars have holes, so that a night of full-size frames takes no room on disk.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

SHAPE = (1032, 2128)
AMPS = ("LL", "LU", "RL", "RU")


def card(keyword, value) -> bytes:
    """One header card; bytes are taken as the literal text after the keyword."""
    if isinstance(value, bytes):
        return (f"{keyword:8s}".encode() + value).ljust(80)[:80]
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20s}"
    elif isinstance(value, str):
        text = "'" + value.replace("'", "''").ljust(8) + "'"
    else:
        text = f"{value!s:>20s}"
    return f"{keyword:8s}= {text}".ljust(80)[:80].encode("latin-1")


def header(cards=None, shape=SHAPE, bitpix=16, unsigned=True) -> bytes:
    first = {"SIMPLE": True, "BITPIX": bitpix, "NAXIS": len(shape)}
    first |= {f"NAXIS{i + 1}": n for i, n in enumerate(reversed(shape))}
    if unsigned and shape:
        first |= {"BZERO": 32768, "BSCALE": 1}
    text = b"".join(card(key, value) for key, value in (first | dict(cards or {})).items()) + b"END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880)


@dataclass
class Blob:
    """A file: its first bytes and its length; the rest is zeros."""

    head: bytes
    size: int


def fits_blob(cards=None, data=None, shape=SHAPE, **keywords) -> Blob:
    """A FITS file of an amplifier; `data` are counts, without them the pixels are a hole."""
    if data is not None:
        shape = data.shape
    head = header(cards, shape, **keywords)
    size = len(head) + -(-2 * int(np.prod(shape)) // 2880) * 2880
    if data is not None:
        head += (data.astype(np.int32) - 32768).astype(">i2").tobytes()
    return Blob(head, size)


def _size(content) -> int:
    if isinstance(content, Blob):
        return content.size
    if isinstance(content, list):
        return 1024 + sum(512 + -(-_size(inner) // 512) * 512 for _, inner in content)
    return 0


def _append(stream, members, end=True) -> None:
    for name, content in members:
        info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
        info.name = name
        if not isinstance(content, tarfile.TarInfo):
            info.size = _size(content)
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        place = stream.tell()
        if isinstance(content, Blob):
            stream.write(content.head)
        elif isinstance(content, list):
            _append(stream, content)
        stream.seek(place + -(-info.size // 512) * 512)
    if end:
        stream.write(bytes(1024))


def write_tar(path: Path, members, end=True) -> Path:
    """Tar of (name, Blob | list of members | TarInfo)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        _append(stream, members, end)
        stream.truncate(stream.tell())
    return path


def write_blob(path: Path, blob: Blob) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(blob.head)
        stream.truncate(blob.size)


@dataclass
class Obs:
    """An observation of a test night."""

    obsid: int
    kind: str
    name: str = ""
    n_exp: int = 1
    start: datetime = datetime(2025, 1, 15, 3, 0, 0, 500000)
    exptime: float = 60.0
    slots: tuple = ("056", "066")
    amps: tuple = AMPS
    shape: tuple = SHAPE
    cards: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)

    def members(self, prefix=""):
        for exp in range(1, self.n_exp + 1):
            when = self.start + timedelta(seconds=(exp - 1) * (self.exptime + 30))
            stamp = when.strftime("%Y%m%dT%H%M%S") + f".{when.microsecond // 100000}"
            for slot in self.slots:
                for amp in self.amps:
                    cards = {"OBJECT": self.name, "EXPTIME": self.exptime, "IFUSLOT": slot, "AMPNAME": amp} | self.cards
                    cards = {key: value for key, value in cards.items() if value is not None}
                    path = f"{prefix}lrs2{self.obsid:07d}/exp{exp:02d}/lrs2/{stamp}_{slot}{amp}_{self.kind}.fits"
                    yield path, fits_blob(cards, self.data.get((exp, slot, amp)), self.shape)


def write_night(root: Path, night: str, observations, layout=1) -> None:
    """A night in layout 1, 2 (tars in a tar), 2.5 (files in a tar) or 3."""
    if layout == 1:
        for obs in observations:
            write_tar(root / night / "lrs2" / f"lrs2{obs.obsid:07d}.tar", list(obs.members()))
    elif layout == 2:
        inner = [(f"{night}/lrs2/lrs2{obs.obsid:07d}.tar", list(obs.members())) for obs in observations]
        write_tar(root / f"{night}.tar", inner)
    elif layout == 2.5:
        members = [m for obs in observations for m in obs.members(f"./{night}/lrs2/")]
        write_tar(root / f"{night}.tar", members)
    else:
        for obs in observations:
            for name, blob in obs.members():
                write_blob(root / night / "lrs2" / name, blob)


def calibrations(night: str, first=1, lamps=("Hg", "Cd-A_B", "FeAr_R"), twilights=3, **keywords) -> list[Obs]:
    """Bias, twilights, flats and arcs of a night."""
    day = datetime.strptime(night, "%Y%m%d")
    late = day + timedelta(hours=12, minutes=30)
    found = [
        Obs(first, "zro", "zro", 5, day + timedelta(minutes=5), 0.0, **keywords),
        Obs(first + 1, "twi", "twi", twilights, day + timedelta(minutes=40), 5.0, **keywords),
        Obs(first + 2, "flt", "ldls_long", 2, late, 30.0, **keywords),
    ]
    for i, lamp in enumerate(lamps):
        found.append(Obs(first + 3 + i, "cmp", lamp, 2, late + timedelta(minutes=10 * (i + 1)), 30.0, **keywords))
    return [obs for obs in found if obs.n_exp]
