"""The run definition: what is accepted, what is refused with which words, and that YAML brings it back unchanged."""

from __future__ import annotations

import dataclasses

import pytest

from panacea_nb.errors import RequestError
from panacea_nb.workflow import rundef
from panacea_nb.workflow.rundef import DefinitionError, RunDefinition

NIGHT = "20250115"


def test_values_are_brought_to_their_types():
    made = RunDefinition(
        night=20250115, sides="farred, UV",
        central_wave="5007", obsid="0000012", exp=2, exclude=["12,13", "20250110:7"],
        cal_dates=["twi=20250110", "zro=20250114"], redo="sky", standard_star_date=NIGHT, standard_star_obsid="0000009",
    )  # fmt: skip
    assert made.night == NIGHT
    assert made.sides == ("uv", "farred")
    assert (made.central_wave, made.wavelength_bin) == (5007.0, 10.0)
    assert (made.obsid, made.exp, made.standard_star_obsid) == (12, 2, 9)
    assert made.exclude == (12, 13, "20250110:7")
    assert made.cal_dates == {"twi": "20250110", "zro": "20250114"}
    assert made.redo == ("sky",)
    assert made.kinds == ("sci",)
    assert RunDefinition(night=NIGHT, reduce_eng=True, reduce_drk=True).kinds == ("eng", "drk")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no night was given: name it with -d"),
        ({"night": "2025-01-15"}, "--date: '2025-01-15' is not a date YYYYMMDD"),
        ({"night": "20250230"}, "--date: '20250230' is not a date"),
        ({"night": "19990101"}, "outside the life of LRS2"),
        ({"sides": "uv,blue"}, "--sides: .* holds 'blue', which is no channel of LRS2; channels are uv, orange"),
        ({"sides": ""}, "names no channel"),
        ({"source_x": 1.0}, "--source_y is missing"),
        ({"source_y": 1.0}, "--source_x is missing"),
        ({"source_x": "left", "source_y": 0}, "--source_x: 'left' is not a number"),
        ({"source_x": float("nan"), "source_y": 0}, "is not a finite number"),
        ({"standard_star_date": NIGHT}, "--standard_star_obsid is missing"),
        ({"standard_star_obsid": 3}, "--standard_star_date is missing"),
        ({"wavelength_bin": -5}, "--wavelength_bin: '-5' must be greater than 0"),
        ({"central_wave": True}, "--central_wave: 'True' is not a number"),
        ({"exp": 1}, "give --obsid with it"),
        ({"obsid": 1, "exp": 0}, "exposures are counted from 1"),
        ({"obsid": -1}, "--obsid: '-1' is not a whole number"),
        ({"use_flat": "yes"}, "--use_flat: 'yes' is not true or false"),
        ({"tag": "../up"}, "--tag: '../up' may hold only letters"),
        ({"cal_dates": ["twilight=20250101"]}, "'twilight'; calibration types are zro, drk, twi, flt, cmp"),
        ({"cal_dates": ["twi"]}, "'twi' is not TYPE=DATE"),
        ({"cal_dates": {"twi": "yesterday"}}, "twi=yesterday is not a date"),
        ({"exclude": "12;13"}, "holds '12;13'"),
        ({"object": "a\nb"}, "--object: .* holds control characters"),
        ({"sky_mode": "dark"}, "--sky_mode: 'dark' is none of auto, region, mask, exposure, none"),
        ({"sky_mode": "region"}, "--sky_mode region needs --sky_region"),
        ({"sky_mode": "exposure"}, "--sky_mode exposure needs --sky_obsid"),
        ({"sky_mode": "none", "sky_mask": "1-9"}, "--sky_mask is for --sky_mode mask, not none"),
        ({"sky_region": "circle(0,0,1)", "sky_obsid": 3}, "--sky_region and --sky_obsid exclude each other"),
        ({"sky_region": "circle(0,0)"}, "--sky_region: .* is no region .circle.0,0..: write circle.x,y,r."),
        ({"sky_exclude": "box(0,0,1)"}, "--sky_exclude: .* is no region"),
        ({"sky_exp": 1}, "give --sky_obsid with it"),
        ({"sky_obsid": 3, "sky_exp": 0}, "--sky_exp: exposures are counted from 1"),
        ({"sky_degree": 4}, "--sky_degree: '4' must be 0 to 3"),
        ({"sky_refine": "magic"}, "is none of none, polynomial, pca"),
        ({"extraction": "sum"}, "is none of psf, aperture, extended"),
        ({"aperture": 2.0}, "--aperture is for --extraction aperture, not psf"),
        (
            {"extraction": "extended", "no_aperture_correction": True},
            "--no_aperture_correction is for --extraction aperture",
        ),
        ({"extraction": "aperture", "aperture": 0}, "--aperture: '0' must be greater than 0"),
        ({"extract_region": "circle(0,0,1)"}, "--extract_region is for --extraction extended, not psf"),
        ({"telluric": "standard"}, "--telluric standard needs --standard_star_date and --standard_star_obsid"),
        ({"leave_out": "12_exp"}, "--leave-out: .* holds '12_exp' .an observation is N, one exposure of it N_expNN."),
        ({"dead_fibers": "12"}, "--dead-fibers: '12' '12' is not CHANNEL=LIST"),
        ({"dead_fibers": "uv=281"}, "--dead-fibers: .* holds '281', which is no fibre from 1 to 280"),
        ({"drop_lines": {"blue": "3650"}}, "--drop-lines: .* holds 'blue', which is no channel"),
        ({"drop_lines": "uv=x"}, "--drop-lines: .* is not a number"),
        ({"jobs": 1.5}, "--jobs: '1.5' is not a whole number"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_names_the_option(values, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        RunDefinition(**({"night": NIGHT} | values if values else {}))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RequestError)


def test_choices_by_hand_are_brought_to_one_form():
    made = RunDefinition(
        night=NIGHT, leave_out=["7", "0000005_exp2"], dead_fibers=["uv=14,12-13", "uv=80", "red=1"],
        drop_lines={"uv": [4046.56, 3650.15], "orange": ""},
    )  # fmt: skip
    assert made.leave_out == ("0000005_exp02", "0000007")
    assert made.dead_fibers == {"uv": "12-14,80", "red": "1"}
    assert made.drop_lines == {"uv": "3650.15,4046.56"}
    assert RunDefinition.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({}, "auto"),
        ({"sky_exclude": "circle(0,0,2)"}, "auto"),
        ({"sky_region": "Annulus(0, 0, 2.5, 4) + circle(3,-1,1e0)"}, "region"),
        ({"sky_mask": "1-20,35"}, "mask"),
        ({"sky_obsid": 7, "sky_exp": 2}, "exposure"),
        ({"sky_mode": "NONE"}, "none"),
    ],
)
def test_mode_of_the_sky_follows_from_what_is_given(values, mode):
    made = RunDefinition(night=NIGHT, **values)
    assert made.sky_mode == mode
    assert RunDefinition.from_dict(made.to_dict()) == made


def test_mask_is_a_list_or_a_file(tmp_path):
    assert RunDefinition(night=NIGHT, sky_mask="1-20, 35").sky_mask_file is None
    assert RunDefinition(night=NIGHT).sky_mask_file is None
    assert RunDefinition(night=NIGHT, sky_mask=str(tmp_path / "a.fits")).sky_mask_file == tmp_path / "a.fits"


def test_yaml_brings_every_option_back(tmp_path):
    made = RunDefinition(
        night=NIGHT, sides="red", object="HD 19445: é", use_flat=True, central_wave=7000.5, source_x=-0.25, source_y=1,
        standard_star_date="20250101", standard_star_obsid=9, tag="v2", obsid=12, exp=1, exclude="8,20250101:9",
        cal_dates={"cmp": "20250110"},
        sky_exclude="circle(1,-0.5,2)", sky_mask="1-9", sky_refine="pca", extraction="aperture", aperture=1.5,
        no_aperture_correction=True, telluric="standard", covariance=True,
        jobs=0, until="06", redo=["sky", "07"], force=True, overwrite=True, baseraw="/r w",
    )  # fmt: skip
    made.write(tmp_path / "run.yaml")
    assert RunDefinition.from_yaml(tmp_path / "run.yaml") == made
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    defaults = RunDefinition(night=NIGHT)
    assert set(defaults.to_dict()) == {item.name for item in dataclasses.fields(RunDefinition)}


def read(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    return RunDefinition.from_yaml(tmp_path / "x.yaml")


def test_numbers_with_leading_zeros_are_not_octal(tmp_path):
    assert read(tmp_path, "date: 20250115\nobsid: 0000012\n").obsid == 12
    assert read(tmp_path, "night: 20250115\nexclude: [0000013, 20250110:12]\n").exclude == (13, "20250110:12")


def test_options_may_be_named_as_on_the_command_line(tmp_path):
    made = read(tmp_path, "date: 20250115\ncal-date: {twi: 20250110}\ncentral_wave: 5e3\n")
    assert (made.night, made.cal_dates, made.central_wave) == (NIGHT, {"twi": "20250110"}, 5000.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("night: 20250115\nside: uv\n", "x.yaml: unknown option 'side' .did you mean 'sides'"),
        ("night: 20250115\nzzzz: 1\n", "unknown option 'zzzz'; options are"),
        ("night: 20250115\nnight: 20250116\n", "'night' comes twice"),
        ("night: 20250115\ndate: 20250116\n", "option 'night' is given twice"),
        ("night: 2025-01-15\n", "write it without dashes"),
        ("- night\n", "must be a list of lines 'option: value'"),
        ("night: [\n", "is not valid YAML"),
        ("night: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path, text, message):
    with pytest.raises(DefinitionError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DefinitionError, match=r"none\.yaml cannot be read: No such file"):
        RunDefinition.from_yaml(tmp_path / "none.yaml")


def test_every_option_has_help_and_a_flag_and_measures_have_units():
    for item in dataclasses.fields(RunDefinition):
        assert item.metadata["help"], item.name
        assert item.metadata["flags"][-1].startswith("--")
        if item.type in ("float", "float | None"):
            assert item.metadata["unit"], item.name
    shorts = {f for i in dataclasses.fields(RunDefinition) for f in i.metadata["flags"] if not f.startswith("--")}
    assert shorts == {"-d", "-s", "-o", "-uf", "-cf", "-cw", "-wb", "-re", "-rf", "-rd"}


def test_names_of_channels_are_those_of_the_instrument():
    from panacea_nb.instrument import CHANNELS

    assert tuple(CHANNELS) == rundef.CHANNEL_NAMES
