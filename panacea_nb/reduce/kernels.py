"""Compiled loops over columns and fibres: extraction, fibre model, profile derivatives.

The cross-dispersion profile of a fibre is a cubic B-spline in the distance ``u`` from its trace, with uniform knots of
`KNOT` pixels over +-`HALF_WIDTH` pixels.  Its coefficients are tabulated per fibre and per block of columns.

``python -m panacea_nb.reduce.kernels`` compiles everything once into numba's cache (done by the installation).
"""

from __future__ import annotations

import numpy as np
from numba import njit

KNOT = 0.75  # px; a profile of 4 px FWHM is sampled five times over
HALF_WIDTH = 9.75  # px; reaches over the next fibre (6.8 px away)
N_COEF = int(round(2 * HALF_WIDTH / KNOT)) + 3
REACH = int(np.ceil(HALF_WIDTH))


@njit(cache=True, inline="always")
def _spline(coef, u):
    """Value of the profile at ``u`` px from the trace; 0 outside its support."""
    s = (u + HALF_WIDTH) / KNOT
    i = int(np.floor(s))
    if i < 0 or i > N_COEF - 4:
        return 0.0
    r = s - i
    q = 1.0 - r
    return (
        coef[i] * q * q * q
        + coef[i + 1] * (3.0 * r * r * r - 6.0 * r * r + 4.0)
        + coef[i + 2] * (3.0 * q * q * q - 6.0 * q * q + 4.0)
        + coef[i + 3] * r * r * r
    ) / 6.0


@njit(cache=True, inline="always")
def _slope(coef, u):
    """Derivative of the profile with respect to ``u`` [1/px]."""
    s = (u + HALF_WIDTH) / KNOT
    i = int(np.floor(s))
    if i < 0 or i > N_COEF - 4:
        return 0.0
    r = s - i
    q = 1.0 - r
    return (
        -coef[i] * q * q
        + coef[i + 1] * (3.0 * r * r - 4.0 * r)
        + coef[i + 2] * (-3.0 * q * q + 4.0 * q)
        + coef[i + 3] * r * r
    ) / (2.0 * KNOT)


@njit(cache=True)
def profile_windows(trace, coef, block):
    """Profiles of all fibres sampled on their own rows.

    Returns
    -------
    window : (nx, nf, 2 * REACH + 1) float32, first : (nx, nf) int64
        Value of the profile on the rows ``first`` .. ``first + 2 * REACH`` of each column.
    """
    nf, nx = trace.shape
    window = np.zeros((nx, nf, 2 * REACH + 1), np.float32)
    first = np.zeros((nx, nf), np.int64)
    for x in range(nx):
        b = x // block
        for f in range(nf):
            t = trace[f, x]
            low = int(np.floor(t + 0.5)) - REACH
            first[x, f] = low
            for k in range(2 * REACH + 1):
                window[x, f, k] = _spline(coef[f, b], low + k - t)
    return window, first


@njit(cache=True)
def extract_columns(image, weight, window, first, alive, ridge):
    """Fit all fibres of every column together (nearest neighbours coupled).

    Columns of the image come first (arrays are transposed), so that a column lies together in memory.

    Parameters
    ----------
    image, weight : (nx, ny) float32
        Electrons and inverse variance (0: not used).
    window, first : see `profile_windows`
    alive : (nf,) bool
        Fibres to fit; others come out as 0.
    ridge : float
        Added to the diagonal relative to the unmasked profile's weight, so that a fully masked fibre stays solvable.

    Returns
    -------
    amplitude, variance, used : (nf, nx) float32
        Electrons in the whole profile, their variance (diagonal of the inverse), and the share of the fibre's weight
        (profile squared) that was not masked.
    """
    nx, ny = image.shape
    nf, size = window.shape[1], window.shape[2]
    amplitude = np.zeros((nf, nx), np.float32)
    variance = np.zeros((nf, nx), np.float32)
    used = np.zeros((nf, nx), np.float32)
    diag = np.zeros(nf)
    upper = np.zeros(nf)
    rhs = np.zeros(nf)
    left = np.zeros(nf)
    right = np.zeros(nf)
    for x in range(nx):
        for f in range(nf):
            diag[f] = 1.0
            upper[f] = 0.0
            rhs[f] = 0.0
            if not alive[f]:
                continue
            base = first[x, f]
            neighbour = f + 1 < nf and alive[f + 1]
            offset = first[x, f + 1] - base if neighbour else size
            total = 0.0
            kept = 0.0
            aa = 0.0
            ab = 0.0
            ad = 0.0
            for k in range(max(0, -base), min(size, ny - base)):
                p = window[x, f, k]
                total += p * p
                w = weight[x, base + k]
                if w <= 0.0:
                    continue
                kept += p * p
                aa += w * p * p
                ad += w * p * image[x, base + k]
                if k >= offset:
                    ab += w * p * window[x, f + 1, k - offset]
            used[f, x] = kept / total if total > 0.0 else 0.0
            diag[f] = aa + ridge * total
            if diag[f] <= 0.0:
                diag[f] = 1.0
                ab = 0.0
                ad = 0.0
            upper[f] = ab
            rhs[f] = ad
        # Thomas algorithm; the diagonal of the inverse follows from the forward and backward pivots.
        left[0] = diag[0]
        for f in range(1, nf):
            m = upper[f - 1] / left[f - 1]
            left[f] = diag[f] - m * upper[f - 1]
            rhs[f] -= m * rhs[f - 1]
        right[nf - 1] = diag[nf - 1]
        for f in range(nf - 2, -1, -1):
            right[f] = diag[f] - upper[f] * upper[f] / right[f + 1]
        value = 0.0
        for f in range(nf - 1, -1, -1):
            value = (rhs[f] - (upper[f] * value if f + 1 < nf else 0.0)) / left[f]
            if alive[f] and used[f, x] > 0.0:
                amplitude[f, x] = value
                variance[f, x] = 1.0 / (left[f] + right[f] - diag[f])
    return amplitude, variance, used


@njit(cache=True)
def model_columns(amplitude, window, first, ny):
    """The image (nx, ny) float32, columns first, that fibres of the given amplitudes (nf, nx) make."""
    nf, nx = amplitude.shape
    size = window.shape[2]
    model = np.zeros((nx, ny), np.float32)
    for x in range(nx):
        for f in range(nf):
            a = amplitude[f, x]
            if a == 0.0:
                continue
            base = first[x, f]
            for k in range(max(0, -base), min(size, ny - base)):
                model[x, base + k] += a * window[x, f, k]
    return model


@njit(cache=True, inline="always")
def _inverse3(m, out):
    """Inverse of a symmetric 3 x 3 matrix, slightly stiffened so that it exists."""
    a, b, c = m[0, 0], m[0, 1], m[0, 2]
    d, e, f = m[1, 1], m[1, 2], m[2, 2]
    c00, c01, c02 = d * f - e * e, c * e - b * f, b * e - c * d
    det = a * c00 + b * c01 + c * c02
    out[0, 0], out[0, 1], out[0, 2] = c00 / det, c01 / det, c02 / det
    out[1, 0], out[1, 1], out[1, 2] = c01 / det, (a * f - c * c) / det, (b * c - a * e) / det
    out[2, 0], out[2, 1], out[2, 2] = c02 / det, (b * c - a * e) / det, (a * d - b * b) / det


@njit(cache=True)
def offset_sums(image, weight, amplitude, trace, coef, block, span, alive, stride):
    """Shift and widening of every fibre in blocks of ``span`` columns, neighbours solved together.

    Every column is fitted with three shapes per fibre: the profile P, its shift -dP/du, and its widening -(P + u dP/du); a
    fibre's shift makes light appear in its neighbours, so the fibres are solved as one block-tridiagonal system.  The ratio of
    the second and third amplitude to the first, averaged over the block with the light as weight, is the shift [px] and the
    relative widening.

    Parameters
    ----------
    amplitude : (nf, nx)
        Light of the fibres as known so far: the weight of the average.
    stride : int
        Every how many columns one is fitted.

    Returns
    -------
    shift_sum, shift_weight, width_sum, width_weight : (nf, n_spans) float64
        The estimates are sum / weight; the weights are inverse variances.
    """
    ny, nx = image.shape
    nf = trace.shape[0]
    n = (nx + span - 1) // span
    ss = np.zeros((nf, n))
    sw = np.zeros((nf, n))
    ws = np.zeros((nf, n))
    ww = np.zeros((nf, n))
    own = np.zeros((nf, 3, 3))
    next_ = np.zeros((nf, 3, 3))
    inv = np.zeros((nf, 3, 3))
    rhs = np.zeros((nf, 3))
    sol = np.zeros(3)
    here = np.zeros(3)
    there = np.zeros(3)
    lead = np.zeros((3, 3))
    for x in range(stride // 2, nx, stride):
        b = x // block
        for f in range(nf):
            own[f] = 0.0
            next_[f] = 0.0
            rhs[f] = 0.0
            t = trace[f, x]
            base = int(np.floor(t + 0.5))
            coupled = f + 1 < nf and alive[f + 1] and alive[f]
            if alive[f]:
                for y in range(max(0, base - REACH), min(ny, base + REACH + 1)):
                    w = weight[y, x]
                    if w <= 0.0:
                        continue
                    here[0] = _spline(coef[f, b], y - t)
                    here[1] = -_slope(coef[f, b], y - t)
                    here[2] = -here[0] + (y - t) * here[1]
                    if coupled:
                        t2 = trace[f + 1, x]
                        there[0] = _spline(coef[f + 1, b], y - t2)
                        there[1] = -_slope(coef[f + 1, b], y - t2)
                        there[2] = -there[0] + (y - t2) * there[1]
                    for i in range(3):
                        rhs[f, i] += w * here[i] * image[y, x]
                        for j in range(i, 3):
                            own[f, i, j] += w * here[i] * here[j]
                        if coupled:
                            for j in range(3):
                                next_[f, i, j] += w * here[i] * there[j]
            for i in range(3):
                for j in range(i):
                    own[f, i, j] = own[f, j, i]
            floor = 1e-6 * (own[f, 0, 0] + own[f, 1, 1] + own[f, 2, 2]) + 1e-12
            for i in range(3):
                own[f, i, i] += floor
            if f > 0:
                for i in range(3):
                    for j in range(3):
                        total = 0.0
                        for k in range(3):
                            total += next_[f - 1, k, i] * inv[f - 1, k, j]
                        lead[i, j] = total
                for i in range(3):
                    for k in range(3):
                        rhs[f, i] -= lead[i, k] * rhs[f - 1, k]
                        for j in range(3):
                            own[f, i, j] -= lead[i, k] * next_[f - 1, k, j]
            _inverse3(own[f], inv[f])
        s = x // span
        sol[:] = 0.0
        for f in range(nf - 1, -1, -1):
            for i in range(3):
                total = rhs[f, i]
                for j in range(3):
                    total -= next_[f, i, j] * sol[j]
                here[i] = total
            for i in range(3):
                sol[i] = inv[f, i, 0] * here[0] + inv[f, i, 1] * here[1] + inv[f, i, 2] * here[2]
            a = amplitude[f, x]
            if alive[f] and a > 0.0 and inv[f, 1, 1] > 0.0 and inv[f, 2, 2] > 0.0:
                ss[f, s] += a * sol[1] / inv[f, 1, 1]
                sw[f, s] += a * a / inv[f, 1, 1]
                ws[f, s] += a * sol[2] / inv[f, 2, 2]
                ww[f, s] += a * a / inv[f, 2, 2]
    return ss, sw, ws, ww


@njit(cache=True)
def profile_normal_equations(image, weight, amplitude, trace, width, columns, basis):
    """Normal equations of the profile's B-spline coefficients, each a polynomial over the detector.

    Parameters
    ----------
    image, weight : (ny, nx)
    amplitude, trace, width : (nf, nx), (nf, nx), (nf,)
        Electrons, centres [px] and relative widths of the fibres.
    columns : (k,) int
        Columns that take part.
    basis : (nf, k, m)
        The polynomial terms at each fibre and column.

    Returns
    -------
    matrix : (N_COEF * m, N_COEF * m), rhs : (N_COEF * m,)
        Unknowns ordered coefficient-major.
    """
    ny = image.shape[0]
    nf = trace.shape[0]
    m = basis.shape[2]
    size = N_COEF * m
    matrix = np.zeros((size, size))
    rhs = np.zeros(size)
    index = np.zeros(96, np.int64)
    value = np.zeros(96)
    b4 = np.zeros(4)
    for k in range(columns.size):
        x = columns[k]
        first = 0
        for y in range(ny):
            w = weight[y, x]
            if w <= 0.0:
                continue
            while first < nf and trace[first, x] < y - HALF_WIDTH:
                first += 1
            n = 0
            f = first
            while f < nf and trace[f, x] <= y + HALF_WIDTH and n + 4 * m <= 96:
                a = amplitude[f, x]
                if a != 0.0:
                    s = ((y - trace[f, x]) / width[f] + HALF_WIDTH) / KNOT
                    i = int(np.floor(s))
                    if 0 <= i <= N_COEF - 4:
                        r = s - i
                        q = 1.0 - r
                        b4[0] = q * q * q / 6.0
                        b4[1] = (3.0 * r * r * r - 6.0 * r * r + 4.0) / 6.0
                        b4[2] = (3.0 * q * q * q - 6.0 * q * q + 4.0) / 6.0
                        b4[3] = r * r * r / 6.0
                        for j in range(4):
                            for c in range(m):
                                index[n] = (i + j) * m + c
                                value[n] = a / width[f] * b4[j] * basis[f, k, c]
                                n += 1
                f += 1
            d = image[y, x]
            for p in range(n):
                vp = w * value[p]
                rhs[index[p]] += vp * d
                for q2 in range(p, n):
                    matrix[index[p], index[q2]] += vp * value[q2]
    # Only one of each pair was summed; which triangle it fell into depends on the fibres' order.
    full = matrix + matrix.T
    for p in range(size):
        full[p, p] = matrix[p, p]
    return full, rhs


def warm_up() -> None:
    """Compile every kernel for the types in use."""
    ny, nx, nf, block = 64, 8, 3, 4
    image = np.ones((ny, nx), np.float32)
    columns_first = np.ones((nx, ny), np.float32)
    trace = np.repeat(np.array([15.0, 22.0, 29.0])[:, None], nx, axis=1)
    coef = np.ones((nf, nx // block, N_COEF))
    alive = np.ones(nf, bool)
    window, first = profile_windows(trace, coef, block)
    amplitude, _, _ = extract_columns(columns_first, columns_first, window, first, alive, 1e-9)
    model_columns(amplitude, window, first, ny)
    offset_sums(image, image, amplitude, trace, coef, block, block, alive, 1)
    columns = np.arange(0, nx, 2)
    profile_normal_equations(
        image, image, amplitude.astype(float), trace, np.ones(nf), columns, np.ones((nf, columns.size, 6))
    )


if __name__ == "__main__":
    warm_up()
