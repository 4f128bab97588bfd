"""A thread beside the notebook: it measures the kernel, stops it in time, and ends the worker of a dead driver."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from .lock import Owner, Watch

PERIOD = 0.25  # s between two looks
_MEASURE = 1.0  # s between two measurements, which cost some ms each
EXIT_ORPHAN = 70  # exit code of a worker that found its driver dead


@dataclass
class Usage:
    """What a notebook run cost: CPU [s], and the largest memory [bytes], of kernel and worker together."""

    cpu: float = 0.0
    peak_memory: int = 0


class Supervisor(threading.Thread):
    """Watches one kernel at a time, and the driver all the time.

    Parameters
    ----------
    owner : Owner
        The driver that this process works for.
    night_dir : Path
        Where its lock lies.
    orphan_ends : bool
        Whether this process is to end with its driver; not so when it is the driver.
    """

    def __init__(self, owner: Owner, night_dir: Path, *, orphan_ends: bool) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.owner, self.night_dir, self.orphan_ends = owner, night_dir, orphan_ends
        self.timeout = 0.0
        self.timed_out = False
        self.stopping = False  # the run was interrupted: a kernel that dies now was killed by us
        self.retired = False  # another driver took this process's place as owner
        self._pid = 0
        self._deadline = 0.0
        self._usage = Usage()
        self._lock = threading.Lock()
        self._watch = Watch(night_dir, owner.token)
        self._own_cpu = 0.0

    def watch(self, pid: int, timeout: float) -> None:
        """Begin to watch a kernel that may take ``timeout`` seconds."""
        with self._lock:
            self._pid, self._usage = pid, Usage()
            self.timeout, self.timed_out = timeout, False
            self._deadline = time.monotonic() + timeout
            self._own_cpu = time.process_time()

    def end(self) -> Usage:
        """Stop watching the kernel; what it cost."""
        with self._lock:
            self._pid = 0
            usage, self._usage = self._usage, Usage()
            return usage

    def measure(self) -> None:
        """Take a measurement now (the kernel is about to be ended)."""
        with self._lock:
            pid = self._pid
            if not pid:
                return
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.Error:
                return
            own = time.process_time() - self._own_cpu
            cpu = times.user + times.system + times.children_user + times.children_system + own
            memory = _memory(pid) + _memory(os.getpid())
            self._usage.cpu = max(self._usage.cpu, round(cpu, 3))
            self._usage.peak_memory = max(self._usage.peak_memory, memory)

    def run(self) -> None:
        """Look around until the process ends."""
        measured = 0.0
        while not self.retired:
            time.sleep(PERIOD)
            if self.orphan_ends and not self._driver_lives():
                self.kill()
                os._exit(EXIT_ORPHAN)
            now = time.monotonic()
            if self._pid and now > self._deadline:
                self.timed_out = True
                self.kill()
            if self._pid and now - measured > _MEASURE:
                measured = now
                self.measure()

    def kill(self) -> None:
        """Kill the kernel that is being watched."""
        from .kernel import kill_kernel

        if self._pid:
            kill_kernel(self._pid)

    def _driver_lives(self) -> bool:
        if self.owner.local:
            return self.owner.alive()
        # On another node, or behind a container's walls, only the lock tells.
        return self._watch.lives()


def _memory(pid: int) -> int:
    """Proportional memory of a process [bytes]: what it shares with others is counted once among them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


_current: Supervisor | None = None


def for_owner(owner: Owner, night_dir: Path) -> Supervisor:
    """The supervisor of this process, made at its first task."""
    global _current
    if _current is None or _current.owner != owner:
        if _current is not None:
            _current.retired = True
        _current = Supervisor(owner, night_dir, orphan_ends=_is_worker(owner))
        _current.start()
    return _current


def kill_current_kernel() -> None:
    """Kill the kernel that runs in this process, if any: the serial engine's way to stop at once."""
    if _current is not None:
        _current.stopping = True
        _current.kill()


def _is_worker(owner: Owner) -> bool:
    return not (owner.local and owner.pid == os.getpid())


def end_if_orphan(owner: Owner) -> None:
    """End this process at once when it is a worker: its driver is gone and nobody waits for an answer."""
    if _is_worker(owner):
        os._exit(EXIT_ORPHAN)
