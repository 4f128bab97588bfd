"""Width of the fibres' profiles in a science frame, told from the levels of the rows that a wrong one would make."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import SIGMA, expose, fiber_model, nothing, paint, read_noise, traces

from panacea_nb.instrument import AMP_ROWS
from panacea_nb.reduce.extract import extract
from panacea_nb.reduce.focus import focused_levels

NF, NX, NY = 280, 320, 2 * AMP_ROWS
WANDER = np.array([[0.1, 0.1, 30.0]] * 2)


def found(width: float, sky: float, seed: int, star: float = 0.0):
    """Levels, model, change and its error of a frame whose profiles are ``width`` times as wide; true levels and light."""
    rng = np.random.default_rng(seed)
    trace = traces(NF, NX, first=30.0)
    light = np.full((NF, NX), sky)
    light[100:103] += star * np.array([0.3, 1.0, 0.3])[:, None]
    level = 0.14 * rng.normal(size=(NY, 1)) + np.repeat([3.0, -2.0], AMP_ROWS)[:, None]
    image = (expose(rng, paint(trace, light, NY, width * SIGMA)) + level).astype(np.float32)
    model = fiber_model(trace)
    given = image, read_noise(image), nothing(image)
    rough = extract(*given, model)
    return focused_levels(*given, model, rough.amplitude, rough.model, WANDER), level, light, given


@pytest.mark.parametrize(("width", "star"), [(1.02, 0.0), (0.98, 0.0), (1.02, 8000.0)])
def test_width_and_levels_are_found_together(width, star):
    """A sky of 100 e- per sample, with and without a bright star: half of the levels' error would be 3 e- per sample."""
    (levels, model, change, error), level, light, (image, noise, bad) = found(width, 100.0, 3, star)
    assert change == pytest.approx(width - 1, abs=max(4 * error, 0.002))
    assert error < 0.004
    assert abs(np.mean(levels - level)) < 0.06
    amplitude = extract(image - levels, noise, bad, model).amplitude
    sky = np.ones(NF, bool)
    sky[90:115] = False
    assert np.mean((amplitude - light)[sky]) == pytest.approx(0.0, abs=0.6)


def test_nothing_is_changed_where_nothing_changed():
    """Neither in a faint frame, of which the rows' wander could be anything, nor in a bright one; the error is the scatter."""
    for sky in (3.0, 10.0, 100.0):
        for seed in range(4):
            (_, model, change, error), *_ = found(1.0, sky, seed)
            assert (change, error > 0) == (0.0, True), (sky, seed)
            assert np.array_equal(model.coef, fiber_model(model.trace).coef)


def test_a_frame_without_light_says_nothing():
    (levels, _, change, _), level, *_ = found(1.03, 0.0, 5)
    assert change == 0.0
    assert abs(np.mean(levels - level)) < 0.1
