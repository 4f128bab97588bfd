"""What is expected of a source: from standards, and from the arm's other channel."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from panacea_nb.instrument import channel
from panacea_nb.reduce.companion import from_dict, to_dict
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction
from panacea_nb.reduce.source import PointSource, find_source
from panacea_nb.reduce.sourceprior import (
    MOFFAT_BETA,
    ShapePrior,
    SourcePrior,
    guided_prior,
    paired_prior,
    prior_from_dict,
    standards_prior,
)

POSITIONS = channel("uv").fiber_positions()
STILL = Refraction(np.array([3600.0, 7000.0]), np.zeros(2), np.zeros(2))
WAVE = np.linspace(4000.0, 4300.0, 120)


def source(x=0.4, y=-0.3, wave=5000.0, fwhm=1.5, beta=3.1, **more):
    nothing = np.zeros(1)
    errors = {"x": 0.01, "y": 0.01, "fwhm": 0.01, "beta": 0.05}
    return PointSource(x, y, wave, fwhm, -0.2, beta, 100.0, errors, False, 1.0, nothing, nothing, nothing, **more)


def test_standards_give_the_exponent_by_their_errors():
    prior, decision = standards_prior([(3.0, 0.01), (3.2, 0.01), (5.0, 0.5), (float("nan"), 0.1)])
    assert prior.point.beta[0] == pytest.approx(3.1)
    assert prior.point.beta[1] == pytest.approx(0.14, abs=0.01)
    assert decision.code == "PSFSTANDARD"
    prior, decision = standards_prior([])
    assert prior.point.beta == MOFFAT_BETA
    assert decision.code == "PSFDEFAULT"


@pytest.mark.parametrize("scatter", [0.05, 0.1, 0.3])
def test_several_standards_show_how_much_the_exponent_changes(scatter):
    """What the next exposure shows lies within the prior's width, whatever the night's scatter is."""
    rng = np.random.default_rng(8)
    pulls = []
    for _ in range(400):
        error = rng.uniform(0.02, 0.1, 6)
        true = 3.3 + scatter * rng.normal(size=7)
        beta, sigma = standards_prior(zip(true[:6] + error * rng.normal(size=6), error, strict=True))[0].point.beta
        pulls.append((true[6] - beta) / sigma)
    assert 0.6 < np.std(pulls) < 1.5


def test_the_guide_cameras_give_the_width_of_faint_stars():
    """As air changes it along the spectrum, and as the standards compare with them; where they are blind the usual seeing."""
    prior, decisions = guided_prior(SourcePrior(), 2.5, 4150.0)
    fwhm = 2.5 * (4150 / 5500) ** -0.2
    assert prior.point.fwhm == pytest.approx((fwhm, 0.2 * fwhm))
    assert [d.code for d in decisions] == ["PSFGUIDER"]
    stars = [(2.0, source(wave=4150.0, fwhm=1.2 * 2.0 * (4150 / 5500) ** -0.2)), (2.0, source(wave=4150.0, fwhm=9.0))]
    prior, _ = guided_prior(SourcePrior(), 2.5, 4150.0, stars)  # the second is no star
    assert prior.point.fwhm == pytest.approx((1.2 * fwhm, 0.12 * fwhm))
    assert guided_prior(SourcePrior(), None, 4150.0) == (SourcePrior(), [])
    prior, decisions = guided_prior(SourcePrior(), 2.5, 4150.0, [(0.8, source(wave=4150.0, fwhm=1.6))])
    assert prior == SourcePrior()  # cameras that are off by a factor of two say nothing
    assert [(d.code, d.severity) for d in decisions] == [("PSFGUIDER", "warn")]


@pytest.mark.parametrize(("seeing", "extended"), [(None, True), (3.2, False)])
def test_a_wide_star_is_a_star_where_the_seeing_is_that_bad(seeing, extended):
    prior, _ = guided_prior(SourcePrior(), seeing, 4150.0)
    rng = np.random.default_rng(31)
    share = lenslet_fractions(POSITIONS, np.full(WAVE.size, 0.4), np.full(WAVE.size, -0.3), 3.2, 3.5).T
    value = 3000.0 * share + rng.normal(size=share.shape)
    found, _ = find_source(
        POSITIONS, WAVE, value, np.ones(share.shape), np.ones(share.shape), np.ones(share.shape, bool), STILL, wave_ref=4150.0,
        prior=prior, systematic=0.0,
    )  # fmt: skip
    assert found.fwhm == pytest.approx(3.2, abs=0.1)
    assert found.extended == extended
    assert from_dict(to_dict(found)).extended == extended


def test_faint_stars_in_bad_seeing_keep_their_flux():
    """S/N 8 in 2.7 arcsec: as wide as guide cameras say; with the usual seeing expected a tenth is lost."""
    flux = {}
    for seeing in (None, 2.6):
        prior, _ = guided_prior(SourcePrior(), seeing, 4150.0)
        found = []
        for seed in range(12):
            rng = np.random.default_rng(40 + seed)
            share = lenslet_fractions(POSITIONS, np.full(WAVE.size, 0.4), np.full(WAVE.size, -0.3), 2.7, 3.5).T
            data = 9.0 * share + rng.normal(size=share.shape)
            one, _ = find_source(
                POSITIONS, WAVE, data, np.ones(share.shape), np.ones(share.shape), np.ones(share.shape, bool), STILL,
                wave_ref=4150.0, prior=prior, systematic=0.0,
            )  # fmt: skip
            found.append(np.average(one.chunk_flux, weights=one.chunk_error**-2) / 9.0)
        flux[seeing] = np.mean(found)
    assert flux[2.6] == pytest.approx(1.0, abs=0.03)
    assert flux[None] < 0.95


def test_the_other_channel_gives_seeing_as_air_changes_it_and_place_as_the_standard_shows_it():
    prior, decisions = paired_prior(SourcePrior(), source(), 4150.0)
    assert prior.point.fwhm[0] == pytest.approx(1.5 * (4150 / 5000) ** -0.2)
    assert 0.03 < prior.point.fwhm[1] < 0.05
    standard = (source(1.0, 1.0), source(0.8, 1.9, wave=4150.0))
    prior, decisions = paired_prior(SourcePrior(), source(), 4150.0, [standard])
    assert prior.point.beta == pytest.approx((3.1, np.hypot(0.05, 0.05)))
    assert prior.place == pytest.approx((0.2, 0.6, np.hypot(0.05, 0.01)))
    assert [d.code for d in decisions] == ["PSFPAIR"]
    assert paired_prior(SourcePrior(), source(), 4150.0)[0].place is None
    assert paired_prior(SourcePrior(), None, 4150.0) == (SourcePrior(), [])


def test_standards_show_how_the_widths_of_two_channels_compare():
    standard = (source(fwhm=1.2), source(wave=4150.0, fwhm=1.32))
    prior, _ = paired_prior(SourcePrior(), source(), 4150.0, [standard])
    assert prior.point.fwhm[0] == pytest.approx(1.5 * 1.1)
    assert prior.point.fwhm[1] == pytest.approx(np.hypot(0.01, 0.0165))
    wide = (source(fwhm=1.2), source(wave=4150.0, fwhm=4.0))  # in one of the channels it is no star
    prior, _ = paired_prior(SourcePrior(), source(), 4150.0, [wide])
    assert prior.point.fwhm[0] == pytest.approx(1.5 * (4150 / 5000) ** -0.2)


def test_both_channels_see_the_same_oval():
    errors = {"x": 0.01, "y": 0.01, "fwhm": 0.01, "beta": 0.05}
    star = source(shear=(0.06, -0.02))
    known, _ = paired_prior(SourcePrior(), replace(star, error=errors | {"shear": 0.004}), 4150.0)
    assert known.point.shear == pytest.approx((0.06, -0.02, np.hypot(0.004, 0.01)))
    unsure, _ = paired_prior(SourcePrior(), replace(star, error=errors | {"shear": 0.2}), 4150.0)
    assert unsure.point.shear[2] == SourcePrior().point.shear[2]


def test_both_channels_look_through_the_same_air():
    prior, said = paired_prior(SourcePrior(), source(path=(0.1, -0.02)), 4150.0, [(source(), source())])
    assert prior.path == (0.1, -0.02)
    assert "1.10 times" in said[0].text
    assert prior_from_dict(json.loads(json.dumps(prior.to_dict()))) == prior
    path = Refraction(np.array([3600.0, 4600.0]), np.array([0.0, 1.0]), np.array([0.0, -2.0]))
    moved = prior.moved(4150.0, 4250.0, path)
    assert moved.place[:2] == pytest.approx((prior.place[0] + 0.11 - 0.004, prior.place[1] - 0.22 - 0.002))


def test_a_galaxy_stays_one_in_the_other_channel():
    galaxy = source(fwhm=3.4, beta=1.8, shear=(0.2, -0.1), disk=True)
    prior, _ = paired_prior(SourcePrior(), galaxy, 4150.0)
    assert prior.extended
    assert prior.disk.shear[:2] == (0.2, -0.1)
    assert prior.disk.beta[0] == 1.8
    assert prior.point == ShapePrior()


def test_a_prior_is_kept_as_plain_values_and_moved_to_another_wavelength():
    prior, _ = paired_prior(SourcePrior(), source(), 4150.0, [(source(), source())])
    assert prior_from_dict(json.loads(json.dumps(prior.to_dict()))) == prior
    path = Refraction(np.array([3600.0, 4600.0]), np.array([0.0, 1.0]), np.array([0.0, -2.0]))
    moved = prior.moved(4150.0, 4250.0, path)
    assert moved.place == pytest.approx((prior.place[0] + 0.1, prior.place[1] - 0.2, prior.place[2]))
    assert moved.point.fwhm[0] == pytest.approx(prior.point.fwhm[0] * (4250 / 4150) ** -0.2)
    assert from_dict(json.loads(json.dumps(to_dict(source())))).error == source().error


def faint(rng, x, y):
    """Means of a source of S/N 25 in all fibres, (nf, nw), and their variance."""
    shape = lenslet_fractions(POSITIONS, np.full(WAVE.size, x), np.full(WAVE.size, y), np.full(WAVE.size, 1.56), 3.1).T
    sigma = np.full(shape.shape, np.sqrt((shape[:, 0] ** 2).sum() * WAVE.size) / 25.0)
    return shape + sigma * rng.standard_normal(shape.shape), sigma**2


def test_a_faint_source_is_measured_better_with_what_the_other_channel_shows():
    prior, _ = paired_prior(SourcePrior(), source(wave=5000.0), 4150.0, [(source(), source())])
    known, alone = [], []
    for seed in range(8):
        value, variance = faint(np.random.default_rng(900 + seed), 0.4, -0.3)
        data = (POSITIONS, WAVE, value, variance, np.zeros_like(value), np.ones(value.shape, bool), STILL)
        for kept, expected in ((known, prior), (alone, None)):
            found = find_source(*data, wave_ref=4150.0, prior=expected)[0]
            kept.append([found.x - 0.4, found.y + 0.3, found.fwhm - 1.56])
    better, worse = (np.sqrt(np.mean(np.square(values), axis=0)) for values in (known, alone))
    assert np.all(better < 0.75 * worse)
    assert np.hypot(*better[:2]) < 0.05


def test_another_object_is_not_drawn_to_the_expected_place():
    prior, _ = paired_prior(SourcePrior(), source(-2.5, 1.5), 4150.0, [(source(), source())])
    value, variance = faint(np.random.default_rng(950), 0.4, -0.3)
    data = (POSITIONS, WAVE, value, variance, np.zeros_like(value), np.ones(value.shape, bool), STILL)
    found = find_source(*data, wave_ref=4150.0, prior=prior)[0]
    assert np.hypot(found.x - 0.4, found.y + 0.3) < 0.3
