"""What `panacea-nb verify` finds in a finished run that somebody or something has touched, and what a rerun then mends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import toy_workflow as toy

from panacea_nb import cli
from panacea_nb.products.layout import Layout
from panacea_nb.workflow import status, verify

LEAF = "05_leaf-0000001-exp01-uv"
BESIDE = "05_leaf-0000002-exp01-uv"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return folder, toy.reduce(folder / "out")


@pytest.fixture
def layout(first, tmp_path) -> Layout:
    shutil.copytree(first[0], tmp_path / "copy")
    return Layout(tmp_path / "copy" / "out", toy.TOY_NIGHT)


def product(layout: Layout, task: str) -> Path:
    record = status.read(layout.status_dir, task)
    return layout.output / next(iter(record.products))


def found(layout: Layout) -> set[tuple[str, str, str]]:
    return {(item.what, item.path, item.task) for item in verify.verify(layout)}


def rewrite_in_place(path: Path, text: str) -> None:
    """Other content of the same size, with the time of change set back: what a look at the folder does not show."""
    before = path.stat()
    assert len(text) == before.st_size
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_untouched_run_is_whole(layout):
    assert found(layout) == set()
    assert "every file is what its record says" in verify.text(layout, [])


def test_missing_altered_and_foreign_files_are_told_apart(layout):
    gone, changed = product(layout, LEAF), product(layout, BESIDE)
    gone.unlink()
    rewrite_in_place(changed, "61")
    foreign = changed.with_name(f"multi_{layout.night}_0000009_exp01_uv.fits")
    foreign.write_bytes(b"who knows")
    assert found(layout) == {
        ("missing", layout.relative(gone), LEAF),
        ("altered", layout.relative(changed), BESIDE),
        ("foreign", layout.relative(foreign), ""),
    }
    text = verify.text(layout, verify.verify(layout))
    assert f"to be made again: {LEAF}, {BESIDE}" in text
    assert "--thorough" in text


def test_a_thorough_run_mends_what_a_plain_one_cannot_see(layout):
    changed = product(layout, LEAF)
    rewrite_in_place(changed, "61")
    assert LEAF not in toy.reduce(layout.output).ran
    assert changed.read_text() == "61"
    again = toy.reduce(layout.output, options={"thorough": True})
    assert LEAF in again.ran
    assert BESIDE not in again.ran
    assert changed.read_text() == "16"
    assert found(layout) == set()


def test_a_notebook_that_was_edited_is_altered(layout):
    notebook = layout.output / status.read(layout.status_dir, LEAF).notebook
    notebook.write_text(notebook.read_text().replace("value", "worth", 1))
    assert found(layout) == {("altered", layout.relative(notebook), LEAF)}


def test_products_of_a_task_that_fails_now_are_stale(layout):
    outcome = toy.reduce(layout.output, options={"redo": "05_leaf", f"trouble.{LEAF}": "raise"})
    assert outcome.records[LEAF].state is status.State.FAILED
    stale = {(what, task) for what, _, task in found(layout)}
    assert stale == {("stale", LEAF)}
    assert "of an earlier run" in verify.text(layout, verify.verify(layout))


def test_a_damaged_record_is_found(layout):
    record = status.record_path(layout.status_dir, LEAF)
    record.write_text(record.read_text()[:100])
    kinds = {(what, task) for what, _, task in found(layout)}
    assert ("unreadable", LEAF) in kinds


def test_the_command_ends_with_what_it_found(layout, capsys):
    assert cli.main(["verify", "--output", str(layout.output)]) == 0
    product(layout, LEAF).unlink()
    assert cli.main(["verify", "-d", layout.night, "--output", str(layout.output)]) == 1
    assert "missing" in capsys.readouterr().out
    assert cli.main(["verify", "-d", "20200101", "--output", str(layout.output)]) == 2
