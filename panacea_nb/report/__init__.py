"""Reports: executed notebooks and verdicts as static pages that need no server and no network."""

from __future__ import annotations

from .share import share
from .site import build

__all__ = ["build", "share"]
