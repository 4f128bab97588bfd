"""The plan: which tasks a request makes, what each waits for and reads, and how it is refused."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from raw_factory import Obs, calibrations, write_night

from panacea_nb.errors import RequestError
from panacea_nb.products.layout import Layout
from panacea_nb.workflow import notebooks, plan, runs, stages
from panacea_nb.workflow.driver import Settings
from panacea_nb.workflow.fingerprint import DigestCache, Fingerprinter
from panacea_nb.workflow.rundef import RunDefinition

NIGHT = "20250115"
EVENING = datetime(2025, 1, 15, 4)
STANDARD, BLUE, RED, LOST = 20, 21, 22, 23


def science(obsid, name, n_exp=1, program="HET25-1-999", **keywords):
    start = EVENING + timedelta(minutes=20 * (obsid - STANDARD))
    return Obs(obsid, "sci", name, n_exp, start, 300.0, cards={"QPROG": program} if program else {}, **keywords)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A night with a standard on LRS2-B, targets on either IFU, and one that lacks an amplifier."""
    root = tmp_path_factory.mktemp("raw")
    targets = [
        science(STANDARD, "HD_19445_056_E", program=""),
        science(BLUE, "NGC_1_056_E", 2),
        science(RED, "NGC_2_066_W"),
    ]
    write_night(root, NIGHT, [*calibrations(NIGHT, lamps=("Hg", "Cd-A_B", "FeAr_R")), *targets])
    return root


@pytest.fixture
def request_of(raw, tmp_path):
    """Build the plan of a request."""

    def build(baseraw=raw, **values) -> plan.Plan:
        values = {"night": NIGHT, "sides": "uv", "output": str(tmp_path / "out"), "baseraw": str(baseraw), **values}
        definition = RunDefinition(**values)
        return plan.build(definition, Layout(tmp_path / "out", NIGHT, definition.tag))

    return build


def test_a_channel_has_its_calibrations_exposures_and_the_standard(request_of):
    made = request_of()
    exposures = [(STANDARD, 1), (BLUE, 1), (BLUE, 2), (RED, 1)]
    expected = ["00_inventory", *(f"{s}-uv" for s in ("01_bias", "02_trace", "03_wavelength", "04_flat"))]
    for obsid, exp in exposures:
        names = ["05_extract", "06_sky", "07_flux"] + (["08_standard"] if obsid == STANDARD else [])
        expected += [f"{name}-{obsid:07d}-exp{exp:02d}-uv" for name in names]
    expected += ["09_combine.STANDARDS.HD_19445", "09_combine.HET25-1-999.NGC_1"]
    assert list(made.tasks) == [*expected, "10_night"]
    assert not made.problems


def test_needs_hold_every_stage_whose_files_are_read(request_of):
    made = request_of()
    calibration = ("01_bias-uv", "02_trace-uv", "03_wavelength-uv", "04_flat-uv")
    name = f"{BLUE:07d}-exp02-uv"
    assert made.tasks[f"07_flux-{name}"].needs == (*calibration, f"05_extract-{name}", f"06_sky-{name}")
    assert made.tasks["03_wavelength-uv"].needs == calibration[:2]
    assert made.tasks["01_bias-uv"].after == ("00_inventory",)
    assert (
        made.levels()["01_bias-uv"] == 9
    )  # bias, trace, wavelength, flat, extract, sky of the standard, sky, flux, combine
    assert set(made.dependants(f"06_sky-{name}")) == {f"07_flux-{name}"}


def test_raw_frames_are_those_of_the_channel_and_kind(request_of):
    tasks = request_of().tasks
    bias, arcs = tasks["01_bias-uv"].frames, tasks["03_wavelength-uv"].frames
    assert {(f.kind, f.ifuslot) for f in bias} == {("zro", "056")}
    assert len(bias) == 5 * 2
    assert {f.kind for f in arcs} == {"cmp"}
    target = tasks[f"05_extract-{BLUE:07d}-exp02-uv"].frames
    assert sorted((f.obsid, f.exp, f.amp) for f in target) == [(BLUE, 2, "LL"), (BLUE, 2, "LU")]
    assert not tasks[f"06_sky-{BLUE:07d}-exp02-uv"].frames


def test_parameters_say_what_to_work_on_and_the_options_of_the_stage(request_of, tmp_path, raw):
    tasks = request_of(central_wave=4000, use_flat=True, correct_ftf=True, source_x=1, source_y=-2).tasks
    name = f"{BLUE:07d}-exp02-uv"
    place = {"output": str(tmp_path / "out"), "night": NIGHT, "tag": "", "baseraw": str(raw)}
    where = {"channel": "uv", "obsid": BLUE, "exposure": 2, "program": "HET25-1-999"}
    extract = tasks[f"05_extract-{name}"].parameters
    assert extract == {**place, **where, "frame_kind": "sci", "cosmics_file": "", "force": False}
    sky = tasks[f"06_sky-{name}"].parameters
    assert (sky["correct_ftf"], sky["frame_kind"]) == (True, "sci")
    assert tasks["00_inventory"].parameters["sides"] == "uv"
    flux = tasks[f"07_flux-{name}"].parameters
    assert (flux["central_wave"], flux["source_x"], flux["source_y"]) == (4000.0, 1.0, -2.0)
    assert tasks["02_trace-uv"].parameters == {**place, "channel": "uv", "use_flat": True, "force": False}
    standard = tasks[f"07_flux-{STANDARD:07d}-exp01-uv"].parameters
    assert standard["program"] == "STANDARDS"
    assert standard["source_x"] is None  # the position was given for the target
    assert "output" not in tasks[f"06_sky-{name}"].depends


def test_every_notebook_declares_what_it_is_given(request_of):
    asked = {"central_wave": 4000, "source_x": 1, "source_y": 1, "cal_dates": "twi=20250115", "exclude": "9,20250101:3"}
    for task in request_of(**asked).tasks.values():
        notebooks.check_parameters(task.source, task.parameters)
    choices = {"sky_obsid": RED, "extraction": "aperture", "aperture": 1, "telluric": "mean", "covariance": True}
    for task in request_of(**choices).tasks.values():
        notebooks.check_parameters(task.source, task.parameters)
    for task in request_of(standard_star_date=NIGHT, standard_star_obsid=STANDARD).tasks.values():
        notebooks.check_parameters(task.source, task.parameters)


def test_uv_hopes_for_what_orange_shows_of_the_same_source(request_of):
    tasks = request_of(sides="uv,orange").tasks
    hopes = tasks[f"06_sky-{BLUE:07d}-exp02-uv"].hopes
    assert hopes[f"06_sky-{BLUE:07d}-exp02-orange"] == f"orange/{BLUE:07d}_exp02"
    assert hopes[f"06_sky-{STANDARD:07d}-exp01-orange"] == f"orange/{STANDARD:07d}_exp01"
    assert hopes[f"06_sky-{STANDARD:07d}-exp01-uv"] == f"{STANDARD:07d}_exp01"
    assert not [name for name in tasks[f"06_sky-{BLUE:07d}-exp02-orange"].hopes if name.endswith("uv")]
    alone = request_of(sides="uv").tasks[f"06_sky-{BLUE:07d}-exp02-uv"].hopes
    assert not [name for name in alone if name.endswith("orange")]


def test_notebooks_lie_beside_their_products(request_of, tmp_path):
    tasks = request_of().tasks
    name = f"{BLUE:07d}_exp02_uv"
    expected = tmp_path / f"out/LRS2/HET25-1-999/notebooks/{NIGHT}_{name}/05_extract.ipynb"
    assert tasks[f"05_extract-{BLUE:07d}-exp02-uv"].notebook == expected


def test_named_target_comes_with_the_standards_of_its_ifu(request_of):
    tasks = request_of(object="ngc_1").tasks
    assert {t.parameters["obsid"] for t in tasks.values() if "obsid" in t.parameters} == {STANDARD, BLUE}
    one = request_of(obsid=BLUE, exp=2).tasks
    assert {(t.parameters["obsid"], t.parameters["exposure"]) for t in one.values() if "obsid" in t.parameters} == {
        (BLUE, 2)
    }


def test_first_takes_one_exposure_of_each_channel(request_of):
    tasks = request_of(sides="uv,red", first=True).tasks
    assert [name for name in tasks if name.startswith("05")] == [
        f"05_extract-{STANDARD:07d}-exp01-uv",
        f"05_extract-{STANDARD:07d}-exp01-red",
    ]


def test_a_standard_makes_a_response_only_where_its_light_fell(request_of):
    tasks = request_of(sides="uv,red").tasks
    assert [name for name in tasks if name.startswith("08")] == [f"08_standard-{STANDARD:07d}-exp01-uv"]


def test_others_wait_for_the_standard_that_was_named(request_of):
    made = request_of(sides="uv,red", standard_star_date=NIGHT, standard_star_obsid=STANDARD)
    response = f"08_standard-{STANDARD:07d}-exp01-uv"
    target = made.tasks[f"07_flux-{BLUE:07d}-exp01-uv"]
    own = made.tasks[f"07_flux-{STANDARD:07d}-exp01-uv"]
    assert response in target.needs
    assert response not in own.needs
    assert target.parameters["standard_star_obsid"] == STANDARD
    assert own.parameters["standard_star_date"] is None
    other = made.tasks[f"07_flux-{RED:07d}-exp01-red"]
    assert other.parameters["standard_star_obsid"] is None
    assert any(note.startswith("red: standard 20 was on the other IFU") for note in made.notes)


def test_the_named_standard_is_reduced_even_when_not_selected(request_of):
    tasks = request_of(obsid=BLUE, exp=1, standard_star_date=NIGHT, standard_star_obsid=STANDARD).tasks
    assert f"08_standard-{STANDARD:07d}-exp01-uv" in tasks


def test_sky_of_another_exposure_comes_first_and_even_when_not_selected(request_of):
    made = request_of(object="ngc_1", sky_obsid=RED, sky_exp=1)
    sky = f"06_sky-{RED:07d}-exp01-uv"
    target, own, standard = (made.tasks[f"06_sky-{obsid:07d}-exp01-uv"] for obsid in (BLUE, RED, STANDARD))
    assert sky in target.needs
    assert (target.parameters["sky_mode"], target.parameters["sky_obsid"], target.parameters["sky_exp"]) == (
        "exposure",
        RED,
        1,
    )
    for task in (own, standard):  # neither the giver of the sky nor the standard borrows one
        assert sky not in task.needs
        assert (task.parameters["sky_mode"], task.parameters["sky_obsid"]) == ("auto", None)
    assert f"07_flux-{BLUE:07d}-exp01-uv" in made.dependants(sky)
    assert f"05_extract-{BLUE:07d}-exp01-uv" not in made.dependants(sky)


def test_first_exposure_gives_the_sky_when_none_is_named(request_of):
    made = request_of(obsid=RED, sky_obsid=BLUE)
    assert made.tasks[f"06_sky-{RED:07d}-exp01-uv"].parameters["sky_exp"] == 1
    assert f"06_sky-{BLUE:07d}-exp02-uv" not in made.tasks
    second = request_of(obsid=BLUE, sky_obsid=BLUE, sky_exp=2).tasks
    assert f"06_sky-{BLUE:07d}-exp02-uv" in second[f"06_sky-{BLUE:07d}-exp01-uv"].needs
    assert second[f"06_sky-{BLUE:07d}-exp02-uv"].parameters["sky_mode"] == "auto"


def test_a_standard_that_was_asked_for_may_borrow_its_sky(request_of):
    """It waits for the sky, so the giver of the sky does not hope for the standard's profile."""
    made = request_of(obsid=STANDARD, sky_obsid=RED)
    assert f"06_sky-{RED:07d}-exp01-uv" in made.tasks[f"06_sky-{STANDARD:07d}-exp01-uv"].needs
    assert not made.tasks[f"06_sky-{RED:07d}-exp01-uv"].hopes
    named = request_of(obsid=BLUE, sky_obsid=RED, standard_star_date=NIGHT, standard_star_obsid=STANDARD)
    assert named.tasks[f"06_sky-{STANDARD:07d}-exp01-uv"].parameters["sky_mode"] == "auto"


def test_choices_for_the_target_are_not_for_its_standards(request_of):
    asked = {"sky_region": "circle(0,0,3)", "extraction": "aperture", "aperture": 2, "central_wave": 4000}
    tasks = request_of(**asked).tasks
    sky, standard = (tasks[f"06_sky-{obsid:07d}-exp01-uv"].parameters for obsid in (BLUE, STANDARD))
    assert (sky["sky_mode"], sky["sky_region"], sky["central_wave"]) == ("region", "circle(0,0,3)", 4000.0)
    assert (standard["sky_mode"], standard["sky_region"], standard["central_wave"]) == ("auto", "", None)
    flux, standard = (tasks[f"07_flux-{obsid:07d}-exp01-uv"].parameters for obsid in (BLUE, STANDARD))
    assert (flux["extraction"], flux["aperture"]) == ("aperture", 2.0)
    assert (standard["extraction"], standard["aperture"]) == ("psf", None)


def test_telluric_correction_from_a_standard_needs_one_that_serves(request_of):
    made = request_of(sides="uv,red", standard_star_date=NIGHT, standard_star_obsid=STANDARD, telluric="standard")
    assert made.tasks[f"07_flux-{BLUE:07d}-exp01-uv"].parameters["telluric"] == "standard"
    assert made.tasks[f"07_flux-{STANDARD:07d}-exp01-uv"].parameters["telluric"] == "none"
    assert made.tasks[f"07_flux-{RED:07d}-exp01-red"].parameters["telluric"] == "none"


def test_file_of_sky_fibres_is_an_input(request_of, tmp_path):
    mask = tmp_path / "sky.txt"
    mask.write_text("1-30\n")
    first = request_of(sky_mask=str(mask)).tasks
    mask.write_text("1-40\n")
    second = request_of(sky_mask=str(mask)).tasks
    name, standard = (f"06_sky-{obsid:07d}-exp01-uv" for obsid in (BLUE, STANDARD))
    assert first[name].facts != second[name].facts
    assert first[standard].facts == second[standard].facts == {}
    assert request_of(sky_mask="1-30").tasks[name].facts == {}


def test_response_of_another_night_is_an_input_or_a_clear_problem(request_of, tmp_path):
    asked = {"standard_star_date": "20250101", "standard_star_obsid": 5}
    name = f"07_flux-{BLUE:07d}-exp01-uv"
    problem = request_of(**asked).tasks[name].problem
    assert "no response of standard 5 of 20250101" in problem
    assert "reduce that night first" in problem
    response = tmp_path / "out/LRS2/CALS/response_20250101_0000005_exp01_uv.txt"
    response.parent.mkdir(parents=True)
    from astropy.io import fits

    fits.PrimaryHDU([1.0, 2.0]).writeto(response.with_suffix(".fits"))
    first = request_of(**asked).tasks[name]
    assert not first.problem
    fits.PrimaryHDU([1.0, 3.0]).writeto(response.with_suffix(".fits"), overwrite=True)
    assert first.facts != request_of(**asked).tasks[name].facts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"standard_star_date": NIGHT, "standard_star_obsid": 999}, "no science exposure of obsid 999"),
        ({"standard_star_date": NIGHT, "standard_star_obsid": BLUE}, "no standard star with a published table"),
        ({"sky_obsid": 999}, "no science exposure of obsid 999 to take the sky from"),
        ({"sky_obsid": BLUE, "sky_exp": 5}, f"obsid {BLUE} exposure 5 .*; it has exposures 1, 2"),
        ({"sky_mask": "/no/such/mask.fits"}, "--sky_mask /no/such/mask.fits cannot be read: No such file"),
        ({"object": "M31"}, "OBJECT containing 'M31'.*HD_19445_056_E, NGC_1_056_E, NGC_2_066_W"),
        ({"obsid": 77}, "obsid 77"),
        ({"central_wave": 9000.0}, "lies in none of the channels"),
        ({"reduce_eng": True}, "eng exposure"),
        ({"night": "20250220"}, "20250220"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(request_of, values, message):
    with pytest.raises(RequestError, match=message):
        request_of(**values)


def test_missing_calibration_stops_its_channel_alone(request_of, tmp_path):
    root = tmp_path / "raw"
    blue_only = calibrations(NIGHT, lamps=("Hg_B",))
    write_night(root, NIGHT, [*blue_only, science(BLUE, "NGC_1_056_E"), science(RED, "NGC_2_066_W")])
    made = request_of(root, sides="uv,red")
    assert "red" in made.tasks["03_wavelength-red"].problem
    assert "--cal-date cmp=" in made.tasks["03_wavelength-red"].problem
    assert not [name for name, task in made.tasks.items() if name.endswith("-uv") and task.problem]
    assert not made.tasks["01_bias-red"].problem
    with pytest.raises(RequestError, match="nothing can be reduced"):
        request_of(root, sides="red")


def test_calibrations_alone_can_be_asked_for(request_of, tmp_path):
    write_night(tmp_path / "raw", NIGHT, calibrations(NIGHT))
    with pytest.raises(RequestError, match="it has no science exposures"):
        request_of(tmp_path / "raw")
    assert "04_flat-uv" in request_of(tmp_path / "raw", until="flat").tasks


def test_damage_in_the_night_is_a_problem_of_the_run(request_of, tmp_path):
    write_night(tmp_path / "raw", NIGHT, [*calibrations(NIGHT), science(BLUE, "NGC_1_056_E")])
    (tmp_path / "raw" / NIGHT / "lrs2" / "lrs20000040.tar").write_bytes(b"no tar at all" * 100)
    made = request_of(tmp_path / "raw")
    assert any("lrs20000040.tar" in problem for problem in made.problems)
    assert f"07_flux-{BLUE:07d}-exp01-uv" in made.tasks


def test_until_keeps_what_its_stages_wait_for(request_of):
    made = request_of(standard_star_date=NIGHT, standard_star_obsid=STANDARD)
    cut = made.until(stages.find("07"))
    assert f"08_standard-{STANDARD:07d}-exp01-uv" in cut.tasks  # other flux tasks wait for it
    assert "10_night" not in cut.tasks
    calibrations_only = made.until(stages.find("flat"))
    assert [name.partition("-")[0] for name in calibrations_only.tasks] == [s.name for s in stages.STAGES[:5]]


def test_redo_forces_the_stage_and_all_that_depends_on_it(request_of):
    made = request_of(obsid=BLUE)
    assert made.forced(["06_sky"]) == {
        "09_combine.HET25-1-999.NGC_1",
        *(f"{stage}-{BLUE:07d}-exp{exp:02d}-uv" for stage in ("06_sky", "07_flux") for exp in (1, 2)),
    }


def changed(before: plan.Plan, after: plan.Plan, output: Path) -> set[str]:
    """Stages whose fingerprints differ, with the same upstream products."""

    def prints(made):
        fingerprinter = Fingerprinter(output, made.baseraw, DigestCache(None), code="same")
        return {name: fingerprinter.compute(task, {}).value for name, task in made.tasks.items()}

    old, new = prints(before), prints(after)
    return {re.split("[-.]", name)[0] for name in old if old[name] != new.get(name)}


@pytest.mark.parametrize(
    ("values", "stages_changed"),
    [
        ({"use_flat": True}, {"00_inventory", "02_trace", "04_flat"}),
        ({"correct_ftf": True}, {"06_sky"}),
        ({"wavelength_bin": 20.0}, {"07_flux"}),
        ({"central_wave": 4000.0}, {"07_flux"}),
        ({"sky_region": "circle(0,0,3)"}, {"06_sky"}),
        ({"sky_exclude": "circle(0,0,3)", "sky_refine": "pca"}, {"06_sky"}),
        ({"extraction": "aperture", "aperture": 2.0}, {"07_flux"}),
        ({"telluric": "mean", "covariance": True}, {"07_flux"}),
        ({"source_x": 1.0, "source_y": 1.0}, {"07_flux"}),
        ({"dead_fibers": "uv=12-14"}, {"06_sky", "07_flux"}),
        ({"drop_lines": "uv=3650.2"}, {"03_wavelength"}),
        ({"dead_fibers": "red=12-14", "drop_lines": "red=6965.4"}, set()),
        ({"jobs": 3, "overwrite": True, "tag": ""}, set()),
        ({"exclude": "2"}, {"00_inventory", "02_trace", "04_flat"}),  # the twilights
        ({"force": True}, {stage.name for stage in stages.STAGES} - {"08_standard"}),
    ],
)
def test_an_option_changes_the_fingerprints_of_its_stages_alone(request_of, tmp_path, values, stages_changed):
    before, after = request_of(obsid=BLUE, exp=1), request_of(obsid=BLUE, exp=1, **values)
    assert changed(before, after, tmp_path) == stages_changed


def test_exposures_left_out_by_hand_are_not_reduced(request_of):
    tasks = request_of(leave_out=f"{BLUE}_exp1,{STANDARD}").tasks
    assert {task.parameters["obsid"] for task in tasks.values() if task.id.startswith("07")} == {BLUE, RED}
    assert [task.parameters["exposure"] for task in tasks.values() if task.id.startswith(f"07_flux-{BLUE:07d}")] == [2]
    combined = next(task for task in tasks.values() if task.id.startswith("09") and "NGC_1" in task.id)
    assert combined.parameters["expected"] == 1


def test_marked_cosmic_rays_concern_their_exposure_alone(request_of, tmp_path):
    marks = tmp_path / "marks.txt"
    marks.write_text(f"# by hand\nuv/{BLUE:07d}_exp01 hit 10 20\n")
    made = request_of(cosmics_file=str(marks))
    assert changed(request_of(), made, tmp_path) == {"05_extract"}
    assert made.tasks[f"05_extract-{BLUE:07d}-exp02-uv"].parameters["cosmics_file"] == ""
    assert made.tasks[f"05_extract-{BLUE:07d}-exp01-uv"].parameters["cosmics_file"] == str(marks)
    before = request_of(obsid=BLUE, exp=1, cosmics_file=str(marks))
    marks.write_text(f"uv/{BLUE:07d}_exp01 hit 10 20\nuv/{BLUE:07d}_exp02 hit 1 1\n")
    assert changed(before, request_of(obsid=BLUE, exp=1, cosmics_file=str(marks)), tmp_path) == set()
    marks.write_text(f"uv/{BLUE:07d}_exp01 clean 10 20\n")
    assert changed(before, request_of(obsid=BLUE, exp=1, cosmics_file=str(marks)), tmp_path) == {"05_extract"}
    with pytest.raises(RequestError, match="marked cosmic rays .*none.txt cannot be read"):
        request_of(cosmics_file=str(tmp_path / "none.txt"))


def test_a_mistyped_mark_of_a_cosmic_ray_does_not_pass_unseen(request_of, tmp_path):
    marks = tmp_path / "marks.txt"
    marks.write_text(f"uv/{BLUE:07d}_exp01 hit 10 20\ngreen/{BLUE:07d}_exp01 hit 1 1\nuv/{BLUE:07d}_exp07 hit 1 1\n")
    notes = [note for note in request_of(cosmics_file=str(marks)).notes if "marked" in note]
    assert [note.split()[1] for note in notes] == [f"green/{BLUE:07d}_exp01", f"uv/{BLUE:07d}_exp07"]
    marks.write_text(f"uv/{BLUE:07d}_exp1 hit 10 20\n")
    with pytest.raises(RequestError, match=r"marks\.txt, line 1: .* is no mark such as"):
        request_of(cosmics_file=str(marks))


def test_dry_run_prints_every_task_and_writes_nothing(tmp_path, raw):
    definition = RunDefinition(night=NIGHT, sides="uv", output=str(tmp_path / "out"), baseraw=str(raw), obsid=BLUE)
    text = runs.dry_run(definition, Settings(code="same"))
    lines = [line.split() for line in text.splitlines()]
    assert [line[-1] for line in lines[2:-1] if line[0] != "10_night"] == ["new"] * 12
    assert text.splitlines()[-1] == "13 tasks, 13 would run, 0 are up to date"
    assert not (tmp_path / "out").exists()


def test_stages_are_found_by_number_word_or_name():
    assert {stages.find(text).name for text in ("04", "4", "flat", "04_flat", "FLAT")} == {"04_flat"}
    with pytest.raises(stages.UnknownStageError, match="no stage 'polish'; stages are 00_inventory"):
        stages.find("polish")
