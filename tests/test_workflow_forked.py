"""Warm kernels: the same results as ordinary ones, real exit codes, and nobody left behind."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import toy_workflow as toy

from panacea_nb.workflow import forked, kernel, scratch, warm, worker
from panacea_nb.workflow.lock import process_start
from panacea_nb.workflow.status import State

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernels are forked on Linux only")

DRAW = """import numpy as np
import matplotlib.pyplot as plt
x = np.linspace(0, 6, 200)
print(repr(np.sin(x).sum()), np.fft.rfft(x)[3])
plt.plot(x, np.sin(x)); plt.title("a sine");"""
ASK = """import json, os, random, sys, tempfile, threading
print(json.dumps({"pid": os.getpid(), "cwd": os.getcwd(), "mpl": os.environ["MPLCONFIGDIR"],
    "tmp": tempfile.gettempdir(),
    "omp": os.environ["OMP_NUM_THREADS"], "mine": os.environ["MINE"], "main": __name__, "argv": len(sys.argv),
    "random": [random.random(), np.random.rand()],
    "group": os.getpgid(0)}))"""


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run a notebook of these cells in a forked or plain kernel; gives outputs by cell and the session."""
    made = []

    def run(mode: str, *cells: str, **variables: str):
        from papermill import execute_notebook

        monkeypatch.setenv(warm.KERNELS, mode)
        folder = scratch.root() / f"pnb-test-{os.getpid()}-{len(made)}"
        made.append(folder)
        session = run.session = kernel.Session(folder, variables)
        notebook = toy.write_notebook(tmp_path / "n.ipynb", "value: int = 0", *cells)
        done = execute_notebook(
            str(notebook), None, parameters={"value": 5}, engine_name=kernel.ENGINE, kernel_name="python3",
            language="python", progress_bar=False, session=session,
        )  # fmt: skip
        return [cell.get("outputs", []) for cell in done.cells], session

    yield run
    from panacea_nb.workflow.engine import _clean_thread

    server = forked._server
    _clean_thread()
    assert server is None or server.process.poll() is not None
    for folder in made:
        scratch.files.remove_tree(folder)


def test_a_forked_kernel_has_what_the_notebooks_import_and_takes_ordinary_pages(execute):
    ask = "import json, sys, numpy; print(json.dumps([sorted(sys.modules), numpy._core.multiarray._get_madvise_hugepage()]))"
    (*_, [told]), session = execute("fork", ask)
    assert session.warm
    loaded, huge_pages = json.loads(told["text"])
    wanted = imported_by_notebooks()
    assert len(wanted) > 15
    assert wanted - set(loaded) == set()
    assert not huge_pages


def imported_by_notebooks() -> set[str]:
    """The package's modules in the import statements of all notebooks; those of the panels are for people only."""
    root = Path(__file__).parents[1]
    names = set()
    for notebook in (root / "notebooks").glob("*.ipynb"):
        code = "\n".join("".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("panacea_nb") and "interactive" not in node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if (root / f"{name.replace('.', '/')}.py").exists()}


def test_forked_and_plain_kernels_give_the_same_and_are_as_private(execute):
    plain, ordinary = execute("plain", DRAW, ASK, MINE="a")
    first, warm = execute("fork", DRAW, ASK, MINE="b")
    second, _ = execute("fork", DRAW, ASK, MINE="c")
    assert (ordinary.warm, warm.warm) == (False, True)
    # Text, numbers to the last digit and the figure's pixels.
    assert [o for o in first[2] if o["output_type"] != "execute_result"] == [
        o for o in plain[2] if o["output_type"] != "execute_result"
    ]
    assert any("image/png" in output.get("data", {}) for output in first[2])
    told = [json.loads(outputs[3][0]["text"]) for outputs in (plain, first, second)]
    for one in told:
        assert one["pid"] == one["group"]  # it leads a group of its own, so that its children are killed with it
        assert (one["main"], one["omp"]) == ("__main__", "1")
        assert Path(one["cwd"]) == Path(one["tmp"])
        assert Path(one["mpl"]).parent == Path(one["cwd"]).parent
    assert [one["mine"] for one in told] == ["a", "b", "c"]
    assert len({one["cwd"] for one in told}) == 3
    assert len({one["pid"] for one in told}) == 3
    assert len({tuple(one["random"]) for one in told}) == 3


def test_a_worker_that_was_made_ready_forks_its_first_kernel(execute, monkeypatch):
    for name in (warm.KERNELS, *warm.THREADS):  # with threads of its own it could not be forked
        monkeypatch.delenv(name, raising=False)
    worker.make_ready()
    assert forked._server.ready()
    _, session = execute("fork", "1")
    assert session.warm


def test_kernels_load_neither_debugger_nor_history(execute):
    told = "import sys; print('debugpy' in sys.modules, get_ipython().history_manager.enabled, In[-1][:6])"
    for mode in ("plain", "fork"):
        outputs, _ = execute(mode, told)
        loaded, history, source = outputs[2][0]["text"].split()
        assert (history, source) == ("False", "import")
    assert loaded == "False"


ARRAYS = """
import resource
for _ in range(50):
    bytearray(40 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has these settings")
def test_kernels_keep_the_memory_of_large_arrays_for_the_next():
    pages = 50 * (40 << 20) // 4096
    command = [sys.executable, "-c", ARRAYS]
    environment = warm.server_environment(warm.shared_environment())
    faults = int(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60).stdout)
    assert faults < pages // 5


def test_exit_codes_of_forked_kernels_are_the_real_ones(execute):
    from nbclient.exceptions import DeadKernelError

    for source, code in (("os._exit(0)", 0), ("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)):
        with pytest.raises(DeadKernelError):
            execute("fork", "import os", source, "print('never')")
        session = execute.session
        assert session.warm
        assert session.exit_code == code
        assert session.place == "In [4]"
        assert session.finished == {0, 1, 2}


def test_kernel_and_server_end_with_their_worker(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom panacea_nb.workflow import forked, kernel\n"
        f"folder = Path({str(tmp_path)!r}) / 'k'\nfolder.mkdir()\n"
        "environment = kernel.private_environment(folder, {})\nserver = forked.server(environment)\n"
        "arguments = ['-f', str(folder / 'kernel.json')]\n"
        "warm = server.fork(folder, arguments, environment, str(folder))\n"
        "print(server.process.pid, warm.pid, flush=True)\ntime.sleep(60)\n"
    )
    path = os.pathsep.join([str(Path(toy.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    worker = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, warm.KERNELS: "fork"},
    )  # fmt: skip
    pids = [int(word) for word in worker.stdout.readline().split()]
    time.sleep(1.0)  # the kernel begins to watch its parent when it is up
    assert all(process_start(pid) for pid in pids)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert gone(pids) == []


POOL = """import os, subprocess, sys, time
from pathlib import Path
from panacea_nb.workflow import warm
process = warm.start(Path(sys.argv[1]))
workers = [subprocess.Popen([sys.executable, sys.argv[2], str(number)]) for number in range(2)]
print(process.pid, *[worker.pid for worker in workers], flush=True)
time.sleep(60)
"""
ASKING = """import sys, time
from pathlib import Path
from panacea_nb.workflow import forked, kernel
folder = Path(__file__).parent / f"k{sys.argv[1]}"
folder.mkdir()
environment = kernel.private_environment(folder, {})
server = forked.server(environment)
warm = server.fork(folder, ["-f", str(folder / "kernel.json")], environment, str(folder))
told = folder / "told"
told.write_text(f"{type(server).__name__} {server.pid} {warm.pid}")
told.rename(folder / "pids")
time.sleep(60)
"""


@pytest.fixture
def pool(tmp_path):
    """A pool of two workers that share the node's warm process: its process and the ids of all others."""
    for name, text in (("pool.py", POOL), ("worker.py", ASKING)):
        (tmp_path / name).write_text(text)
    with tempfile.TemporaryDirectory(prefix="pnb-", dir=scratch.root()) as folder:
        path = os.pathsep.join([str(Path(toy.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "pool.py"), folder, str(tmp_path / "worker.py")], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path, warm.KERNELS: "fork"},
        )  # fmt: skip
        warm_pid, *workers = [int(word) for word in process.stdout.readline().split()]
        deadline = time.monotonic() + 60
        places = [tmp_path / f"k{number}" / "pids" for number in range(2)]
        while not all(place.exists() for place in places):
            assert time.monotonic() < deadline, "the workers got no kernels"
            time.sleep(0.1)
        time.sleep(1.0)  # kernels begin to watch their parents when they are up
        kinds, *pids = zip(*(place.read_text().split() for place in places), strict=True)
        assert kinds == ("NodeServer", "NodeServer")
        servers, kernels = ([int(pid) for pid in some] for some in pids)
        yield process, warm_pid, workers, servers, kernels
        for pid in (process.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def gone(pids: list[int]) -> list[int]:
    """Those that still live after ten seconds."""
    deadline = time.monotonic() + 10
    while any(process_start(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [pid for pid in pids if process_start(pid)]


def test_workers_of_a_node_share_one_warm_process_and_each_has_its_own_copy(pool):
    _, warm_pid, workers, servers, kernels = pool
    everybody = [warm_pid, *workers, *servers, *kernels]
    assert len(set(everybody)) == 7
    assert all(process_start(pid) for pid in everybody)
    os.kill(workers[0], signal.SIGKILL)
    assert gone([servers[0], kernels[0]]) == []
    assert all(process_start(pid) for pid in (warm_pid, workers[1], servers[1], kernels[1]))


def test_what_a_pool_started_warm_ends_with_it(pool):
    process, warm_pid, _, servers, kernels = pool
    process.kill()
    assert gone([warm_pid, *servers, *kernels]) == []


def test_without_the_node_s_warm_process_a_worker_starts_its_own(execute, monkeypatch, tmp_path):
    monkeypatch.setenv(warm.VARIABLE, str(tmp_path / "nobody"))
    _, session = execute("fork", "1")
    assert session.warm
    assert type(forked._server) is forked.ForkServer


def test_a_dead_server_is_replaced_by_plain_kernels_or_a_new_one(execute):
    execute("fork", "1")
    os.kill(forked._server.process.pid, signal.SIGKILL)
    forked._server.process.wait()
    _, session = execute("fork", "1")
    assert session.finished == {0, 1, 2}


def test_a_run_with_warm_kernels_is_as_strict_and_leaves_the_same_products(tmp_path, monkeypatch):
    monkeypatch.setenv(warm.KERNELS, "fork")
    options = {"trouble.02_mid-uv": "os_exit", "sides": "uv", "until": "02"}
    outcome = toy.reduce(tmp_path / "out", options=options)
    assert outcome.records["01_base-uv"].state is State.SUCCEEDED
    assert (tmp_path / "out/LRS2/CALS/01_base-uv.txt").read_text() == "7"
    assert outcome.records["02_mid-uv"].error["type"] == "KernelDied"
    assert "exit code 0" in outcome.records["02_mid-uv"].error["message"]
    assert forked._server is None
