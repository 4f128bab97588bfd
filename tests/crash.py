"""``make crash-test``: kill -9 at random moments, hundreds of times, of all kinds of processes of small nights.

Besides single processes (``warm``: those that kernels are forked from) the whole run is killed at once, as the end of a container
or a node does it, and with ``power`` what was not yet on the disk is lost as well (see `powerloss`).  After each kill whatever
claims success must be right, after the end of a killed driver nobody of its run may live, and each night must at last, run again
as often as needed, have the products of an undisturbed one and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import powerloss
import psutil
import toy_workflow as toy
from test_kill import check_finished, check_records, gone, of_kind, semaphores, start, worker_of

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import lock, processes

KINDS = ("driver", "worker", "kernel", "warm", "pool", "interchange", "container", "power")
PAUSE = 2.0  # s at most between two kills
END = 600.0  # s; a pool killed before it was heard of is given up after three minutes
AT_WORK, START = 0.7, 60.0  # share of the runs that are struck when tasks are running, and s to wait for that


def one_night(out: Path, chance: random.Random, struck: Counter, wanted: int, kinds: tuple[str, ...]) -> int:
    """Kill and run again until the night is done; returns how often it was started."""
    journal = out.with_name(f"{out.name}-disk")
    left_behind: set[Path] = set()
    for starts in range(1, 1000):
        kind = ""
        kernels = chance.choice(("plain", "fork"))
        driver = start(out, 2, kernels=kernels, environment=powerloss.watched(dict(os.environ), journal))
        owner = owner_of(out, driver)
        if owner is None:  # all was done before the last kill, and this run was over before its lock was seen
            text, _ = driver.communicate(timeout=END)
            assert driver.returncode == 0, text
            check_finished(out)
            assert not [path for path in left_behind if path.exists()]
            return starts
        token, scratch = owner.token, owner.scratch
        if chance.random() < AT_WORK:
            deadline = time.monotonic() + START
            while not worker_of(out) and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        for _ in range(chance.randint(2, 8)):
            time.sleep(chance.uniform(0.0, PAUSE))
            if total(struck) >= wanted or driver.poll() is not None:
                break
            kind = chance.choice([name for name in kinds if (name, kernels) != ("warm", "plain")] or ["driver"])
            if kind in ("container", "power"):
                killed = kill_all(driver, token)
                left_behind.add(Path(scratch))  # nobody is there to remove it before the next run
            else:
                killed = any(kill(pid) for pid in sought(kind, driver, out, token)[:1])
            struck[kind] += killed
            if kind == "power":
                struck["lost"] += powerloss.cut(out, journal, chance)
                break
            check_records(out)
            if kind in ("driver", "container"):
                break
        driver.communicate(timeout=END)
        if kind != "power":
            check_records(out)
        if Path(scratch) not in left_behind:
            gone(token, scratch)
        if driver.returncode == 0:
            check_finished(out)
            assert not [path for path in left_behind if path.exists()]
            return starts
    raise AssertionError("the night does not come to an end")


def owner_of(out: Path, driver: subprocess.Popen) -> lock.Owner | None:
    """Who holds the lock, as soon as it is this driver; None when the driver ends first."""
    while True:
        ended = driver.poll() is not None
        owner = lock.read_owner(Layout(out, toy.TOY_NIGHT).night_dir)
        if owner is not None and owner.pid == driver.pid:
            return owner
        if ended:
            return None
        time.sleep(0.01)


def sought(kind: str, driver: subprocess.Popen, out: Path, token: str) -> list[int]:
    """Processes of a kind; workers at work and kernels are there for a second at a time, so they are waited for."""
    if kind == "driver":
        return [driver.pid]
    deadline = time.monotonic() + 5.0
    while True:
        pids = worker_of(out) if kind == "worker" else of_kind(token, kind)
        if pids or driver.poll() is not None or time.monotonic() > deadline:
            return pids
        time.sleep(0.01)


def total(struck: Counter) -> int:
    """How often anything was killed."""
    return sum(struck[kind] for kind in KINDS)


def kill(pid: int) -> bool:
    """Whether the process was there to be killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kill_all(driver: subprocess.Popen, token: str) -> bool:
    """Kill all of a run at once, also the process that would tidy up after it; shared memory goes as it does with a container."""
    with contextlib.suppress(psutil.NoSuchProcess):
        everything = {child.pid for child in psutil.Process(driver.pid).children(recursive=True)}
        held = semaphores([driver.pid, *everything])
        struck = kill(driver.pid)
        while everything := {*everything, *processes.of_run(token)}:
            held |= semaphores(everything)
            everything = {pid for pid in everything if kill(pid) and _lives(pid)}
        for path in held:
            path.unlink(missing_ok=True)
        return struck
    return False


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> int:
    """Kill as often as asked; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="make crash-test", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of what is killed (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments and choices (default: drawn and shown)")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    chance, struck, nights, starts = random.Random(seed), Counter(), 0, 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="panacea_nb-crash-") as folder:
        while total(struck) < asked.kills:
            out = Path(folder) / f"night{nights}"
            starts += one_night(out, chance, struck, asked.kills, tuple(asked.kinds.split(",")))
            nights += 1
            shutil.rmtree(out)
            shutil.rmtree(Path(folder) / f"night{nights - 1}-disk")
            told = ", ".join(f"{struck[kind]} {kind}" for kind in KINDS)
            print(
                f"{total(struck)} kills ({told}; {struck['lost']} files and names gone with the power), {nights} nights in "
                f"{starts} starts, nothing lost", flush=True,
            )  # fmt: skip
    print(f"{total(struck)} kills survived, 0 lost, in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
