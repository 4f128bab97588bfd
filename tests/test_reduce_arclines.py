"""Lines of arc lamps: their centres, blends, lines that are off what the others say."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.reduce.arclines import LineFits, blend_error, fit_line, odd_lines, pixel_gaussian

READ = 6.0  # e-, noise of a sample besides photons


def test_gaussian_integrated_over_pixels():
    """Sum one, and the mean of a fine Gaussian over each pixel."""
    x = np.arange(60)
    shape = pixel_gaussian(x, np.array(30.3), np.array(1.1))
    assert shape.sum() == pytest.approx(1.0, abs=1e-12)
    fine = 30 + (np.arange(2000) + 0.5) / 2000 - 0.5
    mean = np.exp(-0.5 * ((fine - 30.3) / 1.1) ** 2).mean() / (np.sqrt(2 * np.pi) * 1.1)
    assert shape[30] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("flux", [400.0, 30000.0])
def test_line_centre_has_the_error_that_it_is_given(flux):
    """Centres, widths and fluxes unbiased; the scatter of the centre is its error within 6 %."""
    rng = np.random.default_rng(32)
    n = 1500
    x = np.arange(41)
    centre = 20 + rng.uniform(-0.5, 0.5, n)
    truth = flux * pixel_gaussian(x, centre[:, None], np.array(1.9)) + 12.0
    variance = truth + READ**2
    spectra = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
    found, sigma, total, error, good = fit_line(spectra, variance, centre + rng.uniform(-1, 1, n), 7, 7)
    keep = good & (found > 18) & (found < 22)
    assert keep.mean() > (0.95 if flux < 1000 else 0.999)
    pull = ((found - centre) / error)[keep]
    # A chi-square by chance above its mean widens the error, one below does not: pulls come out a little below one.
    assert np.std(pull) == pytest.approx(0.95, abs=0.07)
    assert abs(pull.mean()) < 4 / np.sqrt(n)
    assert sigma[keep].mean() == pytest.approx(1.9, rel=0.02)
    assert total[keep].mean() == pytest.approx(flux, rel=0.02)


def test_line_without_noise_is_exact():
    x = np.arange(41)
    centre = np.linspace(19.6, 20.4, 9)
    truth = 5000 * pixel_gaussian(x, centre[:, None], np.array(1.7)) + 3.0
    found, sigma, flux, _, good = fit_line(truth, truth + 9.0, np.full(9, 20.3), 7, 7)
    assert good.all()
    assert found == pytest.approx(centre, abs=2e-4)
    assert sigma == pytest.approx(1.7, abs=1e-3)
    assert flux == pytest.approx(5000, rel=1e-3)


def test_no_line_is_no_measurement():
    rng = np.random.default_rng(33)
    spectra = rng.normal(10, READ, (400, 41))
    good = fit_line(spectra, np.full(spectra.shape, READ**2), np.full(400, 20.0), 7, 7)[4]
    assert good.mean() < 0.05
    off_chip = fit_line(spectra, np.full(spectra.shape, READ**2), np.full(400, 2.0), 7, 7)[4]
    assert not off_chip.any()
    unknown = fit_line(spectra, np.full(spectra.shape, READ**2), np.full(400, np.nan), 7, 7)[4]
    assert not unknown.any()


def fits(centre, sigma, n_fibers=40):
    """Lines measured alike in all fibres."""
    shape = (len(centre), n_fibers)
    ones = np.ones(shape)
    columns = (ones * np.array(values)[:, None] for values in (centre, sigma))
    return LineFits(4000.0 + np.array(centre), *columns, 1e4 * ones, 0.02 * ones, np.ones(shape, bool))


def test_a_wide_line_is_a_blend_and_its_centre_as_uncertain():
    """Widths rise by a tenth over the chip; two of nine lines are wider by a quarter and by two fifths."""
    centre = np.linspace(100.0, 1900.0, 9)
    sigma = 1.8 + 0.1 * centre / 1000.0
    sigma[[2, 8]] *= (1.25, 1.4)
    found = blend_error(fits(centre, sigma), np.zeros(40, bool))
    assert found[[2, 8]] == pytest.approx([0.2 * 1.8555, 0.5 * 1.99], rel=0.02)
    assert not np.delete(found, [2, 8]).any()
    assert not blend_error(fits(centre[:3], sigma[:3]), np.zeros(40, bool)).any()  # too few to tell


@pytest.mark.parametrize("off", [0, 5, 12])
def test_a_line_that_is_off_is_told_from_those_that_it_pulls(off):
    """One of thirteen lines is off by .3 px, also the last one, to which a cubic would bend."""
    rng = np.random.default_rng(41)
    x = np.array([-0.97, -0.93, -0.9, -0.2, -0.1, 0.4, 0.5, 0.53, 0.65, 0.78, 0.85, 0.88, 0.92])
    offset = 0.3 * x + 0.2 * x**3 + 0.015 * rng.standard_normal(13)
    error = np.full(13, 0.005)
    assert not odd_lines(x, offset, error, 3).any()
    offset[off] += 0.3
    assert list(np.flatnonzero(odd_lines(x, offset, error, 3))) == [off]


def test_few_lines_have_no_odd_one():
    x = np.linspace(-1, 1, 6)
    assert not odd_lines(x, np.array([0, 0, 0, 0.5, 0, 0]), np.full(6, 0.01), 3).any()
