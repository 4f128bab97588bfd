"""A night of faults: damage of every kind, one at a time, and what must come of it."""

from . import calibrations, frames, headers, surroundings  # they fill the table
from .fault import FAULTS

__all__ = ["FAULTS", "calibrations", "frames", "headers", "surroundings"]
