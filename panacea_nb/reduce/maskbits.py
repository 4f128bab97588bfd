"""Names of the mask bits, read from ``maskbits.yaml`` so that headers, docs and code say the same."""

from __future__ import annotations

import enum
from importlib import resources

import yaml

_TABLE = yaml.safe_load(resources.files(__package__).joinpath("maskbits.yaml").read_text(encoding="utf-8"))

DQ = enum.IntFlag("DQ", {name: 1 << bit for name, (bit, _) in _TABLE["bits"].items()})
DQ.__doc__ = "Bits of a data-quality mask; a set bit says why a sample is doubtful."

DESCRIPTIONS: dict[str, str] = {name: text for name, (_, text) in _TABLE["bits"].items()}
UNUSABLE: int = sum(int(DQ[name]) for name in _TABLE["unusable"])
