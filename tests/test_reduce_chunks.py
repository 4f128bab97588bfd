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
    wave, means, variances, common = chunk_means(value, variance, 0.003 * np.full(value.shape, SKY), good, WAVE, 24)
    assert not common.any()
    assert wave[0] == pytest.approx(WAVE[:15].mean())
    pull = (means - 3.0) * np.sqrt(15.0)
    assert np.std(np.delete(pull, 7, axis=1)) == pytest.approx(1.0, abs=0.03)
    assert variances[5, 0] == pytest.approx(1 / 15 + 24 * (0.003 * SKY) ** 2)
    assert np.isinf(variances[:2, 7]).all()
    assert not means[:2, 7].any()
    assert np.isfinite(variances[3:, 7]).all()


def test_levels_look_like_the_sky_or_like_electrons():
    """The flat's share has its limit; what the fibres scatter by beyond it is the same number of electrons in every column."""
    sky, electron = np.linspace(1.0, 3.0, NW)[None] * np.ones((5, 1)), np.full((5, NW), 0.5)
    for off, own in ((0.02, None), (0.008, electron)):
        flat, rows = level_shapes(sky, own, off)
        assert np.array_equal(flat, off * sky)
        assert rows is None
    flat, rows = level_shapes(sky, electron, 0.02)
    assert np.allclose(flat, 0.01 * sky)
    assert np.ptp(rows) < 1e-15
    assert np.median(np.hypot(flat, rows) / sky) == pytest.approx(0.02, rel=0.01)
    value, good = np.zeros(sky.shape), np.ones(sky.shape, bool)
    found = chunk_means(value, np.ones(sky.shape), flat, good, WAVE, 24, rows)[3]
    assert found == pytest.approx(np.full((24, 5), rows[0, 0]))


def test_whitened_bins_are_independent():
    """Noise and a level drawn many times: one sigma each, no correlation; a bin without data stays nothing."""
    rng = np.random.default_rng(112)
    n, draws = 6, 40_000
    variances = rng.uniform(0.5, 2.0, (n, 2))
    variances[4] = np.inf
    common = np.linspace(0.2, 2.0, n)[:, None] * [1.0, 0.0]
    error = np.sqrt(np.where(np.isfinite(variances), variances, 0.0))
    for fiber, matrix in enumerate(whitening(variances, common)):
        data = error[:, fiber, None] * rng.normal(size=(n, draws)) + common[:, fiber, None] * rng.normal(size=draws)
        assert np.cov(matrix @ data) == pytest.approx(np.diag([1.0, 1.0, 1.0, 1.0, 0.0, 1.0]), abs=0.03)
    many = with_levels(variances, common)
    assert np.allclose(many[0], variances[0] + n * common[0] ** 2)
