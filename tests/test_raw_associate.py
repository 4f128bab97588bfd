from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pytest
from raw_factory import Obs, calibrations, write_night

from panacea_nb.decisions import Decision
from panacea_nb.errors import PanaceaError, RequestError
from panacea_nb.instrument import channel
from panacea_nb.raw import (
    CalibrationChoice,
    MissingCalibrationError,
    MissingNightError,
    NightArchive,
    associate,
    index_night,
    inspect_text,
    read_amplifier,
    select_science,
)
from panacea_nb.raw.associate import WINDOWS
from panacea_nb.raw.choice import lamp_family

NIGHT = "20250115"
BINNED = (1032, 1064)


def science(obsid=50, name="M31_056_E", night=NIGHT, **keywords) -> Obs:
    start = datetime.strptime(night, "%Y%m%d") + timedelta(hours=5)
    return Obs(obsid, "sci", name, start=keywords.pop("start", start), **keywords)


def shifted(days: int, night=NIGHT) -> str:
    return (datetime.strptime(night, "%Y%m%d") + timedelta(days=days)).strftime("%Y%m%d")


def codes(choice: CalibrationChoice) -> list[str]:
    return [decision.code for decision in choice.decisions]


def nights(choice: CalibrationChoice, kind: str) -> set[str]:
    return {exposure.night for exposure in choice.chosen[kind]}


def test_a_complete_night_serves_itself(tmp_path):
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science()])
    for name in ("uv", "orange"):
        choice = associate(tmp_path, NIGHT, name)
        numbers = {kind: len(found) for kind, found in choice.chosen.items()}
        assert numbers == {"zro": 5, "drk": 0, "twi": 3, "flt": 2, "cmp": 6}
        assert choice.decisions == []
        assert choice.rejected == []
        assert choice.trace_kind == "twi"
        assert choice.illuminated() == choice.chosen["twi"]
        assert set(choice.lamps()) == {"hg", "cd-a_b", "fear_r"}
        for exposures in choice.chosen.values():
            assert all(tuple(e.amps) == tuple(sorted(channel(name).amps)) for e in exposures)
            assert all(e.ifuslot == "056" for e in exposures)
            assert [e.start for e in exposures] == sorted(e.start for e in exposures)


def test_bias_comes_from_the_night_and_the_one_before_only(tmp_path):
    for day in (-2, -1, 0, 1):
        write_night(tmp_path, shifted(day), [*calibrations(shifted(day)), science(night=shifted(day))])
    choice = associate(tmp_path, NIGHT, "uv")
    assert nights(choice, "zro") == {shifted(-1), NIGHT}
    assert choice.searched["zro"] == (shifted(-1), NIGHT)
    assert nights(choice, "twi") == nights(choice, "cmp") == {NIGHT}


def test_no_more_bias_frames_than_a_hundred_the_nearest(tmp_path):
    before = Obs(1, "zro", "zro", 70, datetime(2025, 1, 14), 0.0, slots=("056",), amps=("LL", "LU"))
    same = Obs(1, "zro", "zro", 60, datetime(2025, 1, 15), 0.0, slots=("056",), amps=("LL", "LU"))
    write_night(tmp_path, shifted(-1), [before])
    write_night(tmp_path, NIGHT, [same, science()])
    choice = associate(tmp_path, NIGHT, "uv")
    taken = choice.chosen["zro"]
    assert len(taken) == WINDOWS["zro"].most == 100
    assert sum(e.night == NIGHT for e in taken) == 60
    assert {e.exp for e in taken if e.night != NIGHT} == set(range(31, 71))
    assert len(choice.rejected) == 30
    assert all("100 are enough" in r.reason for r in choice.rejected)


@pytest.mark.parametrize(("kind", "days"), [("twi", -6), ("flt", 7), ("cmp", 5), ("drk", -7)])
def test_neighbouring_nights_within_the_window_are_used_in_silence(tmp_path, kind, days):
    others = [*calibrations(shifted(days)), Obs(30, "drk", "dark", 2, datetime(2025, 1, 1), 900.0)]
    write_night(tmp_path, shifted(days), [obs for obs in others if obs.kind == kind])
    write_night(tmp_path, NIGHT, [science()])
    choice = associate(tmp_path, NIGHT, "red" if kind != "cmp" else "orange")
    assert nights(choice, kind) == {shifted(days)}
    assert not [code for code in codes(choice) if code.startswith("WIDE")]


@pytest.mark.parametrize(
    ("kind", "days", "found"),
    [
        ("twi", -12, True),
        ("twi", 30, True),
        ("twi", 31, False),
        ("zro", 3, True),
        ("zro", -16, False),
        ("drk", 8, False),
    ],
)
def test_widening_is_bounded_and_recorded(tmp_path, kind, days, found):
    others = [*calibrations(shifted(days)), Obs(30, "drk", "dark", 2, datetime(2025, 1, 1), 900.0)]
    write_night(tmp_path, shifted(days), [obs for obs in others if obs.kind == kind])
    write_night(tmp_path, NIGHT, [science()])
    choice = associate(tmp_path, NIGHT, "uv")
    assert bool(choice.chosen[kind]) is found
    wide = [d for d in choice.decisions if d.code == f"WIDE{kind.upper()}"]
    assert len(wide) == found
    if found:
        assert wide[0].severity == "warn"
        assert f"widened to {abs(days)} days" in wide[0].text
    else:
        with pytest.raises(MissingCalibrationError, match=f"--cal-date {kind}=YYYYMMDD") as caught:
            choice.require(kind)
        widest = WINDOWS[kind].widest
        assert f"nights {shifted(-widest)} to {shifted(widest)}" in str(caught.value)
        assert "channel uv of night 20250115" in str(caught.value)
        assert isinstance(caught.value, PanaceaError)
        assert not isinstance(caught.value, RequestError)


def test_nearest_twilights_come_first_and_few_nights_are_mixed(tmp_path):
    write_night(tmp_path, NIGHT, [science(), Obs(2, "twi", "twi", 1, datetime(2025, 1, 15, 0, 30), 5.0)])
    for day in (-1, 1, 3):
        write_night(tmp_path, shifted(day), calibrations(shifted(day), twilights=10))
    choice = associate(tmp_path, NIGHT, "uv")
    assert len(choice.chosen["twi"]) == 15
    assert nights(choice, "twi") == {NIGHT, shifted(-1), shifted(1)}
    # 05:00 of the night is nearer to the next evening's twilight (00:40) than to the last one's
    assert sum(e.night == shifted(1) for e in choice.chosen["twi"]) == 10
    assert sum(r.kind == "twi" for r in choice.rejected) == 6


@pytest.mark.parametrize(("night", "other"), [("20240723", "20240722"), ("20240722", "20240723")])
def test_controller_swap_holds_both_ways(tmp_path, night, other):
    write_night(tmp_path, other, calibrations(other))
    write_night(tmp_path, night, [science(night=night)])
    choice = associate(tmp_path, night, "uv")
    assert all(found == [] for found in choice.chosen.values())
    reasons = {r.kind: r.reason for r in choice.rejected}
    assert reasons.keys() == set(choice.chosen)
    assert all("exchange of the detector controllers" in reason for reason in reasons.values())
    with pytest.raises(MissingCalibrationError, match="exchange of the detector controllers"):
        choice.require("twi")
    with pytest.raises(
        MissingCalibrationError, match=r"no twilight \(twi\) .*, nor does an internal flat \(flt\): searched"
    ) as caught:
        choice.illuminated()
    assert "--cal-date twi=YYYYMMDD or --cal-date flt=YYYYMMDD" in str(caught.value)
    same_side = shifted(2 if other < night else -2, night)
    write_night(tmp_path, same_side, calibrations(same_side))
    assert nights(associate(tmp_path, night, "uv"), "twi") == {same_side}


def test_binning_of_the_science_counts(tmp_path):
    unbinned, binned = calibrations(NIGHT), calibrations(NIGHT, first=20, shape=BINNED)
    later = science(51, start=datetime(2025, 1, 15, 6))
    write_night(tmp_path, NIGHT, [*unbinned, *binned, science(shape=BINNED), later])
    choice = associate(tmp_path, NIGHT, "uv", binning="2x1")
    assert choice.binning == "2x1"
    assert {e.binning for found in choice.chosen.values() for e in found} == {"2x1"}
    assert {e.obsid for found in choice.chosen.values() for e in found} == {20, 21, 22, 23, 24, 25}
    assert sum("binning 1x1 instead of 2x1" in r.reason for r in choice.rejected) == 5 + 3 + 2 + 6
    write_night(tmp_path, NIGHT, [science(52, shape=BINNED, start=datetime(2025, 1, 15, 7))])
    choice = associate(tmp_path, NIGHT, "uv")
    assert choice.binning == "2x1"
    assert codes(choice) == ["MIXEDBIN"]


def test_exposures_without_both_amplifiers_are_rejected(tmp_path):
    bad = Obs(40, "twi", "twi", 2, datetime(2025, 1, 15, 4), 5.0, amps=("LL", "RU", "RL"))
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science(), bad])
    uv, orange = associate(tmp_path, NIGHT, "uv"), associate(tmp_path, NIGHT, "orange")
    assert [(r.obsid, r.reason) for r in uv.rejected] == [(40, "no frame of amplifier LU")] * 2
    assert len(uv.chosen["twi"]) == 3
    assert len(orange.chosen["twi"]) == 5


def test_user_excludes_observations(tmp_path):
    write_night(tmp_path, shifted(-1), calibrations(shifted(-1)))
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science()])
    choice = associate(tmp_path, NIGHT, "uv", exclude=(1, "20250115:2", 99))
    assert choice.chosen["zro"] == []
    assert nights(choice, "twi") == {shifted(-1)}
    assert "excluded by the user" in choice.rejected[0].reason
    assert [(d.code, d.severity) for d in choice.decisions] == [("EXCLUDE", "info")]
    assert "99" in choice.decisions[0].text
    for nonsense in ("abc", "2025:1", "20251350:1", "-3"):
        with pytest.raises(RequestError):
            associate(tmp_path, NIGHT, "uv", exclude=(nonsense,))


def test_user_names_the_night_of_a_kind(tmp_path):
    far = "20230301"
    write_night(tmp_path, far, calibrations(far))
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science()])
    choice = associate(tmp_path, NIGHT, "uv", cal_dates={"twi": far})
    assert nights(choice, "twi") == {far}
    assert nights(choice, "zro") == {NIGHT}
    assert [(d.code, d.severity) for d in choice.decisions] == [("CALDATE", "info"), ("CALSWAP", "warn")]
    choice = associate(tmp_path, NIGHT, "uv", cal_dates={"twi": "20250101"})
    assert choice.chosen["twi"] == []
    assert [(d.code, d.severity) for d in choice.decisions][:2] == [("CALDATE", "info"), ("CALDATE", "warn")]
    with pytest.raises(MissingCalibrationError, match="nights 20250101 to 20250101"):
        choice.require("twi")
    for dates in ({"sci": NIGHT}, {"twi": "2025"}):
        with pytest.raises(RequestError):
            associate(tmp_path, NIGHT, "uv", cal_dates=dates)


def test_flats_replace_twilights_when_asked_for_or_needed(tmp_path):
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science()])
    choice = associate(tmp_path, NIGHT, "uv", use_flat=True)
    assert choice.trace_kind == "flt"
    assert choice.illuminated() == choice.chosen["flt"]
    assert [(d.code, d.severity) for d in choice.decisions] == [("USEFLAT", "info")]
    choice = associate(tmp_path, NIGHT, "uv", exclude=(2,))
    assert choice.trace_kind == "flt"
    assert [(d.code, d.severity) for d in choice.decisions] == [("NOTWI", "warn")]
    choice = associate(tmp_path, NIGHT, "uv", exclude=(3,), use_flat=True)
    assert choice.trace_kind == "twi"
    assert [(d.code, d.severity) for d in choice.decisions] == [("NOFLAT", "warn")]


@pytest.mark.parametrize(
    ("lamp", "serves"),
    [
        ("Hg", {"uv", "orange", "red", "farred"}),
        ("HG", {"uv", "orange", "red", "farred"}),
        ("Hg_B", {"uv", "orange"}),
        ("Hg_R", {"red", "farred"}),
        ("FeAr_R", {"uv", "orange", "red", "farred"}),
        ("Cd-A_B", {"uv", "orange", "red", "farred"}),
        ("Hgx", set()),
        ("my Hg", set()),
        ("FeAr_R test", set()),
        ("", set()),
    ],
)
def test_lamps_are_matched_whole_and_without_case(tmp_path, lamp, serves):
    write_night(tmp_path, NIGHT, [science(), *calibrations(NIGHT, lamps=(lamp,))])
    for name in ("uv", "orange", "red", "farred"):
        choice = associate(tmp_path, NIGHT, name)
        assert len(choice.chosen["cmp"]) == (2 if name in serves else 0)
        assert any("does not serve" in r.reason for r in choice.rejected) is (name not in serves)


def test_arcs_come_from_the_nearest_night_with_every_lamp(tmp_path):
    write_night(tmp_path, NIGHT, [science(), *calibrations(NIGHT, lamps=("Hg",))])
    write_night(tmp_path, shifted(-2), calibrations(shifted(-2)))
    write_night(tmp_path, shifted(3), calibrations(shifted(3)))
    choice = associate(tmp_path, NIGHT, "farred")
    assert nights(choice, "cmp") == {shifted(-2)}
    assert len(choice.chosen["cmp"]) == 6
    assert choice.decisions == []
    assert {r.night for r in choice.rejected if r.kind == "cmp"} == {NIGHT}


def test_lamps_of_several_nights_are_put_together_when_no_night_has_all(tmp_path):
    write_night(tmp_path, NIGHT, [science(), *calibrations(NIGHT, lamps=("Hg_R",))])
    write_night(tmp_path, shifted(-3), calibrations(shifted(-3), lamps=("FeAr_R", "Hg")))
    choice = associate(tmp_path, NIGHT, "farred")
    assert {lamp: {e.night for e in found} for lamp, found in choice.lamps().items()} == {
        "hg_r": {NIGHT},
        "fear_r": {shifted(-3)},
    }
    assert codes(choice) == ["ARCNIGHTS", "ARCLAMPS"]
    assert "no arc of Cd" in choice.decisions[1].text
    assert [(r.night, r.obsid) for r in choice.rejected] == [(shifted(-3), 5)] * 2
    assert {lamp_family(lamp) for lamp in channel("uv").lamps} == {"Hg", "Cd", "FeAr"}


def test_too_many_arcs_of_a_lamp_are_cut_to_the_nearest(tmp_path):
    many = Obs(30, "cmp", "Hg", 20, datetime(2025, 1, 15, 1), 30.0)
    write_night(tmp_path, NIGHT, [science(), many, *calibrations(NIGHT, lamps=("Cd", "FeAr"))])
    choice = associate(tmp_path, NIGHT, "uv")
    assert {lamp: len(found) for lamp, found in choice.lamps().items()} == {"hg": 8, "cd": 2, "fear": 2}
    assert {e.exp for e in choice.lamps()["hg"]} == set(range(13, 21))


def test_choice_goes_through_json_and_its_frames_are_read_without_an_index(tmp_path):
    truth = np.random.default_rng(1).integers(0, 65536, (1032, 2128), dtype=np.uint16)
    night = calibrations(NIGHT)
    night[0].data = {(1, "056", "LU"): truth}
    write_night(tmp_path, NIGHT, [*night, science()], layout=2)
    choice = associate(tmp_path, NIGHT, "uv", exclude=(2,), cache_dir=tmp_path / "cache")
    again = CalibrationChoice.from_dict(json.loads(json.dumps(choice.to_dict())))
    assert again == choice
    assert np.array_equal(read_amplifier(again.require("zro")[0].amps["LU"]).data, truth)


def test_damaged_neighbours_are_told_of(tmp_path):
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science()])
    folder = tmp_path / shifted(-1) / "lrs2"
    folder.mkdir(parents=True)
    (folder / "lrs20000001.tar").write_bytes(b"no tar" * 100)
    choice = associate(tmp_path, NIGHT, "uv")
    assert len(choice.problems) == 1
    assert str(folder) in choice.problems[0].where


def test_shared_archive_indexes_each_night_once(tmp_path, monkeypatch):
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), science()])
    calls = []
    monkeypatch.setattr("panacea_nb.raw.index.find_containers", _counting(calls))
    archive = NightArchive(tmp_path)
    choices = [associate(tmp_path, NIGHT, name, archive=archive) for name in ("uv", "orange", "red", "farred")]
    assert len(calls) == len(set(calls)) == 15
    assert "calibrations of farred (1x1):" in inspect_text(archive.index(NIGHT), choices)


def _counting(calls):
    from panacea_nb.raw.archive import find_containers

    def count(baseraw, night):
        calls.append(night)
        return find_containers(baseraw, night)

    return count


def test_night_itself_must_exist(tmp_path):
    write_night(tmp_path, shifted(1), calibrations(shifted(1)))
    with pytest.raises(MissingNightError, match="20250115"):
        associate(tmp_path, NIGHT, "uv")
    with pytest.raises(RequestError, match="purple"):
        associate(tmp_path, shifted(1), "purple")


def labels(selection):
    return [(exposure.obsid, exposure.exp) for exposure in selection]


@pytest.fixture
def observed(tmp_path):
    hour = datetime(2025, 1, 15, 2)
    night = [
        Obs(10, "sci", "HD_19445_056_E", 1, hour),
        Obs(11, "sci", "HD_84937_066_E", 1, hour + timedelta(hours=1)),
        Obs(12, "sci", "M31_core_056_E", 2, hour + timedelta(hours=2)),
        Obs(13, "sci", "M33_066_W", 1, hour + timedelta(hours=3)),
        Obs(14, "sci", "M31_halo_056_E", 1, hour + timedelta(hours=4), amps=("LL", "RU", "RL")),
        Obs(15, "sci", "feige_34", 1, hour + timedelta(hours=5)),
        Obs(16, "drk", "dark", 2, hour + timedelta(hours=6)),
        Obs(17, "eng", "m31 test", 1, hour + timedelta(hours=7)),
    ]
    write_night(tmp_path, NIGHT, [*calibrations(NIGHT), *night])
    return index_night(tmp_path, NIGHT)


def test_everything_is_selected_without_a_name_blank_sky_too(observed):
    assert labels(select_science(observed, "orange")) == [(10, 1), (11, 1), (12, 1), (12, 2), (13, 1), (14, 1), (15, 1)]
    selection = select_science(observed, "uv")
    assert (14, 1) not in labels(selection)
    assert all(tuple(e.amps) == ("LL", "LU") for e in selection)
    (problem,) = selection.problems
    assert "no frame of amplifier LU, which uv needs" in problem.what
    assert problem.severity == "warn"
    assert isinstance(selection, list)


def test_a_name_takes_its_exposures_and_the_standards_of_the_ifu(observed):
    m31 = select_science(observed, "orange", object_name="m31")
    assert labels(m31) == [(10, 1), (12, 1), (12, 2), (14, 1), (15, 1)]
    assert labels(select_science(observed, "red", object_name="M31_CORE")) == [(11, 1), (12, 1), (12, 2), (15, 1)]
    assert labels(select_science(observed, "orange", object_name="19445")) == [(10, 1), (15, 1)]
    assert labels(select_science(observed, "orange", object_name="nothing")) == []
    assert labels(select_science(observed, "orange", object_name="  ")) == labels(select_science(observed, "orange"))


def test_single_observations_and_exposures(observed):
    assert labels(select_science(observed, "orange", obsid=12)) == [(12, 1), (12, 2)]
    assert labels(select_science(observed, "orange", obsid=12, exp=2)) == [(12, 2)]
    assert labels(select_science(observed, "orange", object_name="M31", obsid=12)) == [(12, 1), (12, 2)]
    assert labels(select_science(observed, "orange", object_name="M33", obsid=12)) == []
    assert select_science(observed, "uv", obsid=10).problems == []


def test_other_kinds_reduced_as_science(observed):
    assert labels(select_science(observed, "red", kind="drk")) == [(16, 1), (16, 2)]
    assert labels(select_science(observed, "red", kind="eng", object_name="M31")) == [(17, 1)]
    assert labels(select_science(observed, "red", kind="flt")) == [(3, 1), (3, 2)]
    with pytest.raises(RequestError, match="zro"):
        select_science(observed, "red", kind="zro")


def test_decisions():
    decision = Decision("NOTWI", "no twilight", "warn")
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision
    assert Decision("A", "b").severity == "info"
    for code in ("lower", "", "WITH SPACE", "X" * 21):
        with pytest.raises(ValueError, match="upper-case"):
            Decision(code, "text")
    with pytest.raises(ValueError, match="severity"):
        Decision("CODE", "text", "fatal")
