"""The rows of the accuracy table: from the scores of the exposures to values that are compared with the goals."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scoring import Score, flat_spread, pair_difference

from panacea_nb.instrument import CHANNELS

LONG = 300.0  # s; shorter exposures have too few photons of sky for their wavelengths
NOISE = 2.5  # sigma of the ideal noise that is allowed beside the goal in rows which the truth's photons limit
STARS = ("standard", "bright")
POINTS = ("point", *STARS)
FIELDS = ("point", "galaxy", "blank")


@dataclass(frozen=True)
class Value:
    """One number of a row, and what is allowed beside the goal (for noise that the truth tells)."""

    value: float
    allowance: float = 0.0


@dataclass(frozen=True)
class Goal:
    """The range that is wanted."""

    low: float = -math.inf
    high: float = math.inf

    def excess(self, value: Value) -> float:
        """How far a value is outside; negative inside; infinite for what could not be measured."""
        if not math.isfinite(value.value):
            return math.inf
        return max(self.low - value.value, value.value - self.high) - value.allowance

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"<= {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """Rows as ``goals.yaml`` has them."""
    return yaml.safe_load(Path(__file__).with_name("goals.yaml").read_text(encoding="utf-8"))


def goal(row: str, channel: str) -> Goal | None:
    """The goal of a row in a channel; None for a row that is for information."""
    wanted = definitions()[row].get("goal")
    if wanted is None:
        return None
    wanted = wanted.get(channel, wanted)
    return Goal(wanted.get("low", -math.inf), wanted.get("high", wanted.get("max", math.inf)))


def panacea(row: str) -> str:
    """Panacea's values over the channels, as text."""
    texts = [str(text) for text in definitions()[row]["panacea"]]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def measure(scores: list[Score]) -> dict[str, list[Value]]:
    """The rows of one channel of one night; rows that the night says nothing about are left out."""

    def of(*kinds: str) -> list[Score]:
        return [s for s in scores if s.kind in kinds]

    long = [s for s in of(*FIELDS) if s.values["exptime"] >= LONG]
    rows: dict[str, list[Value]] = {
        "wave_bias": _mean(long, "wave_bias", noise=_ABSOLUTE),
        "wave_rms": _mean(long, "wave_rms", noise=_ROOT),
        "sky_binned": _mean(of(*FIELDS), "sky_binned"),
        "sky_lines": _mean(of(*FIELDS), "sky_lines"),
        "sky_bias": _mean(of(*FIELDS), "sky_bias", noise=_ABSOLUTE),
        "sky_bias_lines": _mean(of(*FIELDS), "sky_bias_lines", noise=_ABSOLUTE),
        "sky_bias_star": _each(of(*STARS), "sky_bias", noise=True),
        "sky_bias_star_lines": _each(of(*STARS), "sky_bias_lines", noise=True),
        "sky_ratio": _mean(of(*FIELDS), "sky_ratio"),
        "pull": _each(of(*FIELDS), "pull"),
        "correlation": _each(of(*FIELDS), "correlation"),
        "star_flux": _each(of(*STARS), "flux", noise=True),
        "faint_flux": _each(of("point"), "flux", noise=True),
        "star_trend": _each(of(*STARS), "trend", noise=True),
        "faint_trend": _each(of("point"), "trend", noise=True),
        "pair": [Value(pair_difference(*pair))] if len(pair := of("point")[:2]) == 2 else [],
        "noise": _each(of(*POINTS), "noise", noise=True),
        "noise_error": _each(of(*POINTS), "noise_error", noise=True),
        "lines": [v for s in of(*POINTS) for v in _lines(s)],
        "galaxy_line": [v for s in of("galaxy") for v in _lines(s, "galaxy_line")],
        "position_path": _each(of(*POINTS), "position_path"),
        "position_mid": _each(of(*POINTS), "position_mid", noise=True),
        "cosmics_left": _each(scores, "cosmics_left"),
        "flagged_clean": _each(scores, "flagged_clean"),
    }
    rows["levels"] = _each(long, "levels")
    if len(long) > 1:  # a single one cannot tell the flat from the rows' levels
        rows["flat_all"], rows["flat_bins"] = ([Value(v, v - least)] for v, least in flat_spread(long))
    return {name: values for name, values in rows.items() if values}


# Mean and scatter of what becomes of noise of unit width: of its absolute value; of the root of its positive part, which is
# how a scatter is measured whose noise was taken out.
_ABSOLUTE = (0.80, 0.60)
_ROOT = (0.41, 0.48)


def _mean(scores: list[Score], name: str, *, noise: tuple[float, float] | None = None) -> list[Value]:
    """The mean of absolute values over exposures; ``noise`` allows for that of the truth's photons beside the goal."""
    found = [abs(s.values[name]) for s in scores]
    if not found:
        return []
    allowed = 0.0
    if noise is not None:
        # a shift that could not be measured has no noise: it is no number, and misses the goal
        sigma = float(np.sqrt(np.mean([s.values.get(f"{name}_sigma", 0.0) ** 2 for s in scores])))
        allowed = sigma * (noise[0] + NOISE * noise[1] / math.sqrt(len(found)))
    return [Value(float(np.mean(found)), allowed)]


def _each(scores: Iterable[Score], name: str, *, noise: bool = False) -> list[Value]:
    # a point source that was not found has neither flux nor position: that is no number, and misses the goal
    return [
        Value(s.values.get(name, math.nan), NOISE * s.values.get(f"{name}_sigma", 0.0) if noise else 0.0)
        for s in scores
    ]


def _lines(score: Score, name: str = "line") -> list[Value]:
    names = [n for n in score.values if re.fullmatch(rf"{name}\d+", n)]
    return [Value(score.values[n], NOISE * score.values[f"{n}_sigma"]) for n in names]


def worst(row: str, channel: str, values: list[Value]) -> tuple[Value, bool]:
    """The value that is farthest beyond the goal (the largest, where there is none), and whether the goal is met."""
    wanted = goal(row, channel)
    if wanted is None:
        return max(values, key=lambda v: abs(v.value)), True
    found = max(values, key=wanted.excess)
    return found, wanted.excess(found) <= 0


Table = dict[str, dict[str, list[Value]]]


def merge(nights: Iterable[Table]) -> Table:
    """Rows by channel of several nights, the values of all of them together."""
    total: Table = {}
    for night in nights:
        for channel, rows in night.items():
            for row, values in rows.items():
                total.setdefault(channel, {}).setdefault(row, []).extend(values)
    return total


def markdown(table: Table) -> str:
    """The table: row, Panacea, goal, and each channel's worst value.

    In bold where it misses the goal, in italics where the noise that is allowed beside the goal explains it.
    """
    channels = [name for name in CHANNELS if name in table]
    head = ["", "Panacea", "goal", *channels]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, facts in definitions().items():
        if not any(row in table[name] for name in channels):
            continue
        cells = [facts["title"], panacea(row), _goals(row, channels)]
        for name in channels:
            if row not in table[name]:
                cells.append("")
                continue
            found, met = worst(row, name, table[name][row])
            text = f"{found.value:.{facts['digits']}f}"
            wanted = goal(row, name)
            noisy = wanted is not None and wanted.excess(Value(found.value)) > 0
            cells.append(f"**{text}**" if not met else f"*{text}*" if noisy else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def missed(table: Table) -> list[str]:
    """Rows and channels whose goal is missed, as ``row channel value``."""
    out = []
    for name, rows in table.items():
        for row, values in rows.items():
            found, met = worst(row, name, values)
            if not met:
                out.append(f"{row} {name} {found.value:.4g} (goal {goal(row, name)})")
    return out


def _goals(row: str, channels: list[str]) -> str:
    texts = {name: str(goal(row, name) or "") for name in channels}
    common = max(texts.values(), key=list(texts.values()).count) if texts else ""
    return "; ".join([common, *(f"{name} {text}" for name, text in texts.items() if text != common)])


def exposures(scores: Iterable[Score]) -> str:
    """A table of every exposure's own values, for whoever looks for a cause."""
    names = ("wave_bias wave_rms sky_binned sky_lines sky_bias sky_bias_lines sky_ratio pull flux trend noise noise_error "
             "position_mid cosmics_left flagged_clean").split()  # fmt: skip
    head = ["exposure", "kind", *names, "lines"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for s in sorted(scores, key=lambda s: (list(CHANNELS).index(s.channel), s.obsid, s.exp)):
        values = [f"{s.values[n]:.3f}" if n in s.values else "" for n in names]
        each = [f"{v:.3f}" for n, v in s.values.items() if re.fullmatch(r"(galaxy_)?line\d+", n)]
        lines.append("| " + " | ".join([f"{s.channel} {s.obsid}-{s.exp}", s.kind, *values, " ".join(each)]) + " |")
    return "\n".join(lines) + "\n"
