"""Traces, profiles, dead fibres and scattered light of a made-up flat with the pattern of fibres of a real channel."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import SIGMA, expose, fiber_model, nothing, paint, read_noise, robust, rows_of, traces
from scipy.ndimage import gaussian_filter

from panacea_nb.instrument import AMP_ROWS, N_AMP_FIBERS, N_FIBERS, channel
from panacea_nb.reduce import trace as module
from panacea_nb.reduce.extract import extract, flux_scale, spline_basis
from panacea_nb.reduce.scatter import (
    SCATTER_SIGMAS,
    ScatterModel,
    binned,
    blurred,
    fit_scatter,
    gap_pixels,
    scattered_light,
)
from panacea_nb.reduce.trace import TraceError, find_dead, fit_traces, sharp_pixels

NY, NX = 2 * AMP_ROWS, 480
OFFSET = (2.3, -1.7)  # px, of the two amplifiers against the reference
KNOWN_DEAD, STALE_DEAD, NEW_DEAD = 40, 90, 200
SCATTER = ((40.0, 0.01), (250.0, 0.03))  # sigma [px], share of the fibres' light


@pytest.fixture(scope="module")
def reference():
    rows, _ = channel("orange").fiber_locations("20250101")
    dead = np.zeros(N_FIBERS, bool)
    dead[[KNOWN_DEAD, STALE_DEAD]] = True
    return rows, dead


@pytest.fixture(scope="module")
def truth(reference):
    """Traces, widths and light of the made-up flat."""
    rng = np.random.default_rng(21)
    x = np.linspace(-1, 1, NX)[None, :]
    f = np.linspace(-1, 1, N_FIBERS)[:, None]
    middle = reference[0] + np.repeat(OFFSET, N_AMP_FIBERS)
    trace = middle[:, None] + (2.0 + 0.8 * f) * x**2 - 1.3 * x + 0.2 * np.sin(3 * x + f)
    trace = trace - (trace[:, NX // 2] - middle)[:, None]
    light = 9000 * rng.uniform(0.85, 1.1, (N_FIBERS, 1)) * (1 + 0.2 * x)
    light[[KNOWN_DEAD, NEW_DEAD]] *= 0.02
    sigma = SIGMA * (1 + 0.03 * f[:, 0] ** 2) * (1 + 0.01 * rng.normal(size=N_FIBERS))
    return trace, light, sigma


@pytest.fixture(scope="module")
def flat(truth):
    trace, light, sigma = truth
    fibers = paint(trace, light, NY, sigma)
    under = sum(w * gaussian_filter(fibers, s, mode="constant", truncate=3.5) for s, w in SCATTER)
    return fibers, under, expose(np.random.default_rng(22), fibers + under)


@pytest.fixture(scope="module")
def result(flat, reference):
    bad = nothing(flat[2])
    bad[:, 100] = True
    image = flat[2].copy()
    image[bad] = 60000
    return module.trace_fibers(image, read_noise(image), bad, *reference)


def test_traces_within_a_hundredth_of_a_pixel(result, truth):
    alive = ~result.dead
    error = (result.model.trace - truth[0])[alive]
    assert np.sqrt(np.mean(error**2)) < 0.008
    assert np.abs(error[:, 24:-24]).max() < 0.03
    assert abs(error.mean()) < 0.003
    assert np.abs(error.mean(axis=1)).max() < 0.015
    assert robust(error.mean(axis=1)) < 0.004


def test_dead_fibres_get_the_traces_of_their_neighbours(result, truth):
    error = (result.model.trace - truth[0])[[KNOWN_DEAD, NEW_DEAD]]
    assert np.abs(error).max() < 0.35


def test_dead_fibres_are_those_without_light(result):
    assert set(np.flatnonzero(result.dead)) == {KNOWN_DEAD, NEW_DEAD}
    assert not result.model.alive[[KNOWN_DEAD, NEW_DEAD]].any()
    assert result.model.alive.sum() == N_FIBERS - 2


def test_pattern_and_offset(result):
    assert result.offset == pytest.approx(OFFSET, abs=0.5)
    assert result.match > 0.6
    assert result.match > 1.05 * result.runner_up


def test_profile_is_that_of_the_flat(result, truth):
    """The profile's shape, its sum of one, and K."""
    trace, _, sigma = truth
    u = np.linspace(-6, 6, 121)
    for f in (3, 139, 141, 250):
        made = spline_basis(u) @ result.model.coef[f, 15]
        exact = np.exp(-0.5 * (u / sigma[f]) ** 2) / (np.sqrt(2 * np.pi) * sigma[f])
        assert np.abs(made - exact).max() < 0.005 * exact.max() + 0.001
    r = (trace - np.floor(trace))[~result.dead]
    s = sigma[~result.dead][:, None]
    centre = (np.exp(-0.5 * (r / s) ** 2) + np.exp(-0.5 * ((1 - r) / s) ** 2)) / (2 * np.sqrt(2 * np.pi) * s)
    assert flux_scale(result.model) == pytest.approx(1 / centre.mean(), rel=0.005)


def test_relative_widths_of_fibres(result, truth):
    alive = ~result.dead
    smooth = SIGMA * (1 + 0.03 * np.linspace(-1, 1, N_FIBERS) ** 2)
    own = (truth[2] / smooth)[alive]
    assert np.corrcoef(result.widths[alive], own)[0, 1] > 0.9
    assert np.std(result.widths[alive] - own) < 0.005


def test_scattered_light(result, flat):
    """Its level between the fibres within 3 %, and where the fibres are within 8 % of it."""
    _, under, _ = flat
    gap = gap_pixels(result.model, NY)
    assert result.background[gap].mean() == pytest.approx(under[gap].mean(), rel=0.03)
    inside = (slice(60, -60), slice(20, -20))
    assert np.abs(result.background[inside] / under[inside] - 1).max() < 0.2
    assert (result.background[inside] / under[inside]).mean() == pytest.approx(1.0, abs=0.05)


def test_light_is_recovered(result, truth):
    alive = ~result.dead
    ratio = (result.extraction.amplitude / truth[1])[alive]
    used = np.ones(NX, bool)
    used[100] = False
    assert np.median(ratio[:, used]) == pytest.approx(1.0, abs=0.004)
    assert np.abs(np.median(ratio[:, used], axis=1) - 1).max() < 0.012
    assert not result.extraction.amplitude[:, 100].any()


def test_steep_traces_are_measured_where_they_lie():
    """Half a column between the middle of a block and the column at which its trace is read would show at this slope."""
    nx = 480
    groups = np.repeat([0.0, 20.0, 40.0], 10)[:, None]
    trace = traces(30, nx, first=30.0, bend=12.0) + groups
    light = np.random.default_rng(5).uniform(10000, 30000, (30, 1))
    image = paint(trace, light, rows_of(trace)).astype(np.float32)
    state = module._State(fiber_model(trace), np.ones(30), np.zeros(30))
    for stride in (4, 1):
        clean = module._thinned(image, read_noise(image), nothing(image), stride)
        state = module._improve(state, *clean, stride, 9, np.zeros(30, bool), trace[:, nx // 2])
        assert np.abs(state.model.trace - trace).max() < 0.005


def test_empty_frame_is_refused(reference):
    rng = np.random.default_rng(23)
    image = rng.normal(0, 3, (NY, NX)).astype(np.float32)
    with pytest.raises(TraceError, match="were not recognised"):
        module.trace_fibers(image, read_noise(image), nothing(image), *reference)


def test_a_fibre_too_many_is_noticed(flat, reference, truth):
    """One row of fibres off, the pattern fits less well than where it belongs."""
    rows, dead = reference
    profile = np.median(flat[2][:, 228:252], axis=1).astype(float)
    shift, match, other = module._match_amplifier(profile, rows[:N_AMP_FIBERS], dead[:N_AMP_FIBERS], 0)
    assert shift == pytest.approx(OFFSET[0], abs=0.5)
    assert other < 0.97 * match


def test_polynomials_through_centres_with_gaps_and_outliers():
    rng = np.random.default_rng(24)
    nx, nf = 960, 20
    columns = np.arange(12, nx, 24.0)
    x = 2 * columns / (nx - 1) - 1
    exact = 7.0 * np.arange(nf)[:, None] + 2 * x**2 - x**3 + 0.1 * x**5
    centres = exact + 0.01 * rng.normal(size=exact.shape)
    centres[3, 5] += 2.0
    centres[8, 10:20] = np.nan
    centres[12] = np.nan
    dead = np.zeros(nf, bool)
    dead[12] = True
    reference = 7.0 * np.arange(nf)
    fitted, residual = fit_traces(columns, centres, np.isfinite(centres).astype(float), nx, dead, reference)
    assert fitted.shape == (nf, nx)
    z = 2 * np.arange(nx) / (nx - 1) - 1
    full = 7.0 * np.arange(nf)[:, None] + 2 * z**2 - z**3 + 0.1 * z**5
    inner = slice(12, -12)
    assert np.abs(fitted - full)[:, inner].max() < 0.02
    assert residual[~dead] == pytest.approx(0.01, rel=0.5)


def test_sharp_pixels_are_no_light_of_a_flat(flat):
    """A hot column over a third of the rows and a cosmic ray; of the flat itself nothing, of its noise next to nothing."""
    image = flat[2].copy()
    noise = read_noise(image)
    assert sharp_pixels(image, noise).mean() < 1e-5
    image[300:1000, 200] += 20000
    image[1500, 60:62] += 30000
    found = sharp_pixels(image, noise)
    assert found[300:1000, 200].all()
    assert found[1500, 60:62].all()
    assert found.sum() < 710


def test_a_hot_column_bends_no_traces(flat, reference, truth):
    """Over a third of the rows, many times as bright as the fibres: one column of 480."""
    image = flat[2].copy()
    image[300:1000, 200] += 30000
    found = module.trace_fibers(image, read_noise(image), nothing(image), *reference)
    alive = ~found.dead
    error = (found.model.trace - truth[0])[alive]
    assert np.sqrt(np.mean(error**2)) < 0.008
    assert np.abs(error[:, 24:-24]).max() < 0.03


def test_dark_fibres_keep_their_distance():
    """At the end of the slit and beside a gap: half-way between the next lit ones is not where they lie."""
    reference = 7.0 * np.arange(12) + np.repeat([0.0, 20.0], 6)
    columns = np.arange(12, 960, 24.0)
    centres = np.repeat((reference + 1.5)[:, None], columns.size, axis=1)
    dead = np.isin(np.arange(12), (0, 5, 6, 11))
    centres[dead] = np.nan
    fitted, _ = fit_traces(columns, centres, np.isfinite(centres).astype(float), 960, dead, reference)
    assert fitted == pytest.approx(np.repeat((reference + 1.5)[:, None], 960, axis=1), abs=1e-6)


def test_many_dead_fibres_side_by_side_are_found():
    """Among eight dead ones, and among five at the end, the neighbours are as dark."""
    amplitude = np.full((60, 40), 1000.0)
    dead = np.isin(np.arange(60), (0, 1, 2, 3, 4, *range(30, 38)))
    amplitude[dead] = 3.0
    assert (find_dead(amplitude, np.zeros(60, bool)) == dead).all()
    assert (find_dead(amplitude, dead) == dead).all()


def test_gap_pixels_are_out_of_every_fibres_reach():
    trace = traces(10, 60, first=30.0)
    trace[5:] += 40.0
    alive = np.ones(10, bool)
    alive[9] = False
    ny = rows_of(trace) + 40
    gap = gap_pixels(fiber_model(trace, alive), ny)
    rows = np.arange(ny)
    for x in (0, 29, 59):
        distance = np.abs(rows[:, None] - trace[alive, x]).min(axis=1)
        assert not gap[distance < 10.5, x].any()
        assert gap[distance > 12, x].all()


def test_dead_fibres_against_their_neighbours():
    rng = np.random.default_rng(25)
    light = np.linspace(500, 3000, 60)[:, None] * rng.uniform(0.8, 1.2, (60, 50))
    light[[0, 30]] *= 0.05
    light[45] *= 0.3
    expected = np.zeros(60, bool)
    expected[10] = True
    assert set(np.flatnonzero(find_dead(light, expected))) == {0, 30}


def test_blur_keeps_the_light():
    image = np.zeros((800, 640))
    image[400, 320] = 64.0
    small = blurred(binned(image), 40.0)
    assert small.shape == (100, 80)
    assert small.sum() == pytest.approx(1.0, rel=1e-3)
    y = (np.arange(100) * 8 + 3.5 - 400) ** 2
    assert np.sqrt((small.sum(axis=1) * y).sum()) == pytest.approx(40.0, rel=0.02)


def test_scatter_weights_of_an_image_that_follows_the_model():
    """Weights that made the light between the groups come back, and the light with them."""
    trace = np.concatenate([traces(20, 512, first=80.0 + 230 * g) for g in range(4)])
    fibers = paint(trace, 5000.0, 960).astype(np.float32)
    model = fiber_model(trace)
    scatter = ScatterModel(SCATTER_SIGMAS, np.array([0, 0.04, 0, 0, 0.05, 0, 0]))
    under = scattered_light(scatter, fibers)
    assert under.shape == fibers.shape
    image = expose(np.random.default_rng(26), fibers + under)
    found = fit_scatter(image, fibers, nothing(image), gap_pixels(model, 960))
    assert (found.weights >= 0).all()
    again = scattered_light(found, fibers)
    assert np.abs(again / under - 1)[60:-60].mean() < 0.02
    got = extract(image, read_noise(image), nothing(image), model, background=again)
    assert np.median(got.amplitude) == pytest.approx(5000, rel=0.003)
