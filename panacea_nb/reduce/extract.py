"""Optimal extraction of all fibres together, and the fibre model of a channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .kernels import HALF_WIDTH, KNOT, N_COEF, extract_columns, model_columns, offset_sums, profile_windows

RIDGE = 1e-9  # relative to the profile's own weight; only keeps a fully masked fibre solvable


@dataclass(frozen=True)
class FiberModel:
    """Where the fibres lie on the chip and how their light spreads across dispersion.

    Attributes
    ----------
    trace : (nf, nx) float64
        Row of each fibre's centre [px].
    coef : (nf, nb, N_COEF) float64
        Cubic B-spline coefficients of the profile, by fibre and block of ``block`` columns; the profile sums to 1.
    block : int
        Columns per block.
    alive : (nf,) bool
        False for fibres without light.
    """

    trace: np.ndarray
    coef: np.ndarray
    block: int
    alive: np.ndarray

    def shifted(self, shift: np.ndarray | float) -> FiberModel:
        """The model with all traces moved by ``shift`` [px] (scalar or (nf, nx))."""
        return replace(self, trace=self.trace + shift)

    def image(self, amplitude: np.ndarray, n_rows: int) -> np.ndarray:
        """The (n_rows, nx) image [e-] of fibres with the given amplitudes (nf, nx) [e- per column]."""
        light = np.ascontiguousarray(amplitude, np.float32)
        return np.ascontiguousarray(model_columns(light, *self.windows, n_rows).T)

    @cached_property
    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """The profiles on the rows of each fibre and column (see `profile_windows`); 50 MB, kept as long as the model."""
        return profile_windows(self.trace, self.coef, self.block)


@dataclass(frozen=True)
class Extraction:
    """Attributes
    ----------
    amplitude : (nf, nx) float32, electrons in the whole profile of a fibre per column
    variance : (nf, nx) float32
    used : (nf, nx) float32, share of the profile's weight that was not masked
    model : (ny, nx) float32, the image these amplitudes make
    """

    amplitude: np.ndarray
    variance: np.ndarray
    used: np.ndarray
    model: np.ndarray


def spline_basis(u: np.ndarray) -> np.ndarray:
    """Values (len(u), N_COEF) of the profile's B-splines at ``u`` px from the trace."""
    s = (np.asarray(u, float) + HALF_WIDTH) / KNOT
    i = np.floor(s).astype(int)
    r = s - i
    q = 1 - r
    inside = (i >= 0) & (i <= N_COEF - 4)
    basis = np.zeros((s.size, N_COEF))
    rows = np.flatnonzero(inside)
    for k, b in enumerate((q**3, 3 * r**3 - 6 * r**2 + 4, 3 * q**3 - 6 * q**2 + 4, r**3)):
        basis[rows, i[inside] + k] = b[inside] / 6.0
    return basis


def extract(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    *,
    background: np.ndarray | None = None,
    start: np.ndarray | None = None,
    rounds: int = 2,
) -> Extraction:
    """Amplitude and variance of every fibre in every column.

    All fibres of a column are fitted together with their profiles (Horne 1986, PASP 98, 609, for one fibre), nearest neighbours
    coupled.  The weights use the variance that the *model* predicts, not the noisy pixel, so that faint light is not biased low.

    Parameters
    ----------
    image : (ny, nx) [e-]
    noise : (ny, nx) or (ny, 1)
        Read noise [e-].
    bad : (ny, nx) bool
        Pixels not to be used.
    background : (ny, nx), optional
        Light under the fibres [e-], subtracted here and counted in the variance.
    start : (ny, nx), optional
        A model image to weight the first round with; without it, the first round weights all pixels alike.
    rounds : int
        Rounds of fit and new weights.
    """
    ny, nx = image.shape
    data = image if background is None else image - background
    under = 0.0 if background is None else np.maximum(background, 0)
    floor = np.broadcast_to(np.asarray(noise, np.float32) ** 2, image.shape)
    expected = np.zeros_like(data) if start is None else start
    columns = np.ascontiguousarray(data.T, np.float32)
    result = None
    for _ in range(rounds if start is None else max(1, rounds - 1)):
        weight = np.where(bad, 0.0, 1.0 / (floor + under + np.maximum(expected, 0))).astype(np.float32)
        amplitude, variance, used = extract_columns(
            columns, np.ascontiguousarray(weight.T), *model.windows, model.alive, RIDGE
        )
        expected = model.image(amplitude, ny)
        result = Extraction(amplitude, variance, used, expected)
    return result


def trace_offsets(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    result: Extraction,
    span: int,
    stride: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shift [px] and relative widening of every fibre in blocks of ``span`` columns, each with its weight (1/variance)."""
    floor = np.broadcast_to(np.asarray(noise, np.float32) ** 2, image.shape)
    weight = np.where(bad, 0.0, 1.0 / (floor + np.maximum(result.model, 0))).astype(np.float32)
    ss, sw, ws, ww = offset_sums(
        np.ascontiguousarray(image, np.float32),
        weight,
        result.amplitude,
        model.trace,
        model.coef,
        model.block,
        span,
        model.alive,
        stride,
    )
    shift = np.divide(ss, sw, out=np.zeros_like(ss), where=sw > 0)
    widening = np.divide(ws, ww, out=np.zeros_like(ws), where=ww > 0)
    return shift, sw, widening, ww


def flux_scale(model: FiberModel) -> float:
    """K: the whole profile over its central value (I[floor t] + I[ceil t]) / 2, the mean over fibres and columns.

    The response curves belong to amplitudes relative to a fibre's centre; an extraction of the whole profile divides by K
    (4.3 to 5, by the shape of the profile).
    """
    fraction = model.trace - np.floor(model.trace)
    n_blocks = model.coef.shape[1]
    columns = np.minimum((np.arange(n_blocks) * model.block + model.block // 2), model.trace.shape[1] - 1)
    central = []
    for b, x in enumerate(columns):
        r = fraction[model.alive, x]
        coef = model.coef[model.alive, b]
        low = np.einsum("ij,ij->i", spline_basis(-r), coef)
        high = np.einsum("ij,ij->i", spline_basis(1.0 - r), coef)
        central.append(0.5 * (low + high))
    return float(1.0 / np.mean(central))
