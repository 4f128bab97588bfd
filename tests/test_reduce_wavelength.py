"""Arc lines, wavelength solutions and line-spread functions from lamps whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from numpy.polynomial import legendre
from reduce_factory import wavelengths

from panacea_nb.reduce import wavelength as module
from panacea_nb.reduce.arclines import LineFits, pixel_gaussian
from panacea_nb.reduce.wavelength import (
    LineChoiceError,
    WavelengthError,
    empty_stretches,
    fiber_offsets,
    fit_lsf,
    match_pattern,
    relative_shifts,
    solve_wavelength,
    without_lines,
)

NF, NX = 40, 800
READ = 6.0  # e-, noise of a sample besides photons
DEAD = 11
# Uneven, as lamps are; two are 5 px apart.
COLUMNS = np.array([35.0, 88.0, 161.0, 240.0, 296.0, 377.0, 382.0, 451.0, 540.0, 602.0, 689.0, 760.0])
STRENGTH = np.array([9e3, 3e4, 1.5e4, 6e4, 8e3, 2e4, 2e4, 4e4, 1e4, 2.5e4, 1.2e4, 3e4])


def lsf_sigma():
    f, x = np.linspace(-1, 1, NF)[:, None], np.linspace(-1, 1, NX)[None, :]
    return 1.9 + 0.15 * x + 0.1 * f**2 + 0.05 * f * x


def lamp(rng, wave, lines, strength, sigma, noise=READ):
    """Spectra (nf, nx) [e-] of lines integrated over pixels, their variance, and the exact columns (nl, nf)."""
    x = np.arange(wave.shape[1])
    columns = np.stack([np.interp(lines, wave[f], x) for f in range(wave.shape[0])], axis=1)
    spectra = np.full(wave.shape, 30.0)
    for at, flux in zip(columns, strength, strict=True):
        near = np.take_along_axis(sigma, np.round(at).astype(int)[:, None], axis=1)
        spectra += flux * pixel_gaussian(x, at[:, None], near)
    variance = spectra + noise**2
    if rng is not None:
        spectra = spectra + np.sqrt(variance) * rng.normal(size=spectra.shape)
    return spectra, variance, columns


@pytest.fixture(scope="module")
def arc():
    """Lamp spectra, their variance, wavelength map, line table (columns for twice the pixels, as of an unbinned chip)."""
    rng = np.random.default_rng(31)
    wave = wavelengths(NF, NX, 4700.0, 1.15)
    lines = np.interp(COLUMNS, np.arange(NX), wave[NF // 2])
    spectra, variance, exact = lamp(rng, wave, lines, STRENGTH, lsf_sigma())
    spectra[DEAD] = READ * rng.normal(size=NX)
    near = 2 * (COLUMNS + 6.3 + 0.004 * (COLUMNS - NX / 2))
    table = Table({"wavelength": lines, "column": near, "intensity": STRENGTH / STRENGTH.max()})
    return spectra, variance, wave, table, exact


@pytest.fixture(scope="module")
def solution(arc):
    dead = np.zeros(NF, bool)
    dead[DEAD] = True
    return solve_wavelength(arc[0], arc[1], dead, arc[3])


def test_shifts_between_fibres(arc):
    dead = np.zeros(NF, bool)
    dead[DEAD] = True
    shift = relative_shifts(arc[0], dead)
    exact = arc[4].mean(axis=0) - arc[4].mean(axis=0)[NF // 2]
    assert np.abs(shift - exact)[~dead].max() < 0.25


def test_a_strong_line_at_the_edge_of_the_chip_moves_no_fibre():
    """Cd 6438 stands at column 4 of red: fibres whose lines lie there beyond the edge are shifted by what they are."""
    rng = np.random.default_rng(36)
    wave = wavelengths(NF, NX, 6436.0, 1.0)
    lines = np.append(np.interp(COLUMNS[1:], np.arange(NX), wave[NF // 2]), np.interp(4.0, np.arange(NX), wave[NF // 2]))
    spectra, _, exact = lamp(rng, wave, lines, np.append(STRENGTH[1:], 2e5), np.full((NF, NX), 1.9))
    found = relative_shifts(spectra, np.zeros(NF, bool))
    true = exact[5] - exact[5, NF // 2]
    assert np.ptp(true) > 2
    assert np.abs(found - true).max() < 0.5


def test_pattern_found_in_spite_of_shift_and_stretch(arc):
    typical = arc[0][NF // 2]
    moved = COLUMNS - 41.0 + 0.012 * (COLUMNS - NX / 2)
    columns, score, runner_up = match_pattern(typical, moved, STRENGTH)
    assert np.abs(columns - COLUMNS).max() < 1.0
    assert score > 1.2 * runner_up


def test_wavelengths_of_all_fibres(solution, arc):
    """Within 0.02 px at every pixel between the outer lines, RMS 0.005 px."""
    wave = arc[2]
    dispersion = np.gradient(wave, axis=1)
    error = (solution.wavelength - wave) / dispersion
    inner = error[:, 35:760]
    alive = np.ones(NF, bool)
    alive[DEAD] = False
    assert np.sqrt(np.mean(inner[alive] ** 2)) < 0.006
    assert np.abs(inner[alive]).max() < 0.03
    assert np.abs(inner[DEAD]).max() < 0.03  # the smooth surface serves where there is no light
    assert abs(error.mean()) < 0.003
    assert (np.diff(solution.wavelength, axis=1) > 0).all()
    assert solution.rms < 0.02


def test_lines_are_used_and_residuals_have_their_errors(solution):
    assert solution.used[:, DEAD].sum() == 0
    alone = np.delete(np.arange(COLUMNS.size), [5, 6])
    alive = np.delete(np.arange(NF), DEAD)
    assert solution.used[np.ix_(alone, alive)].mean() > 0.98
    pull = (solution.residual / solution.lines.error)[np.ix_(alone, alive)]
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.15)


def test_line_spread_function(solution):
    alive = np.ones(NF, bool)
    alive[DEAD] = False
    ratio = (solution.lsf / lsf_sigma())[alive][:, 35:760]
    assert np.abs(ratio - 1).max() < 0.03
    assert np.std(ratio) < 0.008


def test_widths_of_every_shape_and_of_single_fibres_are_followed(arc):
    """Terms of the fourth degree along the slit, and fibres that are 3 % RMS wider or narrower than their neighbours."""
    rng = np.random.default_rng(38)
    f = np.linspace(-1, 1, NF)[:, None]
    sigma = lsf_sigma() + 0.08 * legendre.legval(f, [0, 0, 0, 0, 1]) + 0.06 * rng.normal(size=(NF, 1))
    spectra, variance, _ = lamp(rng, arc[2], np.asarray(arc[3]["wavelength"]), STRENGTH, sigma)
    found = solve_wavelength(spectra, variance, np.zeros(NF, bool), arc[3])
    error = (found.lsf / sigma - 1)[:, 35:760]
    assert np.std(error) < 0.009  # 0.031 by a surface of degree 2
    assert abs(np.mean(error)) < 0.006


def test_misidentified_line_is_thrown_out(arc):
    """A wavelength 1.5 px off in the list must not bend the solution."""
    table = arc[3].copy()
    table["wavelength"][4] += 1.5 * 1.15
    found = solve_wavelength(arc[0], arc[1], np.zeros(NF, bool), table)
    error = (found.wavelength - arc[2])[:, 35:760] / 1.15
    assert not found.used[4].any()
    assert np.sqrt(np.mean(np.delete(error, DEAD, axis=0) ** 2)) < 0.008
    assert "ARCLINES" in [d.code for d in found.decisions]
    assert f"{table['wavelength'][4]:.1f}" in found.decisions[0].text


def test_few_weak_lines_lean_on_a_reference_map():
    """Four lines with a known map: shift and stretch against it are found."""
    rng = np.random.default_rng(34)
    reference = wavelengths(NF, NX, 3700.0, 0.5)
    shape = np.linspace(-1, 1, NF)[:, None] * np.ones(NX)
    wave = reference + 0.5 * (2.4 + 0.3 * shape + 0.2 * np.linspace(-1, 1, NX))
    lines = np.interp([90.0, 300.0, 520.0, 730.0], np.arange(NX), reference[NF // 2])
    strength = np.array([900.0, 2500.0, 1500.0, 1200.0])
    spectra, variance, _ = lamp(rng, wave, lines, strength, np.full((NF, NX), 1.9), noise=3.0)
    table = Table({"wavelength": lines, "column": np.zeros(4), "intensity": strength})
    found = solve_wavelength(spectra, variance, np.zeros(NF, bool), table, reference=reference)
    error = (found.wavelength - wave) / 0.5
    assert np.sqrt(np.mean(error**2)) < 0.03
    assert abs(error.mean()) < 0.01
    assert found.degree <= 3


def test_a_slit_whose_curvature_changes_along_the_chip_is_followed():
    """Eight lines with a known map, and a slit that is bent by a pixel, not alike in the middle and at the ends."""
    rng = np.random.default_rng(39)
    reference = wavelengths(NF, NX, 3700.0, 0.5)
    f, x = np.linspace(-1, 1, NF)[:, None], np.linspace(-1, 1, NX)
    wave = reference + 0.5 * (1.5 + 2.0 * (f**2 - 1 / 3) * (x**2 - 1 / 3) + 0.3 * f**3 * x)
    columns = np.array([40.0, 130.0, 210.0, 310.0, 430.0, 540.0, 640.0, 750.0])
    lines = np.interp(columns, np.arange(NX), reference[NF // 2])
    strength = np.array([2000.0, 900.0, 2500.0, 1500.0, 900.0, 1200.0, 900.0, 1500.0])
    spectra, variance, _ = lamp(rng, wave, lines, strength, np.full((NF, NX), 1.9), noise=3.0)
    table = Table({"wavelength": lines, "column": np.zeros(8), "intensity": strength})
    found = solve_wavelength(spectra, variance, np.zeros(NF, bool), table, reference=reference)
    error = (found.wavelength - wave) / 0.5
    assert np.sqrt(np.mean(error**2)) < 0.04
    assert np.abs(error).max() < 0.25
    assert found.degree > 3


def test_one_fibre_off_the_smooth_slit_is_followed(arc):
    """A fibre 0.15 px off its neighbours keeps its own zero."""
    rng = np.random.default_rng(35)
    step = np.zeros((NF, 1))
    step[20] = 0.15
    wave = arc[2] - step * np.gradient(arc[2], axis=1)
    jitter = 0.03 * rng.normal(size=(NF, 1))
    wave = wave - jitter * np.gradient(arc[2], axis=1)
    spectra, variance, _ = lamp(rng, wave, np.asarray(arc[3]["wavelength"]), STRENGTH, lsf_sigma())
    found = solve_wavelength(spectra, variance, np.zeros(NF, bool), arc[3])
    error = ((found.wavelength - wave) / 1.15)[:, 35:760].mean(axis=1)
    assert abs(error[20]) < 0.02
    assert np.std(error) < 0.012


def test_a_rough_slit_hides_no_curvature_of_the_dispersion(arc):
    """Fibres that stand beside a smooth slit by 0.2 px RMS leave the degree of the dispersion as it is: 0.3 px of degree 4."""
    rng = np.random.default_rng(37)
    x, step = np.linspace(-1, 1, NX), np.gradient(arc[2], axis=1)
    wave = arc[2] + 0.3 * legendre.legval(x, [0, 0, 0, 0, 1]) * step + 0.2 * rng.normal(size=(NF, 1)) * step
    spectra, variance, _ = lamp(rng, wave, np.asarray(arc[3]["wavelength"]), STRENGTH, lsf_sigma())
    found = solve_wavelength(spectra, variance, np.zeros(NF, bool), arc[3])
    error = ((found.wavelength - wave) / step)[:, 35:760]
    assert np.sqrt(np.mean(error**2)) < 0.015
    assert np.abs(error.mean(axis=0)).max() < 0.02
    assert found.rms < 0.05  # of the lines, not of the slit


def test_fibre_offsets_shrink_where_nothing_is_real():
    rng = np.random.default_rng(36)
    noise = np.full((10, NF), 0.05)
    used = np.ones((10, NF), bool)
    none = fiber_offsets(0.05 * rng.normal(size=noise.shape), used, noise)
    assert np.std(none) < 0.6 * np.hypot(0.05, 0.02) / np.sqrt(10)
    real = 0.1 * rng.normal(size=NF)
    found = fiber_offsets(real + 0.05 * rng.normal(size=noise.shape), used, noise)
    assert np.std(found - real) < 0.022
    used[:, 3] = False
    assert fiber_offsets(real + 0 * noise, used, noise)[3] == 0


def test_width_surface_ignores_blends():
    f, x = np.linspace(-1, 1, NF)[None, :], np.linspace(-1, 1, 25)[:, None]
    centre = (x * np.ones_like(f) + 1) / 2 * (NX - 1)
    sigma = 1.8 + 0.2 * x + 0.1 * f
    sigma = sigma * np.ones_like(centre)
    sigma[10] += 0.8
    error = np.full(centre.shape, 0.01)
    lines = LineFits(np.zeros(25), centre, sigma, error * 1e6, error, np.ones(centre.shape, bool))
    surface = fit_lsf(lines, np.ones(centre.shape, bool), (NF, NX))
    exact = 1.8 + 0.2 * np.linspace(-1, 1, NX)[None, :] + 0.1 * np.linspace(-1, 1, NF)[:, None]
    assert np.abs(surface - exact).max() < 0.01


def test_listed_lines_off_the_chip_do_no_harm(arc):
    """A line beyond the red end, seen by no fibre, and one that only some fibres hold."""
    table = arc[3].copy()
    wave = arc[2]
    table.add_row([wave[:, -1].max() + 30.0, 2 * (NX + 26.0), 0.2])
    table.add_row([np.median(wave[:, -1]), 2 * (NX - 1.0), 0.2])
    found = solve_wavelength(arc[0], arc[1], np.zeros(NF, bool), table)
    error = np.delete(found.wavelength - wave, DEAD, axis=0)[:, 35:760] / 1.15
    assert not found.used[-2:].any()
    assert np.sqrt(np.mean(error**2)) < 0.008


def test_noise_instead_of_lamps_is_refused(arc):
    rng = np.random.default_rng(37)
    spectra = READ * rng.normal(size=(NF, NX))
    with pytest.raises(WavelengthError, match="--cal-date cmp"):
        solve_wavelength(spectra, np.full(spectra.shape, READ**2), np.zeros(NF, bool), arc[3])


def test_too_few_lines_are_refused(arc):
    with pytest.raises(WavelengthError, match="3 arc lines .* 5 are needed|do not fit"):
        solve_wavelength(arc[0], arc[1], np.zeros(NF, bool), arc[3][[1, 3, 7]])


def test_degree_follows_the_data(solution):
    """The dispersion is a parabola: the criterion does not ask for the highest degree."""
    assert solution.degree in (3, 4)
    assert solution.rms < module.MAX_RMS


def test_arc_lines_are_left_out_by_hand():
    lines = Table({"wavelength": [4046.56, 4358.33, 5460.74]})
    kept, decisions = without_lines(lines, "4358.3")
    assert list(kept["wavelength"]) == [4046.56, 5460.74]
    assert decisions[0].text == "arc lines left out by hand: 4358.33 A"
    assert without_lines(lines, "") == (lines, [])
    with pytest.raises(LineChoiceError, match="no arc line at 4700 A; the nearest listed one is 4358.33 A"):
        without_lines(lines, "4700")


def test_stretches_without_lines_are_told(arc):
    """The lamp that has all lines in the last third is off; of single lines that are missing nothing is said."""
    _, _, wave, table, _ = arc
    lines, middle = np.asarray(table["wavelength"]), wave[NF // 2]
    assert empty_stretches(middle, lines, np.ones(lines.size, bool)) == []
    assert empty_stretches(middle, lines, np.arange(lines.size) != 8) == []
    (told,) = empty_stretches(middle, lines, lines < np.interp(500.0, np.arange(NX), middle))
    assert (told.code, told.severity) == ("ARCGAP", "warn")
    assert f"from {lines[7]:.0f} to {middle[-1]:.0f} A" in told.text
