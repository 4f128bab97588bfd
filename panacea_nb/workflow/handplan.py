"""What was chosen by hand beyond sky and source, as the plan sees it: exposures left out, fibres, arc lines, cosmic rays."""

from __future__ import annotations

import hashlib
from typing import Any

from ..errors import RequestError
from .rundef import RunDefinition
from .stages import Stage


class MarksError(RequestError):
    """The file of cosmic rays marked by hand cannot be read."""


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


class Marks:
    """The file of cosmic rays marked by hand: which exposures it speaks of, so that only those are extracted again.

    Raises
    ------
    MarksError
    """

    def __init__(self, definition: RunDefinition) -> None:
        self.path = definition.cosmics_file
        self.lines: dict[str, list[str]] = {}
        if not self.path:
            return
        try:
            with open(self.path, encoding="utf-8") as stream:
                text = stream.read()
        except (OSError, UnicodeDecodeError) as error:
            raise MarksError(f"--cosmics-file {self.path} cannot be read: {error}") from error
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if words:
                self.lines.setdefault(words[0], []).append(" ".join(words[1:]))

    def of(self, stage: Stage, channel: str, exposure: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Options of a stage for one exposure, and what the file says of it as a fact that its task depends on."""
        if "cosmics_file" not in stage.options:
            return {}, {}
        said = self.lines.get(f"{channel}/{exposure.obsid:07d}_exp{exposure.exp:02d}")
        if not said:
            return {"cosmics_file": ""}, {}
        return {}, {"marked cosmic rays": hashlib.sha256("\n".join(said).encode()).hexdigest()}
