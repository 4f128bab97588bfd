"""Telluric correction: the mean curve at an airmass, and what a standard shows, against a known absorption."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import channel, find_standard, mean_telluric
from panacea_nb.reduce.flux import standard_response
from panacea_nb.reduce.optimal import ExtractedSpectrum
from panacea_nb.reduce.telluric import (
    Transmission,
    at_airmass,
    correct,
    in_bands,
    mean_transmission,
    measured_transmission,
)


def spectrum_of(flux, error):
    return ExtractedSpectrum(flux, error, np.full(flux.size, 5.0), error.copy(), np.ones(flux.size))


@pytest.mark.parametrize("name", ["red", "farred"])
def test_mean_curve_takes_out_what_it_put_in(name):
    grid = channel(name).wave_grid()
    rng = np.random.default_rng(840)
    deep = mean_telluric(grid) ** (1.35 / 1.22)
    air = mean_transmission(mean_telluric(grid), 1.35, 1.22)
    assert air.value == pytest.approx(np.clip(deep, 0, None), abs=2e-3)
    error = np.full(grid.size, 0.01)
    fixed = correct(spectrum_of(2.0 * deep + error * rng.normal(size=grid.size), error), air)
    known = fixed.error > 0
    assert known.mean() > 0.9
    pull = (fixed.flux - 2.0)[known] / fixed.error[known]
    assert abs(pull.mean()) < 0.1
    assert np.std(pull[air.value[known] > 0.99]) == pytest.approx(1.0, abs=0.1)
    assert (fixed.sky == 5.0).all()
    # Under the deepest bands the curve's own error counts.
    assert fixed.error[known].max() > 0.02


def test_more_air_absorbs_more():
    air = Transmission("mean", np.array([1.0, 0.9, 0.5, 0.0]), np.array([0.0, 0.01, 0.02, 0.0]))
    twice = at_airmass(air, 2.0)
    assert twice.value == pytest.approx([1.0, 0.81, 0.25, 0.0], abs=1e-5)
    assert twice.error[:3] == pytest.approx([0.0, 0.018, 0.02])
    assert at_airmass(twice, 0.5).value[:3] == pytest.approx(air.value[:3], abs=1e-9)


@pytest.mark.parametrize("name", ["red", "farred"])
def test_standard_shows_the_air(name):
    """Transmission within its errors, and within 3 % RMS; in farred the response under the widest band is bridged."""
    grid = channel(name).wave_grid()
    rng = np.random.default_rng(841)
    default = np.interp(grid, *channel(name).response())
    truth = default * (1 + 0.04 * np.linspace(-1, 1, grid.size))
    published = find_standard("HZ_44").flux(grid)
    absorbed = mean_telluric(grid) ** 1.1
    clean = published / truth
    error = clean / 200
    counts = clean * absorbed + error * rng.normal(size=grid.size)
    response = standard_response(grid, counts, error, published, default)
    air = measured_transmission(grid, counts, error, published, response, mean_telluric(grid))
    bands = in_bands(grid)
    assert (air.value[~bands] == 1).all()
    assert (air.error[~bands] == 0).all()
    inside = bands & (air.error > 0)
    assert inside.sum() > 0.8 * bands.sum()
    wrong = (air.value - np.minimum(absorbed, 1))[inside]
    assert np.sqrt(np.mean(wrong**2)) < 0.03
    fixed = correct(spectrum_of(3.0 * absorbed, np.full(grid.size, 1e-3)), air)
    usable = bands & (fixed.error > 0) & (absorbed > 0.3)
    assert np.median(np.abs(fixed.flux[usable] / 3.0 - 1)) < 0.02
    assert np.median(np.abs(absorbed[usable] - 1)) > 0.03


def test_the_stars_own_lines_and_the_end_of_its_table_are_no_air():
    """Paschen lines as deep as an A star's, and published flux that ends at 9200 A: the air, 1.3 times as deep as usual, is not."""
    grid = channel("farred").wave_grid()
    rng = np.random.default_rng(842)
    default = np.interp(grid, *channel("farred").response())
    published = find_standard("HZ_44").flux(grid)
    absorbed = mean_telluric(grid) ** 1.3
    lines = 1 - sum(0.2 * np.exp(-0.5 * ((grid - line) / 8.0) ** 2) for line in (9014.9, 9229.0, 9546.0))
    error = published / default / 200
    counts = published * lines * absorbed / default + error * rng.normal(size=grid.size)
    for end in (11000.0, 9200.0):
        known = np.where(grid < end, published, np.nan)
        response = standard_response(grid, counts, error, known, default)
        air = measured_transmission(grid, counts, error, known, response, mean_telluric(grid))
        near = np.any([np.abs(grid - line) < 25 for line in (9014.9, 9229.0, 9546.0)], axis=0)
        assert np.abs(air.value / absorbed - 1)[near & (absorbed > 0.3)].max() < 0.06, end
        beyond = (grid > 9250) & in_bands(grid) & (absorbed > 0.3)
        assert np.median(np.abs(air.value / absorbed - 1)[beyond]) < 0.03, end
        assert (air.error[beyond & (absorbed < 0.99)] > 0).all()


def test_nothing_is_said_of_what_does_not_come_through():
    air = Transmission("mean", np.array([1.0, 0.5, 0.05]), np.array([0.0, 0.05, 0.01]))
    fixed = correct(spectrum_of(np.array([2.0, 1.0, 0.1]), np.array([0.1, 0.1, 0.1])), air)
    assert fixed.flux == pytest.approx([2.0, 2.0, 0.0])
    assert fixed.error == pytest.approx([0.1, np.hypot(0.2, 2.0 * 0.05 / 0.5), 0.0])
    blank = correct(spectrum_of(np.zeros(3), np.zeros(3)), air)
    assert not blank.error.any()


def test_bands_of_the_air():
    wave = np.array([6562.8, 6900.0, 7250.0, 7650.0, 8200.0, 9400.0, 8545.0])
    assert in_bands(wave).tolist() == [False, True, True, True, True, True, False]
