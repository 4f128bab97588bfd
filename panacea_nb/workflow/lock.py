"""One run at a time per night and tag: a lock that names its owner, and a gate that only the owner's workers may pass.

The lock file says which process of which host owns the folder.  It is taken over only when that process is dead.
Workers of a killed driver may live on for a while: before they put anything in place they pass the gate (a file lock
held shared) and look whether the lock still names their driver and whether it lives; a new driver closes the gate (held
exclusively) while it puts its name on the lock.  So nothing can be written beside a resumed run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ..errors import PanaceaError, RequestError
from . import files
from .status import now

LOCK_NAME = ".lock"
GATE_NAME = ".gate"
HEARTBEAT = 5.0  # s between two signs of life in the lock file
# An owner on another host cannot be asked: it is taken for dead when it gave no sign of life for this long [s].
SILENCE = 4 * HEARTBEAT
# Its workers there end themselves after this long [s]: later than a file server's hiccup, and well within a minute.
ORPHANED = 1.75 * SILENCE


class LockedError(RequestError):
    """Another run works in this folder."""


class OwnerGoneError(PanaceaError):
    """The driver that ordered this work is dead or has lost its lock: nothing may be written any more."""


def process_start(pid: int) -> str | None:
    """A text that tells this process from an earlier or later one with the same number; None when it is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except OSError:
        return None
    else:
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # ticks since boot: no step of the clock changes them
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def user_name() -> str:
    """The name of who runs this process; a uid that has none, as in a container, is said as such."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def process_space() -> str:
    """Which processes this one can see: the running kernel and its namespace of process ids; empty where unknown.

    In a container the host's name may be the machine's own while process ids are not, and two machines may have one name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock; travels to the workers with every order."""

    host: str
    pid: int
    start: str
    token: str
    began: str
    scratch: str = ""
    space: str = ""
    job: str = ""

    @classmethod
    def this_process(cls, scratch: str = "") -> Owner:
        """This process as an owner, with a new token."""
        pid = os.getpid()
        start, token = process_start(pid) or "", uuid.uuid4().hex[:12]
        job = os.environ.get("SLURM_JOB_ID", "")
        return cls(socket.gethostname(), pid, start, token, now(), scratch, process_space(), job)

    @property
    def local(self) -> bool:
        """Whether the owner's process can be seen from here, so that it can be asked: same host, same process ids."""
        return is_local(self.host, self.space)

    def alive(self) -> bool:
        """Whether the owner's process lives; on another host this cannot be told and True is assumed."""
        return not self.local or process_start(self.pid) == self.start


def is_local(host: str, space: str) -> bool:
    """Whether a process of this host and process space can be seen from here."""
    return host == socket.gethostname() and space in ("", process_space())


class Watch:
    """Watches from a worker, or from beside the workers of a node, whether their driver lives.

    Parameters
    ----------
    night_dir : Path
        Where the driver's lock lies.
    token : str
        The driver's.
    patience : float
        How long a driver that cannot be asked may give no sign of life [s].
    """

    def __init__(self, night_dir: Path, token: str, patience: float = ORPHANED) -> None:
        self.night_dir, self.token, self.patience = night_dir, token, patience
        self._beat = 0
        self._heard = time.monotonic()
        self._looked = 0.0

    def lives(self) -> bool:
        """Whether the driver holds its lock and lives, or may live; asks the file system every two seconds at most."""
        now = time.monotonic()
        if now - self._looked < 2.0:
            return True
        self._looked = now
        try:
            # Opened, not only looked up: network file systems ask their server for the time of a file when it is opened.
            with (self.night_dir / LOCK_NAME).open(encoding="utf-8") as stream:
                beat = os.fstat(stream.fileno()).st_mtime_ns
                owner = Owner(**json.load(stream))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError):
            return now - self._heard < self.patience  # a passing failure of the file system, or half a file
        if owner.token != self.token:
            return False
        if owner.local:
            return owner.alive()
        if beat != self._beat:
            self._beat, self._heard = beat, now
        return now - self._heard < self.patience


def heartbeat_age(night_dir: Path) -> float | None:
    """Seconds since the last sign of life in the lock, by the clocks of file server and reader; None without a lock."""
    try:
        return max(0.0, time.time() - (night_dir / LOCK_NAME).stat().st_mtime)
    except OSError:
        return None


def read_owner(night_dir: Path) -> Owner | None:
    """The owner named by the lock of a night, None where it is not locked (or the file is damaged)."""
    try:
        return Owner(**json.loads((night_dir / LOCK_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def _flock(path: Path, kind: int) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, kind)
        except OSError as error:
            # Some shared file systems know no file locks; the check of the lock file itself remains.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield


@contextlib.contextmanager
def passage(night_dir: Path, owner: Owner) -> Iterator[None]:
    """Hold the gate open while something is put in place for ``owner``.

    Raises
    ------
    OwnerGoneError
        If the lock names somebody else or the owner is dead.
    """
    with _flock(night_dir / GATE_NAME, fcntl.LOCK_SH):
        current = read_owner(night_dir)
        if current is None or current.token != owner.token or not owner.alive():
            raise OwnerGoneError(f"the run {owner.token} that ordered this work is over; nothing was written")
        yield


def insist(night_dir: Path, owner: Owner) -> None:
    """See that the lock is still the driver's own; a file system that does not answer proves nothing.

    Raises
    ------
    OwnerGoneError
        If the folder was removed under the run, or another run holds the lock.
    """
    try:
        found = json.loads((night_dir / LOCK_NAME).read_text(encoding="utf-8")).get("token")
    except FileNotFoundError:
        raise OwnerGoneError(f"{night_dir} or the lock in it was removed while the run worked there: it ends") from None
    except (OSError, ValueError, AttributeError):
        return
    if found != owner.token:
        raise OwnerGoneError(f"another run ({found}) has taken over {night_dir}: this one ends")


class NightLock:
    """The lock of one night (and tag); a context manager.

    Parameters
    ----------
    night_dir : Path
        Folder of the night.
    owner : Owner
        Who takes it.
    silence : float
        How long an owner on another host must give no sign of life before its lock is taken over [s].

    Raises
    ------
    LockedError
        If another run holds it and is alive.
    """

    def __init__(self, night_dir: Path, owner: Owner, *, silence: float = SILENCE) -> None:
        self.night_dir = night_dir
        self.path = night_dir / LOCK_NAME
        self.owner = owner
        self.silence = silence
        self.taken_from: Owner | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> NightLock:
        files.make_folder(self.night_dir)
        self._refuse_or_watch()
        with _flock(self.night_dir / GATE_NAME, fcntl.LOCK_EX):
            # Looked at again with the gate closed: of two that come at once, one finds the other's name here.
            current = read_owner(self.night_dir)
            if current is not None and current != self.taken_from:
                raise self._refusal(current)
            files.write_json(self.path, asdict(self.owner))
        self._thread = threading.Thread(target=self._beat, name="lock-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        current = read_owner(self.night_dir)
        if current is not None and current.token == self.owner.token:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _refuse_or_watch(self) -> None:
        current = read_owner(self.night_dir)
        if current is None:
            return
        if current.local:
            if current.alive():
                raise self._refusal(current)
        else:
            # Compared with itself only: the clocks of two hosts and of the file server differ.
            seen = self.path.stat().st_mtime_ns
            deadline = time.monotonic() + self.silence
            while time.monotonic() < deadline:
                time.sleep(min(0.5, self.silence / 4))
                try:
                    if self.path.stat().st_mtime_ns != seen:
                        raise self._refusal(current)
                except FileNotFoundError:
                    return
        self.taken_from = current

    def _refusal(self, current: Owner) -> LockedError:
        return LockedError(
            f"another run works on {self.night_dir}: process {current.pid} on {current.host}, since {current.began}. "
            "Wait for its end, stop it, or give this one its own --tag"
        )
