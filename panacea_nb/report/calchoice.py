"""Which calibrations each channel was given, which were rejected, and why: as the inventory recorded it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..products.layout import Layout
from .privacy import clean

KINDS = {"zro": "bias", "drk": "dark", "twi": "twilight", "flt": "internal flat", "cmp": "arc"}
_ROLES = {"twi": "traces and flat", "flt": "traces and flat"}


@dataclass(frozen=True)
class Kind:
    """One kind of calibration of a channel: the frames taken, as text, and where they were looked for."""

    name: str
    frames: int
    chosen: str
    searched: str
    role: str = ""


@dataclass(frozen=True)
class Choice:
    """All calibrations of one channel."""

    channel: str
    kinds: tuple[Kind, ...]
    rejected: tuple[tuple[str, str, str], ...] = ()
    decisions: tuple[Mapping[str, str], ...] = field(default_factory=tuple)


def read(layout: Layout) -> list[Choice]:
    """The choice of every channel; empty where the record of it is gone (it lies with the files between stages) or damaged."""
    try:
        content = json.loads(layout.calibrations_file.read_text(encoding="utf-8"))
        return [_choice(name, known, layout.night) for name, known in content["channels"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _choice(name: str, known: Mapping[str, Any], night: str) -> Choice:
    kinds = []
    for kind, words in KINDS.items():
        frames = known["chosen"].get(kind) or []
        searched = known.get("searched", {}).get(kind) or ()
        role = _ROLES.get(kind, "") if known.get("trace_kind") == kind else ""
        spans = sorted(set(searched))
        looked = " to ".join(spans) if spans else ""
        kinds.append(
            Kind(words, len(frames), _frames(kind, (frame[0] for frame in frames if frame), night), looked, role)
        )
    rejected = tuple(
        (_words(item.get("kind")), clean(item.get("subject", ""), 200), clean(item.get("reason", "")))
        for item in known.get("rejected") or ()
    )
    decisions = tuple(
        {key: clean(item.get(key, "")) for key in ("code", "text", "severity")} for item in known.get("decisions") or ()
    )
    return Choice(clean(name, 20), tuple(kinds), rejected, decisions)


def _frames(kind: str, frames: Iterable[Mapping[str, Any]], night: str) -> str:
    """``observation 3 exp 1-3``, with the night where it is another one and the lamp of an arc."""
    groups: dict[tuple[str, int, str], list[int]] = {}
    for frame in frames:
        lamp = clean(frame.get("cards", {}).get("OBJECT", ""), 30) if kind == "cmp" else ""
        groups.setdefault((str(frame["night"]), int(frame["obsid"]), lamp), []).append(int(frame["exp"]))
    texts = []
    for (where, obsid, lamp), exposures in groups.items():
        other = f"{where}: " if where != night else ""
        texts.append(f"{other}observation {obsid} exp {_span(exposures)}{f' ({lamp})' if lamp else ''}")
    return "; ".join(texts)


def _words(kind: Any) -> str:
    return KINDS.get(str(kind), clean(kind, 20))


def _span(numbers: list[int]) -> str:
    """``1-3, 5``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
