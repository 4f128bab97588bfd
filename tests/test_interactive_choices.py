"""The file of the choices: what it holds, that the command line takes it, and that it brings the same choices back."""

from __future__ import annotations

import argparse

import pytest
import yaml

from panacea_nb.cli import commands
from panacea_nb.interactive import draw
from panacea_nb.interactive.choices import Choices
from panacea_nb.interactive.model import Kept, moved, shifted
from panacea_nb.products.layout import Layout
from panacea_nb.reduce.refraction import Refraction
from panacea_nb.workflow.rundef import DefinitionError, RunDefinition

NIGHT = "20250115"


@pytest.fixture
def choices(tmp_path):
    (tmp_path / "raw").mkdir()
    return Choices({"night": NIGHT, "sides": "uv", "baseraw": str(tmp_path / "raw"), "output": str(tmp_path / "out")})


def test_a_change_that_is_not_allowed_changes_nothing(choices):
    before = choices.definition
    with pytest.raises(DefinitionError, match="--source_y is missing"):
        choices.set(source_x=1.0)
    with pytest.raises(DefinitionError, match="is no region"):
        choices.set_sky("region", sky_region="square(0,0,1)")
    assert choices.definition is before
    assert choices.set(source_x=1.0, source_y=2.0)
    assert not choices.set(source_x=1.0, source_y=2.0)


def test_another_sky_or_extraction_forgets_what_the_last_one_needed(choices):
    choices.set_sky("region", sky_region="circle(0,0,3)")
    choices.set_sky("mask", sky_mask="1-20")
    assert (choices.sky_mode, choices.sky_region, choices.sky_mask) == ("mask", "", "1-20")
    choices.set_sky("auto")
    assert (choices.sky_mode, choices.sky_mask) == ("auto", "")
    choices.set_extraction("aperture", aperture=2.0)
    choices.set_extraction("extended", extract_region="circle(0,0,1)")
    assert (choices.extraction, choices.aperture, choices.extract_region) == ("extended", None, "circle(0,0,1)")


def test_the_file_is_small_and_a_configuration_of_the_command_line(choices, tmp_path):
    choices.set(object="NGC_1", source_x=1.25, source_y=-0.5, leave_out="12_exp2", dead_fibers={"uv": "3,4,5"}, jobs=3)
    choices.set_sky("region", sky_region="annulus(1.25,-0.5,2,4)")
    path = choices.save(tmp_path / "a folder" / "mine.yaml", {"uv/0000012_exp01": "ab" * 32})
    text = path.read_text()
    assert text.startswith("# Choices made by hand. Reduce with them: panacea-nb reduce --config mine.yaml\n")
    assert "# Seen: uv/0000012_exp01, spectrum sha256 abab" in text
    assert yaml.safe_load(text) == {
        "night": NIGHT, "sides": ["uv"], "object": "NGC_1", "baseraw": str(tmp_path / "raw"),
        "output": str(tmp_path / "out"), "source_x": 1.25, "source_y": -0.5, "sky_mode": "region",
        "sky_region": "annulus(1.25,-0.5,2,4)", "leave_out": ["0000012_exp02"], "dead_fibers": {"uv": "3-5"},
    }  # fmt: skip
    taken = commands.definition(argparse.Namespace(config=str(path)))
    assert taken == choices.definition.from_dict({**choices.definition.to_dict(), "jobs": None})
    assert Choices.load(path).definition == taken


def test_a_file_of_marks_goes_with_the_choices(choices, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "marks.txt").write_text("uv/0000012_exp01 hit 1 2\n")
    choices.set(cosmics_file=str(folder / "marks.txt"))
    path = choices.save(folder / "choices.yaml")
    assert yaml.safe_load(path.read_text())["cosmics_file"] == "marks.txt"
    folder.rename(tmp_path / "two")
    moved_to = tmp_path / "two" / "choices.yaml"
    assert Choices.load(moved_to).cosmics_file == str(tmp_path / "two" / "marks.txt")
    assert commands.definition(argparse.Namespace(config=str(moved_to))).cosmics_file == str(
        moved_to.parent / "marks.txt"
    )


def test_choices_begin_with_those_of_the_run(tmp_path):
    layout = Layout(tmp_path, NIGHT, "deep")
    made = RunDefinition(night=NIGHT, sides="uv", tag="deep", central_wave=4000, use_flat=True, jobs=7, redo="sky")
    layout.night_dir.mkdir(parents=True)
    made.write(layout.run_file)
    begun = Choices.of_run(layout)
    assert (begun.central_wave, begun.use_flat, begun.tag, begun.jobs, begun.redo) == (4000.0, True, "deep", None, ())
    assert Choices.of_run(Layout(tmp_path, "20250116"), baseraw="raw").output == str(tmp_path)


def test_places_go_with_the_light_when_the_window_moves(choices):
    path = Refraction([3000.0, 5000.0], [0.0, 1.0], [0.5, -0.5])
    choices.set(source_x=1.0, source_y=2.0, sky_exclude="circle(0,0,1)+ellipse(1,1,2,1,30)")
    changes = moved(choices, 4500.0, 20.0, path, 4000.0)
    assert changes == {
        "central_wave": 4500.0, "wavelength_bin": 20.0, "source_x": 1.25, "source_y": 1.75,
        "sky_exclude": "circle(0.25,-0.25,1)+ellipse(1.25,0.75,2,1,30)",
    }  # fmt: skip
    choices.set(**changes)
    back = moved(choices, 4000.0, 20.0, path, 4500.0)
    assert (back["source_x"], back["source_y"]) == (1.0, 2.0)
    assert shifted("Annulus(0, 1, 2, 3)", 0.5, 0.0) == "annulus(0.5,1,2,3)"


def test_the_last_results_are_kept():
    made = []
    kept = Kept(2)
    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]


def test_a_click_tells_the_place_in_the_data():
    picture = draw.Picture(b"", "", (0.1, 0.2, 0.9, 0.8), (-6.0, -3.0, 6.0, 3.0))
    assert picture.place(0.5, 0.5) == pytest.approx((0.0, 0.0))
    assert picture.place(0.1, 0.8) == pytest.approx((-6.0, -3.0))  # lower left corner
    assert picture.inside(*picture.place(0.89, 0.21))
    assert not picture.inside(*picture.place(0.95, 0.5))
