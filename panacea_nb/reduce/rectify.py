"""From native pixels to the common wavelength grid: Lanczos interpolation of what is left after the sky, with its covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .maskbits import DQ

SUPPORT = 3
LOST_SHARE = 0.35  # of the interpolation's squared weights on masked samples: more makes the result doubtful


@dataclass(frozen=True)
class Rectified:
    """Attributes
    ----------
    value, variance : (nf, nw) float64
    mask : (nf, nw) uint8, `DQ` bits
    correlation : (3,) float, mean correlation of neighbouring elements at lags 1, 2, 3
    """

    value: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    correlation: np.ndarray


def lanczos_weights(position: np.ndarray, nx: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and weights (..., 6) of a Lanczos-3 interpolation at fractional ``position`` [px]; weights sum to one."""
    base = np.floor(position).astype(int)
    index = base[..., None] + np.arange(1 - SUPPORT, SUPPORT + 1)
    u = position[..., None] - index
    weight = np.sinc(u) * np.sinc(u / SUPPORT) * (np.abs(u) < SUPPORT)
    weight /= weight.sum(axis=-1, keepdims=True)
    return np.clip(index, 0, nx - 1), weight


def fill_gaps(value: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Masked samples replaced by the line between their good neighbours in the same fibre."""
    x = np.arange(value.shape[1])
    out = value.copy()
    for f in np.flatnonzero(~good.all(axis=1)):
        g = good[f]
        if g.sum() >= 2:
            out[f, ~g] = np.interp(x[~g], x[g], value[f, g])
        else:
            out[f] = 0.0
    return out


def rectify(
    value: np.ndarray,
    variance: np.ndarray,
    mask: np.ndarray,
    usable: np.ndarray,
    wavelength: np.ndarray,
    grid: np.ndarray,
):
    """Interpolate a density (per A) and its variance onto ``grid``.

    Parameters
    ----------
    value, variance : (nf, nx)
        Sky-subtracted density and its variance.
    mask : (nf, nx) uint8
        Bits to be handed on.
    usable : (nf, nx) bool
        Samples whose value may be used; others are bridged.
    wavelength : (nf, nx) [A]; grid : (nw,) [A]

    Returns
    -------
    Rectified
    """
    nf, nx = value.shape
    columns = np.arange(nx, dtype=float)
    position = np.stack([np.interp(grid, wavelength[f], columns, left=-9.0, right=nx + 9.0) for f in range(nf)])
    outside = (position < -0.5) | (position > nx - 0.5) | (position < 0) | (position > nx - 1)
    index, weight = lanczos_weights(np.clip(position, 0, nx - 1), nx)
    rows = np.arange(nf)[:, None, None]
    filled = fill_gaps(value, usable)
    result = np.einsum("fwk,fwk->fw", weight, filled[rows, index])
    spread = fill_gaps(variance, usable & (variance > 0))
    square = weight**2
    var = np.einsum("fwk,fwk->fw", square, spread[rows, index])
    lost = np.einsum("fwk,fwk->fw", square, (~usable)[rows, index].astype(float)) / square.sum(axis=-1)
    nearest = np.clip(np.round(position).astype(int), 0, nx - 1)
    handed = mask[np.arange(nf)[:, None], nearest]
    out = np.where(lost > LOST_SHARE, handed | np.uint8(DQ.LOSTWEIGHT), 0).astype(np.uint8)
    out |= np.where(outside, np.uint8(DQ.EDGE | DQ.NODATA), 0).astype(np.uint8)
    correlation = neighbour_correlation(index, weight)
    return Rectified(np.where(outside, 0.0, result), np.where(outside, 0.0, var), out, correlation)


def neighbour_correlation(index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean correlation of rectified elements at lags 1, 2, 3 for independent native samples of equal variance."""
    some = np.linspace(0, index.shape[0] - 1, min(12, index.shape[0])).astype(int)
    result = []
    for lag in (1, 2, 3):
        a, b = slice(None, -lag), slice(lag, None)
        ia, ib, wa, wb = index[some, a], index[some, b], weight[some, a], weight[some, b]
        same = ia[..., :, None] == ib[..., None, :]
        shared = np.einsum("fwi,fwj,fwij->fw", wa, wb, same)
        norm = np.sqrt((wa**2).sum(-1) * (wb**2).sum(-1))
        result.append(float(np.mean(shared / norm)))
    return np.array(result)
