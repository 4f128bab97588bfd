"""What the lines of the sky show of wavelengths between and beyond the arc lines, where a polynomial has nothing to hold on to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

DEGREE = 5  # along the channel
ARC_ERROR = 0.02  # px, by which arc lines may be off their place on a smooth solution
BEND_PRIOR = 0.5  # px, of each term of the bend: what a polynomial through a few arc lines may do far from them
APART = 3.0  # sigma of a line's width; closer ones are moved together
BADLY_KNOWN = 0.3  # px, error of a line's shift from which it says nothing
LEAST_SCATTER = 0.1  # px, of lines about a smooth bend: what lists and blends make of them
SURE = 25.0  # chi-square by which a bend must be seen
# px, of the largest bend at a line.  Sky lines blend and are listed off by up to two tenths, neighbours alike, which bends by up to
# 0.4 px beyond the arc lines: less than this is not told from it.
LEAST = 0.6


@dataclass(frozen=True)
class LineShifts:
    """Shifts of sky lines, or of close groups of them, against a fit that moves all together.

    Attributes
    ----------
    place : (n,) -1 to 1 along the channel; shift, error : (n,) [px]
    """

    place: np.ndarray
    shift: np.ndarray
    error: np.ndarray

    @classmethod
    def none(cls) -> LineShifts:
        """Of no line."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))


def line_shifts(
    others: np.ndarray,
    slopes: np.ndarray,
    weight: np.ndarray,
    value: np.ndarray,
    place: np.ndarray,
    wave: np.ndarray,
    sigma: float,
    pixel: float,
) -> LineShifts:
    """Shift of each line, or group of lines, from a linear fit in which everything else is free as well.

    Parameters
    ----------
    others : (m, n_grid), what else is fitted; slopes : (n, n_grid), change of the model by a shift of each line
    weight, value : (n_grid,), inverse variance and the sky
    place, wave : (n,) of the lines, -1 to 1 and [A]; sigma, pixel : width of a line and of a pixel [A]
    """
    order = np.argsort(wave)
    group = np.concatenate([[0], np.cumsum(np.diff(wave[order]) > APART * sigma)])
    first = np.flatnonzero(np.diff(group, prepend=-1))
    moved = np.add.reduceat(slopes[order], first, axis=0)
    strength = np.sum(slopes[order] ** 2 * weight, axis=1) + 1e-30
    where = np.add.reduceat(strength * place[order], first) / np.add.reduceat(strength, first)
    columns = np.concatenate([others, moved])
    normal = (columns * weight) @ columns.T
    k = moved.shape[0]
    # Lines that the fit found no light in have no shift either.
    normal[-k:, -k:] += np.eye(k) / pixel**2
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    inverse = np.linalg.pinv(normal / np.outer(scale, scale), rcond=1e-9, hermitian=True)
    shift = (inverse @ ((columns * weight) @ value / scale) / scale)[-k:] / pixel
    error = (np.sqrt(np.maximum(np.diag(inverse), 0)) / scale)[-k:] / pixel
    known = error < BADLY_KNOWN
    return LineShifts(where[known], shift[known], error[known])


def smooth_bend(shifts: LineShifts, arcs: np.ndarray, left: np.ndarray, pixel: float, before: np.ndarray) -> np.ndarray:
    """Legendre terms [A] over the channel of what lines of the sky are moved by beside one shift and its slope.

    The arc lines hold it: there the solution is right, but for a shift and a slope, which flexure makes.  So where arc lines are
    many nothing is left to be bent, and where they are few the sky's lines decide.

    Parameters
    ----------
    shifts : LineShifts, against a fit with the bend ``before``
    arcs : (m,) places of arc lines, -1 to 1; left : (m,) [px], by which the solution is too large there
    before : Legendre terms [A] that are there already, empty for none

    Returns
    -------
    (DEGREE + 1,) [A], or an empty array where no bend is seen surely
    """
    there = legendre.legval(shifts.place, before) / pixel if before.size else 0.0
    shift = shifts.shift + there
    free = DEGREE - 1
    if shift.size < free + 4:
        return np.zeros(0)
    # Each term without what a shift and a slope make of it where the arc lines are.
    all_terms = legendre.legvander(np.concatenate([shifts.place, arcs]), DEGREE)
    low, high = all_terms[:, :2], all_terms[:, 2:]
    at_arcs = slice(shifts.place.size, None)
    common = np.linalg.lstsq(low[at_arcs], high[at_arcs], rcond=1e-9)[0]
    high = high - low @ common
    design = np.concatenate([low, high], axis=1)
    left = left - low[at_arcs] @ np.linalg.lstsq(low[at_arcs], left, rcond=1e-9)[0]
    held, at = np.zeros((arcs.size + free, 2 + free)), np.concatenate([left / ARC_ERROR, np.zeros(free)])
    held[: arcs.size, 2:] = high[at_arcs] / ARC_ERROR
    held[arcs.size :, 2:] = np.eye(free) / BEND_PRIOR
    lines = design[: shifts.place.size]
    scatter, keep = LEAST_SCATTER, np.ones(shift.size)
    for _ in range(8):
        root = np.sqrt(keep) / np.hypot(shifts.error, scatter)
        rows = np.concatenate([lines * root[:, None], held])
        solution = np.linalg.lstsq(rows, np.concatenate([shift * root, at]), rcond=1e-12)[0]
        rest = shift - lines @ solution
        pull = rest / np.hypot(shifts.error, scatter)
        beyond = (1.4826 * np.median(np.abs(rest))) ** 2 - np.median(shifts.error) ** 2
        scatter = float(np.sqrt(max(beyond, LEAST_SCATTER**2)))
        keep = 1.0 / np.maximum(1.0, np.abs(pull) / 2.5) ** 2
    covariance = np.linalg.inv(rows.T @ rows)[2:, 2:]
    bend = solution[2:]
    seen = float(bend @ np.linalg.solve(covariance, bend))
    terms = np.concatenate([-common @ bend, bend])
    if seen < SURE or np.abs(legendre.legval(shifts.place, terms)).max() < LEAST:
        return np.zeros(0)
    return terms * pixel
