"""Spectra in a few broad bins of wavelength: what a source's place and shape are measured from."""

from __future__ import annotations

import numpy as np

N_CHUNKS = 24  # wavelength bins in which the shape of the source is fitted
SYSTEMATIC = 0.003  # of the sky per fibre: flat and sky errors that do not average over wavelength


def level_shapes(sky: np.ndarray, electron: np.ndarray | None, systematic: float) -> list[np.ndarray]:
    """What an error of a fibre's level may look like along its spectrum, 1 sigma, each (nf, nw).

    An error of the fibre flat looks like the sky, levels of detector rows are some electrons in every column.

    Parameters
    ----------
    sky : (nf, nw), the sky; electron : (nf, nw), one electron per column in the same unit, or None: all errors look like the sky
    systematic : float, scatter of the fibres' levels in units of the sky
    """
    if electron is None or systematic <= SYSTEMATIC:
        return [systematic * sky]
    known = (electron > 0) & (sky > 0)
    electrons = float(np.median(sky[known] / electron[known])) if known.any() else 0.0
    return [SYSTEMATIC * sky, float(np.sqrt(systematic**2 - SYSTEMATIC**2)) * electrons * electron]


def chunk_means(
    value: np.ndarray,
    variance: np.ndarray,
    levels: list[np.ndarray],
    good: np.ndarray,
    wave: np.ndarray,
    n_chunks: int = N_CHUNKS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weighted means of (nf, nw) data in wavelength bins.

    ``levels`` are errors that a fibre has in all bins together (`level_shapes`).

    One set of wavelength weights serves all fibres of a chunk (so that a source's spectrum does not change the weights from
    fibre to fibre); sky lines weigh little.

    Returns
    -------
    chunk_wave (n,), means (n, nf), variances (n, nf) of the noise, inf where a fibre has less than half of a chunk, and the
    means of the levels (k, n, nf)
    """
    edges = np.linspace(0, wave.size, n_chunks + 1).astype(int)
    means, variances, centres, common = [], [], [], []
    usable = good & (variance > 0)
    typical = np.nanmedian(np.where(usable, variance, np.nan), axis=0)
    weight = np.where(np.isfinite(typical) & (typical > 0), 1.0 / np.where(typical > 0, typical, 1.0), 0.0)
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        w = weight[a:b] * usable[:, a:b]
        total = w.sum(axis=1)
        enough = total > 0.5 * weight[a:b].sum()
        safe = np.where(total > 0, total, 1.0)
        mean = (w * value[:, a:b]).sum(axis=1) / safe
        var = (w**2 * variance[:, a:b]).sum(axis=1) / safe**2
        common.append([(w * level[:, a:b]).sum(axis=1) / safe for level in levels])
        means.append(np.where(enough, mean, 0.0))
        variances.append(np.where(enough, var, np.inf))
        centres.append(np.average(wave[a:b], weights=weight[a:b] + 1e-30))
    return np.array(centres), np.array(means), np.array(variances), np.swapaxes(common, 0, 1)


def with_levels(variances: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Variances (n, nf) of the bins with those of the levels (k, n, nf), so large that these do not average down over the bins."""
    return variances + min(len(variances), N_CHUNKS) * (common**2).sum(axis=0)


def whitening(variances: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Matrices (nf, n, n) that make the errors of each fibre's bins independent and of one sigma; 0 for a bin without data.

    The covariance of a fibre's bins is their noise and the outer products of the levels that they share.
    """
    known = np.isfinite(variances)
    root = np.where(known, 1.0 / np.sqrt(np.where(known, variances, 1.0)), 0.0)
    u = (common * root).transpose(2, 1, 0)  # (nf, n, k)
    covariance = np.eye(u.shape[1]) + u @ u.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(values)[:, None]) @ vectors.transpose(0, 2, 1) * root.T[:, None]
