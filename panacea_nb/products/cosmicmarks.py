"""Pixels that somebody has marked by hand as hit by cosmic rays, or as not hit: a small text file, for `--cosmics-file`.

One mark per line: exposure, word, first column and row and, for a box, last column and row of the stacked CCD image, counted
from 1 as display programs count::

    uv/0000012_exp01 hit 1040 233
    uv/0000012_exp01 clean 500 100 504 103   # an emission line
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..decisions import Decision
from ..errors import RequestError
from .layout import locate
from .session import Task
from .write import write_bytes

WORDS = ("hit", "clean")
_HEAD = (
    "# Pixels marked by hand: exposure, hit or clean, column, row (and last column, row of a box), counted from 1.\n"
)


class CosmicMarksError(RequestError):
    """The file of marked pixels holds something that cannot be meant."""


@dataclass(frozen=True, order=True)
class Mark:
    """One marked box of pixels of an exposure such as ``uv/0000012_exp01``; corners count from 1 and belong to it."""

    exposure: str
    word: str
    x: int
    y: int
    x2: int
    y2: int

    def text(self) -> str:
        """The line of the file."""
        box = "" if (self.x, self.y) == (self.x2, self.y2) else f" {self.x2} {self.y2}"
        return f"{self.exposure} {self.word} {self.x} {self.y}{box}"


def parse(text: str, name: str) -> list[Mark]:
    """Marks in the text of a file called ``name``, in their order.

    Raises
    ------
    CosmicMarksError
        With the line that cannot be understood.
    """
    marks = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        corners = [int(word) for word in words[2:] if word.isdigit()]
        right = len(words) in (4, 6) and len(corners) == len(words) - 2 and words[1] in WORDS
        if not right or not re.fullmatch(r"[a-z]+/\d{7}_exp\d{2}", words[0]) or min(corners) < 1:
            raise CosmicMarksError(
                f"{name}, line {number}: {line.strip()[:60]!r} is no mark such as 'uv/0000012_exp01 hit 1040 233' "
                "(or clean; column and row from 1, and those of a box's other corner)"
            )
        x, y, x2, y2 = (*corners, *corners)[:4]
        marks.append(Mark(words[0], words[1], min(x, x2), min(y, y2), max(x, x2), max(y, y2)))
    return marks


def load(path: str | Path) -> list[Mark]:
    """Marks in a file.

    Raises
    ------
    CosmicMarksError
    """
    found = locate(path)
    try:
        return parse(found.read_text(encoding="utf-8"), found.name)
    except (OSError, UnicodeDecodeError) as error:
        raise CosmicMarksError(f"the file of marked cosmic rays {found} cannot be read: {error}") from error


def save(path: Path, marks: Iterable[Mark]) -> None:
    """Write marks, in one step."""
    write_bytes(Path(path), (_HEAD + "".join(f"{mark.text()}\n" for mark in marks)).encode())


def masks(marks: Iterable[Mark], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels marked as hit, and as clean, (ny, nx) bool each; of marks that overlap the last holds.

    Raises
    ------
    CosmicMarksError
        If a mark lies outside of the image.
    """
    hit, clean = np.zeros(shape, bool), np.zeros(shape, bool)
    for mark in marks:
        if mark.x2 > shape[1] or mark.y2 > shape[0]:
            raise CosmicMarksError(
                f"the mark '{mark.text()}' lies outside of the image of {shape[1]} x {shape[0]} pixels"
            )
        box = slice(mark.y - 1, mark.y2), slice(mark.x - 1, mark.x2)
        hit[box], clean[box] = mark.word == "hit", mark.word == "clean"
    return hit, clean


def read(task: Task, path: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Masks of what is marked for the task's exposure, None when nothing is; it is recorded with the task."""
    if not path:
        return None
    name = f"{task.channel}/{task.obsid or 0:07d}_exp{task.exposure or 1:02d}"
    own = [mark for mark in load(path) if mark.exposure == name]
    if not own:
        return None
    hit, clean = masks(own, shape)
    text = f"cosmic rays marked by hand: {int(hit.sum())} pixels hit, {int(clean.sum())} clean"
    task.record([Decision("HANDCOSMICS", text, "info")])
    return hit, clean
