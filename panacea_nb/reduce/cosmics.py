"""Cosmic rays: pixels that neither the fibre profile nor the line-spread function can make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, maximum_filter1d, median_filter, uniform_filter1d

from .extract import Extraction, FiberModel, extract

SEED_SIGMA = 5.5  # 4 million pixels: 0.1 false alarm a frame
GROW_SIGMA = 3.0  # next to a seed
PROFILE_ERROR = 0.05  # of the local peak of the model: what the profile may be wrong by
ROUNDS = 4
SPIKE_SIGMA = 6.0  # excess of a sample over the prediction
SPIKE_RATIO = 1.6  # a line as narrow as the LSF falls to 1/1.6 or more two pixels from its peak
SURE = 4.0  # sigma of a running median that is light without doubt
PEAK_RATIO = 1.145  # of a line of 4.5 px FWHM, to the geometric mean of the samples beside
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


@dataclass(frozen=True)
class CosmicResult:
    """Attributes
    ----------
    mask : (ny, nx) bool, pixels hit
    extraction : Extraction without them
    """

    mask: np.ndarray
    extraction: Extraction


def pixel_sigma(expected: np.ndarray, floor: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Noise of a pixel [e-] with the uncertainty of the profile, which scales with the brightest pixel nearby."""
    light = np.maximum(expected, 0)
    near = maximum_filter1d(light, 5, axis=0)
    return np.sqrt(floor + light + np.maximum(background, 0) + (PROFILE_ERROR * near) ** 2)


def find_tracks(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    background: np.ndarray,
    known: np.ndarray | None = None,
    *,
    rounds: int = ROUNDS,
) -> CosmicResult:
    """Pixels above what fibres with any spectrum could give.

    The amplitudes are fitted freely, so a sky or emission line is never mistaken; a cosmic ray, sharper than the profile across
    dispersion, stands out of the fit.  Each round fits without the pixels found so far and so uncovers the rest of a track.

    Parameters
    ----------
    image : (ny, nx) [e-]; noise : (ny, 1) or (ny, nx) [e-]; bad : (ny, nx) bool
    background : (ny, nx) [e-]
    known : (ny, nx) bool, optional, hits known before
    """
    floor = np.broadcast_to(np.asarray(noise, np.float32) ** 2, image.shape)
    cosmic = np.zeros(image.shape, bool) if known is None else known.copy()
    result = None
    for _ in range(rounds):
        result = extract(
            image, noise, bad | cosmic, model, background=background, start=None if result is None else result.model
        )
        z = (image - background - result.model) / pixel_sigma(result.model, floor, background)
        seed = (z > SEED_SIGMA) & ~bad
        found = seed | (binary_dilation(seed | cosmic, CROSS) & (z > GROW_SIGMA) & ~bad)
        new = found & ~cosmic
        cosmic |= found
        if new.sum() < 5:
            break
    result = extract(image, noise, bad | cosmic, model, background=background, start=result.model)
    return CosmicResult(cosmic, result)


def _median_of_five(values: np.ndarray) -> np.ndarray:
    """Running median of five samples along the second axis, by comparisons of shifted images."""
    a, b, c, d, e = (np.pad(values, ((0, 0), (2, 2)), mode="edge")[:, k : k + values.shape[1]] for k in range(5))
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.maximum(np.minimum(low, high), np.minimum(e, np.maximum(low, high)))


def smooth_source(
    rest: np.ndarray, sigma: np.ndarray, good: np.ndarray, window: int = 41
) -> tuple[np.ndarray, np.ndarray]:
    """What the fibres hold beyond the sky: a running median (continuum) and lines.

    Returns
    -------
    likely : (nf, nx), with everything that may be light: what stands above it is a cosmic ray
    sure : (nf, nx), the part of it that cannot be noise, for the weights of an extraction: a weight that follows the noise, if only
        that of a few neighbours, biases faint light low
    """
    filled = np.where(good, rest, 0.0).astype(np.float32)
    # Row by row: the one-dimensional filter is ten times as fast as the same window on an image.
    continuum = np.stack([median_filter(row, size=window, mode="nearest") for row in filled])
    continuum = uniform_filter1d(continuum, window // 2, axis=1, mode="nearest")
    # Emission lines: what a five-pixel median leaves and the noise cannot explain.
    line = _median_of_five(filled - continuum)
    noise = np.where(sigma > 0, sigma, np.inf)
    # The median clips a peak by up to a quarter: a Gaussian stands by a fixed factor above the mean of its two neighbours.
    sides = np.maximum(np.pad(filled - continuum, ((0, 0), (1, 1)), mode="edge"), 0)
    peak = PEAK_RATIO * np.sqrt(sides[:, :-2] * sides[:, 2:])
    line_noise, light = noise / np.sqrt(5) * 1.25, np.maximum(line, peak)
    seen = continuum > SURE * 1.25 * uniform_filter1d(sigma, window, axis=1, mode="nearest") / np.sqrt(window)
    sure = np.where(seen, continuum, 0.0) + np.where(line > SURE * line_noise, light, 0.0)
    return continuum + np.where(line > 2.0 * line_noise, light, 0.0), sure


def find_spikes(
    amplitude: np.ndarray, variance: np.ndarray, good: np.ndarray, predicted: np.ndarray, error: float = 0.03
) -> np.ndarray:
    """Samples (nf, nx) bool above the prediction and narrower along dispersion than the line-spread function allows.

    ``error`` is the share by which the prediction itself may be wrong (sky lines of another width).
    """
    sigma = np.sqrt(np.maximum(variance, 1e-6) + (error * np.maximum(predicted, 0)) ** 2)
    rest = np.where(good, amplitude - predicted, 0.0)
    around = np.zeros_like(rest)
    for step in (2, 3):
        left = np.pad(rest, ((0, 0), (step, 0)))[:, : rest.shape[1]]
        right = np.pad(rest, ((0, 0), (0, step)))[:, step:]
        around = np.maximum(around, np.minimum(left, right) if step == 3 else 0.5 * (left + right))
    return good & (rest > SPIKE_SIGMA * sigma) & (rest > SPIKE_RATIO * np.maximum(around, 0) + 4 * sigma)


def mask_spikes(
    spikes: np.ndarray,
    image: np.ndarray,
    expected: np.ndarray,
    floor: np.ndarray,
    background: np.ndarray,
    model: FiberModel,
) -> np.ndarray:
    """Pixels (ny, nx) bool under the spiked samples that stand above the predicted image."""
    ny, _ = image.shape
    result = np.zeros(image.shape, bool)
    f, x = np.nonzero(spikes)
    if f.size == 0:
        return result
    rows = np.round(model.trace[f, x]).astype(int)[:, None] + np.arange(-4, 5)
    columns = np.broadcast_to(x[:, None], rows.shape)
    inside = (rows >= 0) & (rows < ny)
    rows, columns = rows[inside], columns[inside]
    sigma = pixel_sigma(expected, floor, background)[rows, columns]
    hit = image[rows, columns] - background[rows, columns] - expected[rows, columns] > GROW_SIGMA * sigma
    result[rows[hit], columns[hit]] = True
    return result
