"""Light that a bright star scatters over the chip beside what the twilight tells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from panacea_nb.instrument import channel
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.stray import STEP, spread, stray_decision, stray_light

POSITIONS = channel("orange").fiber_positions()
NF, NX = POSITIONS.shape[0], 640
PITCH = 6.8
ROWS = 30.0 + PITCH * np.arange(NF) + 20.0 * (np.arange(NF) >= NF // 2)  # px
SKY = np.broadcast_to(8.0 + 3.0 * np.sin(np.arange(NX) / 17.0), (NF, NX))
# off the middle, so that a reflection does not fall on the star itself
SHARE = lenslet_fractions(POSITIONS, np.full(1, 1.2), np.full(1, -1.6), np.array([1.6]), 3.2)[0][:, None]
STAR = 1.0e5 * SHARE * np.linspace(0.6, 1.4, NX)  # e- per column
BLANK = SHARE[:, 0] < np.sort(SHARE[:, 0])[60]


def on_chip(light: np.ndarray, sigma: float) -> np.ndarray:
    """What a row of each fibre's pitch gets of the fibres' light, laid on a chip of pixels and blurred there."""
    ny = int(ROWS[-1] + 31)
    image = np.zeros((ny, NX))
    image[np.round(ROWS).astype(int)] = light
    return PITCH * gaussian_filter(image, sigma, mode="constant")[np.round(ROWS).astype(int)]


def frame(stray, seed=900, noise=9.0):
    rng = np.random.default_rng(seed)
    variance = SKY + STAR + noise
    levels = 0.01 * SKY * rng.normal(size=(NF, 1))
    return stray + levels + np.sqrt(variance) * rng.normal(size=SKY.shape), variance


def measured(rest, variance, source=STAR):
    return stray_light(rest, variance, np.ones(rest.shape, bool), source, SKY, ROWS, POSITIONS)


def share_of_sky(values, fibers):
    return values[fibers].sum(axis=1) / SKY[fibers].sum(axis=1)


def test_light_is_spread_over_the_chip_by_its_distance_in_pixels():
    light = np.zeros((NF, NX // STEP))
    light[100, 10] = 1.0
    found = spread(light, ROWS, 100.0)
    assert found.sum() * STEP == pytest.approx(STEP, rel=0.03)  # all of it, but for the gap between the halves
    assert found[100 + 14].sum() / found[100].sum() == pytest.approx(np.exp(-0.5 * (14 * PITCH / 100.0) ** 2), rel=1e-6)
    assert found[NF // 2].sum() / found[100].sum() == pytest.approx(
        np.exp(-0.5 * ((40 * PITCH + 20) / 100.0) ** 2), rel=1e-6
    )


@pytest.mark.parametrize("sigma", [40.0, 130.0])
def test_what_the_twilight_did_not_tell_is_found(sigma):
    """0.3 % more of the star's light in a halo of a width that is none of those that are fitted: a tenth of it is left."""
    true = 0.003 * on_chip(STAR, sigma)
    rest, variance = frame(true)
    beside = BLANK & (true.mean(axis=1) > 0.3 * true[BLANK].mean(axis=1).max())
    before = share_of_sky(true, beside)
    # what all have in common is the sky's
    left = share_of_sky(true - measured(rest, variance), BLANK)
    assert before.mean() > 0.03
    assert np.std(left) < 0.2 * np.std(share_of_sky(true, BLANK))


def test_a_reflection_is_found():
    """A ghost turned about the chip's middle, moved by three fibres and wider than the one that is fitted."""
    light = np.roll(STAR[::-1, ::-1], 3, axis=0)
    true = 0.002 * on_chip(light, 120.0)
    rest, variance = frame(true, 901)
    left = share_of_sky(true - measured(rest, variance), BLANK)
    assert np.std(left) < 0.3 * np.std(share_of_sky(true, BLANK))


def test_where_nothing_is_left_little_is_taken_off():
    rest, variance = frame(0.0, 902)
    found = share_of_sky(measured(rest, variance), BLANK)
    assert np.std(found) < 0.004
    assert np.abs(found).max() < 0.016  # beside the star


def test_an_error_of_the_sky_is_not_taken_for_it():
    """A sky that is 3 % too bright, of another colour, and tilts over the field along the order of the fibres on the chip."""
    tilt = 0.03 * (POSITIONS[:, 1:] / 3.5)
    wrong = SKY * (0.03 + 0.02 * np.linspace(-1, 1, NX) + tilt)
    rest, variance = frame(wrong, 903)
    assert np.abs(share_of_sky(measured(rest, variance), BLANK)).max() < 0.012


def test_wrong_wings_of_the_source_are_no_scattered_light():
    """Wings by a tenth too bright: they follow the field, where neighbours on the chip are rows apart."""
    rest, variance = frame(-0.1 * np.where(STAR < SKY, STAR, 0.0), 904)
    assert np.std(share_of_sky(measured(rest, variance), BLANK)) < 0.01


def test_what_the_model_of_the_image_misses_is_no_scattered_light():
    """The star's own fibres hold 3 % more than its model: only those without it are looked at."""
    rest, variance = frame(0.03 * np.where(STAR > SKY, STAR, 0.0), 906)
    assert np.std(share_of_sky(measured(rest, variance), BLANK)) < 0.01


def test_a_faint_source_scatters_nothing_that_matters():
    rest, variance = frame(0.0, 905)
    assert measured(rest, variance, STAR * 0.5 * SKY.sum() / STAR.sum()) is None


def test_a_frame_without_a_usable_fibre_has_none():
    found = stray_light(SKY * 0.0, SKY + 9.0, np.zeros(SKY.shape, bool), STAR, SKY, ROWS, POSITIONS)
    assert np.all(found == 0.0)


def test_what_is_said_of_it():
    stray = np.where(np.arange(NF)[:, None] == 3, 0.05 * SKY, 0.0)
    said = stray_decision(stray, SKY)
    assert (said.code, said.severity) == ("STRAYLIGHT", "info")
    assert "up to 5 % of the sky" in said.text
