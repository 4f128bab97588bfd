"""The calibrations that serve a channel of a night: what was chosen, what was rejected, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..decisions import Decision
from ..errors import PanaceaError
from .archive import Problem
from .frames import Exposure
from .names import KINDS, clean_text

_SHOWN_REASONS = 3


class MissingCalibrationError(PanaceaError):
    """A kind of calibration that a stage cannot do without does not exist for this night and channel."""


@dataclass(frozen=True)
class Rejection:
    """A calibration that was not taken.

    Parameters
    ----------
    kind : str
        Type of the frames.
    subject : str
        The exposure in words (or the nights, where whole nights were passed over).
    reason : str
        Why.
    night : str
        YYYYMMDD of its folder; empty where the subject is not one exposure.
    obsid, exp : int or None
        Observation and exposure.
    """

    kind: str
    subject: str
    reason: str
    night: str = ""
    obsid: int | None = None
    exp: int | None = None

    @classmethod
    def of(cls, exposure: Exposure, reason: str) -> Rejection:
        """Rejection of one exposure."""
        name = exposure.object_name
        subject = exposure.label + (f" ({name})" if name else "")
        return cls(exposure.kind, subject, reason, exposure.night, exposure.obsid, exposure.exp)


@dataclass
class CalibrationChoice:
    """Calibrations of one channel of one night; `associate` makes it, JSON keeps it for the stages.

    Parameters
    ----------
    channel, night : str
        Name of the channel and YYYYMMDD of the night that is served.
    binning : str
        ``1x1`` or ``2x1``: the one of the night's science, which all chosen frames share.
    amps : tuple of str
        Amplifiers of the channel, bottom one first; chosen exposures hold just these.
    chosen : dict
        Exposures by kind (``zro``, ``drk``, ``twi``, ``flt``, ``cmp``), in order of time; an empty list where there
        are none.
    searched : dict
        First and last night that were looked through, by kind.
    trace_kind : str
        ``twi`` or ``flt``: what traces and throughput are to be measured on; empty when there is neither.
    rejected : list of Rejection
        What was looked at and not taken.
    decisions : list of Decision
        Widened windows, replacements, the user's own choices.
    problems : list of Problem
        Damage in the archive of the neighbouring nights.
    """

    channel: str
    night: str
    binning: str
    amps: tuple[str, ...]
    chosen: dict[str, list[Exposure]] = field(default_factory=dict)
    searched: dict[str, tuple[str, str]] = field(default_factory=dict)
    trace_kind: str = ""
    rejected: list[Rejection] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def require(self, kind: str) -> list[Exposure]:
        """The chosen exposures of a kind that a stage cannot do without.

        Raises
        ------
        MissingCalibrationError
            If there are none; the message says where they were looked for and what to do.
        """
        if self.chosen.get(kind):
            return self.chosen[kind]
        raise self._missing(kind)

    def _missing(self, kind: str, instead: str = "") -> MissingCalibrationError:
        """What to say where there is nothing of a kind, nor of the kind that could stand ``instead`` of it."""
        kinds = [kind, instead] if instead else [kind]
        either = f", nor does an {KINDS.get(instead, instead)} ({instead})" if instead else ""
        spans = dict.fromkeys(self.searched.get(one, (self.night, self.night)) for one in kinds)
        text = (
            f"no {KINDS.get(kind, kind)} ({kind}) serves channel {self.channel} of night {self.night}{either}: "
            f"searched nights {' and '.join(f'{first} to {last}' for first, last in spans)} for binning {self.binning} "
            f"with amplifiers {' and '.join(self.amps)}"
        )
        reasons = [f"{r.subject}: {r.reason}" for r in self.rejected if r.kind in kinds]
        if reasons:
            more = f"; and {len(reasons) - _SHOWN_REASONS} more" if len(reasons) > _SHOWN_REASONS else ""
            text += f"; rejected were {'; '.join(reasons[:_SHOWN_REASONS])}{more}"
        named = " or ".join(f"--cal-date {one}=YYYYMMDD" for one in kinds)
        return MissingCalibrationError(
            f"{text}. Name a night that has them with {named}, or add raw data of a neighbouring night."
        )

    def illuminated(self) -> list[Exposure]:
        """Exposures to measure traces, profiles and throughput on: of `trace_kind`.

        Raises
        ------
        MissingCalibrationError
            If there is neither a twilight nor an internal flat.
        """
        if self.trace_kind or self.chosen.get("twi"):
            return self.require(self.trace_kind or "twi")
        raise self._missing("twi", instead="flt")

    def lamps(self) -> dict[str, list[Exposure]]:
        """Chosen arcs by the lamp that OBJECT names, in lower case."""
        lamps: dict[str, list[Exposure]] = {}
        for exposure in self.chosen.get("cmp", []):
            lamps.setdefault(lamp_name(exposure), []).append(exposure)
        return lamps

    def to_dict(self) -> dict[str, Any]:
        """The choice as plain values, for JSON: whoever reads it needs no index to read the frames."""
        return {
            "channel": self.channel,
            "night": self.night,
            "binning": self.binning,
            "amps": list(self.amps),
            "chosen": {kind: [e.to_dict() for e in exposures] for kind, exposures in self.chosen.items()},
            "searched": {kind: list(nights) for kind, nights in self.searched.items()},
            "trace_kind": self.trace_kind,
            "rejected": [vars(rejection) for rejection in self.rejected],
            "decisions": [decision.to_dict() for decision in self.decisions],
            "problems": [vars(problem) for problem in self.problems],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CalibrationChoice:
        """The choice that `to_dict` wrote."""
        return cls(
            channel=record["channel"],
            night=record["night"],
            binning=record["binning"],
            amps=tuple(record["amps"]),
            chosen={kind: [Exposure.from_dict(e) for e in exposures] for kind, exposures in record["chosen"].items()},
            searched={kind: tuple(nights) for kind, nights in record["searched"].items()},
            trace_kind=record["trace_kind"],
            rejected=[Rejection(**rejection) for rejection in record["rejected"]],
            decisions=[Decision.from_dict(decision) for decision in record["decisions"]],
            problems=[Problem(**problem) for problem in record["problems"]],
        )


def lamp_name(exposure: Exposure) -> str:
    """OBJECT of an arc as lamps are compared: lower case, no blanks around it."""
    return clean_text(exposure.card("OBJECT")).lower()


def lamp_family(lamp: str) -> str:
    """Lamp family of a lamp name: ``Hg``, ``Cd``, ``FeAr``, or the name itself."""
    for family in ("FeAr", "Hg", "Cd"):
        if lamp.startswith(family.lower()):
            return family
    return lamp
