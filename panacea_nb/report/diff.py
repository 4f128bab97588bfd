"""Two reductions of the same data side by side: what was asked, how it was judged, what came out."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from ..errors import RequestError
from ..products.layout import Layout
from ..products.write import write_bytes
from . import assets, drawing, interactive, targets
from .figures import extract
from .links import inside
from .pages import environment
from .privacy import LONGEST_NAME, Hidden, clean, hidden_paths, read_run
from .records import Metric, Record, number, read_records
from .site import find_target
from .spectra import Spectrum
from .targets import Target

# Where a run was read and written, and how many notebooks ran at a time, changes no result.
_OF_THE_PLACE = ("output", "baseraw", "jobs", "overwrite", "redo", "until", "tag")
_SAME = 1e-9
SHOWN_METRICS = 60
FIGURES = {"09_combine": 2, "07_flux": 1}


class NothingInCommonError(RequestError):
    """Two runs have no task in common."""


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    letter: str
    layout: Layout
    records: dict[str, Record]
    asked: dict[str, Any]
    hidden: Hidden
    name: str


@dataclass(frozen=True)
class Pair:
    """A value of both runs; ``change`` is relative where both are numbers."""

    name: str
    a: str
    b: str
    change: float | None = None
    where: str = ""

    @property
    def differs(self) -> bool:
        """Whether the two are not the same."""
        return self.a != self.b or bool(self.change)


@dataclass(frozen=True)
class Compared:
    """The spectra of one target (or exposure) in both runs."""

    name: str
    finding: str
    picture: str
    plot: str
    figures: tuple[tuple[str, str, str], ...]


def build(first: Layout, second: Layout, *, target: str = "", file: str | Path = "") -> Path:
    """Write one page that compares two runs and needs no other file.

    Parameters
    ----------
    first, second : Layout
        The runs.
    target : str
        Compare this target only: its tasks, its spectra, the calibrations.
    file : str or Path
        Where to write it; ``diff_A_B.html`` in the current folder by default.

    Raises
    ------
    NothingInCommonError
        If the runs have no task in common.
    """
    sides = (_side("A", first), _side("B", second))
    if sides[0].name == sides[1].name:
        sides = tuple(replace(side, name=f"{clean(side.layout.output.name, 40)}: {side.name}") for side in sides)
    pairs = _target_pairs(sides, target)
    kept = _kept(sides, pairs) if target else None
    common = sorted(
        (name for name in sides[0].records.keys() & sides[1].records.keys() if kept is None or name in kept),
        key=lambda name: sides[0].records[name].order,
    )
    if not common:
        raise NothingInCommonError(
            f"{first.night_dir} and {second.night_dir} have no task in common: they must be reductions of the same night"
        )
    compared = [made for made in (_compare(sides, *pair) for pair in pairs) if made is not None]
    plots = [one for one in compared if one.plot][:1]
    only = {
        side.letter: sorted(name for name in side.records.keys() - other.records.keys() if kept is None or name in kept)
        for side, other in (sides, sides[::-1])
    }
    text = (
        environment()
        .get_template("diff.html.j2")
        .render(
            sides=sides,
            target=clean(target, LONGEST_NAME),
            parameters=_parameters(sides),
            versions=_versions(sides),
            verdicts=[(sides[0].records[name], sides[1].records[name]) for name in common],
            metrics=_metrics(sides, common),
            shown=SHOWN_METRICS,
            only=only,
            compared=compared,
            plotted=plots[0].name if plots else "",
            plot=plots[0].plot if plots else "",
        )
    )
    for side in sides:
        text = side.hidden(text)
    path = Path(file) if file else Path.cwd() / f"diff_{first.night_dir.name}_{second.night_dir.name}.html"
    return write_bytes(path.absolute(), assets.one_file(text, path.absolute().parent).encode("utf-8"))


def ratio(first: Spectrum, second: Spectrum) -> np.ndarray:
    """Second over first on the wavelengths of the first; NaN where one was not measured or stands below 3 sigma."""
    good = second.measured
    if good.sum() < 2:
        return np.full(first.wave.shape, np.nan)
    other = np.interp(first.wave, second.wave[good], second.flux[good], left=np.nan, right=np.nan)
    known = first.measured & (np.abs(first.flux) > 3 * first.error)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, other / first.flux, np.nan)


def _side(letter: str, layout: Layout) -> Side:
    records, _ = read_records(layout.status_dir)
    hidden = hidden_paths(layout, (record.parameters for record in records))
    return Side(
        letter, layout, {record.id: record for record in records}, read_run(layout), hidden, layout.night_dir.name
    )


def _target_pairs(sides: tuple[Side, Side], name: str) -> list[tuple[Target, Target]]:
    known = [{t.record.id: t for t in targets.of_night(side.layout, list(side.records.values()))} for side in sides]
    if name:
        chosen = find_target(known[0].values(), name, sides[0].layout)
        return [(chosen, known[1][chosen.record.id])] if chosen.record.id in known[1] else []
    return [(known[0][key], known[1][key]) for key in known[0] if key in known[1]]


def _kept(sides: tuple[Side, Side], pairs: list[tuple[Target, Target]]) -> set[str]:
    """Tasks of the targets, and the calibrations."""
    kept = {task.id for pair in pairs for target in pair for task in (target.record, *target.tasks)}
    return kept | {r.id for side in sides for r in side.records.values() if r.channel and r.obsid is None}


def _parameters(sides: tuple[Side, Side]) -> list[Pair]:
    """What was asked, what differs first."""
    names = [name for name in dict.fromkeys((*sides[0].asked, *sides[1].asked)) if name not in _OF_THE_PLACE]
    pairs = [Pair(name, *(clean(_plain(side.asked.get(name)), 200) for side in sides)) for name in names]
    return sorted(pairs, key=lambda pair: not pair.differs)


def _plain(value: Any) -> str:
    if value in (None, "", [], {}):
        return "\N{EN DASH}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "yes" if value is True else "no" if value is False else str(value)


def _versions(sides: tuple[Side, Side]) -> list[Pair]:
    found = []
    for side in sides:
        every: dict[str, set[str]] = {}
        for record in side.records.values():
            for name, version in record.versions.items():
                every.setdefault(name, set()).add(version)
        found.append({name: ", ".join(sorted(values)) for name, values in every.items()})
    return [
        Pair(name, *(side.get(name, "\N{EN DASH}") for side in found)) for name in dict.fromkeys((*found[0], *found[1]))
    ]


def _metrics(sides: tuple[Side, Side], common: Iterable[str]) -> list[Pair]:
    """Measures that are not the same in both, the largest change first."""
    pairs = []
    for name in common:
        records = [side.records[name] for side in sides]
        known: list[dict[str, Metric]] = [{metric.name: metric for metric in record.metrics} for record in records]
        for key in known[0].keys() & known[1].keys():
            a, b = known[0][key], known[1][key]
            change = _change(a.value, b.value)
            if change or (change is None and a.value != b.value):
                pairs.append(Pair(a.label, a.shown, b.shown, change, records[0].title))
    return sorted(pairs, key=lambda pair: -abs(pair.change) if pair.change is not None else -math.inf)


def _change(a: Any, b: Any) -> float | None:
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (a, b)):
        return None
    if abs(a - b) <= _SAME * max(abs(a), abs(b)):
        return 0.0
    return (b - a) / abs(a) if a else math.copysign(math.inf, b)


def _compare(sides: tuple[Side, Side], first: Target, second: Target) -> Compared | None:
    both = [targets.read(target).lines for target in (first, second)]
    name = clean(first.record.target, LONGEST_NAME)
    figures = _figures(sides, first, second)
    if not both[0] or not both[1]:
        if not figures:
            return None
        return Compared(
            name, "Only one of the two has a spectrum." if any(both) else "Neither has a spectrum.", "", "", figures
        )
    a, b = (replace(lines[0], name=side.letter) for lines, side in zip(both, sides, strict=True))
    quotient = ratio(a, b)
    line = Spectrum("B / A", a.wave, quotient, np.ones_like(quotient), np.full_like(quotient, np.nan))
    picture = drawing.uri(drawing.ratio_figure(a, b, quotient, (sides[0].name, sides[1].name)))
    plot = interactive.spectra([a, b, line], shown=2, ratio=True)
    return Compared(name, _finding(a, b, quotient), picture, plot, figures)


def _finding(a: Spectrum, b: Spectrum, quotient: np.ndarray) -> str:
    good = quotient[np.isfinite(quotient)]
    if a.flux.shape == b.flux.shape and np.array_equal(a.flux, b.flux, equal_nan=True):
        return "The two spectra are identical, sample by sample."
    if not good.size:
        return "The two spectra have no samples above 3 sigma in common."
    low, middle, high = np.percentile(good, [16, 50, 84])
    return (
        f"B over A: median {middle:.4f}, 68 % of the samples from {low:.4f} to {high:.4f}; median S/N per sample "
        f"{number(round(a.snr, 2))} in A, {number(round(b.snr, 2))} in B."
    )


def _figures(sides: tuple[Side, Side], first: Target, second: Target) -> tuple[tuple[str, str, str], ...]:
    """The same figure of both runs: title, A, B."""
    found = []
    for stage, most in FIGURES.items():
        for task in (first.record, *first.tasks):
            other = next((t for t in (second.record, *second.tasks) if t.id == task.id), None)
            if task.stage != stage or other is None:
                continue
            pictures = [_pictures(side, record, most) for side, record in zip(sides, (task, other), strict=True)]
            found += [(f"{task.title}: {a[0]}", a[1], b[1]) for a, b in zip(*pictures, strict=False)]
    return tuple(found)


def _pictures(side: Side, record: Record, most: int) -> list[tuple[str, str]]:
    """Caption and image of the first figures of a notebook."""
    path = inside(side.layout, record.notebook)
    if path is None:
        return []
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return []
    figures, files = extract(notebook, record.stage)
    chosen = ([figure for figure in figures if figure.tagged] or figures)[:most]
    return [
        (figure.caption, f"data:image/png;base64,{base64.b64encode(files[figure.file]).decode()}") for figure in chosen
    ]
