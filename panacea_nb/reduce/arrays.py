"""Arrays as compiled code expects them."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import median_filter

BLOCK = 16  # columns at a time
# Sums may be taken in any order and products be fused into them; infinities and NaN keep their meaning.
FAST = {"nsz", "reassoc", "contract", "arcp"}


def plain(array: np.ndarray, dtype: type) -> np.ndarray:
    """The array with one type, row by row in memory, and writable; a copy only where it is not so already.

    Anything else would be compiled anew, for some seconds in the middle of a reduction.
    """
    return np.require(array, dtype, ("C", "W"))


def fill_gaps(value: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Rows (n, nx) with straight lines between their good samples where they are not good; 0 in rows with fewer than two."""
    x = np.arange(value.shape[1])
    out = value.copy()
    for f in np.flatnonzero(~good.all(axis=1)):
        g = good[f]
        if g.sum() >= 2:
            out[f, ~g] = np.interp(x[~g], x[g], value[f, g])
        else:
            out[f] = 0.0
    return out


def running_median(rows: np.ndarray, size: int) -> np.ndarray:
    """Median over ``size`` samples about each one, of every row (n, nx); beyond the ends stand the last samples."""
    # The one-dimensional filter is ten times as fast as the same window on an image.
    return np.stack([median_filter(row, size=size, mode="nearest") for row in rows])


def short_gaps(good: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Elements of rows (n, nx) that lie in gaps of at most ``most`` elements between good ones.

    Returns
    -------
    row, column, before, after, share : (k,) of each such element, of the good ones to its sides, and how far it lies between them
    """
    n = good.shape[1]
    x = np.arange(n)
    before = np.maximum.accumulate(np.where(good, x, -1), axis=1)
    after = np.minimum.accumulate(np.where(good, x, n)[:, ::-1], axis=1)[:, ::-1]
    row, column = np.nonzero(~good & (before >= 0) & (after < n) & (after - before <= most + 1))
    low, high = before[row, column], after[row, column]
    return row, column, low, high, (column - low) / np.maximum(high - low, 1)


def enlarged(small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An image of means over blocks of pixels brought to ``shape`` by straight lines between the blocks' centres, float32."""
    out = np.asarray(small, np.float32)
    for axis in (1, 0):
        n = out.shape[axis]
        at = np.clip((np.arange(shape[axis]) + 0.5) * (n / shape[axis]) - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), n - 2)
        share = (at - low).astype(np.float32)
        share = share if axis else share[:, None]
        first = np.take(out, low, axis)
        second = np.take(out, low + 1, axis)
        second -= first
        second *= share
        second += first
        out = second
    return out


@njit(cache=True)
def lines_between(values, at, out):
    """Straight lines between values (n, nx) at places (n, nx) that increase along the first axis, on all rows of ``out`` (ny, nx).

    Beyond the first and the last place the lines go on.
    """
    n, nx = values.shape
    place = np.zeros(nx, np.int64)
    for y in range(out.shape[0]):
        for x in range(nx):
            k = place[x]
            while k < n - 2 and at[k + 1, x] < y:
                k += 1
            place[x] = k
            gap = at[k + 1, x] - at[k, x]
            slope = (values[k + 1, x] - values[k, x]) / gap if gap != 0.0 else 0.0
            out[y, x] = values[k, x] + (y - at[k, x]) * slope
