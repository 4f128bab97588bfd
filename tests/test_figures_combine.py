"""Figures of 09_combine: drawn from small data with known answers, and from what can go wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from figure_factory import Shown, combination, draw

from panacea_nb.qa.figures.combine import _mean_image


@pytest.fixture
def shown(monkeypatch) -> Shown:
    found = Shown()
    monkeypatch.setattr("IPython.display.display", found)
    return found


@pytest.fixture(scope="module")
def made():
    return combination()


def test_parts_say_their_scales_and_how_well_they_agree(shown, made):
    draw("combined_parts", made[0], "NGC 1")
    text = shown.alt
    assert text.startswith("Combination of NGC 1: 8 spectra, flux scales within 2")
    scales, within = (float(text.split(f"{word} within ")[1].split(" %")[0]) for word in ("scales", "bins"))
    assert scales == pytest.approx(20, abs=3)  # a factor of 1.2 between the exposures
    assert 0.3 < within < 3.0  # noise of 5 % in bins of ten samples


def test_spectrum_says_its_signal_to_noise(shown, made):
    draw("combined_spectrum", made[0], "NGC 1")
    text = shown.alt
    assert "3650 to 10500 Å" in text
    good = made[0].error > 0
    expected = np.median(made[0].flux[good] / made[0].error[good])
    assert float(text.split("S/N ")[1].split(" ")[0]) == pytest.approx(expected, rel=0.01)


def test_image_says_what_aligned_the_fields(shown, made):
    draw("combined_image", made[1], "NGC 1")
    assert shown.alt == "Images of NGC 1 in 4 part(s) of the combined cube: 8 fields, 8 aligned by a source."


def test_one_channel_and_one_exposure(shown):
    result, cube = combination(("orange",), 1, found=False)
    draw("combined_parts", result, "NGC 1")
    assert "1 spectra, flux scales within 0 %" in shown.alt
    draw("combined_image", cube, "NGC 1")
    assert shown.alt == "Images of NGC 1 in 3 part(s) of the combined cube: 1 fields, 0 aligned by a source."


def test_nothing_with_a_source(shown, made):
    empty = replace(made[0], error=np.zeros(made[0].wave.size))
    for name in ("combined_parts", "combined_spectrum"):
        for result in (None, empty):
            draw(name, result, "NGC_1")
            assert shown.alt == "No source was found in any exposure."


def test_an_odd_name_and_a_dark_cube(shown, made):
    dark = replace(made[1], flux=np.zeros_like(made[1].flux), error=np.zeros_like(made[1].error))
    draw("combined_image", dark, "M_31é" + "x" * 80)
    assert "M_31?" in shown.alt


def test_spaxels_with_a_few_wavelengths_are_left_blank(made):
    """At the border refraction leaves some of them: their noise must not set the scale of the image."""
    cube = made[1]
    error, flux = cube.error.copy(), cube.flux.copy()
    error[:, 0, :], flux[:, 0, :] = 0.0, 0.0
    error[:5, 0, :], flux[:5, 0, :] = cube.error[:5].max(), 1.0
    image = _mean_image(replace(cube, error=error, flux=flux), np.ones(cube.wave.size, bool))
    assert np.isnan(image[0]).all()
    assert np.isfinite(image[2:-2, 2:-2]).all()
