"""Shift of a frame's fibres against the calibrations, from the frame itself."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import READ_NOISE, expose, fiber_model, nothing, paint, read_noise, rows_of, traces

from panacea_nb.reduce.flexure import row_flexure

NF, NX = 40, 430


@pytest.fixture(scope="module")
def trace():
    groups = np.repeat([0.0, 14.0], NF // 2)[:, None]
    return traces(NF, NX, first=20.0) + groups


def moved(trace, terms, level, rng, background=0.0):
    """A frame whose fibres lie off the traces by the surface of ``terms``, and that surface."""
    f, x = np.linspace(-1, 1, NF)[:, None], np.linspace(-1, 1, NX)[None, :]
    shift = terms[0] + terms[1] * x + terms[2] * f + terms[3] * f * x
    light = level * (1 + 4 * (np.arange(NX) % 50 == 25)) * np.where(np.arange(NF) % 7 == 3, 3.0, 1.0)[:, None]
    image = paint(trace + shift, light, rows_of(trace) + 3) + background
    return (expose(rng, image) if rng is not None else image.astype(np.float32)), shift, light


def run(image, trace, alive=None, background=None):
    back = np.zeros_like(image) if background is None else background
    return row_flexure(image, read_noise(image), nothing(image), fiber_model(trace, alive), back)


@pytest.mark.parametrize("shift", [0.25, -0.3, 0.9])
def test_constant_shift_to_five_thousandths_of_a_pixel(trace, shift):
    rng = np.random.default_rng(61)
    image, _, light = moved(trace, (shift, 0, 0, 0), 300.0, rng)
    flexure, model, result = run(image, trace)
    assert flexure.converged
    assert flexure.coef[0] == pytest.approx(shift, abs=0.005)
    assert abs(flexure.coef[0] - shift) < 4 * flexure.error[0]
    assert np.abs(model.trace - trace - shift).max() < 0.015
    pull = (result.amplitude - light) / np.sqrt(result.variance)
    assert abs(pull.mean()) < 0.1
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)


def test_slopes_along_columns_and_fibres(trace):
    rng = np.random.default_rng(62)
    terms = (0.15, -0.10, 0.06, 0.03)
    image, shift, _ = moved(trace, terms, 1000.0, rng)
    flexure, model, _ = run(image, trace)
    assert flexure.converged
    assert np.abs(model.trace - trace - shift).max() < 0.012
    assert np.abs(flexure.surface(NF, NX) - shift).max() < 0.012
    assert flexure.coef == pytest.approx(terms, abs=0.006)
    assert abs(np.average(flexure.measured, weights=flexure.weight)) < 0.003


def test_error_is_the_scatter_of_the_shift(trace):
    rng = np.random.default_rng(63)
    found = [run(moved(trace, (0.1, 0, 0, 0), 150.0, rng)[0], trace)[0] for _ in range(16)]
    scatter = np.std([f.coef[0] for f in found], ddof=1)
    assert scatter == pytest.approx(np.mean([f.error[0] for f in found]), rel=0.5)
    assert np.mean([f.coef[0] for f in found]) == pytest.approx(0.1, abs=4 * scatter / 4)


def test_faint_frame_gets_a_constant_only(trace):
    """Slopes that noise alone would give are left out."""
    rng = np.random.default_rng(64)
    flexure, model, _ = run(moved(trace, (0.2, 0, 0, 0), 25.0, rng)[0], trace)
    assert flexure.coef[0] == pytest.approx(0.2, abs=max(0.03, 4 * float(flexure.error[0])))
    assert np.abs(flexure.coef[1:]).max() < 5 * flexure.error[1:].max()
    assert np.ptp(model.trace - trace) < 0.15


def test_dark_frame_stays_where_it_is(trace):
    """Nothing but read noise: no shift may be made up of it."""
    rng = np.random.default_rng(65)
    image = rng.normal(0, READ_NOISE, (rows_of(trace) + 3, NX)).astype(np.float32)
    flexure, model, _ = run(image, trace)
    assert np.abs(model.trace - trace).max() < 1.0
    assert flexure.error[0] > 0.02


def test_scattered_light_given_is_taken_out(trace):
    rng = np.random.default_rng(66)
    rows = np.arange(rows_of(trace) + 3)[:, None]
    under = (30.0 + 0.1 * rows) * np.ones(NX)
    image, _, _ = moved(trace, (0.2, 0, 0, 0), 300.0, rng, under)
    flexure, _, _ = run(image, trace, background=under.astype(np.float32))
    assert flexure.coef[0] == pytest.approx(0.2, abs=0.006)


def test_dead_fibres_take_no_part(trace):
    rng = np.random.default_rng(67)
    image, _, _ = moved(trace, (0.2, 0, 0, 0), 300.0, rng)
    alive = np.ones(NF, bool)
    alive[[5, 20]] = False
    flexure, _, result = run(image, trace, alive)
    assert not flexure.weight[~alive].any()
    assert not result.amplitude[~alive].any()


def test_hit_pixels_do_not_pull(trace):
    rng = np.random.default_rng(68)
    image, _, _ = moved(trace, (0.1, 0, 0, 0), 300.0, rng)
    rows, columns = rng.integers(0, image.shape[0], 400), rng.integers(0, NX, 400)
    image[rows, columns] += 5000
    bad = nothing(image)
    bad[rows, columns] = True
    flexure, _, _ = row_flexure(image, read_noise(image), bad, fiber_model(trace), np.zeros_like(image))
    assert flexure.coef[0] == pytest.approx(0.1, abs=0.006)
