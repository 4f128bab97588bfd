"""Lists of fibres as users write them."""

from __future__ import annotations

from ..workflow.checks import as_fibers


def numbers(fibers: str) -> set[int]:
    """Numbers of the fibres in a list such as ``12-14,80``."""
    found: set[int] = set()
    for word in filter(None, as_fibers(fibers).split(",")):
        first, _, last = word.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
