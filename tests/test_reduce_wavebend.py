"""What sky lines show of wavelengths where the arcs have no lines."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.polynomial import legendre
from reduce_factory import wavelengths

from panacea_nb.instrument import channel
from panacea_nb.reduce.spline import fit_common
from panacea_nb.reduce.wavebend import LineShifts, smooth_bend
from panacea_nb.reduce.wavezero import corrected_wavelength, zero_from_lines

FACTS = channel("farred")
STEP = (FACTS.wave_max - FACTS.wave_min) / 2064
ARCS = np.array([8265.0, 8408.0, 8521.0, 9123.0, 9657.8, 10139.8])  # the last at two thirds of the channel


def polynomial_beside(arcs: np.ndarray, terms: tuple[float, ...], places: np.ndarray) -> np.ndarray:
    """What a cubic through arc lines at places ``arcs`` leaves [px] of Legendre terms of degree 4 and 5."""
    truth = np.array([0, 0, 0, 0, *terms])
    fit = legendre.legfit(arcs, legendre.legval(arcs, truth), 3)
    return legendre.legval(places, fit) - legendre.legval(places, truth)


def sky_with(offset, *, peak=60.0, seed=3) -> tuple[SimpleNamespace, np.ndarray, np.ndarray]:
    """A night sky in 40 fibres whose map is too large by ``offset(z)`` [px]; the true map, the listed lines."""
    wave = wavelengths(40, 2064, FACTS.wave_min, STEP, 4.0)
    lines = FACTS.sky_lines()
    lines = lines[(lines > FACTS.wave_min) & (lines < FACTS.wave_max)]
    rng = np.random.default_rng(seed)
    light = np.full(wave.shape, 3.0)
    for line, flux in zip(lines, peak * rng.lognormal(0, 1, lines.size), strict=True):
        light = light + flux * np.exp(-0.5 * ((wave - line) / (1.9 * STEP)) ** 2)
    variance = light + 40
    data = (light + np.sqrt(variance) * rng.normal(size=light.shape)) / STEP
    z = 2 * (wave - FACTS.wave_min) / (FACTS.wave_max - FACTS.wave_min) - 1
    wrong = wave + offset(z) * STEP
    spectrum = fit_common(wrong, data, STEP**2 / variance, step=STEP, factor=1.0, extra=0.0)
    return SimpleNamespace(spectrum=spectrum, wavelength=wrong), wave, lines


def test_sky_lines_correct_a_polynomial_beyond_its_arc_lines():
    """The last arc line lies at two thirds of the channel; terms of degree 4 and 5 make 0.7 px at its end."""
    at = 2 * (ARCS - FACTS.wave_min) / (FACTS.wave_max - FACTS.wave_min) - 1
    sky, right, lines = sky_with(lambda z: 0.15 + polynomial_beside(at, (0.35, -0.15), z))
    before = (sky.wavelength - right) / STEP
    assert np.abs(before).max() > 0.5
    zero = zero_from_lines(sky, lines, 1.9 * STEP, arcs=np.array([ARCS, polynomial_beside(at, (0.35, -0.15), at)]))
    assert zero.used
    assert zero.bend.size
    left = ((corrected_wavelength(sky, zero) - right) / STEP)[:, 20:-20]
    assert np.abs(left).max() < 0.1
    assert np.sqrt(np.mean(left**2)) < 0.02


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_no_bend_where_there_is_none(seed):
    sky, right, lines = sky_with(lambda z: 0.15 + 0.02 * z, seed=seed)
    zero = zero_from_lines(sky, lines, 1.9 * STEP, arcs=np.array([ARCS, np.zeros(ARCS.size)]))
    assert not zero.bend.size
    assert np.abs(np.mean(corrected_wavelength(sky, zero) - right)) < 0.01 * STEP


def test_many_arc_lines_are_believed_more_than_a_list_of_sky_lines():
    """Lines of the sky that are listed off their place, all the more towards an end, bend nothing that arc lines hold."""
    place = np.linspace(-0.95, 0.95, 40)
    shifts = LineShifts(place, 1.5 * place**2 + 0.02 * np.random.default_rng(1).normal(size=40), np.full(40, 0.005))
    assert not smooth_bend(shifts, np.linspace(-1, 1, 19), np.zeros(19), 1.0, np.zeros(0)).size
    free = smooth_bend(shifts, np.linspace(-1, -0.2, 4), np.zeros(4), 1.0, np.zeros(0))
    left, middle, right = legendre.legval([-0.95, 0.0, 0.95], free)
    assert left + right - 2 * middle == pytest.approx(2 * 1.5 * 0.95**2, abs=0.15)
    small = LineShifts(place, 0.15 * shifts.shift, shifts.error)
    assert not smooth_bend(small, np.linspace(-1, -0.2, 4), np.zeros(4), 1.0, np.zeros(0)).size
