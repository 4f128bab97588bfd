"""Broad bins of spectra: their means, their noise, and the errors that a fibre has in all bins together."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.reduce.chunks import chunk_means, level_shapes, whitening, with_levels

NF, NW = 280, 360
WAVE = np.linspace(4635.0, 6950.0, NW)
SKY, NOISE = 10.0, 1.0


def test_bins_of_wavelength():
    """Means without bias, variances that are theirs, a floor that does not average down, and no value without data."""
    rng = np.random.default_rng(111)
    value = 3.0 + NOISE * rng.normal(size=(NF, NW))
    good = np.ones(value.shape, bool)
    good[7, :40] = False
    value[7, :40] = 1e9
    variance = np.full(value.shape, NOISE**2)
    levels = [0.003 * np.full(value.shape, SKY)]
    wave, means, noise, common = chunk_means(value, variance, levels, good, WAVE, 24)
    variances = with_levels(noise, common)
    assert wave[0] == pytest.approx(WAVE[:15].mean())
    pull = (means - 3.0) * np.sqrt(15.0)
    assert np.std(np.delete(pull, 7, axis=1)) == pytest.approx(1.0, abs=0.03)
    assert variances[5, 0] == pytest.approx(1 / 15 + 24 * (0.003 * SKY) ** 2)
    assert np.isinf(variances[:2, 7]).all()
    assert not means[:2, 7].any()
    assert np.isfinite(variances[3:, 7]).all()


def test_levels_look_like_the_sky_or_like_electrons():
    """The flat's 0.3 % of the sky in any case; what the fibres scatter by beyond it, the same electrons in every column."""
    sky, electron = np.linspace(1.0, 3.0, NW)[None] * np.ones((5, 1)), np.full((5, NW), 0.5)
    assert np.array_equal(level_shapes(sky, None, 0.02)[0], 0.02 * sky)
    flat, rows = level_shapes(sky, electron, 0.02)
    assert np.allclose(flat, 0.003 * sky)
    assert np.ptp(rows) < 1e-15
    assert np.median(np.hypot(flat, rows) / sky) == pytest.approx(0.02, rel=0.01)


def test_whitened_bins_are_independent():
    """Noise and two levels drawn many times: one sigma each, no correlation; a bin without data stays nothing."""
    rng = np.random.default_rng(112)
    n, draws = 6, 40_000
    variances = rng.uniform(0.5, 2.0, (n, 1))
    variances[4] = np.inf
    common = np.stack([np.linspace(0.2, 2.0, n), np.full(n, 1.5)])[:, :, None]
    matrix = whitening(variances, common)[0]
    error = np.where(np.isfinite(variances), np.sqrt(np.where(np.isfinite(variances), variances, 0)), 0)
    data = error * rng.normal(size=(n, draws)) + common[0] * rng.normal(size=draws) + common[1] * rng.normal(size=draws)
    found = np.cov(matrix @ data)
    expected = np.diag([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    assert found == pytest.approx(expected, abs=0.03)
