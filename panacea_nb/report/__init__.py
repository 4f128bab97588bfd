"""The report of a night: executed notebooks and verdicts as a static site that needs no server and no network."""

from __future__ import annotations

from .site import build

__all__ = ["build"]
