"""Shift of a science frame's fibres across dispersion against the calibrations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import plain
from .extract import Extraction, FiberModel, extract, trace_offsets

SPAN = 48  # columns per block
STRIDE = 2  # every second column is enough: all fibres and columns give one number
CONVERGED = 0.002  # px
MAX_SHIFT = 3.0  # px; beyond, the calibrations are not of this detector set-up


@dataclass(frozen=True)
class RowFlexure:
    """Attributes
    ----------
    coef : (4,) [px]: constant, along columns, over fibres, their product (axes from -1 to 1)
    error : (4,) [px]
    measured : (nf, n) [px], shift of each fibre and block left after the correction, for the figure
    weight : (nf, n)
    rounds : int
    converged : bool
    """

    coef: np.ndarray
    error: np.ndarray
    measured: np.ndarray
    weight: np.ndarray
    rounds: int
    converged: bool

    def surface(self, nf: int, nx: int) -> np.ndarray:
        """The shift of every fibre and column (nf, nx) [px]."""
        return _surface(self.coef, nf, nx)


def _basis(nf: int, nx: int) -> np.ndarray:
    f, x = np.linspace(-1, 1, nf)[:, None], np.linspace(-1, 1, nx)[None, :]
    return np.stack([np.ones((nf, nx)), np.broadcast_to(x, (nf, nx)), np.broadcast_to(f, (nf, nx)), f * x])


def _surface(coef: np.ndarray, nf: int, nx: int) -> np.ndarray:
    f, x = np.linspace(-1, 1, nf)[:, None], np.linspace(-1, 1, nx)[None, :]
    return (coef[0] + coef[1] * x) + f * (coef[2] + coef[3] * x)


def row_flexure(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    background: np.ndarray | None = None,
    *,
    light: np.ndarray | None = None,
    max_rounds: int = 8,
) -> tuple[RowFlexure, FiberModel, Extraction]:
    """Fit a smooth shift of all traces to a frame.

    Each round extracts with the shifted traces, measures what shift is left from the slope of the profile, and corrects, all on
    every `STRIDE`-th column; the last extraction is of the whole frame.

    Parameters
    ----------
    image, background : (ny, nx) [e-]; noise : (ny, 1) or (ny, nx) [e-]; bad : (ny, nx) bool
    light : (nf, nx) [e-], optional, amplitudes that give the first weights

    Returns
    -------
    flexure, model : shifted FiberModel, extraction : the last Extraction
    """
    nf, nx = model.trace.shape
    n = -(-nx // SPAN)
    basis = _basis(nf, n).reshape(4, -1)
    coef, error = np.zeros(4), np.full(4, np.inf)
    some = slice(STRIDE // 2, None, STRIDE)
    part = plain(image[:, some], np.float32)
    under = None if background is None else plain(background[:, some], np.float32)
    data = part if under is None else part - under
    rows = noise if np.shape(noise)[-1] == 1 else noise[:, some]
    hidden, thin = plain(bad[:, some], np.bool_), model.every(STRIDE, STRIDE // 2)
    result = extract(part, rows, hidden, thin, background=under, light=None if light is None else light[:, some])
    shifted = model
    rounds = 0
    converged = False
    shift = weight = np.zeros((nf, n))
    while rounds < max_rounds:
        rounds += 1
        shift, weight, _, _ = trace_offsets(data, rows, hidden, thin, result, SPAN // STRIDE)
        good = (weight > 0) & model.alive[:, None] & (np.abs(shift) < 1.5)
        if good.sum() < 20:
            break
        centre = np.average(shift[good], weights=weight[good])
        for _ in range(3):
            w = np.where(good, weight, 0.0).ravel()
            normal = (basis * w) @ basis.T
            step = np.linalg.lstsq(normal, (basis * w) @ shift.ravel(), rcond=1e-9)[0]
            rest = (shift - (step @ basis).reshape(nf, n)) * np.sqrt(weight)
            spread = max(1.0, 1.4826 * float(np.median(np.abs(rest[good]))))
            good = good & (np.abs(rest) < 5 * spread)
        error = np.sqrt(np.maximum(np.diag(np.linalg.pinv(normal)), 0)) * spread
        # Slopes that the light does not support are left out: faint frames get a constant only.
        step = np.where((np.abs(step) > 2 * error) | (np.arange(4) == 0), step, 0.0)
        coef = coef + np.clip(step, -0.7, 0.7)
        if abs(coef[0]) > MAX_SHIFT or not np.isfinite(centre):
            break
        shifted = model.shifted(_surface(coef, nf, nx))
        thin = shifted.every(STRIDE, STRIDE // 2)
        result = extract(part, rows, hidden, thin, background=under, light=result.amplitude)
        if np.max(np.abs(step)) < CONVERGED:
            converged = True
            break
    result = extract(image, noise, bad, shifted, background=background, light=light)
    return RowFlexure(coef, error, shift, weight, rounds, converged), shifted, result
