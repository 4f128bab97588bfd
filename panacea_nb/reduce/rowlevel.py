"""Level of each detector row in a science frame, told from the fibres' light by the shape of their profiles."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from .extract import FiberModel
from .kernels import extract_columns, model_columns

LEVEL_PRIOR = 0.5  # e-, of a row's level about its amplifier's, after the overscan has been subtracted
PROFILE_ERROR = 0.005  # of a row's light: what the fibre profiles may be wrong by in all columns alike
PIXEL_ERROR = 0.02  # of a pixel's light
STRIDE = 2  # columns; a level is known to 0.1 e- from half of them
MAX_ITERATIONS = 25


def row_levels(
    image: np.ndarray, noise: np.ndarray, bad: np.ndarray, model: FiberModel, light: np.ndarray, stride: int = STRIDE
) -> np.ndarray:
    """Constant that each row has beside the fibres' light, (ny, 1) float32 [e-].

    The overscan has some thirty pixels per row, so it gives a row's level only to half an electron; the two thousand pixels of the
    row itself know it better, once the fibres' light is told from it: the rows between the fibres' centres see little light, and
    traces wander over rows.  Amplitudes of all fibres in all columns and the levels of all rows are fitted together by least
    squares; the amplitudes are eliminated column by column (they are the extraction), the levels are solved for by conjugate
    gradients.  A level that a fibre's own light could imitate stays at its amplifier's, which is free: a bias that has moved since
    the bias frames lifts the whole half of the chip.

    Parameters
    ----------
    image : (ny, nx) [e-], background subtracted; the amplifiers are its two halves
    noise : (ny, 1) or (ny, nx) [e-], read noise
    bad : (ny, nx) bool
    model : FiberModel
    light : (ny, nx) [e-], expected light of the fibres, for the weights: rows with much light say little
    """
    ny = image.shape[0]
    part = slice(None, None, stride)
    window, first = model.windows[0][part], model.windows[1][part]
    columns = np.ascontiguousarray(image[:, part].T, np.float32)
    expected = np.maximum(light[:, part].T, 0)
    floor = np.broadcast_to(np.asarray(noise, np.float32) ** 2, image.shape)[:, part].T
    weight = np.where(bad[:, part].T, 0.0, 1.0 / (floor + expected + (PIXEL_ERROR * expected) ** 2))
    systematic = (PROFILE_ERROR * expected.mean(axis=0)) ** 2
    weight = np.ascontiguousarray(weight / (1.0 + weight.sum(axis=0) * systematic), np.float32)
    total = weight.sum(axis=0, dtype=float)

    def unexplained(data: np.ndarray) -> np.ndarray:
        """Weighted sum over columns of what the fibres cannot make of an image (columns first)."""
        amplitude = extract_columns(data, weight, window, first, model.alive, 1e-9)[0]
        return (weight * (data - model_columns(amplitude, window, first, ny))).sum(axis=0, dtype=float)

    def normal(levels: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.broadcast_to(levels.astype(np.float32), columns.shape))
        mean = np.repeat([levels[: ny // 2].mean(), levels[ny // 2 :].mean()], [ny // 2, ny - ny // 2])
        return unexplained(rows) + (levels - mean) / LEVEL_PRIOR**2

    diagonal = total + 1.0 / LEVEL_PRIOR**2
    matrix = LinearOperator((ny, ny), matvec=normal, dtype=float)
    scale = LinearOperator((ny, ny), matvec=lambda v: v / diagonal, dtype=float)
    levels, _ = cg(matrix, unexplained(columns), M=scale, rtol=1e-3, maxiter=MAX_ITERATIONS)
    return levels.astype(np.float32)[:, None]
