"""Parsl's pool of workers on one node, with its temporary files in the folder of the run, and a warm process beside it.

Run as ``python -m panacea_nb.workflow.process_worker_pool SCRATCH OPTIONS...``.  The pool keeps sockets in a temporary folder,
which it removes only when it ends by itself; in the run's folder they go with the run, however it ends.  Workers do not inherit
this: what they share with other runs (compiled code, the list of fonts) stays where TMPDIR says.
"""

from __future__ import annotations

import multiprocessing.util
import runpy
import sys
import tempfile
from pathlib import Path

from panacea_nb.workflow import warm

PARSL = "parsl.executors.high_throughput.process_worker_pool"

if __name__ == "__main__":
    scratch = Path(sys.argv.pop(1))
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    warm_process = warm.start(scratch)  # first, so that it is ready when the first worker is
    tempfile.tempdir = str(scratch)
    multiprocessing.util.get_temp_dir()  # made here, it is what the pool's own server process takes too
    runpy.run_module(PARSL, run_name="__main__", alter_sys=True)
