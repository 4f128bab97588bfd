"""What the system grants a process: raised as far as a user may, and refused at once where it cannot do."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
from pathlib import Path

from ..errors import RequestError

OPEN_FILES = 128  # of one process; 77 were seen
ADDRESS_SPACE = 3 * 2**30  # bytes; a worker maps up to 1.8 GB
SCRATCH = 50 * 2**20  # bytes
PRODUCTS = 200 * 2**20  # bytes: an exposure in one channel


class LimitError(RequestError):
    """A limit of the system leaves too little for a reduction."""


def raise_limits() -> None:
    """Raise this process's limits, which all that it starts inherit, to what its user may have.

    Raises
    ------
    LimitError
        If that is not enough: else kernels would die one after the other without a word of why.
    """
    files = _raised(resource.RLIMIT_NOFILE, 4096)
    if files < OPEN_FILES:
        raise LimitError(
            f"only {files:.0f} open files are allowed here, {OPEN_FILES} are needed: raise the limit (ulimit -n {OPEN_FILES}; "
            "where that is refused, ask who runs the machine)"
        )
    space = _raised(resource.RLIMIT_AS, resource.RLIM_INFINITY)
    if space < ADDRESS_SPACE:
        raise LimitError(
            f"only {space / 2**30:.1f} GB of address space are allowed here, {ADDRESS_SPACE / 2**30:.0f} GB are needed: raise the "
            "limit (ulimit -v unlimited; where that is refused, ask who runs the machine)"
        )


def check_folder(folder: Path, purpose: str, needed: int) -> None:
    """See whether files can be written into a folder, which need not be there yet, and whether there is room for ``needed`` bytes.

    Raises
    ------
    LimitError
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise LimitError(f"{there} cannot be written: name another folder for {purpose}, or have its permissions changed")
    free = shutil.disk_usage(there).free
    if free < needed:
        raise LimitError(
            f"{there} has {free / 2**20:.0f} MB free, at least {needed / 2**20:.0f} MB are needed for {purpose}: make room there, "
            "or name another folder"
        )


def check_semaphores() -> None:
    """See whether semaphores can be made, without which no worker starts.

    Raises
    ------
    LimitError
    """
    try:
        multiprocessing.get_context("fork").Lock()
    except OSError as error:
        raise LimitError(
            f"no semaphores can be made here ({error.strerror}), which workers need: have /dev/shm made writable by who runs the "
            "machine, or start the container with one"
        ) from None


def _raised(kind: int, wanted: int) -> float:
    """The soft limit after it was raised to ``wanted``, or as near as the hard one allows."""
    soft, hard = resource.getrlimit(kind)
    infinite = resource.RLIM_INFINITY
    best = wanted if hard == infinite else hard if wanted == infinite else min(wanted, hard)
    if soft != infinite and (best == infinite or best > soft):
        resource.setrlimit(kind, (best, hard))
        soft = best
    return float("inf") if soft == infinite else float(soft)
