"""Data cubes and collapsed images from fibre spectra, with refraction taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..instrument import LENSLET_PITCH
from .arrays import short_gaps
from .refraction import Refraction

SPAXEL = 0.4  # arcsec
KERNEL = 0.26  # arcsec, sigma: smooths about as much as a lenslet does
MAX_STEP = 0.02  # arcsec of refraction within which one set of weights serves
MIN_LIGHT = 0.3  # sum of the weights: beyond the lenslets' borders nothing was seen
BRIDGED = 12  # samples; what a cosmic ray hides of a fibre
BRIDGE_ERROR = 0.1  # of the light put there: lines may lie in the gap
MIN_COVER = 0.15  # of the weights: less light on usable fibres leaves a spaxel empty


@dataclass(frozen=True)
class Grid:
    """Spaxel centres [IFU arcsec]: x (nx,), y (ny,)."""

    x: np.ndarray
    y: np.ndarray


def spaxel_grid(positions: np.ndarray) -> Grid:
    """Spaxels that cover the field."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    n = np.ceil((high - low) / SPAXEL).astype(int) + 1
    start = 0.5 * (low + high) - 0.5 * (n - 1) * SPAXEL
    return Grid(start[0] + SPAXEL * np.arange(n[0]), start[1] + SPAXEL * np.arange(n[1]))


def _weights(grid: Grid, positions: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """(n_spaxel, nf) Gaussian weights of the fibres for spaxels seen through a displacement."""
    gx, gy = (g.ravel() for g in np.meshgrid(grid.x, grid.y))
    r2 = (gx[:, None] + dx - positions[None, :, 0]) ** 2 + (gy[:, None] + dy - positions[None, :, 1]) ** 2
    weight = np.exp(-0.5 * r2 / KERNEL**2)
    weight[weight < 1e-5] = 0.0
    return weight


def bridged(
    values: Sequence[np.ndarray], errors: Sequence[np.ndarray], good: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Short gaps of fibres along the spectrum closed by straight lines, with an error that says so.

    Fibres beside would make up for a hidden one otherwise: beside the middle of a source they have less light, and a cosmic ray
    would look like an absorption line.

    Parameters
    ----------
    values, errors : (nf, nw) each; good : (nf, nw) bool

    Returns
    -------
    values, errors, good : with the gaps closed
    """
    row, column, low, high, share = short_gaps(good, BRIDGED)
    seen = good.sum(axis=0)
    some = seen[column] > 0.5 * seen.max(initial=0)  # what no fibre shows stays unseen
    row, column, low, high, share = (part[some] for part in (row, column, low, high, share))
    filled = [value.copy() for value in values]
    for value in filled:
        value[row, column] = (1 - share) * value[row, low] + share * value[row, high]
    spread = [error.copy() for error in errors]
    for error, value in zip(spread, filled, strict=False):
        error[row, column] = np.hypot(np.maximum(error[row, low], error[row, high]), BRIDGE_ERROR * value[row, column])
    whole = good.copy()
    whole[row, column] = True
    return filled, spread, whole


def build_cube(
    values: list[np.ndarray],
    good: np.ndarray,
    positions: np.ndarray,
    wave: np.ndarray,
    refraction: Refraction,
    wave_ref: float,
    grid: Grid,
    errors: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Cubes (nw, ny, nx) float32, flux per spaxel, of several data sets that share fibres and mask.

    Surface brightness is averaged with Gaussian weights in each spaxel, at the place where refraction puts the light of each
    wavelength, and multiplied by the spaxel's share of a lenslet's area.  Empty spaxels are 0.  Cubes of ``errors`` (nf, nw)
    come after those of ``values``: errors of single spaxels, whose neighbours share fibres, see `sum_error_factor`.
    """
    values, errors, good = bridged(values, errors, good)
    share = SPAXEL**2 / LENSLET_PITCH**2
    dx, dy = refraction.offset(wave, wave_ref)
    path = np.concatenate([[0], np.cumsum(np.hypot(np.diff(dx), np.diff(dy)))])
    block = np.floor(path / MAX_STEP).astype(int)
    edges = np.flatnonzero(np.diff(block, prepend=block[0] - 1, append=block[-1] + 1))
    cubes = [np.zeros((wave.size, grid.y.size, grid.x.size), np.float32) for _ in (*values, *errors)]
    usable = good.astype(np.float32)
    masked = [np.where(good, v, 0.0).astype(np.float32) for v in values]
    # Squares of flux densities are too small for float32, so errors are taken in units of their largest.
    units = [float(np.max(e, where=good, initial=0.0)) or 1.0 for e in errors]
    squares = [(np.where(good, e, 0.0) / u).astype(np.float32) ** 2 for e, u in zip(errors, units, strict=True)]
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        m = (a + b - 1) // 2
        weight = _weights(grid, positions, dx[m], dy[m]).astype(np.float32)
        full = weight.sum(axis=1, keepdims=True)
        cover = weight @ usable[:, a:b]
        ok = (cover > MIN_COVER * full) & (full > MIN_LIGHT)
        safe = np.where(ok, cover, 1.0)
        sums = [weight @ data[:, a:b] for data in masked]
        sums += [unit * np.sqrt(weight**2 @ data[:, a:b]) for unit, data in zip(units, squares, strict=True)]
        for cube, total in zip(cubes, sums, strict=True):
            part = np.where(ok, total / safe, 0.0) * share
            cube[a:b] = part.T.reshape(b - a, grid.y.size, grid.x.size)
    return cubes


def sum_error_factor(positions: np.ndarray, grid: Grid) -> float:
    """Error of a sum over many spaxels over the root of the sum of their squared errors: neighbours share fibres."""
    weight = _weights(grid, positions, 0.0, 0.0)
    full = weight.sum(axis=1, keepdims=True)
    part = np.where(full > 0.5 * full.max(), weight / np.maximum(full, 1e-3), 0.0)
    return float(np.sqrt((part.sum(axis=0) ** 2).sum() / (part**2).sum()))


def collapse(cube: np.ndarray, wave: np.ndarray, centre: float, half_width: float) -> np.ndarray:
    """Median image (ny, nx) of a cube within ``centre`` +- ``half_width`` [A]; empty spaxels stay 0."""
    inside = np.abs(wave - centre) <= half_width
    if not inside.any():
        inside[np.argmin(np.abs(wave - centre))] = True
    part = cube[inside].astype(np.float64)
    empty = part == 0
    part[empty] = np.nan
    filled = ~empty.all(axis=0)
    image = np.zeros(cube.shape[1:])
    image[filled] = np.nanmedian(part[:, filled], axis=0)
    return image
