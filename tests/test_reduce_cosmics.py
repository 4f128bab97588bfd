"""Cosmic rays are found, sky lines and emission lines are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import expose, fiber_model, nothing, paint, read_noise, rows_of, traces

from panacea_nb.instrument import channel
from panacea_nb.reduce.arclines import pixel_gaussian
from panacea_nb.reduce.cosmics import (
    field_neighbours,
    find_lonely,
    find_spikes,
    find_tracks,
    mask_spikes,
    narrowest,
    smooth_source,
)
from panacea_nb.reduce.extract import blank_extraction, refit
from panacea_nb.reduce.kernels import grow_tracks
from panacea_nb.reduce.psf import lenslet_fractions

NF, NX = 40, 400
SKY_LINES = ((60.3, 20000.0), (141.8, 4000.0), (250.1, 60000.0), (333.6, 1500.0))


@pytest.fixture(scope="module")
def scene():
    """Sky with strong lines and a fibre with emission lines: traces, amplitudes, a frame, and its noiseless light."""
    x = np.arange(NX)
    sky = 60.0 + sum(flux * pixel_gaussian(x, np.array(c), np.array(1.9)) for c, flux in SKY_LINES)
    amplitude = np.random.default_rng(81).uniform(0.85, 1.15, (NF, 1)) * sky
    for f, share in ((17, 1.0), (18, 0.6), (16, 0.3)):
        amplitude[f] += share * (150.0 + 9000 * pixel_gaussian(x, np.array(200.4), np.array(1.9)))
    trace = traces(NF, NX)
    light = paint(trace, amplitude, rows_of(trace))
    return trace, amplitude, light


def tracks(rng, shape, n=25):
    """Charge of cosmic rays: short straight tracks, (image, pixels hit)."""
    hit = np.zeros(shape)
    for _ in range(n):
        y, x = rng.uniform(10, shape[0] - 10), rng.uniform(10, shape[1] - 10)
        angle, length = rng.uniform(0, np.pi), rng.integers(1, 9)
        for k in range(length):
            row, column = int(y + k * np.sin(angle)), int(x + k * np.cos(angle))
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                hit[row, column] += rng.uniform(300, 3000)
    return hit


def test_clean_frame_has_no_cosmic_rays(scene):
    """Bright sky lines, an emission-line object, photon noise: nothing to find."""
    trace, _, light = scene
    image = expose(np.random.default_rng(82), light)
    got = find_tracks(image, read_noise(image), nothing(image), fiber_model(trace), np.zeros_like(image))
    assert got.mask.sum() <= 1


def test_tracks_are_found_and_lines_kept(scene):
    trace, amplitude, light = scene
    rng = np.random.default_rng(83)
    image = expose(rng, light)
    hit = tracks(rng, image.shape)
    got = find_tracks(
        image + hit.astype(np.float32), read_noise(image), nothing(image), fiber_model(trace), np.zeros_like(image)
    )
    sigma = np.sqrt(light + 9 + (0.05 * light) ** 2)
    strong = hit > 12 * sigma
    assert strong.sum() > 60
    assert got.mask[strong].mean() > 0.97
    clean = hit == 0
    assert got.mask[clean].sum() < 0.25 * (hit > 0).sum()
    far = np.ones(NX, bool)
    far[np.flatnonzero(hit.any(axis=0))] = False
    assert not got.mask[:, far].any()
    pull = (got.extraction.amplitude - amplitude) / np.sqrt(got.extraction.variance)
    usable = got.extraction.used > 0.5
    assert np.std(pull[usable]) == pytest.approx(1.0, abs=0.08)
    assert abs(pull[usable].mean()) < 0.05
    assert (np.abs(pull[usable]) > 8).sum() <= 3


def test_ray_on_a_sky_line_is_found(scene):
    trace, amplitude, light = scene
    image = expose(np.random.default_rng(84), light)
    row = int(round(trace[30, 250])) + 3
    image[row, 250] += 8000
    got = find_tracks(image, read_noise(image), nothing(image), fiber_model(trace), np.zeros_like(image))
    assert got.mask[row, 250]
    assert got.mask.sum() <= 3
    sample = (got.extraction.amplitude - amplitude)[30, 250] / np.sqrt(got.extraction.variance[30, 250])
    assert abs(sample) < 4


def test_hits_known_before_are_kept(scene):
    trace, _, light = scene
    image = expose(np.random.default_rng(85), light)
    known = nothing(image)
    known[20, 30] = True
    got = find_tracks(image, read_noise(image), nothing(image), fiber_model(trace), np.zeros_like(image), known)
    assert got.mask[20, 30]
    assert got.mask.sum() <= 2


def test_excess_is_judged_by_photons_read_noise_and_profile_error(scene):
    """The grades of all pixels of a frame against plain numpy."""
    trace, _, light = scene
    rng = np.random.default_rng(86)
    background = np.full(light.shape, 7.0, np.float32)
    image = expose(rng, light + background) + tracks(rng, light.shape).astype(np.float32)
    bad = rng.uniform(size=light.shape) < 0.01
    model = fiber_model(trace)
    result = blank_extraction(model, light.shape)
    grade = np.zeros(light.shape, np.uint8)
    limits = np.array([0.05, 3.0, 5.5], np.float32)
    refit(result, image, read_noise(image), bad, model, background=background, rounds=2, grade=grade, limits=limits)
    lit = np.maximum(result.model, 0)
    padded = np.pad(lit, ((2, 2), (0, 0)))
    peak = np.max([padded[k : k + lit.shape[0]] for k in range(5)], axis=0)
    z = (image - background - result.model) / np.sqrt(9 + lit + 7 + (0.05 * peak) ** 2)
    z[bad] = 0
    clear = (np.abs(z - 3.0) > 1e-3) & (np.abs(z - 5.5) > 1e-3)
    assert np.array_equal(grade[clear], ((z > 3.0).astype(int) + (z > 5.5))[clear])
    assert (grade == 2).sum() > 30


def test_tracks_grow_to_touching_pixels_only():
    grade = np.zeros((6, 40), np.uint8)
    grade[2, 3], grade[2, 4], grade[3, 5], grade[2, 20], grade[4, 35] = 2, 1, 1, 1, 2
    bad = np.zeros(grade.shape, bool)
    bad[4, 35] = True
    hit = np.zeros(grade.shape, bool)
    hit[1, 20] = True
    changed = np.zeros(3, bool)
    assert grow_tracks(grade, bad, hit, changed) == 3
    assert sorted(zip(*np.nonzero(hit), strict=True)) == [(1, 20), (2, 3), (2, 4), (2, 20)]
    assert changed.tolist() == [True, True, False]


def samples(rng, lines=(), sigma=1.9):
    """Flat spectra with lines of the instrument's width; predicted: what is known of them."""
    x = np.arange(NX)
    predicted = np.full((NF, NX), 100.0)
    for f, c, flux in lines:
        predicted[f] += flux * pixel_gaussian(x, np.array(c), np.array(sigma))
    variance = predicted + 25.0
    return predicted + np.sqrt(variance) * rng.normal(size=predicted.shape), variance, predicted


def test_spikes_narrower_than_a_line_are_found():
    rng = np.random.default_rng(86)
    data, variance, predicted = samples(rng)
    data[5, 100] += 300
    data[6, 200] += 200
    data[6, 201] += 200
    spikes = find_spikes(data, variance, np.ones(data.shape, bool), predicted)
    assert spikes[5, 100]
    assert spikes[6, 200]
    assert spikes[6, 201]
    assert spikes.sum() == 3


@pytest.mark.parametrize("flux", [500.0, 3000.0, 60000.0, 300000.0])
@pytest.mark.parametrize("sigma", [0.85, 0.95, 1.1, 1.3, 1.5, 1.7, 1.9, 2.2])
def test_emission_lines_that_nobody_predicted_are_no_spikes(flux, sigma):
    """Lines at every phase against the pixels, at 1x1 and (half as wide) 2x1 binning.

    All that is known of them is what `smooth_source` sees in the samples.
    """
    rng = np.random.default_rng(87)
    phases = [(f, 60 + 7.0 * f + f / NF, flux) for f in range(NF)]
    data, variance, _ = samples(rng, phases, sigma)
    good = np.ones(data.shape, bool)
    line = narrowest(np.full(data.shape, sigma), np.ones(NF, bool))
    predicted = 100 + smooth_source(data - 100, np.sqrt(variance), good, lsf_sigma=line)[0]
    spikes = find_spikes(data, variance, good, predicted, lsf_sigma=line)
    assert spikes.sum() <= 1
    # A ray of one column beside the line is found all the same.
    data[7, 150] += 20 * np.sqrt(data[7, 150] + 25)
    predicted = 100 + smooth_source(data - 100, np.sqrt(variance), good, lsf_sigma=line)[0]
    assert find_spikes(data, variance, good, predicted, lsf_sigma=line)[7, 150]


def test_unusable_samples_are_no_spikes():
    rng = np.random.default_rng(88)
    data, variance, predicted = samples(rng)
    data[3, 50] += 1000
    good = np.ones(data.shape, bool)
    good[3, 50] = False
    assert not find_spikes(data, variance, good, predicted).any()


def test_pixels_under_a_spike(scene):
    trace, amplitude, light = scene
    image = expose(np.random.default_rng(89), light)
    middle = int(round(trace[8, 120]))
    image[middle - 1 : middle + 1, 120] += 900
    spikes = np.zeros((NF, NX), bool)
    spikes[8, 120] = True
    model = fiber_model(trace)
    hit = mask_spikes(spikes, image, light, np.full(light.shape, 9.0), np.zeros(light.shape), model)
    assert hit[middle - 1 : middle + 1, 120].all()
    assert hit.sum() <= 3
    assert not mask_spikes(
        np.zeros_like(spikes), image, light, np.full(light.shape, 9.0), np.zeros(light.shape), model
    ).any()


def test_source_light_is_continuum_and_lines_but_not_noise_nor_spikes():
    rng = np.random.default_rng(90)
    x = np.arange(NX)
    sigma = np.full((NF, NX), 5.0)
    truth = np.zeros((NF, NX))
    truth[4] = 80 + 20 * np.sin(x / 80.0)
    truth[9] = 600 * pixel_gaussian(x, np.array(180.3), np.array(1.9))
    rest = truth + sigma * rng.normal(size=truth.shape)
    rest[20, 300] += 2000
    found = smooth_source(rest, sigma, np.ones(rest.shape, bool))[0]
    assert np.abs(found - truth)[4, 25:-25].mean() < 2.0
    assert found[9, 178:183].max() > 0.5 * truth[9].max()
    assert np.abs(found[20, 295:306]).max() < 10
    assert np.std(found[25:]) < 0.5 * 5.0


def test_light_in_a_single_fibre_is_no_line_of_an_object():
    """Tracks along dispersion are found; lines of sharp images, anywhere in the field and at its edge, are not touched."""
    positions = channel("orange").fiber_positions()
    nf, nx = positions.shape[0], 400
    rng = np.random.default_rng(77)
    shift = rng.uniform(-6, 6, (nf, 1))  # columns by which fibres side by side differ
    wave = 6000.0 + np.arange(nx)[None, :] + shift
    beside = field_neighbours(positions, np.ones(nf, bool))
    assert np.median((beside >= 0).sum(axis=1)) == 6
    light = np.zeros((nf, nx))
    lines = [(0.1, 0.2, 6050.0), (1.7, -1.1, 6120.0), (-5.2, 2.6, 6200.0), (3.3, 3.0, 6290.0)]
    for x, y, center in lines:
        share = lenslet_fractions(positions, np.array([x]), np.array([y]), np.array([0.9]), 3.5)[0]
        light += 2000.0 * share[:, None] * np.exp(-0.5 * ((wave - center) / 1.9) ** 2)
    sigma = np.full((nf, nx), 10.0)
    excess = light + sigma * rng.normal(size=light.shape)
    track = np.zeros((nf, nx), bool)
    for f, at in ((40, 100), (140, 220), (201, 330), (279, 40)):
        track[f, at : at + 4] = True
    excess[track] += 120.0
    found = find_lonely(excess, sigma, np.zeros_like(light), np.ones_like(track), wave, beside)
    assert found[track].mean() > 0.9
    assert not found[~track & (light > 20.0)].any()
    assert found[~track].sum() <= 2
