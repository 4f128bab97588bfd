"""Level of each amplifier along its rows in a science frame: electronics that settle let it run by parts of an electron."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import UnivariateSpline

from ..decisions import Decision
from .arrays import BLOCK, plain
from .extract import RIDGE, FiberModel
from .kernels import SIZE
from .rowlevel import BIN, binned_columns, level_equations

BLOCKS = 2  # of `BLOCK` bins of `BIN` columns, over which a level is measured
LEAST_LEVELS = 8  # along the rows of an amplifier
LIGHT_ERROR = 0.001  # of the fibres' light in a pixel: what is left of errors of profiles and scattered light
UNKNOWN_ERROR = 0.02  # the same where the flats have not shown these errors
EXCESS_ERROR = 0.0005  # of the light of stars in the mean pixel: what they may leave in pixels far from them
UNEVEN = 1.3  # times the median of the rows' light, that their mean may be without a star
FAINT = 12.0  # e- per pixel, mean of a frame in which a ramp matters: weights of such a frame show the flats' errors
SURE = 20.0  # by which chi-square must be larger than noise makes it, where a level is not the same in all columns
TOLD = 0.2  # e- per pixel, from which a ramp is told


def amplifier_ramps(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    light: np.ndarray,
    shares: np.ndarray | None = None,
) -> np.ndarray | None:
    """How the level of each amplifier changes along its rows, (2, nx) float32 [e-], beside its mean; None where nothing is sure.

    The overscan tells the level at the end of a row, bias frames how it usually runs.  A frame's own run is told from the pixels
    that fibres leave free or share the least, as `rowlevel.row_levels` does for rows: amplitudes of all fibres are eliminated
    column by column.  Some tenths of an electron in every pixel are per cent of a dark sky, of other sign in the two halves of
    the slit.

    Parameters
    ----------
    image : (ny, nx) [e-], background and levels of rows subtracted; the amplifiers are its two halves
    noise, bad, model, light : see `rowlevel.row_levels`
    shares : see `level_shares`
    """
    ny, nx = image.shape
    centre, level, error, under, excess = _levels(image, noise, bad, model, light)
    unsure = UNKNOWN_ERROR
    if shares is not None and shares.shape == level.shape:
        level, unsure = level - shares * under, LIGHT_ERROR
    ramps = np.zeros((2, nx), np.float32)
    for amplifier in range(2):
        known = np.isfinite(error[amplifier])
        if known.sum() < LEAST_LEVELS:
            continue
        doubt = np.hypot(unsure * under[amplifier], EXCESS_ERROR * excess[amplifier])
        weight = 1.0 / np.hypot(error[amplifier], doubt)[known]
        value = level[amplifier, known]
        chi = np.sum((weight * (value - np.average(value, weights=weight**2))) ** 2)
        if chi - known.sum() > SURE:
            # As smooth as the errors allow.
            spline = UnivariateSpline(centre[known], value, weight, s=float(known.sum()), ext="const")
            ramps[amplifier] = spline(np.arange(nx))
    return ramps if ramps.any() else None


def level_shares(
    image: np.ndarray, noise: np.ndarray, bad: np.ndarray, model: FiberModel, light: np.ndarray
) -> np.ndarray:
    """What the models of profiles and scattered light leave under the fibres, as a share of their light, (2, n).

    In a flat it is as much of the light as in a science frame, and no ramp is of any weight beside it.

    Parameters
    ----------
    image : (ny, nx) [e-], a flat with many electrons, background subtracted; light : what its fibres make
    noise, bad, model : see `rowlevel.row_levels`
    """
    factor = FAINT / max(float(light.mean()), 1e-9)
    _, level, error, under, _ = _levels(image * factor, noise, bad, model, light * factor)
    known = np.isfinite(error) & (under > 0)
    return np.divide(level, under, out=np.zeros_like(level), where=known)


def _levels(
    image: np.ndarray, noise: np.ndarray, bad: np.ndarray, model: FiberModel, light: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Levels of the amplifiers in groups of columns.

    Returns
    -------
    centre : (n,) [px], middle of the columns
    level, error : (2, n) [e-]
    under : (2, n) [e-], the fibres' light in a pixel, weighted as the levels are
    excess : (2, n) [e-], how much more of it is in the mean pixel than in most: that of stars, which no flat is like
    """
    ny = image.shape[0]
    part, weight = binned_columns(image, noise, bad, light)
    window, first = model.every(BIN, BIN // 2).windows
    alive, half = plain(model.alive, np.bool_), ny // 2
    starts = range(0, part.shape[1] - BLOCK + 1, BLOCKS * BLOCK)
    level, under, excess = np.zeros((3, 2, len(starts)))
    error = np.full(level.shape, np.inf)
    centre = np.zeros(len(starts))
    for k, start in enumerate(starts):
        columns = slice(start, min(start + BLOCKS * BLOCK, part.shape[1]))
        blocks = slice(start // BLOCK, start // BLOCK + BLOCKS)
        centre[k] = 0.5 * BIN * (columns.start + columns.stop)
        some = (plain(a[:, columns], np.float32) for a in (part, weight))
        matrix, rhs = level_equations(*some, window[blocks], first[blocks], alive, RIDGE)
        for a, begin in enumerate((0, half)):
            rows = slice(SIZE + begin, SIZE + begin + half)
            total = matrix[rows].sum()  # of the whole half: levels that fibres could imitate have no part in it
            if total > 0:
                level[a, k], error[a, k] = rhs[rows].sum() / total, total**-0.5
            lit = light[begin : begin + half, BIN * columns.start : BIN * columns.stop].mean(axis=1)
            trust = weight[begin : begin + half, columns].sum(axis=1)
            under[a, k] = (trust * lit).sum() / max(float(trust.sum()), 1e-30)
            excess[a, k] = max(float(lit.mean() - UNEVEN * np.median(lit)), 0.0)
    return centre, level, error, under, excess


def ramp_decision(ramps: np.ndarray) -> list[Decision]:
    """What is said of ramps (2, nx) [e-]; nothing of small ones."""
    worst = float(np.abs(ramps).max())
    if worst < TOLD:
        return []
    text = (
        f"the level of the amplifiers runs along the rows by up to {worst:.2f} electrons per pixel otherwise than in the bias "
        "frames, as the darkest pixels show: taken out"
    )
    return [Decision("AMPRAMP", text, "info")]
