"""Beside the workers of one node: ends them when their driver is gone, whatever lies between (srun, a container, a queue).

Run as ``python -m panacea_nb.workflow.node NIGHT_DIR TOKEN GENERATION SCRATCH COMMAND...`` inside the container, where it
sees the workers' processes.  It watches the lock of the night (`lock.Watch`) and the file ``work/pool``, which names the
generation of pools that the driver counts on: workers of one that was given up must not go on beside the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from . import files, processes
from .lock import Watch, process_space, read_owner

VARIABLE = "PANACEA_NB_NODE"
PERIOD = 1.0  # s between two looks
EXIT_ORPHAN = 70


def pool_file(night_dir: Path) -> Path:
    """The file that names the generation of pools in service."""
    return night_dir / "work" / "pool"


def main(arguments: list[str]) -> int:
    """Run the command until it ends or its driver is gone; returns an exit code."""
    night_dir, token, generation, scratch, *command = arguments
    place, mark = Path(night_dir), uuid.uuid4().hex[:12]
    owner = read_owner(place)
    # The driver's own machine is left to the driver and its leash; elsewhere nobody else cleans up.
    elsewhere = owner is None or owner.space.split(" ")[0] != process_space().split(" ")[0]
    # One who is told to end ends its workers too: Slurm tells every process of a step, a shell only its child.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(EXIT_ORPHAN))
    watch = Watch(place, token)
    code: int | None = None
    try:
        if not watch.lives() or not _in_service(place, generation):
            return EXIT_ORPHAN  # a pilot job that comes too late
        with subprocess.Popen(command, env={**os.environ, VARIABLE: mark}) as child:
            try:
                while code is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = child.wait(PERIOD)
                    if code is None and not (watch.lives() and _in_service(place, generation)):
                        code = EXIT_ORPHAN
            finally:
                processes.sweep(mark, variable=VARIABLE)
        return code
    finally:
        if elsewhere and Path(scratch).is_absolute():
            files.remove_tree(Path(scratch))


def _in_service(night_dir: Path, generation: str) -> bool:
    try:
        return pool_file(night_dir).read_text(encoding="utf-8").strip() == generation
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a hiccup of the file system; the lock's heartbeat decides


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
