"""Wavelength grids that spectra share: resampling that keeps flux, smoothing to one resolution, errors that follow both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

GRID = (3650.0, 10500.0, 0.7)  # A: first, last, step, as users of LRS2Multi know it
LIGHT_SPEED = 299792.458  # km/s


def common_grid(first: float = GRID[0], last: float = GRID[1], step: float = GRID[2]) -> np.ndarray:
    """Wavelengths (n,) [A] of combined spectra."""
    return first + step * np.arange(int(round((last - first) / step)) + 1)


def air_to_vacuum(wave: np.ndarray) -> np.ndarray:
    """Vacuum wavelengths of air wavelengths [A]: the inverse of Morton (1991, ApJS 77, 119), as the VALD data base gives it."""
    s2 = (1e4 / np.asarray(wave, float)) ** 2
    index = 1 + 8.336624212083e-5 + 0.02408926869968 / (130.1065924522 - s2) + 1.599740894897e-4 / (38.92568793293 - s2)
    return wave * index


def moved(wave: np.ndarray, velocity: float, *, barycentric: bool, vacuum: bool) -> np.ndarray:
    """Wavelengths [A, air, topocentric] in the frame and medium that were chosen; ``velocity`` is the correction [km/s]."""
    # In the order in which light was changed: air to vacuum where the telescope stands, then the motion of the Earth.
    wave = air_to_vacuum(wave) if vacuum else wave
    return wave * (1 + velocity / LIGHT_SPEED) if barycentric else wave


def resampling(wave: np.ndarray, grid: np.ndarray) -> csr_array:
    """Matrix (n_grid, n) of the shares that the samples of one grid have in those of another.

    Flux densities are averaged over the width of each new sample, so that flux is kept (as Carnall 2017, arXiv:1705.05165, does).
    Rows without full cover are empty.
    """
    edges = _edges(np.asarray(wave, float))
    target = _edges(np.asarray(grid, float))
    low = np.searchsorted(edges, target[:-1], side="right") - 1
    high = np.searchsorted(edges, target[1:], side="left") - 1
    inside = (low >= 0) & (high < wave.size) & (target[:-1] >= edges[0]) & (target[1:] <= edges[-1])
    rows, columns, values = [], [], []
    most = int((high - low)[inside].max(initial=0)) + 1
    index = np.flatnonzero(inside)
    for k in range(most):
        column = low[index] + k
        take = column <= high[index]
        r, c = index[take], column[take]
        share = np.minimum(edges[c + 1], target[r + 1]) - np.maximum(edges[c], target[r])
        rows.append(r), columns.append(c), values.append(share / (target[r + 1] - target[r]))
    shape = (grid.size, wave.size)
    return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def _edges(wave: np.ndarray) -> np.ndarray:
    middle = 0.5 * (wave[1:] + wave[:-1])
    return np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])


def smoothing(own: np.ndarray, sigma: float, step: float) -> csr_array:
    """Matrix (n, n) that makes lines of width ``own`` (n,) [A] as wide as ``sigma``; wider ones are left as they are."""
    extra = np.sqrt(np.maximum(sigma**2 - np.asarray(own, float) ** 2, 0.0))
    reach = int(np.ceil(5 * extra.max(initial=0.0) / step))
    offset = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offset * step / np.maximum(extra, 0.05 * step)[:, None]) ** 2)
    row = np.repeat(np.arange(extra.size), offset.size)
    column = row + np.tile(offset, extra.size)
    take = (column >= 0) & (column < extra.size) & (kernel.ravel() > 1e-6)
    matrix = csr_array((kernel.ravel()[take], (row[take], column[take])), shape=(extra.size, extra.size))
    return matrix.multiply(1.0 / matrix.sum(axis=1)[:, None]).tocsr()


def to_grid(wave: np.ndarray, grid: np.ndarray, own: np.ndarray | None = None, sigma: float = 0.0) -> csr_array:
    """Matrix (n_grid, n) of `smoothing` to ``sigma`` (0: none), then `resampling`."""
    matrix = resampling(wave, grid)
    return matrix if not sigma or own is None else (matrix @ smoothing(own, sigma, wave[1] - wave[0])).tocsr()


def propagated(matrix: csr_array, error: np.ndarray, correlation: Sequence[float] = ()) -> np.ndarray:
    """Variances of ``matrix @ values`` for values with ``error`` (n,) or (n, m) that correlate with their neighbours."""
    variance = matrix.multiply(matrix) @ error**2
    columns = matrix.tocsc()
    for lag, rho in enumerate(correlation, start=1):
        both = columns[:, :-lag].multiply(columns[:, lag:]).tocsr()
        variance = variance + 2 * rho * (both @ (error[:-lag] * error[lag:]))
    return np.maximum(variance, 0.0)


def neighbour_correlation(matrix: csr_array, correlation: Sequence[float] = ()) -> float:
    """Correlation of neighbouring elements of ``matrix @ values``, mean over those that there are."""
    own = propagated(matrix, np.ones(matrix.shape[1]), correlation)
    first, second = matrix[:-1].tocsc(), matrix[1:].tocsc()
    both = first.multiply(second).sum(axis=1)
    for lag, rho in enumerate(correlation, start=1):
        both = both + rho * first[:, :-lag].multiply(second[:, lag:]).sum(axis=1)
        both = both + rho * first[:, lag:].multiply(second[:, :-lag]).sum(axis=1)
    used = (own[:-1] > 0) & (own[1:] > 0)
    return float(np.mean(both[used] / np.sqrt(own[:-1][used] * own[1:][used]))) if used.any() else 0.0
