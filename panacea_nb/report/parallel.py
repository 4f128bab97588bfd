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

# A process needs a second to start; below this many pieces one alone is as quick.
_WORTHWHILE = 12
_MOST = 8


def cores() -> int:
    """How many processes may run at the same time."""
    return min(_MOST, len(os.sched_getaffinity(0)))


def each(function: Callable[[Any], Any], pieces: Sequence[Any], workers: int | None = None) -> Iterator[Any]:
    """``function`` of every piece, in order; the function and its pieces must be picklable."""
    workers = cores() if workers is None else workers
    done = 0
    if workers > 1 and len(pieces) >= _WORTHWHILE:
        start = multiprocessing.get_context("spawn")  # a fork would take locks of other threads with it
        try:
            with ProcessPoolExecutor(workers, mp_context=start, initializer=_leash, initargs=(os.getpid(),)) as pool:
                for result in pool.map(function, pieces, chunksize=2):
                    done += 1
                    yield result
        except BrokenProcessPool:
            pass  # no processes to be had here, or one was killed: the rest is made by this one
    yield from map(function, pieces[done:])


def _leash(parent: int) -> None:
    """End with the parent, which may be killed at any time."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
