"""The point source of a field: search, fit, extraction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from panacea_nb.instrument import channel
from panacea_nb.reduce.companion import at_wavelength
from panacea_nb.reduce.optimal import extract_source
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction, path_decision, path_scale, scaled_path
from panacea_nb.reduce.source import PointSource, find_source, source_shapes
from panacea_nb.reduce.sourceprior import SourcePrior

POSITIONS = channel("orange").fiber_positions()
NF, NW = POSITIONS.shape[0], 360
WAVE = np.linspace(4635.0, 6950.0, NW)
PATH = Refraction(np.array([4600.0, 5500.0, 7000.0]), np.array([0.6, 0.0, -0.5]), np.array([-0.9, 0.0, 0.7]))
MIDDLE = 5800.0
BETA, EXPONENT = 3.2, -0.22
SKY, NOISE = 10.0, 1.0


def light(x, y, fwhm, positions=POSITIONS, shear=(0.0, 0.0), path=PATH):
    """Share of a source's light in each fibre and wavelength (nf, nw), without interpolation between nodes."""
    dx, dy = path.offset(WAVE, MIDDLE)
    return lenslet_fractions(positions, x + dx, y + dy, fwhm * (WAVE / MIDDLE) ** EXPONENT, BETA, shear=shear).T


def field(rng, flux, x=0.4, y=-0.7, fwhm=1.4):
    """Sky-subtracted data, variance, sky, mask; and the source's shares."""
    share = light(x, y, fwhm)
    truth = share * flux
    variance = NOISE**2 * (1 + truth / SKY)
    data = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
    return data, variance, np.full(truth.shape, SKY), np.ones(truth.shape, bool), share


def search(data, variance, sky, good, **options):
    return find_source(POSITIONS, WAVE, data, variance, sky, good, PATH, wave_ref=MIDDLE, **options)


def test_refraction_is_relative_to_its_reference():
    dx, dy = PATH.offset(np.array([4600.0, 5500.0, 7000.0]), 5500.0)
    assert dx == pytest.approx([0.6, 0.0, -0.5])
    assert dy == pytest.approx([-0.9, 0.0, 0.7])
    assert PATH.offset(MIDDLE, MIDDLE) == (0.0, 0.0)


def test_position_width_and_flux_within_their_errors():
    """Four fields of S/N 50: pulls of order one, position within 0.06 arcsec, flux within 3 % on average (the prior of beta)."""
    pulls, fluxes = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        place = rng.uniform(-2, 2, 2)
        data, variance, sky, good, _ = field(rng, 12.0, *place)
        source, found = search(data, variance, sky, good, systematic=0.0)
        assert np.hypot(source.x - place[0], source.y - place[1]) < 0.06
        assert source.fwhm == pytest.approx(1.4, abs=0.11)  # two of its errors
        assert source.exponent == pytest.approx(EXPONENT, abs=0.1)
        fluxes.append(np.average(source.chunk_flux, weights=source.chunk_error**-2))
        assert source.chi == pytest.approx(1.0, abs=0.06)
        assert source.snr > 40
        assert found["best"] == source.snr
        assert not source.extended
        assert source.decisions == []
        pulls.append(
            [
                (source.x - place[0]) / source.error["x"],
                (source.y - place[1]) / source.error["y"],
                (source.fwhm - 1.4) / source.error["fwhm"],
            ]
        )
    assert np.abs(np.array(fluxes) / 12 - 1).max() < 0.06
    assert np.mean(fluxes) == pytest.approx(12.0, rel=0.03)
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1.0, abs=0.45)


@pytest.mark.parametrize("uneven", [0.0, 0.01])
def test_error_of_the_flux_that_all_wavelengths_share(uneven):
    """Place, width and wings are known to some per cent only, and so is the flux; levels of fibres add to it."""
    pulls = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data, variance, sky, good, _ = field(rng, 12.0, *rng.uniform(-2, 2, 2))
        data = data + uneven * sky * rng.normal(size=(NF, 1))
        source, _ = search(data, variance, sky, good, systematic=uneven)
        flux = np.average(source.chunk_flux, weights=source.chunk_error**-2)
        assert 0.03 < source.flux_error < 0.1
        pulls.append((flux / 12.0 - 1) / source.flux_error)
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1.0, abs=0.45)


def test_levels_that_neighbours_share_are_in_the_error_of_the_flux():
    """The same scatter of the fibres' levels counts for more where neighbours go together, as other places of the field show."""
    errors = {}
    for shared in (False, True):
        found = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            data, variance, sky, good, _ = field(rng, 12.0)
            levels = rng.normal(size=NF)
            levels = gaussian_filter1d(levels, 2.0) if shared else levels
            data = data + 0.01 * sky * (levels / levels.std())[:, None]
            found.append(search(data, variance, sky, good, systematic=0.01)[0].flux_error)
        errors[shared] = np.median(found)
    assert errors[True] > 1.15 * errors[False]


def test_faint_source_is_found_where_it_is():
    rng = np.random.default_rng(121)
    data, variance, sky, good, _ = field(rng, 1.6, 1.1, 0.6)
    source, _ = search(data, variance, sky, good, systematic=0.0)
    assert 5.0 < source.snr < 25
    assert abs(source.x - 1.1) < 4 * source.error["x"]
    assert abs(source.y - 0.6) < 4 * source.error["y"]
    assert source.error["x"] < 0.15
    assert np.average(source.chunk_flux, weights=source.chunk_error**-2) == pytest.approx(1.6, rel=0.25)


def test_blank_fields_have_no_source():
    """The best candidate of noise stays below the threshold, in four fields."""
    best = []
    for seed in range(4):
        rng = np.random.default_rng(200 + seed)
        source, found = search(*field(rng, 0.0)[:4], systematic=0.0)
        assert source is None
        best.append(found["best"])
    assert 2 < np.mean(best) < 4.5


def test_uneven_fibres_are_no_source():
    """Levels off by 0.3 % of a bright sky from fibre to fibre: the systematic term keeps them from being a detection."""
    rng = np.random.default_rng(131)
    data, variance, sky, good, _ = field(rng, 0.0)
    sky = sky * 100
    data = data + 0.003 * sky * rng.normal(size=(NF, 1))
    assert search(data, variance, sky, good, systematic=0.003)[0] is None
    assert search(data, variance, sky, good, systematic=0.0)[0] is not None


def test_source_on_the_edge_of_the_field():
    """Its centre 0.3 arcsec inside the last lenslets: half of the light is lost, its flux is known all the same."""
    rng = np.random.default_rng(141)
    x = POSITIONS[:, 0].max() - 0.1
    data, variance, sky, good, share = field(rng, 25.0, x, 0.2)
    assert share.sum(axis=0).mean() < 0.75
    source, _ = search(data, variance, sky, good, systematic=0.0)
    assert source.x == pytest.approx(x, abs=0.06)
    assert source.y == pytest.approx(0.2, abs=0.05)
    shape = source_shapes(source, POSITIONS, WAVE, PATH)
    spectrum = extract_source(shape, data, variance, sky, good)
    assert np.average(spectrum.flux, weights=spectrum.error**-2) == pytest.approx(25.0, rel=0.06)
    assert spectrum.share == pytest.approx(share.sum(axis=0), abs=0.04)


def test_source_outside_the_field_says_so():
    rng = np.random.default_rng(142)
    x = POSITIONS[:, 0].max() + 1.0
    source, _ = search(*field(rng, 200.0, x, 0.2)[:4], systematic=0.0)
    assert source.x > POSITIONS[:, 0].max() + 0.5
    assert "SRCEDGE" in [d.code for d in source.decisions]


def test_source_of_lines_alone():
    """No continuum; one line in ten pixels, which the sum over the channel does not show."""
    rng = np.random.default_rng(151)
    flux = np.zeros(NW)
    flux[203:209] = 28.0
    data, variance, sky, good, _ = field(rng, flux, -1.5, 0.9)
    source, found = search(data, variance, sky, good, systematic=0.0)
    assert source is not None
    assert found["line"] == pytest.approx(WAVE[205], abs=8 * (WAVE[1] - WAVE[0]))
    assert (source.x, source.y) == pytest.approx((-1.5, 0.9), abs=0.2)


@pytest.mark.parametrize("width", [24, 30])
def test_source_of_a_broad_line_alone(width):
    """A quasar's line over many pixels: too little in ten of them, in the whole channel lost."""
    rng = np.random.default_rng(152)
    flux = np.zeros(NW)
    flux[270 : 270 + width] = 45.0 / np.sqrt(width)
    data, variance, sky, good, _ = field(rng, flux, -1.5, 0.9)
    source, found = search(data, variance, sky, good, systematic=0.0)
    assert source is not None
    assert (source.x, source.y) == pytest.approx((-1.5, 0.9), abs=0.3)
    assert found["line"] == pytest.approx(WAVE[270 + width // 2], abs=(width / 2 + 10) * (WAVE[1] - WAVE[0]))


def test_uneven_fibres_under_a_sky_line_are_no_line_of_a_source():
    """A bright sky line seen through levels off by 1 %, which the sky's own scatter tells."""
    rng = np.random.default_rng(153)
    data, variance, sky, good, _ = field(rng, 0.0)
    sky = sky * (1 + 300 * (np.abs(np.arange(NW) - 205) < 4))
    data = data + 0.01 * sky * rng.normal(size=(NF, 1))
    assert search(data, variance, sky, good, systematic=0.01)[0] is None
    assert search(data, variance, sky, good, systematic=0.001)[0] is not None


def test_position_given_by_the_user_is_held():
    rng = np.random.default_rng(161)
    data, variance, sky, good, _ = field(rng, 12.0, 0.4, -0.7)
    source, _ = search(data, variance, sky, good, fixed=(0.5, -0.7))
    assert (source.x, source.y, source.fixed) == (0.5, -0.7, True)
    assert np.isnan(source.error["x"])
    assert source.fwhm == pytest.approx(1.4, abs=0.15)
    nothing, _ = search(*field(rng, 0.0)[:4], fixed=(0.5, -0.7))
    assert nothing is not None


def test_masked_fibres_do_not_move_the_source():
    rng = np.random.default_rng(171)
    data, variance, sky, good, _ = field(rng, 20.0)
    near = np.argsort(np.hypot(POSITIONS[:, 0] - 0.4, POSITIONS[:, 1] + 0.7))[:3]
    good[near[1]] = False
    data[near[1]] = -1e6
    source, _ = search(data, variance, sky, good, systematic=0.0)
    assert (source.x, source.y) == pytest.approx((0.4, -0.7), abs=0.04)


def test_wide_object_is_extended():
    fwhm = 4.0
    rng = np.random.default_rng(181)
    source, _ = search(*field(rng, 60.0, 0.3, 0.2, fwhm)[:4], systematic=0.0)
    assert source.extended
    assert source.fwhm == pytest.approx(fwhm, rel=0.15)


def made_source(**changes):
    facts = {"x": 0.4, "y": -0.7, "fwhm": 1.4, "exponent": EXPONENT, "beta": BETA}
    facts |= changes
    none = np.zeros(1)
    return PointSource(
        facts["x"],
        facts["y"],
        MIDDLE,
        facts["fwhm"],
        facts["exponent"],
        facts["beta"],
        0.0,
        {},
        True,
        0.0,
        none,
        none,
        none,
    )


def test_an_oval_image_does_not_spoil_the_wings():
    """Guiding makes a bright star's image oval by a twentieth: its faint wings, on which the sky stands, are still within 2 %."""
    rng = np.random.default_rng(150)
    shear = (0.05, -0.04)
    share = light(0.4, -0.7, 1.4, shear=shear)
    truth = 2.0e4 * share
    variance = NOISE**2 * (1 + truth / SKY)
    data = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
    source, _ = search(data, variance, np.full(truth.shape, SKY), np.ones(truth.shape, bool), systematic=0.0)
    assert source.shear == pytest.approx(shear, abs=0.003)
    assert source.beta == pytest.approx(BETA, abs=0.02)
    assert source.unexplained < 0.003
    found = source_shapes(source, POSITIONS, WAVE, PATH)
    far = share.mean(axis=1) < 2e-4
    assert far.sum() > 40
    assert found[far].sum() / share[far].sum() == pytest.approx(1.0, abs=0.02)


def star(rng, flux, path, noise=NOISE):
    share = light(0.4, -0.7, 1.4, path=path)
    truth = flux * share
    variance = noise**2 * (1 + truth / SKY)
    return truth + np.sqrt(variance) * rng.normal(size=truth.shape), variance, np.full(truth.shape, SKY), np.ones(truth.shape, bool)


def test_a_star_shows_that_its_path_is_longer_and_turned():
    """The zenith distance is not the usual one: the path is 12 % longer and turned by 4 degrees."""
    turn = np.radians(4.0)
    along, across = 1.12 * np.cos(turn) - 1, 1.12 * np.sin(turn)
    x, y = (1.12 * v for v in (np.cos(turn) * PATH.x - np.sin(turn) * PATH.y, np.sin(turn) * PATH.x + np.cos(turn) * PATH.y))
    path = Refraction(PATH.wavelength, x, y)
    source, _ = search(*star(np.random.default_rng(161), 2.0e3, path), systematic=0.0)
    assert source.path == pytest.approx((along, across), abs=0.003)
    scale, degrees = path_scale(source.path)
    assert scale == pytest.approx(1.12, abs=0.004)
    assert degrees == pytest.approx(4.0, abs=0.2)
    assert scaled_path(scale, degrees) == pytest.approx(source.path)
    assert [d.code for d in source.decisions] == ["REFRPATH"]
    truth = light(0.4, -0.7, 1.4, path=path)
    assert np.abs(source_shapes(source, POSITIONS, WAVE, PATH) - truth).max() < 0.01 * truth.max()
    found, wanted = source.refracted(PATH).offset(WAVE, MIDDLE), path.offset(WAVE, MIDDLE)
    assert np.abs(np.subtract(found, wanted)).max() < 0.004
    moved = at_wavelength(source, 5000.0, PATH)
    assert (moved.x - 0.4, moved.y + 0.7) == pytest.approx([float(v) for v in path.offset(5000.0, MIDDLE)], abs=0.01)
    # what is expected of it serves where its own light is too weak to show it
    weak = star(np.random.default_rng(162), 4.0, path)
    assert search(*weak, systematic=0.0)[0].path == (0.0, 0.0)
    told, _ = search(*weak, systematic=0.0, prior=SourcePrior(path=source.path))
    assert told.path == source.path
    assert told.decisions == []


@pytest.mark.parametrize("flux", [12.0, 2.0e3, 1.0e5])
def test_the_usual_path_stays_the_tables(flux):
    for seed in range(3):
        source, _ = search(*star(np.random.default_rng(170 + seed), flux, PATH), systematic=0.0)
        assert source.path == (0.0, 0.0)


def test_a_faint_source_is_as_round_as_stars_are():
    rng = np.random.default_rng(151)
    data, variance, sky, good, _ = field(rng, 4.0, 1.1, 0.6)
    source, _ = search(data, variance, sky, good, systematic=0.0)
    assert np.hypot(*source.shear) < 0.06
    assert 0.03 < source.error["shear"] < 0.06


def test_shapes_between_nodes_are_those_of_each_wavelength():
    shape = source_shapes(made_source(), POSITIONS, WAVE, PATH)
    assert shape.shape == (NF, NW)
    assert np.abs(shape - light(0.4, -0.7, 1.4)).max() < 0.008 * shape.max()
    native = WAVE[None, :] + np.linspace(-2, 2, NF)[:, None]
    two = source_shapes(made_source(), POSITIONS, native, PATH)
    assert two.shape == (NF, NW)
    assert two[100, 50] == pytest.approx(float(np.interp(native[100, 50], WAVE, shape[100])), rel=1e-3)


def test_extracted_spectrum_has_its_flux_and_its_errors():
    """A sloped spectrum with a line: unbiased, scatter = error within 4 %, optimal noise."""
    rng = np.random.default_rng(191)
    flux = 8.0 + 3 * np.linspace(-1, 1, NW)
    flux[150:154] += 30.0
    pulls, spectra = [], []
    shape = light(0.4, -0.7, 1.4)
    for _ in range(8):
        data, variance, sky, good, _ = field(rng, flux)
        spectrum = extract_source(shape, data, variance, sky, good)
        pulls.append((spectrum.flux - flux) / spectrum.error)
        spectra.append(spectrum)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.04)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(8 * NW)
    assert spectrum.error == pytest.approx(1 / np.sqrt((shape**2 / variance).sum(axis=0)), rel=1e-9)
    # Sky through the same weights: what a uniform sky adds to this source's flux.
    weight = shape / variance / (shape**2 / variance).sum(axis=0)
    assert spectrum.sky == pytest.approx(SKY * weight.sum(axis=0), rel=1e-9)
    assert spectrum.share == pytest.approx(shape.sum(axis=0), rel=1e-9)


def test_extraction_without_the_brightest_fibre_still_has_all_of_the_flux():
    rng = np.random.default_rng(192)
    data, variance, sky, good, shape = field(rng, 20.0)
    good[np.argmax(shape[:, NW // 2])] = False
    spectrum = extract_source(shape, data, variance, sky, good)
    assert np.average(spectrum.flux, weights=spectrum.error**-2) == pytest.approx(20.0, rel=0.01)


def test_wavelength_without_any_fibre_is_zero():
    rng = np.random.default_rng(193)
    data, variance, sky, good, shape = field(rng, 20.0)
    good[:, 77] = False
    spectrum = extract_source(shape, data, variance, sky, good)
    assert (spectrum.flux[77], spectrum.error[77], spectrum.sky[77], spectrum.share[77]) == (0, 0, 0, 0)
    assert (spectrum.error[:77] > 0).all()


def test_two_sources_are_told_apart_with_errors_that_are_their_scatter():
    """2 arcsec apart, a sky that is off in all fibres; the sky under the first is that of its own shape."""
    rng = np.random.default_rng(171)
    first, second = light(0.4, -0.7, 1.4), light(-1.5, -0.2, 1.4)
    variance = NOISE**2 * (1 + (first * 1000 + second * 4000) / SKY)
    shared = np.full(first.shape, NOISE)
    off = NOISE * rng.normal(size=(1, NW))
    data = first * 1000 + second * 4000 + np.sqrt(variance) * rng.normal(size=first.shape) + off
    given = data, variance + shared**2, np.full(first.shape, SKY), np.ones(first.shape, bool), shared
    found = extract_source(first, *given, beside=[second])
    alone = extract_source(first, *given)
    assert np.std((found.flux - 1000) / found.error) == pytest.approx(1.0, abs=0.1)
    assert found.flux.mean() == pytest.approx(1000, rel=3e-3)
    assert alone.flux.mean() > 1050
    assert found.sky == pytest.approx(alone.sky, rel=1e-9)
    same = extract_source(first, *given, beside=[first.copy()])
    assert not same.error.any()
    assert not same.flux.any()


def test_an_error_that_all_fibres_share_is_in_the_errors_and_mostly_taken_out():
    """A bright star over a sky that is off by as much as a fibre's noise, the same in all fibres at a wavelength."""
    rng = np.random.default_rng(170)
    shape = light(0.4, -0.7, 1.4)
    flux = 4000.0
    variance = NOISE**2 * (1 + shape * flux / SKY)
    shared = np.full(shape.shape, NOISE)
    off = NOISE * rng.normal(size=(1, NW))
    data = shape * flux + np.sqrt(variance) * rng.normal(size=shape.shape) + off
    known = extract_source(shape, data, variance + shared**2, np.full(shape.shape, SKY), np.ones(shape.shape, bool), shared)
    plain = extract_source(shape, data, variance + shared**2, np.full(shape.shape, SKY), np.ones(shape.shape, bool))
    assert np.std((known.flux - flux) / known.error) == pytest.approx(1.0, abs=0.1)
    assert known.flux.mean() == pytest.approx(flux, rel=1e-3)
    assert np.std(plain.flux) > 1.5 * np.std(known.flux)
    assert np.std((plain.flux - flux) / plain.error) > 1.3


def test_what_neighbouring_fibres_share_is_in_the_error():
    """Errors correlated by -0.1 from fibre to fibre, as the extraction of overlapping profiles leaves them."""
    rng = np.random.default_rng(171)
    shape = light(0.4, -0.7, 2.0)
    nf, flux, coupling = shape.shape[0], 900.0, -0.1
    variance = NOISE**2 * (1 + shape * flux / SKY)
    near = np.eye(nf) + coupling * (np.eye(nf, k=1) + np.eye(nf, k=-1))
    noise = np.linalg.cholesky(near) @ rng.normal(size=shape.shape)
    data = shape * flux + np.sqrt(variance) * noise
    given = data, variance, np.full(shape.shape, SKY), np.ones(shape.shape, bool), np.zeros(shape.shape)
    known = extract_source(shape, *given, np.full(shape.shape, coupling))
    plain = extract_source(shape, *given)
    assert np.array_equal(known.flux, plain.flux)
    assert np.std((known.flux - flux) / known.error) == pytest.approx(1.0, abs=0.05)
    assert np.std((plain.flux - flux) / plain.error) < 0.92


def test_where_an_element_lies_between_samples_does_not_weight_it():
    """A shape that is a little too narrow, and variances that change with the interpolation: no noise comes of the two."""
    rng = np.random.default_rng(172)
    gain = rng.uniform(0.6, 1.0, (NF, NW))
    true, taken, flux = light(0.4, -0.7, 1.45), light(0.4, -0.7, 1.4), 4000.0
    variance = NOISE**2 * (1 + true * flux / SKY) * gain
    given = variance, np.full(true.shape, SKY), np.ones(true.shape, bool), None, None
    known, plain = (extract_source(taken, true * flux, *given, *more) for more in ((gain,), ()))
    assert np.std(np.diff(known.flux)) < 1e-5 * flux
    assert np.std(np.diff(plain.flux)) > 3e-4 * flux
    data = true * flux + np.sqrt(variance) * rng.normal(size=true.shape)
    noisy = extract_source(taken, data, *given, gain)
    assert np.std((noisy.flux - known.flux) / noisy.error) == pytest.approx(1.0, abs=0.06)


def test_a_share_of_light_that_no_model_explains_is_told():
    """Of a star: none; of two that are all but one: some per cent; of a faint one, whose noise hides it: none."""
    rng = np.random.default_rng(173)
    data, variance, sky, good, _ = field(rng, 3e4)
    assert search(data, variance, sky, good)[0].unexplained < 0.005
    beside = 3e3 * light(1.3, -0.2, 1.4)
    found = search(data + beside, variance, sky, good)[0]
    assert 0.01 < found.unexplained < 0.1
    assert found.flux_error > found.unexplained
    assert search(*field(rng, 40.0)[:4])[0].unexplained == 0.0


def test_blobs_that_neighbours_share_are_no_source():
    """Levels of fibres that wander together by half of their noise over a channel: no detection; with a source in it: one."""
    rng = np.random.default_rng(171)
    slow = np.convolve(rng.normal(size=NF + 40), np.ones(20) / np.sqrt(20), mode="valid")[:NF, None]
    data = NOISE * rng.normal(size=(NF, NW)) + 1.5 * NOISE / np.sqrt(NW) * slow
    variance, sky, good = np.full(data.shape, NOISE**2), np.full(data.shape, SKY), np.ones(data.shape, bool)
    source, found = search(data, variance, sky, good, systematic=0.0)
    assert source is None
    assert found["best"] < 5.0 < found["snr"].max()
    source, _ = search(data + 8.0 * light(0.4, -0.7, 1.4), variance, sky, good, systematic=0.0)
    assert np.hypot(source.x - 0.4, source.y + 0.7) < 0.3


def test_place_is_told_from_how_the_light_changes_where_levels_are_uncertain():
    """Fibres off by some electrons in every column, under a source that grows along the spectrum; against a lower weight alone."""
    rng = np.random.default_rng(174)
    slope = np.linspace(0.3, 1.7, NW)
    shape, found = light(0.4, -0.7, 1.4), []
    variance, sky, good = np.full(shape.shape, NOISE**2), np.full(shape.shape, SKY), np.ones(shape.shape, bool)
    scatter = 4 * NOISE / np.sqrt(NW)
    for _ in range(12):
        data = 150.0 * slope * shape + NOISE * rng.normal(size=shape.shape) + scatter * rng.normal(size=(NF, 1))
        known = search(data, variance, sky, good, systematic=scatter / SKY, electron=np.ones(shape.shape))[0]
        flat = search(data, variance, sky, good, systematic=scatter / SKY)[0]
        found.append([np.hypot(s.x - 0.4, s.y + 0.7) for s in (known, flat)] + [(known.x - 0.4) / known.error["x"]])
    known, flat, pull = np.sqrt(np.mean(np.square(found), axis=0))
    assert known < 0.8 * flat
    assert 0.5 < pull < 1.5


def test_a_path_that_no_air_makes_is_not_followed():
    """A source whose blue light lies aside, as of two stars: the table's path is kept, and it is told."""
    path = Refraction(PATH.wavelength, 1.9 * PATH.x, 1.9 * PATH.y)
    source, _ = search(*star(np.random.default_rng(163), 2.0e3, path), systematic=0.0)
    assert source.path == (0.0, 0.0)
    assert [(d.code, d.severity) for d in source.decisions] == [("REFRPATH", "warn")]


@pytest.mark.parametrize(("scale", "turn", "severity"), [(1.2, 15.0, "info"), (1.44, -44.0, "warn"), (0.6, 0.0, "warn")])
def test_a_path_that_no_air_makes_is_warned_of(scale, turn, severity):
    decision = path_decision(scaled_path(scale, turn))
    assert decision.code == "REFRPATH"
    assert decision.severity == severity
    assert f"{scale:.2f} times" in decision.text
