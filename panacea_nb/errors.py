"""Root of the package's exceptions: one small class per cause that a user can act on lives beside the code that raises it."""

from __future__ import annotations


class PanaceaError(Exception):
    """A failure that has been understood: the message says what happened, where, and what to do about it."""


class RequestError(PanaceaError):
    """What was asked for cannot be done as asked (unknown channel, wrong date, missing night): exit code 2."""
