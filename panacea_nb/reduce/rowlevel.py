"""Level of each detector row in a science frame, told from the fibres' light by the shape of their profiles."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from .extract import FiberModel
from .kernels import extract_columns, model_columns

LEAST_SCATTER = 0.01  # e-, of the rows' levels: less makes no difference to any fibre
PROFILE_ERROR = 0.005  # of a row's light: what the fibre profiles may be wrong by in all columns alike
PIXEL_ERROR = 0.02  # of a pixel's light
STRIDE = 2  # columns; a level is known to 0.1 e- from half of them
MAX_ITERATIONS = 25


def row_levels(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    light: np.ndarray,
    scatter: np.ndarray,
    stride: int = STRIDE,
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
    scatter : (2,) [e-], of the rows' levels about their amplifier's after the overscan was subtracted, as the bias frames show it:
        the prior, without which rows that do not wander would get the noise of this fit
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

    amplifier = np.repeat([0, 1], [ny // 2, ny - ny // 2])
    prior = 1.0 / np.maximum(scatter, LEAST_SCATTER)[amplifier] ** 2

    def apart(rows: np.ndarray) -> np.ndarray:
        """Values of the rows, and their sums over each amplifier: the unknowns are rows' deviations and amplifiers' levels."""
        return np.concatenate([rows, np.bincount(amplifier, rows)])

    def normal(unknown: np.ndarray) -> np.ndarray:
        deviation, level = unknown[:ny], unknown[ny:]
        rows = np.broadcast_to((deviation + level[amplifier]).astype(np.float32), columns.shape)
        result = apart(unexplained(np.ascontiguousarray(rows)))
        result[:ny] += deviation * prior
        return result

    diagonal = apart(total)
    diagonal[:ny] += prior
    size = (ny + 2, ny + 2)
    matrix = LinearOperator(size, matvec=normal, dtype=float)
    scale = LinearOperator(size, matvec=lambda v: v / np.maximum(diagonal, 1e-30), dtype=float)
    found, _ = cg(matrix, apart(unexplained(columns)), M=scale, rtol=1e-3, maxiter=MAX_ITERATIONS)
    return (found[:ny] + found[ny:][amplifier]).astype(np.float32)[:, None]
