"""The common spectrum of many fibres: fit, convolution by a wider line, derivatives, variance."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import lines_on_continuum, wavelengths

from panacea_nb.reduce.spline import CommonSpectrum, fit_common

NF, NX = 40, 300
SIGMA = 1.9  # A; dispersion is 1 A per px
CENTERS = np.array([5040.3, 5090.8, 5131.1, 5200.4, 5248.9])
FLUXES = np.array([800.0, 3000.0, 1500.0, 5000.0, 600.0])


@pytest.fixture(scope="module")
def sky():
    return lines_on_continuum(CENTERS, FLUXES, SIGMA)


@pytest.fixture(scope="module")
def wave():
    return wavelengths(NF, NX)


@pytest.fixture(scope="module")
def spectrum(wave, sky):
    """Fit to samples without noise."""
    return fit_common(wave, sky(wave), np.ones(wave.shape), step=1.0)


INNER = np.linspace(5010, 5290, 2801)


def test_noiseless_spectrum_is_reproduced(spectrum, sky):
    error = spectrum(INNER) - sky(INNER)
    assert np.abs(error).max() < 0.003 * sky(INNER).max()
    assert np.std(error) < 1e-3 * sky(INNER).max()


@pytest.mark.parametrize(("extra", "tolerance"), [(0.3, 0.004), (0.7, 0.004), (1.5, 0.008)])
def test_convolution_by_extra_width_is_that_of_gaussians(spectrum, sky, extra, tolerance):
    """Lines seen with a larger variance (fibres differ by some ten per cent in width); the flux is kept."""
    wide = spectrum(INNER, extra)
    exact = sky(INNER, extra)
    peak = sky(INNER).max()
    assert np.abs(wide - exact).max() < tolerance * peak
    # Unconvolved, the difference would be many times as large.
    assert np.abs(sky(INNER) - exact).max() > 5 * np.abs(wide - exact).max()
    assert wide.sum() == pytest.approx(exact.sum(), rel=1e-3)


@pytest.mark.parametrize("extra", [-0.2, -0.5])
def test_sharper_lines_too(spectrum, sky, extra):
    exact = sky(INNER, extra)
    assert np.abs(spectrum(INNER, extra) - exact).max() < 0.015 * exact.max()
    assert np.abs(sky(INNER) - exact).max() > 2.5 * np.abs(spectrum(INNER, extra) - exact).max()


def test_extra_width_may_differ_from_sample_to_sample(spectrum, sky):
    extra = np.linspace(-0.3, 1.5, INNER.size)
    mixed = spectrum(INNER, extra)
    for i in (300, 900, 1900):
        assert mixed[i] == pytest.approx(float(spectrum(INNER[i : i + 1], extra[i])[0]), rel=1e-12)


def test_fit_of_noisy_samples_with_widths_and_factors(wave, sky):
    """Throughputs and line widths of each sample are in the model: residuals are noise, the truth comes back."""
    rng = np.random.default_rng(41)
    factor = (0.9 + 0.2 * rng.random((NF, 1))) * (1 + 0.05 * np.linspace(-1, 1, NX))
    extra = np.broadcast_to(rng.uniform(0.0, 1.2, (NF, 1)), wave.shape)
    truth = 20 * factor * sky(wave, extra)
    variance = truth + 9.0
    data = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
    fit = fit_common(wave, data, 1 / variance, step=1.0, factor=factor, extra=extra)
    model = factor * fit(wave, extra)
    freedom = 1 - fit.coef.size / data.size
    assert np.sum((data - model) ** 2 / variance) / data.size == pytest.approx(freedom, abs=0.03)
    pull = (fit(INNER) - 20 * sky(INNER)) / np.sqrt(fit.variance(INNER))
    assert np.std(pull) == pytest.approx(1.0, abs=0.2)
    assert abs(pull.mean()) < 0.25
    blind = fit_common(wave, data, 1 / variance, step=1.0, factor=factor)
    assert np.sum((data - factor * blind(wave)) ** 2 / variance) / data.size > 1.5


def test_variance_is_the_scatter_of_repeated_fits(wave, sky):
    rng = np.random.default_rng(42)
    variance = 20 + 0.0 * wave
    at = np.linspace(5020, 5280, 60)
    fits = [
        fit_common(wave, sky(wave) + np.sqrt(variance) * rng.normal(size=wave.shape), 1 / variance, step=1.0)
        for _ in range(80)
    ]
    scatter = np.std([f(at) for f in fits], axis=0, ddof=1)
    assert np.mean(scatter**2 / fits[0].variance(at)) == pytest.approx(1.0, abs=0.06)


def test_derivatives(spectrum, sky):
    h = 0.01
    first, second = spectrum.derivatives(INNER)
    exact = (sky(INNER + h) - sky(INNER - h)) / (2 * h)
    curve = (sky(INNER + h) - 2 * sky(INNER) + sky(INNER - h)) / h**2
    assert np.abs(first - exact).max() < 0.01 * np.abs(exact).max()
    assert np.abs(second - curve).max() < 0.07 * np.abs(curve).max()
    own = (spectrum(INNER + 1e-4) - spectrum(INNER - 1e-4)) / 2e-4
    assert np.abs(first - own).max() < 1e-4 * np.abs(own).max()


def test_samples_without_weight_do_not_count(wave, sky):
    data = sky(wave)
    weight = np.ones(wave.shape)
    data[5] = 1e6
    weight[5] = 0
    fit = fit_common(wave, data, weight, step=1.0)
    assert np.abs(fit(INNER) - sky(INNER)).max() < 0.005 * sky(INNER).max()


def test_gap_is_bridged_smoothly(wave):
    """Ten knots without any sample: the straight spectrum goes on straight."""
    line = 100 + 0.2 * (wave - 5150)
    weight = np.where((wave > 5140) & (wave < 5150), 0.0, 1.0)
    fit = fit_common(wave, line, weight, step=1.0)
    inside = np.linspace(5140, 5150, 41)
    assert np.abs(fit(inside) - (100 + 0.2 * (inside - 5150))).max() < 0.01
    assert fit.variance(inside).max() > 10 * fit.variance(np.linspace(5100, 5110, 41)).max()


def test_limits_reach_beyond_the_samples(wave):
    """A few knots beyond the last sample, the spectrum goes on; far away it stays finite."""
    limits = wave.min() - 3, wave.max() + 3
    flat = fit_common(wave, np.full(wave.shape, 7.0), np.ones(wave.shape), step=1.0, limits=limits)
    assert flat(np.array(limits)) == pytest.approx(7.0, rel=0.02)
    assert np.isfinite(flat(np.array([4000.0, 6000.0]))).all()


def test_shape_of_the_answer_is_that_of_the_question(spectrum):
    assert spectrum(np.full((3, 4, 5), 5100.0)).shape == (3, 4, 5)
    copy = CommonSpectrum(spectrum.start, spectrum.step, spectrum.coef, np.zeros((1, 1)))
    assert (copy(INNER) == spectrum(INNER)).all()


def test_variance_is_that_of_the_dense_inverse():
    """Diagonal forms of the band of the inverse against numpy, with line widths that make the band full."""
    rng = np.random.default_rng(31)
    wave = np.sort(rng.uniform(0, 100, (4, 300)), axis=1)
    spectrum = fit_common(
        wave, np.ones(wave.shape), rng.uniform(0.5, 2, wave.shape), step=1.5, extra=rng.uniform(-1, 6, wave.shape)
    )
    n, band = spectrum.coef.size, spectrum.matrix.shape[0]
    full = np.zeros((n, n))
    for d in range(band):
        part = spectrum.matrix[band - 1 - d, d:]
        full += np.diag(part, d) + (np.diag(part, -d) if d else 0)
    at = rng.uniform(5, 95, 20)
    unit = np.eye(n)
    basis = np.stack(
        [CommonSpectrum(spectrum.start, spectrum.step, unit[k], spectrum.matrix)(at) for k in range(n)], axis=1
    )
    expected = np.einsum("sa,ab,sb->s", basis, np.linalg.inv(full), basis)
    assert spectrum.variance(at) == pytest.approx(expected, rel=1e-8)
