"""Instrument tables: orders, dates and values that were read off the original tables by hand."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from panacea_nb import instrument
from panacea_nb.instrument import CHANNELS, N_FIBERS, N_WAVE, UnknownChannelError, channel, find_standard


def test_channels_and_grids():
    assert list(CHANNELS) == ["uv", "orange", "red", "farred"]
    ends = {"uv": (3640, 4645), "orange": (4635, 6950), "red": (6450, 8400), "farred": (8275, 10500)}
    for name, (first, last) in ends.items():
        grid = channel(name).wave_grid()
        assert grid.shape == (N_WAVE,)
        assert (grid[0], grid[-1]) == (first, last)
        np.testing.assert_allclose(np.diff(grid), (last - first) / (N_WAVE - 1))
    assert channel("uv").amps == ("LL", "LU")
    assert channel("farred").amps == ("RU", "RL")
    assert channel("red").ifuslot == "066"
    assert "hg_b" in channel("orange").lamps
    assert "hg_b" not in channel("red").lamps


def test_unknown_channel_names_the_known_ones():
    with pytest.raises(UnknownChannelError, match="uv, orange, red, farred"):
        channel("blue")
    with pytest.raises(UnknownChannelError):
        instrument.fplane("046")
    with pytest.raises(UnknownChannelError):
        instrument.reference_wavelength("red")


def test_fiber_order():
    xy = channel("orange").fiber_positions()
    assert xy.shape == (N_FIBERS, 2)
    # mapping rows 280, 141 of the bottom amplifier, 140, 1 of the top one
    np.testing.assert_allclose(
        xy[[0, 139, 140, 279]], [[6.195, 3.54], [0.295, 0], [-0.295, 0], [-6.195, -3.54]], atol=1e-9
    )
    assert len(np.unique(np.round(xy, 3), axis=0)) == N_FIBERS
    for row in np.unique(xy[:, 1]):
        np.testing.assert_allclose(np.diff(np.sort(xy[xy[:, 1] == row, 0])), instrument.LENSLET_PITCH)


@pytest.mark.parametrize(
    ("date", "first"),
    [("20150101", 39.736), ("20170304", 39.736), ("20170305", 24.494), ("20181108", 29.632), ("20250115", 29.632)],
)
def test_fiber_locations_by_date(date, first):
    row, dead = channel("orange").fiber_locations(date)
    assert row[0] == first
    assert not dead.any()


def test_fiber_locations_rise_and_name_the_dead():
    for ch in CHANNELS.values():
        row, _ = ch.fiber_locations("20250115")
        assert np.all(np.diff(row) > 5)
        # the top amplifier begins above the border at row 1032
        assert row[139] < instrument.AMP_ROWS < row[140]
    row, dead = channel("farred").fiber_locations("20250115")
    np.testing.assert_array_equal(np.flatnonzero(dead), [6, 17])
    assert row[6] == 81.0


def test_lines():
    arcs = channel("uv").arc_lines()
    brightest = arcs[np.argmax(arcs["intensity"])]
    assert (brightest["wavelength"], brightest["column"], brightest["element"]) == (4358.327, 1471, "Hg")
    # a line that its source comments out is no line
    assert not np.any(np.abs(channel("farred").arc_lines()["wavelength"] - 9784.5) < 0.1)
    assert channel("uv").sky_lines().size == 0
    orange = channel("orange")
    assert 5577.35 in orange.sky_lines()
    assert 5461.65 not in orange.sky_lines()
    assert 5461.65 in orange.sky_lines(doubtful=True)
    assert channel("red").sky_lines().size == 59


def test_response_and_refraction():
    wave, response = channel("orange").response()
    assert (wave[0], wave[-1]) == (4635, 6950)
    np.testing.assert_allclose(np.interp([4635.0, 6950.0], wave, response), [6.0714e-10, 9.8507e-11], rtol=2e-4)
    assert np.all(response > 0)
    t = channel("uv").refraction()
    assert t.colnames == ["wavelength", "x", "y"]
    np.testing.assert_allclose([t["wavelength"][0], t["x"][0], t["y"][0]], [3659.14, 0.22005, 1.11871], atol=1e-5)
    # blue light stands higher
    assert np.all(np.diff(t["y"]) < 0)


def test_reference_wavelength():
    wave = instrument.reference_wavelength("uv")
    assert wave.shape == (N_FIBERS, instrument.N_COLUMNS)
    known = [[3636.1943, 4143.3096, 4649.9624], [3634.7302, 4147.1509, 4659.0371], [3634.2114, 4141.0288, 4647.4990]]
    np.testing.assert_allclose(wave[[0, 139, 279]][:, [0, 1032, 2063]], known, atol=0.003)
    assert np.all(np.diff(wave, axis=1) > 0.4)


def test_atmosphere():
    assert instrument.extinction(np.array([3200.0]))[0] == 1.017
    wave = np.arange(3600, 10500.0)
    telluric = instrument.mean_telluric(wave)
    assert telluric.min() >= 0
    assert telluric.max() == 1
    np.testing.assert_array_equal(telluric[wave < 6800], 1)
    assert instrument.mean_telluric(np.array([7605.0]))[0] < 0.5


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("HZ_4_056_E", "HZ_4"), ("hz_44_066_W", "HZ_44"), ("Feige34_056_W", "FEIGE_34"), ("NGC_4565_056_E", None),
        ("BD_+17_4708_056_E", "BD_+17_4708"), ("GRW+70_5824_066_E", "GRW+70_5824"), ("GD1401_056", None),
        ("SHZ_4_056", None),
    ],
)  # fmt: skip
def test_standards_by_object(name, found):
    standard = find_standard(name)
    assert (standard.name if standard else None) == found


def test_standard_flux():
    star = find_standard("FEIGE_34_056_E")
    assert star.has_table
    assert "Oke 1990" in star.reference
    # AB 10.15 at 3360 A: f_nu = 10^(-0.4 (10.15 + 48.6)), by hand
    f_nu = 10 ** (-0.4 * (10.15 + 48.6))
    np.testing.assert_allclose(star.flux(np.array([3360.0])), f_nu * 2.99792458e18 / 3360**2)
    assert star.coverage == (3220, 10200)
    beyond = np.array([10500.0])
    assert np.isnan(star.flux(beyond, extrapolate=False)[0])
    assert 0.8 < star.flux(beyond)[0] / star.flux(np.array([10200.0]))[0] < 1
    bare = find_standard("SA95-42_056_E")
    assert not bare.has_table
    assert bare.flux(beyond) is None
    assert bare.coverage is None


def test_tables_that_end_before_a_channel():
    short = find_standard("BD+33_2642_066_R")
    assert short.coverage == (3200, 8370)
    assert short.reaches(6430.0, 8450.0)
    assert not short.reaches(8250.0, 10500.0)
    assert not find_standard("SA95-42_056_E").reaches(3640.0, 4640.0)


def test_every_standard_with_a_table_is_finite():
    wave = np.linspace(3640, 10500, 300)
    tabled = 0
    for name in instrument.standard_names():
        flux = find_standard(f"{name}_056_E").flux(wave)
        if flux is not None:
            tabled += 1
            assert np.all((flux > 0) & np.isfinite(flux)), name
    assert tabled == 35


def test_tables_name_their_source_and_stay_small():
    folder = files("panacea_nb.instrument") / "data"
    tables = [f for f in folder.iterdir() if f.name.endswith((".ecsv", ".yaml"))]
    assert len(tables) >= 9
    for f in tables:
        assert "Source" in f.read_text(encoding="utf-8")[:1500], f.name
    assert sum(len(f.read_bytes()) for f in tables) < 400_000
