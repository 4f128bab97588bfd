"""The sky's gradient beside objects that cover much of the field: told by the sky's lines, not by the objects' outskirts."""

from __future__ import annotations

import numpy as np
import pytest
from test_reduce_fieldmodel import ALIVE, NF, NX, POSITIONS, SKY, UNIT, WAVE, observe, run

from panacea_nb.reduce.cosmics import field_neighbours
from panacea_nb.reduce.sky import field_basis
from panacea_nb.reduce.skytilt import levels_beside, line_levels, local_scatter
from panacea_nb.reduce.sourceprior import ShapePrior, SourcePrior

TILT = 1.0 + field_basis(POSITIONS, 2) @ np.array([0.012, -0.015, 0.0, 0.006, -0.008])


def galaxy(index: float, x: float, y: float, radius: float, ratio: float = 0.8) -> np.ndarray:
    """Light of an elliptical object of a Sersic index in the fibres (nf, 1), with a core as seeing makes it; the peak is 1."""
    u, v = POSITIONS[:, 0] - x, POSITIONS[:, 1] - y
    along = np.hypot(0.8 * u + 0.6 * v, (0.8 * v - 0.6 * u) / ratio)
    light = np.exp(-(2 * index - 1 / 3) * (np.hypot(along, 0.5) / radius) ** (1 / index))
    return (light / light.max())[:, None]


def test_lines_tell_the_sky_in_fibres_full_of_other_light():
    """Continuum of up to three times the sky's, of another slope in every fibre, changes nothing."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, NX)
    other = rng.uniform(0, 180, (NF, 1)) * (1 + rng.uniform(-0.5, 0.5, (NF, 1)) * x + 0.3 * np.sin(3 * x))
    data, variance, sky = observe(rng, other, TILT[:, None])
    level, error = line_levels(data, 1 / variance, sky, UNIT)
    true = np.mean(TILT) * TILT / np.mean(TILT)
    assert np.std((level - true) / error) == pytest.approx(1.0, abs=0.12)
    assert np.mean(level - true) == pytest.approx(0.0, abs=4 * np.median(error) / np.sqrt(NF))


def test_a_fibre_without_lines_says_nothing():
    level, error = line_levels(np.ones((NF, NX)), np.ones((NF, NX)), np.ones((NF, NX)), np.ones((NF, NX)))
    assert np.isnan(level).all()
    assert np.isinf(error).all()


def test_the_tilt_is_the_lines_and_not_that_of_an_objects_outskirts():
    """Outskirts that the object's model lacks by a third look like a sky 4 % brighter towards the middle."""
    rng = np.random.default_rng(1)
    share = galaxy(1.0, 0.0, 0.0, 2.5)[:, 0]
    chosen = share < 0.15
    basis = np.column_stack([np.ones(NF), field_basis(POSITIONS, 2)])
    noise = np.full(NF, 0.004)
    level = TILT + 0.35 * share + noise * rng.normal(size=NF)
    lines = TILT + 0.02 + 2 * noise * rng.normal(size=NF)
    given = (level, np.hypot(noise, share)), (lines, 2 * noise), share
    found = levels_beside(basis, *given, chosen, ALIVE, 0.02)
    assert np.std(found / np.mean(found) - TILT / np.mean(TILT)) < 2.5e-3
    blind = (np.full(NF, np.nan), np.full(NF, np.inf))  # a sky without lines
    alone = levels_beside(basis, (level, noise), blind, share, chosen, ALIVE, 0.02)
    assert np.ptp(alone) < 0.12


def test_scatter_of_levels_leaves_out_what_changes_slowly_over_the_field():
    rng = np.random.default_rng(2)
    noise, near = np.full(NF, 0.004), field_neighbours(POSITIONS, ALIVE)
    level = 1.0 + 0.2 * galaxy(1.0, 0.0, 0.0, 2.5)[:, 0] + noise * rng.normal(size=NF)
    assert local_scatter(level, noise, ALIVE, near, 0.003) < 0.006
    uneven = level + 0.03 * rng.normal(size=NF)
    assert local_scatter(uneven, noise, ALIVE, near, 0.003) == pytest.approx(0.03, rel=0.2)
    assert local_scatter(level, noise, np.arange(NF) < 9, near, 0.003) == 0.003


@pytest.mark.parametrize(
    ("index", "place", "radius"), [(1.0, (0.3, 0.0), 2.5), (0.5, (2.0, -0.5), 2.4), (2.0, (-2.2, 0.7), 2.0)]
)
def test_galaxies_of_many_shapes_keep_their_light(index, place, radius):
    """A disk in the middle, a Gaussian, a steep core with wide wings: flux within 6 %, the sky within 1 % in every fibre."""
    shape = galaxy(index, *place, radius)
    fluxes, skies = [], []
    for seed in (510, 511, 512):
        data, variance, _ = observe(
            np.random.default_rng(seed), 30.0 * shape * np.ones(NX) / TILT[:, None], TILT[:, None]
        )
        model = run(data, variance, prior=SourcePrior(ShapePrior(fwhm=(1.5, 0.2))))
        sky = model.sky.native()
        bright = shape[:, 0] > 0.1
        fluxes.append((data - sky)[bright].sum() / (30.0 * shape * UNIT)[bright].sum())
        skies.append(sky.sum(axis=1) / (SKY(WAVE) * UNIT * TILT[:, None]).sum(axis=1) - 1)
        assert model.source.disk > 0
    assert np.mean(fluxes) == pytest.approx(1.0, abs=0.06)
    assert np.abs(np.mean(skies, axis=0)).max() < 0.01


def test_arms_of_a_galaxy_do_not_bend_the_sky():
    """Arms three times as bright as what is between them, which no smooth model has: the tilt is right to 0.65 % RMS (else 0.8)."""
    x, y = POSITIONS.T - np.array([[1.5], [0.2]])
    arms = 1 + 0.5 * np.cos(2 * (np.arctan2(y, x) - 1.5 * np.log(np.hypot(x, y) + 0.3)))
    light = 60.0 * galaxy(1.0, 1.5, 0.2, 2.2) * arms[:, None] * np.ones(NX)
    tilts = []
    for seed in (520, 521, 522):
        data, variance, _ = observe(np.random.default_rng(seed), light / TILT[:, None], TILT[:, None])
        sky = run(data, variance, prior=SourcePrior(ShapePrior(fwhm=(1.5, 0.2)))).sky.native()
        tilts.append(sky.sum(axis=1) / (SKY(WAVE) * UNIT * TILT[:, None]).sum(axis=1))
    assert np.std(np.mean(tilts, axis=0)) < 0.0065
