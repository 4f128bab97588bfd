"""How the levels of detector rows wander after the overscan was subtracted: measured on bias frames, the prior of `rowlevel`."""

from __future__ import annotations

import numpy as np

LENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)  # rows
LAGS = 80  # rows over which the correlation is looked at
LEAST = 0.005  # e-; less makes no difference to any fibre


def row_wander(level: np.ndarray, noise: float, nx: int) -> tuple[float, float, float]:
    """Scatter of the rows' levels in bias frames beyond the noise of their pixels.

    The levels are taken as white jumps from row to row and a slow part whose correlation falls exponentially with the distance of
    rows: drifts that the overscan follows too late, and the overscan's own noise where it was smoothed over rows.

    Parameters
    ----------
    level : (n_frames, rows) [e-], mean of each row's pixels about the mean of the frames
    noise : float [e-], of a pixel; nx : pixels of a row

    Returns
    -------
    white, slow : float [e-]; length : float [rows]
    """
    n, rows = level.shape
    level = level - np.median(level, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(level)) + 1e-9
    level = np.clip(level, -5 * spread, 5 * spread)
    lags = np.arange(min(LAGS, rows // 4))
    # The mean of n frames holds an n-th of each, its own levels included.
    found = np.array([np.mean(level[:, : rows - k] * level[:, k:]) for k in lags]) * n / (n - 1)
    found[0] -= noise**2 / nx
    best = (np.inf, 0.0, LENGTHS[0])
    for length in LENGTHS:
        shape = np.exp(-lags[1:] / length)
        power = max(float(shape @ found[1:] / (shape @ shape)), 0.0)
        best = min(best, (float(np.sum((found[1:] - power * shape) ** 2)), power, length))
    _, power, length = best
    return float(np.sqrt(max(found[0] - power, 0.0))), float(np.sqrt(power)), length
