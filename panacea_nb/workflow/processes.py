"""Find and end what a run started: every process of a run carries its token in the environment it was started with."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

VARIABLE = "PANACEA_NB_RUN"
TIDYING = 2.0  # s that resource trackers have to end by themselves


def environment(token: str) -> dict[str, str]:
    """What to add to the environment of everything that a run starts."""
    # setproctitle (used by Parsl) would write process titles over the environment, where it could not be read any more.
    return {VARIABLE: token, "SPT_NOENV": "1"}


def python_path() -> str:
    """PYTHONPATH with which another process finds this very package, also in a checkout that is not installed."""
    package = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH", "")
    return inherited if package in inherited.split(os.pathsep) else os.pathsep.join(filter(None, (package, inherited)))


def of_run(token: str, variable: str = VARIABLE) -> Iterator[int]:
    """Process ids of everything that a run started and that still lives; this process is left out.

    ``variable`` and ``token`` may also be another mark that processes inherit, such as that of one node's workers.
    """
    mark = f"{variable}={token}"
    for pid in psutil.pids():
        if pid != os.getpid() and mark in _environment_of(pid):
            yield pid


def _environment_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        if sys.platform.startswith("linux"):
            return []
    try:
        return [f"{key}={value}" for key, value in psutil.Process(pid).environ().items()]
    except (psutil.Error, OSError):
        return []


def _tidies_up(pid: int) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in word for word in psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return False


def sweep(token: str, *, variable: str = VARIABLE, patience: float = 5.0) -> int:
    """Kill everything that a run started and wait until it is gone; returns how many processes there were.

    Python's resource trackers remove the semaphores of killed processes once these are gone, and then end by themselves: killed
    with them, they would leave some in the node's memory after each run.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + patience
    last, tidied = time.monotonic(), min(TIDYING, patience / 2)
    while True:
        # A zombie has no environment any more, so that it is not waited for.
        alive = list(of_run(token, variable))
        if not alive or time.monotonic() > deadline:
            return len(seen)
        seen.update(alive)
        others = [pid for pid in alive if not _tidies_up(pid)]
        if others:
            last = time.monotonic()
        elif time.monotonic() - last < tidied:
            alive = []
        for pid in others or alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def start_leash(token: str, scratch: Path) -> subprocess.Popen:
    """Start the process that ends a run's other processes when this one, the driver, is killed."""
    script = Path(__file__).with_name("leash.py")
    return subprocess.Popen(
        [sys.executable, "-S", "-E", str(script), str(os.getpid()), token, str(scratch)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # neither Ctrl-C nor the end of the terminal reaches it
        cwd="/",
    )
