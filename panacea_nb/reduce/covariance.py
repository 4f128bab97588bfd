"""Correlation of the errors of neighbouring rectified elements, element by element."""

from __future__ import annotations

import numpy as np

from .arrays import fill_gaps
from .rectify import lanczos_weights

LAGS = 3


def neighbour_covariance(
    variance: np.ndarray, usable: np.ndarray, wavelength: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """Covariance of elements 1 to `LAGS` apart, (LAGS, nf, nw), of spectra made by `rectify` from independent samples.

    Two elements share native samples; with Lanczos weights w and w' their covariance is the sum of w w' variance.  Element
    [k, f, i] belongs to i and i + k + 1; the last k + 1 are 0.

    Parameters as in `rectify`.
    """
    nf, nx = variance.shape
    columns = np.arange(nx, dtype=float)
    spread = fill_gaps(variance, usable & (variance > 0))
    result = np.zeros((LAGS, nf, grid.size))
    for f in range(nf):
        position = np.interp(grid, wavelength[f], columns)
        index, weight = lanczos_weights(position, nx)
        part = weight * spread[f][index]
        for k in range(1, LAGS + 1):
            same = index[:-k, :, None] == index[k:, None, :]
            result[k - 1, f, :-k] = np.einsum("wi,wij,wj->w", part[:-k], same, weight[k:])
    return result


def correlation(covariance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """`neighbour_covariance` over the errors (nf, nw) of both elements, float32; 0 where either element is bad.

    A covariance of fluxes of 1e-18 does not fit into float32, a correlation does.
    """
    result = np.zeros(covariance.shape, np.float32)
    for k in range(1, covariance.shape[0] + 1):
        both = error[:, :-k] * error[:, k:]
        result[k - 1, :, :-k] = np.where(both > 0, covariance[k - 1, :, :-k] / np.where(both > 0, both, 1.0), 0.0)
    return result
