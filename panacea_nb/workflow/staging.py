"""Raw archives copied to the node's own disk, once per node: many tasks read them, the shared file system gives them once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..nearby import VARIABLE, copy_of

RESERVE = 4_000_000_000  # bytes that stay free for what the tasks make
_BLOCK = 1 << 24  # bytes read in one go

__all__ = ["VARIABLE", "archives", "folder_of", "stage"]


def folder_of(scratch: Path) -> Path:
    """Where the copies lie in a run's node-local folder."""
    return scratch / "raw"


def archives(frames: Iterable[Any]) -> tuple[str, ...]:
    """The tar files that hold these frames; a frame that is a file of its own is read once, so a copy gains nothing."""
    return tuple(sorted({frame.container[0] for frame in frames if len(frame.container) > 1}))


def stage(paths: Iterable[str], folder: Path | None = None) -> list[str]:
    """Copy files to a node-local folder: one process copies, the others wait for it.

    Parameters
    ----------
    paths : iterable of str
        Files of the raw archive.
    folder : Path, optional
        Where copies go; that of the environment by default, and nothing is done where it names none.

    Returns
    -------
    list of str
        Notes on files that had to be left where they are, with why.
    """
    if folder is None:
        if not os.environ.get(VARIABLE):
            return []
        folder = Path(os.environ[VARIABLE])
    notes = []
    for path in paths:
        copy = copy_of(path, folder)
        if copy.is_file():
            continue
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (folder / f"{copy.name}.lock").open("a") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)
                problem = "" if copy.is_file() else _copy(Path(path), copy)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            notes.append(f"{path} is read in place, not copied to the node: {problem}")
    return notes


def _copy(source: Path, target: Path) -> str:
    """Copy a file in large blocks; why it was not, empty when it was."""
    size = source.stat().st_size
    free = shutil.disk_usage(target.parent).free
    if free < size + RESERVE:
        return f"{size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {target.parent}, of which {RESERVE / 1e9:.0f} GB stay"
    part = target.with_suffix(".part")
    try:
        with source.open("rb") as stream, part.open("wb") as made:
            while block := stream.read(_BLOCK):
                made.write(block)
        if part.stat().st_size != size:
            return "it changed while it was copied"
        os.replace(part, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return "the node's disk is full"
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return ""
