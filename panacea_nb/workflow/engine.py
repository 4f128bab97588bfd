"""Where tasks run: Parsl's workers (`panacea_nb.workflow.pool`), or one by one in this process.

Files and states are the workflow's own, so an engine can be exchanged without touching anything else.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from ..errors import RequestError
from . import supervise
from .pool import RETRIES, EngineLostError, ParslEngine, Place
from .sites import available_cores
from .worker import Order, run_task

__all__ = ["Engine", "EngineLostError", "SerialEngine", "available_cores", "make", "why"]


def why(error: BaseException) -> str:
    """Why a task gave no answer, in words."""
    text = " ".join(str(error).split()) or type(error).__name__
    if type(error).__name__ not in ("WorkerLost", "ManagerLost"):
        return text
    return (
        f"the processes that worked on it were lost {RETRIES + 1} times ({text}): what is done is kept; run again, with fewer at a "
        "time (--jobs 1)"
    )


class SerialSiteError(RequestError):
    """``--jobs 0`` was asked for at a site whose work runs elsewhere than in this process."""


class Engine(Protocol):
    """What the driver needs of an engine."""

    slots: int

    def start(self, tasks: int = 0) -> None:
        """Make ready to take tasks; ``tasks`` of them are waiting."""

    def submit(self, order: Order) -> Future:
        """Run a task; the future gives what `panacea_nb.workflow.worker.run_task` returns."""

    def check(self) -> None:
        """Raise `EngineLostError` when no answer can be expected any more."""

    def stop(self, *, now: bool = False) -> None:
        """End everything; with ``now`` also what is running."""


class SerialEngine:
    """One task after the other in a thread of this process: for debugging (``--jobs 0``)."""

    slots = 1

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def start(self, tasks: int = 0) -> None:
        """Start the thread."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="task")

    def submit(self, order: Order) -> Future:
        """Run a task after those before it."""
        assert self._pool is not None
        return self._pool.submit(run_task, asdict(order))

    def check(self) -> None:
        """Nothing can be lost here."""

    def stop(self, *, now: bool = False) -> None:
        """Wait for the task that runs, or kill its kernel."""
        if self._pool is not None:
            if now:
                supervise.kill_current_kernel()
            self._pool.submit(_clean_thread)
            self._pool.shutdown()
            self._pool = None


def _clean_thread() -> None:
    """Close what running notebooks left in this thread: the event loop, and the process that warm kernels come from."""
    from jupyter_core.utils import ensure_event_loop

    from . import forked

    forked.stop()
    ensure_event_loop().close()


def make(jobs: int | None, token: str, run_dir: Path, place: Place) -> Engine:
    """The engine for ``jobs`` tasks at a time; 0 runs them in this process, None as many as the site holds.

    Raises
    ------
    SerialSiteError
        If tasks are to run in this process, but the site has them run in a container or on other nodes.
    """
    if jobs == 0:
        if place.apart:
            raise SerialSiteError(
                f"--jobs 0 runs notebooks in this very process, but site {place.site.name} runs them in a container or on "
                "other nodes: give --jobs 1, or --site local"
            )
        return SerialEngine()
    return ParslEngine(jobs, token, run_dir, place)
