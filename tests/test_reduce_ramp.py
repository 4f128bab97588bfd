"""Levels of the amplifiers along their rows, told from the pixels that fibres share the least."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import expose, fiber_model, nothing, paint, read_noise, rows_of, traces

from panacea_nb.reduce.extract import extract
from panacea_nb.reduce.ramp import amplifier_ramps, level_shares, ramp_decision

NF, NX = 100, 2064
X = np.linspace(-1, 1, NX)
LIGHT = 60.0 * (1 + 0.4 * X)  # e- per column and fibre: eight per pixel, as in a dark sky


def frame(seed: int, amplitude: np.ndarray, ramps: np.ndarray | None = None, widening: np.ndarray | float = 0.0):
    """(image, what the fibres make of it, model): fibres on two amplifiers with levels of their own, (2, NX)."""
    trace = traces(NF, NX, bend=4.0)
    ny = rows_of(trace) // 2 * 2
    light = paint(trace, amplitude, ny)
    image = light
    if np.any(widening):  # the second derivative of the light is what a little blur adds
        image = light + widening * np.pad(np.diff(light, 2, axis=0), ((1, 1), (0, 0)))
    image = expose(np.random.default_rng(seed), np.maximum(image, 0))
    if ramps is not None:
        image = image + np.repeat(ramps, ny // 2, axis=0).astype(np.float32)
    return image, light.astype(np.float32), fiber_model(trace)


def test_ramps_of_both_amplifiers_are_measured():
    """A line of 0.3 e- per pixel in one, a parabola in the other: within 0.05 e-, and the fibres keep their light."""
    ramps = np.array([0.3 * X, 0.25 * (X**2 - 1 / 3)])
    image, light, model = frame(900, LIGHT, ramps)
    noise, bad = read_noise(image), nothing(image)
    found = amplifier_ramps(image, noise, bad, model, light, np.zeros((2, 16)))
    assert np.abs(found - ramps)[:, 30:-30].max() < 0.06
    halves = np.arange(NF) < NF // 2

    def uneven(image):
        """Difference between the halves of the slit at the left end, over the light."""
        amplitude = extract(image, noise, bad, model, start=light).amplitude[:, :400].mean(axis=1)
        return (amplitude[halves].mean() - amplitude[~halves].mean()) / LIGHT[:400].mean()

    assert abs(uneven(image)) > 0.05
    assert abs(uneven(image - np.repeat(found, image.shape[0] // 2, axis=0))) < 0.01


def test_an_amplifier_without_ramp_is_left_alone():
    image, light, model = frame(901, LIGHT)
    assert amplifier_ramps(image, read_noise(image), nothing(image), model, light, np.zeros((2, 16))) is None


def test_errors_of_the_profiles_are_no_ramp():
    """Profiles a little wider at one end of the chip than the model has them: the same in the flat, which tells it."""
    widening = 0.03 * X
    flat, lit, model = frame(902, 3000.0 * np.ones(NX), widening=widening)
    noise, bad = read_noise(flat), nothing(flat)
    shares = level_shares(flat, noise, bad, model, lit)
    assert np.ptp(shares) > 0.02
    image, light, _ = frame(903, LIGHT, widening=widening)
    wrong = amplifier_ramps(image, noise, bad, model, light, np.zeros((2, shares.shape[1])))
    right = amplifier_ramps(image, noise, bad, model, light, shares)
    assert np.abs(wrong).max() > 0.08
    assert right is None or np.abs(right).max() < 0.05
    # Nothing is known of the profiles without a flat: a ramp must be larger than what they may be wrong by.
    assert amplifier_ramps(image, noise, bad, model, light) is None


def test_a_star_is_no_ramp():
    """What the profiles of a star of a thousand times the sky leave is not like what a flat leaves."""
    amplitude = LIGHT * np.ones((NF, 1))
    amplitude[30:34] += 40000.0 * (1 - 0.5 * X)
    flat, lit, model = frame(904, 3000.0 * np.ones(NX), widening=0.03 * X)
    shares = level_shares(flat, read_noise(flat), nothing(flat), model, lit)
    image, light, _ = frame(905, amplitude, widening=0.03 * X)
    found = amplifier_ramps(image, read_noise(image), nothing(image), model, light, shares)
    assert found is None or np.abs(found).max() < 0.06


@pytest.mark.parametrize(("worst", "told"), [(0.1, 0), (0.4, 1)])
def test_large_ramps_are_told(worst, told):
    assert len(ramp_decision(np.array([worst * X, 0 * X]))) == told
