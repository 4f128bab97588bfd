"""Spectra in a few broad bins of wavelength: what a source's place and shape are measured from."""

from __future__ import annotations

import numpy as np

N_CHUNKS = 24  # wavelength bins in which the shape of the source is fitted
SYSTEMATIC = 0.003  # of the sky per fibre: flat and sky errors that do not average over wavelength


def chunk_means(
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    wave: np.ndarray,
    n_chunks: int = N_CHUNKS,
    systematic: float = SYSTEMATIC,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted means of (nf, nw) data in wavelength bins.

    ``systematic`` is the error of a fibre's level in units of the sky.

    One set of wavelength weights serves all fibres of a chunk (so that a source's spectrum does not change the weights from
    fibre to fibre); sky lines weigh little.

    Returns
    -------
    chunk_wave (n,), means (n, nf), variances (n, nf); variance inf where a fibre has less than half of a chunk
    """
    edges = np.linspace(0, wave.size, n_chunks + 1).astype(int)
    # An error of a fibre's level is the same in all chunks: it must not average down over them.
    common = min(n_chunks, N_CHUNKS)
    means, variances, centres = [], [], []
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
        level = (w * sky[:, a:b]).sum(axis=1) / safe
        means.append(np.where(enough, mean, 0.0))
        variances.append(np.where(enough, var + common * (systematic * level) ** 2, np.inf))
        centres.append(np.average(wave[a:b], weights=weight[a:b] + 1e-30))
    return np.array(centres), np.array(means), np.array(variances)
