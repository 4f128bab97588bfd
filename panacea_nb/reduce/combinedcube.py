"""Exposures and channels of a target become one cube, from the fibres and not from cubes that were interpolated before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .combine import moved, resampling
from .cube import Grid, build_cube, spaxel_grid
from .source import Refraction


@dataclass(frozen=True)
class FiberField:
    """The fibres of one exposure in one channel.

    Attributes
    ----------
    name : str
    wave : (n,) [A]; skysub, error : (nf, n) [erg/s/cm2/A], error 0: bad
    positions : (nf, 2) [IFU arcsec]; sky : (nf, 2) right ascension, declination [deg]
    refraction : Refraction in this exposure's IFU axes
    source : (x, y, wave) [IFU arcsec, A] where the source stands, or None
    scale : factor of the flux, as its spectrum's
    velocity : barycentric correction, not applied [km/s]
    """

    name: str
    wave: np.ndarray
    skysub: np.ndarray
    error: np.ndarray
    positions: np.ndarray
    sky: np.ndarray
    refraction: Refraction
    source: tuple[float, float, float] | None
    scale: float = 1.0
    velocity: float = 0.0


def tangent_plane(sky: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Offsets (n, 2) east and north [arcsec] of positions [deg] from a centre, gnomonic."""
    ra, dec = np.radians(sky.T)
    ra0, dec0 = np.radians(centre)
    cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    east = np.cos(dec) * np.sin(ra - ra0) / cosine
    north = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cosine
    return np.degrees(np.stack([east, north], axis=1)) * 3600


def to_reference(field: FiberField, reference: FiberField) -> tuple[np.ndarray, np.ndarray, bool]:
    """Where a field's fibres lie in the IFU axes of the reference: positions (nf, 2), the turn (2, 2), aligned by the source.

    The turn comes from the fibres' places on the sky; where a source was found in both, it sets the offset, for pointing is not
    known to a tenth of an arcsecond.
    """
    centre = tuple(reference.sky.mean(axis=0))
    maps = []
    for one in (field, reference):
        design = np.column_stack([np.ones(one.positions.shape[0]), one.positions])
        maps.append(np.linalg.lstsq(design, tangent_plane(one.sky, centre), rcond=None)[0])
    own, theirs = maps
    turn = own[1:] @ np.linalg.inv(theirs[1:])  # row vectors: IFU of the field -> sky -> IFU of the reference
    if field.source is not None and reference.source is not None:
        return (field.positions - field.source[:2]) @ turn + reference.source[:2], turn, True
    offset = (own[0] - theirs[0]) @ np.linalg.inv(theirs[1:])
    return field.positions @ turn + offset, turn, False


def combine_cubes(
    fields: Sequence[FiberField], grid: np.ndarray, *, barycentric: bool = False, vacuum: bool = False
) -> tuple[np.ndarray, np.ndarray, Grid, dict[str, bool]]:
    """Weighted mean of all fields on the spaxels of the first one.

    Every field's refraction is taken out, it is turned and shifted onto the first, scaled as its spectrum is, and weighted at each
    wavelength by the inverse of the median variance of its fibres: one weight per wavelength, so that no spaxel's noise or light
    decides about its own weight.

    Parameters
    ----------
    grid : (n,) [A], in the frame and medium of the options, see `combine.combine_spectra`

    Returns
    -------
    cube, error : (n, ny, nx) float32 [erg/s/cm2/A per spaxel], 0 where nothing was measured
    spaxels : Grid in the first field's IFU axes; by_source : name -> whether the source aligned the field
    """
    first = fields[0]
    spaxels = spaxel_grid(first.positions)
    shape = (grid.size, spaxels.y.size * spaxels.x.size)
    light, noise, weights = (np.zeros(shape, np.float32) for _ in range(3))
    by_source = {}
    for field in fields:
        positions, turn, by_source[field.name] = to_reference(field, first)
        path = np.stack([field.refraction.x, field.refraction.y], axis=1) @ turn
        refraction = Refraction(field.refraction.wavelength, path[:, 0], path[:, 1])
        at = field.source[2] if field.source is not None else 0.5 * (field.wave[0] + field.wave[-1])
        good = field.error > 0
        values = [field.scale * field.skysub, (field.scale * field.error) ** 2]
        cube, variance = build_cube(values, good, positions, field.wave, refraction, at, spaxels)
        with np.errstate(invalid="ignore"):
            typical = (
                np.nanmedian(np.where(good, values[1], np.nan), axis=0) if good.any() else np.zeros(field.wave.size)
            )
        weight = np.where(typical > 0, 1.0 / np.where(typical > 0, typical, 1.0), 0.0)
        seen = (cube != 0).reshape(field.wave.size, -1) * weight[:, None]
        matrix = resampling(moved(field.wave, field.velocity, barycentric=barycentric, vacuum=vacuum), grid)
        light += matrix @ (seen * cube.reshape(seen.shape))
        noise += matrix.multiply(matrix) @ (seen**2 * variance.reshape(seen.shape))
        weights += matrix @ seen
    known = weights > 0
    safe = np.where(known, weights, 1.0)
    size = (grid.size, spaxels.y.size, spaxels.x.size)
    flux = np.where(known, light / safe, 0.0).astype(np.float32).reshape(size)
    error = np.where(known, np.sqrt(noise) / safe, 0.0).astype(np.float32).reshape(size)
    return flux, error, spaxels, by_source
