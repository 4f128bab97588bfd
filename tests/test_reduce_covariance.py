"""Covariance of neighbouring rectified elements against many realisations."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import wavelengths

from panacea_nb.reduce.covariance import correlation, neighbour_covariance
from panacea_nb.reduce.rectify import rectify

NF, NX = 12, 240
WAVE = wavelengths(NF, NX)


@pytest.mark.parametrize("step", [0.45, 1.0, 1.6])
def test_covariance_is_that_of_the_noise(step):
    grid = np.arange(5010.0, 5230.0, step)
    rng = np.random.default_rng(850)
    sigma = 1 + 0.6 * np.sin(np.arange(NX) / 11.0)
    variance = np.broadcast_to(sigma**2, WAVE.shape)
    usable, mask = np.ones(WAVE.shape, bool), np.zeros(WAVE.shape, np.uint8)
    covariance = neighbour_covariance(variance, usable, WAVE, grid)
    error = np.sqrt(rectify(np.zeros(WAVE.shape), variance, mask, usable, WAVE, grid).variance)
    found = correlation(covariance, error)
    assert found.dtype == np.float32
    assert found.shape == (3, NF, grid.size)
    draws = np.array(
        [rectify(sigma * rng.normal(size=WAVE.shape), variance, mask, usable, WAVE, grid).value for _ in range(300)]
    )
    for k in (1, 2, 3):
        measured = (draws[..., :-k] * draws[..., k:]).mean(axis=0)
        expected = covariance[k - 1, :, :-k]
        scale = error[:, :-k] * error[:, k:]
        pull = (measured - expected) / scale * np.sqrt(300)
        # The scatter of a measured covariance is that of a product of two Gaussians.
        assert np.std(pull) == pytest.approx(np.sqrt(np.mean(1 + found[k - 1, :, :-k] ** 2)), rel=0.12)
        assert abs(pull.mean()) < 0.1
        assert not found[k - 1, :, -k:].any()


def test_variance_of_a_sum_with_its_covariance():
    """Five neighbours added: with the covariance the error is right, without it is off by half."""
    grid = np.arange(5010.0, 5230.0, 0.45)
    rng = np.random.default_rng(851)
    variance, usable = np.full(WAVE.shape, 4.0), np.ones(WAVE.shape, bool)
    mask = np.zeros(WAVE.shape, np.uint8)
    even = rectify(np.zeros(WAVE.shape), variance, mask, usable, WAVE, grid)
    rho = correlation(neighbour_covariance(variance, usable, WAVE, grid), np.sqrt(even.variance))
    sigma = np.sqrt(even.variance)
    total = sum(even.variance[:, i : grid.size - 3 + i] for i in range(4))
    alone = total.copy()
    for k in (1, 2, 3):
        for i in range(4 - k):
            rows = slice(i, grid.size - 3 + i), slice(i + k, grid.size - 3 + i + k)
            total = total + 2 * rho[k - 1][:, rows[0]] * sigma[:, rows[0]] * sigma[:, rows[1]]
    draws = np.array(
        [rectify(2 * rng.normal(size=WAVE.shape), variance, mask, usable, WAVE, grid).value for _ in range(200)]
    )
    added = sum(draws[..., i : grid.size - 3 + i] for i in range(4))
    assert np.mean(added**2) / np.mean(total) == pytest.approx(1.0, abs=0.02)
    assert np.mean(added**2) / np.mean(alone) > 1.5


def test_bad_elements_have_no_correlation():
    grid = np.arange(5010.0, 5230.0, 1.0)
    covariance = neighbour_covariance(np.ones(WAVE.shape), np.ones(WAVE.shape, bool), WAVE, grid)
    error = np.ones((NF, grid.size))
    error[3, 50] = 0
    found = correlation(covariance, error)
    assert not found[0, 3, 49:51].any()
    assert not found[2, 3, [47, 50]].any()
