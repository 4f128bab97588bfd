"""Decisions: what the reduction chose where it had a choice, kept where header, report and log can show it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEVERITIES = ("info", "warn")
_CODE = re.compile(r"[A-Z][A-Z0-9_-]{0,19}")


@dataclass(frozen=True)
class Decision:
    """One choice or fallback, in words.

    Parameters
    ----------
    code : str
        Short upper-case name that stays the same from night to night, so that it can be counted and searched.
    text : str
        What was done, with the numbers, and why.
    severity : str
        ``info`` for a choice that costs nothing, ``warn`` for a fallback that a user should know of.

    Raises
    ------
    ValueError
        If the code is not upper-case letters, digits, ``_`` or ``-`` (at most 20), or the severity is unknown.
    """

    code: str
    text: str
    severity: str = "info"

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise ValueError(f"decision code {self.code!r} is not a short upper-case name")
        if self.severity not in SEVERITIES:
            allowed = " or ".join(SEVERITIES)
            raise ValueError(f"severity {self.severity!r} of decision {self.code} is not {allowed}")

    def to_dict(self) -> dict[str, str]:
        """The decision as plain strings, for JSON."""
        return {"code": self.code, "text": self.text, "severity": self.severity}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Decision:
        """The decision that `to_dict` wrote."""
        return cls(str(record["code"]), str(record["text"]), str(record.get("severity", "info")))


def shown(*values: object) -> str:
    """Values of header cards as messages show them: cut, with nothing that a terminal would obey; what is no value is missing."""
    texts = (ascii(v[:30] if isinstance(v, str) else v) if isinstance(v, str | int | float) else "missing" for v in values)
    return ", ".join(texts)
