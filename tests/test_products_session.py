"""A stage at work: what it reads, writes, decides and leaves behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.table import Table

from panacea_nb.decisions import Decision
from panacea_nb.products import bundle, session
from panacea_nb.products.digest import content_digest
from panacea_nb.qa.verdict import judge


@pytest.fixture(autouse=True)
def _no_workflow(monkeypatch):
    monkeypatch.delenv(session.STAGING_VARIABLE, raising=False)
    monkeypatch.delenv(session.TOKEN_VARIABLE, raising=False)


@pytest.fixture
def task(tmp_path):
    return session.open(
        stage="05_extract", output=str(tmp_path), night="20250115", channel="uv", obsid=12, exposure=1, program="P"
    )


def test_by_hand_products_go_straight_into_place(task, tmp_path):
    path = task.save(task.work("05_extract"), bundle.to_hdus({"a": np.zeros(3)}))
    assert path == tmp_path / "NIGHTS/20250115/work/0000012_exp01_uv/05_extract.fits"
    assert path.is_file()
    assert task.written == {"NIGHTS/20250115/work/0000012_exp01_uv/05_extract.fits": content_digest(path)}


def test_in_a_workflow_products_wait_in_the_staging_folder(task, tmp_path, monkeypatch, capsys):
    staging = tmp_path / "staging"
    monkeypatch.setenv(session.STAGING_VARIABLE, str(staging))
    monkeypatch.setenv(session.TOKEN_VARIABLE, "t0k3n")
    path = task.save(task.layout.multi("P", 12, 1, "uv"), bundle.to_hdus({"a": np.zeros(3)}))
    relative = "LRS2/P/multi_20250115_0000012_exp01_uv.fits"
    assert not path.exists()
    assert (staging / relative).is_file()
    task.record([Decision("A", "first", "warn"), Decision("A", "first", "warn"), Decision("B", "second")])
    task.say("source found")
    with task.clock("compute"):
        pass
    assert not (staging / session.RESULT_NAME).exists()
    task.finish(judge("05_extract", {"row_shift": 0.1, "fit_chi": 1.3, "wave_shift": float("nan")}))
    result = json.loads((staging / session.RESULT_NAME).read_text())
    assert result["token"] == "t0k3n"
    assert result["stage"] == "05_extract"
    assert result["verdict"] == "fail"
    assert result["products"] == [{"path": relative, "digest": content_digest(staging / relative)}]
    assert [(d["code"], d["severity"]) for d in result["decisions"]] == [("A", "warn"), ("B", "info")]
    assert result["log"] == ["source found"]
    assert [(m["name"], m["verdict"]) for m in result["metrics"]] == [
        ("row_shift", "pass"), ("fit_chi", "warn"), ("wave_shift", "fail"),
    ]  # fmt: skip
    assert result["metrics"][2]["value"] is None
    assert result["timing"]["compute"] >= 0
    assert {"panacea_nb", "python", "numpy", "scipy", "astropy", "image"} <= set(result["versions"])
    printed = capsys.readouterr().out
    assert "source found" in printed
    assert "05_extract: fail; 1 file(s) written" in printed


def test_finish_by_hand_writes_no_result(task, tmp_path, capsys):
    task.finish(judge("05_extract", {"row_shift": 0.1}))
    assert list(tmp_path.rglob("*.json")) == []
    assert "05_extract: pass" in capsys.readouterr().out


def test_missing_input_names_the_stage_that_should_have_made_it(task):
    with pytest.raises(session.MissingInputError, match=r"05_extract needs NIGHTS/20250115/work/uv/02_trace\.fits"):
        task.input(task.work("02_trace", per_channel=True))
    path = task.save(task.work("02_trace", per_channel=True), bundle.to_hdus({"a": np.zeros(2)}))
    assert task.input(path) == path


def test_text_and_tables(task, tmp_path):
    task.save_table(task.layout.night_table, Table({"obsid": [1, 2], "target": ["a", "b"]}, meta={"night": "20250115"}))
    found = Table.read(task.layout.night_table, format="ascii.ecsv")
    assert list(found["target"]) == ["a", "b"]
    assert found.meta["night"] == "20250115"
    path = task.save_summary({"obsid": 12, "snr": 3.5})
    assert path == tmp_path / "NIGHTS/20250115/work/0000012_exp01_uv/05_extract.json"
    assert json.loads(path.read_text()) == {"obsid": 12, "snr": 3.5}
    assert len(task.written) == 2


def test_overruled_gates_are_recorded(task):
    task.overrule(["row_shift = 9"])
    assert [(d.code, d.severity) for d in task.decisions] == [("FORCED", "warn")]
    assert "row_shift = 9" in task.decisions[0].text


def test_channel_stage_works_per_channel(tmp_path):
    task = session.open(stage="02_trace", output=str(tmp_path), night="20250115", channel="red")
    assert task.work("02_trace") == tmp_path / "NIGHTS/20250115/work/red/02_trace.fits"
    assert task.notebook == tmp_path / "LRS2/CALS/notebooks/20250115_red/02_trace.ipynb"
