"""Two runs of made-up products compared: what differs is found, what is the same is said to be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report_factory import FakeNight, Page

from panacea_nb.report import diff
from panacea_nb.report.spectra import Spectrum


@pytest.fixture
def runs(tmp_path):
    """The same target in two roots; the second brighter by 2 %, with another window and another verdict."""
    made = FakeNight(tmp_path / "old"), FakeNight(tmp_path / "new")
    for night, scale in zip(made, (1.0, 1.02), strict=True):
        night.observe("HET25-1-101", "NGC1", 5, scale=scale)
        night.observe("HET25-1-201", "ZWICKY9", 6)
        night.asked(wavelength_bin=10.0 * scale, baseraw=str(tmp_path / "raw"))
    made[1].record("01_bias-uv", verdict="warn")
    made[0].record("01_bias-uv", verdict="pass")
    made[0].record("02_trace-uv", verdict="pass")
    return made


def test_what_differs_is_on_the_page(runs, tmp_path):
    path = diff.build(runs[0].layout, runs[1].layout, file=tmp_path / "d.html")
    page = Page(path)
    assert path.stat().st_size < 10e6
    assert "1 parameter and 0" not in page.source
    assert "1 parameter and no versions differ" in page.source
    assert "wavelength_bin" in page.source
    assert "B over A: median 1.0200" in page.source
    assert "The two spectra are identical, sample by sample." in page.source  # of the other target
    assert "1 in A only" in page.source
    assert str(tmp_path) not in page.source
    assert "+2.00" in page.source  # the seeing of the made-up task
    assert all(link.startswith(("data:", "#")) for link in page.links())


def test_one_target_only(runs, tmp_path):
    page = Page(diff.build(runs[0].layout, runs[1].layout, target="ngc1", file=tmp_path / "d.html"))
    assert "ZWICKY9" not in page.source
    assert "0000006" not in page.source
    assert "NGC1" in page.source


def test_runs_without_a_common_task_are_refused(runs, tmp_path):
    other = FakeNight(tmp_path / "third")
    other.record("01_bias-red", verdict="pass")
    with pytest.raises(diff.NothingInCommonError, match="no task in common"):
        diff.build(runs[0].layout, other.layout, file=tmp_path / "d.html")


def test_hostile_parameters_are_escaped(runs, tmp_path):
    runs[0].asked(object="<script>alert(1)</script>")
    text = diff.build(runs[0].layout, runs[1].layout, file=tmp_path / "d.html").read_text()
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_run_that_is_half_done_can_be_compared(runs, tmp_path):
    name = "09_combine.HET25-1-101.NGC1.json"
    record = runs[1].layout.status_dir / name
    record.write_text(json.dumps({**json.loads(record.read_text()), "products": {}, "state": "failed"}))
    page = Page(diff.build(runs[0].layout, runs[1].layout, file=tmp_path / "d.html"))
    assert "badge failed" in page.source


def test_the_ratio_is_taken_where_both_are_measured():
    wave = np.linspace(4000, 5000, 11)
    ones = np.ones(11)
    first = Spectrum("a", wave, 10 * ones, ones, ones)
    flux = np.where(wave > 4800, 1.0, 10.0)
    first = Spectrum("a", wave, flux, ones, ones)
    second = Spectrum("b", wave[2:], 11 * ones[2:], ones[2:], ones[2:])
    found = diff.ratio(first, second)
    assert np.isnan(found[:2]).all()
    assert found[2:9] == pytest.approx(1.1)
    assert np.isnan(found[9:]).all()  # below 3 sigma in the first


def test_changes():
    assert diff._change(1.0, 1.0 + 1e-12) == 0.0
    assert diff._change(2.0, 3.0) == pytest.approx(0.5)
    assert diff._change(-2.0, -3.0) == pytest.approx(-0.5)
    assert diff._change(0.0, 3.0) == float("inf")
    assert diff._change(None, 3.0) is None
