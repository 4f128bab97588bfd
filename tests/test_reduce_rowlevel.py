"""Levels of the detector's rows under the fibres: told from the fibres' light, for faint light and beside bright light."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import expose, fiber_model, nothing, paint, read_noise, rows_of, traces

from panacea_nb.reduce.extract import extract
from panacea_nb.reduce.rowlevel import row_levels

NF, NX = 40, 2064
WANDER = np.array([[0.25, 0.4, 60.0]] * 2)  # about that of `frame`


def frame(amplitude: float | np.ndarray, seed: int, bend: float = 4.0):
    """(image, light, levels, model): faint fibres on rows of wandering level."""
    rng = np.random.default_rng(seed)
    trace = traces(NF, NX, bend=bend)
    ny = rows_of(trace)
    light = paint(trace, amplitude, ny)
    levels = 0.25 * rng.standard_normal((ny, 1)) + np.cumsum(0.05 * rng.standard_normal(ny))[:, None] + 0.4
    return expose(rng, light) + levels.astype(np.float32), light.astype(np.float32), levels, fiber_model(trace)


def test_levels_of_rows_are_measured_under_faint_fibers():
    image, light, levels, model = frame(20.0, 700)
    found = row_levels(image, read_noise(image), nothing(image), model, light, WANDER)
    # Read noise of half the columns alone leaves 0.1 e-; the levels scatter by 0.4 e-.
    assert np.std(levels) > 0.3
    assert np.std(found - levels) < 0.16
    assert np.mean(found - levels) == pytest.approx(0.0, abs=0.04)


def test_fibers_keep_their_light_and_lose_the_levels():
    image, light, levels, model = frame(20.0, 701)
    noise, bad = read_noise(image), nothing(image)
    before = extract(image, noise, bad, model, start=light).amplitude.mean(axis=1) - 20.0
    found = row_levels(image, noise, bad, model, light, WANDER)
    after = extract(image - found, noise, bad, model, start=light).amplitude.mean(axis=1) - 20.0
    assert abs(before.mean()) > 1.0
    assert abs(after.mean()) < 0.35
    assert np.std(after) < 0.6 * np.std(before)


def test_a_common_level_is_found_under_bright_sky_too():
    image, light, levels, model = frame(600.0, 705)
    found = row_levels(image - levels + 2.0, read_noise(image), nothing(image), model, light, WANDER)
    assert np.median(found) == pytest.approx(2.0, abs=0.1)


def test_frame_without_levels_is_left_alone_and_straight_traces_are_no_trouble():
    image, light, levels, model = frame(20.0, 702, bend=0.0)
    found = row_levels(image - levels, read_noise(image), nothing(image), model, light, WANDER)
    assert np.std(found) < 0.15
    assert np.mean(found) == pytest.approx(0.0, abs=0.05)


def test_profile_errors_of_bright_fibers_are_not_taken_for_levels():
    amplitude = np.full((NF, 1), 20.0)
    amplitude[20] = 20000.0
    image, light, levels, model = frame(amplitude, 703)
    wrong = fiber_model(model.trace, fwhm=4.04)  # one per cent too wide
    found = row_levels(image, read_noise(image), nothing(image), wrong, light, WANDER)
    assert np.abs(found).max() < 3.0
    row = int(model.trace[20].mean())
    beside = np.r_[0 : row - 20, row + 20 : image.shape[0]]
    assert np.std((found - levels)[beside]) < 0.15


def test_masked_pixels_and_rows_have_no_say():
    image, light, levels, model = frame(20.0, 704)
    bad = nothing(image)
    bad[50], bad[60, :1000] = True, True
    image[50], image[60, :1000] = 1e5, 1e5
    found = row_levels(image, read_noise(image), bad, model, light, WANDER)
    assert found[50, 0] == pytest.approx(found.mean(), abs=0.25)  # nothing is known of it: the level of its amplifier
    assert np.std(np.delete(found - levels, 50)) < 0.16


def test_rows_that_do_not_wander_get_no_noise():
    image, light, levels, model = frame(20.0, 706)
    image = image - levels + np.where(np.arange(image.shape[0]) < image.shape[0] // 2, 0.3, -0.2)[:, None]
    found = row_levels(image.astype(np.float32), read_noise(image), nothing(image), model, light, np.zeros((2, 3)))
    halves = found[: found.size // 2, 0], found[found.size // 2 :, 0]
    assert max(np.std(half) for half in halves) < 0.01
    assert [half.mean() for half in halves] == pytest.approx([0.3, -0.2], abs=0.08)
