"""Runs of a toy night in this process: what is run again, what a failure stops, and what never counts as success."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import toy_workflow as toy

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import overview, runs, status
from panacea_nb.workflow.driver import DONE, INCOMPLETE
from panacea_nb.workflow.lock import LockedError, NightLock, Owner
from panacea_nb.workflow.status import State

LEAVES = [f"05_leaf-000000{obsid}-exp01-{channel}" for channel in toy.TOY_CHANNELS for obsid in (1, 2)]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run and its outcome."""
    folder = tmp_path_factory.mktemp("first")
    return folder, toy.reduce(folder / "out")


@pytest.fixture
def out(first, tmp_path) -> Path:
    """The output root of a finished run that was moved: a copy, with times kept."""
    shutil.copytree(first[0], tmp_path / "moved")
    return tmp_path / "moved" / "out"


def record_of(out: Path, task: str) -> status.Record:
    record = status.read(Layout(out, toy.TOY_NIGHT).status_dir, task)
    assert record is not None
    return record


def notebook_of(out: Path, task: str) -> dict:
    return json.loads((out / record_of(out, task).notebook).read_text())


def states(outcome) -> dict[str, str]:
    return {name: record.state.value for name, record in outcome.records.items()}


def test_a_run_leaves_products_notebooks_records_and_its_definition(first):
    folder, outcome = first
    out = folder / "out"
    assert outcome.exit_code == DONE
    assert set(states(outcome).values()) == {"succeeded"}
    assert len(outcome.ran) == 10
    assert {path.name: path.read_text() for path in (out / "LRS2/CALS").iterdir()} == {
        "00_start.txt": "7",
        "01_base-uv.txt": "7",
        "01_base-red.txt": "7",
        "02_mid-uv.txt": "1",  # (7 + 7) // 10
        "02_mid-red.txt": "1",
        **{f"{name}.txt": "16" for name in LEAVES},
        "10_end.txt": "7",
    }
    record = record_of(out, LEAVES[0])
    assert record.state is State.SUCCEEDED
    assert record.verdict == "pass"
    assert record.wall > 0.1
    assert 0.1 < record.cpu < 20
    assert 20e6 < record.peak_memory < 2e9
    assert list(record.products) == [f"LRS2/CALS/{LEAVES[0]}.txt"]
    notebook = notebook_of(out, LEAVES[0])
    assert notebook["metadata"]["panacea_nb"]["state"] == "succeeded"
    assert notebook["metadata"]["panacea_nb"]["image"] == "none"
    assert [cell["metadata"]["papermill"]["status"] for cell in notebook["cells"]] == ["completed"] * 6
    night = out / "NIGHTS" / toy.TOY_NIGHT
    assert "wavelength_bin: 10.0" in (night / "run.yaml").read_text()
    log = (night / "logs" / "reduce.log").read_text()
    assert "05_leaf, uv: source found at s/n: 16.00\n" in log
    assert not (night / ".lock").exists()
    assert not list((night / "work" / ".staging").iterdir())


def test_a_second_run_has_nothing_to_do_even_where_the_folder_was_moved(out):
    outcome = toy.reduce(out)
    assert outcome.exit_code == DONE
    assert outcome.ran == []


def test_a_changed_parameter_reruns_what_depends_on_it_and_equal_content_stops_the_cascade(out):
    outcome = toy.reduce(out, options={"knob.01_base-uv": "9", "knob.02_mid-red": "20"})
    # uv: 9 + 7 makes the same tens as 7 + 7, so its leaves need not be run again; red: they must.
    assert set(outcome.ran) == {"01_base-uv", "02_mid-uv", "02_mid-red", *LEAVES[2:], "10_end"}
    assert (out / "LRS2/CALS" / f"{LEAVES[2]}.txt").read_text() == "18"


def test_dry_run_foresees_and_writes_nothing(out):
    options = {"knob.02_mid-red": "20"}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    text = runs.dry_run(toy.definition_of(out, 0, options), toy.settings_of(out, options))
    reasons = {line.split()[0]: line.split("  ")[-1].strip() for line in text.splitlines()[2:-1]}
    assert reasons["02_mid-uv"] == "up to date"
    assert reasons["02_mid-red"] == "changed parameters knob"
    assert reasons[LEAVES[2]] == "input may change: 02_mid-red"
    assert reasons["10_end"] == "closes the run"
    code = runs.dry_run(toy.definition_of(out, 0, {}), toy.settings_of(out, {"code.": "newer"}))
    assert code.count("changed code") == 3  # the start and both bases; the rest waits for them
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_redo_and_until(out):
    outcome = toy.reduce(out, options={"redo": "mid", "until": "02"})
    assert outcome.ran == ["02_mid-uv", "02_mid-red"]
    assert len(outcome.records) == 5


def test_a_failure_blocks_what_depends_on_it_and_nothing_else(out, capsys):
    options = {"redo": "02_mid", "trouble.02_mid-uv": "raise"}
    outcome = toy.reduce(out, options=options)
    assert outcome.exit_code == INCOMPLETE
    expected = dict.fromkeys(states(outcome), "succeeded") | {"02_mid-uv": "failed"}
    assert states(outcome) == expected | {LEAVES[0]: "blocked", LEAVES[1]: "blocked"}
    record = record_of(out, "02_mid-uv")
    assert record.error["type"] == "ValueError"
    assert record.error["message"].startswith("it cannot be done: an error that the program did not foresee")
    assert record.error["where"] == 'In [4]: if trouble == "raise":'
    assert record.products == {}
    printed = capsys.readouterr().out
    assert "FAILED 02_mid-uv: ValueError: it cannot be done" in printed
    assert "(see In [4] of " in printed
    assert "Traceback" not in printed
    cells = notebook_of(out, "02_mid-uv")["cells"]
    assert "FAILED at In [4]." in "".join(cells[0]["source"])
    assert [cell["metadata"].get("papermill", {}).get("status") for cell in cells] == [
        None, "completed", "completed", "completed", "failed", "pending", "pending",
    ]  # fmt: skip
    # When it works again with the same result, what was blocked is up to date as it was before.
    again = toy.reduce(out)
    assert again.exit_code == DONE
    assert set(again.ran) == {"02_mid-uv", "10_end"}
    assert record_of(out, LEAVES[0]).state is State.SUCCEEDED


def test_ends_that_look_like_success_are_none(out):
    """sys.exit(0), os._exit(0), a killed kernel, a misspelt parameter, a notebook that never ends."""
    leaves = dict(zip(LEAVES, ("exit", "os_exit", "kill", "misspelt"), strict=True))
    options = {f"trouble.{name}": how for name, how in leaves.items()} | {"redo": "05_leaf"}
    options |= {"trouble.10_end": "hang", "limit.10_end": "2.5"}
    outcome = toy.reduce(out, options=options)
    assert outcome.exit_code == INCOMPLETE
    assert {outcome.records[name].state for name in (*LEAVES, "10_end")} == {State.FAILED}
    errors = {name: outcome.records[name].error for name in outcome.records}
    assert [errors[name]["type"] for name in LEAVES] == ["EndedEarly", "KernelDied", "KernelDied", "ParameterError"]
    assert "exit code 0" in errors[LEAVES[1]]["message"]
    assert "killed by signal 9" in errors[LEAVES[2]]["message"]
    assert "does not declare the parameter(s) misspelt" in errors[LEAVES[3]]["message"]
    assert errors["10_end"]["type"] == "TimeOut"
    for name in (*LEAVES[:3], "10_end"):
        notebook = notebook_of(out, name)
        assert notebook["metadata"]["panacea_nb"]["state"] == "failed"
        assert notebook["metadata"]["papermill"]["exception"] is True
        statuses = [cell["metadata"].get("papermill", {}).get("status") for cell in notebook["cells"]]
        assert statuses[4] == "failed" if name != LEAVES[0] else statuses[5:] == ["pending", "pending"]
        assert "completed" not in statuses[5:]
    assert record_of(out, LEAVES[0]).products == {}


def test_a_product_that_was_altered_or_removed_is_made_again(out):
    (out / "LRS2/CALS" / f"{LEAVES[0]}.txt").write_text("17")
    (out / "LRS2/CALS" / f"{LEAVES[1]}.txt").unlink()
    (out / record_of(out, LEAVES[2]).notebook).unlink()
    (out / "LRS2/CALS" / f"{LEAVES[3]}.txt").touch()  # another time, the same content
    outcome = toy.reduce(out)
    assert set(outcome.ran) == set(LEAVES[:3])
    assert (out / "LRS2/CALS" / f"{LEAVES[0]}.txt").read_text() == "16"


def test_a_file_of_another_run_is_not_replaced_without_overwrite(out):
    layout = Layout(out, toy.TOY_NIGHT)
    product = out / "LRS2/CALS" / f"{LEAVES[0]}.txt"
    status.record_path(layout.status_dir, LEAVES[0]).unlink()
    (out / "NIGHTS" / toy.TOY_NIGHT / "notebooks" / f"{LEAVES[0]}.ipynb").unlink()
    product.write_text("made by somebody else")
    outcome = toy.reduce(out)
    assert outcome.exit_code == INCOMPLETE
    error = outcome.records[LEAVES[0]].error
    assert error["type"] == "ForeignProductError"
    assert "--overwrite" in error["message"]
    assert product.read_text() == "made by somebody else"
    assert toy.reduce(out, options={"overwrite": "True"}).exit_code == DONE
    assert product.read_text() == "16"
    assert toy.reduce(out).ran == []


def test_what_cannot_run_at_all_fails_with_its_reason_and_others_go_on(out):
    outcome = toy.reduce(out, options={"problem.01_base-uv": "uv: there are no bias frames"})
    assert outcome.exit_code == INCOMPLETE
    assert outcome.records["01_base-uv"].error["message"] == "uv: there are no bias frames"
    assert states(outcome)["02_mid-uv"] == "blocked"
    assert states(outcome)["02_mid-red"] == "succeeded"
    assert outcome.ran == ["10_end"]


def test_a_killed_run_leaves_aborted_tasks_that_are_run_again(out):
    layout = Layout(out, toy.TOY_NIGHT)
    record = record_of(out, LEAVES[0])
    record.state, record.run = State.RUNNING, "somebody"
    status.write(layout.status_dir, record)
    assert overview.records(layout)[LEAVES[0]].state is State.ABORTED
    lines = {line.split()[0]: line for line in overview.night(layout).splitlines()}
    assert "aborted" in lines[LEAVES[0]]
    assert "1 aborted" in lines["9"]
    outcome = toy.reduce(out)
    assert set(outcome.ran) == {LEAVES[0]}
    assert outcome.exit_code == DONE


def test_a_damaged_record_means_that_the_task_is_done_again_and_says_so(out):
    """It lies there, so the task ran here: its files are its own, and what was half written beside them is removed."""
    night = Layout(out, toy.TOY_NIGHT)
    path = status.record_path(night.status_dir, LEAVES[0])
    path.write_text('{"id": "05_leaf", "stage"')
    part = path.with_name(f".{path.name}.12345.part")
    part.write_text("half")
    outcome = toy.reduce(out)
    assert outcome.exit_code == DONE
    assert outcome.ran == [LEAVES[0]]
    assert [d["code"] for d in record_of(out, LEAVES[0]).decisions] == ["RECORDLOST"]
    assert not record_of(out, LEAVES[0]).lost
    assert not part.exists()


def test_two_runs_of_a_night_exclude_each_other_but_tags_do_not(out):
    night = Layout(out, toy.TOY_NIGHT).night_dir
    with NightLock(night, Owner.this_process()):
        with pytest.raises(LockedError, match="another run works on"):
            toy.reduce(out)
        assert toy.reduce(out, options={"tag": "other", "until": "00"}).exit_code == DONE


@pytest.mark.parametrize(("trouble", "value"), [("", "1616"), ("raise", "16")])
def test_what_is_hoped_for_is_used_when_it_succeeds_and_blocks_nothing_when_it_fails(tmp_path, trouble, value):
    options = {"hope.": "yes", f"trouble.{LEAVES[0]}": trouble}
    outcome = toy.reduce(tmp_path / "out", 0, options)
    assert outcome.exit_code == (INCOMPLETE if trouble else DONE)
    assert outcome.records[LEAVES[1]].state is State.SUCCEEDED
    assert (tmp_path / "out/LRS2/CALS" / f"{LEAVES[1]}.txt").read_text() == value
    assert toy.reduce(tmp_path / "out", 0, options).ran == ([LEAVES[0]] if trouble else [])


def test_a_change_of_what_was_hoped_for_runs_the_task_again(tmp_path):
    toy.reduce(tmp_path / "out", 0, {"hope.": "yes"})
    outcome = toy.reduce(tmp_path / "out", 0, {"hope.": "yes", f"knob.{LEAVES[0]}": "8"})
    assert outcome.ran == [LEAVES[0], LEAVES[1], "10_end"]
    assert (
        tmp_path / "out/LRS2/CALS" / f"{LEAVES[1]}.txt"
    ).read_text() == "1816"  # 2 (8 + 1) hundredfold, and its own 16
    outcome = toy.reduce(tmp_path / "out", 0, {"hope.": "yes", f"trouble.{LEAVES[0]}": "raise"})
    assert outcome.records[LEAVES[1]].state is State.SUCCEEDED
    assert LEAVES[1] in outcome.ran  # what it had used is not certain any more
    assert (tmp_path / "out/LRS2/CALS" / f"{LEAVES[1]}.txt").read_text() == "16"
