"""Where in the field a source may be: a matched filter over all places, over the whole channel and in narrow windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .arrays import running_median
from .chunks import chunk_means
from .psf import lenslet_fractions
from .refraction import Refraction
from .sourceprior import MOFFAT_BETA, SEEING_PRIOR

MAP_STEP = 0.3  # arcsec between the places of the detection map
PATH_STEP = 0.1  # arcsec of the path by refraction over which the images of a map's places are the same
SURE_DETECTION = 15.0  # beyond, nothing but light does it
MAP_SCATTER = 1.15  # of a detection map in which nothing but noise and a faint source is
LINE_WIDTHS = (10, 20, 40, 80)  # samples: from lines as sharp as the instrument makes them to those of quasars
LINE_BESIDE = 15  # windows, whose median is the continuum under the middle one


def detection_map(
    positions: np.ndarray,
    wave: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
    refraction: Refraction,
    wave_ref: float,
    fwhm: float = SEEING_PRIOR[0],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Matched filter over a grid of positions.

    Returns
    -------
    x (nx,), y (ny,), snr (ny, nx) summed over chunks, by_chunk (n, ny, nx) S/N of each chunk
    """
    xs = np.arange(positions[:, 0].min() - 0.6, positions[:, 0].max() + 0.61, MAP_STEP)
    ys = np.arange(positions[:, 1].min() - 0.6, positions[:, 1].max() + 0.61, MAP_STEP)
    gx, gy = (g.ravel() for g in np.meshgrid(xs, ys))
    by_chunk = np.zeros((wave.size, gx.size))
    for bins, snr in _filtered(positions, gx, gy, wave, means, variances, refraction, wave_ref, fwhm):
        by_chunk[bins] = snr.T
    # Chunks add up in inverse variance of the flux, with the S/N that a flat spectrum would have.
    scale = np.array(
        [
            np.sqrt(np.median(1.0 / variances[k][np.isfinite(variances[k])]))
            if np.isfinite(variances[k]).any()
            else 0.0
            for k in range(wave.size)
        ]
    )
    snr = (by_chunk * scale[:, None]).sum(axis=0) / max(np.sqrt((scale**2).sum()), 1e-300)
    shape = (ys.size, xs.size)
    return xs, ys, snr.reshape(shape), by_chunk.reshape(-1, *shape)


def _filtered(
    positions: np.ndarray, gx: np.ndarray, gy: np.ndarray, wave: np.ndarray, means: np.ndarray, variances: np.ndarray,
    refraction: Refraction, wave_ref: float, fwhm: float,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Matched filter for a point source at each of the places ``gx``, ``gy`` (m,), in bins that lie close on its path together.

    Yields
    ------
    bins (k,) of ``wave`` (n,), S/N (m, k)
    """
    path = np.stack(refraction.offset(wave, wave_ref), axis=1)
    _, which = np.unique(np.round(path / PATH_STEP), axis=0, return_inverse=True)
    which = which.ravel()
    for part in range(which.max() + 1):
        bins = np.flatnonzero(which == part)
        dx, dy = path[bins].mean(axis=0)
        p = lenslet_fractions(positions, gx + dx, gy + dy, np.full(gx.size, fwhm), MOFFAT_BETA[0], 1)
        w = np.where(np.isfinite(variances[bins]), 1.0 / variances[bins], 0.0)
        yield bins, (p @ (means[bins] * w).T) / np.sqrt(np.maximum((p**2) @ w.T, 1e-300))


def significance(snr: np.ndarray) -> float:
    """S/N of the best place of a map (ny, nx): of a weak one over the map's own scatter, where that is larger than the noise.

    Errors of the fibres' levels that neighbours share (drifts of the electronics) make blobs in an empty field that the single
    fibres' errors do not explain.
    """
    best = float(snr.max())
    if best > SURE_DETECTION:
        return best  # its own light is all over the map
    middle = float(np.median(snr))
    return (best - middle) / max(1.0, 1.4826 * float(np.median(np.abs(snr - middle))) / MAP_SCATTER)


def line_search(positions, wave, value, variance, sky, good, refraction, wave_ref, xs, ys, systematic):
    """The best place for a source that shows a line alone, over windows of `LINE_WIDTHS`, half overlapping.

    Parameters
    ----------
    xs (nx,), ys (ny,) : places of the map [arcsec]; systematic : see `chunks.level_shapes`; the others as in `source.find_source`

    Returns
    -------
    snr, i, j : of the best place xs[i], ys[j]
    wave (1,), means (1, nf), variances (1, nf) : of its window, above the windows beside
    """
    windows = []
    for width, begin in ((w, b) for w in LINE_WIDTHS for b in (0, w // 2)):
        n = (wave.size - begin) // width
        if n < LINE_BESIDE:
            continue
        some = slice(begin, begin + n * width)
        samples = (value[:, some], variance[:, some], systematic * sky[:, some], good[:, some], wave[some])
        centres, means, variances, _ = chunk_means(*samples, n, often=1)
        # Continuum: what neighbouring windows hold.
        windows.append((centres, means - running_median(means.T, LINE_BESIDE).T, variances))
    nothing = np.zeros((1, positions.shape[0]))
    best = (0.0, 0, 0, wave[:1], nothing, nothing)
    if not windows:
        return best
    centres, means, variances = (np.concatenate(part) for part in zip(*windows, strict=True))
    gx, gy = (g.ravel() for g in np.meshgrid(xs, ys))
    for bins, snr in _filtered(positions, gx, gy, centres, means, variances, refraction, wave_ref, SEEING_PRIOR[0]):
        g, k = np.unravel_index(np.argmax(snr), snr.shape)
        if snr[g, k] > best[0]:
            j, i = np.unravel_index(g, (ys.size, xs.size))
            one = slice(bins[k], bins[k] + 1)
            best = (float(snr[g, k]), int(i), int(j), centres[one], means[one], variances[one])
    return best
