"""Sums over a circle and over a region: flux, error and corrections against a known source."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import LENSLET_PITCH, channel
from panacea_nb.reduce.aperture import cover, extract_as_asked, isophote, sum_over
from panacea_nb.reduce.optimal import extract_source
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction
from panacea_nb.reduce.skyregion import Region, Shape, parse_region
from panacea_nb.reduce.source import PointSource, source_shapes

POSITIONS = channel("orange").fiber_positions()
NF, NW = POSITIONS.shape[0], 300
WAVE = np.linspace(4635.0, 6950.0, NW)
PATH = Refraction(np.array([4600.0, 7000.0]), np.array([0.5, -0.5]), np.array([-0.8, 0.8]))
MIDDLE = 5800.0
PLACE = (POSITIONS, WAVE, PATH, MIDDLE)
FLUX = 40.0 + 10.0 * np.linspace(-1, 1, NW)
NONE = np.zeros(1)


def star(x=0.4, y=-0.3, fwhm=1.4, beta=3.5):
    return PointSource(x, y, MIDDLE, fwhm, -0.2, beta, 50.0, {}, True, 1.0, NONE, NONE, NONE)


def light(source, seed=830):
    """Value, variance, sky, good; and the shape of the source."""
    shape = source_shapes(source, POSITIONS, WAVE, PATH)
    variance = 1.0 + shape * FLUX / 10
    value = shape * FLUX + np.sqrt(variance) * np.random.default_rng(seed).normal(size=shape.shape)
    return (value, variance, np.full(shape.shape, 3.0), np.ones(shape.shape, bool)), shape


def take(source, data, shape, how="aperture", radius=1.2, correct=True, region=""):
    value, variance, sky, good = data
    psf = extract_source(shape, value, variance, sky, good)
    return extract_as_asked(how, radius, correct, region, psf, shape, source, data, PLACE)


def mean(spectrum):
    return np.average(spectrum.flux / FLUX, weights=(FLUX / spectrum.error) ** 2)


@pytest.mark.parametrize(("radius", "x"), [(0.8, 0.4), (1.5, 0.4), (2.5, -1.1), (1.5, 5.6)])
def test_corrected_flux_is_all_of_the_stars(radius, x):
    """Also of one whose circle reaches out of the field; errors are the scatter; no trend, for the circle follows refraction."""
    source = star(x)
    data, shape = light(source)
    spectrum, taken = take(source, data, shape, radius=radius)
    pull = (spectrum.flux - FLUX) / spectrum.error
    assert np.std(pull) == pytest.approx(1.0, abs=0.13)
    assert abs(pull.mean()) < 4 / np.sqrt(NW)
    bins = (spectrum.flux / FLUX).reshape(6, -1).mean(axis=1)
    assert np.ptp(bins) < 5 * np.mean(spectrum.error / FLUX) * np.sqrt(6 / NW)
    assert taken.how == "aperture"
    assert taken.radius == radius
    held = (cover(Region((Shape("circle", (x, -0.3, radius)),), ""), *PLACE) * shape).sum(axis=0)
    assert taken.correction == pytest.approx(1 / np.median(held), rel=1e-9)
    assert mean(extract_source(shape, *data)) == pytest.approx(mean(spectrum), abs=0.02)


def test_light_in_the_circle_is_that_of_a_moffat():
    """Against the closed form 1 - (1 + r^2 / alpha^2)^(1 - beta), without a correction."""
    source, radius = star(0.4, -0.3), 1.6
    shape = source_shapes(source, POSITIONS, WAVE, PATH)
    exact = shape * FLUX, np.ones(shape.shape), np.zeros(shape.shape), np.ones(shape.shape, bool)
    spectrum, taken = take(source, exact, shape, radius=radius, correct=False)
    alpha = 0.7 / np.sqrt(2 ** (1 / 3.5) - 1)
    share = 1 - (1 + (radius / alpha) ** 2) ** -2.5
    # The light of a lenslet across the border is shared by its area.
    assert np.median(spectrum.flux / FLUX) == pytest.approx(share, abs=0.02)
    assert taken.correction is None


def test_error_and_sky_of_a_uniform_field():
    """Sum of n lenslets of unit error: the root of the sum of squared parts; the sky is area times sky."""
    source = star()
    data, shape = light(source)
    flat = (np.zeros(shape.shape), np.ones(shape.shape), np.full(shape.shape, 3.0), data[3])
    spectrum, _ = take(source, flat, shape, radius=2.0, correct=False)
    assert np.median(spectrum.sky) == pytest.approx(3.0 * np.pi * 4 / LENSLET_PITCH**2, rel=0.03)
    area = cover(parse_region("circle(0.4,-0.3,2)"), *PLACE)
    assert spectrum.error == pytest.approx(np.sqrt((area**2).sum(axis=0)), rel=1e-6)


def test_bad_elements_are_made_up_for():
    source = star()
    data, shape = light(source)
    value, variance, sky, good = (a.copy() for a in data)
    brightest = np.argsort(shape[:, 150])[::-1]
    good[brightest[1]] = False
    value[brightest[1]] = 1e9
    good[:, 77] = False
    spectrum, _ = take(source, (value, variance, sky, good), shape, radius=1.5, correct=False)
    whole, _ = take(source, data, shape, radius=1.5, correct=False)
    fine = np.arange(NW) != 77
    assert mean_ratio(spectrum, whole, fine) == pytest.approx(1.0, abs=0.02)
    assert (spectrum.error > whole.error)[fine].all()
    assert (spectrum.flux[77], spectrum.error[77], spectrum.sky[77]) == (0, 0, 0)
    # Without the fibres that hold most of the light there is nothing to scale from.
    good[brightest[:12]] = False
    lost, _ = take(source, (value, variance, sky, good), shape, radius=1.5, correct=False)
    assert not lost.error.any()


def mean_ratio(a, b, fine):
    return np.average(a.flux[fine] / b.flux[fine], weights=(b.flux[fine] / a.error[fine]) ** 2)


def test_extended_object_has_no_aperture_correction():
    wide = star(fwhm=3.8)
    data, shape = light(wide)
    _, taken = take(wide, data, shape, radius=2.0)
    assert taken.correction is None
    assert ("NOAPERCORR", "warn") in [(d.code, d.severity) for d in taken.decisions]


def test_sum_over_a_region_follows_refraction():
    """All of a compact source's light lies in an ellipse around it at every wavelength; half a field further there is none."""
    source = star(fwhm=1.0, beta=8.0)
    data, shape = light(source)
    spectrum, taken = take(source, data, shape, "extended", region="ellipse(0.4,-0.3,3,2.4,20)")
    exact, _ = take(source, (shape * FLUX, *data[1:]), shape, "extended", region="ellipse(0.4,-0.3,3,2.4,20)")
    assert exact.flux / FLUX == pytest.approx(1.0, abs=0.01)
    pull = (spectrum.flux - FLUX) / spectrum.error
    assert abs(pull.mean()) < 4 / np.sqrt(NW)
    assert np.std(pull) == pytest.approx(1.0, abs=0.13)
    assert taken.region == "ellipse(0.4,-0.3,3,2.4,20)"
    away, _ = take(source, data, shape, "extended", region="circle(-4,0,1.5)")
    assert abs(np.mean(away.flux)) < 4 * np.mean(away.error) / np.sqrt(NW)


def test_a_cosmic_ray_in_a_galaxys_middle_is_no_absorption_line():
    """The sum over a region knows no shape: the fibre's own light to either side stands for what is hidden."""
    source = star(fwhm=2.0)
    (value, variance, sky, good), shape = light(source)
    region = Region((Shape("circle", (0.4, -0.3, 2.0)),), "")
    area = cover(region, *PLACE)
    clean = sum_over(area, value, variance, sky, good)
    peak = int(np.argmax(shape.sum(axis=1)))
    spoiled, hidden = value.copy(), good.copy()
    spoiled[peak, 100:106], hidden[peak, 100:106] = 1e5, False
    found = sum_over(area, spoiled, variance, sky, hidden)
    assert np.abs((found.flux - clean.flux) / found.error)[100:106].max() < 3
    assert np.mean(found.flux[100:106] / clean.flux[100:106]) == pytest.approx(1.0, abs=0.04)
    assert (found.flux == clean.flux)[:100].all()


def test_isophote_is_the_object_and_nothing_apart_from_it():
    at = np.hypot(POSITIONS[:, 0] + 2, 1.4 * POSITIONS[:, 1])
    value = (30 * np.exp(-0.5 * (at / 1.2) ** 2))[:, None] + np.random.default_rng(831).normal(0, 1, (NF, NW))
    second = lenslet_fractions(POSITIONS, np.array([4.5]), np.array([0.5]), np.array([1.0]), 3.5)[0]
    value += 60 * second[:, None]
    variance, good = np.ones(value.shape), np.ones(value.shape, bool)
    members = isophote(POSITIONS, value, variance, good)
    edge = 1.2 * np.sqrt(2 * np.log(10))
    assert members[at < edge - 0.2].all()
    assert not members[at > edge + 0.2].any()
    still = Refraction(PATH.wavelength, np.zeros(2), np.zeros(2))
    psf = extract_source(np.ones(value.shape), value, variance, value, good)
    place = (POSITIONS, WAVE, still, MIDDLE)
    spectrum, taken = extract_as_asked(
        "extended", None, True, "", psf, None, None, (value, variance, value, good), place
    )
    assert np.mean(spectrum.flux) == pytest.approx(value[members].sum(axis=0).mean(), rel=0.01)
    assert taken.region == f"{int(members.sum())} fibres"


def test_without_a_source_or_a_wish_the_optimal_spectrum_stays():
    data, shape = light(star())
    psf = extract_source(shape, *data)
    kept, taken = take(star(), data, shape, "psf")
    assert taken.how == "psf"
    assert np.array_equal(kept.flux, psf.flux)
    nothing, taken = extract_as_asked("aperture", 1.0, True, "", psf, None, None, data, PLACE)
    assert nothing is psf
    assert taken.how == "psf"


def test_radius_by_default_is_the_fwhm():
    source = star()
    data, shape = light(source)
    assert take(source, data, shape, radius=None)[1].radius == source.fwhm
    area = np.ones(shape.shape)
    assert sum_over(area, *data).flux == pytest.approx(data[0].sum(axis=0), rel=1e-12)


@pytest.mark.parametrize("how", ["aperture", "extended"])
def test_an_error_that_all_fibres_share_is_in_that_of_a_sum(how):
    """A sky that is off by as much as a fibre's noise, the same in all fibres at a wavelength."""
    source = star()
    (value, variance, sky, good), shape = light(source)
    off = np.random.default_rng(835).normal(size=(1, NW))
    data = value + off, variance + 1.0, sky, good
    shared = np.ones(shape.shape)
    psf = extract_source(shape, *data, shared)
    found, _ = extract_as_asked(how, 1.5, False, "circle(0.4,-0.3,1.5)", psf, shape, source, data, PLACE, None, shared)
    truth = (cover(parse_region("circle(0.4,-0.3,1.5)"), *PLACE) * shape * FLUX).sum(axis=0)
    assert np.std((found.flux - truth) / found.error) == pytest.approx(1.0, abs=0.12)
