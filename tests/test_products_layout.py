"""Paths of a run: where products lie, which names are safe, how an output is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from panacea_nb.products.layout import Layout, LayoutError, locate, program_name, safe_name

ROOT = Path("/data/out")
NIGHT = Layout(ROOT, "20250115")
TAGGED = Layout(ROOT, "20250115", "test-1")


def test_products_of_an_exposure():
    multi = NIGHT.multi("HET19-1-999", 12, 2, "uv")
    assert multi == ROOT / "LRS2/HET19-1-999/multi_20250115_0000012_exp02_uv.fits"
    spectrum = NIGHT.spectrum("HET19-1-999", 12, 2, "uv")
    assert spectrum == ROOT / "LRS2/HET19-1-999/spectrum_20250115_0000012_exp02_uv.fits"
    cube = NIGHT.cube("ORPHANS", 12, 2, "red", "skysub")
    assert cube == ROOT / "LRS2/ORPHANS/20250115_0000012_exp02_red_skysub_cube.fits"


def test_calibrations_and_responses():
    assert NIGHT.calibration("farred") == ROOT / "LRS2/CALS/cal_20250115_farred.fits"
    assert NIGHT.response(7, 1, "orange") == ROOT / "LRS2/CALS/response_20250115_0000007_exp01_orange.fits"


def test_what_belongs_to_the_night():
    base = ROOT / "NIGHTS/20250115"
    assert NIGHT.night_dir == base
    assert NIGHT.run_file == base / "run.yaml"
    assert NIGHT.night_table == base / "night.ecsv"
    assert NIGHT.frames_file == base / "inventory.ecsv"
    assert NIGHT.calibrations_file == base / "work/calibrations.json"
    assert (NIGHT.status_dir, NIGHT.log_dir, NIGHT.report_dir) == (base / "status", base / "logs", base / "report")


def test_a_tag_sets_everything_apart():
    pairs = [
        (getattr(NIGHT, name), getattr(TAGGED, name))
        for name in ("night_dir", "status_dir", "work_dir", "report_dir", "run_file", "cals_dir", "night_table")
    ]
    pairs.append((NIGHT.multi("P", 1, 1, "uv"), TAGGED.multi("P", 1, 1, "uv")))
    pairs.append((NIGHT.calibration("uv"), TAGGED.calibration("uv")))
    for plain, tagged in pairs:
        assert plain != tagged
        assert "test-1" in str(tagged)
    assert TAGGED.night_dir == ROOT / "NIGHTS/20250115_test-1"
    assert TAGGED.multi("P", 1, 1, "uv").parent == ROOT / "LRS2/P/test-1"


def test_files_between_stages():
    assert NIGHT.work("01_bias", "uv") == ROOT / "NIGHTS/20250115/work/uv/01_bias.fits"
    assert NIGHT.work("05_extract", "uv", 12, 3) == ROOT / "NIGHTS/20250115/work/0000012_exp03_uv/05_extract.fits"


def test_notebooks_lie_beside_what_they_made():
    assert NIGHT.notebook("00_inventory") == ROOT / "NIGHTS/20250115/notebooks/00_inventory.ipynb"
    assert NIGHT.notebook("02_trace", "uv") == ROOT / "LRS2/CALS/notebooks/20250115_uv/02_trace.ipynb"
    made = NIGHT.notebook("07_flux", "uv", 12, 1, "HET19-1-999")
    assert made == ROOT / "LRS2/HET19-1-999/notebooks/20250115_0000012_exp01_uv/07_flux.ipynb"
    assert NIGHT.relative(made).startswith("LRS2/HET19-1-999/")


def test_exposures_of_different_programmes_share_no_directory():
    mine, theirs = NIGHT.program_dir("HET19-1-999"), NIGHT.program_dir("HET19-1-998")
    assert not mine.is_relative_to(theirs)
    assert not theirs.is_relative_to(mine)


@pytest.mark.parametrize("arguments", [("02_trace",), ("05_extract", "uv"), ("05_extract", "uv", 3)])
def test_notebook_of_too_little(arguments):
    with pytest.raises(LayoutError, match="once per"):
        NIGHT.notebook(*arguments)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("HET19-1-999", "HET19-1-999"), ("a/b", "a_b"), ("../../etc", "etc"), (".hidden", "hidden"), ("x y\tz", "x_y_z"),
        ("", "UNNAMED"), ("///", "UNNAMED"), ("\u00e9t\u00e9", "t"), ("n" * 100, "n" * 64), ("a;rm -rf *", "a_rm_-rf"),
    ],
)  # fmt: skip
def test_safe_names(text, safe):
    assert safe_name(text) == safe


@pytest.mark.parametrize(
    ("program", "standard", "name"),
    [
        ("HET19-1-999", False, "HET19-1-999"), ("HET19-1-999", True, "HET19-1-999"), ("", True, "STANDARDS"),
        ("", False, "ORPHANS"), ("None", False, "ORPHANS"), ("CALS", False, "CALS_"), ("..", False, "ORPHANS"),
        (None, True, "STANDARDS"),
    ],
)  # fmt: skip
def test_programme_of_an_exposure(program, standard, name):
    assert program_name(program, is_standard=standard) == name


@pytest.mark.parametrize("night", ["2025-01-15", "202501", "", "20250115x", None])
def test_a_night_is_a_date(night):
    with pytest.raises(LayoutError, match="YYYYMMDD"):
        Layout(ROOT, night)


@pytest.mark.parametrize("tag", ["a/b", "..", " x", ".x", "x" * 65])
def test_a_tag_is_a_plain_name(tag):
    with pytest.raises(LayoutError, match="tag"):
        Layout(ROOT, "20250115", tag)


def test_relative_output_is_found_from_below(tmp_path, monkeypatch):
    """A notebook opened in notebooks/ finds the runs of its checkout; a new output is made where one stands."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert Layout.locate("runs", "20250115").output == tmp_path / "runs"
    assert locate("elsewhere") == tmp_path / "notebooks" / "deep" / "elsewhere"
    assert locate("/absolute") == Path("/absolute")
    assert locate("~/x") == Path.home() / "x"
