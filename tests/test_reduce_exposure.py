"""One science frame from pixels to samples: pedestal, masks, cosmic rays, flexure and wavelength zero together."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import SIGMA as LINE_SIGMA
from reduce_factory import (
    SPACING,
    expose,
    fiber_model,
    lines_on_continuum,
    nothing,
    paint,
    read_noise,
    rows_of,
    wavelengths,
)
from scipy.ndimage import gaussian_filter

from panacea_nb.instrument import channel
from panacea_nb.reduce.exposure import extract_exposure, hit_samples, reference_sigma, zero_of
from panacea_nb.reduce.maskbits import DQ
from panacea_nb.reduce.scatter import SCATTER_SIGMAS, ScatterModel, gap_pixels

NF, NX = 80, 400
LINES = np.array([5043.3, 5081.0, 5128.7, 5177.2, 5210.9, 5260.1, 5301.6, 5336.4, 5370.2])
FLUXES = np.array([3000.0, 12500.0, 4900.0, 15000.0, 2400.0, 7500.0, 18000.0, 3700.0, 9000.0])
SIGMA = 1.9
SKY = lines_on_continuum(LINES, FLUXES, SIGMA, level=300.0)
POSITIONS = channel("orange").fiber_positions()[100 : 100 + NF]
ROW_SHIFT, WAVE_SHIFT, PEDESTAL = 0.18, 0.22, 2.0


@pytest.fixture(scope="module")
def setup():
    """Calibrations of a made-up channel: traces in two groups, wavelengths, widths, throughputs."""
    groups = np.repeat([0.0, 60.0], NF // 2)[:, None]
    x = np.linspace(-1, 1, NX)
    trace = 40.0 + SPACING * np.arange(NF)[:, None] + groups + 1.2 * x**2
    wave = wavelengths(NF, NX)
    throughput = np.random.default_rng(600).uniform(0.9, 1.1, (NF, 1)) * np.ones(NX)
    return trace, wave, SIGMA / np.gradient(wave, axis=1), throughput


@pytest.fixture(scope="module")
def frame(setup):
    """A frame shifted in rows and wavelengths, on a pedestal, with cosmic rays: (image, amplitudes, pixels hit)."""
    trace, wave, _, throughput = setup
    rng = np.random.default_rng(601)
    amplitude = SKY(wave - WAVE_SHIFT) * throughput * np.gradient(wave, axis=1)
    ny = rows_of(trace) + 40
    image = expose(rng, paint(trace + ROW_SHIFT, amplitude, ny) + PEDESTAL)
    rows, columns = rng.integers(10, ny - 10, 60), rng.integers(10, NX - 10, 60)
    image[rows, columns] += rng.uniform(400, 3000, 60).astype(np.float32)
    return image, amplitude, (rows, columns)


@pytest.fixture(scope="module")
def result(setup, frame):
    image = frame[0]
    mask = np.zeros(image.shape, np.uint8)
    mask[int(setup[0][30, 200]), 200] = DQ.SATURATED
    return extracted(setup, image, mask)


def extracted(setup, image, mask, marked=None, flat_error=0.0, scattered=0.0):
    trace, wave, lsf, throughput = setup
    alive = np.ones(NF, bool)
    scatter = ScatterModel(SCATTER_SIGMAS, np.where(SCATTER_SIGMAS == 50.0, scattered, 0.0))
    return extract_exposure(
        image, mask, read_noise(image), nothing(image), fiber_model(trace, alive), scatter, wave, lsf, throughput, POSITIONS,
        sky_lines=LINES, wander=np.array([[0.1, 0.1, 30.0]] * 2), flat_error=np.full(NX, flat_error), marked=marked,
    )  # fmt: skip


def test_row_flexure_and_pedestal(result):
    assert result.flexure.coef[0] == pytest.approx(ROW_SHIFT, abs=0.005)
    assert result.flexure.converged
    assert np.median(result.background) == pytest.approx(PEDESTAL, abs=0.2)


def test_scattered_light_between_fibres_is_no_cosmic_ray_and_counted_once(setup):
    """A star beside the gap scatters 8 % of its light: 20 e- in the gap, where no fibre is.

    The first look at the frame knows nothing of it, takes what it finds there for cosmic rays, and beside it for the fibres' own
    light.  Neither may reach the levels of the rows or the scattered light that is subtracted.
    """
    trace, wave, _, throughput = setup
    amplitude = SKY(wave - WAVE_SHIFT) * throughput * np.gradient(wave, axis=1) / 20
    amplitude[30:38] += 12000.0
    ny = rows_of(trace) + 40
    light = paint(trace + ROW_SHIFT, amplitude, ny)
    scattered = 0.08 * gaussian_filter(light, 50.0, mode="constant")
    image = expose(np.random.default_rng(602), light + scattered)
    result = extracted(setup, image, np.zeros(image.shape, np.uint8), scattered=0.08)
    gap = slice(int(trace[39].max()) + 20, int(trace[40].min()) - 20)
    assert scattered[gap].mean() == pytest.approx(20, abs=3)
    off = result.background - scattered
    assert abs(np.median(off[gap])) < 0.3
    error = np.median(result.extraction.amplitude - amplitude, axis=1)
    assert error[41:46] == pytest.approx(0.0, abs=0.8)  # on the other side of the gap; 3 without
    assert error[38:41] == pytest.approx(0.0, abs=5.0)  # beside the star of 12000


def test_fibres_far_from_where_they_were_are_no_cosmic_rays(setup):
    """1.8 px: the first look takes one flank of bright fibres for cosmic rays, and the shift would end at 1.6."""
    trace, wave, _, throughput = setup
    amplitude = 5 * SKY(wave) * throughput * np.gradient(wave, axis=1)
    image = expose(np.random.default_rng(1), paint(trace + 1.8, amplitude, rows_of(trace) + 40))
    result = extracted(setup, image, np.zeros(image.shape, np.uint8))
    assert result.flexure.converged
    assert result.flexure.coef[0] == pytest.approx(1.8, abs=0.02)


@pytest.mark.parametrize("width", [1.0, 1.02, 0.98])
def test_profiles_that_focus_made_wider_are_no_levels_of_rows(setup, width):
    """A sky of 90 e- per sample: with the flats' width, 4 % of it would be taken for the rows' levels."""
    trace, wave, _, throughput = setup
    amplitude = 0.3 * SKY(wave) * throughput * np.gradient(wave, axis=1)
    ny = rows_of(trace) + 40
    image = expose(np.random.default_rng(1), paint(trace + 0.1, amplitude, ny, width * LINE_SIGMA) + PEDESTAL)
    result = extracted(setup, image, np.zeros(image.shape, np.uint8))
    error = np.median(result.extraction.amplitude - amplitude) / np.median(amplitude)
    assert abs(error) < 0.008
    assert np.median(result.background) == pytest.approx(PEDESTAL, abs=0.08)
    told = [d.text for d in result.decisions if d.code == "FOCUS"]
    assert len(told) == (width != 1.0)
    assert all(("wider" in text) == (width > 1) for text in told)


def test_a_sample_that_is_nearly_all_masked_scatters_no_light(setup, frame):
    """All but the outermost pixels of a group's last fibre are saturated, and those are low: its samples could be anything."""
    image, mask = frame[0].copy(), np.zeros(frame[0].shape, np.uint8)
    row = round(float(setup[0][39, 200] + ROW_SHIFT))
    mask[row - 10 : row + 6, 198:202] = DQ.SATURATED
    plain = extracted(setup, image, mask, scattered=0.02)
    image[row + 6, 198:202] -= 300.0
    spoiled = extracted(setup, image, mask, scattered=0.02)
    assert np.abs(spoiled.background - plain.background).max() < 0.3


def test_wavelength_zero_comes_from_the_sky(result, setup):
    assert result.zero.used
    error = (result.wavelength - (setup[1] - WAVE_SHIFT))[:, 20:-20]
    assert abs(error.mean()) < 0.015
    assert np.sqrt(np.mean(error**2)) < 0.03


def test_samples_are_unbiased_with_their_errors(result, frame):
    usable = (result.mask & (DQ.LOSTWEIGHT | DQ.SATURATED)) == 0
    pull = (result.extraction.amplitude - frame[1]) / np.sqrt(result.extraction.variance)
    assert abs(pull[usable].mean()) < 0.06
    assert np.std(pull[usable]) == pytest.approx(1.0, abs=0.05)
    assert (np.abs(pull[usable]) > 8).sum() == 0
    # One amplitude is fitted to each 6.8 pixels of a fibre: that much less than one is left of their scatter.
    assert result.chi == pytest.approx(np.sqrt(1 - 1 / SPACING), abs=0.03)


def test_error_of_the_pixel_flat_is_in_the_variance_of_bright_light(setup, frame, result):
    """A sample of A electrons on n pixels gets some A^2 / n of the relative variance of the flat; faint ones keep theirs."""
    image, amplitude, _ = frame
    known = extracted(setup, image * (1 + 0.02 * np.random.default_rng(5).standard_normal(image.shape)), 0 * np.uint8(image > 0),
                      flat_error=0.02)  # fmt: skip
    usable = (known.mask & (DQ.LOSTWEIGHT | DQ.SATURATED)) == 0
    bright = usable & (amplitude > np.percentile(amplitude, 98))
    pull = (known.extraction.amplitude - amplitude) / np.sqrt(known.extraction.variance)
    assert np.std(pull[bright]) == pytest.approx(1.0, abs=0.1)
    more = known.extraction.variance / result.extraction.variance
    assert np.median(more[bright]) > 1.1
    assert np.median(more[usable & (amplitude < np.median(amplitude))]) < 1.02


def test_cosmic_rays_on_fibres_are_found(result, frame, setup):
    image, amplitude, (rows, columns) = frame
    trace = setup[0] + ROW_SHIFT
    on_fibre = np.array([np.abs(trace[:, c] - r).min() < 4 for r, c in zip(rows, columns, strict=True)])
    assert result.cosmics[rows[on_fibre], columns[on_fibre]].mean() > 0.97
    assert result.cosmics.sum() < 3 * rows.size
    assert 0 < (result.mask & DQ.COSMIC > 0).sum() < 3 * on_fibre.sum()


def test_saturated_pixels_mark_their_samples(result):
    marked = np.argwhere(result.mask & DQ.SATURATED)
    assert set(marked[:, 1]) == {200}
    assert 30 in marked[:, 0]
    assert len(marked) <= 2


def test_samples_within_two_rows_of_a_pixel(setup):
    trace = setup[0]
    alive = np.ones(NF, bool)
    alive[9] = False
    model = fiber_model(trace, alive)
    pixels = np.zeros((rows_of(trace), NX), bool)
    centre = np.round(trace).astype(int)
    pixels[centre[4, 50] + 2, 50] = True
    pixels[centre[5, 60] - 3, 60] = True
    pixels[centre[9, 70], 70] = True
    hit = hit_samples(pixels, model, np.uint8(DQ.COSMIC))
    assert np.argwhere(hit).tolist() == [[4, 50]]
    assert hit[4, 50] == DQ.COSMIC


def test_reference_width_as_a_function_of_wavelength(setup):
    _, wave, lsf, _ = setup
    sigma = reference_sigma(wave, lsf, np.ones(NF, bool))
    assert sigma(np.array([5050.0, 5200.0, 5350.0])) == pytest.approx(SIGMA, rel=1e-3)


def test_no_lines_and_no_templates_means_no_zero(result):
    zero = zero_of(result.sky, np.array([5043.3]), 1.9)
    assert not zero.used
    assert np.isinf(zero.error)


def test_gap_lies_between_the_groups(setup):
    gap = gap_pixels(fiber_model(setup[0]), rows_of(setup[0]))
    middle = int(setup[0][NF // 2 - 1 : NF // 2 + 1].mean())
    assert gap[middle - 15 : middle + 15].all()
    assert not gap[int(setup[0][3, 0])].any()


def test_cosmic_rays_marked_by_hand(setup, frame, result):
    """Pixels marked as hit are flagged and lose their weight, those marked as clean are trusted again."""
    image, _, (rows, columns) = frame
    found = result.cosmics[rows, columns]
    row, column = rows[found][0], columns[found][0]
    hit, clean = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    clean[row, column] = True
    fiber, at = 20, 300
    middle = int(round(result.model.trace[fiber, at]))
    hit[middle - 2 : middle + 3, at] = True
    assert not result.cosmics[middle - 1 : middle + 2, at].any()
    marked = extracted(setup, image, np.zeros(image.shape, np.uint8), (hit, clean))
    assert marked.cosmics[hit].all()
    assert not marked.cosmics[row, column]
    assert marked.extraction.used[fiber, at] < 0.2
    assert marked.mask[fiber, at] & DQ.COSMIC
    assert marked.mask[fiber, at] & DQ.LOSTWEIGHT
