"""Cosmic rays: pixels that neither the fibre profile nor the line-spread function can make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from ..instrument import LENSLET_PITCH
from .arrays import plain, running_median
from .extract import Extraction, FiberModel, blank_extraction, refit
from .kernels import BLOCK, grow_tracks

SEED_SIGMA = 5.5  # 4 million pixels: 0.1 false alarm a frame
GROW_SIGMA = 3.0  # next to a seed
PROFILE_ERROR = 0.05  # of the local peak of the model: what the profile may be wrong by
ROUNDS = 4
SPIKE_SIGMA = 6.0  # excess of a sample over the prediction
SPIKE_RATIO = 1.6  # a line as narrow as the LSF falls to 1/1.6 or more one sigma from its peak (two pixels at 1x1)
LONELY_SIGMA = 5.0  # excess of a sample over the sky in a fibre where no source is seen
LONELY_SHARE = 0.12  # that its neighbours have of it at most: of the sharpest image (0.8 arcsec) they would have a quarter
NEIGHBOUR = 1.3  # lenslets, distance of neighbours in the field
SURE = 4.0  # sigma of a running median that is light without doubt
LSF_SIGMA = 1.9  # px, of the instrument's lines at 1x1 binning, for which the steps of `find_spikes` are
FEW = 5  # new pixels: too few to go on for


@dataclass(frozen=True)
class CosmicResult:
    """Attributes
    ----------
    mask : (ny, nx) bool, pixels hit
    extraction : Extraction without them
    """

    mask: np.ndarray
    extraction: Extraction


def find_tracks(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    background: np.ndarray | None = None,
    known: np.ndarray | None = None,
    *,
    rounds: int = ROUNDS,
) -> CosmicResult:
    """Pixels above what fibres with any spectrum could give.

    The amplitudes are fitted freely, so a sky or emission line is never mistaken; a cosmic ray, sharper than the profile across
    dispersion, stands out of the fit.  Each round fits without the pixels found so far and so uncovers the rest of a track; after
    the first only the blocks of columns in which there was something new.

    Parameters
    ----------
    image : (ny, nx) [e-]; noise : (ny, 1) or (ny, nx) [e-]; bad : (ny, nx) bool
    background : (ny, nx) [e-], optional
    known : (ny, nx) bool, optional, hits known before
    """
    cosmic = np.zeros(image.shape, bool) if known is None else known.copy()
    grade = np.zeros(image.shape, np.uint8)
    bad = plain(bad, np.bool_)
    limits = np.array([PROFILE_ERROR, GROW_SIGMA, SEED_SIGMA], np.float32)
    result = blank_extraction(model, image.shape)
    blocks, light, turns = None, None, 2
    for _ in range(rounds):
        refit(
            result, image, noise, bad | cosmic, model, background=background, light=light, rounds=turns, blocks=blocks,
            grade=grade, limits=limits,
        )  # fmt: skip
        changed = np.zeros(-(-image.shape[1] // BLOCK), bool)
        new = grow_tracks(grade, bad, cosmic, changed)
        blocks, light, turns = np.flatnonzero(changed), result.amplitude, 1
        if new < FEW:
            break
    refit(result, image, noise, bad | cosmic, model, background=background, light=light, blocks=blocks)
    return CosmicResult(cosmic, result)


def still_above(mask: np.ndarray, image: np.ndarray, noise: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Pixels (ny, nx) bool of a ``mask`` that stand above what is ``expected`` (ny, nx) [e-], by `GROW_SIGMA` at least."""
    y, x = np.divmod(np.flatnonzero(mask), mask.shape[1])
    floor = np.broadcast_to(noise, image.shape)[y, x]
    light = expected[y, x]
    kept = np.zeros_like(mask)
    kept[y, x] = image[y, x] - light > GROW_SIGMA * np.sqrt(floor**2 + np.maximum(light, 0.0))
    return kept


def _median_of_five(values: np.ndarray) -> np.ndarray:
    """Running median of five samples along the second axis, by comparisons of shifted images."""
    a, b, c, d, e = (np.pad(values, ((0, 0), (2, 2)), mode="edge")[:, k : k + values.shape[1]] for k in range(5))
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.maximum(np.minimum(low, high), np.minimum(e, np.maximum(low, high)))


def narrowest(lsf: np.ndarray, alive: np.ndarray) -> float:
    """Width [px] (Gaussian sigma) that a line has at least: of the line-spread functions (nf, nx), all but the narrowest fifth."""
    return float(np.percentile(lsf[alive], 20))


def smooth_source(
    rest: np.ndarray, sigma: np.ndarray, good: np.ndarray, window: int = 41, lsf_sigma: float = LSF_SIGMA
) -> tuple[np.ndarray, np.ndarray]:
    """What the fibres hold beyond the sky: a running median (continuum) and lines, ``lsf_sigma`` [px] wide at least.

    Returns
    -------
    likely : (nf, nx), with everything that may be light: what stands above it is a cosmic ray
    sure : (nf, nx), the part of it that cannot be noise, for the weights of an extraction: a weight that follows the noise, if only
        that of a few neighbours, biases faint light low
    """
    filled = np.where(good, rest, 0.0).astype(np.float32)
    continuum = running_median(filled, window)
    continuum = uniform_filter1d(continuum, window // 2, axis=1, mode="nearest")
    # Emission lines: what a five-pixel median leaves and the noise cannot explain.
    line = _median_of_five(filled - continuum)
    noise = np.where(sigma > 0, sigma, np.inf)
    # The median clips a peak, by a quarter or (binned) by half: a Gaussian, its pixels' width included, stands by a fixed factor
    # above the geometric mean of its two neighbours.
    ratio = np.float32(np.exp(0.5 / (lsf_sigma**2 + 1 / 12)))
    sides = np.maximum(np.pad(filled - continuum, ((0, 0), (1, 1)), mode="edge"), 0)
    peak = ratio * np.sqrt(sides[:, :-2] * sides[:, 2:])
    line_noise, light = noise / np.sqrt(5) * 1.25, np.maximum(line, peak)
    seen = continuum > SURE * 1.25 * uniform_filter1d(sigma, window, axis=1, mode="nearest") / np.sqrt(window)
    sure = np.where(seen, continuum, 0.0) + np.where(line > SURE * line_noise, light, 0.0)
    return continuum + np.where(line > 2.0 * line_noise, light, 0.0), sure


def find_spikes(
    amplitude: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    predicted: np.ndarray,
    error: float = 0.03,
    lsf_sigma: float = LSF_SIGMA,
) -> np.ndarray:
    """Samples (nf, nx) bool above the prediction and narrower along dispersion than the line-spread function allows.

    ``error`` is the share by which the prediction itself may be wrong (sky lines of another width); ``lsf_sigma`` [px] is the
    width of the narrowest lines, see `narrowest`: samples as far from a peak as it tells are asked whether they belong to a line.
    """
    sigma = np.sqrt(np.maximum(variance, 1e-6) + (error * np.maximum(predicted, 0)) ** 2)
    rest = np.where(good, amplitude - predicted, 0.0)
    around = np.zeros_like(rest)
    near = int(np.clip(round(1.05 * lsf_sigma - 0.15), 1, 2))
    far = int(np.clip(round(1.58 * lsf_sigma - 0.15), near, 3))
    for step, both in ((near, False), (far, True)):
        left = np.pad(rest, ((0, 0), (step, 0)))[:, : rest.shape[1]]
        right = np.pad(rest, ((0, 0), (0, step)))[:, step:]
        around = np.maximum(around, np.minimum(left, right) if both else 0.5 * (left + right))
    return good & (rest > SPIKE_SIGMA * sigma) & (rest > SPIKE_RATIO * np.maximum(around, 0) + 4 * sigma)


def field_neighbours(positions: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Living fibres beside each one in the field, (nf, 6) int; -1 where there are fewer."""
    distance = np.hypot(*(positions[:, None, k] - positions[None, :, k] for k in (0, 1)))
    distance[np.arange(alive.size), np.arange(alive.size)] = np.inf
    distance[:, ~alive] = np.inf
    order = np.argsort(distance, axis=1)[:, :6]
    return np.where(np.take_along_axis(distance, order, 1) < NEIGHBOUR * LENSLET_PITCH, order, -1)


def find_lonely(
    excess: np.ndarray, sigma: np.ndarray, source: np.ndarray, good: np.ndarray, wavelength: np.ndarray, beside: np.ndarray
) -> np.ndarray:
    """Samples (nf, nx) bool with light that no fibre beside shares: tracks along dispersion, which look like emission lines.

    Whatever comes through the atmosphere falls on several lenslets.  Where the model has a source it is left to `find_spikes`.

    Parameters
    ----------
    excess : (nf, nx), over sky and source [e- per column]; sigma : its noise; source : light of the source's model
    wavelength : (nf, nx) [A]; beside : (nf, 6), see `field_neighbours`
    """
    f, x = np.nonzero(good & (excess > LONELY_SIGMA * sigma) & (source < sigma))
    nx = excess.shape[1]
    column = np.broadcast_to(x[:, None], (x.size, beside.shape[1]))
    near = beside[f]
    # The column of the same wavelength in the fibre beside, some pixels off.
    for _ in range(2):
        at = np.clip(column, 1, nx - 2)
        step = 0.5 * (wavelength[near, at + 1] - wavelength[near, at - 1])
        column = at + np.round((wavelength[f, x][:, None] - wavelength[near, at]) / step).astype(int)
    use = (near >= 0) & (column >= 0) & (column < nx)
    column = np.clip(column, 0, nx - 1)
    use &= good[near, column]
    count = use.sum(axis=1)
    mean = np.where(use, excess[near, column], 0.0).sum(axis=1) / np.maximum(count, 1)
    alone = (count >= 2) & (mean < LONELY_SHARE * excess[f, x])
    result = np.zeros(good.shape, bool)
    result[f[alone], x[alone]] = True
    return result


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
    light = np.maximum(expected[rows, columns], 0)
    # The uncertainty of the profile scales with the brightest pixel nearby.
    near = np.max([expected[np.clip(rows + k, 0, ny - 1), columns] for k in range(-2, 3)], axis=0)
    under = background[rows, columns]
    variance = floor[rows, columns] + light + np.maximum(under, 0) + (PROFILE_ERROR * np.maximum(near, 0)) ** 2
    hit = image[rows, columns] - under - expected[rows, columns] > GROW_SIGMA * np.sqrt(variance)
    result[rows[hit], columns[hit]] = True
    return result
