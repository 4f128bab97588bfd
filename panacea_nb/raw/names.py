"""Names in the raw archive: nights, observations, frames, and text from headers that must be fit to print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath

from ..errors import RequestError
from ..instrument import CHANNELS

KINDS = {
    "zro": "bias",
    "drk": "dark",
    "twi": "twilight",
    "flt": "internal flat",
    "cmp": "arc",
    "sci": "science",
    "eng": "engineering",
}
AMPLIFIERS = ("LL", "LU", "RL", "RU")
IFU_SLOTS = tuple(sorted({channel.ifuslot for channel in CHANNELS.values()}))

_FRAME = re.compile(r"(\d{8})T(\d{6})(?:\.(\d{1,9}))?_(\d{3})([A-Z]{2})_([a-z]{3})\.fits", re.ASCII)
_TIMED = re.compile(r"(\d{8})T(\d{6})(?:\.(\d{1,9}))?_", re.ASCII)
_OBSERVATION = re.compile(r"lrs2(\d{7})", re.ASCII)
_EXPOSURE = re.compile(r"exp(\d{2,4})", re.ASCII)
_UNPRINTABLE = re.compile(r"[^ -~]")


class BadNightError(RequestError):
    """What was given as a night is not a date."""


class BadNameError(ValueError):
    """A file of the archive has a name that says no frame; the message says which part of it."""


@dataclass(frozen=True)
class FrameName:
    """What the path of a raw frame says; `start` is UT, without a time zone."""

    obsid: int
    exp: int
    start: datetime
    ifuslot: str
    amp: str
    kind: str


def night_date(night: str) -> date:
    """The date of a night YYYYMMDD; `BadNightError` when it is none."""
    text = str(night)
    try:
        if not re.fullmatch(r"[0-9]{8}", text):
            raise ValueError
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise BadNightError(f"night {night!r} is not a date: write it as YYYYMMDD, such as 20250115") from None


def shift_night(night: str, days: int) -> str:
    """The night `days` later (earlier when negative)."""
    return (night_date(night) + timedelta(days=days)).strftime("%Y%m%d")


def parse_time(day: str, clock: str, fraction: str | None) -> datetime:
    """Time of ``YYYYMMDD``, ``HHMMSS`` and the digits after the point; `BadNameError` when there is no such time."""
    try:
        moment = datetime.strptime(day + clock, "%Y%m%d%H%M%S")
    except ValueError:
        raise BadNameError(f"{day}T{clock} is no time") from None
    return moment + timedelta(seconds=float(f"0.{fraction}")) if fraction else moment


def leading_time(name: str) -> datetime | None:
    """Time that a file name begins with (``20250115T031500.5_...``), None when it begins otherwise."""
    match = _TIMED.match(name)
    if match is None:
        return None
    try:
        return parse_time(*match.groups())
    except BadNameError:
        return None


def observation_number(name: str) -> int | None:
    """Observation of ``lrs20000012`` or ``lrs20000012.tar``, None for any other name."""
    match = _OBSERVATION.fullmatch(name.removesuffix(".tar"))
    return int(match.group(1)) if match else None


def parse_frame_path(path: str) -> FrameName:
    """Read the path of a frame, which ends in ``lrs2NNNNNNN/expNN/lrs2/{time}_{ifu}{amp}_{kind}.fits``.

    Raises
    ------
    BadNameError
        If a part is not as it should be.
    """
    parts = PurePosixPath(path).parts
    if len(parts) < 4 or parts[-2] != "lrs2":
        raise BadNameError("not in a folder lrs2NNNNNNN/expNN/lrs2")
    obsid = observation_number(parts[-4])
    exposure = _EXPOSURE.fullmatch(parts[-3])
    if obsid is None or exposure is None or parts[-4].endswith(".tar"):
        raise BadNameError("not in a folder lrs2NNNNNNN/expNN/lrs2")
    match = _FRAME.fullmatch(parts[-1])
    if match is None:
        raise BadNameError("name is not {YYYYMMDD}T{HHMMSS.s}_{ifuslot}{amp}_{type}.fits")
    day, clock, fraction, ifuslot, amp, kind = match.groups()
    if ifuslot not in IFU_SLOTS:
        raise BadNameError(f"IFU slot {ifuslot} is not of LRS2 ({', '.join(IFU_SLOTS)})")
    if amp not in AMPLIFIERS:
        raise BadNameError(f"amplifier {amp} is not one of {', '.join(AMPLIFIERS)}")
    if kind not in KINDS:
        raise BadNameError(f"type {kind} is not one of {', '.join(KINDS)}")
    return FrameName(obsid, int(exposure.group(1)), parse_time(day, clock, fraction), ifuslot, amp, kind)


def clean_text(value: object, limit: int = 80) -> str:
    """Text that is safe to print: printable ASCII on one line, ``?`` for any other character, at most `limit` long.

    Headers and file names are written by many hands; a control character in OBJECT must not reach a terminal, a log
    that is searched line by line, or a FITS card.
    """
    text = "" if value is None else str(value)
    return _UNPRINTABLE.sub("?", text[: 4 * limit].strip())[:limit].strip()
