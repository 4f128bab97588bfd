"""Kill -9 of driver, workers, kernels and what lies between: nothing is lost, nothing is wrong, nobody stays."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
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
PRODUCTS = {
    "00_start": "7",
    "01_base-uv": "7",
    "02_mid-uv": "1",
    "05_leaf-0000001-exp01-uv": "16",
    "05_leaf-0000002-exp01-uv": "16",
    "10_end": "7",
}


def start(out: Path, jobs: int = 2, *options: str) -> subprocess.Popen:
    """A driver of the toy night (one channel, two exposures) in a process of its own."""
    command = [sys.executable, str(SCRIPT), str(out), str(jobs), "sides=uv", "seconds=0.3", *options]
    path = os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


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
        return found if found is not None and found.pid == driver.pid else None

    return wait_for(owner, 20, "the driver's lock").token


def of_kind(token: str, kind: str) -> list[int]:
    """Processes of a run that are kernels, workers and so on."""
    found = []
    for pid in processes.of_run(token):
        with contextlib.suppress(psutil.Error):
            words = psutil.Process(pid).cmdline()
            if PATTERNS[kind] in " ".join(words) and words[0] != "bash":
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


def finish(out: Path) -> None:
    """A rerun ends well, with the products of an undisturbed run and nothing else."""
    driver = start(out)
    text, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, text
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
    # The first kill comes before the workers are up, the others in the midst of tasks.
    for moment in (0.2, chance.uniform(2.0, 3.5), chance.uniform(2.0, 3.5)):
        driver = start(out)
        token = token_of(out, driver)
        scratch = lock.read_owner(Layout(out, toy.TOY_NIGHT).night_dir).scratch
        time.sleep(moment)
        driver.kill()
        driver.communicate()
        check_records(out)
        gone(token, scratch)
        check_records(out)
    finish(out)


@pytest.mark.parametrize("kind", ["worker", "pool", "interchange"])
def test_what_the_engine_loses_is_done_again_in_the_same_run(tmp_path, kind):
    out = tmp_path / "out"
    driver = start(out)
    token = token_of(out, driver)
    wait_for(lambda: of_kind(token, "kernel"), 20, "a kernel")
    time.sleep(random.Random(kind).uniform(0.0, 0.8))
    for pid in worker_of(out) if kind == "worker" else of_kind(token, kind):
        os.kill(pid, signal.SIGKILL)
    text, _ = driver.communicate(timeout=90)
    assert driver.returncode == 0, text
    check_records(out)
    assert set(statuses(out).values()) == {State.SUCCEEDED}
    assert not list(processes.of_run(token))
    finish(out)


def test_a_killed_kernel_fails_its_task_and_a_rerun_mends_it(tmp_path):
    out = tmp_path / "out"
    driver = start(out)
    token = token_of(out, driver)
    layout = Layout(out, toy.TOY_NIGHT)

    def kernel_of_base():
        record = status.read(layout.status_dir, "01_base-uv")
        return of_kind(token, "kernel") if record is not None and record.state is State.RUNNING else None

    os.kill(wait_for(kernel_of_base, 20, "a kernel of the second task")[0], signal.SIGKILL)
    text, _ = driver.communicate(timeout=60)
    assert driver.returncode == 1, text
    found = statuses(out)
    assert found["01_base-uv"] is State.FAILED
    assert {found[name] for name in PRODUCTS if name.startswith(("02", "05"))} == {State.BLOCKED}
    assert re.search(r"FAILED 01_base-uv: (KernelDied|KernelStartError|DeadKernelError)", text)
    check_records(out)
    finish(out)


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_an_interrupted_run_says_so_and_goes_on_when_run_again(tmp_path, number, jobs):
    out = tmp_path / "out"
    driver = start(out, jobs)
    token = token_of(out, driver)
    wait_for(lambda: State.RUNNING in statuses(out).values(), 20, "a running task")
    time.sleep(0.5)
    driver.send_signal(number)
    text, _ = driver.communicate(timeout=20)
    assert driver.returncode == 3, text
    assert "interrupted, run again to go on" in text
    assert "Traceback" not in text
    assert State.ABORTED in statuses(out).values()
    assert State.RUNNING not in statuses(out).values()
    assert not list(processes.of_run(token))
    check_records(out)
    finish(out)
