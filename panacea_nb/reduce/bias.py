"""Master bias and dark: averaged, then freed of their own noise where there is no structure to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter

from ..errors import PanaceaError
from ..instrument import AMP_ROWS
from .arrays import FAST, enlarged
from .ccd import ChannelImage
from .rowwander import row_wander

KEEP_SIGMA = 6.0  # a pixel this far off the smooth bias is a defect that every frame shares, not noise
SMOOTH_PIXELS = 24.0  # scale of two-dimensional bias structure that is kept
DARK_PIXELS = 40.0  # scale of dark structure that is kept: glow
HOT_DARK = 0.05  # e-/s; a pixel above leaves more than the read noise in a minute


class TooFewFramesError(PanaceaError):
    """A master frame cannot be made from so few frames."""


@dataclass(frozen=True)
class MasterBias:
    """Attributes
    ----------
    data : (ny, nx) float32 [e-], the denoised bias
    average : (ny, nx) float32 [e-], the plain clipped mean
    rdnoise : (2,) float [e-], measured read noise of the bottom and top amplifier
    bad : (ny, nx) bool, pixels whose noise or level cannot be trusted
    n_frames : int
    drift : (n_frames, 2) float [e-], mean level of each frame and amplifier against the master
    wander : (2, 3) float, how the rows of a frame wander about the master in each amplifier, which the overscan does not know:
        `rowwander.row_wander`
    """

    data: np.ndarray
    average: np.ndarray
    rdnoise: np.ndarray
    bad: np.ndarray
    n_frames: int
    drift: np.ndarray
    wander: np.ndarray


def clipped_mean(frames: np.ndarray, sigma: np.ndarray | float, clip: float = 5.0) -> np.ndarray:
    """Mean over the first axis without values more than ``clip`` sigma off the mean without the extremes."""
    n = frames.shape[0]
    if n < 3:
        return np.median(frames, axis=0)
    centre = (frames.sum(axis=0) - frames.max(axis=0) - frames.min(axis=0)) / (n - 2)
    good = np.abs(frames - centre) <= clip * sigma
    count = good.sum(axis=0)
    return np.where(count > 0, np.where(good, frames, 0).sum(axis=0) / np.maximum(count, 1), centre)


@njit(cache=True, fastmath=FAST)
def average_row(frames, limit, average, scatter):
    """`clipped_mean` of a row (n, nx) of at least three frames and their RMS about it, into ``average`` and ``scatter`` (nx,)."""
    n, nx = frames.shape
    total, low, high = np.zeros(nx, np.float32), frames[0].copy(), frames[0].copy()
    for i in range(n):
        row = frames[i]
        for x in range(nx):
            total[x] += row[x]
            low[x] = min(low[x], row[x])
            high[x] = max(high[x], row[x])
    some, count = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for x in range(nx):
        total[x] = (total[x] - low[x] - high[x]) / np.float32(n - 2)
    for i in range(n):
        row = frames[i]
        for x in range(nx):
            good = abs(row[x] - total[x]) <= limit
            some[x] += row[x] if good else zero
            count[x] += one if good else zero
    for x in range(nx):
        average[x] = some[x] / max(count[x], one) if count[x] > zero else total[x]
        scatter[x] = zero
    for i in range(n):
        row = frames[i]
        for x in range(nx):
            scatter[x] += (row[x] - average[x]) * (row[x] - average[x])
    for x in range(nx):
        scatter[x] = np.sqrt(scatter[x] / np.float32(n - 1))


def halves(n_rows: int) -> tuple[slice, slice]:
    """Rows of the bottom and of the top amplifier."""
    return slice(0, AMP_ROWS), slice(AMP_ROWS, n_rows)


def smooth_structure(image: np.ndarray, noise: float, scale: float = SMOOTH_PIXELS) -> np.ndarray:
    """What changes slowly over an amplifier's image (ny, nx), single pixels clipped at three sigma about their surroundings."""
    step = 8
    height, width = (n // step for n in image.shape)
    blocks = image[: height * step, : width * step].reshape(height, step, width, step).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(height, width, step * step)
    middle = np.median(blocks, axis=2, keepdims=True)
    small = (middle + np.clip(blocks - middle, -3 * noise, 3 * noise)).mean(axis=2)
    small = gaussian_filter(small, scale / step, mode="nearest")
    return enlarged(small, image.shape)


def denoise(average: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Rows + columns + smooth structure of each amplifier, and the single pixels that stand out.

    Parameters
    ----------
    average : (ny, nx) [e-]
    sigma : (2,)
        Noise of ``average`` in each amplifier.
    """
    result = np.empty_like(average, dtype=np.float32)
    for rows, noise in zip(halves(average.shape[0]), sigma, strict=True):
        image = average[rows].astype(np.float32)
        row = image.mean(axis=1, keepdims=True) if noise <= 0 else _clipped_mean(image, noise, axis=1)
        column = _clipped_mean(image - row, noise, axis=0)
        rest = image - row - column
        model = row + column + smooth_structure(rest, noise)
        keep = np.abs(image - model) > KEEP_SIGMA * noise
        result[rows] = np.where(keep, image, model)
    return result


def _clipped_mean(image: np.ndarray, noise: float, axis: int) -> np.ndarray:
    """Mean along an axis without pixels more than four sigma off the median (a median has 1.25 times the noise of a mean)."""
    middle = np.median(image, axis=axis, keepdims=True)
    good = np.abs(image - middle) < 4 * noise
    return np.where(good, image, 0).sum(axis=axis, keepdims=True) / np.maximum(good.sum(axis=axis, keepdims=True), 1)


def master_bias(frames: Sequence[ChannelImage]) -> MasterBias:
    """Combine bias frames.

    The read noise of each amplifier is the scatter of the frames about their mean; pixels whose own scatter is four times as
    large are bad.

    Raises
    ------
    TooFewFramesError
        With fewer than 3 frames.
    """
    if len(frames) < 3:
        raise TooFewFramesError(
            f"only {len(frames)} bias frame{'s' if len(frames) != 1 else ''} can be used for the master bias, 3 are needed: "
            "name one night that has 3 or more with --cal-date zro=YYYYMMDD"
        )
    n, (ny, nx) = len(frames), frames[0].data.shape
    both = halves(ny)
    level = np.array([[np.median(f.data[rows, ::7]) for rows in both] for f in frames])
    centre = np.median(level, axis=0)
    # Two rounds: a median deviation starts it, the clipped mean square (which integers do not coarsen) settles it.
    noise = np.empty(2)
    for k, rows in enumerate(both):
        part = np.stack([f.data[rows, ::9] - np.float32(level[i, k] - centre[k]) for i, f in enumerate(frames)])
        some = part[:, ::4]  # a limit of five sigma need not be known better
        first = max(_clipped_rms(some - np.median(some, axis=0)), 0.3)
        noise[k] = _clipped_rms(part - clipped_mean(part, first)) * np.sqrt(n / (n - 1))
    average, scatter = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    row_level = np.empty((n, ny))
    offset = (level - centre).astype(np.float32)
    for y in range(ny):  # a row of all frames at a time: it stays in the processor's memory
        k = int(y >= AMP_ROWS)
        limit = np.float32(5.0 * noise[k])
        stacked = np.stack([f.data[y] for f in frames]) - offset[:, k, None]
        average_row(stacked, limit, average[y], scatter[y])
        row_level[:, y] = np.clip(stacked - average[y], -limit, limit).mean(axis=1)
    bad = scatter > 4.0 * np.repeat(noise, AMP_ROWS)[:, None]
    wander = np.array([row_wander(row_level[:, rows], sigma, nx) for rows, sigma in zip(both, noise, strict=True)])
    return MasterBias(denoise(average, noise / np.sqrt(n)), average, noise, bad, n, level - centre, wander)


def _clipped_rms(deviation: np.ndarray) -> float:
    """RMS of what lies within five sigma."""
    sigma = 1.4826 * float(np.median(np.abs(deviation[..., ::4]))) + 0.3
    for _ in range(3):
        sigma = float(np.sqrt(np.mean(np.square(deviation[np.abs(deviation) < 5 * sigma]))))
    return sigma


@dataclass(frozen=True)
class MasterDark:
    """Attributes
    ----------
    rate : (ny, nx) float32 [e-/s], denoised
    hot : (ny, nx) bool
    exposure : float, summed dark time [s]; 0 when there was no dark
    """

    rate: np.ndarray
    hot: np.ndarray
    exposure: float


def master_dark(frames: Sequence[ChannelImage], times: Sequence[float], bias: MasterBias) -> MasterDark:
    """Dark rate from bias-subtracted dark frames of the given dark times [s]; zero without any."""
    shape = bias.data.shape
    total = float(sum(times))
    if not frames or total <= 0:
        return MasterDark(np.zeros(shape, np.float32), np.zeros(shape, bool), 0.0)
    scaled = np.stack([(f.data - bias.data) / np.float32(t) for f, t in zip(frames, times, strict=True)])
    noise = bias.rdnoise / np.sqrt(len(frames)) / (total / len(frames))
    # Cosmic rays fill a dark: the median of three or more frames, else the lower of two.
    if len(frames) >= 3:
        average = np.median(scaled, axis=0)
    else:
        # The lower of two values lies 0.564 sigma below their mean.
        single = np.repeat(noise, AMP_ROWS)[:, None] * np.sqrt(len(frames))
        average = scaled.min(axis=0) + (0.564 * single if len(frames) == 2 else 0.0)
    rate = np.zeros(shape, np.float32)
    hot = np.zeros(shape, bool)
    for rows, sigma in zip(halves(shape[0]), noise, strict=True):
        # Rows and columns of a dark are noise of its overscan: charge builds up in pixels, smoothly but for hot ones.
        slow = np.maximum(
            smooth_structure(average[rows] - np.median(average[rows]), sigma, DARK_PIXELS) + np.median(average[rows]),
            0.0,
        )
        single = average[rows] - slow
        warm = single > max(KEEP_SIGMA * sigma, HOT_DARK / 4)
        rate[rows] = np.where(warm, average[rows], np.where(slow > 2 * level_error(bias, times), slow, 0.0))
        hot[rows] = single > max(HOT_DARK, 8 * sigma)
    return MasterDark(rate, hot, total)


def level_error(bias: MasterBias, times: Sequence[float]) -> float:
    """Uncertainty [e-/s] of the level of a mean dark: the bias itself moves by about a tenth of the read noise."""
    return 0.1 * float(bias.rdnoise.mean()) / np.sqrt(len(times)) / (float(sum(times)) / len(times))


def subtract(image: ChannelImage, bias: MasterBias, dark: MasterDark, dark_time: float) -> ChannelImage:
    """Take bias and dark off an image; hot and bad pixels are marked by the caller's mask of the calibration."""
    data = image.data - bias.data
    if dark.exposure > 0 and dark_time > 0:
        data -= np.float32(dark_time) * dark.rate
    return ChannelImage(data, image.mask, image.rdnoise, image.decisions)


def average_images(images: Sequence[np.ndarray], *, clip: float = 6.0, gain_noise: float = 1.0) -> np.ndarray:
    """Mean of frames of different brightness, scaled to their mean level, without cosmic rays.

    Parameters
    ----------
    images : sequence of (ny, nx) [e-]
    clip : float
        Deviation from the median over frames, in Poisson sigma, beyond which a pixel of a frame is left out.
    gain_noise : float
        Read noise [e-] taken with the Poisson noise.
    """
    if len(images) == 1:
        return np.asarray(images[0], dtype=np.float32)
    level = np.array([np.percentile(i[::9, ::9], 75) for i in images])
    mean = level.mean()
    cube = np.stack([np.asarray(i, np.float32) * np.float32(mean / v) for i, v in zip(images, level, strict=True)])
    middle = np.median(cube, axis=0) if len(images) > 2 else cube.min(axis=0)
    # Bright frames weigh by their photons: the sum of the raw frames, with outliers replaced by the scaled median.
    total = np.zeros_like(middle)
    light = np.maximum(middle, 0)
    # Of unlike frames the median, or the lower one, may be a faint one, with a faint one's noise.
    typical = float(np.median(mean / level) if len(images) > 2 else np.max(mean / level))
    own = (light * typical + (gain_noise * typical) ** 2) * (0.5 * np.pi / len(images) if len(images) > 2 else 1.0)
    own += (0.03 * middle) ** 2
    for frame, v in zip(cube, level, strict=True):
        scale = float(mean / v)
        sigma = np.sqrt(light * scale + (gain_noise * scale) ** 2 + own)
        good = np.abs(frame - middle) <= clip * sigma
        total += np.where(good, frame, middle) * np.float32(v)
    return total / np.float32(level.sum())
