"""Extraction of all fibres together: unbiased, with the errors that it has, whatever the neighbours hold."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import FWHM, READ_NOISE, SIGMA, expose, fiber_model, nothing, paint, read_noise, rows_of, traces

from panacea_nb.reduce.extract import (
    FiberModel,
    blank_extraction,
    extract,
    flux_scale,
    refit,
    spline_basis,
    trace_offsets,
)
from panacea_nb.reduce.kernels import BLOCK, HALF_WIDTH, N_COEF, SIZE, slope_windows
from panacea_nb.reduce.trace import gaussian_coef, widened

NF, NX = 30, 400


def gaussian(u, sigma):
    return np.exp(-0.5 * (u / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)


@pytest.fixture(scope="module")
def trace():
    return traces(NF, NX)


@pytest.fixture(scope="module")
def light():
    """Amplitudes [e-]: bright fibres beside faint ones, and lines along dispersion."""
    level = np.tile([40.0, 2000.0, 150.0, 0.0, 600.0], NF // 5)[:, None]
    return level * (1 + 3 * (np.arange(NX) % 40 == 20))[None, :]


def test_faint_fibres_beside_bright_ones_without_noise(trace, light):
    """Bias below 0.2 sigma of a sample, neighbours at 6.8 px."""
    image = paint(trace, light, rows_of(trace)).astype(np.float32)
    got = extract(image, read_noise(image), nothing(image), fiber_model(trace))
    sigma = np.sqrt(got.variance)
    assert np.abs((got.amplitude - light) / sigma).max() < 0.2
    bright = light[:, 0] > 100
    assert got.amplitude[bright].sum() == pytest.approx(light[bright].sum(), rel=5e-4)
    assert np.abs(got.model - image).max() < 2e-3 * image.max()
    assert got.used.min() == 1.0


def test_scatter_is_the_variance_within_three_per_cent(trace, light):
    rng = np.random.default_rng(1)
    image = expose(rng, paint(trace, light, rows_of(trace)))
    got = extract(image, read_noise(image), nothing(image), fiber_model(trace))
    pull = (got.amplitude - light) / np.sqrt(got.variance)
    for level in np.unique(light[:, 0]):
        own = pull[light[:, 0] == level]
        assert np.std(own) == pytest.approx(1.0, abs=0.03)
        assert abs(own.mean()) < 0.2
    # The variance of a lone fibre: read noise through the profile, plus photons.
    effective = 1 / (SIGMA * 2 * np.sqrt(np.pi))  # sum of P^2
    dark = got.variance[light[:, 0] == 0].mean()
    assert dark > READ_NOISE**2 / effective


def test_faint_light_is_not_biased_low(trace):
    """Weights from noisy pixels would favour those that are low by chance."""
    rng = np.random.default_rng(2)
    truth = 8.0
    image = expose(rng, paint(trace, np.full(trace.shape, truth), rows_of(trace)), read_noise=1.0)
    got = extract(image, read_noise(image, 1.0), nothing(image), fiber_model(trace))
    error = float(np.sqrt(got.variance.mean() / got.variance.size))
    assert got.amplitude.mean() == pytest.approx(truth, abs=3 * error)
    assert 3 * error < 0.02 * truth


def test_masked_pixels_cost_weight_but_not_light(trace, light):
    rng = np.random.default_rng(3)
    clean = paint(trace, light, rows_of(trace))
    image = expose(rng, clean)
    bad = nothing(image)
    columns = np.arange(NX)
    for f in range(1, NF, 3):
        bad[np.round(trace[f]).astype(int), columns] = True
        if f % 2:
            bad[np.round(trace[f]).astype(int) + 1, columns] = True
    spoiled = image.copy()
    spoiled[bad] = 60000
    got = extract(spoiled, read_noise(image), bad, fiber_model(trace))
    whole = extract(image, read_noise(image), nothing(image), fiber_model(trace))
    pull = (got.amplitude - light) / np.sqrt(got.variance)
    hit = np.zeros(NF, bool)
    hit[1::3] = True
    assert np.abs(pull[hit].mean(axis=1)).max() < 0.2
    assert np.std(pull[hit]) == pytest.approx(1.0, abs=0.03)
    assert np.std(pull[~hit]) == pytest.approx(1.0, abs=0.03)
    lost = got.variance[hit] / whole.variance[hit]
    assert lost.min() > 1.05
    assert lost.mean() > 1.25
    assert (got.used[~hit] > 0.98).all()
    # The central pixel of this profile holds a quarter to a third of the squared weight, two of them about half.
    assert 0.60 < got.used[4].mean() < 0.76
    assert 0.35 < got.used[1].mean() < 0.60
    noiseless = paint(trace, light, rows_of(trace)).astype(np.float32)
    exact = extract(noiseless, read_noise(image), bad, fiber_model(trace))
    assert np.abs((exact.amplitude - light) / np.sqrt(exact.variance)).max() < 0.2


def test_fibre_without_any_pixel_left(trace, light):
    """A fully masked sample is zero with no variance; its neighbours do not notice."""
    image = paint(trace, light, rows_of(trace)).astype(np.float32)
    bad = nothing(image)
    middle = int(round(trace[10, 100]))
    bad[middle - 11 : middle + 12, 100] = True
    got = extract(image, read_noise(image), bad, fiber_model(trace))
    assert (got.amplitude[10, 100], got.variance[10, 100], got.used[10, 100]) == (0, 0, 0)
    assert np.isfinite(got.amplitude).all()
    for f in (7, 13):
        assert got.amplitude[f, 100] == pytest.approx(light[f, 100], abs=0.2 * float(np.sqrt(got.variance[f, 100])))


def test_dead_fibres_are_left_out(trace, light):
    alive = np.ones(NF, bool)
    alive[[0, 7, NF - 1]] = False
    lit = np.where(alive[:, None], light, 0.0)
    image = paint(trace, lit, rows_of(trace)).astype(np.float32)
    got = extract(image, read_noise(image), nothing(image), fiber_model(trace, alive))
    assert not got.amplitude[~alive].any()
    assert not got.variance[~alive].any()
    assert np.abs(got.amplitude - lit).max() < 0.2 * np.sqrt(got.variance.max())


def test_background_is_taken_out_and_its_noise_counted(trace, light):
    rng = np.random.default_rng(4)
    lit = paint(trace, light, rows_of(trace))
    under = 20.0 + 0.02 * np.arange(lit.shape[0])[:, None] * np.ones(NX)
    image = expose(rng, lit + under)
    got = extract(image, read_noise(image), nothing(image), fiber_model(trace), background=under.astype(np.float32))
    pull = (got.amplitude - light) / np.sqrt(got.variance)
    assert abs(pull.mean()) < 0.05
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)


def test_weights_from_a_given_model_give_the_same_amplitudes(trace, light):
    rng = np.random.default_rng(5)
    image = expose(rng, paint(trace, light, rows_of(trace)))
    usual = extract(image, read_noise(image), nothing(image), fiber_model(trace), rounds=3)
    start = paint(trace, light, rows_of(trace)).astype(np.float32)
    again = extract(image, read_noise(image), nothing(image), fiber_model(trace), start=start)
    assert np.abs(again.amplitude - usual.amplitude).max() < 0.25 * np.sqrt(usual.variance.max())
    pull = (again.amplitude - light) / np.sqrt(again.variance)
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)


def test_solution_is_that_of_the_dense_equations(trace):
    """Against numpy's inverse: random weights, masked pixels, and a number of columns that fills no block."""
    rng = np.random.default_rng(6)
    nx = BLOCK + 3
    model = fiber_model(trace[:, :nx])
    ny = rows_of(trace)
    image = rng.normal(100, 20, (ny, nx)).astype(np.float32)
    weight = rng.uniform(0.2, 1.0, (ny, nx)).astype(np.float32)
    bad = rng.uniform(size=(ny, nx)) < 0.02
    image[bad] = np.nan
    got = extract(image, weight**-0.5, bad, model, rounds=1)
    rows = np.arange(ny)
    near = np.abs(np.subtract.outer(np.arange(NF), np.arange(NF))) <= 1
    coupling = np.zeros((NF - 1, nx))
    for x in range(nx):
        shapes = np.stack([spline_basis(rows - trace[f, x]) @ model.coef[f, 0] for f in range(NF)])
        w = np.where(bad[:, x], 0.0, weight[:, x])
        inverse = np.linalg.inv(np.where(near, (shapes * w) @ shapes.T, 0.0))
        values = inverse @ (shapes * w) @ np.nan_to_num(image[:, x])
        assert got.amplitude[:, x] == pytest.approx(values, rel=1e-4, abs=1e-2)
        assert got.variance[:, x] == pytest.approx(np.diag(inverse), rel=1e-4)
        assert got.used[:, x] == pytest.approx((shapes**2 * (w > 0)).sum(axis=1) / (shapes**2).sum(axis=1), abs=1e-5)
        assert got.model[:, x] == pytest.approx(values @ shapes, rel=1e-4, abs=1e-2)
        coupling[:, x] = np.diag(inverse, 1) / np.sqrt(np.diag(inverse)[1:] * np.diag(inverse)[:-1])
    for b, part in enumerate((slice(0, BLOCK), slice(BLOCK, nx))):
        assert got.coupling[:-1, b] == pytest.approx(coupling[:, part].mean(axis=1), rel=1e-4)
        assert got.coupling[:-1, b].max() < -0.01
        assert got.coupling[-1, b] == 0


def test_windows_are_the_profile_and_its_slope(trace):
    """Also where a trace crosses a knot or a row within a block, and with several sets of coefficients in a block."""
    steep = trace[:, : 3 * BLOCK] + np.linspace(0, 4, 3 * BLOCK)
    coef = np.random.default_rng(61).normal(1, 0.3, (NF, 3 * BLOCK // 4, N_COEF))
    model = FiberModel(steep, coef, 4, np.ones(NF, bool))
    window, first = model.windows
    slopes, weights, step = np.zeros((NF, window.shape[2]), np.float32), np.zeros(4 * BLOCK, np.float32), 1e-5
    for b in range(3):
        slope_windows(steep, coef, 4, b, first, weights, slopes)
        for f in (0, 1, NF - 1):
            for c in range(BLOCK):
                x = b * BLOCK + c
                u = first[b, f] + np.arange(SIZE) - steep[f, x]
                expected = spline_basis(u) @ coef[f, x // 4]
                assert window[b, f].reshape(SIZE, BLOCK)[:, c] == pytest.approx(expected, abs=1e-6)
                inside = np.abs(u) < HALF_WIDTH - step
                ahead, behind = (spline_basis(u + d) @ coef[f, x // 4] for d in (step, -step))
                slope = (ahead - behind) / (2 * step)
                assert slopes[f].reshape(SIZE, BLOCK)[inside, c] == pytest.approx(slope[inside], abs=1e-4)


def test_some_blocks_are_fitted_and_the_others_left(trace, light):
    image = paint(trace, light, rows_of(trace)).astype(np.float32)
    model = fiber_model(trace)
    whole = extract(image, read_noise(image), nothing(image), model)
    part = blank_extraction(model, image.shape)
    refit(part, image, read_noise(image), nothing(image), model, rounds=2, blocks=np.array([1, 3]))
    fitted = np.isin(np.arange(NX) // BLOCK, (1, 3))
    assert np.array_equal(part.amplitude[:, fitted], whole.amplitude[:, fitted])
    assert np.array_equal(part.model[:, fitted], whole.model[:, fitted])
    assert not part.amplitude[:, ~fitted].any()


def test_weights_from_amplitudes_are_those_from_their_image(trace, light):
    image = expose(np.random.default_rng(62), paint(trace, light, rows_of(trace)))
    model = fiber_model(trace)
    first = extract(image, read_noise(image), nothing(image), model)
    by_image = extract(image, read_noise(image), nothing(image), model, start=first.model)
    by_light = extract(image, read_noise(image), nothing(image), model, light=first.amplitude)
    assert np.abs(by_light.amplitude - by_image.amplitude).max() < 1e-4 * np.sqrt(by_image.variance.max())


def test_image_of_the_model_is_the_sum_of_its_fibres(trace, light):
    made = fiber_model(trace).image(light, rows_of(trace))
    assert np.abs(made - paint(trace, light, rows_of(trace))).max() < 2e-4 * light.max()
    moved = fiber_model(trace).shifted(0.3).image(light, rows_of(trace))
    assert np.abs(moved - paint(trace + 0.3, light, rows_of(trace))).max() < 2e-4 * light.max()


def test_profile_splines_sum_to_one_within_their_range():
    u = np.linspace(-HALF_WIDTH + 0.01, HALF_WIDTH - 0.01, 301)
    basis = spline_basis(u)
    assert basis.shape == (301, N_COEF)
    assert basis.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert not spline_basis(np.array([-HALF_WIDTH - 0.1, HALF_WIDTH + 0.1])).any()


@pytest.mark.parametrize("fwhm", [3.6, 4.0, 4.6])
def test_flux_scale_is_the_profile_over_its_centre(fwhm):
    """K against sums over the pixels of the Gaussian itself."""
    trace = traces(NF, NX)
    sigma = fwhm / np.sqrt(8 * np.log(2))
    columns = np.minimum(np.arange(NX // 16) * 16 + 8, NX - 1)
    t = trace[:, columns]
    r = t - np.floor(t)
    centre = (gaussian(r, sigma) + gaussian(1 - r, sigma)) / 2
    model = fiber_model(trace, fwhm=fwhm)
    assert flux_scale(model) == pytest.approx(1 / centre.mean(), rel=2e-4)
    image = paint(trace, 1000.0, rows_of(trace), sigma)
    x = np.arange(NX)
    low = np.floor(trace).astype(int)
    of_image = 1000.0 / (0.5 * (image[low, x] + image[low + 1, x]))
    # On a real image the neighbours' wings lie under the centre: K counts the fibre's own profile.
    assert flux_scale(model) > of_image.mean()
    assert flux_scale(model) == pytest.approx(of_image.mean(), rel=0.02)


def test_flux_scale_leaves_dead_fibres_out():
    trace = traces(NF, NX)
    coef = gaussian_coef(NF, NX, FWHM)
    alive = np.ones(NF, bool)
    alive[3] = False
    coef[3] = 0.0
    broken = fiber_model(trace, alive)
    whole = flux_scale(fiber_model(np.delete(trace, 3, axis=0)))
    object.__setattr__(broken, "coef", coef)
    assert flux_scale(broken) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("shift", [0.04, -0.12])
def test_shift_of_the_traces_is_measured(trace, shift):
    """Bright fibres with neighbours of other brightness: each block's shift within 10 % + 0.002 px."""
    level = np.tile([3000.0, 9000.0, 5000.0], NF // 3)[:, None] * np.ones(NX)
    image = paint(trace + shift, level, rows_of(trace)).astype(np.float32)
    model = fiber_model(trace)
    result = extract(image, read_noise(image), nothing(image), model)
    measured, weight, widening, _ = trace_offsets(image, read_noise(image), nothing(image), model, result, 40)
    assert measured.shape == (NF, NX // 40)
    assert np.abs(measured - shift).max() < 0.1 * abs(shift) + 0.002
    assert np.abs(widening).max() < 0.03
    assert (weight > 0).all()


def test_error_of_the_shift_is_its_weight(trace):
    rng = np.random.default_rng(7)
    level = np.full(trace.shape, 3000.0)
    image = expose(rng, paint(trace, level, rows_of(trace)))
    model = fiber_model(trace)
    result = extract(image, read_noise(image), nothing(image), model)
    shift, weight, widening, width_weight = trace_offsets(image, read_noise(image), nothing(image), model, result, 20)
    assert np.std(shift * np.sqrt(weight)) == pytest.approx(1.0, abs=0.1)
    # The weights of widenings leave out one side's coupling to the neighbour: good as weights, 15 % short as errors.
    assert np.std(widening * np.sqrt(width_weight)) == pytest.approx(1.1, abs=0.15)
    assert abs(np.average(shift, weights=weight)) < 4 / np.sqrt(weight.sum())


def test_widening_of_single_fibres_is_measured(trace):
    factor = np.ones(NF)
    factor[5::6] = 1.03
    level = np.full(trace.shape, 5000.0)
    image = paint(trace, level, rows_of(trace), SIGMA * factor).astype(np.float32)
    model = fiber_model(trace)
    result = extract(image, read_noise(image), nothing(image), model)
    _, _, widening, weight = trace_offsets(image, read_noise(image), nothing(image), model, result, 40)
    mean = np.average(widening, axis=1, weights=weight)
    assert mean[5::6] == pytest.approx(0.03, abs=0.006)
    inner = np.ones(NF, bool)
    inner[5::6] = False
    assert np.abs(mean[inner]).max() < 0.006


def test_widened_profile_is_the_wider_gaussian(trace):
    widths = np.linspace(0.92, 1.08, NF)
    coef = widened(gaussian_coef(NF, NX, FWHM), widths)
    u = np.linspace(-8, 8, 200)
    for f in (0, NF // 2, NF - 1):
        assert spline_basis(u) @ coef[f, 0] == pytest.approx(gaussian(u, SIGMA * widths[f]), abs=2e-4)


def test_neighbours_matter(trace):
    """Each fibre fitted alone is off by many sigma beside a bright one: the image can tell a coupled fit from it."""
    level = np.tile([100.0, 5000.0], NF // 2)[:, None] * np.ones(NX)
    image = paint(trace, level, rows_of(trace))
    f = 10
    rows = np.arange(image.shape[0])[:, None]
    profile = gaussian(rows - trace[f], SIGMA)
    alone = (profile * image).sum(axis=0) / (profile**2).sum(axis=0)
    got = extract(image.astype(np.float32), read_noise(image), nothing(image), fiber_model(trace))
    sigma = np.sqrt(got.variance[f])
    assert ((alone - 100) / sigma).min() > 5
    assert (np.abs(got.amplitude[f] - 100) / sigma).max() < 0.2
