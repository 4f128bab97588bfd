"""Change of the fibres' width against the calibrations, as focus makes it, and the levels of the detector's rows under them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from .arrays import fill_gaps
from .extract import MIN_USED, FiberModel, extract
from .rowlevel import PROFILE_ERROR, row_levels
from .trace import normalised, widened

STRIDE = 4  # columns; light that changes slowly is enough
SMOOTH = 33  # columns of those, running mean
TRIAL = 0.01  # relative change of width, whose effect is linear
SURE = 3.0  # errors, by which a change must be seen
WORST_ERROR = 0.007  # relative, of the change: frames with so little light that it is larger keep the flats' width
SHIFTS = range(40, 1000, 15)  # rows, by which a pattern is moved to see how much of it is in the levels by chance
LEAST = 0.0005  # relative; less makes no difference
FAR = 0.01  # relative; beyond, the change is measured once more about itself
MAX_CHANGE = 0.15  # relative; more is no focus


def focused_levels(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    light: np.ndarray,
    seen: np.ndarray,
    wander: np.ndarray,
) -> tuple[np.ndarray, FiberModel, float, float]:
    """Levels of the rows (see `rowlevel.row_levels`), and the fibre model with profiles as wide as those of the frame.

    A width that is off by a hundredth is three hundredths of the light midway between fibres, in all columns, which the levels of
    those rows would take: up to three tenths of an electron, far more than rows wander by.  But a wrong width makes levels that go
    up and down with the fibres, and the rows' own do not: how much of the one pattern is in the other tells the width, whatever the
    bias of the amplifiers is.

    Parameters
    ----------
    image, noise, bad, model, wander : as in `rowlevel.row_levels`
    light : (nf, nx) [e-], amplitudes as known so far; seen : (ny, nx) [e-], the image that they make

    Returns
    -------
    levels : (ny, 1) float32 [e-]; model
    change : relative change of width that was applied; error : that of its measurement
    """
    given = image, noise, bad
    levels = row_levels(*given, model, seen, wander)
    width, error, focused = 1.0, np.inf, model
    for _ in range(2):
        smooth = _smooth_light(image - levels, noise, bad, focused, light)
        wider = _as_wide(model, width * (1 + TRIAL))
        expected = focused.image(smooth, image.shape[0])
        pattern = row_levels(wider.image(smooth, image.shape[0]) - expected, noise, bad, focused, seen, wander)
        change, error = _share_of(levels[:, 0], pattern[:, 0] / TRIAL, expected.mean(axis=1))
        seen_well = error < WORST_ERROR and abs(change) > max(LEAST, SURE * error)
        if not seen_well or abs(width * (1 + change) - 1) > MAX_CHANGE:
            break
        width *= 1 + change
        focused = _as_wide(model, width)
        levels = row_levels(*given, focused, seen, wander)
        if abs(change) < FAR:
            break
    return levels, focused, width - 1.0, error


def _as_wide(model: FiberModel, width: float) -> FiberModel:
    # All fibres alike: what widens one coefficient after the other widens all profiles.
    matrix = widened(np.eye(model.coef.shape[-1])[None], np.array([width]))[0]
    return replace(model, coef=normalised(model.coef @ matrix))


def _smooth_light(
    image: np.ndarray, noise: np.ndarray, bad: np.ndarray, model: FiberModel, light: np.ndarray
) -> np.ndarray:
    """Amplitudes (nf, nx) float32 [e-] without the noise of single columns."""
    some = slice(STRIDE // 2, None, STRIDE)
    rows = noise if np.shape(noise)[-1] == 1 else noise[:, some]
    part = extract(image[:, some], rows, bad[:, some], model.every(STRIDE, STRIDE // 2), light=light[:, some])
    known = fill_gaps(part.amplitude, (part.used > MIN_USED) & model.alive[:, None])
    smooth = uniform_filter1d(known, SMOOTH, axis=1, mode="nearest")
    return np.repeat(smooth, STRIDE, axis=1)[:, : image.shape[1]].astype(np.float32)


def _share_of(levels: np.ndarray, pattern: np.ndarray, light: np.ndarray) -> tuple[float, float]:
    """How much of a pattern (ny,) is in the levels, beside one level for each amplifier, and the error of that.

    ``light`` (ny,) [e-]: rows with much of it say little, for their profiles are not known better than `PROFILE_ERROR`.
    """
    half = levels.size // 2
    design = np.zeros((levels.size, 3))
    design[:, 0], design[:half, 1], design[half:, 2] = pattern, 1.0, 1.0
    keep = np.ones(levels.size, bool)
    solution, rest = np.zeros(3), levels
    spread = 1.4826 * float(np.median(np.abs(levels - np.median(levels)))) + 1e-3
    for _ in range(4):
        weight = keep / (spread**2 + (PROFILE_ERROR * light) ** 2)
        normal = (design.T * weight) @ design
        if np.linalg.cond(normal) > 1e14:
            return 0.0, float("inf")
        solution = np.linalg.solve(normal, (design.T * weight) @ levels)
        rest = levels - design @ solution
        scatter = 1.4826 * float(np.median(np.abs(rest * np.sqrt(weight))[keep]))
        spread = max(spread * min(scatter, 1.0), 1e-3)
        keep = np.abs(rest) < 5 * np.sqrt(spread**2 + (PROFILE_ERROR * light) ** 2)
    # The levels' errors go together from row to row, and most where light takes their part: what the same pattern finds at other
    # places, where it cannot be, is its error.
    weight = keep / (spread**2 + (PROFILE_ERROR * light) ** 2)
    moved = np.stack([np.roll(pattern, shift) for shift in SHIFTS], axis=1)
    for rows in (slice(0, half), slice(half, None)):
        moved[rows] -= np.average(moved[rows], axis=0, weights=weight[rows] + 1e-30)
        rest[rows] -= np.average(rest[rows], weights=weight[rows] + 1e-30)
    by_chance = (weight * rest) @ moved / np.maximum(weight @ moved**2, 1e-300)
    error = float(np.sqrt(np.mean(by_chance**2)))
    return float(solution[0]), error
