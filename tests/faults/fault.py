"""What a fault is: what is damaged, how the reduction must end, and which words must say so.

Every fault is applied to a copy of a small night (observation 4: a standard, observation 5: a faint target, channel uv).  ``ends``
is the exit code: 2 refused at once, 1 something failed and the rest is done, 0 reduced.  ``says`` is a regular expression that must
be found in what the run tells (its output, its records, its verdicts).  Whatever happens, the other exposure must come out as
without the fault, nothing may be written outside of the output, and a traceback must not be the only explanation; the runner sees
to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STAR, FAINT = 4, 5  # observations of the night
SCIENCE, CALIBRATION, GUIDER, HEADER = "science frame", "calibration", "guider", "header"
SURROUNDINGS, RESULTS = "surroundings", "results of an earlier run"


@dataclass(frozen=True)
class Fault:
    """One way to damage a night.

    Attributes
    ----------
    name : str
    group : str
        What is damaged; calibrations are reduced anew, for the others those of the undamaged night serve.
    what : str
        The damage in words.
    do : callable
        Damages the night; of an earlier run's results it gets the `Layout`.
    ends : int
        Exit code.
    says : str
        Regular expression.
    until : str
        Last stage that is run.
    options : tuple of str
        Further options of ``reduce``.
    within : tuple of str
        Words before the command, which then runs in worse surroundings; ``{out}`` and ``{folder}`` are its output and the folder of
        the night.
    place : str
        Name of the folder of the night.
    root : bool
        Whether only root can make these surroundings.
    """

    name: str
    group: str
    what: str
    do: Callable[[Any], Any]
    ends: int
    says: str
    until: str = "05"
    options: tuple[str, ...] = field(default=())
    within: tuple[str, ...] = field(default=())
    place: str = "night"
    root: bool = False


FAULTS: list[Fault] = []


def fault(name: str, group: str, what: str, ends: int, says: str, **more: Any) -> Callable:
    """Add the decorated function to the table."""

    def add(do: Callable[[Any], Any]) -> Callable:
        FAULTS.append(Fault(name, group, what, do, ends, says, **more))
        return do

    return add


def simple(name: str, group: str, what: str, do: Callable, ends: int, says: str, **more: Any) -> None:
    FAULTS.append(Fault(name, group, what, do, ends, says, **more))
