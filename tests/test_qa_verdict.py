"""Metrics against limits: direction, order of severity, gates, and the table of limits itself."""

from __future__ import annotations

import math

import pytest

from panacea_nb.instrument import CHANNELS
from panacea_nb.products import image
from panacea_nb.qa import verdict
from panacea_nb.qa.verdict import GateError, judge, thresholds

TABLE = {
    "stage": {
        "high": {"bad": "high", "warn": 1.0, "fail": 2.0, "unit": "px", "reason": "r"},
        "low": {"bad": "low", "warn": 5, "fail": 3, "reason": "r"},
        "outside": {"bad": "outside", "warn": [3.0, 6.5], "fail": [1.8, 9.0], "reason": "r"},
        "count": {"bad": "high", "count": True, "warn": 1, "fail": 3, "reason": "r"},
        "info": {"bad": "low", "unit": "", "reason": "for information"},
        "warned": {"bad": "high", "warn": 1.0, "reason": "r"},
        "gate": {"bad": "high", "warn": 1.0, "fail": 2.0, "stop": True, "unit": "px", "reason": "because"},
        "far gate": {"bad": "high", "warn": 1.0, "fail": 2.0, "stop": 9.0, "unit": "px", "reason": "because"},
        "own": {"bad": "low", "warn": 6, "fail": 4, "reason": "r", "channels": {"uv": {"warn": 4, "fail": 2}}},
    }
}


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    monkeypatch.setattr(verdict, "thresholds", lambda: TABLE)


def verdict_of(name, value, **options):
    return judge("stage", {name: value}, **options).metrics[0].verdict


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("high", 0.5, "pass"), ("high", 1.0, "pass"), ("high", 1.01, "warn"), ("high", 2.0, "warn"), ("high", 2.01, "fail"),
        ("low", 6, "pass"), ("low", 5, "pass"), ("low", 4, "warn"), ("low", 3, "warn"), ("low", 2, "fail"),
        ("outside", 4.5, "pass"), ("outside", 3.0, "pass"), ("outside", 2.0, "warn"), ("outside", 8.0, "warn"),
        ("outside", 1.0, "fail"), ("outside", 9.5, "fail"),
        ("count", 0, "pass"), ("count", 1, "warn"), ("count", 2, "warn"), ("count", 3, "fail"),
        ("info", -1e9, "pass"), ("warned", 1e9, "warn"),
    ],
)  # fmt: skip
def test_limits(name, value, expected):
    assert verdict_of(name, value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_fails_where_there_is_a_limit(value):
    assert verdict_of("high", value) == "fail"
    assert verdict_of("low", value) == "fail"
    assert verdict_of("warned", value) == "fail"
    assert verdict_of("info", value) == "pass"
    assert judge("stage", {"high": value}).rows()[0]["value"] is None


def test_limits_of_a_channel():
    assert verdict_of("own", 3) == "fail"
    assert verdict_of("own", 3, channel="uv") == "warn"
    assert verdict_of("own", 5, channel="uv") == "pass"
    assert verdict_of("own", 3, channel="red") == "fail"


def test_lenient_makes_failures_warnings():
    assert verdict_of("high", 5.0, lenient=True) == "warn"
    assert verdict_of("high", 1.5, lenient=True) == "warn"
    assert verdict_of("high", 0.5, lenient=True) == "pass"
    judge("stage", {"gate": 5.0}, lenient=True).enforce()


def test_overall_is_the_worst():
    assert judge("stage", {"high": 0.5, "low": 9}).overall == "pass"
    assert judge("stage", {"high": 1.5, "low": 9}).overall == "warn"
    assert judge("stage", {"high": 1.5, "low": 1, "count": 0}).overall == "fail"
    assert judge("stage", {}).overall == "pass"


def test_gate_ends_the_branch():
    found = judge("stage", {"gate": 5.0, "high": 5.0})
    with pytest.raises(GateError, match=r"gate = 5 px .*because.*--force"):
        found.enforce()
    texts = found.enforce(force=True)
    assert len(texts) == 1
    assert texts[0].startswith("gate = 5 px")
    assert judge("stage", {"gate": 1.5}).enforce() == []
    assert judge("stage", {"high": 5.0}).enforce() == []
    with pytest.raises(GateError):
        judge("stage", {"gate": math.nan}).enforce()


def test_a_gate_beyond_the_limit_of_failure():
    (one,) = judge("stage", {"far gate": 5.0}).metrics
    assert (one.verdict, one.threshold) == ("fail", "pass at most 1.0, fail above 2.0, stop above 9.0")
    assert judge("stage", {"far gate": 5.0}).enforce() == []
    for value in (9.5, math.nan):
        with pytest.raises(GateError, match="stop above 9"):
            judge("stage", {"far gate": value}).enforce()


def test_rows_say_value_unit_limit_and_reason():
    (row,) = judge("stage", {"gate": 1.5}).rows()
    assert row == {
        "name": "gate", "value": 1.5, "unit": "px", "verdict": "warn", "threshold": "pass at most 1.0, fail above 2.0",
        "reason": "because",
    }  # fmt: skip


def test_metric_without_limits_is_an_error():
    with pytest.raises(KeyError):
        judge("stage", {"unheard": 1.0})


def test_an_image_that_nobody_named_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.delenv(image.VARIABLE, raising=False)
    monkeypatch.setattr(image, "MARKER", tmp_path / "marker")
    assert judge("stage", {"high": 0.1}).overall == "pass"
    (tmp_path / "marker").touch()
    judged = judge("stage", {"high": 0.1})
    assert judged.overall == "warn"
    assert image.VARIABLE in judged.rows()[-1]["reason"]
    monkeypatch.setenv(image.VARIABLE, "sha256:abc")
    assert judge("stage", {"high": 0.1}).overall == "pass"


def test_shown_in_a_notebook():
    html = judge("stage", {"gate": 5.0, "high": 0.1})._repr_html_()
    assert "gate" in html
    assert "because" in html
    assert "fail" in html


def test_table_of_limits_is_sound():
    """Every rule has a direction and a reason, fails later than it warns, and names only channels that exist."""
    found = thresholds()
    assert {"01_bias", "05_extract", "07_flux", "10_night"} <= set(found)
    for stage, rules in found.items():
        for name, rule in rules.items():
            where = f"{stage} {name}"
            assert rule["bad"] in ("high", "low", "outside"), where
            assert len(rule["reason"]) > 15, where
            assert set(rule.get("channels", {})) <= set(CHANNELS), where
            assert set(rule) <= {"bad", "warn", "fail", "unit", "reason", "stop", "count", "channels"}, where
            for limits in (rule, *({**rule, **own} for own in rule.get("channels", {}).values())):
                warn, fail = limits.get("warn"), limits.get("fail")
                if warn is None or fail is None:
                    continue
                if rule["bad"] == "high":
                    assert warn < fail, where
                elif rule["bad"] == "low":
                    assert warn > fail, where
                else:
                    assert fail[0] <= warn[0] < warn[1] <= fail[1], where
            assert not rule.get("stop") or rule.get("fail") is not None, where
