"""What the workflow recorded about each task of a night, read for the report.

A record is a JSON file; it may come from an older version or from a run that was killed, so every field may be missing,
and a file that cannot be read becomes a line on the page instead of an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..products.layout import safe_name
from .privacy import LONGEST_NAME, clean

VERDICTS = ("pass", "warn", "fail")
UNFINISHED = ("failed", "blocked", "aborted", "running", "pending")
BADGES = {
    "pass": "every measure within its limits",
    "warn": "look at it: a measure is outside its usual range, or a fallback was used",
    "fail": "it was reduced, but a measure is outside what can be used",
    "failed": "the task stopped with an error",
    "blocked": "not tried, because a task it needs failed",
    "aborted": "interrupted; run again to go on",
    "running": "not finished when the page was built",
    "pending": "not started when the page was built",
    "unjudged": "done, but it left no verdict",
}

_TASK_ID = re.compile(
    r"(?P<stage>\d\d_[a-z0-9_]+?)(?:-(?P<obsid>\d{7,})-exp(?P<exp>\d+))?(?:-(?P<channel>[a-z]+))?(?:\.(?P<target>[\w.+-]+))?"
)
# The order in which a page names them; an unknown channel comes last.
_CHANNEL_ORDER = {"uv": 0, "orange": 1, "red": 2, "farred": 3}


@dataclass(frozen=True)
class Metric:
    """One measure of a task, its limits and what they are for."""

    name: str
    value: Any
    unit: str = ""
    verdict: str = ""
    threshold: Any = None
    reason: str = ""

    @property
    def label(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    @property
    def shown(self) -> str:
        """The value with its unit, as text."""
        return f"{number(self.value)} {self.unit}".strip()

    @property
    def limits(self) -> str:
        """The thresholds as text, empty when there are none."""
        return _limits(self.threshold)


@dataclass(frozen=True)
class Record:
    """One task: what it was, how it ended, what it left."""

    id: str
    stage: str
    state: str = "pending"
    channel: str = ""
    obsid: int | None = None
    exp: int | None = None
    program: str = ""
    target: str = ""
    verdict: str = ""
    notebook: str = ""
    products: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    decisions: tuple[Mapping[str, str], ...] = ()
    error: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wall: float | None = None
    cpu: float | None = None
    memory: float | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def badge(self) -> str:
        """One of `BADGES`: the verdict of what was done, else the state."""
        if self.state in UNFINISHED:
            return self.state
        return self.verdict if self.verdict in VERDICTS else "unjudged"

    @property
    def folder(self) -> str:
        """Where the task's page lies under the report: by exposure and channel, by target, by channel, or ``night``."""
        if self.target:
            return f"{safe_name(self.program)}.{safe_name(self.target)}"
        if self.obsid is not None:
            return f"{self.obsid:07d}_exp{self.exp or 1:02d}_{self.channel}"
        return self.channel or "night"

    @property
    def megabytes(self) -> float | None:
        """Peak memory of the task [MB]; None where it was not measured."""
        return round(self.memory / 1e6) if self.memory else None

    @property
    def title(self) -> str:
        """The task in words a person would use."""
        parts = [self.stage]
        if self.obsid is not None:
            parts.append(f"{self.obsid:07d} exp{self.exp or 1:02d}")
        if self.target:
            parts.append(clean(self.target, LONGEST_NAME))
        return " ".join([*parts, self.channel] if self.channel else parts)

    @property
    def order(self) -> tuple:
        """Sorts tasks by exposure, channel and stage; calibrations first, targets last."""
        where = (self.obsid or 0, self.exp or 0, channel_order(self.channel), self.stage)
        return (bool(self.target), self.program if self.target else "", self.target, *where)

    def metric(self, names: Iterable[str]) -> Metric | None:
        """The first metric that has one of ``names``."""
        wanted = {plain(name) for name in names}
        return next((metric for metric in self.metrics if plain(metric.name) in wanted), None)


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """All records of a status folder in order, and the names of files that could not be read."""
    records, unread = [], []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            unread.append(path.name)
            continue
        record = parse(content, path.stem)
        if record is None:
            unread.append(path.name)
        else:
            records.append(record)
    return sorted(records, key=lambda record: record.order), unread


def parse(content: Any, name: str) -> Record | None:
    """A record from what its JSON holds; None if it does not say which task it is."""
    if not isinstance(content, dict):
        return None
    match = _TASK_ID.fullmatch(str(content.get("id", name)))
    parameters = _mapping(content.get("parameters"))
    if match is None:
        return None
    obsid, exp = match["obsid"], match["exp"]
    program, target = str(parameters.get("program") or _program_of(content.get("notebook"))), ""
    if match["target"]:
        # The id is program.target, and both may hold dots: the parameters say where one ends.
        known = match["target"].removeprefix(f"{program}.") if program else match["target"]
        target = str(parameters.get("target") or known)
    products = content.get("products") or {}
    if isinstance(products, list):
        products = [item.get("path", "") if isinstance(item, dict) else item for item in products]
    return Record(
        id=match[0],
        stage=match["stage"],
        state=str(content.get("state", "pending")),
        channel=match["channel"] or "",
        obsid=int(obsid) if obsid else None,
        exp=int(exp) if exp else None,
        program=program,
        target=target,
        verdict=str(content.get("verdict") or ""),
        notebook=str(content.get("notebook") or ""),
        products=tuple(str(path) for path in products if path),
        metrics=tuple(_metric(item) for item in content.get("metrics") or () if isinstance(item, dict)),
        decisions=tuple(
            {key: clean(item.get(key, "")) for key in ("code", "text", "severity")}
            for item in content.get("decisions") or ()
            if isinstance(item, dict)
        ),
        error={key: clean(value) for key, value in _mapping(content.get("error")).items() if value},
        parameters=parameters,
        wall=_float(content.get("wall")),
        cpu=_float(content.get("cpu")),
        memory=_float(content.get("peak_memory")),
        timing={key: value for key, value in _mapping(content.get("timing")).items() if _float(value) is not None},
        attempts=_attempts(content.get("attempts")),
        versions={key: clean(value, 60) for key, value in _mapping(content.get("versions")).items()},
    )


def _program_of(notebook: Any) -> str:
    """The programme beside whose products a notebook lies; a task that was not started has no parameters that say it."""
    parts = str(notebook or "").split("/")
    return parts[1] if len(parts) > 3 and parts[0] == "LRS2" and parts[1] != "CALS" else ""


def worst(badges: Iterable[str]) -> str:
    """The badge that an observer must see first: unfinished before any verdict, fail before warn before pass."""
    found = set(badges)
    for badge in (*UNFINISHED, "fail", "warn", "pass", "unjudged"):
        if badge in found:
            return badge
    return "pending"


def channel_order(channel: str) -> tuple[int, str]:
    """Sorts channels from the blue to the red."""
    return (_CHANNEL_ORDER.get(channel, len(_CHANNEL_ORDER)), channel)


def plain(name: str) -> str:
    """A name without case, blanks and punctuation, so that ``S/N`` and ``s_n`` are one."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def number(value: Any) -> str:
    """A value as short text: four significant digits, a dash for what was not measured."""
    if value is None or value == "":
        return "\N{EN DASH}"
    if isinstance(value, bool | str):
        return str(value)
    try:
        real = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(real):
        return "\N{EN DASH}"
    if real == int(real) and abs(real) < 1e6:
        return str(int(real))
    return f"{real:.0f}" if 1e4 <= abs(real) < 1e6 else f"{real:.4g}"


def fixed(value: Any, digits: int = 2, sign: bool = False) -> str:
    """A value with ``digits`` decimals, for columns; a dash for what was not measured."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "\N{EN DASH}"
    if sign:
        return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.{digits}f}"


def _limits(threshold: Any) -> str:
    if isinstance(threshold, Mapping):
        return ", ".join(f"{key} {_limits(value)}" for key, value in threshold.items() if value is not None)
    if isinstance(threshold, list | tuple):
        return " to ".join(number(value) for value in threshold)
    return "" if threshold is None else number(threshold)


def _metric(item: dict) -> Metric:
    return Metric(
        str(item.get("name", "")),
        item.get("value"),
        str(item.get("unit") or ""),
        str(item.get("verdict") or ""),
        item.get("threshold"),
        str(item.get("reason") or ""),
    )


def _mapping(value: Any) -> dict:
    if isinstance(value, dict):
        return value
    return {"message": str(value)} if value else {}


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _attempts(value: Any) -> int:
    return len(value) if isinstance(value, list) else int(_float(value) or 0)
