"""The targets of a night: which exposures and channels belong together, and which of them were reduced before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..products.layout import Layout, program_name, safe_name
from . import status
from .graph import task_id
from .status import State

FLUX = "07_flux"


@dataclass
class Target:
    """A target of a programme; ``hopes``: id of the flux task -> the exposure as 09_combine names it."""

    program: str
    name: str
    hopes: dict[str, str] = field(default_factory=dict)


def find(exposures: dict[str, list[Any]]) -> list[Target]:
    """The targets of some exposures (channel -> exposures): those whose light fell on the channel's IFU.

    Names that differ only in what a path cannot hold are one target, for they would share their files.
    """
    found: dict[tuple[str, str], Target] = {}
    for channel, some in exposures.items():
        for exposure in some:
            if exposure.kind != "sci" or not exposure.on_target:
                continue
            program = program_name(exposure.program, is_standard=exposure.is_standard)
            name = safe_name(exposure.target_name)
            target = found.setdefault((program, name), Target(program, name))
            task = task_id(FLUX, channel, exposure.obsid, exposure.exp)
            target.hopes[task] = f"{channel}/{exposure.obsid:07d}_exp{exposure.exp:02d}"
    return list(found.values())


def reduced_before(layout: Layout) -> bool:
    """Whether an earlier run has reduced exposures of this night."""
    return any(layout.status_dir.glob(f"{FLUX}-*.json"))


class Earlier:
    """What earlier runs left of a night's targets: a run on some channels or exposures must not lose the others.

    Parameters
    ----------
    everywhere : function that gives all science exposures of the night by channel
    """

    def __init__(self, layout: Layout, everywhere: Callable[[], dict[str, list[Any]]]) -> None:
        self.layout = layout
        self.targets = {(t.program, t.name): t for t in find(everywhere())}

    def of(self, target: Target) -> dict[str, tuple[str, dict[str, str]]]:
        """Id -> (exposure as 09_combine names it, products) of what this run leaves alone and an earlier one has done."""
        whole = self.targets.get((target.program, target.name), target)
        found = {}
        for name, word in whole.hopes.items():
            if name in target.hopes:
                continue
            record = status.last_success(status.read(self.layout.status_dir, name))
            if record is None or record.state is not State.SUCCEEDED:
                continue
            there = all((self.layout.output / path).is_file() for path in record.products)
            if there and record.products:
                found[name] = (word, record.products)
        return found
