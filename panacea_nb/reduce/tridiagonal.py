"""Tridiagonal systems of the fibres of some columns, all columns of a block side by side: solution, variances, correlations.

Arrays are (nf, BLOCK).  The inverse of a tridiagonal matrix is full, but its diagonal and the one beside it follow from the pivots.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .arrays import BLOCK, FAST


@njit(cache=True, fastmath=FAST)
def forward(diag, upper, rhs, left):
    """Elimination downwards of the tridiagonal systems of a block; ``left`` (nf, BLOCK) takes the inverse pivots."""
    nf = diag.shape[0]
    for c in range(BLOCK):
        left[0, c] = 1.0 / diag[0, c]
    for f in range(1, nf):
        u, l0, l1, r0, r1, d = upper[f - 1], left[f - 1], left[f], rhs[f - 1], rhs[f], diag[f]
        for c in range(BLOCK):
            m = u[c] * l0[c]
            l1[c] = 1.0 / (d[c] - m * u[c])
            r1[c] -= m * r0[c]


@njit(cache=True, fastmath=FAST)
def backward(upper, rhs, left):
    """Substitution upwards: ``rhs`` becomes the solution."""
    nf = rhs.shape[0]
    for c in range(BLOCK):
        rhs[nf - 1, c] *= left[nf - 1, c]
    for f in range(nf - 2, -1, -1):
        u, l0, r0, r1 = upper[f], left[f], rhs[f], rhs[f + 1]
        for c in range(BLOCK):
            r0[c] = (r0[c] - u[c] * r1[c]) * l0[c]


@njit(cache=True, fastmath=FAST)
def variances(diag, upper, left, right):
    """Diagonal of the inverse, into ``right``: from the pivots of the eliminations downwards and upwards."""
    nf = diag.shape[0]
    right[nf - 1] = diag[nf - 1]
    for f in range(nf - 2, -1, -1):
        u, d, r0, r1 = upper[f], diag[f], right[f], right[f + 1]
        for c in range(BLOCK):
            r0[c] = d[c] - u[c] * u[c] / r1[c]
    for f in range(nf):
        d, r0, l0 = diag[f], right[f], left[f]
        for c in range(BLOCK):
            r0[c] = 1.0 / (1.0 / l0[c] + r0[c] - d[c])


@njit(cache=True, fastmath=FAST)
def couplings(upper, left, right, seen, out):
    """Mean over the columns seen of each fibre's correlation with the next one, (nf,), from what `variances` leaves.

    The off-diagonal element of the inverse is that of its neighbour on the diagonal times the factor of the substitution upwards.
    """
    nf = upper.shape[0]
    out[nf - 1] = 0.0
    for f in range(nf - 1):
        total, count = 0.0, 0
        for c in range(BLOCK):
            if seen[f, c] > 0.0 and seen[f + 1, c] > 0.0:
                total -= upper[f, c] * left[f, c] * np.sqrt(right[f + 1, c] / right[f, c])
                count += 1
        out[f] = total / max(count, 1)
