"""Small files of the workflow's own, written so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import stat as stat_bits
from itertools import chain
from pathlib import Path
from typing import Any

# What a file system says when it cannot do the thing at all (network and in-memory ones), as opposed to failing at it.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)

_BLOCK = 1 << 24  # bytes copied in one go


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder (a rename into it) survive a power cut, where the file system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Bring the bytes of a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace ``path`` by ``text`` in one step.

    Parameters
    ----------
    path : Path
        Target; its folder is made when missing.
    text : str
        New content, written as UTF-8.
    durable : bool
        Wait for the disk.  Records whose loss costs nothing (a task that waits) need not.
    """
    make_folder(path.parent)
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    if durable:
        sync_folder(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace ``path`` by ``value`` as JSON in one step; see `write_text`."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, default=str) + "\n", durable=durable)


def move(source: Path, target: Path) -> None:
    """Rename a finished file into place; the bytes have been synced before.

    Where the output root spans file systems (a programme's folder may be a link), the file is copied beside its
    target first, so that the last step is still a rename.
    """
    make_folder(target.parent)
    group = shared_group(target.parent)
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()  # of a copy that was killed
    try:
        _share(source, group)
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = target.parent / f".{target.name}.{os.getpid()}.part"
        with source.open("rb") as stream, part.open("wb") as made:
            shutil.copyfileobj(stream, made, _BLOCK)
        _share(part, group)
        sync_file(part)
        os.replace(part, target)
        source.unlink()


def shared_group(folder: Path) -> int | None:
    """The group that a folder hands on to what is put into it (setgid); None where it hands on none."""
    stat = folder.stat()
    return stat.st_gid if stat.st_mode & stat_bits.S_ISGID else None


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; below one that hands on its group only that group may look into new ones.

    Their names are brought to the disk: else a power cut could leave a record of what lies in a folder without the folder.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    group = shared_group(folder)
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)
        if group is not None:
            with contextlib.suppress(OSError):  # another process has made it, and does so too
                os.chown(new, -1, group)
                new.chmod(0o2750)


def _share(path: Path, group: int | None) -> None:
    """Let the group that a folder hands on read a file that is about to be moved there."""
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o640)


def hand_on(folder: Path, group: int) -> None:
    """Have a folder hand on a group to everything that is put into it from now on.

    Raises
    ------
    OSError
        If the folder belongs to somebody else, or its owner is not in the group.
    """
    make_folder(folder)
    os.chown(folder, -1, group)
    folder.chmod(0o2755)


def remove_parts(*folders: Path) -> None:
    """Remove what processes that were killed, or a power cut, left of files that were being written right in these folders."""
    for part in chain.from_iterable(folder.glob(".*.part") for folder in folders):
        with contextlib.suppress(OSError):
            part.unlink()


def remove_tree(folder: Path) -> None:
    """Remove a folder of leftovers; what another process removes at the same moment is no failure."""
    shutil.rmtree(folder, ignore_errors=True)
