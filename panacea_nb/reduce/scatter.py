"""Light scattered under the fibres: the fibre image blurred by Gaussians of all widths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import nnls

from .arrays import enlarged
from .extract import FiberModel, extract

SCATTER_STEP = 8  # px to which an image is binned before it is blurred
SCATTER_SIGMAS = np.array([12.0, 25.0, 50.0, 100.0, 200.0, 400.0, 600.0])
SCATTER_ROUNDS = 4  # each leaves a tenth or less of the last one's error
THIN = 8  # every so many columns show what fibres take of a level background
GAP_DISTANCE = 10.5  # px from the nearest fibre: nothing of the fitted profile reaches there


@dataclass(frozen=True)
class ScatterModel:
    """Scattered light as a sum of the fibre image blurred by Gaussians.

    Attributes
    ----------
    sigmas : (n,) float [px]
    weights : (n,) float >= 0
    """

    sigmas: np.ndarray
    weights: np.ndarray


def binned(image: np.ndarray, step: int = SCATTER_STEP) -> np.ndarray:
    """Mean of ``step`` x ``step`` pixels; rows and columns left over at the end are left out."""
    ny, nx = image.shape[0] // step, image.shape[1] // step
    rows = np.add.reduceat(image[: ny * step], np.arange(0, ny * step, step), axis=0)
    return rows[:, : nx * step].reshape(ny, nx, step).sum(axis=2, dtype=np.float64) / step**2


@lru_cache(maxsize=32)
def gaussian_matrix(n: int, sigma: float) -> np.ndarray:
    """(n, n): blurs a vector by a Gaussian of ``sigma`` elements, cut off at 3.5 sigma; nothing comes from beyond its ends."""
    reach = int(3.5 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return np.where(distance <= reach, np.exp(-0.5 * (distance / sigma) ** 2), 0.0) / kernel.sum()


def blurred(small: np.ndarray, sigma: float, step: int = SCATTER_STEP) -> np.ndarray:
    """A `binned` image blurred by a Gaussian of ``sigma`` px of the full image: for wide ones a matrix is the fastest filter."""
    return gaussian_matrix(small.shape[0], sigma / step) @ small @ gaussian_matrix(small.shape[1], sigma / step)


def gap_pixels(model: FiberModel, n_rows: int) -> np.ndarray:
    """(ny, nx) bool: pixels more than `GAP_DISTANCE` px away from any fibre with light."""
    nx = model.trace.shape[1]
    trace = model.trace[model.alive]
    gap = np.ones((n_rows, nx), bool)
    low = np.clip(np.floor(trace - GAP_DISTANCE).astype(int), 0, n_rows)
    high = np.clip(np.ceil(trace + GAP_DISTANCE).astype(int) + 1, 0, n_rows)
    change = np.zeros((n_rows + 1, nx), np.int32)
    x = np.broadcast_to(np.arange(nx), trace.shape)
    np.add.at(change, (low, x), 1)
    np.add.at(change, (high, x), -1)
    gap &= np.cumsum(change, axis=0)[:-1] == 0
    return gap


def fit_scatter(image: np.ndarray, fibers: np.ndarray, bad: np.ndarray, gap: np.ndarray) -> ScatterModel:
    """Non-negative weights of the blurred fibre images that explain the light between the groups of fibres."""
    step = SCATTER_STEP
    ny, nx = image.shape
    usable = gap & ~bad
    shape = (ny // step, step, nx // step, step)
    count = usable[: shape[0] * step, : shape[2] * step].reshape(shape).sum(axis=(1, 3))
    light = np.where(usable, image, 0)[: shape[0] * step, : shape[2] * step].reshape(shape).sum(axis=(1, 3))
    take = count >= step * step // 2
    if take.sum() < 50:
        return ScatterModel(SCATTER_SIGMAS, np.zeros(SCATTER_SIGMAS.size))
    target = light[take] / count[take]
    small = binned(fibers)
    design = np.stack([blurred(small, s)[take] for s in SCATTER_SIGMAS], axis=1)
    scale = design.max(axis=0) + 1e-12
    weight = np.ones(target.size)
    for _ in range(3):
        solution = nnls(design / scale * weight[:, None], target * weight)[0]
        rest = target - design / scale @ solution
        spread = 1.4826 * np.median(np.abs(rest - np.median(rest))) + 1e-9
        weight = 1.0 / np.maximum(1.0, np.abs(rest) / (2.5 * spread))
    return ScatterModel(SCATTER_SIGMAS, solution / scale)


def held(model: FiberModel, n_rows: int) -> np.ndarray:
    """Share of a level background that fibres take for their own light where none is subtracted, (n_rows // SCATTER_STEP,)."""
    thin = model.every(THIN, THIN // 2)
    level = np.ones((n_rows, thin.trace.shape[1]), np.float32)
    taken = np.median(extract(level, level[:, :1], np.zeros(level.shape, bool), thin).amplitude, axis=1)
    n = n_rows // SCATTER_STEP
    place = np.clip(np.median(model.trace, axis=1) // SCATTER_STEP, 0, n - 1).astype(int)
    return np.bincount(place, np.where(model.alive, taken, 0.0), minlength=n) / SCATTER_STEP


def scattered_light(scatter: ScatterModel, fibers: np.ndarray, share: np.ndarray | None = None) -> np.ndarray:
    """Scattered light (ny, nx) float32 [e-] under a frame whose fibre image is given.

    With ``share``, see `held`, that image comes from an extraction that knew of none, so that it holds the scattered light too.
    """
    if not (scatter.weights > 0).any():
        return np.zeros_like(fibers, dtype=np.float32)
    small = binned(fibers)
    pairs = [(s, w) for s, w in zip(scatter.sigmas, scatter.weights, strict=True) if w > 0]
    own = small
    for _ in range(1 if share is None else SCATTER_ROUNDS):
        total = sum(weight * blurred(own, sigma) for sigma, weight in pairs)
        if share is not None:
            own = small - share[:, None] * total
    return enlarged(total, fibers.shape)
