"""Light of a Moffat and of a disk in the lenslets, against sums over fine grids."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import LENSLET_PITCH
from panacea_nb.reduce.psf import lenslet_fractions


def rows_of_lenslets(half: int) -> np.ndarray:
    """A field of lenslets in staggered rows, as the IFU but larger."""
    x, y = np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1))
    return LENSLET_PITCH * np.column_stack([(x + 0.5 * (y % 2)).ravel(), y.ravel()])


@pytest.mark.parametrize(("fwhm", "beta"), [(1.0, 3.5), (1.6, 3.5), (2.5, 3.5), (1.6, 2.5), (1.6, 5.0)])
def test_light_of_all_lenslets_is_all_light(fwhm, beta):
    """Over a field of 60 arcsec the shares sum to one, but for what a Moffat has further out."""
    positions = rows_of_lenslets(51)
    at = np.array([0.0, 0.21, -0.13]), np.array([0.0, 0.1, 0.3])
    total = lenslet_fractions(positions, *at, np.full(3, fwhm), beta).sum(axis=1)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    beyond = (1 + 30.0**2 / alpha2) ** (1 - beta)
    # A square field of half side 30 holds more than the circle of radius 30.
    assert (total <= 1.001).all()
    assert (total > 1 - beyond - 0.001).all()


def test_one_lenslets_share_is_the_integral_over_its_square():
    """Against a sum over 201 x 201 points."""
    alpha2 = (1.3 / 2) ** 2 / (2 ** (1 / 3.5) - 1)
    fine = (np.arange(201) + 0.5) / 201 * LENSLET_PITCH - LENSLET_PITCH / 2
    x, y = np.meshgrid(fine + 0.3 - 0.1, fine - 0.2 - 0.05)
    exact = np.mean((1 + (x**2 + y**2) / alpha2) ** -3.5) * 2.5 / (np.pi * alpha2) * LENSLET_PITCH**2
    found = lenslet_fractions(np.array([[0.3, -0.2]]), np.array([0.1]), np.array([0.05]), np.array([1.3]), 3.5)
    assert found[0, 0] == pytest.approx(exact, rel=4e-3)


@pytest.mark.parametrize(("fwhm", "steepness", "index"), [(2.0, 1.5, 0.5), (2.0, 3.0, 2.0), (1.5, 6.0, 4.0)])
def test_light_of_a_sersic_profile_is_as_its_formula_says(fwhm, steepness, index):
    """Light within the field against a sum over a fine grid, and the width."""
    alpha2 = (fwhm / 2) ** 2 / ((1 + np.log(2) / steepness) ** (2 * index) - 1)
    radius = np.linspace(0, 400.0, 2_000_001)
    light = np.exp(-steepness * ((1 + radius**2 / alpha2) ** (0.5 / index) - 1)) * 2 * np.pi * radius
    share = lenslet_fractions(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.array([fwhm]), steepness, 7, disk=index)[0, 0]
    fine = (np.arange(101) + 0.5) / 101 * LENSLET_PITCH - LENSLET_PITCH / 2
    x, y = np.meshgrid(fine, fine)
    inside = np.mean(np.exp(-steepness * ((1 + (x**2 + y**2) / alpha2) ** (0.5 / index) - 1))) * LENSLET_PITCH**2
    assert share == pytest.approx(inside / np.trapezoid(light, radius), rel=3e-3)


@pytest.mark.parametrize(("fwhm", "steepness"), [(2.0, 0.5), (3.0, 1.5), (4.0, 6.0)])
def test_light_of_a_disk_is_all_in_the_field_and_falls_as_it_should(fwhm, steepness):
    positions = rows_of_lenslets(101)
    share = lenslet_fractions(positions, np.zeros(1), np.zeros(1), np.array([fwhm]), steepness, disk=True)[0]
    assert share.sum() == pytest.approx(1.0, abs=2e-3)
    fine = np.array([[0.0, 0.0], [fwhm / 2, 0.0], [20.0, 0.0], [22.0, 0.0]])
    at = lenslet_fractions(fine, np.zeros(1), np.zeros(1), np.array([fwhm]), steepness, 1, disk=True)[0]
    assert at[1] / at[0] == pytest.approx(0.5, rel=1e-6)
    scale = fwhm / 2 / np.sqrt((1 + np.log(2) / steepness) ** 2 - 1) / steepness  # of the exponential far out
    assert np.log(at[2] / at[3]) == pytest.approx(2.0 / scale, rel=0.02)
