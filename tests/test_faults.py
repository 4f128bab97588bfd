"""Damage, kills and load: the quick part of `make fault-test`, `make crash-test` and `make load-test`."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import crash
import load
import pytest
from faults import FAULTS
from faults.__main__ import table
from faults.runner import make_base, try_fault

# One of each group that fails alone, is reduced with a warning, is made again, or is refused.
SOME = ("tar-cut-late", "gain-zero", "product-changed", "two-runs")


def test_the_table_of_faults_is_in_the_documentation():
    """`make fault-test DOCS=1` writes it."""
    assert (Path(__file__).parents[1] / "docs" / "faults.md").read_text(encoding="utf-8") == table()


def test_every_fault_has_a_name_of_its_own():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 80


@pytest.mark.slow
def test_some_damaged_nights_end_as_the_table_says(tmp_path):
    base = make_base(tmp_path / "base", until="05")
    chosen = [fault for fault in FAULTS if fault.name in SOME]
    assert len(chosen) == len(SOME)
    for number, fault in enumerate(chosen):
        place = tmp_path / f"{number}"
        place.mkdir()
        assert try_fault(base, place, fault).problems == [], fault.name


@pytest.mark.slow
def test_a_night_survives_the_end_of_its_container_and_of_the_power(tmp_path):
    struck: Counter = Counter()
    # A night that is done early is struck less often, and a power cut may find all on the disk: another night, then.
    for number in range(1, 4):
        crash.one_night(tmp_path / f"{number}", random.Random(10 + number), struck, 6 * number, ("container", "power"))
        if struck["container"] + struck["power"] >= 6 and struck["lost"] > 0:
            break
    assert struck["container"] + struck["power"] >= 6
    assert struck["lost"] > 0  # else the disk has forgotten nothing, and the test shows nothing


@pytest.mark.slow
def test_a_night_leaves_nothing_behind(tmp_path):
    """No process, no temporary folder, no semaphore; whether anything grows from night to night, twenty of them show."""
    assert load.many_nights(tmp_path, 1) == []
