"""Measures over made-up nights: the band, the flag, the page and the table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.table import Table
from report_factory import Page

from panacea_nb.products.layout import Layout
from panacea_nb.qa.verdict import thresholds
from panacea_nb.report import find, trends
from panacea_nb.report.trends import Point


def put(root, night, stage, channel, values, *, decisions=(), state="succeeded", name=None):
    folder = Layout(root, night).status_dir
    folder.mkdir(parents=True, exist_ok=True)
    metrics = [{"name": key, "value": value} for key, value in values.items()]
    content = {
        "id": name or f"{stage}-{channel}",
        "stage": stage,
        "state": state,
        "metrics": metrics,
        "decisions": list(decisions),
    }
    (folder / f"{content['id']}.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    """Ten quiet nights; the read noise of the seventh is high."""
    noise = np.random.default_rng(5).normal(3.0, 0.03, 10)
    noise[6] = 4.0
    for day, value in enumerate(noise, start=10):
        put(tmp_path, f"202501{day}", "01_bias", "uv", {"read_noise_bottom": value})
        put(
            tmp_path,
            f"202501{day}",
            "08_standard",
            "uv",
            {"response_ratio": 0.9},
            name=f"08_standard-0000003-exp0{day % 9 + 1}-uv",
        )
    return tmp_path


def test_a_night_that_leaves_its_band_is_flagged(root):
    made = trends.build(root)
    assert [(point.night, point.measure) for point in made.flagged] == [("20250116", "read_noise_bottom")]
    assert made.flagged[0].high < 3.4
    assert "Read noise, bottom amplifier 4" in made.text
    page = Page(made.page)
    assert "20250116 uv 4 left its band" in page.source
    assert page.source.count('stroke="#a3213b"') == 1
    table = Table.read(made.table, format="ascii.ecsv")
    assert len(table) == 20
    assert list(table["night"][table["flagged"]]) == ["20250116"]
    assert set(table["unit"][table["measure"] == "read_noise_bottom"]) == {"e-"}


def test_a_bad_night_does_not_widen_its_own_band():
    values = [0.020, 0.021, 0.020, 0.019, 0.020, 0.500]
    points = trends.banded([Point(f"2025010{i}", "", "uv", "arc_rms", v, 1) for i, v in enumerate(values, start=1)])
    assert [bool(point.flag) for point in points] == [False] * 5 + [True]
    assert (points[-1].low, points[-1].high) == pytest.approx((0.010, 0.030))


def test_few_nights_are_held_to_the_limits_of_the_verdicts(tmp_path):
    for day, value in ((10, 0.02), (11, 0.09)):
        put(tmp_path, f"202501{day}", "03_wavelength", "orange", {"arc_rms": value})
    made = trends.build(tmp_path)
    assert [(point.night, point.flag) for point in made.flagged] == [("20250111", "above the limit 0.06")]


def test_what_was_not_measured_is_left_out(tmp_path):
    put(
        tmp_path,
        "20250110",
        "05_extract",
        "uv",
        {"wave_shift": 0.0, "fit_chi": None},
        decisions=[{"code": "NOWAVEZERO", "text": ""}],
    )
    put(tmp_path, "20250110", "01_bias", "uv", {"read_noise_top": 9.0}, state="failed")
    assert trends.measured(Layout(tmp_path, "20250110")) == []


def test_a_night_is_the_median_of_its_exposures(tmp_path):
    for exp, value in ((1, 0.1), (2, 0.3), (3, 0.9)):
        put(tmp_path, "20250110", "05_extract", "uv", {"wave_shift": value}, name=f"05_extract-0000001-exp0{exp}-uv")
    point = trends.measured(Layout(tmp_path, "20250110"))[0]
    assert (point.value, point.tasks) == (0.3, 3)


def test_every_measure_has_limits_and_a_reason():
    for name, measure in trends.known_measures().items():
        assert name in thresholds()[measure.stage]
        assert measure.why
        assert measure.least > 0


def test_a_root_without_nights_is_refused(tmp_path):
    with pytest.raises(find.RunNotFoundError, match="no run lies under"):
        trends.build(tmp_path)


def test_one_night_has_a_page(tmp_path):
    put(tmp_path, "20250110", "01_bias", "uv", {"read_noise_bottom": 3.0})
    page = Page(trends.build(tmp_path).page)
    assert "every measure of every night is within its band" in page.source
    assert "nan" not in page.source.partition("<main>")[2].partition("<script")[0]
