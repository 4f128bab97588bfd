"""The sky's brightness over the field beside an object that covers much of it.

The outskirts of a galaxy in the middle of the field look like a sky that bends.  What tells them apart is that the sky's light has
lines, which a galaxy's has not: their strength in every fibre, the object's own included, shows how the sky's brightness changes
over the field.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre
from scipy.stats import median_abs_deviation

SMOOTH_TERMS = 16  # Legendre terms along the channel of the light, other than the sky's, that a fibre may hold
WINGS_ERROR = 0.5  # of the light of an object's outskirts: what its model may be wrong by, everywhere alike
LINES_ERROR = 0.005  # of the sky: what the lines' strength in a fibre may be wrong by (their width, their shape)
MIN_NEIGHBOURS, MIN_FIBERS = 3, 20  # that are sky, beside a fibre whose level is compared with theirs; such fibres
OBJECT_LINES = 0.02  # of an object's light: how much of it may look like lines of the sky


def line_levels(
    data: np.ndarray, weight: np.ndarray, model: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Strength of the sky's lines in each fibre relative to the ``model``, and its error from noise, (nf,) each.

    Whatever is smooth along the channel is left out: a fibre's light is the model times its level, and a polynomial.

    Parameters
    ----------
    data, model : (nf, nx) [e- per column]; weight : (nf, nx), inverse variances, 0 for samples not to be used
    unit : (nf, nx), throughput x A per px, by which smooth light is multiplied
    """
    nf, nx = data.shape
    terms = legendre.legvander(np.linspace(-1, 1, nx), SMOOTH_TERMS - 1)
    pairs = (terms[:, :, None] * terms[:, None, :]).reshape(nx, -1)
    normal = ((weight * unit**2) @ pairs).reshape(nf, SMOOTH_TERMS, SMOOTH_TERMS)
    size = np.trace(normal, axis1=1, axis2=2)
    normal += (1e-9 * size + 1e-30)[:, None, None] * np.eye(SMOOTH_TERMS)
    sides = np.stack([(weight * unit * model) @ terms, (weight * unit * data) @ terms], axis=2)
    smooth_model, smooth_data = np.moveaxis(np.linalg.solve(normal, sides), 2, 0)
    lines = (weight * model**2).sum(axis=1) - (smooth_model * sides[:, :, 0]).sum(axis=1)
    seen = (weight * model * data).sum(axis=1) - (smooth_data * sides[:, :, 0]).sum(axis=1)
    known = lines > 1e-6 * np.maximum((weight * model**2).sum(axis=1), 1e-30)
    level = np.divide(seen, lines, out=np.full(nf, np.nan), where=known)
    error = np.divide(1.0, np.sqrt(np.where(known, lines, 1.0)), out=np.full(nf, np.inf), where=known)
    return level, error


def levels_beside(
    basis: np.ndarray,
    level: tuple[np.ndarray, np.ndarray],
    lines: tuple[np.ndarray, np.ndarray],
    share: np.ndarray,
    chosen: np.ndarray,
    alive: np.ndarray,
    prior: float,
) -> np.ndarray:
    """Smooth levels (nf,) of the sky, from the light of the sky fibres and from the lines of all fibres together.

    Parameters
    ----------
    basis : (nf, m), polynomial terms over the field, the constant first
    level : all light of the fibres over the sky's model, with its error; lines : that of `line_levels`
    share : light of the object's model over that of the sky
    chosen : (nf,) bool, sky fibres; alive : (nf,) bool, fibres whose lines may be used
    prior : of each term but the constant
    """
    seen = alive & np.isfinite(lines[0]) & np.isfinite(lines[1])
    sharp = np.sqrt(lines[1] ** 2 + LINES_ERROR**2 + (OBJECT_LINES * share) ** 2)
    error = np.concatenate([level[1][chosen], sharp[seen]])
    value = np.concatenate([level[0][chosen], lines[0][seen]])
    n, m = int(chosen.sum()), basis.shape[1]
    # Besides the sky's terms: a level of the lines of their own, and a part of the object's light that its model lacks.
    design = np.zeros((value.size, m + 2))
    design[:n, :m], design[n:, 1:m] = basis[chosen], basis[seen, 1:]
    design[n:, m], design[:n, m + 1] = 1.0, share[chosen]
    known = np.concatenate([[0.0], np.full(m - 1, prior**-2), [0.0, WINGS_ERROR**-2]])
    known[[0, m]] = 1e-6
    sigma = error
    for _ in range(2):
        normal = (design.T / sigma**2) @ design + np.diag(known)
        coef = np.linalg.solve(normal, (design.T / sigma**2) @ (value - 1.0))
        rest = value - 1.0 - design @ coef
        spread = [
            np.full(part.size, median_abs_deviation(part, scale="normal")) for part in np.split(rest, [n]) if part.size
        ]
        sigma = np.hypot(error, np.concatenate(spread))
    return 1.0 + basis @ coef[:m]


def local_scatter(
    level: np.ndarray, noise: np.ndarray, fibers: np.ndarray, neighbours: np.ndarray, least: float
) -> float:
    """Scatter of the fibres' levels beyond their ``noise`` about those of their neighbours in the field, ``least`` at least.

    The outskirts of an object change little from lenslet to lenslet, and do not count here.

    Parameters
    ----------
    level, noise : (nf,); fibers : (nf,) bool, sky fibres
    neighbours : (nf, 6), see `cosmics.field_neighbours`
    """
    near = (neighbours >= 0) & fibers[neighbours]
    count = near.sum(axis=1)
    use = fibers & (count >= MIN_NEIGHBOURS)
    if use.sum() < MIN_FIBERS:
        return least
    mean = np.where(near, level[neighbours], 0.0).sum(axis=1)[use] / count[use]
    rest = (level[use] - mean) / np.sqrt(1.0 + 1.0 / count[use])
    spread = 1.4826 * float(np.median(np.abs(rest)))
    return float(np.sqrt(max(spread**2 - float(np.median(noise[use])) ** 2, least**2)))
