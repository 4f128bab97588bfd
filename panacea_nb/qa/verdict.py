"""Metrics against thresholds: pass, warn or fail, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from ..errors import PanaceaError
from ..products import image

ORDER = ("pass", "warn", "fail")

# What to do where a gate stops a branch; the fault is with the frames that the stage is about.
ADVICE = {
    "01_bias": "Choose other bias frames with --cal-date zro=YYYYMMDD",
    "02_trace": "Choose other twilights with --cal-date twi=YYYYMMDD, or internal flats with --use_flat",
    "03_wavelength": "Choose other arcs with --cal-date cmp=YYYYMMDD",
    "04_flat": "Choose other twilights or flats with --cal-date twi=YYYYMMDD or flt=YYYYMMDD",
}
EXPOSURE_ADVICE = (
    "Look at the frame: it may not be what its calibrations are for; leave it out with --leave-out OBSID_expNN, or choose other "
    "calibrations"
)
FORCE = "; or go past all gates of the run with --force"


class GateError(PanaceaError):
    """A metric says that what follows could not be right: the branch ends here."""


@lru_cache(maxsize=1)
def thresholds() -> dict[str, dict[str, dict[str, Any]]]:
    """The table of limits, by stage and metric."""
    return yaml.safe_load(resources.files(__package__).joinpath("thresholds.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Judged:
    """One metric with its verdict."""

    name: str
    value: float
    unit: str
    verdict: str
    threshold: str
    reason: str
    stop: bool


@dataclass(frozen=True)
class Verdict:
    """All metrics of a stage, judged."""

    stage: str
    metrics: tuple[Judged, ...]

    @property
    def overall(self) -> str:
        """The worst verdict of any metric."""
        return max((m.verdict for m in self.metrics), key=ORDER.index, default="pass")

    def rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per metric; numbers that are not finite become None."""
        return [
            {
                "name": m.name, "value": m.value if math.isfinite(m.value) else None, "unit": m.unit, "verdict": m.verdict,
                "threshold": m.threshold, "reason": m.reason,
            }
            for m in self.metrics
        ]  # fmt: skip

    def enforce(self, force: bool = False) -> list[str]:
        """Raise `GateError` when a metric that must hold does not; with ``force`` return what was overruled instead."""
        broken = [m for m in self.metrics if m.stop and m.verdict == "fail"]
        texts = [
            f"{m.name} = {m.value:.4g} {m.unit} ({m.threshold}): {m.reason}" if math.isfinite(m.value)
            else f"{m.name} could not be measured ({m.threshold}): {m.reason}"
            for m in broken
        ]  # fmt: skip
        if broken and not force:
            raise GateError(f"{self.stage} stops here: {'; '.join(texts)}. {ADVICE.get(self.stage, EXPOSURE_ADVICE)}{FORCE}")
        return texts

    def _repr_html_(self) -> str:
        from .show import verdict_html

        return verdict_html(self)


def _judge(name: str, value: float, rule: dict[str, Any], lenient: bool) -> Judged:
    value = float(value)
    bad, warn, fail = rule.get("bad", "high"), rule.get("warn"), rule.get("fail")

    def beyond(limit) -> bool:
        if limit is None:
            return False
        if bad == "outside":
            return not limit[0] <= value <= limit[1]
        if bad == "low":
            return value < limit
        return value >= limit if rule.get("count") else value > limit

    if not math.isfinite(value):
        verdict = "pass" if warn is None and fail is None else "fail"
    elif beyond(fail):
        verdict = "fail"
    elif beyond(warn):
        verdict = "warn"
    else:
        verdict = "pass"
    if lenient and verdict == "fail":
        verdict = "warn"
    words = {"high": "below" if rule.get("count") else "at most", "low": "at least", "outside": "within"}[bad]
    worse = {"high": "above", "low": "below", "outside": "outside"}[bad]
    parts = [f"pass {words} {warn}"] if warn is not None else []
    parts += [f"fail {worse} {fail}"] if fail is not None else []
    stop = rule.get("stop", False)
    if not isinstance(stop, bool):
        parts.append(f"stop {worse} {stop}")
        stop = not math.isfinite(value) or beyond(stop)
    return Judged(name, value, rule.get("unit", ""), verdict, ", ".join(parts), rule.get("reason", ""), stop)


def judge(stage: str, metrics: dict[str, float], *, channel: str | None = None, lenient: bool = False) -> Verdict:
    """Compare metrics with the limits of a stage; a container image that is not known is a warning of every stage.

    Parameters
    ----------
    stage : str
    metrics : dict
        Name -> value; every name must be in the table, and a value that is not finite fails.
    channel : str, optional
        For limits that differ by channel.
    lenient : bool
        Failures count as warnings (darks, flats and engineering frames reduced as science).

    Raises
    ------
    KeyError
        When a metric has no limits: the table must know it.
    """
    table = thresholds()[stage]
    judged = []
    for name, value in metrics.items():
        rule = dict(table[name])
        rule.update(rule.get("channels", {}).get(channel, {}))
        judged.append(_judge(name, value, rule, lenient))
    if image.digest() == image.UNKNOWN:
        judged.append(Judged("image_unknown", 1.0, "", "warn", "pass at most 0", image.REASON, False))
    return Verdict(stage, tuple(judged))
