"""What is asked of a run: every option with its help, unit and check, to and from YAML."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import RequestError
from . import files

CHANNEL_NAMES = ("uv", "orange", "red", "farred")
CALIBRATION_TYPES = ("zro", "drk", "twi", "flt", "cmp")
_FIRST_YEAR = 2015  # LRS2 saw first light in November 2015


class DefinitionError(RequestError):
    """A run definition (command line or YAML) holds something that cannot be meant."""


# --- the kinds of values ----------------------------------------------------------------------------------------------
def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("is not true or false")


def _text(value: Any) -> str:
    if isinstance(value, bool | float) or not isinstance(value, str | int | Path):
        raise ValueError("is not a text")
    text = str(value)
    if any(ord(character) < 32 for character in text):
        raise ValueError("holds control characters")
    return text


def _date(value: Any) -> str:
    if isinstance(value, dt.date):
        raise ValueError("is not a date YYYYMMDD (write it without dashes)")
    text = _text(value).strip()
    try:
        date = dt.datetime.strptime(text, "%Y%m%d").date() if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        date = None
    if date is None:
        raise ValueError("is not a date YYYYMMDD")
    if not _FIRST_YEAR <= date.year <= dt.date.today().year + 1:
        raise ValueError(f"is outside the life of LRS2 (from {_FIRST_YEAR} until now)")
    return text


def _optional_date(value: Any) -> str:
    return "" if value in ("", None) else _date(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is not a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError("must be greater than 0")
    return number


def _count(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool | float) or not re.fullmatch(r"\d{1,9}", text):
        raise ValueError("is not a whole number of 0 or more")
    return int(text)


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None or value == "" else check(value)


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return [item for part in value for item in (_items(part) if isinstance(part, str) else [part])]
    if value is None:
        return []
    return [value]


def _channels(value: Any) -> tuple[str, ...]:
    names = [str(item).lower() for item in _items(value)]
    for name in names:
        if name not in CHANNEL_NAMES:
            raise ValueError(f"holds {name!r}, which is no channel of LRS2; channels are {', '.join(CHANNEL_NAMES)}")
    if not names:
        raise ValueError(f"names no channel; channels are {', '.join(CHANNEL_NAMES)}")
    return tuple(name for name in CHANNEL_NAMES if name in names)


def _exclusions(value: Any) -> tuple[int | str, ...]:
    found: set[int | str] = set()
    for item in _items(value):
        night, sign, number = str(item).rpartition(":")
        try:
            found.add(f"{_date(night)}:{_count(number)}" if sign else _count(item))
        except ValueError as error:
            raise ValueError(f"holds {item!r}, which {error} (an observation is N or YYYYMMDD:N)") from None
    return tuple(sorted(found, key=str))


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _items(value))


def _cal_dates(value: Any) -> dict[str, str]:
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
            chosen[kind] = _date(date)
        except ValueError as error:
            raise ValueError(f"{kind}={date} {error}") from None
    return dict(sorted(chosen.items()))


def _tag(value: Any) -> str:
    text = _text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", text):
        raise ValueError("may hold only letters, digits and . _ + - (at most 64, the first a letter or digit)")
    return text


def option(
    default: Any,
    check: Callable[[Any], Any],
    text: str,
    *flags: str,
    unit: str = "",
    metavar: str = "",
    repeat: bool = False,
    action_only: bool = False,
) -> Any:
    """A field of `RunDefinition` with all that command line, YAML check and documentation need to know of it."""
    metadata = {
        "check": check,
        "help": text,
        "flags": flags,
        "unit": unit,
        "metavar": metavar,
        "repeat": repeat,
        "action_only": action_only,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class RunDefinition:
    """Everything that a reduction of one night was asked to do; values are checked when it is made.

    Raises
    ------
    DefinitionError
        With one message that names the option, the value and what is allowed.
    """

    night: str = option("", _optional_date, "night to reduce", "-d", "--date", unit="UT date, YYYYMMDD", metavar="DATE")
    sides: tuple[str, ...] = option(
        CHANNEL_NAMES, _channels, "channels, comma-separated", "-s", "--sides", metavar="LIST"
    )
    object: str = option(
        "",
        _text,
        "only exposures whose OBJECT contains NAME (case ignored), and the standards of the same IFU",
        "-o",
        "--object",
        metavar="NAME",
    )
    use_flat: bool = option(False, _flag, "internal flats instead of twilights for trace and flat", "-uf", "--use_flat")
    correct_ftf: bool = option(
        False,
        _flag,
        "refine the fibre-to-fibre normalisation from the sky of the science frame",
        "-cf",
        "--correct_ftf",
    )
    central_wave: float | None = option(
        None,
        _optional(_positive),
        "centre of the collapse window (default: mid-channel)",
        "-cw",
        "--central_wave",
        unit="A, air",
        metavar="WAVE",
    )
    wavelength_bin: float = option(
        10.0, _positive, "half-width of the collapse window", "-wb", "--wavelength_bin", unit="A", metavar="WIDTH"
    )
    reduce_eng: bool = option(False, _flag, "reduce engineering frames as science", "-re", "--reduce_eng")
    reduce_flt: bool = option(False, _flag, "reduce internal flats as science", "-rf", "--reduce_flt")
    reduce_drk: bool = option(False, _flag, "reduce darks as science", "-rd", "--reduce_drk")
    baseraw: str = option(
        "", _text, "folder that holds the raw nights (default: $PANACEA_BASERAW)", "--baseraw", metavar="DIR"
    )
    source_x: float | None = option(
        None,
        _optional(_number),
        "fixed source position along IFU x, with --source_y",
        "--source_x",
        unit="arcsec at the centre of the collapse window",
        metavar="X",
    )
    source_y: float | None = option(
        None,
        _optional(_number),
        "fixed source position along IFU y, with --source_x",
        "--source_y",
        unit="arcsec at the centre of the collapse window",
        metavar="Y",
    )
    standard_star_date: str = option(
        "",
        _optional_date,
        "night of the standard whose response replaces the default, with --standard_star_obsid",
        "--standard_star_date",
        unit="YYYYMMDD",
        metavar="DATE",
    )
    standard_star_obsid: int | None = option(
        None, _optional(_count), "observation of that standard", "--standard_star_obsid", metavar="N"
    )
    output: str = option("runs", _text, "root of everything that is written", "--output", metavar="ROOT")
    tag: str = option("", _tag, "name of a variation, which gets its own folders", "--tag", metavar="NAME")
    overwrite: bool = option(
        False,
        _flag,
        "replace products of which this run has no record (of another run definition)",
        "--overwrite",
        action_only=True,
    )
    obsid: int | None = option(None, _optional(_count), "only this observation", "--obsid", metavar="N")
    exp: int | None = option(None, _optional(_count), "only this exposure of it", "--exp", metavar="N")
    first: bool = option(False, _flag, "only the first science exposure of each channel that is asked for", "--first")
    cal_dates: dict[str, str] = option(
        {},
        _cal_dates,
        "take calibrations of TYPE (zro, drk, twi, flt, cmp) from the night DATE; may be repeated",
        "--cal-date",
        metavar="TYPE=DATE",
        repeat=True,
    )
    exclude: tuple[int | str, ...] = option(
        (),
        _exclusions,
        "never use these observations (N, or YYYYMMDD:N of one night) as calibration; may be repeated",
        "--exclude",
        metavar="OBSID[,...]",
        repeat=True,
    )
    jobs: int | None = option(
        None,
        _optional(_count),
        "notebooks run at the same time; 0: one by one in this process (default: all cores)",
        "--jobs",
        metavar="N",
        action_only=True,
    )
    until: str = option(
        "", _text, "stop after this stage (04, 04_flat or flat)", "--until", metavar="STAGE", action_only=True
    )
    redo: tuple[str, ...] = option(
        (),
        _texts,
        "run this stage and what depends on it even if up to date; may be repeated",
        "--redo",
        metavar="STAGE",
        repeat=True,
        action_only=True,
    )
    force: bool = option(
        False, _flag, "go on past a quality gate that would stop a branch (recorded in every product)", "--force"
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            try:
                setattr(self, item.name, item.metadata["check"](value))
            except ValueError as error:
                shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
                raise DefinitionError(f"{flag_of(item)}: {str(shown)!r} {error}") from None
        self._check_together()

    def _check_together(self) -> None:
        if not self.night:
            raise DefinitionError("no night was given: name it with -d YYYYMMDD")
        if (self.source_x is None) != (self.source_y is None):
            missing = "--source_y" if self.source_y is None else "--source_x"
            raise DefinitionError(f"--source_x and --source_y go together: {missing} is missing")
        if bool(self.standard_star_date) != (self.standard_star_obsid is not None):
            missing = "--standard_star_obsid" if self.standard_star_date else "--standard_star_date"
            raise DefinitionError(f"--standard_star_date and --standard_star_obsid go together: {missing} is missing")
        if self.exp is not None and self.obsid is None:
            raise DefinitionError("--exp names one exposure of an observation: give --obsid with it")
        if self.exp == 0:
            raise DefinitionError("--exp: exposures are counted from 1")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of the frames that are reduced as science."""
        asked = (("eng", self.reduce_eng), ("flt", self.reduce_flt), ("drk", self.reduce_drk))
        return tuple(kind for kind, wanted in asked if wanted) or ("sci",)

    # --- YAML ---------------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """All options as plain YAML values, defaults included."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def to_yaml(self) -> str:
        """The definition as YAML text that `from_yaml` reads back to an equal definition."""
        head = "# What this run was asked to do. Repeat it with: panacea-nb reduce --config run.yaml\n"
        return head + yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "the run definition") -> RunDefinition:
        """A definition from names and values; unknown names are refused.

        Raises
        ------
        DefinitionError
            If a name is unknown or a value is not allowed.
        """
        return cls(**check_names(values, where))

    @classmethod
    def from_yaml(cls, path: Path) -> RunDefinition:
        """The definition in a YAML file."""
        return cls.from_dict(read_yaml(path), where=str(path))

    def write(self, path: Path) -> None:
        """Write the definition as YAML, in one step."""
        files.write_text(path, self.to_yaml())


def flag_of(item: dataclasses.Field) -> str:
    """The option as users type it, long form."""
    return item.metadata["flags"][-1]


def check_names(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with every name brought to that of a field; a name that is none is refused with the nearest one."""
    by_name = {item.name: item.name for item in dataclasses.fields(RunDefinition)}
    by_name |= {flag_of(item).lstrip("-").replace("-", "_"): item.name for item in dataclasses.fields(RunDefinition)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = by_name.get(str(key).replace("-", "_"))
        if name is None:
            near = difflib.get_close_matches(str(key), by_name, n=1)
            hint = (
                f" (did you mean {near[0]!r}?)" if near else f"; options are {', '.join(sorted(set(by_name.values())))}"
            )
            raise DefinitionError(f"{where}: unknown option {str(key)!r}{hint}")
        if name in checked:
            raise DefinitionError(f"{where}: option {name!r} is given twice")
        checked[name] = value
    return checked


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, without two of its traps: leading zeros are no octal numbers, and no key comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_plain_int(self, node: yaml.ScalarNode) -> Any:
        text = self.construct_scalar(node)
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_plain_int)


def read_yaml(path: Path) -> dict[str, Any]:
    """Names and values in a YAML file.

    Raises
    ------
    DefinitionError
        If the file cannot be read or is no mapping of options.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DefinitionError(f"the configuration {path} cannot be read: {reason}") from error
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DefinitionError(f"the configuration {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise DefinitionError(f"the configuration {path} must be a list of lines 'option: value'")
    return values
