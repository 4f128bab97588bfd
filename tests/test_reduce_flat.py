"""Throughput of the fibres and response of single pixels, recovered from flats that were made with known ones."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import (
    READ_NOISE,
    expose,
    fiber_model,
    lines_on_continuum,
    nothing,
    paint,
    read_noise,
    rows_of,
    traces,
    wavelengths,
)
from scipy.ndimage import gaussian_filter1d

from panacea_nb.reduce.extract import extract
from panacea_nb.reduce.flat import (
    LAMP_KNOTS,
    MIN_SIGNAL,
    convolved_rows,
    fiber_mean,
    flat_samples,
    gaussian_kernel,
    knot_step,
    measure_throughput,
    pixel_flat,
    reference_variance,
    smooth_design,
    smooth_rows,
)

NF, NX = 48, 480
DEAD = 9


@pytest.fixture(scope="module")
def wave():
    return wavelengths(NF, NX)


@pytest.fixture(scope="module")
def lsf():
    f = np.linspace(-1, 1, NF)[:, None]
    return 1.9 + 0.12 * f + 0.08 * np.linspace(-1, 1, NX)[None, :]


@pytest.fixture(scope="module")
def alive():
    alive = np.ones(NF, bool)
    alive[DEAD] = False
    return alive


@pytest.fixture(scope="module")
def truth(wave, lsf, alive):
    """Twilight with absorption lines through smooth throughputs; (amplitude [e-], throughput)."""
    rng = np.random.default_rng(71)
    lines = lines_on_continuum(np.array([5100.0, 5180.0, 5300.0, 5390.0]), np.full(4, -9000.0), 1.75, level=6000.0)
    x = np.linspace(-1, 1, NX)
    throughput = rng.uniform(0.8, 1.15, (NF, 1)) * (
        1 + rng.normal(0, 0.03, (NF, 1)) * x + rng.normal(0, 0.02, (NF, 1)) * x**2
    )
    throughput[DEAD] = 1.0
    throughput /= fiber_mean(throughput, wave, alive)
    extra = (lsf * np.gradient(wave, axis=1)) ** 2 - 1.75**2
    amplitude = throughput * lines(wave, extra) * np.gradient(wave, axis=1)
    amplitude[DEAD] = 0
    return amplitude, throughput


@pytest.fixture(scope="module")
def measured(truth, wave, lsf, alive):
    rng = np.random.default_rng(72)
    variance = truth[0] + 30.0
    data = truth[0] + np.sqrt(variance) * rng.normal(size=variance.shape)
    good = np.ones(data.shape, bool)
    good[20, 100:140] = False
    data[20, 100:140] = 1e6
    data[30, 250] += 60 * np.sqrt(variance[30, 250])  # a cosmic ray that nobody marked
    return measure_throughput(data, variance, good, wave, lsf, alive)


def test_throughput_is_recovered(measured, truth, alive):
    """Noise of a fibre's mean is 0.07 %: within 0.15 % RMS, in the overlap of all fibres."""
    ratio = (measured.relative / truth[1])[alive]
    inner = ratio[:, 10:-10]
    assert inner.mean() == pytest.approx(1.0, abs=5e-4)
    assert np.std(inner) < 0.003
    assert np.std(inner.mean(axis=1)) < 0.0012
    assert np.abs(inner - 1).max() < 0.02
    assert (measured.relative[DEAD] > 0).all()


def test_average_fibre_is_one_at_every_wavelength(measured, wave, alive):
    mean = fiber_mean(measured.relative, wave, alive)
    assert np.abs(mean - 1).max() < 0.003


def test_residuals_are_noise(measured, alive):
    assert np.median(measured.scatter[alive]) == pytest.approx(1.0, abs=0.04)
    assert np.abs(measured.residual[alive][:, 10:-10].mean()) < 3e-4
    assert not measured.residual[20, 100:140].any()


def test_spectrum_of_the_average_fibre(measured, wave):
    lines = lines_on_continuum(np.array([5100.0, 5180.0, 5300.0, 5390.0]), np.full(4, -9000.0), 1.75, level=6000.0)
    grid = np.linspace(5020, 5460, 1500)
    assert np.abs(measured.spectrum(grid) / lines(grid) - 1).mean() < 0.006
    assert measured.spectrum(grid).mean() == pytest.approx(lines(grid).mean(), rel=2e-3)


def test_reference_width_is_the_one_of_sharp_fibres(wave, lsf, alive):
    extra, reference = reference_variance(wave, lsf, alive)
    sigma = lsf * np.gradient(wave, axis=1)
    assert extra == pytest.approx(sigma**2 - reference**2, abs=1e-9)
    share = (extra[alive] < 0).mean()
    assert 0.1 < share < 0.3
    middle = np.percentile(sigma[alive, NX // 2], 20)
    assert reference[NF // 2, NX // 2] == pytest.approx(middle, rel=0.01)


def test_smooth_rows_fit_splines_exactly_and_leave_out_what_has_no_weight():
    design = smooth_design(200, 10)
    assert design.shape == (200, 13)
    assert design.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    x = np.linspace(-1, 1, 200)
    rows = np.stack([1 + x, x**3 - x, np.full(200, 3.0)])
    weight = np.ones(rows.shape)
    spoiled = rows.copy()
    spoiled[1, 50:55] = 1e9
    weight[1, 50:55] = 0
    assert smooth_rows(spoiled, weight, design) == pytest.approx(rows, abs=1e-3)  # of a range of one
    assert (smooth_rows(rows, 0 * weight, design) == 0).all()


@pytest.mark.parametrize("what", ["faint end", "masked stretch", "masked end"])
def test_throughput_goes_on_where_nothing_tells_it(what, wave, lsf, alive):
    """An end with a hundredth of the light; fibres that are masked over several knots: straight on, not down to nothing."""
    rng = np.random.default_rng(76)
    f, x = np.arange(NF)[:, None], np.linspace(-1, 1, NX)[None, :]
    true = (1 + 0.1 * np.sin(0.7 * f)) * (1 + 0.05 * x * np.cos(1.3 * f))
    true = true / fiber_mean(true, wave, alive)
    place = (wave - wave.min()) / np.ptp(wave)
    light = 10000.0 * (np.where(place < 0.9, 1.0, 0.01 ** np.clip((place - 0.9) / 0.05, 0, 1)) if what == "faint end" else 1.0)
    data = true * light * np.gradient(wave, axis=1)
    variance = data + 45
    good = np.ones(data.shape, bool)
    if what == "masked stretch":
        good[20:26, 150:290] = False
    if what == "masked end":
        good[20, -70:] = False
    data = data + np.sqrt(variance) * rng.normal(size=data.shape)
    found = measure_throughput(data, variance, good, wave, lsf, alive)
    error = (found.relative / true - 1)[alive]
    assert np.abs(error).max() < 0.1
    assert np.std(error) < 0.012


def test_fibres_whose_middle_is_saturated_keep_their_throughput(wave, lsf, alive):
    """The bright ones, over a third of the chip: their wings, with less than half of the profile's weight, tell enough."""
    rng = np.random.default_rng(77)
    trace = traces(NF, NX)
    true = rng.uniform(0.85, 1.15, (NF, 1)) * np.ones((NF, NX))
    true[~alive] = 1.0
    true = true / fiber_mean(true, wave, alive)
    amplitude = 30000.0 * true * (1 + np.exp(-0.5 * ((np.arange(NX) - 200) / 60) ** 2)) * alive[:, None]
    image = expose(rng, paint(trace, amplitude, rows_of(trace)))
    bad = image > 13800
    assert 0.1 < bad[np.round(trace[:, 200]).astype(int), 200].mean() < 0.9
    model = fiber_model(trace, alive)
    spectra = extract(np.minimum(image, 13800), read_noise(image), bad, model, start=image)
    found = measure_throughput(*flat_samples(spectra, 1, alive), wave, lsf, alive)
    assert np.abs((found.relative / true - 1)[alive]).max() < 0.03
    few = measure_throughput(spectra.amplitude, spectra.variance, spectra.used > 0.7, wave, lsf, alive)
    assert np.abs((few.relative / true - 1)[alive]).max() > 0.03


def test_fiber_mean_is_that_of_the_living(wave, alive):
    values = np.linspace(0.8, 1.2, NF)[:, None] * np.ones(NX)
    values[DEAD] = 50.0
    expected = values[alive].mean()
    assert fiber_mean(values, wave, alive) == pytest.approx(expected, rel=1e-3)


def test_knots_are_a_pixel_apart(wave):
    assert knot_step(wave) == pytest.approx(1.01, abs=0.01)


@pytest.fixture(scope="module")
def lamp(wave, lsf, alive, truth):
    """Mean of four frames through pixels of 1 % scatter, with a dust spot and a dead pixel; and all that is known of it."""
    rng = np.random.default_rng(73)
    trace = traces(NF, NX)
    ny = rows_of(trace)
    pixels = 1 + 0.01 * rng.normal(size=(ny, NX))
    columns = 0.003 * rng.normal(size=(2, NX))  # of either amplifier
    pixels *= 1 + np.repeat(columns, [ny // 2, ny - ny // 2], axis=0)
    spot = (int(trace[25, 200]), 200)
    pixels[spot[0] - 1 : spot[0] + 3, 198:203] *= 0.85
    cold = (int(round(trace[12, 300])), 300)
    pixels[cold] = 0.2
    amplitude = 10 * truth[0]
    light = paint(trace, amplitude, ny)
    image = sum(expose(rng, light * pixels) for _ in range(4)) / 4
    variance = amplitude / 4 + 30
    seen = 1 + np.where(trace < ny // 2, columns[0], columns[1])
    data = amplitude * seen + np.sqrt(variance) * rng.normal(size=amplitude.shape)
    throughput = measure_throughput(
        data, variance, np.ones(data.shape, bool), wave, lsf, alive, knots=LAMP_KNOTS
    )
    model = fiber_model(trace, alive)
    flat = pixel_flat(
        image, read_noise(image), nothing(image), np.zeros_like(image), model, throughput, wave, lsf, n_frames=4
    )
    return flat, pixels, light, spot, cold, model, image, columns, throughput


def test_pixel_response_is_recovered(lamp):
    """In bright pixels the error is a fraction of the 1 % that the pixels scatter by."""
    flat, pixels, light, spot, cold, *_ = lamp
    bright = light > 0.4 * light.max()
    bright[spot[0] - 4 : spot[0] + 6, 180:221] = False
    bright[cold] = False
    error = (flat.data - pixels)[bright]
    assert np.std(error) < 0.005
    assert abs(error.mean()) < 3e-4
    assert np.corrcoef(flat.data[bright], pixels[bright])[0, 1] > 0.85
    assert flat.scatter == pytest.approx(0.01, abs=0.0025)


def test_what_a_column_has_in_common_is_kept_whole(lamp):
    """Not shrunk as a pixel is: many pixels show it, and the lamp's smooth spectrum does not take it away."""
    flat, _, light, *_, columns, _ = lamp
    bright = light > 0.4 * light.max()
    for true, rows in zip(columns, np.array_split(np.arange(light.shape[0]), 2), strict=True):
        found = np.average(flat.data[rows], weights=bright[rows], axis=0) - 1
        true, found = (a - gaussian_filter1d(a, 20.0) for a in (true, found))
        assert (found * true).sum() / (true**2).sum() > 0.8


def test_error_of_the_flat_is_what_its_bright_pixels_are_wrong_by(lamp):
    flat, pixels, light, spot, cold, *_ = lamp
    weight = light**2
    weight[spot[0] - 4 : spot[0] + 6] = 0
    weight[cold] = 0
    error = flat.data - pixels / (1 + _slow(pixels - 1))
    wrong = np.sqrt(np.average(error[:, 20:-20] ** 2, weights=weight[:, 20:-20]))
    assert np.mean(flat.error) == pytest.approx(wrong, rel=0.15)


def _slow(values):
    return gaussian_filter1d(values, 20.0, axis=1)


def test_dust_spot_keeps_its_depth(lamp):
    flat, pixels, light, (row, column), *_ = lamp
    inside = (slice(row - 1, row + 3), slice(column - 2, column + 3))
    depth = np.average(flat.data[inside], weights=light[inside])
    assert depth == pytest.approx(0.85, abs=0.01)


def test_dead_pixel_is_a_defect_not_a_flat(lamp):
    flat, _, _, _, cold, *_ = lamp
    assert flat.defects[cold]
    assert flat.data[cold] == 1.0
    assert flat.defects.sum() == 1


def test_no_pixel_is_divided_by_nothing_where_scattered_light_is_overestimated(lamp, wave, lsf):
    """Wings of profiles hold as little light as the background is wrong by: they say nothing of their pixels."""
    flat, _, light, _, _, model, image, _, throughput = lamp
    excess = (MIN_SIGNAL * light.max() * np.linspace(0, 1.2, NX) * np.ones(image.shape)).astype(np.float32)
    noise = read_noise(image)
    found = pixel_flat(image, noise, nothing(image), excess, model, throughput, wave, lsf, n_frames=4)
    assert ((found.data >= 0.6) & (found.data <= 1.4)).all()
    assert found.defects.sum() <= 3
    bright = light > 0.4 * light.max()
    assert np.std((found.data - flat.data)[bright]) < 0.003


def test_flat_makes_the_fibre_model_fit_better(lamp):
    """Chi-square of the lamp's pixels about the fibre model, with the flat and without."""
    flat, _, light, _, _, model, image, *_ = lamp
    lit = (light > 0.2 * light.max()) & ~flat.defects

    def chi(frame):
        got = extract(frame, read_noise(frame), flat.defects, model)
        return np.mean(((frame - got.model) ** 2 / (got.model / 4 + READ_NOISE**2 / 4))[lit])

    assert chi(image) > 3
    assert chi(image / flat.data) < 1 + 0.2 * (chi(image) - 1)


def test_unlit_pixels_have_no_flat(lamp):
    flat, _, light, *_ = lamp
    dark = light < 15
    assert (flat.data[dark] == 1.0).all()
    assert not flat.defects[dark].any()


def test_rows_are_convolved_as_by_scipy():
    image = np.random.default_rng(41).normal(1, 0.1, (5, 300)).astype(np.float32)
    expected = gaussian_filter1d(image.astype(float), 20.0, axis=1, mode="nearest")
    assert convolved_rows(image, gaussian_kernel(20.0)) == pytest.approx(expected, abs=2e-6)
