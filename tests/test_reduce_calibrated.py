"""From native samples to calibrated spectra: fluxes, errors and masks of an exposure made of known parts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from reduce_factory import lines_on_continuum

from panacea_nb.instrument import channel
from panacea_nb.products.bundle import Bundle
from panacea_nb.reduce.calibrated import FluxOptions, calibrate, collapsed_image, measured, rectified, sky_on_grid
from panacea_nb.reduce.flux import FluxScale
from panacea_nb.reduce.maskbits import DQ
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.sourceprior import SourcePrior
from panacea_nb.reduce.spline import fit_common

FACTS = channel("orange")
POSITIONS = FACTS.fiber_positions()
NF, NX = POSITIONS.shape[0], 600
GRID = FACTS.wave_grid()
STEP = (FACTS.wave_max - FACTS.wave_min + 30) / (NX - 1)
WAVE = FACTS.wave_min - 15 + STEP * (np.arange(NX)[None, :] + np.linspace(-2, 2, NF)[:, None])
SIGMA = 1.9 * STEP
SKY = lines_on_continuum(np.array([5100.0, 5577.0, 6300.0]), np.array([900.0, 6000.0, 3000.0]), SIGMA, level=25.0)
THROUGHPUT = np.random.default_rng(700).uniform(0.9, 1.1, (NF, 1)) * np.ones(NX)
SCALE = FluxScale(exptime=600.0, area=5e5, transparency=0.9, profile_scale=4.6)
RESPONSE = np.interp(GRID, *FACTS.response())
DEAD = 200


def star_share(x=0.3, y=-0.4, fwhm=1.6, beta=3.5, disk=0.0):
    """Share of the star's light (or a galaxy's) in each native sample, along the channel's own refraction path."""
    path = FACTS.refraction()
    middle = 0.5 * (FACTS.wave_min + FACTS.wave_max)
    nodes = np.linspace(WAVE.min(), WAVE.max(), 40)
    dx, dy = (
        np.interp(nodes, path["wavelength"], path[k]) - np.interp(middle, path["wavelength"], path[k])
        for k in ("x", "y")
    )
    at = lenslet_fractions(POSITIONS, x + dx, y + dy, fwhm * (nodes / middle) ** -0.2, beta, disk=disk)
    return np.stack([np.interp(WAVE[f], nodes, at[:, f]) for f in range(NF)])


def exposure(star, seed=701):
    """What 05_extract and 06_sky hand over for a field with a star [e-/A]."""
    rng = np.random.default_rng(seed)
    factor = THROUGHPUT * STEP
    sky = SKY(WAVE) * factor
    light = sky + star * factor
    variance = light + 10.0
    amplitude = light + np.sqrt(variance) * rng.normal(size=light.shape)
    mask = np.zeros(light.shape, np.uint8)
    mask[DEAD] = DQ.DEADFIBER
    mask[50, 300] = DQ.LOSTWEIGHT
    amplitude[50, 300] = 1e7
    amplitude[DEAD] = variance[DEAD] = 0
    limits = float(WAVE.min()) - 3, float(WAVE.max()) + 3
    spectrum = fit_common(WAVE, SKY(WAVE), np.ones(WAVE.shape), step=STEP, limits=limits)
    arrays = {
        "sky": sky, "sky_variance": 1e-3 * sky, "wavelength": WAVE, "factor": factor, "gradient": np.ones(NF),
        "extra": np.zeros(WAVE.shape), "coef": spectrum.coef, "mask": mask,
    }  # fmt: skip
    meta = {
        "start": spectrum.start,
        "step": spectrum.step,
        "level_scatter": 0.003,
        "prior": SourcePrior().to_dict(),
        "companion": None,
    }
    alive = np.arange(NF) != DEAD
    cal = SimpleNamespace(alive=alive, lsf=np.full(WAVE.shape, 1.9), positions=POSITIONS)
    return cal, {"amplitude": amplitude, "variance": variance, "coupling": np.zeros((NF, 3))}, Bundle(arrays, meta)


@pytest.fixture(scope="module")
def star():
    """A star of 800 e-/A: (result, true flux on the grid)."""
    parts = exposure(800.0 * star_share())
    return calibrate("orange", *parts, SCALE, RESPONSE, FluxOptions()), 800.0 * SCALE.factor * RESPONSE


@pytest.fixture(scope="module")
def blank():
    return calibrate("orange", *exposure(0.0), SCALE, RESPONSE, FluxOptions(central_wave=5577.0, wavelength_bin=30.0))


INNER = slice(40, -40)


def test_what_is_held_while_the_source_moves_gives_the_same():
    """Rectified once, measured for one place after another: bit by bit what a calibration from the beginning gives."""
    parts = exposure(800.0 * star_share())
    even = rectified("orange", *parts, SCALE, RESPONSE)
    for place in ((0.3, -0.4), (0.9, 0.1)):
        options = FluxOptions(5600.0, 30.0, *place, extraction="aperture", aperture=1.5)
        whole = calibrate("orange", *parts, SCALE, RESPONSE, options)
        found = measured(even, options)
        assert np.array_equal(found.spectrum.flux, whole.spectrum.flux)
        assert np.array_equal(found.spectrum.error, whole.spectrum.error)
        assert (found.source.fwhm, found.limit) == (whole.source.fwhm, whole.limit)
        assert np.array_equal(collapsed_image(even, whole.source, 5600.0, 30.0)[0], whole.collapsed)


def test_flux_of_the_star(star):
    """Within 2 % over the channel, without a trend; errors that are its scatter."""
    result, truth = star
    ratio = (result.spectrum.flux / truth)[INNER]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.02)
    bins = ratio[:1980].reshape(10, -1).mean(axis=1)
    assert np.ptp(bins) < 0.025
    pull = ((result.spectrum.flux - truth * ratio.mean()) / result.spectrum.error)[INNER]
    # The grid is finer than the pixels: neighbours share their noise, each has the scatter of its error.
    assert np.std(pull) == pytest.approx(1.0, abs=0.15)


def test_source_and_the_line_of_the_log(star, blank):
    result, _ = star
    assert (result.source.x, result.source.y) == pytest.approx((0.3, -0.4), abs=0.02)
    assert result.source.fwhm == pytest.approx(1.6, abs=0.05)
    line = result.log_line("HZ_44_056_E", "orange")
    assert line.startswith("HZ_44_056_E, orange: source found at s/n: ")
    assert line.endswith(f"fwhm: {result.source.fwhm:.2f}")
    assert blank.source is None
    assert blank.log_line("X", "orange").startswith("X, orange: No source found, s/n too low: ")


def test_flux_of_the_sky(star):
    result, _ = star
    alive = np.arange(NF) != DEAD
    truth = SKY(GRID) * SCALE.factor * RESPONSE
    error = (result.sky[alive] / truth - 1)[:, INNER]
    assert abs(error.mean()) < 1e-3
    assert np.abs(error).max() < 0.03


def test_noise_of_blank_spectra_is_their_error(blank):
    good = blank.error > 0
    pull = (blank.skysub / np.where(good, blank.error, 1.0))[:, INNER]
    take = good[:, INNER]
    assert np.std(pull[take]) == pytest.approx(1.0, abs=0.03)
    assert abs(pull[take].mean()) < 0.01
    assert blank.correlation[0] > 0.5  # 3.4 grid points per pixel


def test_bad_elements_have_no_error_and_a_reason(star):
    result, _ = star
    assert not result.error[DEAD].any()
    assert (result.dq[DEAD] & DQ.DEADFIBER > 0).all()
    assert not result.skysub[DEAD].any()
    hit = np.argmin(np.abs(GRID - WAVE[50, 300]))
    assert result.error[50, hit] == 0
    assert result.dq[50, hit] & DQ.LOSTWEIGHT
    assert np.abs(result.skysub[50]).max() < 100 * np.median(result.error[50])
    fine = np.arange(NF) != DEAD
    assert (result.error[fine][:, INNER] == 0).mean() < 1e-3
    assert ((result.error == 0) == (result.dq & ~np.uint8(DQ.COSMIC) > 0)).mean() > 0.999


def test_without_a_source_there_is_a_limit(blank):
    assert not blank.spectrum.flux.any()
    assert blank.shapes is None
    # Five times the error of an optimal extraction in mid-field.
    share = star_share(0.0, 0.0, 1.5)
    middle = np.argmin(np.abs(GRID - WAVE[0, 300]))
    var = blank.error[:, middle] ** 2
    one = 1 / np.sqrt((share[:, 300] ** 2 / np.where(var > 0, var, np.inf)).sum())
    assert blank.limit / (5 * one) == pytest.approx(1.0, abs=0.25)


def test_cubes_add_up_and_the_collapse_is_where_it_was_asked(blank, star):
    for result in (blank, star[0]):
        obs, sky, skysub = (result.cubes[k] for k in ("obs", "sky", "skysub"))
        assert np.allclose(obs, sky + skysub, rtol=0, atol=1e-6 * sky.max())
        assert obs.shape == (GRID.size, result.spaxels.y.size, result.spaxels.x.size)
    assert (blank.centre, blank.half_width) == (5577.0, 30.0)
    assert star[0].centre == pytest.approx(0.5 * (GRID[0] + GRID[-1]))
    image = star[0].collapsed
    j, i = np.unravel_index(np.argmax(image), image.shape)
    assert (star[0].spaxels.x[i], star[0].spaxels.y[j]) == pytest.approx((0.3, -0.4), abs=0.5)


def test_line_widths_in_angstrom(star):
    assert np.allclose(star[0].lsf, 1.9 * STEP, rtol=1e-6)


def test_sky_on_the_grid_is_the_model_not_an_interpolation():
    """Evaluated anew with each fibre's line width; zero where the fibre does not reach."""
    _, _, sky = exposure(0.0)
    sky.arrays["extra"] = np.full(WAVE.shape, 4.0)
    density, variance = sky_on_grid(sky, WAVE, GRID, THROUGHPUT * STEP)
    inside = (GRID > 5500) & (GRID < 5650)
    assert np.abs(density[10, inside] / SKY(GRID[inside], 4.0) - 1).max() < 0.02
    assert (variance[:, INNER] > 0).all()
    far = np.concatenate([[4000.0], GRID, [8000.0]])
    density, _ = sky_on_grid(sky, WAVE, far, THROUGHPUT * STEP)
    assert not density[:, [0, -1]].any()


def test_fixed_position_needs_both_coordinates():
    assert FluxOptions(source_x=1.0).fixed is None
    assert FluxOptions(source_x=1.0, source_y=-2.0).fixed == (1.0, -2.0)
    assert FluxOptions().fixed is None


def test_second_source_is_told_from_the_first():
    """A third of the star's light, 1.9 arcsec beside it: without its model the star would get a tenth of it."""
    cal, spectra, sky = exposure(800.0 * star_share() + 270.0 * star_share(2.0, 0.4))
    middle = 0.5 * (FACTS.wave_min + FACTS.wave_max)
    same = {
        "wave_ref": middle,
        "fwhm": 1.6,
        "exponent": -0.2,
        "beta": 3.5,
        "snr": 99.0,
        "error": {},
        "shear": [0, 0],
        "path": [0, 0],
        "disk": False,
    }
    sky.meta["source"] = {"x": 0.3, "y": -0.4, **same}
    sky.meta["companion"] = {"x": 2.0, "y": 0.4, **same}
    result = calibrate("orange", cal, spectra, sky, SCALE, RESPONSE, FluxOptions())
    ratio = (result.spectrum.flux / (800.0 * SCALE.factor * RESPONSE))[INNER]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.02)
    assert (result.source.x, result.source.y) == pytest.approx((0.3, -0.4), abs=0.03)
    assert "COMPANION" in [d.code for d in result.decisions]
    sky.meta["companion"] = None
    alone = calibrate("orange", cal, spectra, sky, SCALE, RESPONSE, FluxOptions())
    assert np.mean((alone.spectrum.flux / (800.0 * SCALE.factor * RESPONSE))[INNER]) > 1.04


def known_star(x: float, y: float) -> dict:
    """What 06_sky hands over of a star."""
    middle = 0.5 * (FACTS.wave_min + FACTS.wave_max)
    shape = {"fwhm": 1.6, "exponent": -0.2, "beta": 3.5, "snr": 99.0, "error": {}}
    return {"x": x, "y": y, "wave_ref": middle, "shear": [0, 0], "path": [0, 0], "disk": False, **shape}


@pytest.mark.parametrize("known", [False, True])
def test_a_place_given_beside_a_brighter_star_is_measured_alone(known):
    """A twentieth of the star's light, 2.6 arcsec beside it, whether or not the sky stage knew of it; the star is not changed."""
    cal, spectra, sky = exposure(4000.0 * star_share() + 200.0 * star_share(2.8, 0.4))
    sky.meta["source"], sky.meta["companion"] = known_star(0.3, -0.4), known_star(2.8, 0.4) if known else None
    result = calibrate("orange", cal, spectra, sky, SCALE, RESPONSE, FluxOptions(source_x=2.8, source_y=0.4))
    ratio = (result.spectrum.flux / (200.0 * SCALE.factor * RESPONSE))[INNER]
    pull = ((result.spectrum.flux - 200.0 * SCALE.factor * RESPONSE) / result.spectrum.error)[INNER]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.03)
    assert np.std(pull) < 1.15
    assert (result.source.x, result.source.y) == (2.8, 0.4)
    assert 150 < result.source.snr < 300  # the bright one: above a thousand
    assert result.source.path == (0.0, 0.0)
    assert "COMPANION" in [d.code for d in result.decisions]
    star = calibrate("orange", cal, spectra, sky, SCALE, RESPONSE, FluxOptions(source_x=0.3, source_y=-0.4))
    ratio = (star.spectrum.flux / (4000.0 * SCALE.factor * RESPONSE))[INNER]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.01 if known else 0.05)


def test_what_bright_neighbours_leave_is_not_taken_for_the_fainter_source():
    """Where the fainter of two is the one to be measured, it is looked for where it stands, not where most light is left."""
    cal, spectra, sky = exposure(9000.0 * star_share(-2.0, -0.4, 1.9) + 150.0 * star_share(3.3, 0.8))
    sky.meta["source"], sky.meta["companion"] = known_star(3.3, 0.8), known_star(-2.0, -0.4)
    result = calibrate("orange", cal, spectra, sky, SCALE, RESPONSE, FluxOptions())
    assert (result.source.x, result.source.y) == pytest.approx((3.3, 0.8), abs=0.2)


def test_all_light_of_an_extended_object_is_that_of_its_disk():
    """An exponential galaxy of 3 arcsec FWHM: a Moffat's wings would add a tenth and more, most of it outside of the field."""
    fwhm, steep = 3.0, 1.5
    cal, spectra, sky = exposure(1500.0 * star_share(-1.0, 0.3, fwhm, steep, 1.0))
    sky.meta["source"] = {**known_star(-1.0, 0.3), "fwhm": fwhm, "beta": steep, "disk": 1.0}
    ratios = []
    for source in (sky.meta["source"], None):
        sky.meta["source"] = source
        result = calibrate("orange", cal, spectra, sky, SCALE, RESPONSE, FluxOptions())
        ratios.append(np.mean((result.spectrum.flux / (1500.0 * SCALE.factor * RESPONSE))[INNER]))
        assert (result.source.disk > 0) == (source is not None)
    assert ratios[0] == pytest.approx(1.0, abs=0.03)
    assert ratios[1] > 1.06
