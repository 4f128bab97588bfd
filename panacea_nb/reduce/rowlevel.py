"""Level of each detector row in a science frame, told from the fibres' light by the shape of their profiles."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.linalg import solveh_banded

from .arrays import BLOCK, FAST, plain
from .extract import RIDGE, FiberModel, noise_floor
from .kernels import SIZE
from .rowwander import LEAST

PROFILE_ERROR = 0.005  # of a row's light: what the fibre profiles may be wrong by in all columns alike
PIXEL_ERROR = 0.02  # of a pixel's light
BIN = 4  # columns that are summed first: over so few, traces do not move and a level stays what it is
NEAR = 3 * SIZE  # rows within which fibres share a level's light: beyond, five fibres or more lie between
BAND = 2 * SIZE  # rows over which levels are coupled by that


@njit(cache=True, fastmath=FAST)
def _binned(image, expected, floor, bad, profile_error, pixel_error, part, weight):
    """Means of `BIN` columns of the image, into ``part`` (ny, nx // BIN) float32, and their weights in the level of their row.

    A bin with a bad pixel has none: beside the others, the light of its column would be missing.
    """
    ny, nx = part.shape
    for y in range(ny):
        total, light = np.float32(0.0), np.float32(0.0)
        for x in range(nx):
            data, e, noise, hidden = np.float32(0.0), np.float32(0.0), np.float32(0.0), False
            for k in range(BIN * x, BIN * x + BIN):
                data += image[y, k]
                e += max(expected[y, k], np.float32(0.0))
                noise += floor[y, k] if floor.shape[1] > 1 else floor[y, 0]
                hidden = hidden or bad[y, k]
            w = np.float32(0.0) if hidden else np.float32(BIN * BIN) / (noise + e + pixel_error * pixel_error * e * e / BIN)
            part[y, x], weight[y, x] = data / BIN, w
            total += w
            light += e / BIN
        # What the profiles may be wrong by is common to all columns: more of them do not average it.
        share = np.float32(1.0 / (1.0 + total * (profile_error * light / nx) ** 2))
        for x in range(nx):
            weight[y, x] *= share


@njit(cache=True, fastmath=FAST)
def _take_off(seen, spread, band):
    """Subtract from the rows of the band matrix (SIZE, 2 BAND) the products of a fibre's weighted profile with what it spreads to.

    ``seen`` (SIZE,) float32; ``spread`` (NEAR,) float32, from `SIZE` rows before the fibre's window on.
    """
    for k in range(SIZE):
        t = seen[k]
        if t != np.float32(0.0):
            row = band[k, BAND - SIZE - k : BAND - SIZE - k + NEAR]
            for m in range(NEAR):
                row[m] -= t * spread[m]


@njit(cache=True, fastmath=FAST)
def level_equations(image, weight, window, first, alive, ridge):
    """Normal equations of the rows' levels, the amplitudes of the fibres eliminated column by column.

    A column's fibres have the tridiagonal matrix N = P' W P; what they leave of the levels is W - W P N^-1 P' W.  The elements of
    N^-1 fall by a factor of thirty or more from fibre to fibre, so those of fibres within `SIZE` rows are all that is needed.

    Returns
    -------
    matrix : (SIZE + ny + SIZE, 2 BAND) float64, element [y, y' - y + BAND]; rhs : (SIZE + ny + SIZE,) float64
    """
    ny, nx = image.shape
    nf = window.shape[1]
    width = SIZE + ny + SIZE
    matrix, rhs = np.zeros((width, 2 * BAND)), np.zeros(width)
    part = np.zeros((width, 2 * BAND), np.float32)
    seen, profile = np.zeros((nf, SIZE), np.float32), np.zeros((nf, 2 * SIZE), np.float32)
    spread = np.zeros(NEAR, np.float32)
    w, data = np.zeros(width, np.float32), np.zeros(width, np.float32)
    base = np.zeros(nf, np.int64)
    diag, upper, left, right, value = np.ones(nf), np.zeros(nf), np.ones(nf), np.ones(nf), np.zeros(nf)
    for x in range(nx):
        b, c = x // BLOCK, x % BLOCK
        for y in range(ny):
            w[SIZE + y] = weight[y, x]
            data[SIZE + y] = image[y, x] if weight[y, x] > 0 else np.float32(0.0)
            matrix[SIZE + y, BAND] += weight[y, x]
            rhs[SIZE + y] += w[SIZE + y] * data[SIZE + y]
        for f in range(nf):
            diag[f], upper[f], value[f] = 1.0, 0.0, 0.0
            base[f] = min(max(first[b, f], -SIZE), ny) + SIZE
            p, t, wf, df = profile[f], seen[f], w[base[f] : base[f] + SIZE], data[base[f] : base[f] + SIZE]
            aa, ad, total, ab = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for k in range(SIZE):
                p[k] = window[b, f, k * BLOCK + c] if alive[f] else np.float32(0.0)
            for k in range(SIZE):
                t[k] = wf[k] * p[k]
                aa += t[k] * p[k]
                ad += t[k] * df[k]
                total += p[k] * p[k]
            if aa <= 0.0:
                continue
            diag[f], value[f] = aa + ridge * total, ad
            if f > 0:
                offset = min(max(base[f] - base[f - 1], 0), SIZE)
                before = profile[f - 1, offset : offset + SIZE]
                for k in range(SIZE):
                    ab += t[k] * before[k]
                upper[f - 1] = ab
        left[0] = diag[0]
        for f in range(1, nf):
            m = upper[f - 1] / left[f - 1]
            left[f] = diag[f] - m * upper[f - 1]
            value[f] -= m * value[f - 1]
        right[nf - 1] = diag[nf - 1]
        value[nf - 1] /= left[nf - 1]
        for f in range(nf - 2, -1, -1):
            right[f] = diag[f] - upper[f] * upper[f] / right[f + 1]
            value[f] = (value[f] - upper[f] * value[f + 1]) / left[f]
        for f in range(nf):
            # Row f of N^-1 from its diagonal element outwards, times the weighted profiles.
            spread[:] = 0.0
            own = 1.0 / (left[f] + right[f] - diag[f])
            for step in (-1, 1):
                element, g = own, f
                while 0 <= g < nf and abs(base[g] - base[f]) <= SIZE:
                    if g != f or step > 0:
                        e, at = np.float32(element), base[g] - base[f] + SIZE
                        out, t = spread[at : at + SIZE], seen[g]
                        for k in range(SIZE):
                            out[k] += e * t[k]
                    if step > 0:
                        element *= -upper[g] / right[g + 1] if g + 1 < nf else 0.0
                    else:
                        element *= -upper[g - 1] / left[g - 1] if g > 0 else 0.0
                    g += step
            for k in range(SIZE):
                rhs[base[f] + k] -= seen[f, k] * value[f]
            _take_off(seen[f], spread, part[base[f] : base[f] + SIZE])
        if b != (x + 1) // BLOCK or x + 1 == nx:  # single precision holds the sum of a few columns only
            matrix += part
            part[:] = 0.0
    return matrix, rhs


def row_levels(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    light: np.ndarray,
    wander: np.ndarray,
) -> np.ndarray:
    """Constant that each row has beside the fibres' light, (ny, 1) float32 [e-].

    The overscan has some thirty pixels per row, so it gives a row's level only to half an electron; the two thousand pixels of the
    row itself know it better, once the fibres' light is told from it: the rows between the fibres' centres see little light, and
    traces wander over rows.  Amplitudes of all fibres in all columns and the levels of all rows are fitted together by least
    squares; the amplitudes are eliminated column by column, which leaves a banded system for the levels.  A level that a fibre's
    own light could imitate stays at its amplifier's, which is free: a bias that has moved since the bias frames lifts the whole
    half of the chip.

    Parameters
    ----------
    image : (ny, nx) [e-], background subtracted; the amplifiers are its two halves
    noise : (ny, 1) or (ny, nx) [e-], read noise
    bad : (ny, nx) bool
    model : FiberModel
    light : (ny, nx) [e-], expected light of the fibres, for the weights: rows with much light say little
    wander : (2, 3), white and slow scatter [e-] of the rows' levels about their amplifier's and the length [rows] of the slow part,
        as the bias frames show it (`rowwander`): the prior, without which rows that do not wander would get the noise of this fit
    """
    ny = image.shape[0]
    part, weight = binned_columns(image, noise, bad, light)
    thin = model.every(BIN, BIN // 2)
    full, rhs = level_equations(part, weight, *thin.windows, plain(model.alive, np.bool_), RIDGE)
    inside = slice(SIZE, SIZE + ny)
    lower = np.ascontiguousarray(full[inside, BAND:].T)
    return _solved(lower, rhs[inside], wander).astype(np.float32)[:, None]


def binned_columns(
    image: np.ndarray, noise: np.ndarray, bad: np.ndarray, light: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means of `BIN` columns of the image and their weights in the level of their row, (ny, nx // BIN) float32 each.

    Parameters are those of `row_levels`.
    """
    part, weight = np.zeros((2, image.shape[0], image.shape[1] // BIN), np.float32)
    frame = (plain(image, np.float32), plain(light, np.float32), noise_floor(noise, image.shape), plain(bad, np.bool_))
    _binned(*frame, PROFILE_ERROR, PIXEL_ERROR, part, weight)
    return part, weight


def _solved(lower: np.ndarray, rhs: np.ndarray, wander: np.ndarray) -> np.ndarray:
    """Levels (ny,) from their normal equations, lower banded form (n, ny), and right side (ny,), with the prior.

    A level is the sum of its amplifier's, a white and a slow part.  The slow part is a first-order autoregressive process, whose
    inverse covariance is tridiagonal, so that white and slow parts in turn form a banded system; the amplifiers' levels, which
    have no prior, border it.
    """
    n, ny = lower.shape
    half = ny // 2
    white, slow, length = np.maximum(np.asarray(wander, float).T, LEAST)
    rows = [half, ny - half]
    both = np.zeros((2 * n, 2 * ny))
    both[0::2, 0::2] = both[0::2, 1::2] = both[1::2, 0::2] = lower
    both[1:-1:2, 1::2] = lower[1:]
    both[0, 0::2] += np.repeat(1.0 / white**2, rows)
    step = np.exp(-1.0 / length)
    sharp = 1.0 / (slow**2 * (1.0 - step**2))
    diagonal, beside = np.repeat(sharp * (1 + step**2), rows), np.repeat(-sharp * step, rows)
    diagonal[[0, half - 1]], diagonal[[half, -1]] = sharp[0], sharp[1]
    beside[[half - 1, -1]] = 0.0
    both[0, 1::2] += diagonal
    both[2, 1::2] += beside
    amplifier = np.zeros((ny, 2))
    amplifier[:half, 0] = amplifier[half:, 1] = 1.0
    border = lower[0][:, None] * amplifier
    for k in range(1, min(n, ny)):
        border[k:] += lower[k, : ny - k, None] * amplifier[:-k]
        border[:-k] += lower[k, : ny - k, None] * amplifier[k:]
    twice = np.repeat(np.column_stack([rhs, border]), 2, axis=0)
    solved = solveh_banded(both, twice, lower=True)
    corner = amplifier.T @ border - twice[:, 1:].T @ solved[:, 1:]
    common = np.linalg.lstsq(corner, amplifier.T @ rhs - twice[:, 1:].T @ solved[:, 0], rcond=1e-10)[0]
    parts = solved[:, 0] - solved[:, 1:] @ common
    return parts[0::2] + parts[1::2] + amplifier @ common
