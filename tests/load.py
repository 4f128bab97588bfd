"""``make load-test``: a night of many exposures, and many nights in a row; what they use must not grow with the work done.

While `panacea-nb reduce` runs, its processes are watched: memory (PSS) and open files of the largest, their number, and the disk
that its temporary files take.  Each must stay within a limit, and in the last third of the tasks be what it was in the middle one.
After a night nothing may stay behind: no process, no temporary folder, no semaphore.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib
import numpy as np
import psutil
from test_kill import semaphores

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from panacea_nb.simulate import SCENARIOS
from panacea_nb.simulate.night import simulate_night
from panacea_nb.workflow.status import State

NIGHT = "20250115"
STEP = 2.0  # s between two looks
MARK = "PANACEA_NB_LOAD"
GROWTH = 0.10  # of the middle third, by which the last may be more
QUANTITIES = {  # what is watched: its unit and the most that it may be
    "memory": ("GB, largest process", 1.5),
    "files": ("open, largest process", 256),
    "processes": ("of the run", 40),
    "scratch": ("GB", 4.0),
}


@dataclass
class Watch:
    """What a run was seen to use.

    Attributes
    ----------
    done : tasks done at each look
    seen : values of each quantity at each look
    semaphores : those that the run's processes had open
    """

    done: list[int] = field(default_factory=list)
    semaphores: set[Path] = field(default_factory=set)
    seen: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in QUANTITIES})

    def look(self, mark: str, status: Path, scratch: Path) -> None:
        """Look once at all processes that carry the mark."""
        memory, files, count = 0.0, 0, 0
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) != mark:
                    continue
                memory = max(memory, process.memory_full_info().pss / 2**30)
                files, count = max(files, process.num_fds()), count + 1
                self.semaphores |= semaphores([process.pid])
            except (psutil.Error, OSError):
                continue  # it has ended
        self.done.append(sum(_succeeded(path) for path in status.glob("*.json")))
        for name, value in zip(QUANTITIES, (memory, files, count, _size(scratch) / 2**30), strict=True):
            self.seen[name].append(float(value))

    def thirds(self, name: str) -> tuple[float, float]:
        """The 95th percentile of a quantity in the middle and in the last third of the tasks."""
        done, values = np.array(self.done), np.array(self.seen[name])
        last = done.max()
        parts = (done > last / 3) & (done <= 2 * last / 3), done > 2 * last / 3
        return tuple(float(np.percentile(values[part], 95)) if part.any() else 0.0 for part in parts)

    def complaints(self) -> list[str]:
        """What was too much, or grew."""
        found = []
        for name, (unit, limit) in QUANTITIES.items():
            middle, last = self.thirds(name)
            most = max(self.seen[name])
            print(f"  {name:10} {unit:24} most {most:7.2f} (limit {limit}); middle third {middle:.2f}, last {last:.2f}")
            if most > limit:
                found.append(f"{name}: {most:.2f} is more than {limit} {unit}")
            if last > (1 + GROWTH) * middle and last > 0.1 * limit:
                found.append(f"{name} grew from {middle:.2f} to {last:.2f} {unit}")
        return found


def _succeeded(record: Path) -> bool:
    try:
        return json.loads(record.read_text())["state"] == State.SUCCEEDED
    except (OSError, ValueError):
        return False


def _size(folder: Path) -> int:
    total = 0
    for here, _, names in os.walk(folder):  # it passes over folders that are gone when it comes to them
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(here, name)).st_blocks * 512
    return total


def reduce(root: Path, night: str, sides: str, out: Path, watch: Watch) -> None:
    """Reduce a night and look at it meanwhile; afterwards nothing of it may be left but its products."""
    mark, scratch = f"{os.getpid()}-{night}", root / "scratch"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "panacea_nb", "reduce", "-d", night, "-s", sides, "--baseraw", str(root / "raw"),
               "--output", str(out), "--jobs", "2"]  # fmt: skip
    environment = os.environ | {MARK: mark, "TMPDIR": str(scratch)}
    with (root / f"{night}.log").open("w") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while run.poll() is None:
                watch.look(mark, out / "NIGHTS" / night / "status", scratch)
                time.sleep(STEP)
        finally:
            run.kill()  # what else it started ends with it
    if run.returncode != 0:
        raise AssertionError(f"{night} ended with {run.returncode}: {(root / f'{night}.log').read_text()[-2000:]}")
    time.sleep(STEP)
    left = [p.pid for p in psutil.process_iter() if _carries(p, mark)]
    runs = [path.name for path in scratch.iterdir() if "jit" not in path.name and "mpl" not in path.name]  # caches stay
    held = [path.name for path in watch.semaphores if path.exists()]
    if left or runs or held:
        raise AssertionError(f"{night} left behind: processes {left}, folders {runs}, semaphores {held}")


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def long_night(root: Path, exposures: int, sides: str, kept: Path) -> list[str]:
    """One night of many exposures."""
    print(f"a night of {exposures} exposures of each arm, channels {sides}", flush=True)
    targets = tuple(
        replace(t, n_exposures=exposures - 1, exptime=300.0) if t.kind == "point" else t
        for t in SCENARIOS["test"].targets
        if t.kind != "galaxy"
    )
    simulate_night(root / "raw", NIGHT, 1, sides, replace(SCENARIOS["test"], targets=targets))
    watch, begin = Watch(), time.monotonic()
    reduce(root, NIGHT, sides, root / "out", watch)
    print(f"  {max(watch.done)} tasks in {time.monotonic() - begin:.0f} s", flush=True)
    figure, axes = plt.subplots(len(QUANTITIES), sharex=True, figsize=(8, 9), layout="constrained")
    for axis, (name, (unit, limit)) in zip(axes, QUANTITIES.items(), strict=True):
        axis.plot(watch.done, watch.seen[name], ".", ms=3)
        axis.set(ylabel=f"{name}\n[{unit}]", ylim=(0, 1.15 * min(limit, 2 * max(*watch.seen[name], 1e-3))))
    axes[-1].set_xlabel("tasks done")
    figure.savefig(kept / "load.png", dpi=100)
    (kept / "load.json").write_text(json.dumps({"done": watch.done, **watch.seen}))
    print(f"  drawn in {kept / 'load.png'}", flush=True)
    shutil.rmtree(root / "out")
    return watch.complaints()


def many_nights(root: Path, nights: int) -> list[str]:
    """Nights one after the other; the last must take no more than the first ones."""
    print(f"{nights} nights in a row, uv", flush=True)
    walls, peaks = [], []
    for number in range(nights):
        night = f"202502{number + 1:02d}"
        simulate_night(root / "raw", night, number, "uv", SCENARIOS["demo"])
        watch, begin = Watch(), time.monotonic()
        reduce(root, night, "uv", root / "nights", watch)
        walls.append(time.monotonic() - begin)
        peaks.append(max(watch.seen["memory"]))
        shutil.rmtree(root / "raw" / night)
        disk = _size(root / "nights") / 2**30 / (number + 1)
        print(f"  {night}: {walls[-1]:.0f} s, {peaks[-1]:.2f} GB, {disk:.2f} GB on disk a night", flush=True)
    third = max(1, nights // 3)
    (first, last), (early, late) = ((np.median(v[:third]), np.median(v[-third:])) for v in (peaks, walls))
    print(f"  first third {first:.2f} GB, {early:.0f} s a night; last {last:.2f} GB, {late:.0f} s")
    return [f"memory grew from night to night: {first:.2f} -> {last:.2f} GB"] if last > (1 + GROWTH) * first else []


def main() -> int:
    """Load it as asked; 1 when something grew or was left behind."""
    parser = argparse.ArgumentParser(prog="make load-test", description=__doc__)
    parser.add_argument("--exposures", type=int, default=60, help="of each arm in the long night (default 60; 0: none)")
    parser.add_argument(
        "--sides", default="uv,red", help="channels of the long night (default one of each arm; 0.2 GB an exposure each)"
    )
    parser.add_argument("--nights", type=int, default=20, help="in a row (default 20; 0: none)")
    parser.add_argument("--keep", type=Path, default=Path("runs/load-test"), help="where the figure goes")
    asked = parser.parse_args()
    asked.keep.mkdir(parents=True, exist_ok=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="panacea_nb-load-") as folder:
        root = Path(folder)
        if asked.exposures:
            found += long_night(root, asked.exposures, asked.sides, asked.keep)
        if asked.nights:
            found += many_nights(root, asked.nights)
    for text in found:
        print(f"too much: {text}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
