"""What was chosen by hand beyond sky and source, as the plan sees it: exposures left out, fibres, arc lines, cosmic rays."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

from .rundef import RunDefinition
from .stages import Stage


def left_out(definition: RunDefinition, exposure: Any) -> bool:
    """Whether a science exposure was left out by hand."""
    observation = f"{exposure.obsid:07d}"
    return bool({observation, f"{observation}_exp{exposure.exp:02d}"} & set(definition.leave_out))


def unmet(definition: RunDefinition, exposures: list[Any]) -> list[str]:
    """What was to be left out and is not there: a mistyped number must not pass unseen."""
    there = {f"{e.obsid:07d}" for e in exposures} | {f"{e.obsid:07d}_exp{e.exp:02d}" for e in exposures}
    return [f"--leave-out {name}: the night has no such exposure" for name in definition.leave_out if name not in there]


def channel_options(definition: RunDefinition, channel: str) -> dict[str, Any]:
    """Fibres and arc lines switched off, as they hold for one channel."""
    return {
        "dead_fibers": definition.dead_fibers.get(channel, ""),
        "drop_lines": definition.drop_lines.get(channel, ""),
    }


def marked_name(channel: str, exposure: Any) -> str:
    """What the file of marked cosmic rays calls an exposure."""
    return f"{channel}/{exposure.obsid:07d}_exp{exposure.exp:02d}"


class Marks:
    """The file of cosmic rays marked by hand: which exposures it speaks of, so that only those are extracted again.

    Raises
    ------
    CosmicMarksError
        If the file cannot be read, or a line of it cannot be understood.
    """

    def __init__(self, definition: RunDefinition) -> None:
        self.lines: dict[str, list[str]] = {}
        if not definition.cosmics_file:
            return
        from ..products import cosmicmarks  # it brings astropy, which a plan without marks can do without

        for mark in cosmicmarks.load(definition.cosmics_file):
            self.lines.setdefault(mark.exposure, []).append(mark.text())

    def unmet(self, there: Collection[str]) -> list[str]:
        """Marked exposures that are not among those of the night: a mistyped name must not pass unseen."""
        return [f"--cosmics-file: {name} is marked, but the night has no such exposure" for name in self.lines if name not in there]

    def of(self, stage: Stage, channel: str, exposure: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Options of a stage for one exposure, and what the file says of it as a fact that its task depends on."""
        if "cosmics_file" not in stage.options:
            return {}, {}
        said = self.lines.get(marked_name(channel, exposure))
        if not said:
            return {"cosmics_file": ""}, {}
        return {}, {"marked cosmic rays": hashlib.sha256("\n".join(said).encode()).hexdigest()}
