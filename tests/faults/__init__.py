"""A night of faults: damage of every kind, one at a time, and what must come of it."""
