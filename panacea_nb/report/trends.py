"""Measures of all nights over time: a page and a table; a night that leaves its band is flagged."""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.table import MaskedColumn, Table

from ..products.layout import Layout
from ..products.write import write_bytes
from ..qa.verdict import thresholds
from . import charts, find
from .links import relative
from .pages import environment
from .records import Record, channel_order, fixed, number, read_records

SIGMAS = 5.0
FEWEST = 5  # other nights of a channel from which a band can be made
_MAD = 1.4826


@dataclass(frozen=True)
class Measure:
    """One measure that is followed: its name, its stage, and how its band is made."""

    name: str
    stage: str
    title: str
    unit: str
    why: str
    least: float
    relative: bool
    per: str
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One night and channel of a measure, its band, and why it is flagged."""

    night: str
    tag: str
    channel: str
    measure: str
    value: float
    tasks: int
    low: float = float("nan")
    high: float = float("nan")
    flag: str = ""

    @property
    def day(self) -> float:
        """The night as a number, for an axis."""
        return float(dt.date(int(self.night[:4]), int(self.night[4:6]), int(self.night[6:])).toordinal())

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.night}_{self.tag}" if self.tag else self.night


@dataclass(frozen=True)
class Made:
    """What was written, and what to tell."""

    page: Path
    table: Path
    nights: int
    flagged: tuple[Point, ...]

    @property
    def text(self) -> str:
        """For the terminal."""
        measures = known_measures()
        lines = [f"{self.nights} nights; {len(self.flagged)} measures left their band" + (":" if self.flagged else "")]
        lines += [
            f"  {p.label} {p.channel}: {measures[p.measure].title} {number(p.value)}: {p.flag}" for p in self.flagged
        ]
        return "\n".join([*lines, str(self.page), str(self.table)])


@lru_cache(maxsize=1)
def known_measures() -> dict[str, Measure]:
    """What is followed, from ``trends.yaml``."""
    content = yaml.safe_load(resources.files(__package__).joinpath("trends.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in content.items():
        rule = thresholds()[entry["stage"]][name]
        text = str(entry["least"])
        least = float(text.rstrip("%")) / (100 if "%" in text else 1)
        about = (name, entry["stage"], entry["title"], rule.get("unit", ""), entry["why"])
        found[name] = Measure(*about, least, "%" in text, entry["per"], rule)
    return found


def build(root: Path) -> Made:
    """Write ``ROOT/trends/index.html`` and ``trends.ecsv`` from the records of all nights under a root.

    Raises
    ------
    RunNotFoundError
        If there is no night.
    """
    layouts = Layout.runs(root)
    if not layouts:
        raise find.RunNotFoundError(f"no run lies under {root}: name the output root, the folder that holds NIGHTS")
    points = banded([point for layout in layouts for point in measured(layout)])
    folder = root / "trends"
    table = write_bytes(folder / "trends.ecsv", ecsv(points).encode())
    flagged = tuple(point for point in points if point.flag)
    pages = {layout.night_dir.name: layout.report_dir / "index.html" for layout in layouts}
    text = (
        environment()
        .get_template("trends.html.j2")
        .render(
            nights=[layout.night_dir.name for layout in layouts],
            flagged=sorted(flagged, key=lambda point: (point.label, point.measure), reverse=True),
            measures=known_measures(),
            charts=[chart(measure, points) for measure in known_measures().values()],
            pages={name: relative(path, folder) for name, path in pages.items() if path.is_file()},
            table=relative(table, folder),
            fewest=FEWEST,
            sigmas=fixed(SIGMAS, 0),
            points=points,
        )
    )
    return Made(write_bytes(folder / "index.html", text.encode("utf-8")), table, len(layouts), flagged)


def measured(layout: Layout) -> list[Point]:
    """The measures of one night, a point per channel."""
    records, _ = read_records(layout.status_dir)
    values: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for metric in record.metrics if record.state == "succeeded" else ():
            measure = known_measures().get(metric.name)
            if measure is None or measure.stage != record.stage or not _counts(metric.name, metric.value, record):
                continue
            values.setdefault((measure.name, record.channel), []).append(float(metric.value))
    return [
        Point(layout.night, layout.tag, channel, name, _of_night(known_measures()[name].per, found), len(found))
        for (name, channel), found in values.items()
    ]


def banded(points: list[Point]) -> list[Point]:
    """The points with their bands and flags, in order of time.

    The band of a night is made from the other nights of its channel, so that a bad one does not widen its own.
    """
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.measure, point.channel), []).append(point)
    made = []
    for (name, _), group in groups.items():
        measure = known_measures()[name]
        for point in group:
            others = np.array([other.value for other in group if other.night != point.night])
            low, high = _band(measure, others)
            made.append(
                Point(
                    point.night, point.tag, point.channel, name, point.value, point.tasks, low, high,
                    _flag(measure, point, low, high),
                )
            )  # fmt: skip
    order = {name: i for i, name in enumerate(known_measures())}
    return sorted(made, key=lambda p: (p.night, p.tag, order[p.measure], channel_order(p.channel)))


def ecsv(points: list[Point]) -> str:
    """The points as a table."""
    table = Table(meta={"about": "measures of nights, made by panacea-nb trends"})
    for name in ("night", "tag", "channel", "measure"):
        table[name] = np.array([getattr(point, name) for point in points], dtype=str)
    table["unit"] = np.array([known_measures()[point.measure].unit for point in points], dtype=str)
    table["value"] = [point.value for point in points]
    table["tasks"] = [point.tasks for point in points]
    for name, text in (("low", "lower end of the band"), ("high", "upper end of the band")):
        data = np.array([getattr(point, name) for point in points], float)
        table[name] = MaskedColumn(data, mask=~np.isfinite(data), description=text)
    table["flagged"] = [bool(point.flag) for point in points]
    table["why"] = np.array([point.flag for point in points], dtype=str)
    buffer = io.StringIO()
    table.write(buffer, format="ascii.ecsv")
    return buffer.getvalue()


def chart(measure: Measure, points: list[Point]) -> dict[str, Any]:
    """One measure over time, as SVG with what it shows in words."""
    mine = [point for point in points if point.measure == measure.name]
    flagged = [point for point in mine if point.flag]
    says = f"{measure.title}, {len({point.label for point in mine})} nights: "
    says += (
        "; ".join(f"{p.label} {p.channel} {number(p.value)} left its band" for p in flagged[:5])
        or "every night within its band"
    )
    return {"measure": measure, "svg": charts.over_nights(measure, mine, says) if mine else "", "says": says}


def _counts(name: str, value: Any, record: Record) -> bool:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return False
    # Where no sky line told the wavelength zero, a shift of 0 is no measurement.
    return not (name == "wave_shift" and any(decision["code"] == "NOWAVEZERO" for decision in record.decisions))


def _of_night(per: str, values: list[float]) -> float:
    return float(max(values) if per == "worst" else np.median(values))


def _band(measure: Measure, others: np.ndarray) -> tuple[float, float]:
    if others.size < FEWEST:
        return float("nan"), float("nan")
    middle = float(np.median(others))
    scatter = _MAD * float(np.median(np.abs(others - middle)))
    half = max(SIGMAS * scatter, measure.least * (abs(middle) if measure.relative else 1.0))
    low = middle - half
    return max(low, 0.0) if (others >= 0).all() else low, middle + half


def _flag(measure: Measure, point: Point, low: float, high: float) -> str:
    """Why a night is flagged; empty where it is not.  Where there is no band yet, the limits of the verdicts stand in for it."""
    if math.isfinite(low):
        outside = not low <= point.value <= high
        return f"outside {number(low)} to {number(high)} of the other nights" if outside else ""
    rule = {**measure.limits, **measure.limits.get("channels", {}).get(point.channel, {})}
    warn, bad = rule.get("warn"), rule.get("bad", "high")
    if warn is None:
        return ""
    if bad == "outside":
        return (
            f"outside the limits {number(warn[0])} to {number(warn[1])}"
            if not warn[0] <= point.value <= warn[1]
            else ""
        )
    if bad == "low":
        return f"below the limit {number(warn)}" if point.value < warn else ""
    if rule.get("count"):
        return f"{number(warn)} or more" if point.value >= warn else ""
    return f"above the limit {number(warn)}" if point.value > warn else ""
