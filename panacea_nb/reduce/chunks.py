"""Spectra in a few broad bins of wavelength: what a source's place and shape are measured from."""

from __future__ import annotations

import numpy as np

N_CHUNKS = 24  # wavelength bins in which the shape of the source is fitted
SYSTEMATIC = 0.003  # of the sky per fibre: flat and sky errors that do not average over wavelength
FLAT_LIMIT = 0.01  # of the sky: by more, no fibre flat is wrong


def level_shapes(
    sky: np.ndarray, electron: np.ndarray | None, systematic: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Errors of the fibres' levels, 1 sigma, each (nf, nw): those of the fibre flat, and those of detector rows or None.

    An error of the flat is some per mille of the sky, and may change along the spectrum; levels of detector rows are the same
    electrons in every column.  Of the scatter that the fibres show, the flat gets `FLAT_LIMIT` at most.

    Parameters
    ----------
    sky : (nf, nw), the sky; electron : (nf, nw), one electron per column in the same unit, or None: all errors are the flat's
    systematic : float, scatter of the fibres' levels in units of the sky
    """
    if electron is None or systematic <= FLAT_LIMIT:
        return systematic * sky, None
    known = (electron > 0) & (sky > 0)
    electrons = float(np.median(sky[known] / electron[known])) if known.any() else 0.0
    return FLAT_LIMIT * sky, float(np.sqrt(systematic**2 - FLAT_LIMIT**2)) * electrons * electron


def chunk_means(
    value: np.ndarray,
    variance: np.ndarray,
    flat: np.ndarray,
    good: np.ndarray,
    wave: np.ndarray,
    n_chunks: int = N_CHUNKS,
    rows: np.ndarray | None = None,
    often: int = N_CHUNKS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weighted means of (nf, nw) data in wavelength bins.

    ``flat`` and ``rows`` are errors that a fibre has in all bins together (`level_shapes`); ``often`` is how many
    bins are used together.

    One set of wavelength weights serves all fibres of a chunk (so that a source's spectrum does not change the weights from
    fibre to fibre); sky lines weigh little.

    Returns
    -------
    chunk_wave (n,), means (n, nf), variances (n, nf) of noise and flat, inf where a fibre has less than half of a chunk, and the
    means of ``rows`` (n, nf)
    """
    first = np.linspace(0, wave.size, n_chunks + 1).astype(int)[:-1]
    # An error of the flat is much the same in all chunks: it must not average down over them.
    often = min(n_chunks, often)
    usable = good & (variance > 0)
    typical = _median_of(variance, usable)
    weight = np.where(typical > 0, 1.0 / np.where(typical > 0, typical, 1.0), 0.0)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, first, axis=-1)

    w = weight * usable
    total = summed(w)
    enough = total > 0.5 * summed(weight)
    safe = np.where(total > 0, total, 1.0)
    mean = summed(w * value) / safe
    off = summed(w * flat) / safe
    noise = summed(w**2 * variance) / safe**2
    common = np.zeros(mean.shape) if rows is None else summed(w * rows) / safe
    faint = weight + 1e-30
    centres = summed(faint * wave) / summed(faint)
    variances = np.where(enough, noise + often * off**2, np.inf)
    return centres, np.where(enough, mean, 0.0).T, variances.T, common.T


def _median_of(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Median (nw,) of the usable values (nf, nw), 0 where there is none."""
    ordered = np.sort(np.where(usable, values, np.inf), axis=0)
    n = usable.sum(axis=0)
    column = np.arange(n.size)
    middle = 0.5 * (ordered[np.maximum(n - 1, 0) // 2, column] + ordered[np.minimum(n // 2, len(values) - 1), column])
    return np.where(n > 0, middle, 0.0)


def with_levels(variances: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Variances (n, nf) of the bins with those of the levels (n, nf), so large that these do not average down over the bins."""
    return variances + min(len(variances), N_CHUNKS) * common**2


def whitening(variances: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Matrices (nf, n, n) that make the errors of each fibre's bins independent and of one sigma; 0 for a bin without data.

    The covariance of a fibre's bins is diagonal, ``variances`` (n, nf), but for the outer product of the level ``common`` (n, nf)
    that they share.
    """
    known = np.isfinite(variances)
    root = np.where(known, 1.0 / np.sqrt(np.where(known, variances, 1.0)), 0.0)
    u = (common * root).T
    square = (u**2).sum(axis=1)[:, None, None]
    # The inverse root of 1 + u u' along u itself; 1 across it.
    along = np.divide(1.0 / np.sqrt(1.0 + square) - 1.0, square, out=np.zeros_like(square), where=square > 0)
    return (np.eye(u.shape[1]) + along * u[:, :, None] * u[:, None, :]) * root.T[:, None]
