"""Find raw frames on disk: the three layouts of a night, walked by tar headers alone, nothing unpacked.

1. ``{baseraw}/{night}/lrs2/lrs2{obsid}.tar``, one tar per observation;
2. ``{baseraw}/{night}.tar``, the whole night, holding those tars or their files;
3. ``{baseraw}/{night}/lrs2/lrs2{obsid}/...``, the same tree unpacked.

Whatever the layout, a frame ends up as a file on disk, an offset and a size: it can be read with one seek.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import RequestError
from .names import clean_text, night_date, observation_number

# What tarfile raises on archives that are damaged or made to do harm (endless chains of headers, absurd sizes).
TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError, RecursionError)
_TAR_BLOCK = 512
# Tar header, FITS header and the next tar header in few reads, on file systems where each read is a journey.
_BUFFER = 32768


class MissingNightError(RequestError):
    """There are no raw data of a night where they were looked for."""


@dataclass(frozen=True)
class Problem:
    """Something in the archive that is not as it should be, and what follows.

    Parameters
    ----------
    where : str
        File, and member in it.
    what : str
        What is wrong.
    effect : str
        What that costs.
    severity : str
        ``warn`` when data are lost by it, ``info`` when nothing is.
    """

    where: str
    what: str
    effect: str
    severity: str = "warn"

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.effect})"


@dataclass(frozen=True)
class Container:
    """One place that holds frames.

    Parameters
    ----------
    path : str
        Absolute path of a tar file or of the folder of an observation.
    form : str
        ``tar`` (one observation), ``night`` (tar of a whole night) or ``tree`` (folder).
    stamp : str
        Changes when the content does: size and time of change of the tar, or of every file of the folder.
    obsid : int or None
        Observation by its name; None for a whole night.
    """

    path: str
    form: str
    stamp: str
    obsid: int | None


@dataclass(frozen=True)
class Member:
    """A file within a container.

    Parameters
    ----------
    names : tuple of str
        Path within the container, one name per nested tar.
    file : str
        The file on disk that has the bytes.
    offset, size : int
        Where they lie in it [bytes].
    available : int
        How many of them the file really has; less than `size` when it was cut off.
    """

    names: tuple[str, ...]
    file: str
    offset: int
    size: int
    available: int


class Window(io.RawIOBase):
    """A part of an open file as a file of its own, for a tar inside a tar.

    Parameters
    ----------
    stream : BinaryIO
        The outer file; its position moves.
    start, size : int
        The part [bytes].
    """

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._stream, self._start, self._size, self._position = stream, start, size, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position from the beginning of the window [bytes]."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within the window, as files do."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the beginning of the window")
        self._position = base + offset
        return self._position

    def readinto(self, buffer) -> int:  # noqa: ANN001 - any writable buffer
        """Fill `buffer` from the outer file; 0 at the end of the window."""
        room = min(len(buffer), max(self._size - self._position, 0))
        self._stream.seek(self._start + self._position)
        data = self._stream.read(room)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _refusal(info: tarfile.TarInfo) -> str | None:
    """Why a member must not be touched; None when it may."""
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts:
        return "its path leads out of the archive"
    if info.issym() or info.islnk():
        return "it is a link"
    if not info.isreg() or info.issparse():
        return "it is not a regular file"
    return None


def walk_tar(
    stream: BinaryIO, size: int, where: str, concerns: Callable[[str], bool], problems: list[Problem]
) -> Iterator[tarfile.TarInfo]:
    """Regular members of an uncompressed tar, in order, by its headers alone.

    Parameters
    ----------
    stream : BinaryIO
        The tar; may be moved between two members.
    size : int
        Its length [bytes].
    where : str
        Its name, for the problems.
    concerns : callable
        Whether a member of this name is wanted; others are passed over in silence.
    problems : list of Problem
        Gets what is refused or damaged.  What comes before the damage is still yielded.
    """
    lost = "exposures stored after that are missing"
    try:
        archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - it holds nothing but the stream
        while (info := archive.next()) is not None:
            if info.isdir() or not concerns(info.name):
                continue
            reason = _refusal(info)
            if reason:
                problems.append(Problem(f"{where}:{clean_text(info.name, 200)}", reason, "refused"))
                continue
            yield info
    except TAR_ERRORS as error:
        problems.append(Problem(where, _why_no_tar(stream, size, clean_text(error)), lost))
        return
    # tarfile takes a damaged header for the end of the archive: only blocks of zeros are.
    stream.seek(archive.offset)
    end = stream.read(_TAR_BLOCK)
    if not end:
        text = "the tar has no end mark: it was cut off, or is still being written: copy it again, or wait"
        problems.append(Problem(where, text, lost))
    elif end.strip(b"\0"):
        what = f"the tar is damaged at byte {archive.offset} of {size}: copy it again from the archive"
        problems.append(Problem(where, what, lost))


def _why_no_tar(stream: BinaryIO, size: int, said: str) -> str:
    """What is wrong with a tar that tarfile cannot read, by what it ``said`` and the first bytes, and what to do."""
    if size == 0:
        return "the tar is empty: copy it again from the archive"
    with contextlib.suppress(OSError, ValueError):
        stream.seek(0)
        if stream.read(2) == b"\x1f\x8b":
            return "the tar is compressed: gunzip it"
    return f"the tar is damaged or cut off ({said}): copy it again from the archive"


def _everything(name: str) -> bool:
    return True


def _of_lrs2(name: str) -> bool:
    """Whether a member of a night's tar belongs to LRS2: such a tar may hold other instruments and the guiders."""
    return any(part.startswith("lrs2") for part in PurePosixPath(name).parts)


def _tar_members(container: Container, problems: list[Problem]) -> Iterator[tuple[Member, BinaryIO]]:
    with open(container.path, "rb", buffering=_BUFFER) as stream:
        size = os.fstat(stream.fileno()).st_size
        concerns = _of_lrs2 if container.form == "night" else _everything
        for info in walk_tar(stream, size, container.path, concerns, problems):
            available = max(min(info.size, size - info.offset_data), 0)
            member = Member((info.name,), container.path, info.offset_data, info.size, available)
            if container.form != "night" or not info.name.endswith(".tar"):
                yield member, stream
                continue
            where = f"{container.path}:{clean_text(info.name, 200)}"
            if observation_number(PurePosixPath(info.name).name) is None:
                problems.append(Problem(where, "name is not lrs2NNNNNNN.tar", "ignored", "info"))
                continue
            inner = Window(stream, member.offset, available)
            for nested in walk_tar(inner, available, where, _everything, problems):
                within = max(min(nested.size, available - nested.offset_data), 0)
                names = (info.name, nested.name)
                yield Member(names, container.path, member.offset + nested.offset_data, nested.size, within), stream


def _tree_members(container: Container, problems: list[Problem]) -> Iterator[tuple[Member, BinaryIO]]:
    for relative, status in _tree_files(container.path):
        path = os.path.join(container.path, relative)
        if not stat.S_ISREG(status.st_mode):
            problems.append(Problem(path, "it is not a regular file", "refused"))
            continue
        try:
            with open(path, "rb", buffering=_BUFFER) as stream:
                yield Member((relative,), path, 0, status.st_size, status.st_size), stream
        except OSError as error:
            problems.append(Problem(path, f"cannot be read: {clean_text(error)}", "the frame is left out"))


def iterate_members(container: Container, problems: list[Problem]) -> Iterator[tuple[Member, BinaryIO]]:
    """Every regular file of a container with the open file that has its bytes.

    Parameters
    ----------
    container : Container
        From `find_containers`.
    problems : list of Problem
        Gets what is refused, damaged or unreadable; nothing is raised for it.
    """
    if container.form == "tree":
        yield from _tree_members(container, problems)
        return
    try:
        yield from _tar_members(container, problems)
    except OSError as error:
        problems.append(Problem(container.path, f"cannot be read: {clean_text(error)}", "its frames are left out"))


def _tree_files(folder: str) -> list[tuple[str, os.stat_result]]:
    """Files below a folder, sorted, with the status of what they point to; linked folders are not entered."""
    found = []
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(here, name)
            try:
                found.append((os.path.relpath(path, folder), os.stat(path)))
            except OSError:
                found.append((os.path.relpath(path, folder), os.lstat(path)))
    return found


def tar_stamp(status: os.stat_result) -> str:
    """Size and time of change of a file: another stamp means that it must be read again."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def _tree_stamp(folder: str) -> str:
    digest = hashlib.sha256()
    for relative, status in _tree_files(folder):
        digest.update(f"{relative}\0{tar_stamp(status)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


_COMPRESSED = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.Z", ".tgz")


def _in_folder(folder: Path, problems: list[Problem]) -> list[Container]:
    """Tars first, then unpacked observations: of two copies of a frame the first is taken."""
    tars, trees = [], []
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem(str(folder), f"cannot be listed: {clean_text(error)}", "its frames are left out"))
        return []
    for name in names:
        path = os.path.join(folder, name)
        obsid = observation_number(name)
        if name.startswith("."):
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            problems.append(Problem(path, f"cannot be read: {clean_text(error)}", "its frames are left out"))
            continue
        if obsid is None:
            strange = name[:4] == "lrs2" and name.endswith(_COMPRESSED)  # an observation that nobody would look for
            what = "its name is not lrs2NNNNNNN.tar" + (": unpack or rename it" if strange else "")
            problems.append(Problem(clean_text(path, 400), what, "ignored", "warn" if strange else "info"))
        elif stat.S_ISDIR(status.st_mode) and not name.endswith(".tar"):
            trees.append(Container(path, "tree", _tree_stamp(path), obsid))
        elif stat.S_ISREG(status.st_mode) and name.endswith(".tar"):
            tars.append(Container(path, "tar", tar_stamp(status), obsid))
        else:
            problems.append(Problem(path, "it is neither a tar file nor a folder", "refused"))
    return tars + trees


def night_tar(baseraw: str | Path, night: str) -> tuple[str, os.stat_result] | None:
    """Path and status of the tar of a whole night, None when there is none."""
    path = os.path.join(os.path.abspath(baseraw), f"{night}.tar")
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (path, status) if stat.S_ISREG(status.st_mode) else None


def find_containers(baseraw: str | Path, night: str) -> tuple[list[Container], list[Problem]]:
    """Everything on disk that may hold LRS2 frames of a night, and what is in its place but cannot.

    Parameters
    ----------
    baseraw : str or Path
        Root of the raw archive.
    night : str
        YYYYMMDD.

    Raises
    ------
    BadNightError
        If `night` is no date.
    MissingNightError
        If there is nothing of that night in any of the three layouts.
    """
    night_date(night)
    root = Path(os.path.abspath(baseraw))
    problems: list[Problem] = []
    containers = _in_folder(root / night / "lrs2", problems)
    whole = night_tar(root, night)
    if whole:
        containers.append(Container(whole[0], "night", tar_stamp(whole[1]), None))
    if not containers and not any(problem.severity == "warn" for problem in problems):
        if not root.is_dir():
            raise MissingNightError(f"raw archive {root} is not a folder: name it with --baseraw or PANACEA_BASERAW")
        raise MissingNightError(
            f"no raw LRS2 data of night {night}: neither {root / night / 'lrs2'} nor {root / (night + '.tar')} "
            "holds any; check the date and --baseraw"
        )
    return containers, problems
