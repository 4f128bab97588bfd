"""Some of the faults of `make fault-test`, and the table in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import FAULTS
from faults.__main__ import table
from faults.runner import make_base, try_fault

QUICK = [fault for fault in FAULTS if fault.quick]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The undamaged small night, extracted only."""
    return make_base(tmp_path_factory.mktemp("undamaged") / "base", "05")


@pytest.mark.slow
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_fault_ends_as_it_must(base, tmp_path, fault):
    result = try_fault(base, tmp_path, fault)
    assert result.problems == []


def test_the_table_of_faults_is_in_the_documentation():
    """`make fault-test DOCS=1` writes it."""
    assert (Path(__file__).parents[1] / "docs" / "faults.md").read_text(encoding="utf-8") == table()


def test_every_fault_has_a_name_of_its_own():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 80
    assert all(fault.until == "05" for fault in QUICK)
