"""Lanczos interpolation onto the common grid: values, variances, correlation, masks."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import lines_on_continuum, wavelengths

from panacea_nb.reduce.arrays import fill_gaps
from panacea_nb.reduce.maskbits import DQ, UNUSABLE
from panacea_nb.reduce.rectify import lanczos_weights, rectify

NF, NX = 30, 400
GRID = np.linspace(5010.0, 5395.0, 400)


@pytest.fixture(scope="module")
def wave():
    return wavelengths(NF, NX)


def clean(wave):
    return np.zeros(wave.shape, np.uint8), np.ones(wave.shape, bool)


def test_weights_sum_to_one_and_are_exact_on_pixels():
    index, weight = lanczos_weights(np.array([10.0, 10.25, 10.5, 10.999]), 40)
    assert weight.sum(axis=-1) == pytest.approx(1.0, abs=1e-12)
    assert weight[0] == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-12)
    assert index[0].tolist() == [8, 9, 10, 11, 12, 13]
    assert weight[2] == pytest.approx(weight[2][::-1], abs=1e-12)
    # Lanczos-3 at a half: sinc(u) sinc(u / 3), normalised.
    u = np.array([2.5, 1.5, 0.5])
    half = np.sinc(u) * np.sinc(u / 3)
    assert weight[2][:3] == pytest.approx(half / (2 * half.sum()), abs=1e-12)


def test_resolved_lines_keep_their_shape(wave):
    """Lines of the instrument's width (4.5 px FWHM) between pixels: within 0.5 % of their peak."""
    sky = lines_on_continuum(np.array([5100.3, 5233.3]), np.array([4000.0, 9000.0]), 1.9, level=100.0)
    mask, usable = clean(wave)
    even = rectify(sky(wave), np.ones(wave.shape), mask, usable, wave, GRID)
    error = even.value - sky(GRID)
    assert np.abs(error).max() < 0.005 * sky(GRID).max()
    assert not even.mask.any()


def test_variance_and_correlation_against_many_realisations(wave):
    rng = np.random.default_rng(51)
    mask, usable = clean(wave)
    sigma = 1 + 0.5 * np.sin(np.arange(NX) / 60.0)
    variance = np.broadcast_to(sigma**2, wave.shape)
    draws = np.array(
        [rectify(sigma * rng.normal(size=wave.shape), variance, mask, usable, wave, GRID).value for _ in range(60)]
    )
    even = rectify(np.zeros(wave.shape), variance, mask, usable, wave, GRID)
    scatter = draws.var(axis=0, ddof=1)
    assert np.mean(scatter / even.variance) == pytest.approx(1.0, abs=0.01)
    ratio = scatter.mean(axis=0) / even.variance.mean(axis=0)
    assert np.abs(ratio - 1).max() < 0.2
    pull = draws / np.sqrt(even.variance)
    for lag in (1, 2, 3):
        measured = np.mean(pull[..., :-lag] * pull[..., lag:])
        assert even.correlation[lag - 1] == pytest.approx(measured, abs=0.02)


def test_pixels_outside_the_spectrum_are_marked(wave):
    grid = np.linspace(4960.0, 5450.0, 300)
    mask, usable = clean(wave)
    even = rectify(np.full(wave.shape, 5.0), np.ones(wave.shape), mask, usable, wave, grid)
    for f in (0, 15):
        outside = (grid < wave[f, 0]) | (grid > wave[f, -1])
        assert (even.mask[f][outside] == DQ.EDGE | DQ.NODATA).all()
        assert not even.mask[f][~outside].any()
        assert even.value[f][~outside] == pytest.approx(5.0, abs=1e-9)
        assert not even.value[f][outside].any()
        assert not even.variance[f][outside].any()


def test_masked_samples_are_bridged_and_marked(wave):
    """A hit sample does not ring through its neighbours; the elements that rest on it say so."""
    value = 50 + 0.1 * (wave - 5200)
    mask, usable = clean(wave)
    value[4, 200] = 1e6
    mask[4, 200] = DQ.COSMIC
    usable[4, 200] = False
    mask[7, 100] = DQ.COSMIC  # touched, yet usable: its value stays
    variance = np.ones(wave.shape)
    variance[4, 200] = 1e9  # as little to be trusted as the value
    even = rectify(value, variance, mask, usable, wave, GRID)
    assert even.variance.max() < 1.01
    assert np.abs(even.value - (50 + 0.1 * (GRID - 5200))).max() < 0.02
    marked = np.flatnonzero(even.mask[4])
    centre = np.argmin(np.abs(GRID - wave[4, 200]))
    assert 1 <= marked.size <= 2
    assert abs(marked - centre).max() <= 1
    assert (even.mask[4, marked] & DQ.LOSTWEIGHT).all()
    assert even.mask[4, centre] & DQ.COSMIC
    assert even.mask[4, centre] & UNUSABLE
    assert not np.delete(even.mask, 4, axis=0).any()


def test_dead_fibre_is_all_marked(wave):
    mask, usable = clean(wave)
    usable[3] = False
    mask[3] = DQ.DEADFIBER
    even = rectify(np.ones(wave.shape), np.ones(wave.shape), mask, usable, wave, GRID)
    assert (even.mask[3] & DQ.DEADFIBER).all()
    assert not even.value[3].any()


def test_gaps_are_filled_by_the_line_between_good_neighbours():
    value = np.array([[1.0, 9.0, 9.0, 4.0, 5.0], [9.0, 9.0, 9.0, 9.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    good = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)
    filled = fill_gaps(value, good)
    assert filled[0] == pytest.approx([1, 2, 3, 4, 5])
    assert not filled[1].any()
    assert (filled[2] == value[2]).all()
    assert value[0, 1] == 9.0  # the input is left alone


def test_flux_in_a_line_is_kept(wave):
    sky = lines_on_continuum(np.array([5200.0]), np.array([5000.0]), 1.9, level=0.0)
    mask, usable = clean(wave)
    even = rectify(sky(wave), np.ones(wave.shape), mask, usable, wave, GRID)
    flux = even.value.sum(axis=1) * (GRID[1] - GRID[0])
    assert flux == pytest.approx(5000.0, rel=6e-3)
    assert flux.mean() == pytest.approx(5000.0, rel=1.5e-3)


def test_lanczos_weights_are_products_of_sines():
    position = np.concatenate([np.random.default_rng(51).uniform(0, 99, 300), [0.0, 1.0, 50.0, 99.0]])
    index, weight = lanczos_weights(position, 100)
    taps = np.floor(position).astype(int)[:, None] + np.arange(-2, 4)
    u = position[:, None] - taps
    expected = np.sinc(u) * np.sinc(u / 3) * (np.abs(u) < 3)
    assert weight == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-12)
    assert np.array_equal(index, np.clip(taps, 0, 99))
