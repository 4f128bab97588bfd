"""A night in plain text, for ``panacea-nb inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from .archive import Problem
from .choice import CalibrationChoice
from .frames import Exposure
from .index import NightIndex
from .names import AMPLIFIERS, IFU_SLOTS, KINDS

_HEADINGS = ("obsid", "exp", "type", "start UT", "exptime", *IFU_SLOTS, "binning", "object", "programme", "")
_MAX_PROBLEMS = 20


def _numbers(values: Iterable[int]) -> str:
    """Exposure numbers as ``1-3,5``."""
    ordered = sorted(set(values))
    runs = [[v for _, v in group] for _, group in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _amplifiers(exposures: list[Exposure]) -> str:
    """``4`` when each exposure has all amplifiers, else what is missing in some."""
    if not exposures:
        return "-"
    missing = [amp for amp in AMPLIFIERS if any(amp not in exposure.amps for exposure in exposures)]
    return f"no {','.join(missing)}" if missing else str(len(AMPLIFIERS))


def _times(exposures: list[Exposure]) -> str:
    times = sorted({exposure.exptime for exposure in exposures if exposure.exptime is not None})
    if not times:
        return "?"
    return f"{times[0]:g}" if len(times) == 1 else f"{times[0]:g}-{times[-1]:g}"


def _row(exposures: list[Exposure]) -> tuple[str, ...]:
    first = exposures[0]
    remarks = []
    if first.kind == "sci" and first.is_standard:
        remarks.append("standard")
    if any(decision.severity == "warn" for exposure in exposures for decision in exposure.decisions):
        remarks.append("exptime?")
    return (
        f"{first.obsid:07d}",
        _numbers(exposure.exp for exposure in exposures),
        first.kind,
        f"{first.start:%Y-%m-%d %H:%M:%S}",
        _times(exposures),
        *(_amplifiers([e for e in exposures if e.ifuslot == slot]) for slot in IFU_SLOTS),
        "/".join(sorted({exposure.binning for exposure in exposures})),
        first.object_name,
        first.program,
        " ".join(remarks),
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _problem_lines(problems: Sequence[Problem]) -> list[str]:
    lines = [f"  {'!' if problem.severity == 'warn' else '-'} {problem}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"  ... and {len(problems) - _MAX_PROBLEMS} more")
    return lines


def _choice_lines(choice: CalibrationChoice) -> list[str]:
    lines = [f"calibrations of {choice.channel} ({choice.binning}):"]
    for kind, exposures in choice.chosen.items():
        nights = _numbers(int(exposure.night) for exposure in exposures).replace(",", " ")
        searched = "-".join(dict.fromkeys(choice.searched.get(kind, ())))
        found = f"{len(exposures)} from {nights}" if exposures else f"none from {searched}"
        lamps = ", ".join(choice.lamps()) if kind == "cmp" else ""
        lines.append(f"  {kind}  {KINDS[kind]:13s} {found}{f' ({lamps})' if lamps else ''}")
    lines += [f"  {'!' if d.severity == 'warn' else '-'} {d.code}: {d.text}" for d in choice.decisions]
    return lines


def inspect_text(index: NightIndex, choices: Iterable[CalibrationChoice] = ()) -> str:
    """The exposures and problems of a night, one line per observation, type and object.

    Parameters
    ----------
    index : NightIndex
        The night.
    choices : iterable of CalibrationChoice
        Calibrations to list after it.

    Returns
    -------
    str
        Lines of printable ASCII (paths aside), whatever the headers held; ``!`` marks what costs data.
    """
    ordered = sorted(index.exposures(), key=lambda e: (e.obsid, e.kind, e.object_name, e.binning, e.exp, e.ifuslot))
    groups = [list(g) for _, g in groupby(ordered, key=lambda e: (e.obsid, e.kind, e.object_name, e.binning))]
    groups.sort(key=lambda group: (min(exposure.start for exposure in group), group[0].obsid))
    numbers = Counter(exposure.kind for exposure in ordered)
    counts = [f"{numbers[kind]} {kind}" for kind in KINDS if kind in numbers]
    lines = [f"night {index.night}: {len(index.frames)} frames, exposures by IFU: {', '.join(counts) or 'none'}"]
    if groups:
        lines += ["", *_columns([_HEADINGS, *map(_row, groups)])]
    if index.problems:
        lines += ["", f"{len(index.problems)} problem(s):", *_problem_lines(index.problems)]
    for choice in choices:
        lines += ["", *_choice_lines(choice)]
    return "\n".join(lines)
