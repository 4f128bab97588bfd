"""Maps on the detector that clients of the products expect: wavelength, fibre and flat field of every pixel."""

from __future__ import annotations

import numpy as np

from ..reduce.arrays import lines_between, plain
from ..reduce.extract import FiberModel

OWN_ROWS = 4  # rows of a fibre that count as its own in the trace map


def over_rows(values: np.ndarray, trace: np.ndarray, n_rows: int) -> np.ndarray:
    """A quantity known at the fibres' centres (nf, nx), interpolated along every column to all rows (n_rows, nx)."""
    out = np.empty((n_rows, trace.shape[1]), np.float32)
    lines_between(plain(values, np.float64), plain(trace, np.float64), out)
    return out


def fiber_map(trace: np.ndarray, n_rows: int) -> np.ndarray:
    """(n_rows, nx) int16: number of the fibre (from 1) whose four central rows a pixel belongs to, else 0."""
    out = np.zeros((n_rows, trace.shape[1]), np.int16)
    columns = np.arange(trace.shape[1])
    for f in range(trace.shape[0]):
        first = np.floor(trace[f]).astype(int) - OWN_ROWS // 2 + 1
        for k in range(OWN_ROWS):
            row = first + k
            inside = (row >= 0) & (row < n_rows)
            out[row[inside], columns[inside]] = f + 1
    return out


def flat_image(model: FiberModel, throughput: np.ndarray, pixel_flat: np.ndarray, profile_scale: float) -> np.ndarray:
    """The flat field (ny, nx): profile, throughput and pixel response; 1 at the centre of the average fibre."""
    light = np.where(model.alive[:, None], throughput * profile_scale, 0.0)
    return model.image(light, pixel_flat.shape[0]) * pixel_flat


def divided(image: np.ndarray, flat: np.ndarray, minimum: float = 0.1) -> np.ndarray:
    """image / flat where the flat has light, else 0."""
    out = np.zeros(image.shape, np.float32)
    return np.divide(image, flat, out=out, where=flat > minimum, casting="same_kind")
