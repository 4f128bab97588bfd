"""Cubes: surface brightness and total flux kept, refraction taken out, masks respected."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import LENSLET_PITCH, channel
from panacea_nb.reduce.cube import SPAXEL, build_cube, collapse, spaxel_grid
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction

POSITIONS = channel("orange").fiber_positions()
WAVE = np.linspace(4635.0, 6950.0, 60)
PATH = Refraction(np.array([4600.0, 5500.0, 7000.0]), np.array([0.6, 0.0, -0.5]), np.array([-0.9, 0.0, 0.7]))
STILL = Refraction(PATH.wavelength, np.zeros(3), np.zeros(3))
GOOD = np.ones((POSITIONS.shape[0], WAVE.size), bool)
REFERENCE = 5500.0


def star(x, y, fwhm=1.5, path=PATH):
    """Light of a point source of flux 1 in the fibres (nf, nw)."""
    dx, dy = path.offset(WAVE, REFERENCE)
    return lenslet_fractions(POSITIONS, x + dx, y + dy, np.full(WAVE.size, fwhm), 3.5).T


def cube_of(values, good=GOOD, path=PATH):
    grid = spaxel_grid(POSITIONS)
    return build_cube([values], good, POSITIONS, WAVE, path, REFERENCE, grid)[0], grid


def centroid(image, grid):
    x, y = np.meshgrid(grid.x, grid.y)
    near = np.hypot(x - 0.5, y + 0.3) < 2.2
    return (image * x)[near].sum() / image[near].sum(), (image * y)[near].sum() / image[near].sum()


def test_grid_covers_the_field_in_even_steps():
    grid = spaxel_grid(POSITIONS)
    assert np.diff(grid.x) == pytest.approx(SPAXEL)
    assert np.diff(grid.y) == pytest.approx(SPAXEL)
    for axis, k in ((grid.x, 0), (grid.y, 1)):
        assert axis[0] <= POSITIONS[:, k].min()
        assert axis[-1] >= POSITIONS[:, k].max()
        assert axis[0] > POSITIONS[:, k].min() - SPAXEL
        assert (axis[0] + axis[-1]) / 2 == pytest.approx((POSITIONS[:, k].min() + POSITIONS[:, k].max()) / 2)


def test_uniform_light_is_uniform_in_the_share_of_a_spaxel():
    cube, grid = cube_of(np.full(GOOD.shape, 3.0))
    assert cube.shape == (WAVE.size, grid.y.size, grid.x.size)
    assert cube.dtype == np.float32
    inside = cube[:, 4:-4, 4:-4]
    assert inside == pytest.approx(3.0 * SPAXEL**2 / LENSLET_PITCH**2, rel=1e-5)


def test_total_flux_of_a_star_is_kept():
    """Summed over spaxels within the field, a star has the flux that it has in the fibres, within 2 %."""
    values = star(0.5, -0.3, fwhm=1.2)
    cube, _ = cube_of(values)
    ratio = cube.sum(axis=(1, 2)) / values.sum(axis=0)
    assert ratio == pytest.approx(1.0, abs=0.03)
    assert ratio.mean() == pytest.approx(1.0, abs=0.015)


def test_refraction_is_taken_out():
    """The centroid stays within 0.05 arcsec from blue to red, where it moved by 1.9 arcsec over the fibres."""
    values = star(0.5, -0.3)
    cube, grid = cube_of(values)
    places = np.array([centroid(image, grid) for image in cube])
    assert np.abs(places - places.mean(axis=0)).max() < 0.05
    assert places.mean(axis=0) == pytest.approx([0.5, -0.3], abs=0.06)
    left, _ = cube_of(values, path=STILL)
    moved = np.array([centroid(image, grid) for image in left])
    assert np.hypot(*(moved[-1] - moved[0])) > 1.0


def test_masked_samples_leave_no_trace():
    values = np.full(GOOD.shape, 2.0)
    good = GOOD.copy()
    fibre = int(np.argmin(np.hypot(*POSITIONS.T)))
    good[fibre, 20:30] = False
    values[fibre, 20:30] = 1e9
    cube, _ = cube_of(values, good)
    expected = 2.0 * SPAXEL**2 / LENSLET_PITCH**2
    filled = cube[cube != 0]
    assert filled == pytest.approx(expected, rel=1e-5)
    assert (cube[25, 6:-6, 6:-6] != 0).mean() > 0.97


def test_a_cosmic_ray_in_the_middle_of_a_star_is_no_absorption_line():
    """Three samples of the brightest fibre: its own light to either side stands for them, not the neighbours'."""
    values = star(0.5, -0.3, fwhm=1.2, path=STILL)
    whole, _ = cube_of(values, path=STILL)
    peak = int(np.argmax(values.sum(axis=1)))
    good = GOOD.copy()
    good[peak, 30:33] = False
    spoiled = values.copy()
    spoiled[peak, 30:33] = 1e3
    cube, _ = cube_of(spoiled, good, path=STILL)
    assert cube.sum(axis=(1, 2))[30:33] == pytest.approx(whole.sum(axis=(1, 2))[30:33], rel=1e-3)
    errors = np.full(GOOD.shape, 1e-3)
    _, error = build_cube([spoiled], good, POSITIONS, WAVE, STILL, REFERENCE, spaxel_grid(POSITIONS), [errors])
    assert error[31].max() > 5 * error[40].max()  # a tenth of the light that was put there
    good[peak, 20:40] = False  # too long to be known
    cube, _ = cube_of(spoiled, good, path=STILL)
    assert np.isfinite(cube).all()
    assert cube.max() < 1.0


def test_nothing_is_seen_beyond_the_lenslets():
    """Refraction moves the field over the spaxels by an arcsecond: those that leave it are empty, not the last fibre's light."""
    cube, grid = cube_of(np.full(GOOD.shape, 3.0))
    x, y = np.meshgrid(grid.x, grid.y)
    for k in (0, -1):
        dx, dy = PATH.offset(WAVE[k], REFERENCE)
        away = np.min(np.hypot(x[..., None] + dx - POSITIONS[:, 0], y[..., None] + dy - POSITIONS[:, 1]), axis=-1)
        assert not cube[k][away > LENSLET_PITCH].any()
        assert (cube[k][away < LENSLET_PITCH / 2] > 0).all()


def test_wavelength_without_data_is_empty():
    good = GOOD.copy()
    good[:, 40] = False
    cube, _ = cube_of(np.ones(GOOD.shape), good)
    assert not cube[40].any()
    assert cube[39].any()


def test_several_data_sets_share_their_weights():
    values = star(0.5, -0.3)
    grid = spaxel_grid(POSITIONS)
    both, sky, source = build_cube(
        [values + 2.0, np.full(GOOD.shape, 2.0), values], GOOD, POSITIONS, WAVE, PATH, REFERENCE, grid
    )
    assert both == pytest.approx(sky + source, abs=1e-5)


def test_collapse_is_the_median_in_the_window():
    grid = np.linspace(5000, 6000, 101)
    cube = np.ones((101, 3, 4), np.float32)
    cube[48:53] = 5.0
    cube[50, 0, 0] = 1000.0
    cube[48:53, 2, 2] = 0.0  # empty
    image = collapse(cube, grid, 5500.0, 20.0)
    assert image.shape == (3, 4)
    assert image[0, 0] == 5.0
    assert image[1, 1] == 5.0
    assert image[2, 2] == 0.0
    # A window narrower than a step holds the nearest image.
    assert collapse(cube, grid, 5503.0, 1.0)[1, 1] == 5.0
    assert collapse(cube, grid, 5200.0, 30.0)[1, 1] == 1.0
