"""Kill -9 of driver, workers, kernels and what lies between: nothing is lost, nothing is wrong, nobody stays."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
import toy_workflow as toy

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import lock, processes, status
from panacea_nb.workflow.status import State

pytestmark = pytest.mark.slow

SCRIPT = Path(toy.__file__)
PATTERNS = {
    "kernel": "ipykernel_launcher",
    "pool": "process_worker_pool",
    "interchange": "interchange",
}
FORKS = "panacea_nb.workflow.forkserver"
PRODUCTS = {
    "00_start": "7",
    "01_base-uv": "7",
    "02_mid-uv": "1",
    "05_leaf-0000001-exp01-uv": "16",
    "05_leaf-0000002-exp01-uv": "16",
    "10_end": "7",
}


def start(
    out: Path, jobs: int = 2, *options: str, kernels: str = "plain", environment: dict[str, str] | None = None
) -> subprocess.Popen:
    """A driver of the toy night (one channel, two exposures) in a process of its own."""
    around = dict(os.environ if environment is None else environment)
    command = [sys.executable, str(SCRIPT), str(out), str(jobs), "sides=uv", "seconds=0.3", *options]
    path = os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parent), around.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, env=around | {"PYTHONPATH": path, "PANACEA_NB_KERNEL": kernels},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a background job
    )  # fmt: skip


def wait_for(condition, seconds: float, what: str):
    """What ``condition`` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


def token_of(out: Path, driver: subprocess.Popen) -> str:
    def owner():
        found = lock.read_owner(Layout(out, toy.TOY_NIGHT).night_dir)
        if found is None or found.pid != driver.pid:
            assert driver.poll() is None, f"the driver ended before its lock was seen:\n{driver.communicate()[0]}"
            return None
        return found

    return wait_for(owner, 60, "the driver's lock").token


def of_kind(token: str, kind: str) -> list[int]:
    """Processes of a run that are kernels, workers and so on."""
    found = []
    for pid in processes.of_run(token):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            words = process.cmdline()
            # A forked kernel looks like the process that it was forked from, but leads a group of its own.
            kernel_or_warm = FORKS in words and kind == ("kernel" if os.getpgid(pid) == pid else "warm")
            if kernel_or_warm or (kind in PATTERNS and PATTERNS[kind] in " ".join(words) and words[0] != "bash"):
                found.append(pid)
    return found


def worker_of(out: Path) -> list[int]:
    """The worker of a task that runs."""
    records = status.read_all(Layout(out, toy.TOY_NIGHT).status_dir).values()
    return [record.pid for record in records if record.state is State.RUNNING][:1]


def statuses(out: Path) -> dict[str, State]:
    return {name: record.state for name, record in status.read_all(Layout(out, toy.TOY_NIGHT).status_dir).items()}


def check_records(out: Path) -> None:
    """Whatever claims success has its product, complete and right."""
    for name, record in status.read_all(Layout(out, toy.TOY_NIGHT).status_dir).items():
        if record.state is State.SUCCEEDED:
            assert (out / f"LRS2/CALS/{name}.txt").read_text() == PRODUCTS[name]
            assert (out / record.notebook).is_file()


def done(out: Path) -> list[str]:
    return [name for name, state in statuses(out).items() if state is State.SUCCEEDED]


def semaphores(pids: Iterable[int]) -> set[Path]:
    """Named semaphores that these processes have open."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            found |= {Path(line.split()[-1]) for line in lines if "/dev/shm/sem." in line}
    return found


def finish(out: Path) -> None:
    """A rerun ends well."""
    driver = start(out, 0)
    text, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, text
    check_finished(out)


def check_finished(out: Path) -> None:
    """The products of an undisturbed run are there, and nothing else."""
    assert {path.stem: path.read_text() for path in (out / "LRS2/CALS").iterdir()} == PRODUCTS
    assert set(statuses(out).values()) == {State.SUCCEEDED}
    night = Layout(out, toy.TOY_NIGHT).night_dir
    assert not (night / ".lock").exists()
    assert not list((night / "work" / ".staging").glob("*"))
    leftovers = [path for path in out.rglob("*") if path.name.endswith(".part")]
    assert not leftovers


def gone(token: str, scratch: str) -> None:
    """Within seconds no process of a run lives and its temporary files are removed."""
    wait_for(lambda: not list(processes.of_run(token)), 5, "the end of all processes of the run")
    wait_for(lambda: not Path(scratch).exists(), 5, "the end of its temporary files")


def test_driver_killed_again_and_again(tmp_path):
    chance = random.Random(20250101)
    out = tmp_path / "out"
    # The first kill comes before the workers are up, the others in the midst of tasks, some of which are done.
    for ended, kernels in ((None, "plain"), (1, "plain"), (3, "fork")):
        driver = start(out, kernels=kernels)
        token = token_of(out, driver)
        scratch = lock.read_owner(Layout(out, toy.TOY_NIGHT).night_dir).scratch
        if ended is None:
            time.sleep(0.2)
        else:
            wait_for(lambda n=ended: len(done(out)) >= n and worker_of(out), 60, f"a task after {ended} others")
            time.sleep(chance.uniform(0.0, 0.25))
        driver.kill()
        driver.communicate()
        check_records(out)
        gone(token, scratch)
        check_records(out)
    finish(out)


def test_what_the_engine_loses_is_done_again_in_the_same_run(tmp_path):
    chance = random.Random(20250102)
    out = tmp_path / "out"
    driver = start(out)
    token = token_of(out, driver)
    ended = 0
    for kind in ("worker", "interchange", "pool"):
        # A kernel of a task that was not there when the last kill struck.
        wait_for(lambda n=ended: of_kind(token, "kernel") and len(done(out)) >= n, 40, f"a task to kill the {kind} of")
        time.sleep(chance.uniform(0.0, 0.8))
        for pid in worker_of(out) if kind == "worker" else of_kind(token, kind):
            os.kill(pid, signal.SIGKILL)
        ended = len(done(out)) + 1
    text, _ = driver.communicate(timeout=90)
    assert driver.returncode == 0, text
    assert "interchange has died; it is started again" in text
    assert not list(processes.of_run(token))
    check_finished(out)


def test_a_killed_kernel_fails_its_task_and_a_rerun_mends_it(tmp_path):
    out = tmp_path / "out"
    driver = start(out, 2, "trouble.01_base-uv=hang", kernels="fork")
    token = token_of(out, driver)
    wait_for((out / "hanging").exists, 30, "the second task")
    os.kill(of_kind(token, "kernel")[0], signal.SIGKILL)
    text, _ = driver.communicate(timeout=60)
    assert driver.returncode == 1, text
    found = statuses(out)
    assert found["01_base-uv"] is State.FAILED
    assert {found[name] for name in PRODUCTS if name.startswith(("02", "05"))} == {State.BLOCKED}
    assert "FAILED 01_base-uv: KernelDied: the notebook's process (kernel) was killed by signal 9" in text
    check_records(out)
    finish(out)


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_an_interrupted_run_says_so(tmp_path, number, jobs):
    out = tmp_path / "out"
    driver = start(out, jobs, "trouble.00_start=hang")
    token = token_of(out, driver)
    wait_for((out / "hanging").exists, 30, "the first task")
    begun = time.monotonic()
    driver.send_signal(number)
    text, _ = driver.communicate(timeout=20)
    assert driver.returncode == 3, text
    assert time.monotonic() - begun < 10
    assert "interrupted, run again to go on" in text
    assert "Traceback" not in text
    found = statuses(out)
    assert found.pop("00_start") is State.ABORTED
    assert set(found.values()) == {State.PENDING}
    assert not list(processes.of_run(token))
    assert not (Layout(out, toy.TOY_NIGHT).night_dir / ".lock").exists()


def test_a_run_whose_folder_is_removed_ends(tmp_path):
    out = tmp_path / "out"
    driver = start(out, 2, "seconds=1.5")
    token = token_of(out, driver)
    wait_for(lambda: done(out), 30, "the first task")
    scratch = lock.read_owner(Layout(out, toy.TOY_NIGHT).night_dir).scratch
    out.rename(tmp_path / "elsewhere")  # removed in one step: the run goes on writing
    said, _ = driver.communicate(timeout=30)
    assert driver.returncode == 2
    assert "was removed while the run worked there" in said
    gone(token, scratch)


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_leaves_no_temporary_files_and_no_semaphores(tmp_path, monkeypatch, killed):
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:  # a short path: sockets lie in it
        monkeypatch.setenv("TMPDIR", folder)
        driver = start(tmp_path, 2)
        token = token_of(tmp_path, driver)
        held = wait_for(lambda: semaphores(processes.of_run(token)), 30, "the pool's semaphores")
        if killed:
            driver.kill()
        driver.communicate(timeout=60)
        shared = ("-jit-", "-mpl")  # caches, which stay for other runs

        def left() -> list[str]:
            return [path.name for path in Path(folder).iterdir() if not any(word in path.name for word in shared)]

        wait_for(lambda: not list(processes.of_run(token)) and not left(), 15, "the end of everything")
        assert [path.name for path in held if path.exists()] == []
