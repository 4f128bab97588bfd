"""Optimal extraction of all fibres together, and the fibre model of a channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .arrays import BLOCK, plain
from .kernels import HALF_WIDTH, KNOT, N_COEF, NO_GRADE, NO_IMAGE, fit_columns, model_columns, profile_windows
from .shiftkernels import offset_sums

RIDGE = 1e-9  # relative to the profile's own weight; only keeps a fully masked fibre solvable
MIN_USED = 0.5  # share of a sample's profile weight below which it is not used
NO_LIMITS = np.zeros(3, np.float32)


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
        image = np.zeros((n_rows, self.trace.shape[1]), np.float32)
        model_columns(plain(amplitude, np.float32), *self.windows, image)
        return image

    def every(self, stride: int, begin: int = 0) -> FiberModel:
        """The model of every ``stride``-th column alone, from ``begin`` on; ``stride`` divides the block."""
        if stride == 1:
            return self
        return FiberModel(plain(self.trace[:, begin::stride], np.float64), self.coef, self.block // stride, self.alive)

    @cached_property
    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """The profiles on the rows of each fibre and column (see `profile_windows`); 50 MB, kept as long as the model."""
        return profile_windows(plain(self.trace, np.float64), plain(self.coef, np.float64), self.block)


@dataclass(frozen=True)
class Extraction:
    """Attributes
    ----------
    amplitude : (nf, nx) float32, electrons in the whole profile of a fibre per column
    variance : (nf, nx) float32
    used : (nf, nx) float32, share of the profile's weight that was not masked
    model : (ny, nx) float32, the image these amplitudes make
    coupling : (nf, nb) float32, correlation of a fibre's error with that of the next fibre on the chip, by block of columns
    """

    amplitude: np.ndarray
    variance: np.ndarray
    used: np.ndarray
    model: np.ndarray
    coupling: np.ndarray


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
    light: np.ndarray | None = None,
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
    light : (nf, nx), optional
        The same as the amplitudes [e-] of the fibres of that image.
    rounds : int
        Rounds of fit and new weights.
    """
    turns = rounds if start is None and light is None else max(1, rounds - 1)
    result = blank_extraction(model, image.shape)
    refit(result, image, noise, bad, model, background=background, start=start, light=light, rounds=turns)
    return result


def blank_extraction(model: FiberModel, shape: tuple[int, int]) -> Extraction:
    """An `Extraction` of zeros for an image of ``shape``, for `refit` to fill in."""
    samples = (np.zeros(model.trace.shape, np.float32) for _ in range(3))
    coupling = np.zeros((model.trace.shape[0], -(-shape[1] // BLOCK)), np.float32)
    return Extraction(*samples, np.zeros(shape, np.float32), coupling)


def refit(
    result: Extraction,
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    *,
    background: np.ndarray | None = None,
    start: np.ndarray | None = None,
    light: np.ndarray | None = None,
    rounds: int = 1,
    blocks: np.ndarray | None = None,
    grade: np.ndarray | None = None,
    limits: np.ndarray = NO_LIMITS,
) -> None:
    """Fit some blocks of columns and write them into ``result``; what is not said here is as in `extract`.

    Parameters
    ----------
    rounds : int
        All rounds, whether or not the first weights are given.
    blocks : (n,) int, optional
        Blocks of `BLOCK` columns to fit; all by default.
    grade, limits : see `fit_columns`
    """
    blocks = np.arange(-(-image.shape[1] // BLOCK)) if blocks is None else blocks
    frames = [NO_IMAGE if a is None else plain(a, np.float32) for a in (background, start, light)]
    fit_columns(
        plain(image, np.float32), frames[0], noise_floor(noise, image.shape), plain(bad, np.bool_), *model.windows,
        plain(model.alive, np.bool_), RIDGE, blocks, frames[1], frames[2], rounds, limits,
        result.amplitude, result.variance, result.used, result.model, NO_GRADE if grade is None else grade, result.coupling,
    )  # fmt: skip


def noise_floor(noise: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Variance of the read noise, float32, (ny, 1) where all columns have the same, else (ny, nx)."""
    floor = np.asarray(noise, np.float32) ** 2
    rows = (shape[0], 1) if floor.ndim < 2 or floor.shape[1] == 1 else shape
    return np.broadcast_to(floor, rows).copy()


def trace_offsets(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    result: Extraction,
    span: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shift [px] and relative widening of every fibre in blocks of ``span`` columns, each with its weight (1/variance)."""
    ss, sw, ws, ww = offset_sums(
        plain(image, np.float32), noise_floor(noise, image.shape), plain(bad, np.bool_), result.amplitude, *model.windows,
        plain(model.trace, np.float64), plain(model.coef, np.float64), model.block, span, plain(model.alive, np.bool_),
    )  # fmt: skip
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
