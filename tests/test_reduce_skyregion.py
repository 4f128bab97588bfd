"""Regions and fibre lists of the user: areas against exact ones, refraction followed, nonsense refused."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import LENSLET_PITCH, channel
from panacea_nb.reduce.refraction import Refraction
from panacea_nb.reduce.skyregion import RegionError, fiber_list, object_fibers, parse_region, sky_fibers

POSITIONS = channel("orange").fiber_positions()
STILL = Refraction(np.array([4000.0, 8000.0]), np.zeros(2), np.zeros(2))
MOVING = Refraction(np.array([4000.0, 8000.0]), np.array([-1.0, 1.0]), np.array([0.0, 0.0]))
RANGE = (4600.0, 7000.0)


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("circle(0.1,-0.2,2)", np.pi * 4),
        ("annulus(0,0,1,2.5)", np.pi * (6.25 - 1)),
        ("ellipse(0.3,0.1,3,1.2,30)", np.pi * 3 * 1.2),
        ("circle(-3,0,1) + circle(3,0,1)", 2 * np.pi),
        ("CIRCLE(0,0,1)+circle(0,0,1)", np.pi),
    ],
)
def test_lenslets_cover_the_area_of_a_region(text, area):
    share = parse_region(text).overlap(POSITIONS, np.array([5000.0]), STILL, 5000.0)[:, 0]
    assert share.sum() * LENSLET_PITCH**2 == pytest.approx(area, rel=0.025)  # the lenslets do not quite tile the field
    assert share.min() >= 0
    assert share.max() == 1


def test_angle_runs_from_x_to_y():
    shape = parse_region("ellipse(0,0,3,0.5,90)")
    assert shape.inside(np.array([0.0, 2.0]), np.array([2.5, 0.0])).tolist() == [True, False]
    tilted = parse_region("ellipse(0,0,3,0.5,45)")
    assert tilted.inside(np.array([1.5, 1.5]), np.array([1.5, -1.5])).tolist() == [True, False]


def test_a_region_moves_with_refraction():
    """At 8000 A the source is 1 arcsec further in x than at 6000 A, where the region was given."""
    region = parse_region("circle(0,0,1.5)")
    share = region.overlap(POSITIONS, np.array([4000.0, 6000.0, 8000.0]), MOVING, 6000.0)
    x = (share * POSITIONS[:, :1]).sum(axis=0) / share.sum(axis=0)
    assert x == pytest.approx([-1.0, 0.0, 1.0], abs=0.03)


def test_sky_is_mostly_inside_and_an_object_at_no_wavelength():
    region = parse_region("circle(0,0,2)")
    distance = np.hypot(*POSITIONS.T)
    sky = sky_fibers(region, POSITIONS, RANGE, STILL, 5800.0)
    assert sky[distance < 1.7].all()
    assert not sky[distance > 2.3].any()
    taken = object_fibers(region, POSITIONS, RANGE, STILL, 5800.0)
    assert taken[distance < 2.0].all()
    assert taken.sum() > sky.sum()
    moving = object_fibers(region, POSITIONS, RANGE, MOVING, 5800.0)
    assert moving[taken].all()
    assert moving.sum() > 1.1 * taken.sum()


@pytest.mark.parametrize(
    "text", ["", "circle(0,0)", "circle(0,0,-1)", "annulus(0,0,3,2)", "box(0,0,1,1)", "circle(0,0,a)", "circle(0,0,nan)",
             "ellipse(0,0,1,0,0)", "circle(0,0,1)circle(1,1,1)"],
)  # fmt: skip
def test_nonsense_is_refused(text):
    with pytest.raises(RegionError, match="region"):
        parse_region(text)


def test_lists_of_fibres_count_from_one():
    chosen = fiber_list("1-3, 10 278-280", 280)
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 9, 277, 278, 279]
    for text in ("0", "281", "5-3", "a", "", "1-281"):
        with pytest.raises(RegionError, match="fibre"):
            fiber_list(text, 280)
