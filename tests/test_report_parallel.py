"""Pieces of a report side by side: in order, forked where that is safe, and done alone when the helpers are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from panacea_nb.report import parallel

MANY = list(range(parallel._WORTHWHILE + 1))
SCRIPT = """
import os, sys, threading
from panacea_nb.report import parallel
def where(number): return number, os.getppid() if "loaded" in globals() else None
if __name__ == "__main__":
    loaded = True
    if sys.argv[1] == "threads": threading.Thread(target=threading.Event().wait, daemon=True).start()
    helped = list(parallel.Crew(2).each(where, list(range(parallel._WORTHWHILE + 1))))[1:]
    print(*{parent == os.getpid() for _, parent in helped})
"""


def cube_or_die(number: int) -> int:
    """A piece; one of them kills the process that makes it, unless that is the test's own."""
    if number == 7 and os.getpid() != int(os.environ["PANACEA_NB_TEST_PARENT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return number**3


def test_results_come_in_order_and_a_lost_helper_costs_none(monkeypatch):
    monkeypatch.setenv("PANACEA_NB_TEST_PARENT", str(os.getpid()))
    crew = parallel.Crew(2)
    assert list(crew.each(cube_or_die, MANY)) == [number**3 for number in MANY]
    assert crew.workers == 1
    crew = parallel.Crew(2)
    assert list(crew.each(abs, MANY)) == MANY
    assert list(crew.each(abs, [])) == []
    assert crew.workers == 2


def test_helpers_are_forked_by_a_process_without_threads_only(tmp_path):
    script = tmp_path / "crew.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([*sys.path[:1], os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for how, forked in (("alone", "True"), ("threads", "False")):
        done = subprocess.run(
            [sys.executable, str(script), how], capture_output=True, text=True, env=environment, check=True, timeout=60
        )
        assert done.stdout.split() == [forked]
