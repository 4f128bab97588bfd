"""Values of options: each check brings what a user gave to its type, or says why it cannot be meant (ValueError)."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHANNEL_NAMES = ("uv", "orange", "red", "farred")
CALIBRATION_TYPES = ("zro", "drk", "twi", "flt", "cmp")
SKY_MODES = ("auto", "region", "mask", "exposure", "none")
SKY_REFINEMENTS = ("none", "polynomial", "pca")
EXTRACTIONS = ("psf", "aperture", "extended")
TELLURIC = ("none", "mean", "standard")
_SHAPE_SIZES = {"circle": 3, "annulus": 4, "ellipse": 5}
N_FIBERS = 280
_FIRST_YEAR = 2015  # LRS2 saw first light in November 2015


def as_flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise ValueError("is not true or false")


def as_text(value: Any) -> str:
    """A text of one line."""
    if isinstance(value, bool | float) or not isinstance(value, str | int | Path):
        raise ValueError("is not a text")
    text = str(value)
    if any(ord(character) < 32 for character in text):
        raise ValueError("holds control characters")
    return text


def as_date(value: Any) -> str:
    """A date YYYYMMDD in LRS2's life."""
    if isinstance(value, dt.date):
        raise ValueError("is not a date YYYYMMDD (write it without dashes)")
    text = as_text(value).strip()
    try:
        date = dt.datetime.strptime(text, "%Y%m%d").date() if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        date = None
    if date is None:
        raise ValueError("is not a date YYYYMMDD")
    if not _FIRST_YEAR <= date.year <= dt.date.today().year + 1:
        raise ValueError(f"is outside the life of LRS2 (from {_FIRST_YEAR} until now)")
    return text


def as_optional_date(value: Any) -> str:
    """A date, or nothing."""
    return "" if value in ("", None) else as_date(value)


def as_number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is not a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def as_positive(value: Any) -> float:
    """A number greater than 0."""
    number = as_number(value)
    if number <= 0:
        raise ValueError("must be greater than 0")
    return number


def as_count(value: Any) -> int:
    """A whole number of 0 or more."""
    text = str(value).strip()
    if isinstance(value, bool | float) or not re.fullmatch(r"\d{1,9}", text):
        raise ValueError("is not a whole number of 0 or more")
    return int(text)


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A check that also takes nothing, as None."""
    return lambda value: None if value is None or value == "" else check(value)


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return [item for part in value for item in (_items(part) if isinstance(part, str) else [part])]
    if value is None:
        return []
    return [value]


def as_channels(value: Any) -> tuple[str, ...]:
    """Names of channels, in order of wavelength."""
    names = [str(item).lower() for item in _items(value)]
    for name in names:
        if name not in CHANNEL_NAMES:
            raise ValueError(f"holds {name!r}, which is no channel of LRS2; channels are {', '.join(CHANNEL_NAMES)}")
    if not names:
        raise ValueError(f"names no channel; channels are {', '.join(CHANNEL_NAMES)}")
    return tuple(name for name in CHANNEL_NAMES if name in names)


def as_exclusions(value: Any) -> tuple[int | str, ...]:
    """Observations, N or YYYYMMDD:N, sorted."""
    found: set[int | str] = set()
    for item in _items(value):
        night, sign, number = str(item).rpartition(":")
        try:
            found.add(f"{as_date(night)}:{as_count(number)}" if sign else as_count(item))
        except ValueError as error:
            raise ValueError(f"holds {item!r}, which {error} (an observation is N or YYYYMMDD:N)") from None
    return tuple(sorted(found, key=str))


def as_texts(value: Any) -> tuple[str, ...]:
    """Texts, from a list or separated by commas."""
    return tuple(as_text(item) for item in _items(value))


def as_cal_dates(value: Any) -> dict[str, str]:
    """Dates by type of calibration, from a mapping or TYPE=DATE."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        pairs = [(str(kind), date) for kind, date in value.items()]
    else:
        pairs = []
        for item in _items(value):
            kind, sign, date = str(item).partition("=")
            if not sign:
                raise ValueError(f"{item!r} is not TYPE=DATE, such as twi=20250110")
            pairs.append((kind.strip(), date.strip()))
    chosen: dict[str, str] = {}
    for kind, date in pairs:
        if kind not in CALIBRATION_TYPES:
            raise ValueError(f"holds the type {kind!r}; calibration types are {', '.join(CALIBRATION_TYPES)}")
        try:
            chosen[kind] = as_date(date)
        except ValueError as error:
            raise ValueError(f"{kind}={date} {error}") from None
    return dict(sorted(chosen.items()))


def as_tag(value: Any) -> str:
    """A name that can be a folder."""
    text = as_text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", text):
        raise ValueError("may hold only letters, digits and . _ + - (at most 64, the first a letter or digit)")
    return text


def one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    """A check for one of several words."""

    def check(value: Any) -> str:
        text = as_text(value).strip().lower()
        if text not in names:
            raise ValueError(f"is none of {', '.join(names)}")
        return text

    return check


def as_degree(value: Any) -> int:
    """A degree of a polynomial, 0 to 3."""
    number = as_count(value)
    if number > 3:
        raise ValueError("must be 0 to 3")
    return number


def as_region(value: Any) -> str:
    """Only the form: what the numbers mean is checked where they are used."""
    text = re.sub(r"\s", "", as_text(value)).lower()
    for part in text.split("+") if text else ():
        found = re.fullmatch(r"([a-z]+)\(([-\d.,e]+)\)", part)
        if not found or len(found[2].split(",")) != _SHAPE_SIZES.get(found[1], 0):
            raise ValueError(
                f"is no region ({part}): write circle(x,y,r), annulus(x,y,r_in,r_out) or ellipse(x,y,a,b,angle), joined by +"
            )
    return text


def as_exposures(value: Any) -> tuple[str, ...]:
    """Observations or single exposures, N or N_expNN, as `0000012` or `0000012_exp01`."""
    found = set()
    for item in _items(value):
        parts = re.fullmatch(r"(\d{1,9})(?:_exp(\d{1,3}))?", str(item))
        if isinstance(item, bool) or not parts or parts[2] == "00":
            raise ValueError(f"holds {item!r} (an observation is N, one exposure of it N_expNN)")
        found.add(f"{int(parts[1]):07d}" + (f"_exp{int(parts[2]):02d}" if parts[2] else ""))
    return tuple(sorted(found))


def _by_channel(value: Any, one: Callable[[str], str]) -> dict[str, str]:
    """Texts by channel, from a mapping or CHANNEL=LIST, each brought to its form by ``one``."""
    if isinstance(value, Mapping):
        pairs = [(str(name), "" if text is None else ",".join(map(str, text)) if isinstance(text, list) else str(text))
                 for name, text in value.items()]  # fmt: skip
    else:
        pairs = []
        for item in [value] if isinstance(value, str) else value or ():
            name, sign, text = str(item).partition("=")
            if not sign:
                raise ValueError(f"{item!r} is not CHANNEL=LIST, such as uv=12-14,80")
            pairs.append((name, text))
    found: dict[str, str] = {}
    for name, text in pairs:
        name = name.strip().lower()
        if name not in CHANNEL_NAMES:
            raise ValueError(f"holds {name!r}, which is no channel of LRS2; channels are {', '.join(CHANNEL_NAMES)}")
        text = one(",".join(filter(None, (found.get(name, ""), text))))
        if text:
            found[name] = text
    return {name: found[name] for name in CHANNEL_NAMES if name in found}


def as_fibers_by_channel(value: Any) -> dict[str, str]:
    """Fibres by channel, each as a list such as `12-14,80`."""
    return _by_channel(value, as_fibers)


def as_fibers(text: str) -> str:
    """Numbers of fibres, 1 to 280, in order and without gaps where they can be: `12-14,80`."""
    chosen: set[int] = set()
    for word in filter(None, re.split(r"[,\s]+", text)):
        parts = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", word)
        first, last = (int(parts[1]), int(parts[2] or parts[1])) if parts else (0, 0)
        if not 1 <= first <= last <= N_FIBERS:
            raise ValueError(f"holds {word!r}, which is no fibre from 1 to {N_FIBERS}, nor a range such as 12-14")
        chosen |= set(range(first, last + 1))
    words: list[list[int]] = []
    for fiber in sorted(chosen):
        if words and words[-1][1] == fiber - 1:
            words[-1][1] = fiber
        else:
            words.append([fiber, fiber])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in words)


def as_lines_by_channel(value: Any) -> dict[str, str]:
    """Wavelengths of arc lines by channel, each as a list such as `3650.2,4046.6`."""
    return _by_channel(value, _as_waves)


def _as_waves(text: str) -> str:
    waves = sorted({as_positive(word) for word in re.split(r"[,\s]+", text) if word})
    return ",".join(f"{wave:.3f}".rstrip("0").rstrip(".") for wave in waves)
