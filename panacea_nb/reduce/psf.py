"""How much of a source's light each lenslet gets: a Moffat profile, or a disk, integrated over the lenslet's area."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from scipy.special import gamma, gammaincc

from ..instrument import LENSLET_PITCH
from .arrays import plain

SUBPOINTS = 3  # per side of a lenslet (Gauss-Legendre), to integrate the PSF over its area: exact to 0.1 %
NODES = 1024  # of the table of a profile
FAR = 2.5  # arcsec from the source, beyond which two points per side suffice


@njit(cache=True)
def _profile_means(px, py, x, y, alpha2, beta, disk, near, near_weight, far, far_weight, e1, e2):
    """Mean of a Moffat, or of a disk, over each lenslet, (n, nf), by quadrature in both directions; e1, e2 shear it.

    The profile is a smooth function of v = (1 + (r/alpha)^2)^-1/2 from 0 to 1: a cubic between the nodes of a table is good to
    1e-8 of the peak, and a third of the cost of powers.

    ``near``, ``far`` are offsets [arcsec] of the points from a lenslet's centre with their weights; the latter serve beyond `FAR`.
    """
    out = np.zeros((x.size, px.size))
    norm = 1.0 / np.sqrt(1.0 - e1 * e1 - e2 * e2)
    table = np.zeros((NODES, 4))
    value, slope = 0.0, 0.0
    for k in range(NODES + 1):
        v = k / NODES
        if k == 0:
            next_value, next_slope = 0.0, 0.0
        elif disk > 0.0:
            power = v ** (-1.0 / disk)
            next_value = np.exp(-beta * (power - 1.0))
            next_slope = next_value * beta / disk * power / v / NODES
        else:
            next_value = v ** (2.0 * beta)
            next_slope = 2.0 * beta * next_value / v / NODES
        if k > 0:
            rise = next_value - value
            table[k - 1, 0], table[k - 1, 1] = value, slope
            table[k - 1, 2], table[k - 1, 3] = 3.0 * rise - 2.0 * slope - next_slope, slope + next_slope - 2.0 * rise
        value, slope = next_value, next_slope
    for i in range(x.size):
        inverse = 1.0 / alpha2[i]
        for f in range(px.size):
            total = 0.0
            x0, y0 = px[f] - x[i], py[f] - y[i]
            close = x0 * x0 + y0 * y0 < FAR * FAR
            point, weight = (near, near_weight) if close else (far, far_weight)
            for a in range(point.size):
                dx = x0 + point[a]
                for b in range(point.size):
                    dy = y0 + point[b]
                    r2 = norm * ((1.0 - e1) * dx * dx - 2.0 * e2 * dx * dy + (1.0 + e1) * dy * dy)
                    v = NODES / np.sqrt(1.0 + r2 * inverse)
                    k = min(int(v), NODES - 1)
                    v -= k
                    total += (
                        weight[a] * weight[b] * (table[k, 0] + v * (table[k, 1] + v * (table[k, 2] + v * table[k, 3])))
                    )
            out[i, f] = total
    return out


def lenslet_fractions(
    positions: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    fwhm: np.ndarray,
    beta: float,
    subpoints: int = SUBPOINTS,
    shear: tuple[float, float] = (0.0, 0.0),
    disk: float = 0.0,
) -> np.ndarray:
    """Share of a Moffat source's light in each lenslet, (n, nf), for n positions and widths.

    The lenslets tile the field; the sum over an endless field is one, so that light outside the field is accounted for.
    Moffat (1969, A&A 3, 455), integrated over ``subpoints`` x ``subpoints`` Gauss-Legendre points of each lenslet.  ``shear``
    makes it elliptical at constant area.  A ``disk`` of value n falls as exp(-beta ((1 + (r/alpha)^2)^(1/2n) - 1)): far out as the
    profile of Sersic (1963, BAAA 6, 41) with index n does (1 an exponential, 1/2 a Gaussian), round in its core, as the seeing
    makes it.
    """
    half = (1 + np.log(2) / beta) ** (2 * disk) - 1 if disk else 2 ** (1 / beta) - 1
    alpha2 = np.broadcast_to((np.asarray(fwhm, float) / 2) ** 2 / half, np.shape(x)).copy()
    if disk:
        n = 2 * disk
        total_light = np.pi * alpha2 * n * np.exp(beta) * beta**-n * gamma(n) * gammaincc(n, beta)
    else:
        total_light = np.pi * alpha2 / (beta - 1)
    px, py = plain(positions[:, 0], float), plain(positions[:, 1], float)
    points = (*_quadrature(subpoints), *_quadrature(min(2, subpoints)))
    mean = _profile_means(
        px,
        py,
        plain(x, float),
        plain(y, float),
        alpha2,
        float(beta),
        float(disk),
        *points,
        float(shear[0]),
        float(shear[1]),
    )
    return mean * (LENSLET_PITCH**2 / total_light)[:, None]


@lru_cache
def _quadrature(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [arcsec] of Gauss-Legendre points from a lenslet's centre, and their weights, which sum to 1."""
    point, weight = np.polynomial.legendre.leggauss(n)
    return 0.5 * LENSLET_PITCH * point, 0.5 * weight
