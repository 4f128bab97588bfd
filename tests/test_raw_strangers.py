"""Frames under the name of another amplifier or IFU than their header tells."""

from __future__ import annotations

import pytest
from raw_factory import Obs, write_night

from panacea_nb.raw import index_night

NIGHT = "20250115"


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        ({"IFUSLOT": "066"}, "its header is of IFU 066, its name of 056"),
        ({"IFUSLOT": 66}, "its header is of IFU 066, its name of 056"),
        ({"CCDPOS": "R", "CCDHALF": "U"}, "its header is of amplifier RU, its name of LL"),
    ],
)
def test_a_frame_whose_header_is_of_another_place_is_left_out(tmp_path, cards, says):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X", slots=("056",), amps=("LL",), cards=cards)])
    index = index_night(tmp_path, NIGHT)
    assert index.frames == ()
    assert [(p.what, p.severity) for p in index.problems] == [(says, "warn")]


@pytest.mark.parametrize("cards", [{"IFUSLOT": None}, {"IFUSLOT": "999"}, {"CCDPOS": "left", "CCDHALF": "L"}])
def test_a_header_that_says_nothing_known_of_its_place_proves_nothing(tmp_path, cards):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X", slots=("056",), amps=("LL",), cards=cards)])
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 1
    assert index.problems == []
