"""Reports: executed notebooks and verdicts as static pages that need no server and no network."""

from __future__ import annotations

from .. import unneeded  # noqa: F401 - before anything imports nbformat
from .share import share
from .site import build

__all__ = ["build", "share"]
