"""Sky model on native pixels: unbiased beside stars, lines and galaxies; wavelength zero from the sky itself."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from reduce_factory import lines_on_continuum, robust, wavelengths

from panacea_nb.instrument import channel, mean_telluric
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.sky import (
    SkyError,
    choose_fibers,
    faintest_fibers,
    fiber_levels,
    field_basis,
    fit_sky,
    level_scatter,
)
from panacea_nb.reduce.spline import fit_common
from panacea_nb.reduce.wavezero import corrected_wavelength, zero_from_lines, zero_from_template

POSITIONS = channel("orange").fiber_positions()
NF, NX = POSITIONS.shape[0], 320
SIGMA = 1.85  # A, of the lines of the reference width; dispersion is 1 A per px
CENTERS = np.array([5033.3, 5061.0, 5098.7, 5127.2, 5160.9, 5190.1, 5221.6, 5256.4, 5290.2])
FLUXES = np.array([300.0, 2500.0, 900.0, 5000.0, 400.0, 1500.0, 8000.0, 700.0, 2000.0])
SPECTRUM = lines_on_continuum(CENTERS, FLUXES, SIGMA)
WAVE = wavelengths(NF, NX)
DISPERSION = np.gradient(WAVE, axis=1)
F, X = np.linspace(-1, 1, NF)[:, None], np.linspace(-1, 1, NX)[None, :]
LSF = (1.9 + 0.08 * F**2 + 0.04 * X) / DISPERSION
THROUGHPUT = np.random.default_rng(300).uniform(0.88, 1.1, (NF, 1)) * (1 + 0.03 * F * X)
ALIVE = np.ones(NF, bool)
GRADIENT = 1 + 0.02 * POSITIONS[:, 0] / 6 - 0.01 * POSITIONS[:, 1] / 3.5
MIDDLE = slice(8, -8)


def exposure(rng, *, source=0.0, gradient=GRADIENT, wave=WAVE, lsf=LSF, read=4.0):
    """Amplitudes of the sky (and of a source [e-/A]) with noise: data, variance, mask, sky [e- per column]."""
    extra = (lsf * DISPERSION) ** 2 - SIGMA**2
    sky = SPECTRUM(wave, extra) * THROUGHPUT * DISPERSION * np.reshape(gradient, (-1, 1))
    light = sky + source * THROUGHPUT * DISPERSION
    variance = light + read**2
    data = light + np.sqrt(variance) * rng.normal(size=light.shape)
    return data, variance, np.ones(light.shape, bool), sky


def fit(data, variance, good, *, wave=WAVE, lsf=LSF, alive=ALIVE, **options):
    return fit_sky(data, variance, good, wave, lsf, THROUGHPUT, POSITIONS, alive, **options)


def sky_bias(model, sky, fibers=ALIVE):
    """Mean error of the model in units of the mean sky, in the continuum and on lines."""
    error = ((model.native() - sky) / sky)[fibers][:, MIDDLE]
    lines = (sky > 1.3 * np.median(sky, axis=1, keepdims=True))[fibers][:, MIDDLE]
    return error[~lines].mean(), error[lines].mean()


def star(x, y, flux, fwhm=1.5):
    return (
        flux
        * lenslet_fractions(POSITIONS, np.array([x]), np.array([y]), np.array([fwhm]), 3.5)[0][:, None]
        * np.ones(NX)
    )


@pytest.fixture(scope="module")
def blank():
    """A field without objects: (model, data, variance, sky)."""
    data, variance, good, sky = exposure(np.random.default_rng(301))
    good[50, 100:120] = False
    data[50, 100:120] = 1e6
    return fit(data, variance, good), data, variance, sky


def test_blank_field_leaves_noise(blank):
    model, data, variance, sky = blank
    pull = (data - model.native())[:, MIDDLE] / np.sqrt(variance[:, MIDDLE])
    pull = np.delete(pull, 50, axis=0)
    assert np.std(pull) == pytest.approx(1.0, abs=0.015)
    assert model.chi == pytest.approx(1.0, abs=0.03)
    binned = pull[:, :304].reshape(NF - 1, 19, 16).sum(axis=2) / 4
    assert np.std(binned) == pytest.approx(1.0, abs=0.04)
    assert model.decisions == []
    assert model.fibers.sum() > 0.9 * NF


def test_blank_field_has_no_bias(blank):
    """Within 0.1 % of the sky in the continuum and on lines; in every fibre, within the noise of its level."""
    model, _, _, sky = blank
    continuum, lines = sky_bias(model, sky)
    assert abs(continuum) < 1e-3
    assert abs(lines) < 2e-3
    level = (model.native() - sky)[:, MIDDLE].sum(axis=1) / sky[:, MIDDLE].sum(axis=1)
    assert np.abs(level).max() < 0.004


def test_gradient_over_the_field(blank):
    model, *_ = blank
    truth = GRADIENT / GRADIENT.mean()
    assert np.abs(model.gradient - truth).max() < 0.005
    assert np.std(model.gradient - truth) < 0.002
    assert model.gradient.mean() == pytest.approx(1.0, abs=1e-9)


def test_variance_of_the_model_is_its_error(blank):
    model, _, variance, sky = blank
    error = (model.native() - sky)[:, MIDDLE]
    sigma = np.sqrt(model.native_variance())[:, MIDDLE]
    # Gradient and widths add a little to the error of the spectrum.
    assert np.sqrt(np.mean((error / sigma) ** 2)) == pytest.approx(1.2, abs=0.35)
    assert np.median(model.native_variance() / variance) < 0.02


def test_levels_and_their_scatter(blank):
    model, *_ = blank
    assert np.median(model.level) == pytest.approx(1.0, abs=0.003)
    assert model.level_scatter < 0.006
    rng = np.random.default_rng(302)
    uneven = 1 + 0.02 * rng.normal(size=(NF, 1))
    data, variance, good, _ = exposure(rng)
    assert fit(data * uneven, variance, good).level_scatter == pytest.approx(0.02, abs=0.006)


def test_levels_that_neighbours_share_count_as_a_sum_over_them_has_it():
    rng = np.random.default_rng(305)
    alone = 0.02 * rng.standard_normal(4000)
    shared = 0.02 * rng.standard_normal(4001)
    shared = (shared[1:] + shared[:-1]) / np.sqrt(2)  # neighbours correlate by a half
    noise, fibers = np.full(4000, 0.01), np.ones(4000, bool)
    own = 0.01 * rng.standard_normal(4000)
    assert level_scatter(1 + alone + own, noise, fibers) == pytest.approx(0.02, rel=0.1)
    # the mean of n neighbours scatters by 0.02 sqrt(2 / n)
    assert level_scatter(1 + shared + own, noise, fibers) == pytest.approx(0.02 * np.sqrt(2), rel=0.1)


def test_wings_that_the_model_of_a_source_lacks_hardly_tilt_the_sky():
    """The wings of a source are a quarter brighter than its model says: 0.34 % of the sky; 0.5 % if they were believed."""
    light = 5000.0 * lenslet_fractions(POSITIONS, np.full(1, -2.0), np.zeros(1), np.full(1, 2.2), 2.2)[0]
    wrong = []
    for seed in (306, 309):
        data, variance, good, _ = exposure(np.random.default_rng(seed), source=light[:, None])
        known = 0.8 * light[:, None] * THROUGHPUT * DISPERSION
        model = fit(data, variance, good, source=known, exclude=light > 24.0)
        wrong.append(np.std(model.gradient / np.mean(model.gradient) / (GRADIENT / np.mean(GRADIENT)) - 1))
    assert np.mean(wrong) < 0.0042


def test_relative_shifts_across_the_slit_are_found():
    """Flexure that differs by 0.1 px from end to end: the maps agree again, but for a common zero."""
    shift = 0.06 * F + 0.03 * (F**2 - 1 / 3) - 0.02 * F * X
    data, variance, good, _ = exposure(np.random.default_rng(303), wave=WAVE + shift * DISPERSION)
    model = fit(data, variance, good)
    found = (model.wavelength - WAVE) / DISPERSION
    rest = (found - shift) - (found - shift).mean()
    assert np.std(rest) < 0.004
    assert np.abs(rest).max() < 0.02
    assert model.chi == pytest.approx(1.0, abs=0.03)


def test_line_widths_across_the_slit_are_found():
    """Arcs that were sharper at one end than the sky is: the widths are refined from the sky."""
    wide = LSF * (1 + 0.05 * F)
    data, variance, good, sky = exposure(np.random.default_rng(304), lsf=wide)
    model = fit(data, variance, good)
    exact = (wide * DISPERSION) ** 2 - (LSF * DISPERSION) ** 2
    assumed = model.extra - fit(*exposure(np.random.default_rng(304))[:3]).extra
    assert np.std((assumed - exact) - (assumed - exact).mean()) < 0.25 * np.std(exact)
    lines = sky > 2 * np.median(sky)
    pull = ((data - model.native()) / np.sqrt(variance))[lines]
    assert np.std(pull) == pytest.approx(1.0, abs=0.05)


def test_bright_star_does_not_raise_the_sky():
    """A star with 30 times the sky's light in its brightest fibre, nobody told the fit: only its far wings are left in it."""
    source = star(0.5, -0.4, 15000.0)
    data, variance, good, sky = exposure(np.random.default_rng(305), source=source)
    model = fit(data, variance, good)
    continuum, lines = sky_bias(model, sky)
    assert abs(continuum) < 0.03
    assert abs(lines) < 0.03
    bright = source[:, 0] > 6.0
    assert not model.fibers[bright].any()
    assert model.level[np.argmax(source[:, 0])] > 5


def test_star_that_is_modelled_leaves_no_trace_in_the_sky():
    source = star(0.5, -0.4, 15000.0)
    data, variance, good, sky = exposure(np.random.default_rng(306), source=source)
    known = source * THROUGHPUT * DISPERSION
    model = fit(data, variance, good, source=known, exclude=known[:, 0] > 0.06 * sky[:, 0])
    continuum, lines = sky_bias(model, sky)
    assert abs(continuum) < 1.5e-3
    assert abs(lines) < 2.5e-3
    assert not model.fibers[known[:, 0] > 0.06 * sky[:, 0]].any()


@pytest.mark.parametrize(("flux", "tolerance"), [(60.0, 0.004), (200.0, 0.008), (1000.0, 0.02)])
def test_emission_line_of_a_source_is_not_sky(flux, tolerance):
    """A point source that shows one line, up to 2.6 times the sky in its brightest fibre: the sky there stays what it is."""
    line = flux * np.exp(-0.5 * ((WAVE - 5112.0) / 1.9) ** 2)
    source = star(1.0, 0.5, 1.0) * line
    data, variance, good, sky = exposure(np.random.default_rng(307), source=source)
    model = fit(data, variance, good)
    at = np.abs(WAVE - 5112.0) < 4
    assert abs(((model.native() - sky) / sky)[at].mean()) < tolerance
    mean = (source / sky)[at].mean()
    assert tolerance < 0.8 * mean or flux < 100


def test_bright_object_is_not_sky_because_all_of_it_is_clipped():
    """Half of the field at twice the sky's light: each of its samples is an outlier, so none may speak for the fibre."""
    inside = np.hypot(POSITIONS[:, 0] / 6, POSITIONS[:, 1] / 3.5) < 0.9
    source = 40.0 * inside[:, None] * np.ones(NX)
    data, variance, good, sky = exposure(np.random.default_rng(308), source=source, gradient=np.ones(NF))
    model = fit(data, variance, good)
    assert not (model.fibers & inside).any()
    assert model.fibers.sum() == (~inside).sum()
    assert np.abs(sky_bias(model, sky)).max() < 3e-3


@pytest.mark.parametrize("level", [12.0, 40.0])
def test_object_over_two_thirds_of_the_field_leaves_the_faintest_fibres(level):
    """A bright oval with an edge: the sky comes from outside, and a warning says so."""
    inside = np.hypot(POSITIONS[:, 0] / 6, POSITIONS[:, 1] / 3.5) < 1.0
    assert inside.mean() > 0.6
    source = level * inside[:, None] * np.ones(NX)
    data, variance, good, sky = exposure(np.random.default_rng(308), source=source, gradient=np.ones(NF))
    model = fit(data, variance, good)
    assert [(d.code, d.severity) for d in model.decisions] == [("SKYFAINT", "warn")]
    assert not (model.fibers & inside).any()
    assert model.fibers.sum() == pytest.approx(0.14 * NF, abs=4)
    continuum, lines = sky_bias(model, sky)
    assert abs(continuum) < 2e-3
    assert abs(lines) < 4e-3
    # Its level over the sky is that of all its samples, not of those that happen to agree with the sky.
    added = (sky * level * THROUGHPUT * DISPERSION / variance).sum(axis=1) / (sky**2 / variance).sum(axis=1)
    assert (model.level - 1)[inside].mean() == pytest.approx(added[inside].mean(), rel=0.06)


def test_too_few_fibres():
    data, variance, good, _ = exposure(np.random.default_rng(309))
    alive = np.zeros(NF, bool)
    alive[:15] = True
    with pytest.raises(SkyError, match="15 fibres"):
        fit(data, variance, good, alive=alive)


def test_fibres_chosen_by_the_user_are_used():
    data, variance, good, sky = exposure(np.random.default_rng(310), gradient=np.ones(NF))
    data[:100] += 500.0
    chosen = np.zeros(NF, bool)
    chosen[150:] = True
    model = fit(data, variance, good, fibers=chosen)
    assert (model.fibers == chosen).all()
    assert np.abs(sky_bias(model, sky, chosen)).max() < 5e-3


def test_dead_fibres_hold_no_sky():
    data, variance, good, sky = exposure(np.random.default_rng(311))
    alive = ALIVE.copy()
    alive[[3, 77]] = False
    data[[3, 77]] = 0
    variance[[3, 77]] = 0
    model = fit(data, variance, good, alive=alive)
    assert not model.fibers[[3, 77]].any()
    assert np.abs(sky_bias(model, sky, alive)).max() < 2e-3


def test_scale_of_a_fibre_and_its_error():
    rng = np.random.default_rng(312)
    model = np.full((400, 100), 50.0)
    data = 1.03 * model + 5 * rng.normal(size=model.shape)
    weight = np.full(model.shape, 1 / 25.0)
    weight[0] = 0
    scale, error = fiber_levels(data, weight, model)
    assert scale[1:].mean() == pytest.approx(1.03, abs=1e-3)
    assert error[1:] == pytest.approx(np.hypot(5 / (50 * 10), 0.003), rel=1e-6)
    assert np.std(scale[1:]) == pytest.approx(0.01, rel=0.12)
    assert np.isnan(scale[0])
    assert np.isinf(error[0])


def test_field_terms_have_no_mean():
    assert field_basis(POSITIONS, 0).shape == (NF, 0)
    for degree, n in ((1, 2), (2, 5)):
        basis = field_basis(POSITIONS, degree)
        assert basis.shape == (NF, n)
        assert np.abs(basis.mean(axis=0)).max() < 1e-12


def test_choice_of_fibres():
    rng = np.random.default_rng(313)
    error = np.full(NF, 0.005)
    level = GRADIENT + error * rng.normal(size=NF)
    chosen, degree = choose_fibers(level, error, ALIVE, POSITIONS)
    assert chosen.mean() > 0.95
    assert degree == 2
    bright = np.hypot(*POSITIONS.T) < 2.0
    chosen, _ = choose_fibers(level + 0.5 * bright, error, ALIVE, POSITIONS)
    assert not chosen[bright].any()
    assert chosen[~bright].mean() > 0.9


def test_fibres_of_a_faint_sky_are_not_chosen_by_the_noise_of_detector_rows():
    """A sky of 1.3 e- a column, rows that add 0.35 e-: a choice by level takes the faint fibres, or the bright ones."""
    rng = np.random.default_rng(321)
    sky = np.full((NF, NX), 1.3) * THROUGHPUT * DISPERSION
    kept, bias = [], []
    for _ in range(8):
        variance = sky + 4.0
        rows = 0.35 * rng.standard_normal((NF, 1))
        data = sky + rows + np.sqrt(variance) * rng.standard_normal(sky.shape)
        may = np.isin(np.arange(NF), rng.permutation(NF)[:60])
        model = fit(data, variance, np.ones(sky.shape, bool), exclude=~may)
        kept.append(model.fibers.sum())
        bias.append(np.median(model.native()[may] / (sky[may] + rows[may].mean())) - 1)
    assert min(kept) > 55
    assert np.mean(np.abs(bias)) < 0.03


def test_faintest_region_not_the_faintest_fibres():
    """A slope over the field: the low side is chosen, single fibres that are low by chance are not."""
    rng = np.random.default_rng(314)
    level = 1 + 0.1 * POSITIONS[:, 0] + 0.02 * rng.normal(size=NF)
    lone = int(np.argmax(POSITIONS[:, 0] - np.abs(POSITIONS[:, 1])))
    level[lone] = 0.2
    chosen = faintest_fibers(level, np.full(NF, 0.02), ALIVE, POSITIONS)
    assert chosen.sum() == int(0.14 * NF)
    assert not chosen[lone]
    assert (POSITIONS[chosen, 0] < np.percentile(POSITIONS[:, 0], 25)).mean() > 0.9


# --- wavelength zero ------------------------------------------------------------------------------------------------------------


def moved_sky(rng, shift, slope=0.0, read=4.0):
    """Sky fitted with a map whose wavelengths are too large by ``shift`` + ``slope`` z [A]."""
    data, variance, good, _ = exposure(rng, gradient=np.ones(NF), read=read)
    return fit(data, variance, good, wave=WAVE + shift + slope * X)


@pytest.mark.parametrize(("shift", "slope"), [(0.25, 0.0), (-0.4, 0.0), (0.1, 0.08)])
def test_zero_point_from_lines(shift, slope):
    sky = moved_sky(np.random.default_rng(321), shift, slope)
    zero = zero_from_lines(sky, CENTERS, SIGMA)
    assert zero.used
    assert zero.n_lines == CENTERS.size
    assert zero.shift == pytest.approx(shift, abs=0.02)
    assert zero.slope == pytest.approx(slope, abs=0.03)
    right = corrected_wavelength(sky, zero)
    error = (right - WAVE)[:, MIDDLE]
    assert abs(error.mean()) < 0.015
    assert np.sqrt(np.mean(error**2)) < 0.025


def test_line_list_with_strangers_and_gaps():
    """Two lines that the list lacks, one that the sky lacks: the zero holds."""
    sky = moved_sky(np.random.default_rng(322), 0.2)
    listed = np.append(np.delete(CENTERS, [2, 5]), 5080.0)
    zero = zero_from_lines(sky, listed, lambda wave: np.full(wave.shape, SIGMA))
    assert zero.used
    assert zero.shift == pytest.approx(0.2, abs=0.03)


def test_error_of_the_zero_point():
    found = [
        zero_from_lines(moved_sky(np.random.default_rng(330 + i), 0.1, read=30.0), CENTERS, SIGMA) for i in range(6)
    ]
    error = np.mean([z.error for z in found])
    assert np.abs(np.array([z.shift for z in found]) - 0.1).max() < 4 * error
    assert error < 0.05


@pytest.mark.parametrize(("name", "wing", "peak", "sure"), [("red", 1000.0, 20.0, True), ("farred", 1000.0, 5.0, False)])
def test_absorption_by_the_air_in_a_stars_wings_is_no_shift(name, wing, peak, sure):
    """Lines on the wings of a bright star, with bands of water and oxygen between them; where these win, the zero is not sure."""
    facts = channel(name)
    step = (facts.wave_max - facts.wave_min) / 2064
    wave = wavelengths(40, 2064, facts.wave_min, 0.98 * step, 4.0)
    lines = facts.sky_lines()
    lines = lines[(lines > facts.wave_min + 20) & (lines < facts.wave_max - 20)]
    flux = np.random.default_rng(1).lognormal(0, 1, lines.size)
    rng = np.random.default_rng(2)
    light = 3.0 + wing * mean_telluric(wave - 0.2 * step)
    for line, one in zip(lines, flux, strict=True):
        light = light + peak * one * np.exp(-0.5 * ((wave - line - 0.2 * step) / (1.9 * step)) ** 2)
    variance = light + 40
    data = (light + np.sqrt(variance) * rng.normal(size=light.shape)) / step
    spectrum = fit_common(wave, data, step**2 / variance, step=step, factor=1.0, extra=0.0)
    zero = zero_from_lines(SimpleNamespace(spectrum=spectrum, wavelength=wave), lines, 1.9 * step)
    assert zero.used == sure
    if sure:
        assert zero.shift == pytest.approx(0.2 * step, abs=0.04 * step)
    else:
        assert zero.error > 0.06 * step


def test_no_line_means_no_zero():
    sky = moved_sky(np.random.default_rng(323), 0.3)
    zero = zero_from_lines(sky, np.array([4000.0, 9000.0]), SIGMA)
    assert not zero.used
    assert (zero.shift, zero.n_lines) == (0.0, 0)
    assert np.isinf(zero.error)
    assert corrected_wavelength(sky, zero) is sky.wavelength


def test_sky_without_light_has_no_zero():
    rng = np.random.default_rng(324)
    data, variance, good, _ = exposure(rng, gradient=np.full(NF, 1e-3), read=30.0)
    zero = zero_from_lines(fit(data, variance, good), CENTERS, SIGMA)
    assert not zero.used or abs(zero.shift) < 4 * zero.error


def test_zero_point_from_the_shape_of_the_sky():
    """Absorption features of a known sky on an unknown mixture and continuum."""
    rng = np.random.default_rng(325)
    sky = moved_sky(rng, 0.3)
    template_wave = np.arange(4950.0, 5400.0, 0.4)
    first = SPECTRUM(template_wave)
    second = 10 + 0.01 * (template_wave - 5000) + 0.3 * SPECTRUM(template_wave + 0.0)
    zero = zero_from_template(sky, template_wave, np.stack([2.0 * first, second]))
    assert zero.used
    assert zero.shift == pytest.approx(0.3, abs=0.03)
    assert (corrected_wavelength(sky, zero) - WAVE)[:, MIDDLE].mean() == pytest.approx(0.0, abs=0.03)


def test_correction_is_shift_and_slope_over_the_range(blank):
    model, *_ = blank
    zero = zero_from_lines(model, CENTERS, SIGMA)
    moved = dataclasses.replace(zero, shift=0.5, slope=0.2, used=True)
    right = corrected_wavelength(model, moved)
    low, high = zero.grid[0], zero.grid[-1]
    middle = np.argmin(np.abs(model.wavelength[0] - (low + high) / 2))
    assert (model.wavelength - right)[0, middle] == pytest.approx(0.5, abs=2e-3)
    assert np.ptp((model.wavelength - right)[0]) == pytest.approx(
        0.4 * np.ptp(model.wavelength[0]) / (high - low), rel=1e-3
    )
    assert robust(model.level) < 0.02


def test_from_an_earlier_model_two_rounds_are_as_good_as_four():
    """The sources' model of the earlier one was worse; gradient, shift and widths across the slit are real."""
    wave = WAVE + 0.12 * F * DISPERSION
    data, variance, good, sky = exposure(np.random.default_rng(330), source=star(1.0, 0.5, 300.0), wave=wave)
    light = star(1.0, 0.5, 300.0) * THROUGHPUT * DISPERSION
    first = fit(data, variance, good, source=0.9 * light, rounds=3)
    short = fit(data, variance, good, source=light, start=first, rounds=2)
    long = fit(data, variance, good, source=light, rounds=4)
    assert short.native() == pytest.approx(long.native(), rel=2e-3)
    assert short.terms["shift"][0] == pytest.approx(0.12, abs=0.01)
    assert np.abs(sky_bias(short, sky)).max() < 2e-3
    # Two rounds from nothing are not: they stop before the gradient and the shift are known.
    cold = fit(data, variance, good, source=light, rounds=2)
    assert np.std(cold.native() / long.native()) > 2 * np.std(short.native() / long.native())
