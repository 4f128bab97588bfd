"""From light on a detector to the numbers of an amplifier's file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift, zoom

from ..instrument import AMP_ROWS, N_COLUMNS, OVERSCAN
from .optics import N_ROWS, ChannelModel
from .streams import stream

ROTATED = ("LU", "RL")
"""Amplifiers whose files are turned by 180 degrees against the stacked image."""

FULL_SCALE = 65535
"""Largest number of the converter."""

POISSON_LIMIT = 60.0
"""Electrons above which a Gaussian stands for the Poisson distribution (skew below 0.13, at a fourth of the time)."""

DARK_CURRENT = 1e-4
"""Dark current [e-/s/px]."""

SCATTER_BIN = 16
"""Scattered light is so smooth that it is worked out on pixels of this many px."""

REFLECTION_SIGMA, REFLECTION_SHIFT = 70.0, (60.0, -90.0)
"""Width [px] of a reflection, and where it stands [px: rows, columns] beside the light turned about the middle of the chip."""


@dataclass(frozen=True)
class Amplifier:
    """One amplifier of the simulated instrument; images in the orientation of its files, unbinned.

    Attributes
    ----------
    name : str
    gain : float
        e-/ADU.
    read_noise : float
        e-.
    level : float
        Bias level [ADU].
    structure : ndarray (AMP_ROWS, N_COLUMNS) float32
        Bias against that level [ADU].
    hot : ndarray (n, 3)
        Row, column and rate [e-/s] of hot pixels.
    """

    name: str
    gain: float
    read_noise: float
    level: float
    structure: np.ndarray
    hot: np.ndarray


@lru_cache(maxsize=16)
def amplifier(seed: int, channel: str, name: str) -> Amplifier:
    """The truth of an amplifier; a seed decides everything."""
    rng = stream(seed, "amplifier", channel, name)
    x, y = np.linspace(-1, 1, N_COLUMNS), np.linspace(-1, 1, AMP_ROWS)[:, None]
    smooth = (
        rng.uniform(-2, 2) * x + rng.uniform(-2, 2) * y + rng.uniform(-1.5, 1.5) * x * y + rng.uniform(-2, 2) * y**2
    )
    smooth = smooth + rng.uniform(3, 8) * np.exp(-(x + 1) / rng.uniform(0.02, 0.08))
    columns = 0.4 * rng.standard_normal(N_COLUMNS) + 0.4 * gaussian_filter1d(rng.standard_normal(N_COLUMNS), 30) * 5
    structure = (smooth + columns).astype(np.float32)
    for _ in range(rng.integers(1, 3)):
        column, first = rng.integers(20, N_COLUMNS - 20), rng.integers(0, AMP_ROWS - 100)
        structure[first:, column] += rng.uniform(20, 120)
    n = rng.integers(15, 40)
    hot = np.column_stack([rng.integers(0, AMP_ROWS, n), rng.integers(0, N_COLUMNS, n), rng.lognormal(-1.5, 1.5, n)])
    return Amplifier(
        name, round(rng.uniform(0.82, 0.90), 3), round(rng.uniform(2.6, 3.4), 2), rng.uniform(850, 1350), structure, hot
    )


def render(
    model: ChannelModel, electrons: np.ndarray, trace: np.ndarray, keep: bool = False
) -> tuple[np.ndarray, list]:
    """Lay the light of all fibres on the detector, scattered light and pixel response included.

    Parameters
    ----------
    electrons : ndarray (N_FIBERS, N_COLUMNS)
        Electrons of each fibre in each column, the sum of its profile.
    trace : ndarray (N_FIBERS, N_COLUMNS)
        Rows of the fibres in this frame.
    keep : bool
        Keep the profiles for `ideal_variance`.

    Returns
    -------
    image : ndarray (N_ROWS, N_COLUMNS) float32
        Expected electrons in the stacked image.
    profiles : list of (first row, weights)
        Empty unless kept.
    """
    image = np.zeros((N_ROWS, N_COLUMNS), np.float32)
    profiles = []
    light = electrons.astype(np.float32)
    reach = model.profile.reach * model.scale.max(axis=1)
    for i, (t, s) in enumerate(zip(trace, model.scale, strict=True)):
        if not keep and not light[i].any():
            continue
        first = max(int(np.floor(t.min() - reach[i])), 0)
        last = min(int(np.ceil(t.max() + reach[i])) + 1, N_ROWS)
        weights = model.profile.weights(np.arange(first, last), t, s)
        if keep:
            profiles.append((first, weights))
        image[first:last] += weights * light[i]
    image += scattered(model, image)
    image *= model.pixel_flat
    return image, profiles


def scattered(model: ChannelModel, image: np.ndarray) -> np.ndarray:
    """Scattered light of an image: parts of it blurred over large distances, and a reflection, out of focus and off the centre."""
    b = SCATTER_BIN
    small = image.reshape(N_ROWS // b, b, N_COLUMNS // b, b).mean(axis=(1, 3))
    halo = sum(part * gaussian_filter(small, sigma / b, mode="constant") for part, sigma in model.scatter)
    if model.reflection:
        turned = gaussian_filter(small[::-1, ::-1], REFLECTION_SIGMA / b, mode="constant")
        halo = halo + model.reflection * shift(turned, np.divide(REFLECTION_SHIFT, b), order=1, mode="constant")
    return zoom(halo, b, order=1, mode="nearest", grid_mode=True).astype(np.float32)


def ideal_variance(
    model: ChannelModel, image: np.ndarray, profiles: list, read_noise: np.ndarray, binning: int = 1
) -> np.ndarray:
    """Variance [e-^2] of the electrons of each fibre and column in an ideal extraction, with profile and photons known.

    Parameters
    ----------
    image : ndarray (N_ROWS, N_COLUMNS)
        Expected electrons.
    read_noise : ndarray (N_ROWS, 1)
        Read noise [e-] of each row.
    binning : int
        Columns per read-out pixel.

    Returns
    -------
    ndarray (N_FIBERS, N_COLUMNS / binning)
        Infinite for no light can be told.
    """
    variance = _bin(image, binning) + read_noise.astype(np.float32) ** 2
    out = np.empty((len(profiles), variance.shape[1]))
    for i, (first, weights) in enumerate(profiles):
        rows = slice(first, first + weights.shape[0])
        seen = _bin(weights * model.pixel_flat[rows], binning) / binning
        out[i] = 1 / np.sum(seen**2 / variance[rows], axis=0)
    return out


def _bin(image: np.ndarray, binning: int) -> np.ndarray:
    return image if binning == 1 else image.reshape(image.shape[0], -1, binning).sum(axis=2)


def photons(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw counted electrons (float32) from expected ones."""
    out = image + np.sqrt(image) * rng.standard_normal(image.shape, dtype=np.float32)
    few = image < POISSON_LIMIT
    out[few] = rng.poisson(image[few])
    return np.rint(out, out=out)


def cosmic_rays(exptime: float, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks of cosmic rays on a stacked image.

    Most are straight, as long as random incidence on a thick detector makes them; some wander, as slow electrons do.

    Parameters
    ----------
    exptime : float
        Seconds.
    rate : float
        Events per second and amplifier.

    Returns
    -------
    row, column : ndarray (n,) of int
    electrons : ndarray (n,) float32
        Electrons left in each pixel.
    """
    n = rng.poisson(2 * rate * exptime)
    # isotropic flux through a horizontal detector: tan of the angle from cos^2
    angle = np.arccos(np.sqrt(rng.uniform(0.01, 1, n)))
    length = np.clip(rng.uniform(1.5, 6.0, n) * np.tan(angle), 0.3, 120)
    worm = rng.uniform(size=n) < 0.15
    length[worm] = rng.uniform(5, 40, worm.sum())
    energy = rng.lognormal(np.log(1200), 0.7, n)
    steps = np.maximum((length / 0.1).astype(int), 3)
    ray = np.repeat(np.arange(n), steps)
    heading = np.repeat(rng.uniform(0, 2 * np.pi, n), steps)
    along = np.arange(ray.size) - np.repeat(np.cumsum(steps) - steps, steps)
    wander = np.cumsum(rng.standard_normal(ray.size)) * 0.12
    start = np.cumsum(steps) - steps
    base = np.repeat(wander[start], steps) if n else wander
    heading = heading + np.where(worm[ray], wander - base, 0.0)
    move = np.repeat(length / steps, steps)
    xs, ys = np.cumsum(move * np.cos(heading)), np.cumsum(move * np.sin(heading))
    row = np.repeat(rng.uniform(0, N_ROWS, n), steps) + ys - (np.repeat(ys[start], steps) if n else ys)
    column = np.repeat(rng.uniform(0, N_COLUMNS, n), steps) + xs - (np.repeat(xs[start], steps) if n else xs)
    # charge spreads on its way to the electrodes
    spread = 0.35
    copies = 6
    row = np.repeat(row, copies) + spread * rng.standard_normal(ray.size * copies)
    column = np.repeat(column, copies) + spread * rng.standard_normal(ray.size * copies)
    charge = np.repeat(energy[ray] * move * rng.gamma(4, 0.25, ray.size), copies) / copies
    r, c = np.rint(row).astype(int), np.rint(column).astype(int)
    inside = (r >= 0) & (r < N_ROWS) & (c >= 0) & (c < N_COLUMNS) & (along.repeat(copies) >= 0)
    pixel, where = np.unique(r[inside] * N_COLUMNS + c[inside], return_inverse=True)
    total = np.bincount(where.ravel(), charge[inside], minlength=pixel.size)
    keep = total > 1
    return pixel[keep] // N_COLUMNS, pixel[keep] % N_COLUMNS, total[keep].astype(np.float32)


def read_out(electrons: np.ndarray | None, amp: Amplifier, exptime: float, rng: np.random.Generator, binning: int = 1,
             mirrored: bool = False, row_jitter: float = 0.0, ramp: float = 0.0) -> np.ndarray:  # fmt: skip
    """Read one amplifier.

    Parameters
    ----------
    electrons : ndarray (AMP_ROWS, N_COLUMNS) or None
        Counted electrons, in the orientation of the stacked image; None for a bias.
    exptime : float
        Dark time [s].
    binning : int
        Columns per pixel.
    mirrored : bool
        Store the columns in reverse order (AMPNAME of LR or UL).
    row_jitter : float
        Scatter [ADU] of the rows' levels, from row to row; besides, the level drifts slowly.
    ramp : float
        Scatter [ADU] from frame to frame of how much the level rises from the middle of the rows to their end.

    Returns
    -------
    ndarray (AMP_ROWS, (N_COLUMNS + OVERSCAN) / binning) uint16
    """
    dark = DARK_CURRENT * exptime
    charge = np.zeros((AMP_ROWS, N_COLUMNS), np.float32)
    if electrons is not None:
        charge += electrons[::-1, ::-1] if amp.name in ROTATED else electrons
    if dark > 0:
        charge += rng.poisson(dark, charge.shape)
        rows, columns = amp.hot[:, 0].astype(int), amp.hot[:, 1].astype(int)
        np.add.at(charge, (rows, columns), rng.poisson(amp.hot[:, 2] * exptime))
    if mirrored:
        charge = charge[:, ::-1]
    columns, over = N_COLUMNS // binning, OVERSCAN // binning
    frame = np.empty((AMP_ROWS, columns + over), np.float32)
    frame[:, :columns] = _bin(charge, binning) / amp.gain
    # what the last columns did not hand on in time appears in the first of the overscan
    last = frame[:, columns - 1]
    frame[:, columns:] = 0
    frame[:, columns] = 6 + 4e-3 * last
    frame[:, columns + 1] = 0.8 + 5e-4 * last
    frame[:, :columns] += (1 + 0.01 * rng.standard_normal()) * _bin(amp.structure, binning) / binning
    if ramp:
        frame[:, :columns] += np.float32(ramp * rng.standard_normal()) * np.linspace(-1, 1, columns, dtype=np.float32)
    drift = gaussian_filter1d(np.cumsum(rng.standard_normal(AMP_ROWS)), 3) * 0.05
    drift += row_jitter * rng.standard_normal(AMP_ROWS)
    frame += (amp.level + 1.5 * rng.standard_normal() + drift - drift.mean()).astype(np.float32)[:, None]
    frame += np.float32(amp.read_noise / amp.gain) * rng.standard_normal(frame.shape, dtype=np.float32)
    return np.clip(np.rint(frame), 0, FULL_SCALE).astype(np.uint16)
