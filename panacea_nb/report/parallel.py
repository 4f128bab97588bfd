"""Pieces of a report made side by side, in processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

# A piece takes a tenth of a second.  Forks have all that the first piece loaded and are worth it at once; other processes begin
# with two seconds of imports each.
_WORTHWHILE = 60
_WORTHWHILE_FORKED = 2
_MOST = 8


def cores() -> int:
    """How many processes may run at the same time."""
    return min(_MOST, len(os.sched_getaffinity(0)))


class Crew:
    """Processes that help with many pieces.

    Parameters
    ----------
    workers : int, optional
        How many; as many as there are cores by default, and with 1 everything is done by this process.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = cores() if workers is None else workers

    def each(self, function: Callable[[Any], Any], pieces: Sequence[Any]) -> Iterator[Any]:
        """``function`` of every piece, in order; the function and its pieces must be picklable."""
        for piece in pieces[:1]:
            yield function(piece)  # loads what the others need
        done, context = 1, _context()
        forked = context.get_start_method() == "fork"
        if self.workers > 1 and len(pieces) - done >= (_WORTHWHILE_FORKED if forked else _WORTHWHILE):
            helpers = min(self.workers, len(pieces) - done)
            pool = ProcessPoolExecutor(helpers, context, _leash, (os.getpid(),))
            try:
                for result in pool.map(function, pieces[done:]):
                    done += 1
                    yield result
            except BrokenProcessPool:
                self.workers = 1  # no processes to be had here, or one was killed: go on alone
            finally:
                pool.shutdown(cancel_futures=True)
        yield from map(function, pieces[done:])


def _context() -> multiprocessing.context.BaseContext:
    """Forks need not import everything again, two seconds each; they are safe where no other thread holds a lock meanwhile."""
    try:
        alone = len(os.listdir("/proc/self/task")) == 1
    except OSError:
        alone = False
    return multiprocessing.get_context("fork" if alone else "spawn")


def _leash(parent: int) -> None:
    """End with the parent, which may be killed at any time."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
