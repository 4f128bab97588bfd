"""Compiled loops that measure the fibres' places and profiles on a frame."""

from __future__ import annotations

import numpy as np
from numba import njit

from .kernels import (
    BLOCK,
    FAST,
    HALF_WIDTH,
    KNOT,
    N_COEF,
    SIZE,
    WINDOW,
    gather,
    hide,
    model_block,
    place,
    product,
    slope_windows,
    weigh,
)

B = BLOCK
# Where the elements of a symmetric 3 x 3 matrix lie: each is a row of BLOCK columns.
A00, A01, A02, A11, A12, A22 = 0, B, 2 * B, 3 * B, 4 * B, 5 * B
SHARING = 4  # fibres from one to the last that may share pixels with it
TERMS = 8  # polynomial terms over fibres: a product of two of second degree has five, the rest fills a register


@njit(cache=True, fastmath=FAST)
def _shapes(profile, slope, first, trace, shape):
    """Profile P, shift -dP/du and widening -(P + u dP/du) of a fibre in a block of columns, into ``shape`` (3, 2 WINDOW)."""
    p, s, w = shape[0], shape[1], shape[2]
    for k in range(SIZE):
        for c in range(trace.size):
            i = k * BLOCK + c
            p[i] = profile[i]
            s[i] = -slope[i]
            w[i] = -profile[i] - (first + k - trace[c]) * slope[i]


@njit(cache=True, fastmath=FAST)
def _stiffen(own):
    """Add a little to the diagonals, so that the matrices have an inverse."""
    for c in range(BLOCK):
        floor = 1e-6 * (own[A00 + c] + own[A11 + c] + own[A22 + c]) + 1e-12
        own[A00 + c] += floor
        own[A11 + c] += floor
        own[A22 + c] += floor


@njit(cache=True, fastmath=FAST)
def _invert(m, out):
    """Inverses of symmetric 3 x 3 matrices, one for each column of a block."""
    for c in range(BLOCK):
        a, b, d = m[A00 + c], m[A01 + c], m[A02 + c]
        e, f, g = m[A11 + c], m[A12 + c], m[A22 + c]
        c00, c01, c02 = e * g - f * f, d * f - b * g, b * f - d * e
        inverse = 1.0 / (a * c00 + b * c01 + d * c02)
        out[A00 + c] = c00 * inverse
        out[A01 + c] = c01 * inverse
        out[A02 + c] = c02 * inverse
        out[A11 + c] = (a * g - d * d) * inverse
        out[A12 + c] = (b * d - a * f) * inverse
        out[A22 + c] = (a * e - b * b) * inverse


@njit(cache=True, fastmath=FAST)
def _eliminate(own, rhs, above, inv, before):
    """Take the fibre before out of a fibre's equations: own -= above' inv above, rhs -= above' inv before.

    ``above`` (9 BLOCK,) couples the fibre before (rows) with this one; ``inv`` and ``before`` are its inverse and right side.
    """
    for i in range(3):
        for c in range(BLOCK):
            n0, n1, n2 = above[i * B + c], above[(3 + i) * B + c], above[(6 + i) * B + c]
            l0 = n0 * inv[A00 + c] + n1 * inv[A01 + c] + n2 * inv[A02 + c]
            l1 = n0 * inv[A01 + c] + n1 * inv[A11 + c] + n2 * inv[A12 + c]
            l2 = n0 * inv[A02 + c] + n1 * inv[A12 + c] + n2 * inv[A22 + c]
            rhs[i * B + c] -= l0 * before[c] + l1 * before[B + c] + l2 * before[2 * B + c]
            d0 = l0 * above[c] + l1 * above[3 * B + c] + l2 * above[6 * B + c]
            d1 = l0 * above[B + c] + l1 * above[4 * B + c] + l2 * above[7 * B + c]
            d2 = l0 * above[2 * B + c] + l1 * above[5 * B + c] + l2 * above[8 * B + c]
            if i == 0:
                own[A00 + c] -= d0
                own[A01 + c] -= d1
                own[A02 + c] -= d2
            elif i == 1:
                own[A11 + c] -= d1
                own[A12 + c] -= d2
            else:
                own[A22 + c] -= d2


@njit(cache=True, fastmath=FAST)
def _substitute(above, inv, rhs, after):
    """Solution of a fibre, in place of ``rhs``, from that of the fibre after it."""
    for i in range(3):
        for c in range(BLOCK):
            rhs[i * B + c] -= (
                above[3 * i * B + c] * after[c]
                + above[(3 * i + 1) * B + c] * after[B + c]
                + above[(3 * i + 2) * B + c] * after[2 * B + c]
            )
    for c in range(BLOCK):
        r0, r1, r2 = rhs[c], rhs[B + c], rhs[2 * B + c]
        rhs[c] = inv[A00 + c] * r0 + inv[A01 + c] * r1 + inv[A02 + c] * r2
        rhs[B + c] = inv[A01 + c] * r0 + inv[A11 + c] * r1 + inv[A12 + c] * r2
        rhs[2 * B + c] = inv[A02 + c] * r0 + inv[A12 + c] * r1 + inv[A22 + c] * r2


@njit(cache=True)
def offset_sums(image, floor, bad, amplitude, window, first, trace, coef, block, span, alive):
    """Shift and widening of every fibre in blocks of ``span`` columns, neighbours solved together.

    Every column is fitted with three shapes per fibre: the profile P, its shift -dP/du, and its widening -(P + u dP/du); a
    fibre's shift makes light appear in its neighbours, so the fibres are solved as one block-tridiagonal system.  The ratio of
    the second and third amplitude to the first, averaged over the block with the light as weight, is the shift [px] and the
    relative widening.

    Parameters
    ----------
    image : (ny, nx) float32 [e-]; floor : (ny, nx) or (ny, 1) float32, variance of the read noise; bad : (ny, nx) bool
    amplitude : (nf, nx) float32
        Light of the fibres as known so far: it gives the variance of the pixels, and the weight of the average.
    window, first : see `profile_windows`
    trace, coef, block : of the fibre model

    Returns
    -------
    shift_sum, shift_weight, width_sum, width_weight : (nf, n_spans) float64
        The estimates are sum / weight; the weights are inverse variances.
    """
    ny, nx = image.shape
    nf = trace.shape[0]
    n_spans = (nx + span - 1) // span
    ss, sw = np.zeros((nf, n_spans)), np.zeros((nf, n_spans))
    ws, ww = np.zeros((nf, n_spans)), np.zeros((nf, n_spans))
    size = (SIZE + ny + SIZE) * BLOCK
    data, expected = np.zeros(size, np.float32), np.zeros(size, np.float32)
    noise, weight = np.zeros(size, np.float32), np.zeros(size, np.float32)
    slope, shape = np.zeros((nf, WINDOW), np.float32), np.zeros((nf, 3, 2 * WINDOW), np.float32)
    light, splines = np.zeros((nf, BLOCK), np.float32), np.zeros(4 * BLOCK, np.float32)
    own, inv = np.zeros((nf, 6 * BLOCK)), np.zeros((nf, 6 * BLOCK))
    above, rhs = np.zeros((nf, 9 * BLOCK)), np.zeros((nf, 3 * BLOCK))
    for b in range(window.shape[0]):
        begin = b * BLOCK
        n = min(BLOCK, nx - begin)
        data[:], noise[:] = 0.0, np.inf
        gather(image, b, data)
        if floor.shape[1] > 1:
            gather(floor, b, noise)
        else:
            for y in range(ny):
                noise[(SIZE + y) * BLOCK : (SIZE + y) * BLOCK + n] = floor[y, 0]
        hide(bad, b, data, noise)
        light[:, :n] = amplitude[:, begin : begin + n]
        model_block(window[b], first[b], light, ny, expected)
        weigh(noise, expected, weight)
        slope_windows(trace, coef, block, b, first, splines, slope)
        own[:], above[:], rhs[:] = 0.0, 0.0, 0.0
        for f in range(nf):
            if alive[f]:
                _shapes(window[b, f], slope[f], first[b, f], trace[f, begin : begin + n], shape[f])
                at = place(first[b, f], ny)
                w, d = weight[at : at + WINDOW], data[at : at + WINDOW]
                e = 0
                for i in range(3):
                    p = shape[f, i, :WINDOW]
                    product(p, d, w, rhs[f, i * B : (i + 1) * B])
                    for j in range(i, 3):
                        product(p, shape[f, j, :WINDOW], w, own[f, e : e + B])
                        e += B
                if f > 0 and alive[f - 1]:
                    offset = min(max(first[b, f] - first[b, f - 1], 0), SIZE) * BLOCK
                    for i in range(3):
                        p = shape[f - 1, i, offset : offset + WINDOW]
                        for j in range(3):
                            e = (3 * i + j) * B
                            product(p, shape[f, j, :WINDOW], w, above[f - 1, e : e + B])
            _stiffen(own[f])
            if f > 0:
                _eliminate(own[f], rhs[f], above[f - 1], inv[f - 1], rhs[f - 1])
            _invert(own[f], inv[f])
        for f in range(nf - 1, -1, -1):
            _substitute(above[f], inv[f], rhs[f], rhs[min(f + 1, nf - 1)])
            for c in range(n):
                a, s = amplitude[f, begin + c], (begin + c) // span
                shift, width = inv[f, A11 + c], inv[f, A22 + c]
                if alive[f] and a > 0.0 and shift > 0.0 and width > 0.0:
                    ss[f, s] += a * rhs[f, B + c] / shift
                    sw[f, s] += a * a / shift
                    ws[f, s] += a * rhs[f, 2 * B + c] / width
                    ww[f, s] += a * a / width
    return ss, sw, ws, ww


@njit(cache=True, fastmath=FAST)
def profile_moments(image, weight, amplitude, trace, width, columns, across, products, data):
    """Sums over the pixels of some columns from which the normal equations of the profile's B-spline coefficients are made.

    Two fibres that share pixels contribute products of their splines, times a function of the fibre.  That function is a
    polynomial: it is enough to sum the products times each of `TERMS` terms.

    Parameters
    ----------
    image, weight : (ny, nx) float32
    amplitude, trace, width : (nf, nx), (nf, nx), (nf,) float64
        Electrons, centres [px] and relative widths of the fibres.
    columns : (k,) int64
        Columns that take part.
    across : (nf, TERMS) float64
        The polynomial terms at each fibre.
    products : (k, SHARING, N_COEF, N_COEF, TERMS), data : (k, N_COEF, TERMS) float64
        Zeros, to which the sums are added; the former by distance of the second fibre from the first.
    """
    ny = image.shape[0]
    nf = trace.shape[0]
    splines = np.zeros((nf, 2 * SIZE, 4))
    knot = np.zeros((nf, 2 * SIZE), np.int64)
    low, high = np.zeros(nf, np.int64), np.zeros(nf, np.int64)
    for k in range(columns.size):
        x = columns[k]
        for f in range(nf):
            t, a = trace[f, x], amplitude[f, x] / width[f]
            low[f] = max(0, int(np.ceil(t - HALF_WIDTH)))
            high[f] = min(ny, int(np.floor(t + HALF_WIDTH)) + 1)
            for y in range(low[f], high[f]):
                s = ((y - t) / width[f] + HALF_WIDTH) / KNOT
                i = int(np.floor(s))
                knot[f, y - low[f]] = i if 0 <= i <= N_COEF - 4 and a != 0.0 else -1
                r = s - i
                q = 1.0 - r
                out = splines[f, y - low[f]]
                out[0] = a * q * q * q / 6.0
                out[1] = a * (3.0 * r * r * r - 6.0 * r * r + 4.0) / 6.0
                out[2] = a * (3.0 * q * q * q - 6.0 * q * q + 4.0) / 6.0
                out[3] = a * r * r * r / 6.0
        for f in range(nf):
            for y in range(low[f], high[f]):
                i, w = knot[f, y - low[f]], np.float64(weight[y, x])
                if i < 0 or w <= 0.0:
                    continue
                one = splines[f, y - low[f]]
                for p in range(4):
                    wp = w * one[p]
                    out = data[k, i + p]
                    for m in range(TERMS):
                        out[m] += wp * image[y, x] * across[f, m]
                    for d in range(min(SHARING, nf - f)):
                        at = y - low[f + d]
                        if at < 0 or y >= high[f + d] or knot[f + d, at] < 0:
                            continue
                        other = splines[f + d, at]
                        for q2 in range(4):
                            both = wp * other[q2]
                            out = products[k, d, i + p, knot[f + d, at] + q2]
                            for m in range(TERMS):
                                out[m] += both * across[f, m]
