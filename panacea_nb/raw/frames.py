"""Frames and exposures, and how one amplifier's image is read: by a seek into the file that holds it."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.utils.exceptions import AstropyUserWarning

from ..decisions import Decision
from ..errors import PanaceaError
from ..instrument import AMP_ROWS, N_COLUMNS, OVERSCAN, find_standard
from ..nearby import nearest
from .headers import STRUCTURE, Cards, DamagedHeaderError, number, parse_cards, read_header_block
from .names import AMPLIFIERS, IFU_SLOTS, clean_text

# Panacea's rule for an exposure that was read out before its time was known.
READOUT_SECONDS = 7.0
MAX_EXPTIME = 36000.0  # s; no exposure is longer than a night

# Shape of a raw frame (rows, columns with overscan) and what its binning is called: columns are binned, rows never.
BINNINGS = {(AMP_ROWS, (N_COLUMNS + OVERSCAN) // factor): f"{factor}x1" for factor in (1, 2)}

_TARGET_SLOT = re.compile(rf"_({'|'.join(IFU_SLOTS)})(?=_|$)")
_BAD_BYTES = bytes(code if 32 <= code < 127 else ord("?") for code in range(256))


class UnreadableFrameError(PanaceaError):
    """The bytes of a frame cannot be had, or are not the frame that the index saw."""


@dataclass(frozen=True)
class FrameRecord:
    """One raw FITS file of one amplifier: where it lies and what its name and header say.

    Parameters
    ----------
    night : str
        YYYYMMDD of the folder, which need not be the date in the file name.
    obsid, exp : int
        Observation and exposure.
    ifuslot, amp, kind : str
        From the file name, such as ``056``, ``LL``, ``sci``.
    start : datetime
        Start of the exposure by the file name, UT, without a time zone.
    container : tuple of str
        File on disk (absolute), then the names within it, one per nested tar.
    offset, size : int
        Where the FITS file lies within the file on disk [bytes].
    shape : tuple of int
        Rows and columns, overscan included.
    cards : dict
        Cards of the primary header as they are, wrong types and odd characters included; a missing card is absent.
    """

    night: str
    obsid: int
    exp: int
    ifuslot: str
    amp: str
    kind: str
    start: datetime
    container: tuple[str, ...]
    offset: int
    size: int
    shape: tuple[int, int]
    cards: Cards = field(hash=False)

    @property
    def binning(self) -> str:
        """``1x1`` or ``2x1`` (columns x rows)."""
        return BINNINGS[self.shape]

    @property
    def path(self) -> str:
        """Where the frame is, for people: the file on disk and the names within it."""
        return ":".join(clean_text(part, 400) for part in self.container)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for JSON."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return record | {"start": self.start.isoformat(), "container": list(self.container), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FrameRecord:
        """The record that `to_dict` wrote."""
        values = {name: record[name] for name in cls.__dataclass_fields__}
        values["start"] = datetime.fromisoformat(record["start"])
        values["container"], values["shape"] = tuple(record["container"]), tuple(record["shape"])
        return cls(**values)


@dataclass(frozen=True)
class Exposure:
    """The amplifiers of one IFU that were read out together.

    Parameters
    ----------
    night : str
        YYYYMMDD of the folder.
    obsid, exp : int
        Observation and exposure.
    ifuslot, kind : str
        IFU and type of the frames.
    amps : dict
        Frames by amplifier, in the order LL, LU, RL, RU; may lack some.
    """

    night: str
    obsid: int
    exp: int
    ifuslot: str
    kind: str
    amps: dict[str, FrameRecord] = field(hash=False)

    def card(self, keyword: str) -> object:
        """A header card: of the first amplifier that has it, None when none has."""
        values = (self.amps[amp].cards.get(keyword) for amp in AMPLIFIERS if amp in self.amps)
        return next((value for value in values if value is not None), None)

    def value(self, keyword: str) -> float | None:
        """A header card as a finite number, None when no amplifier has one."""
        numbers = (number(self.amps[amp].cards, keyword) for amp in AMPLIFIERS if amp in self.amps)
        return next((found for found in numbers if found is not None), None)

    @property
    def start(self) -> datetime:
        """Start (UT) by the file names; the earliest where they differ."""
        return min(frame.start for frame in self.amps.values())

    @property
    def object_name(self) -> str:
        """OBJECT, fit to print; ``card('OBJECT')`` is the raw value."""
        return clean_text(self.card("OBJECT"))

    @property
    def program(self) -> str:
        """QPROG, fit to print; empty when there is none."""
        return clean_text(self.card("QPROG"))

    @property
    def exptime(self) -> float | None:
        """Exposure time [s]; REXPTIME + 7 where EXPTIME is negative; None when the header does not say, or nothing possible."""
        seconds = self.value("EXPTIME")
        if seconds is not None and seconds < 0:
            asked = self.value("REXPTIME")
            return None if asked is None or not 0 <= asked <= MAX_EXPTIME else asked + READOUT_SECONDS
        return None if seconds is not None and seconds > MAX_EXPTIME else seconds

    @property
    def decisions(self) -> list[Decision]:
        """What had to be decided to read this header: codes EXPTIME (negative, replaced) and NOEXPTIME."""
        seconds, used = self.value("EXPTIME"), self.exptime
        if used is None:
            said = clean_text(self.card("EXPTIME")) or "missing"
            text = f"{self.label}: EXPTIME ({said}) does not tell how long the exposure was (REXPTIME serves for a negative one)"
            return [Decision("NOEXPTIME", text, "warn")]
        if seconds < 0:
            rule = f"REXPTIME + {READOUT_SECONDS:g} s = {used:g} s"
            text = f"{self.label}: EXPTIME {seconds:g} s is negative; {rule} is used"
            return [Decision("EXPTIME", text, "warn")]
        return []

    @property
    def target_ifuslot(self) -> str | None:
        """IFU that held the target, by the last ``_056_`` or ``_066_`` of OBJECT; None when OBJECT does not say."""
        found = _TARGET_SLOT.findall(self.object_name)
        return found[-1] if found else None

    @property
    def on_target(self) -> bool:
        """Whether this IFU held the target, as far as OBJECT says."""
        return self.target_ifuslot in (None, self.ifuslot)

    @property
    def target_name(self) -> str:
        """Name of the target for all its exposures: QOBJECT, else OBJECT without IFU slot and track; fit to print."""
        name = clean_text(self.card("QOBJECT"))
        return name or _TARGET_SLOT.split(self.object_name)[0] or "UNNAMED"

    @property
    def is_standard(self) -> bool:
        """Whether OBJECT names a spectrophotometric standard, be it on this IFU or the other."""
        return find_standard(self.object_name) is not None

    @property
    def binning(self) -> str:
        """Binning of the frames, ``mixed`` where they differ."""
        found = {frame.binning for frame in self.amps.values()}
        return found.pop() if len(found) == 1 else "mixed"

    @property
    def label(self) -> str:
        """The exposure in a few words."""
        return f"{self.night} obs {self.obsid:07d} exp{self.exp:02d} {self.ifuslot} {self.kind}"

    def missing(self, amps: Iterable[str]) -> tuple[str, ...]:
        """Which of these amplifiers there are no frames of."""
        return tuple(amp for amp in amps if amp not in self.amps)

    def only(self, amps: Iterable[str]) -> Exposure:
        """The same exposure with these amplifiers alone."""
        wanted = set(amps)
        return replace(self, amps={amp: frame for amp, frame in self.amps.items() if amp in wanted})

    def to_dict(self) -> list[dict[str, Any]]:
        """The frames as plain values, for JSON; the rest follows from them."""
        return [frame.to_dict() for frame in self.amps.values()]

    @classmethod
    def from_dict(cls, record: Iterable[Mapping[str, Any]]) -> Exposure:
        """The exposure that `to_dict` wrote."""
        return cls.of_frames([FrameRecord.from_dict(frame) for frame in record])

    @classmethod
    def of_frames(cls, frames: list[FrameRecord]) -> Exposure:
        """The exposure that these frames of one IFU, exposure and type make."""
        first = frames[0]
        order = sorted(frames, key=lambda frame: AMPLIFIERS.index(frame.amp))
        amps = {frame.amp: frame for frame in order}
        return cls(first.night, first.obsid, first.exp, first.ifuslot, first.kind, amps)


@dataclass(frozen=True, eq=False)
class RawAmplifier:
    """Raw image of one amplifier.

    Parameters
    ----------
    data : (rows, columns) uint16 array
        Counts [ADU] as stored: not oriented, overscan at the end of every row.
    header : Header
        Complete primary header; characters that FITS does not allow are replaced by ``?``, unreadable cards left out.
    record : FrameRecord
        Where it came from.
    """

    data: np.ndarray
    header: fits.Header
    record: FrameRecord


def _read_bytes(record: FrameRecord) -> bytes:
    try:
        with open(nearest(record.container[0]), "rb") as stream:
            stream.seek(record.offset)
            content = stream.read(record.size)
    except OSError as error:
        raise UnreadableFrameError(f"{record.path} cannot be read: {error.strerror}; check the raw archive") from error
    if len(content) < record.size:
        raise UnreadableFrameError(f"{record.path} ends {record.size - len(content)} bytes early: {_AGAIN}")
    return content


_AGAIN = "the raw file has changed since it was indexed or is damaged; run the reduction again"


def _clean_header(block: bytes) -> fits.Header:
    """Header without anything that astropy would refuse when it is looked at or written."""
    header = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        raw = fits.Header.fromstring(block.translate(_BAD_BYTES))
        for card in raw.cards:
            try:
                card.verify("silentfix")
                header.append((card.keyword, card.value, card.comment), end=True)
            except (VerifyError, ValueError):
                continue
    return header


def _counts(content: bytes, start: int, cards: Cards, record: FrameRecord) -> np.ndarray:
    """Data unit as (rows, columns) uint16 [ADU]."""
    kinds = {8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}
    kind = kinds.get(cards.get("BITPIX"))
    zero, scale = number(cards, "BZERO") or 0.0, number(cards, "BSCALE")
    n_rows, n_columns = record.shape
    if kind is None or len(content) < start + n_rows * n_columns * np.dtype(kind).itemsize:
        raise UnreadableFrameError(f"{record.path} does not hold {n_rows} x {n_columns} pixels: {_AGAIN}")
    stored = np.frombuffer(content, kind, n_rows * n_columns, start).reshape(record.shape)
    if kind == ">i2" and zero == 32768 and scale in (None, 1):
        # adding 32768 to a signed number of 16 bits flips its highest bit
        return stored.astype(np.int16).view(np.uint16) ^ np.uint16(0x8000)
    values = zero + (1.0 if scale is None else scale) * stored.astype(float)
    if not np.all(np.isfinite(values)) or values.min() < 0 or values.max() > 65535 or np.any(values % 1):
        raise UnreadableFrameError(
            f"{record.path} holds numbers that no raw frame has (not whole, not finite, or outside of 0 to 65535): copy it "
            "again from the archive, or leave it out (--leave-out for science, --exclude for calibrations)"
        )
    return values.astype(np.uint16)


def read_amplifier(record: FrameRecord) -> RawAmplifier:
    """Read one frame from where it lies, with one seek.

    Parameters
    ----------
    record : FrameRecord
        From an index, or from the JSON of a calibration choice.

    Returns
    -------
    RawAmplifier
        Image (rows, columns) uint16 [ADU], complete header.

    Raises
    ------
    UnreadableFrameError
        If the file is gone, cut off, or has other content at that place than when it was indexed.
    """
    content = _read_bytes(record)
    try:
        block = read_header_block(io.BytesIO(content), 0, len(content))
    except DamagedHeaderError as error:
        raise UnreadableFrameError(f"{record.path}: {error}; {_AGAIN}") from error
    cards = parse_cards(block, frozenset(record.cards) | frozenset(STRUCTURE))
    same = content.startswith(b"SIMPLE  =") and all(cards.get(key) == value for key, value in record.cards.items())
    if not same or (cards.get("NAXIS2"), cards.get("NAXIS1")) != record.shape:
        raise UnreadableFrameError(f"{record.path} is not the frame that was indexed: {_AGAIN}")
    return RawAmplifier(_counts(content, len(block), cards, record), _clean_header(block), record)


def digest(record: FrameRecord) -> str:
    """SHA-256 of the bytes of the frame's FITS file, wherever they lie: the same in all three layouts.

    Raises
    ------
    UnreadableFrameError
        If the file is gone or cut off.
    """
    return hashlib.sha256(_read_bytes(record)).hexdigest()
