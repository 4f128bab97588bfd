"""What the checks do with marks of cosmic rays, with arc lines and with choices of sky."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from panacea_nb.interactive import again, checks
from panacea_nb.interactive.choices import Choices
from panacea_nb.products.bundle import Bundle
from panacea_nb.products.cosmicmarks import Mark
from panacea_nb.products.layout import Layout
from panacea_nb.workflow import status

NAME = "uv/0000012_exp01"


def model_with(cosmics: np.ndarray) -> SimpleNamespace:
    found = Bundle(
        {"cosmics": cosmics.astype(np.uint8), "image": np.arange(cosmics.size, dtype=float).reshape(cosmics.shape)}, {}
    )
    return SimpleNamespace(label=NAME, spectra=lambda choices: found)


def test_a_click_turns_pixels_over():
    cosmics = np.zeros((20, 30), bool)
    cosmics[5, 7] = True
    model = model_with(cosmics)
    marks = checks.toggled([], model, cosmics, (8, 6, 8, 6))
    assert marks == [Mark(NAME, "clean", 8, 6, 8, 6)]
    assert checks.toggled(marks, model, cosmics, (8, 6, 8, 6)) == [Mark(NAME, "hit", 8, 6, 8, 6)]  # and back
    other = Mark("red/0000012_exp01", "hit", 1, 1, 1, 1)
    more = checks.toggled([other, *marks], model, cosmics, (12, 9, 10, 8))  # drawn from the lower right
    assert more == [other, *marks, Mark(NAME, "hit", 10, 8, 12, 9)]


def test_the_cutout_stays_in_the_image():
    cosmics = np.zeros((200, 300), bool)
    cosmics[0, 0] = True
    model = model_with(cosmics)
    cut = checks.cutout(model, None, 3, 2, (40, 60))
    assert (cut.x0, cut.y0, cut.image.shape) == (0, 0, (40, 60))
    assert cut.cosmics[0, 0]
    cut = checks.cutout(model, None, 290, 190, (40, 60))
    assert (cut.x0, cut.y0) == (240, 160)
    assert cut.image[0, 0] == 160 * 300 + 240
    assert again.nearest_pixel(-3.0, 500.0, cosmics.shape) == (1, 200)


def test_the_largest_tracks_come_first():
    cosmics = np.zeros((50, 50), bool)
    cosmics[10, 10:13] = cosmics[40, 20:29] = cosmics[5, 5] = True
    assert checks.brightest_cosmics(model_with(cosmics), None, 2) == [(25, 41, 9), (12, 11, 3)]
    assert checks.brightest_cosmics(model_with(cosmics & False), None) == []


def test_a_line_is_judged_by_the_fibres_in_which_it_was_used():
    residual = np.array([[0.1, 0.2, 9.0], [np.nan, np.nan, np.nan]])
    lines = SimpleNamespace(wavelength=np.array([4000.0, 5000.0]))
    rows = checks.line_table(SimpleNamespace(lines=lines, residual=residual, used=np.abs(residual) < 1))
    assert rows[0][:2] == (4000.0, 2)
    assert np.isclose(rows[0][2], 0.15)
    assert rows[1][1] == 0
    assert np.isnan(rows[1][2])


def test_a_sky_is_taken_with_all_that_it_needs():
    choices = Choices({"night": "20250115", "sky_region": "circle(0,0,2)", "sky_refine": "pca"})
    regions = {"exposure 7": {"sky_mode": "exposure", "sky_obsid": 7, "sky_exp": 1}}
    checks.take_sky(choices, "exposure 7", regions)
    assert (choices.sky_mode, choices.sky_obsid, choices.sky_region) == ("exposure", 7, "")
    checks.take_sky(choices, "auto, polynomial", regions)
    assert (choices.sky_mode, choices.sky_refine, choices.sky_obsid) == ("auto", "polynomial", None)


def test_stages_that_would_be_made_anew_are_named(tmp_path):
    layout = Layout(tmp_path, "20250115")
    layout.status_dir.mkdir(parents=True)
    done = {"output": "/elsewhere", "channel": "uv", "drop_lines": ""}
    status.write(layout.status_dir, status.Record("03_wavelength-uv", "03_wavelength", parameters=done))
    plan = SimpleNamespace(tasks={"03_wavelength-uv": SimpleNamespace(parameters={**done, "output": "/here"})})
    assert again.stale(layout, plan, "uv", 12, 1) == []
    plan.tasks["03_wavelength-uv"].parameters["drop_lines"] = "3650.15"
    (said,) = again.stale(layout, plan, "uv", 12, 1)
    assert said.severity == "warn"
    assert said.text.startswith("03_wavelength will be made anew")
