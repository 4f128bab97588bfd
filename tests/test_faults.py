"""The table of faults; `make fault-test` tries them, `.ci/run` some of them."""

from __future__ import annotations

from pathlib import Path

from faults import FAULTS
from faults.__main__ import table


def test_the_table_of_faults_is_in_the_documentation():
    """`make fault-test DOCS=1` writes it."""
    assert (Path(__file__).parents[1] / "docs" / "faults.md").read_text(encoding="utf-8") == table()


def test_every_fault_has_a_name_of_its_own():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 80
