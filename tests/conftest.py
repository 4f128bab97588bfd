"""A simulated night, made and reduced once for all tests that look at a whole reduction."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from panacea_nb.products.layout import Layout

NIGHT = "20250115"
SEED = 11
ARMS = {"056": "uv,orange", "066": "red,farred"}


@dataclass(frozen=True)
class ReducedNight:
    """A simulated night and its reduction through the executed notebooks."""

    baseraw: Path
    layout: Layout

    @property
    def night_dir(self) -> Path:
        return self.baseraw / self.layout.night


def panacea_nb(*arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "panacea_nb", *map(str, arguments)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, **environment}, check=False
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done


@pytest.fixture(scope="session")
def raw_night(tmp_path_factory) -> Path:
    """Root of a raw archive with one night: a standard, a faint source twice and a galaxy on each arm."""
    root = tmp_path_factory.mktemp("raw")
    panacea_nb("simulate", root, "--date", NIGHT, "--seed", SEED, "--scenario", "test")
    return root


@pytest.fixture(scope="session")
def reduced_night(raw_night, tmp_path_factory) -> ReducedNight:
    """The night reduced in all four channels; exposures on the IFU that held the target."""
    output = tmp_path_factory.mktemp("runs")
    for slot, sides in ARMS.items():
        panacea_nb(
            "reduce",
            "-d",
            NIGHT,
            "-s",
            sides,
            "-o",
            f"_{slot}_",
            "--baseraw",
            raw_night,
            "--output",
            output,
            "--jobs",
            2,
        )
    return ReducedNight(raw_night, Layout(output, NIGHT))
