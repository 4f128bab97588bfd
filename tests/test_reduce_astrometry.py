"""Sky coordinates: pointing, unit of the trajectory, and both turns of the IFU in the focal plane."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from panacea_nb.instrument import fplane
from panacea_nb.reduce.astrometry import CONVENTIONS, focal_plane, image_wcs, pointing, sky_positions

CARDS = {"QRA": "10:12:00.0", "QDEC": "+32:30:00", "TRAJRA": 153.05, "TRAJDEC": 32.51, "PARANGLE": 70.0}


def offsets(table):
    """(E, N) [arcsec] of the rows from the first."""
    places = SkyCoord(table[:, 4], table[:, 5], unit="deg")
    return np.column_stack([a.arcsec for a in places[0].spherical_offsets_to(places)])


@pytest.mark.parametrize(
    ("convention", "along_x", "along_y"),
    [("panacea", (0.95, 0.33), (0.33, -0.95)), ("lrs2multi", (0.33, -0.95), (-0.95, -0.33))],
)
@pytest.mark.parametrize("slot", ["056", "066"])
def test_lenslets_at_parallactic_angle_70(convention, along_x, along_y, slot):
    """Where the two tools put a lenslet one arcsec from the centre (raw data format)."""
    point = pointing(CARDS, convention)
    ifu = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    east_north = offsets(sky_positions(ifu, fplane(slot), point))
    assert east_north[1] == pytest.approx(along_x, abs=0.01)
    assert east_north[2] == pytest.approx(along_y, abs=0.01)


def test_offsets_are_those_of_the_rotation_for_any_angle():
    """Against the rotation written out by hand: 360 - (90 + PA + 1.07), clockwise, x to the west."""
    for angle in (-120.0, 0.0, 33.0, 250.0):
        rot = np.deg2rad(360 - (90 + angle + 1.07))
        point = pointing(CARDS | {"PARANGLE": angle}, "panacea")
        made = offsets(sky_positions(np.array([[0.0, 0], [3.0, 0], [0, 2.0]]), (0.0, 0.0), point))
        assert made[1] == pytest.approx((-3 * np.cos(rot), -3 * np.sin(rot)), abs=1e-4)
        assert made[2] == pytest.approx((-2 * np.sin(rot), 2 * np.cos(rot)), abs=1e-4)


def test_conventions_are_a_quarter_turn_apart():
    ifu = np.array([[0.0, 0.0], [2.0, 1.0], [-3.0, 0.5]])
    virus, own = (focal_plane(ifu, (50.0, -150.0), c) - (-150.0, 50.0) for c in CONVENTIONS[::-1])
    assert np.hypot(*virus.T) == pytest.approx(np.hypot(*own.T))
    assert virus[:, 0] == pytest.approx(own[:, 1])
    assert virus[:, 1] == pytest.approx(-own[:, 0])


def test_centre_of_the_ifu_is_where_the_focal_plane_has_it():
    """Both conventions put IFU (0, 0) of slot 056 at (fp_y, fp_x) = (-150, -50) arcsec from the tangent point."""
    for convention in CONVENTIONS:
        point = pointing(CARDS, convention)
        table = sky_positions(np.array([[0.0, 0.0]]), fplane("056"), point)
        centre = SkyCoord(point.ra, point.dec, unit="deg")
        away = centre.separation(SkyCoord(table[0, 4], table[0, 5], unit="deg")).arcsec
        assert away == pytest.approx(np.hypot(150, 50), rel=1e-5)
        assert table[0, 2:4] == pytest.approx([-150.0, -50.0])


def test_table_of_positions():
    ifu = np.array([[1.0, 2.0], [-3.0, 0.5]])
    table = sky_positions(ifu, fplane("066"), pointing(CARDS))
    assert table.shape == (2, 6)
    assert (table[:, :2] == ifu).all()
    assert table[:, 2:4] == pytest.approx(focal_plane(ifu, fplane("066"), "lrs2multi"))
    assert table[:, 4] == pytest.approx(153.05, abs=0.1)
    assert table[:, 5] == pytest.approx(32.51, abs=0.06)


def test_trajectory_in_degrees_or_hours_is_told_by_qra():
    degrees = pointing(CARDS)
    hours = pointing(CARDS | {"TRAJRA": 153.05 / 15})
    assert (degrees.unit, hours.unit) == ("deg", "hour")
    assert degrees.ra == pytest.approx(153.05)
    assert hours.ra == pytest.approx(153.05)
    assert degrees.decisions == hours.decisions == ()


def test_right_ascension_near_zero():
    cards = {"QRA": "23:59:50", "QDEC": "-10:00:00", "PARANGLE": 5.0}
    assert pointing(cards | {"TRAJRA": 0.02, "TRAJDEC": -10.0}).unit == "deg"
    west = pointing(cards | {"TRAJRA": 23.999, "TRAJDEC": -10.0})
    assert west.unit == "hour"
    assert west.ra == pytest.approx(359.985)
    assert west.decisions == ()


def test_trajectory_far_from_the_request_is_named():
    point = pointing(CARDS | {"TRAJRA": 155.0})
    assert [d.code for d in point.decisions] == ["TRAJFAR"]
    assert "1.6" in point.decisions[0].text


@pytest.mark.parametrize("value", [None, "unknown", "nan", 999.0])
def test_no_trajectory_means_the_request_and_a_warning(value):
    point = pointing(CARDS | {"TRAJRA": value})
    assert (point.ra, point.dec) == pytest.approx((153.0, 32.5))
    assert point.unit == "QRA"
    assert [(d.code, d.severity) for d in point.decisions] == [("NOTRAJ", "warn")]
    shown = "missing" if value is None else repr(value)
    assert point.decisions[0].text.startswith(f"TRAJRA/TRAJDEC ({shown}, {CARDS['TRAJDEC']!r}) are no place on the sky")


def test_no_request_means_degrees_and_a_warning():
    point = pointing({k: v for k, v in CARDS.items() if not k.startswith("Q")})
    assert point.ra == pytest.approx(153.05)
    assert [d.code for d in point.decisions] == ["NOQRA"]


def test_nothing_at_all():
    point = pointing({})
    assert (point.ra, point.dec) == (0.0, 0.0)
    assert [d.code for d in point.decisions] == ["NOPARANG", "NOCOORD"]
    assert "TRAJRA/TRAJDEC (missing, missing) nor QRA/QDEC (missing, missing)" in point.decisions[1].text
    assert np.isfinite(sky_positions(np.zeros((1, 2)), fplane("056"), point)).all()


@pytest.mark.parametrize(("ra", "dec"), [("10:12:12", "-05:30:36"), ("10:12:12", "+05:30:36")])
def test_sexagesimal_trajectory(ra, dec):
    sign = -1 if dec[0] == "-" else 1
    point = pointing({"QRA": "10:12:00", "QDEC": dec, "TRAJRA": ra, "TRAJDEC": dec, "PARANGLE": "-20.5"})
    assert point.ra == pytest.approx(153.05)
    assert point.dec == pytest.approx(sign * 5.51)
    assert point.rotation == pytest.approx(360 - (90 - 20.5 + 1.07))
    assert point.decisions == ()


def test_unknown_convention():
    with pytest.raises(ValueError, match="panacea"):
        pointing(CARDS, "mirror")


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_image_coordinates_agree_with_those_of_the_fibres(convention):
    """The WCS of an image on the spaxel grid puts each IFU position where the table of fibres has it."""
    rng = np.random.default_rng(95)
    ifu = rng.uniform(-6, 6, (20, 2))
    point = pointing(CARDS, convention)
    table = sky_positions(ifu, fplane("056"), point)
    wcs = image_wcs(point, fplane("056"), -6.4, -3.6, 0.4)
    pixel = (ifu - (-6.4, -3.6)) / 0.4
    ra, dec = wcs.wcs_pix2world(pixel[:, 0], pixel[:, 1], 0)
    apart = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(table[:, 4], table[:, 5], unit="deg"))
    assert apart.arcsec.max() < 1e-4
    x, y = wcs.wcs_world2pix(table[:, 4], table[:, 5], 0)
    assert np.column_stack([x, y]) == pytest.approx(pixel, abs=1e-3)
    assert np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600 == pytest.approx(0.4, rel=1e-9)
