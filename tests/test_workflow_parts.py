"""The smaller parts of the workflow: lock and gate, notebooks' declarations, results, digests, tables, a lost pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_workflow as toy

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import driver, engine, files, lock, notebooks, progress, status, worker
from panacea_nb.workflow.fingerprint import DigestCache, code_digest
from panacea_nb.workflow.lock import LockedError, NightLock, Owner, OwnerGoneError, passage, process_start
from panacea_nb.workflow.status import Record, State


def dead_owner() -> Owner:
    """An owner whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    start = process_start(process.pid)
    process.wait()
    return replace(Owner.this_process(), pid=process.pid, start=start or "1")


# --- lock and gate ---------------------------------------------------------------------------------------------------
def test_lock_refuses_the_living_and_names_them(tmp_path):
    with NightLock(tmp_path, Owner.this_process()) as held:
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        with pytest.raises(LockedError, match=f"process {os.getpid()} on {held.owner.host}"):
            NightLock(tmp_path, Owner.this_process()).__enter__()
    assert not (tmp_path / ".lock").exists()


def test_lock_of_the_dead_is_taken_over(tmp_path):
    dead = dead_owner()
    files.write_json(tmp_path / ".lock", asdict(dead))
    with NightLock(tmp_path, Owner.this_process()) as taken:
        assert taken.taken_from == dead
        assert lock.read_owner(tmp_path) == taken.owner


def test_a_process_that_has_the_number_of_the_dead_owner_does_not_hold_its_lock(tmp_path):
    files.write_json(tmp_path / ".lock", asdict(replace(Owner.this_process(), start="1")))
    with NightLock(tmp_path, Owner.this_process()):
        pass


def test_zombies_are_dead():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 10
    while process_start(process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process_start(process.pid) is None  # it has ended, and nobody has waited for it yet
    process.wait()
    assert process_start(os.getpid())


def test_lock_of_another_host_is_taken_over_only_when_it_gives_no_sign_of_life(tmp_path):
    path = tmp_path / ".lock"
    files.write_json(path, asdict(replace(Owner.this_process(), host="elsewhere", pid=1)))
    beat = subprocess.Popen(
        [sys.executable, "-c", f"import os, time\nfor i in range(40): os.utime({str(path)!r}); time.sleep(0.05)"]
    )
    with pytest.raises(LockedError, match="elsewhere"):
        NightLock(tmp_path, Owner.this_process(), silence=1.0).__enter__()
    beat.wait()
    with NightLock(tmp_path, Owner.this_process(), silence=0.3):
        pass


def test_gate_lets_only_the_living_owner_of_the_lock_pass(tmp_path):
    mine = Owner.this_process()
    with pytest.raises(OwnerGoneError), passage(tmp_path, mine):
        pass
    with NightLock(tmp_path, mine):
        with passage(tmp_path, mine):
            pass
        with pytest.raises(OwnerGoneError), passage(tmp_path, replace(mine, token="other")):
            pass
    dead = dead_owner()
    files.write_json(tmp_path / ".lock", asdict(dead))
    with pytest.raises(OwnerGoneError), passage(tmp_path, dead):
        pass


# --- notebooks -------------------------------------------------------------------------------------------------------
def test_declarations_are_read_without_running_anything(tmp_path):
    source = "a: int = 1\nb: float | None = None  # A\nc = 'x'\nd: list[str] = []"
    path = toy.write_notebook(tmp_path / "n.ipynb", source, "raise SystemExit")
    assert notebooks.declared_parameters(path) == {"a": "int", "b": "float | None", "c": "", "d": "list[str]"}
    notebooks.check_parameters(path, {"a": 3, "b": 2, "c": object(), "d": ["x"]})
    notebooks.check_parameters(path, {"b": None})
    for wrong, message in (
        ({"aa": 1}, r"does not declare the parameter\(s\) aa"),
        ({"a": "3"}, "declares a: int, but was given '3'"),
        ({"a": True}, "declares a: int, but was given True"),
        ({"a": None}, "declares a: int, but was given None"),
        ({"d": "x"}, "declares d"),
    ):
        with pytest.raises(notebooks.ParameterError, match=message):
            notebooks.check_parameters(path, wrong)


def test_source_digest_sees_code_and_text_but_no_outputs(tmp_path):
    path = toy.write_notebook(tmp_path / "n.ipynb", "a = 1", "print(a)")
    before = notebooks.source_digest(path)
    content = json.loads(path.read_text())
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    content["cells"][1]["execution_count"] = 5
    content["metadata"]["anything"] = 1
    content["cells"][1]["source"] = ["print(a)"]
    path.write_text(json.dumps(content))
    assert notebooks.source_digest(path) == before
    content["cells"][1]["source"] = ["print(a )"]
    path.write_text(json.dumps(content))
    assert notebooks.source_digest(path) != before


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', "{"])
def test_what_is_no_notebook_is_said_to_be_none(tmp_path, text):
    (tmp_path / "n.ipynb").write_text(text)
    with pytest.raises(notebooks.NotebookError):
        notebooks.source_digest(tmp_path / "n.ipynb")


# --- results ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": "old"}, "another attempt"),
        ({"stage": "06_sky"}, "another attempt or stage"),
        ({"verdict": "splendid"}, "verdict 'splendid'"),
        ({"products": [{"path": "LRS2/b.fits", "digest": "1"}]}, "announced but not made"),
        ({"products": [{"path": "../a.fits", "digest": "1"}]}, "announced but not made"),
        ({"products": [{"path": "/etc/passwd", "digest": "1"}]}, "announced but not made"),
        ({"products": [{"path": "LRS2/a.fits", "digest": ""}]}, "has no digest"),
    ],
)
def test_an_account_that_does_not_fit_is_not_believed(tmp_path, change, message):
    (tmp_path / "LRS2").mkdir()
    (tmp_path / "LRS2/a.fits").write_text("x")
    good = {"token": "t", "stage": "s", "verdict": "pass", "products": [{"path": "LRS2/a.fits", "digest": "1"}]}
    (tmp_path / ".result.json").write_text(json.dumps(good))
    assert worker.read_result(tmp_path, "t", "s") == good
    (tmp_path / ".result.json").write_text(json.dumps(good | change))
    with pytest.raises(worker.ResultError, match=message):
        worker.read_result(tmp_path, "t", "s")


# --- digests ---------------------------------------------------------------------------------------------------------
def test_raw_frames_are_digested_once_until_their_file_changes(tmp_path):
    tar = tmp_path / "a.tar"
    tar.write_bytes(b"0123456789")
    frame = SimpleNamespace(container=(str(tar), "member"), offset=2, size=3)
    read = []

    def reader(frame):
        read.append(frame)
        return tar.read_bytes()[frame.offset : frame.offset + frame.size].decode()

    cache = DigestCache(tmp_path / "digests.json", reader)
    assert [cache.of(frame), cache.of(frame)] == ["234", "234"]
    cache.save()
    again = DigestCache(tmp_path / "digests.json", reader)
    assert again.of(frame) == "234"
    assert len(read) == 1
    tar.write_bytes(b"01abc56789")
    os.utime(tar, ns=(1, 1))
    assert again.of(frame) == "abc"
    (tmp_path / "digests.json").write_text("{damaged")
    assert DigestCache(tmp_path / "digests.json", reader).of(frame) == "abc"


def test_code_digest_sees_every_source_of_the_rooms(tmp_path, monkeypatch):
    from panacea_nb.workflow import fingerprint

    for room in fingerprint.ROOMS:
        (tmp_path / room).mkdir()
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path)
    source, data = tmp_path / "reduce/sky.py", tmp_path / "qa/thresholds.yaml"
    found = [code_digest()]
    for path, text in ((source, "a = 1"), (data, "x: 1"), (source, "a = 2"), (data, "x: 2")):
        path.write_text(text)
        found.append(code_digest())
    assert len(set(found)) == 5
    (tmp_path / "reduce/__pycache__").mkdir()
    (tmp_path / "reduce/__pycache__/sky.pyc").write_text("x")
    assert code_digest() == found[-1]


# --- records and tables ----------------------------------------------------------------------------------------------
def test_records_survive_writing_and_reading(tmp_path):
    record = Record("05_extract-0000001-exp01-uv", "05_extract", State.FAILED, error={"type": "X", "message": "é"})
    record.metrics = [{"name": "snr", "value": 12.5}]
    status.write(tmp_path, record)
    assert status.read(tmp_path, record.id) == record
    values = json.loads(status.record_path(tmp_path, record.id).read_text())
    assert values["state"] == "failed"
    (tmp_path / "06_sky.json").write_text("{")
    assert list(status.read_all(tmp_path)) == [record.id]
    assert status.read(tmp_path, "06_sky") is None
    assert all(state.sentence.endswith(".") for state in State)


def test_a_blocked_task_remembers_its_last_success():
    success = Record("a", "s", State.SUCCEEDED, fingerprint="f", products={"p": "1"}, claims=["p"])
    blocked = status.blocked("a", "s", "n", "b", success)
    again = status.blocked("a", "s", "n", "b", blocked)
    for record in (blocked, again):
        assert record.state is State.BLOCKED
        assert record.products == {}
        assert record.claims == ["p"]
        assert status.last_success(record).products == {"p": "1"}


def test_time_left_comes_from_tasks_of_the_same_stage():
    earlier = [Record("a", "05_extract", State.SUCCEEDED, wall=10.0), Record("b", "06_sky", State.FAILED, wall=99.0)]
    clock = progress.Clock(earlier, slots=2)
    assert clock.left(["05_extract", "05_extract"], {}) == pytest.approx(10.0)
    clock.took("05_extract", 4.0)
    assert clock.left(["05_extract", "06_sky"], {}) == pytest.approx((4.0 + 4.0) / 2)
    assert clock.left([], {"05_extract-0000001-exp01-uv": time.monotonic() - 1.0}) == pytest.approx(1.5, abs=0.1)
    assert [progress.duration(s) for s in (5, 100, 7500)] == ["5 s", "2 min", "2 h 05 min"]


def test_summary_counts_states_verdicts_and_times():
    records = [
        Record("a", "05_extract", State.SUCCEEDED, verdict="warn", wall=3.0),
        Record("b", "05_extract", State.SUCCEEDED, verdict="pass", wall=50.0),
        Record("c", "05_extract", State.FAILED),
        Record("d", "06_sky", State.BLOCKED),
    ]
    lines = [line.split() for line in progress.summary(records, {"a"}).splitlines()[2:]]
    assert lines == [
        ["05_extract", "3", "2", "1", "1", "0", "0", "1/1/0", "3.0"],
        ["06_sky", "1", "0", "0", "0", "1", "0", "0/0/0"],
    ]


# --- a pool that lost its workers without noticing -------------------------------------------------------------------
class Deaf:
    """An engine whose first task is taken up by a worker that dies, of which it never tells."""

    slots = 1

    def __init__(self, out: Path) -> None:
        self.serial = engine.SerialEngine()
        self.status_dir = Layout(out, toy.TOY_NIGHT).status_dir
        self.lost = 0

    def start(self, tasks: int = 0) -> None:
        self.serial.start(tasks)

    def submit(self, order) -> Future:
        if self.lost:
            return self.serial.submit(order)
        self.lost += 1
        owner = dead_owner()
        record = Record(order.id, order.stage, State.RUNNING, pid=owner.pid, host=owner.host, attempts=1)
        record.run = order.owner["token"]
        status.write(self.status_dir, record)
        return Future()

    def check(self) -> None:
        pass

    def stop(self, *, now: bool = False) -> None:
        self.serial.stop(now=now)


def test_a_task_whose_worker_is_dead_is_done_again(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    deaf = Deaf(out)
    monkeypatch.setattr(engine, "make", lambda *_: deaf)
    monkeypatch.setattr(driver, "_LOST_AFTER", 0.3)
    monkeypatch.setattr(driver, "_CHECK_PERIOD", 0.1)
    outcome = toy.reduce(out, options={"until": "00"})
    assert outcome.exit_code == driver.DONE
    assert "the process that worked on 00_start is gone; it is started again" in capsys.readouterr().out
    assert outcome.records["00_start"].attempts == 2
