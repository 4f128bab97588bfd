"""Compiled code that was shipped is used by whoever may not write to it, and nothing is compiled again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from pathlib import Path
from panacea_nb import jit
jit.FOLDER = Path(sys.argv[1])
jit._TARGETS[__import__("platform").machine()] = ("generic", frozenset(sys.argv[3:]))
if sys.argv[2] == "late":
    import toy
if sys.argv[2] in ("ship", "late"):
    jit.ship("toy")
else:
    used = jit.use_shipped()
    import toy
    toy.warm_up()
    if sys.argv[2] == "more":
        toy.double(1.5)
    stats = toy.double.stats
    print(json.dumps([used, sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""
TOY = """
from numba import njit
@njit(cache=True)
def double(x):
    return 2 * x
def warm_up():
    double(1)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "toy.py").write_text(TOY)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def run(source, shipped, task, tmp, *flags, **environment):
    tmp.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return subprocess.run(
        [sys.executable, str(source / "program.py"), str(shipped), task, *flags],
        env={**inherited, "TMPDIR": str(tmp), "HOME": str(tmp), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def shipped(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefix") / "share" / "jit"
    run(source, folder, "ship", tmp_path_factory.mktemp("build"))
    return folder


def state(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shipped_code_is_loaded_and_not_written_to(source, shipped, tmp_path):
    before = state(shipped)
    assert len(before) == 3  # index, code, stamp
    for _ in range(2):  # the second process finds the folder of the first
        assert json.loads(run(source, shipped, "use", tmp_path / "tmp")) == [True, 1, 0]
    assert json.loads(run(source, shipped, "more", tmp_path / "tmp")) == [True, 1, 1]
    # What had to be compiled all the same was kept, privately.
    assert json.loads(run(source, shipped, "more", tmp_path / "tmp")) == [True, 2, 0]
    assert state(shipped) == before
    (private,) = (tmp_path / "tmp").glob(f"panacea_nb-{os.getuid()}-jit-*")
    assert private.stat().st_mode & 0o077 == 0


def test_folder_of_somebody_else_is_not_used(source, shipped, tmp_path):
    run(source, shipped, "use", tmp_path / "tmp")
    (private,) = (tmp_path / "tmp").glob("panacea_nb-*")
    private.chmod(0o777)
    assert json.loads(run(source, shipped, "use", tmp_path / "tmp")) == [True, 1, 0]
    assert len(list((tmp_path / "tmp").glob("panacea_nb-*"))) == 2


def test_a_processor_that_cannot_run_it_compiles_its_own(source, shipped, tmp_path):
    assert json.loads(run(source, shipped, "use", tmp_path / "tmp", "no-such-flag"))[0] is False


def test_the_users_word_on_numba_counts(source, shipped, tmp_path):
    mine = tmp_path / "mine"
    assert json.loads(run(source, shipped, "use", tmp_path / "tmp", NUMBA_CACHE_DIR=str(mine)))[0] is False
    assert any(mine.rglob("*.nbc"))


def test_nothing_shipped_changes_nothing(source, tmp_path):
    assert json.loads(run(source, tmp_path / "nowhere", "use", tmp_path / "tmp"))[0] is False


def test_code_that_would_not_be_shipped_is_noticed(source, shipped, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:  # its functions were defined before
        run(source, tmp_path / "jit", "late", tmp_path / "tmp")
    assert "nothing is in" in caught.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(source, shipped, "ship", tmp_path / "tmp")
    assert "remove it" in caught.value.stderr
