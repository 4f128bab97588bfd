"""The record of chosen calibrations that later stages read."""

from __future__ import annotations

import json

import pytest

from panacea_nb import raw
from panacea_nb.products.frames import NoUsableFrameError, calibration_choice, choices_record

NIGHT = "20250115"


def choice(channel, trace_kind="twi"):
    return raw.CalibrationChoice(channel, NIGHT, "1x1", ("LL", "LU"), trace_kind=trace_kind)


def record(path, *choices, night=NIGHT):
    path.write_text(json.dumps(choices_record(path, night, {c.channel: c for c in choices})), encoding="utf-8")


def test_a_later_run_for_other_channels_keeps_what_was_chosen(tmp_path):
    path = tmp_path / "calibrations.json"
    record(path, choice("uv"), choice("orange"))
    record(path, choice("orange", "flt"), choice("red"))
    found = {name: calibration_choice(path, name) for name in ("uv", "orange", "red")}
    assert {name: c.trace_kind for name, c in found.items()} == {"uv": "twi", "orange": "flt", "red": "twi"}
    with pytest.raises(NoUsableFrameError, match="no calibrations of channel farred: run 00_inventory"):
        calibration_choice(path, "farred")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"night": "20250114", "channels": {"uv": {}}}', '{"night": "20250115"}'])
def test_a_damaged_record_or_one_of_another_night_is_left(tmp_path, content):
    path = tmp_path / "calibrations.json"
    path.write_text(content, encoding="utf-8")
    assert list(choices_record(path, NIGHT, {"red": choice("red")})["channels"]) == ["red"]
