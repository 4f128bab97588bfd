"""Kill -9 in the midst of a real reduction: what comes out in the end is what an undisturbed run leaves."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import NIGHT

from panacea_nb.products.digest import content_digest
from panacea_nb.products.layout import Layout
from panacea_nb.workflow import lock, processes, status
from panacea_nb.workflow.status import State

pytestmark = pytest.mark.slow

OBSID, CHANNEL = 4, "orange"


def start(raw_night: Path, output: Path) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable, "-m", "panacea_nb", "reduce", "-d", NIGHT, "-s", CHANNEL, "--obsid", str(OBSID),
        "--baseraw", str(raw_night), "--output", str(output), "--jobs", "2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def family(token: str, word: str) -> list[int]:
    """Processes of a run whose command line holds a word."""
    found = []
    for pid in processes.of_run(token):
        with contextlib.suppress(psutil.Error):
            if word in " ".join(psutil.Process(pid).cmdline()):
                found.append(pid)
    return found


def check_claims(layout: Layout) -> None:
    """Whatever claims success has all its products, with the content that its record says."""
    for record in status.read_all(layout.status_dir).values():
        if record.state is State.SUCCEEDED:
            assert (layout.output / record.notebook).is_file()
            for path, digest in record.products.items():
                assert content_digest(layout.output / path) == digest, path


def products(layout: Layout) -> dict[str, str]:
    """Content of the exposure's and the channel's products by path."""
    names = [f"*_{OBSID:07d}_exp01_{CHANNEL}*.fits", f"cal_*_{CHANNEL}.fits"]
    found = [path for name in names for path in (layout.output / "LRS2").rglob(name)]
    return {path.relative_to(layout.output).as_posix(): content_digest(path) for path in sorted(found)}


def test_products_after_kills_are_those_of_an_undisturbed_run(raw_night, reduced_night, tmp_path):
    chance = random.Random(20250103)
    layout = Layout(tmp_path / "run", NIGHT)
    for victim in ("driver", "kernel", "process_worker_pool", "driver"):
        driver = start(raw_night, layout.output)
        deadline = time.monotonic() + 60
        while (owner := lock.read_owner(layout.night_dir)) is None or owner.pid != driver.pid:
            assert time.monotonic() < deadline, "the driver took no lock"
            time.sleep(0.05)
        time.sleep(chance.uniform(4, 14))
        targets = (
            [driver.pid] if victim == "driver" else family(owner.token, "forkserver" if victim == "kernel" else victim)
        )
        for pid in targets[-1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if victim != "driver":
            time.sleep(chance.uniform(0.5, 3))
            driver.kill()
        driver.communicate()
        deadline = time.monotonic() + 20
        while list(processes.of_run(owner.token)):
            assert time.monotonic() < deadline, "processes of a killed run live on"
            time.sleep(0.1)
        check_claims(layout)
    driver = start(raw_night, layout.output)
    text, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, text[-3000:]
    check_claims(layout)
    undisturbed = products(reduced_night.layout)
    assert len(undisturbed) == 7
    assert products(layout) == undisturbed
    assert not list(layout.output.rglob("*.part"))
