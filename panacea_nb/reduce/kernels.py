"""Compiled loops over columns and fibres: profiles on the pixels, extraction, image of the fibres.

The cross-dispersion profile of a fibre is a cubic B-spline in the distance ``u`` from its trace, with uniform knots of
`KNOT` pixels over +-`HALF_WIDTH` pixels.  Its coefficients are tabulated per fibre and per block of columns.

A fit goes column by column, and `BLOCK` columns side by side: they are one cache line of an image's row and one vector register.
All that is done to them is done in buffers of their own, so that no transposed image and no image of weights is ever made.
Buffers and windows are one-dimensional, element ``row * BLOCK + column``: so the compiler sees that it may work on all columns at
once.  Inner loops have no branches; pixels not to be used have an infinite variance.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .arrays import BLOCK, FAST
from .tridiagonal import backward, couplings, forward, variances

KNOT = 0.75  # px; a profile of 4 px FWHM is sampled five times over
HALF_WIDTH = 9.75  # px; reaches over the next fibre (6.8 px away)
N_COEF = int(round(2 * HALF_WIDTH / KNOT)) + 3
REACH = int(np.ceil(HALF_WIDTH))
ROWS = 2 * REACH + 1  # of a profile
SIZE = 24  # rows of a window: a trace may move by three rows within a block of columns
WINDOW = SIZE * BLOCK
PHASES = 3  # pixels after which a window meets the knots as before,
KNOTS_ON = 4  # so many knots further on
NO_IMAGE = np.zeros(
    (1, 1), np.float32
)  # for an argument that is left out: it has the type and layout of one that is not
NO_GRADE = np.zeros((1, 1), np.uint8)
ONES = np.ones(WINDOW, np.float32)

if KNOT * KNOTS_ON != PHASES or ROWS > SIZE:
    raise ValueError("the windows of the profiles need knots that fall on pixels again after three of them")


@njit(cache=True, fastmath=FAST)
def _spline_weights(r, slope):
    """Weights of the four splines (or of their derivatives) that make a profile ``r`` beyond a knot."""
    one, two, three, four = np.float32(1.0), np.float32(2.0), np.float32(3.0), np.float32(4.0)
    q = one - r
    if slope:
        part = np.float32(0.5 / KNOT)
        return -q * q * part, (three * r - four) * r * part, (four - three * q) * q * part, r * r * part
    part = np.float32(1.0 / 6.0)
    return (
        q * q * q * part,
        (three * r * r * (r - two) + four) * part,
        (three * q * q * (q - two) + four) * part,
        r * r * r * part,
    )


@njit(cache=True, fastmath=FAST)
def _mix(weights, coef, i, at, n, value):
    """``n`` samples of a window from ``at`` on: the four coefficients from ``i`` on, each with its weights (4 * BLOCK,)."""
    c0, c1, c2, c3 = np.float32(coef[i]), np.float32(coef[i + 1]), np.float32(coef[i + 2]), np.float32(coef[i + 3])
    for c in range(n):
        value[at + c] = (
            weights[c] * c0 + weights[BLOCK + c] * c1 + weights[2 * BLOCK + c] * c2 + weights[3 * BLOCK + c] * c3
        )


@njit(cache=True, fastmath=FAST)
def _sample(coef, low, trace, begin, slope, weights, value):
    """Fill columns ``begin`` ... of a window with a profile, or with its derivative; ``trace`` holds their traces.

    Pixels are `KNOTS_ON` / `PHASES` knots apart, so a column has three sets of spline weights only; and as a trace hardly moves
    within a block, all columns mostly use the same coefficients.  Outside the support the window stays 0.
    """
    n = trace.size
    nearest, farthest = trace.min() / KNOT, trace.max() / KNOT
    for j in range(PHASES):
        shift = (low + j + HALF_WIDTH) / KNOT
        last, first = int(np.floor(shift - nearest)), int(np.floor(shift - farthest))
        if first == last:
            for c in range(n):
                w0, w1, w2, w3 = _spline_weights(np.float32(shift - trace[c] / KNOT - first), slope)
                weights[c], weights[BLOCK + c], weights[2 * BLOCK + c], weights[3 * BLOCK + c] = w0, w1, w2, w3
            i = first
            for k in range(j, SIZE, PHASES):
                if 0 <= i <= N_COEF - 4:
                    if n == BLOCK:  # a loop of known length is one instruction
                        _mix(weights, coef, i, k * BLOCK, BLOCK, value)
                    else:
                        _mix(weights, coef, i, k * BLOCK + begin, n, value)
                i += KNOTS_ON
        else:
            for c in range(n):
                s = shift - trace[c] / KNOT
                i = int(np.floor(s))
                a0, a1, a2, a3 = _spline_weights(np.float32(s - i), slope)
                for k in range(j, SIZE, PHASES):
                    if 0 <= i <= N_COEF - 4:
                        value[k * BLOCK + begin + c] = (
                            a0 * coef[i] + a1 * coef[i + 1] + a2 * coef[i + 2] + a3 * coef[i + 3]
                        )
                    i += KNOTS_ON


@njit(cache=True)
def _fill(trace, coef, block, b, f, low, slope, weights, out):
    """One fibre's window in block ``b`` of the columns, a run of columns with the same coefficients at a time."""
    nx = trace.shape[1]
    x, end = b * BLOCK, min((b + 1) * BLOCK, nx)
    while x < end:
        stop = min((x // block + 1) * block, end)
        _sample(coef[f, x // block], low, trace[f, x:stop], x - b * BLOCK, slope, weights, out)
        x = stop


def profile_windows(trace: np.ndarray, coef: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Profiles of all fibres sampled on the rows around them.

    Parameters
    ----------
    trace : (nf, nx) float64 [px]; coef : (nf, n, N_COEF) float64, one set for each ``block`` columns

    Returns
    -------
    window : (nb, nf, WINDOW) float32, first : (nb, nf) int32
        For each block of `BLOCK` columns the profile on the rows ``first`` .. ``first + SIZE - 1``.
    """
    nf, nx = trace.shape
    nb = -(-nx // BLOCK)
    # Large arrays are made by numpy: it asks for large pages, which compiled code does not, and that takes five times as long.
    window, first = np.zeros((nb, nf, WINDOW), np.float32), np.zeros((nb, nf), np.int32)
    fill_windows(trace, coef, block, window, first)
    return window, first


@njit(cache=True)
def fill_windows(trace, coef, block, window, first):
    """Fill the zeros of `profile_windows`."""
    weights = np.zeros(4 * BLOCK, np.float32)
    for b in range(window.shape[0]):
        for f in range(window.shape[1]):
            low = int(np.floor(trace[f, b * BLOCK : (b + 1) * BLOCK].min() + 0.5)) - REACH
            first[b, f] = low
            _fill(trace, coef, block, b, f, low, False, weights, window[b, f])


@njit(cache=True)
def slope_windows(trace, coef, block, b, first, weights, out):
    """As `profile_windows`, the derivatives of the profiles [1/px] in block ``b`` of the columns, into ``out`` (nf, WINDOW)."""
    out[:] = 0.0
    for f in range(trace.shape[0]):
        _fill(trace, coef, block, b, f, first[b, f], True, weights, out[f])


@njit(cache=True)
def place(first, ny):
    """Where a window that begins at row ``first`` begins in a buffer, which has `SIZE` spare rows on both sides of the chip's."""
    return (min(max(first, -SIZE), ny) + SIZE) * BLOCK


@njit(cache=True)
def gather(image, b, buffer):
    """Bring block ``b`` of the columns of an image (ny, nx) into a buffer."""
    ny, nx = image.shape
    n = min(BLOCK, nx - b * BLOCK)
    for y in range(ny):
        at = (SIZE + y) * BLOCK
        row = image[y, b * BLOCK : b * BLOCK + n]
        if n == BLOCK:  # a loop of known length is one instruction
            for c in range(BLOCK):
                buffer[at + c] = row[c]
        else:
            for c in range(n):
                buffer[at + c] = row[c]


@njit(cache=True)
def scatter(buffer, b, image):
    """The reverse of `gather`."""
    ny, nx = image.shape
    n = min(BLOCK, nx - b * BLOCK)
    for y in range(ny):
        out = buffer[(SIZE + y) * BLOCK : (SIZE + y + 1) * BLOCK]
        row = image[y, b * BLOCK : b * BLOCK + n]
        if n == BLOCK:
            for c in range(BLOCK):
                row[c] = out[c]
        else:
            for c in range(n):
                row[c] = out[c]


@njit(cache=True)
def hide(bad, b, data, variance):
    """Make the pixels of block ``b`` that are not to be used 0, for they may hold anything, and their variance infinite."""
    ny, nx = bad.shape
    n = min(BLOCK, nx - b * BLOCK)
    for y in range(ny):
        row, at = bad[y, b * BLOCK : b * BLOCK + n], (SIZE + y) * BLOCK
        some = False
        if n == BLOCK:
            for c in range(BLOCK):
                some |= row[c]
        if some or n < BLOCK:
            for c in range(n):
                if row[c]:
                    data[at + c] = np.float32(0.0)
                    variance[at + c] = np.float32(np.inf)


@njit(cache=True, fastmath=FAST)
def weigh(variance, expected, out):
    """Inverse variance of each pixel of a buffer that holds some expected light."""
    for i in range(out.size):
        out[i] = np.float32(1.0) / (variance[i] + max(expected[i], np.float32(0.0)))


@njit(cache=True, fastmath=FAST)
def add_light(window, light, out):
    """Add a fibre's ``light`` (BLOCK,), spread over its window, to ``out``, the part of a buffer under the window."""
    for c in range(BLOCK):
        a = light[c]
        for k in range(SIZE):
            out[k * BLOCK + c] += a * window[k * BLOCK + c]


@njit(cache=True)
def model_block(window, first, light, ny, out):
    """Fill a buffer with the image of fibres with the given ``light`` (nf, BLOCK)."""
    out[:] = 0.0
    for f in range(window.shape[0]):
        at = place(first[f], ny)
        add_light(window[f], light[f], out[at : at + WINDOW])


@njit(cache=True, fastmath=FAST)
def project(one, weight, data, norm, out):
    """Sums over rows of weight * profile**2 and weight * profile * data, (BLOCK,) each."""
    for c in range(BLOCK):
        aa, ad = np.float32(0.0), np.float32(0.0)
        for k in range(SIZE):
            p = weight[k * BLOCK + c] * one[k * BLOCK + c]
            aa += p * one[k * BLOCK + c]
            ad += p * data[k * BLOCK + c]
        norm[c] = aa
        out[c] = ad


@njit(cache=True, fastmath=FAST)
def product(one, other, weight, out):
    """Sum over rows of weight * one * other, (BLOCK,)."""
    for c in range(BLOCK):
        total = np.float32(0.0)
        for k in range(SIZE):
            total += weight[k * BLOCK + c] * one[k * BLOCK + c] * other[k * BLOCK + c]
        out[c] = total


@njit(cache=True, fastmath=FAST)
def _kept(window, weight, begin, end, out):
    """Share of the profile's own weight, its square, that lies on pixels in use; rows from ``begin`` to ``end`` are on the chip."""
    zero, one = np.float32(0.0), np.float32(1.0)
    if begin == 0 and end == SIZE:
        for c in range(BLOCK):
            lost, kept = zero, zero
            for k in range(SIZE):
                p = window[k * BLOCK + c] * window[k * BLOCK + c]
                lost += zero if weight[k * BLOCK + c] > zero else p
                kept += p if weight[k * BLOCK + c] > zero else zero
            out[c] = kept / (kept + lost) if lost > zero else one
    else:
        for c in range(BLOCK):
            lost, kept = zero, zero
            for k in range(begin, end):
                p = window[k * BLOCK + c] * window[k * BLOCK + c]
                lost += zero if weight[k * BLOCK + c] > zero else p
                kept += p if weight[k * BLOCK + c] > zero else zero
            out[c] = kept / (kept + lost) if lost > zero else one if kept > zero else zero


@njit(cache=True, fastmath=FAST)
def _equations(window, first, alive, weight, data, ny, ridge, spare, norm, diag, upper, rhs):
    """Tridiagonal equations of the fibres in a block of columns, into ``diag``, ``upper`` and ``rhs`` (nf, BLOCK)."""
    nf = window.shape[0]
    for f in range(nf):
        upper[f] = 0.0
        if not alive[f]:
            diag[f] = 1.0
            rhs[f] = 0.0
            continue
        at = place(first[f], ny)
        project(window[f], weight[at : at + WINDOW], data[at : at + WINDOW], diag[f], rhs[f])
        product(window[f], window[f], ONES, norm)
        for c in range(BLOCK):
            d = diag[f, c] + ridge * norm[c]
            diag[f, c] = d if d > 0.0 else 1.0
        if f + 1 < nf and alive[f + 1]:
            offset = min(max(first[f + 1] - first[f], 0), SIZE) * BLOCK
            spare[:WINDOW] = window[f]
            at = place(first[f + 1], ny)
            product(spare[offset : offset + WINDOW], window[f + 1], weight[at : at + WINDOW], upper[f])


@njit(cache=True)
def fit_columns(
    image, background, floor, bad, window, first, alive, ridge, blocks, start, light, rounds, limits,
    amplitude, variance, used, model, grade, coupling,
):  # fmt: skip
    """Fit all fibres of some blocks of columns (nearest neighbours coupled) and write the results into the last six arrays.

    Each round takes the weights from the model of the one before: 1 / (floor + background + model).

    Parameters
    ----------
    image, background : (ny, nx) float32 [e-]
        ``background`` is subtracted and counted in the variance; `NO_IMAGE`: none.
    floor : (ny, nx) or (ny, 1) float32
        Variance of the read noise.
    bad : (ny, nx) bool
    window, first : see `profile_windows`
    alive : (nf,) bool
        Fibres to fit; others come out as 0.
    ridge : float
        Added to the diagonal relative to the unmasked profile's weight, so that a fully masked fibre stays solvable.
    blocks : (n,) int64
        Blocks of `BLOCK` columns to fit.
    start : (ny, nx) float32, light : (nf, nx) float32
        Model image, or amplitudes of the fibres, that give the first weights; `NO_IMAGE`: not given.  Without either, the first
        round has weights without light.
    rounds : int
    limits : (3,) float32
        For ``grade``: share of the local peak that the profile may be wrong by, and two limits in sigma.
    amplitude, variance, used : (nf, nx) float32
        Electrons in the whole profile, their variance (diagonal of the inverse), and the share of the fibre's weight (profile
        squared) that was not masked.
    model : (ny, nx) float32
        Image of the amplitudes; `NO_IMAGE`: not wanted.
    grade : (ny, nx) uint8
        How many of the two limits a usable pixel stands above the model; `NO_GRADE`: not wanted.
    coupling : (nf, nb) float32
        Correlation of each fibre's amplitude with that of the next fibre, mean of each block.
    """
    ny, nx = image.shape
    nf = window.shape[1]
    size = (SIZE + ny + SIZE) * BLOCK
    data, under, expected = np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    noise, weight = np.zeros(size, np.float32), np.zeros(size, np.float32)
    spare, norm = np.zeros(2 * WINDOW, np.float32), np.zeros(BLOCK, np.float32)
    diag, upper, rhs = np.ones((nf, BLOCK)), np.zeros((nf, BLOCK)), np.zeros((nf, BLOCK))
    left, right = np.ones((nf, BLOCK)), np.ones((nf, BLOCK))
    share, value = np.zeros((nf, BLOCK), np.float32), np.zeros((nf, BLOCK), np.float32)
    for b in blocks:
        n = min(BLOCK, nx - b * BLOCK)
        columns = slice(b * BLOCK, b * BLOCK + n)
        data[:], noise[:] = 0.0, np.inf
        gather(image, b, data)
        if floor.shape[1] > 1:
            gather(floor, b, noise)
        else:
            for y in range(ny):
                noise[(SIZE + y) * BLOCK : (SIZE + y) * BLOCK + n] = floor[y, 0]
        if background.shape[0] > 1:
            gather(background, b, under)
            for i in range(size):
                data[i] -= under[i]
                noise[i] += max(under[i], np.float32(0.0))
        hide(bad, b, data, noise)
        if start.shape[0] > 1:
            gather(start, b, expected)
        elif light.shape[0] > 1:
            value[:, :n] = light[:, columns]
            model_block(window[b], first[b], value, ny, expected)
        else:
            expected[:] = 0.0
        for turn in range(rounds):
            weigh(noise, expected, weight)
            _equations(window[b], first[b], alive, weight, data, ny, ridge, spare, norm, diag, upper, rhs)
            forward(diag, upper, rhs, left)
            backward(upper, rhs, left)
            for f in range(nf):
                for c in range(BLOCK):
                    value[f, c] = rhs[f, c]
            if turn + 1 < rounds or model.shape[0] > 1 or grade.shape[0] > 1:
                model_block(window[b], first[b], value, ny, expected)
        variances(diag, upper, left, right)
        for f in range(nf):
            at = place(first[b, f], ny)
            _kept(window[b, f], weight[at : at + WINDOW], max(0, -first[b, f]), min(SIZE, ny - first[b, f]), share[f])
            for c in range(n):
                seen = alive[f] and share[f, c] > 0.0
                amplitude[f, b * BLOCK + c] = value[f, c] if seen else 0.0
                variance[f, b * BLOCK + c] = right[f, c] if seen else 0.0
                used[f, b * BLOCK + c] = share[f, c] if alive[f] else 0.0
            for c in range(BLOCK):
                if not alive[f] or c >= n:
                    share[f, c] = 0.0
        couplings(upper, left, right, share, coupling[:, b])
        if model.shape[0] > 1:
            scatter(expected, b, model)
        if grade.shape[0] > 1:
            _excess(data, expected, noise, ny, limits, weight)
            scatter(weight, b, grade)


@njit(cache=True, fastmath=FAST)
def _excess(data, expected, variance, ny, limits, out):
    """How many of the two limits each pixel of a buffer stands above the model; see `fit_columns`."""
    zero, one = np.float32(0.0), np.float32(1.0)
    error, low, high = limits[0] * limits[0], limits[1] * limits[1], limits[2] * limits[2]
    expected[: SIZE * BLOCK] = zero  # light that falls beside the chip is no neighbour
    expected[(SIZE + ny) * BLOCK :] = zero
    for y in range(SIZE, SIZE + ny):
        at = y * BLOCK
        around = expected[at - 2 * BLOCK : at + 3 * BLOCK]
        d, v, o = data[at : at + BLOCK], variance[at : at + BLOCK], out[at : at + BLOCK]
        for c in range(BLOCK):
            e = around[2 * BLOCK + c]
            peak = max(max(around[c], around[BLOCK + c]), max(around[3 * BLOCK + c], around[4 * BLOCK + c]))
            peak = max(max(peak, e), zero)
            rest = max(d[c] - e, zero)
            limit = v[c] + max(e, zero) + error * peak * peak
            o[c] = (one if rest * rest > low * limit else zero) + (one if rest * rest > high * limit else zero)


@njit(cache=True)
def grow_tracks(grade, bad, hit, changed):
    """One step of marking cosmic rays, in place.

    Parameters
    ----------
    grade : (ny, nx) uint8
        2: a seed; 1: hit when it touches a seed or a pixel hit before.  Pixels that were not used have 0.
    bad : (ny, nx) bool
    hit : (ny, nx) bool
        Pixels hit before; those found are added.
    changed : (nb,) bool
        Set for blocks of `BLOCK` columns with new hits.

    Returns
    -------
    int : pixels newly hit
    """
    ny, nx = grade.shape
    before = hit.copy()
    new = 0
    for y in range(ny):
        for x in range(nx):
            g = grade[y, x]
            if g == 0 or bad[y, x] or before[y, x]:
                continue
            found = g == 2
            if not found:
                for k in range(4):
                    v = y + (1 if k == 0 else -1 if k == 1 else 0)
                    u = x + (1 if k == 2 else -1 if k == 3 else 0)
                    if 0 <= v < ny and 0 <= u < nx and (before[v, u] or (grade[v, u] == 2 and not bad[v, u])):
                        found = True
                        break
            if found:
                hit[y, x] = True
                changed[x // BLOCK] = True
                new += 1
    return new


@njit(cache=True)
def model_columns(amplitude, window, first, model):
    """Fill ``model`` (ny, nx) float32 with the image that fibres of the given amplitudes (nf, nx) float32 make."""
    nf, nx = amplitude.shape
    ny = model.shape[0]
    buffer = np.zeros((SIZE + ny + SIZE) * BLOCK, np.float32)
    light = np.zeros((nf, BLOCK), np.float32)
    for b in range(window.shape[0]):
        n = min(BLOCK, nx - b * BLOCK)
        light[:, :n] = amplitude[:, b * BLOCK : b * BLOCK + n]
        model_block(window[b], first[b], light, ny, buffer)
        scatter(buffer, b, model)
