"""Pixel flat and fibre-to-fibre throughput from twilights and internal flats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.interpolate import BSpline
from scipy.ndimage import binary_dilation, gaussian_filter1d

from .arrays import FAST, plain
from .extract import Extraction, FiberModel
from .spline import CommonSpectrum, fit_common

KNOT_PIXELS = 1.0  # knots of a common spectrum, in native pixels
LAMP_KNOTS = 2.0  # of a lamp with a continuum: nothing narrower than the line-spread function, so that columns are told from it
THROUGHPUT_KNOTS = 14  # intervals of the smooth throughput of a fibre over the chip
PIXEL_SCATTER = 0.015  # prior of the pixel-to-pixel response
SMOOTH_COLUMNS = (
    20.0  # px along dispersion; slower structure belongs to the throughput or to the profile, not to pixels
)
LEAST_USED = 0.25  # share of a sample's profile weight that must not be masked
WING_ERROR = 0.03  # of the light, that a profile's wings tell it wrong by
STIFFNESS = 1e-4  # of a row's mean weight per spline: decides only where there is next to none
FAINT = 1e-4  # of the median light: less tells nothing of a throughput
BACKGROUND_ERROR = 0.2  # of the scattered light, that its model may be wrong by
LEAST_SMOOTH = 0.2  # of the expected light, that the running mean of a row is taken to be at least
PLAUSIBLE_PIXEL = (0.6, 1.4)  # response outside is a defect, not a flat
MIN_SIGNAL = 0.02  # of the column's peak light; below, the flat of a pixel cannot be told from 1


@dataclass(frozen=True)
class Throughput:
    """Attributes
    ----------
    relative : (nf, nx) float64, throughput of each fibre; 1 for the average fibre at each wavelength
    spectrum : CommonSpectrum, the lamp or twilight [e-/A for the average fibre]
    residual : (nf, nx) float32, (measured - model) / model
    scatter : (nf,) float, robust RMS of the residual about zero, in its expected noise
    """

    relative: np.ndarray
    spectrum: CommonSpectrum
    residual: np.ndarray
    scatter: np.ndarray


def reference_variance(wavelength: np.ndarray, lsf: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Line variance [A^2] of each sample beyond that of the reference width, and the reference's sigma [A] on the same samples.

    The reference is the 20th percentile over fibres as a smooth function of wavelength: a spline there is rarely asked to be
    sharper than it is.
    """
    sigma = lsf * np.gradient(wavelength, axis=1)
    centre = np.median(wavelength[alive], axis=0)
    low = np.percentile(sigma[alive], 20, axis=0)
    fit = np.polynomial.Polynomial.fit(centre, low, 3)
    reference = fit(np.clip(wavelength, centre[0], centre[-1]))
    return sigma**2 - reference**2, reference


def smooth_design(n: int, intervals: int) -> np.ndarray:
    """Cubic B-splines (n, intervals + 3) on even intervals over n columns."""
    x = np.arange(n)
    inner = np.linspace(-0.5, n - 0.5, intervals + 1)
    step = inner[1] - inner[0]
    knots = np.concatenate([inner[0] + step * np.arange(-3, 0), inner, inner[-1] + step * np.arange(1, 4)])
    return BSpline.design_matrix(x, knots, 3).toarray()


def smooth_rows(values: np.ndarray, weight: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Weighted least-squares fit of each row of ``values`` (nf, nx) with the splines of ``design`` (nx, m).

    Where a row has no weight over several knots it goes on straight, and towards its mean.
    """
    m = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(design.shape[0], m * m)
    normal = (weight @ products).reshape(-1, m, m)
    total = weight.sum(axis=1, keepdims=True)
    mean = np.divide((weight * values).sum(axis=1, keepdims=True), total, out=np.zeros(total.shape), where=total > 0)
    rhs = (weight * np.where(weight > 0, values - mean, 0.0)) @ design
    bend = np.diff(np.eye(m), 2, axis=0)
    stiff = STIFFNESS * (np.einsum("fii->f", normal) / m + 1e-30)
    normal += stiff[:, None, None] * (bend.T @ bend + 1e-4 * np.eye(m))
    return mean + np.linalg.solve(normal, rhs[..., None])[..., 0] @ design.T


def knot_step(wavelength: np.ndarray, pixels: float = KNOT_PIXELS) -> float:
    """Distance of knots [A] for a common spectrum of this wavelength map, where it is ``pixels`` native pixels."""
    return pixels * float(np.median(np.diff(wavelength[wavelength.shape[0] // 2])))


def flat_samples(spectra: Extraction, n_frames: int, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amplitude, variance and whether it may be used, each (nf, nx), of a mean of ``n_frames`` flats.

    Where a flat is so bright that the middle of the fibres is saturated, their wings still tell the light, as well as the profile
    is known.
    """
    doubt = WING_ERROR * (1.0 - spectra.used) * spectra.amplitude
    good = (spectra.used > LEAST_USED) & alive[:, None]
    return spectra.amplitude, spectra.variance / n_frames + doubt**2, good


def measure_throughput(
    amplitude: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    wavelength: np.ndarray,
    lsf: np.ndarray,
    alive: np.ndarray,
    *,
    rounds: int = 4,
    intervals: int = THROUGHPUT_KNOTS,
    knots: float = KNOT_PIXELS,
) -> Throughput:
    """Split the spectra of a uniformly lit frame into one common spectrum and a smooth throughput of each fibre.

    Parameters
    ----------
    amplitude, variance : (nf, nx) [e-]
    good : (nf, nx) bool
    wavelength : (nf, nx) [A]; lsf : (nf, nx) sigma [px]
    alive : (nf,) bool
    intervals : of the smooth throughput over the chip
    knots : distance of the common spectrum's knots [native pixels]
    """
    nf, nx = amplitude.shape
    dispersion = np.gradient(wavelength, axis=1)
    extra, _ = reference_variance(wavelength, lsf, alive)
    use = good & alive[:, None] & (variance > 0)
    level = np.array([np.median(amplitude[f][use[f]]) if use[f].any() else 0.0 for f in range(nf)])
    relative = np.repeat((level / np.median(level[alive]))[:, None], nx, axis=1)
    relative[~alive] = 1.0
    design = smooth_design(nx, intervals)
    step = knot_step(wavelength, knots)
    limits = float(wavelength.min()), float(wavelength.max())
    spectrum = None
    model = np.ones_like(amplitude, dtype=float)
    for turn in range(rounds):
        factor = relative * dispersion
        floor = (0.002 * np.abs(amplitude)) ** 2
        weight = np.where(use, 1.0 / (variance + floor + 1e-12), 0.0)
        spectrum = fit_common(wavelength, amplitude, weight, step=step, factor=factor, extra=extra, limits=limits)
        model = spectrum(wavelength, extra) * dispersion
        least = FAINT * np.median(model[alive])
        positive = np.maximum(model, least)
        ratio = amplitude / positive
        w = np.where(use & (model > least), positive**2 / (variance + floor + 1e-12), 0.0)
        rest = np.abs(ratio - relative) * np.sqrt(w)
        if turn:
            w = np.where(rest > 5, 0.0, w)
            use = use & ((rest < 8) | (w == 0))
        relative = smooth_rows(ratio, w, design)
        relative[~alive] = 1.0
        relative = np.clip(relative, 0.02, 5.0)
        relative /= fiber_mean(relative, wavelength, alive)
    residual = np.where(good & alive[:, None], amplitude / (relative * np.maximum(model, 1e-6)) - 1.0, 0.0).astype(
        np.float32
    )
    noise = np.sqrt(np.maximum(variance, 1e-12)) / np.maximum(relative * model, 1e-6)
    scatter = np.array(
        [1.4826 * np.median(np.abs(residual[f][use[f]] / noise[f][use[f]])) if use[f].any() else 0.0 for f in range(nf)]
    )
    return Throughput(relative, spectrum, residual, scatter)


def fiber_mean(relative: np.ndarray, wavelength: np.ndarray, alive: np.ndarray, n_nodes: int = 48) -> np.ndarray:
    """Mean over fibres of a smooth quantity at each sample's *wavelength* (nf, nx): the average fibre is 1 at every wavelength."""
    low = float(np.max(wavelength[alive, 0]))
    high = float(np.min(wavelength[alive, -1]))
    nodes = np.linspace(low, high, n_nodes)
    at = np.stack([np.interp(nodes, wavelength[f], relative[f]) for f in np.flatnonzero(alive)])
    # A clipped mean: one half-dead fibre must not set the scale of the others.
    middle = np.median(at, axis=0)
    spread = 1.4826 * np.median(np.abs(at - middle), axis=0) + 1e-3
    keep = np.abs(at - middle) < 4 * spread
    mean = np.where(keep, at, 0).sum(axis=0) / np.maximum(keep.sum(axis=0), 1)
    fit = np.polynomial.Polynomial.fit(nodes, mean, 5)
    return fit(np.clip(wavelength, low, high))


@dataclass(frozen=True)
class PixelFlat:
    """Attributes
    ----------
    data : (ny, nx) float32, response of each pixel relative to its surroundings; 1 where it could not be measured
    defects : (ny, nx) bool, response beyond what a flat may correct
    scatter : float, robust RMS of the measured response
    error : (nx,) float32, relative error that is left in the response of a pixel, by column, the pixels weighted with their light
    """

    data: np.ndarray
    defects: np.ndarray
    scatter: float
    error: np.ndarray


def pixel_flat(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    background: np.ndarray,
    model: FiberModel,
    throughput: Throughput,
    wavelength: np.ndarray,
    lsf: np.ndarray,
    n_frames: int,
) -> PixelFlat:
    """Response of single pixels from a lamp or twilight frame.

    The frame is divided by the image that the fibres would make with the *common* spectrum (super-sampled over all fibres, so
    the lamp's own structure is in it) times their smooth throughput.  What changes slowly along dispersion is taken out: it
    belongs to the profile or the throughput.  The rest is shrunk by its own noise: towards what its column of the amplifier has in
    common, which a thousand pixels show (`_common_to_columns`), and that towards 1.

    Parameters
    ----------
    image : (ny, nx) [e-], mean of ``n_frames`` frames
    background : (ny, nx) [e-], scattered light
    """
    extra, _ = reference_variance(wavelength, lsf, model.alive)
    amplitude = throughput.relative * throughput.spectrum(wavelength, extra) * np.gradient(wavelength, axis=1)
    amplitude = np.where(model.alive[:, None], np.maximum(amplitude, 0), 0)
    expected = model.image(amplitude, image.shape[0])
    peak = gaussian_filter1d(np.max(expected, axis=0), 25)[None, :]
    lit = (expected > MIN_SIGNAL * peak) & (expected > 20) & ~bad
    ratio = np.where(lit, (image - background) / np.maximum(expected, 1e-6), 1.0)
    floor = np.asarray(noise, np.float32) ** 2
    variance = (np.maximum(expected + background, 1) + floor) / n_frames / np.maximum(expected, 1e-6) ** 2
    sane = lit & (ratio > 0.3) & (ratio < 1.8)
    w = np.where(sane, 1.0 / (variance + PIXEL_SCATTER**2), 0.0).astype(np.float32)
    slow = _along_columns(ratio, w)
    # A dust spot must not pull the smooth level of its surroundings: what stands out is left out of it.
    spots = np.abs(ratio / np.maximum(slow, LEAST_SMOOTH) - 1.0) > 4 * np.sqrt(variance + PIXEL_SCATTER**2)
    slow = _along_columns(ratio, np.where(binary_dilation(spots, iterations=2), 0, w))
    # Where not even the smooth light is as expected - wings of profiles on scattered light, at the ends of the chip - a pixel's
    # response cannot be told from what the model is wrong by.
    lit &= (slow > PLAUSIBLE_PIXEL[0]) & (slow < PLAUSIBLE_PIXEL[1])
    deviation = np.where(lit, ratio / np.maximum(slow, LEAST_SMOOTH) - 1.0, 0.0)
    defects = lit & ((1 + deviation < PLAUSIBLE_PIXEL[0]) | (1 + deviation > PLAUSIBLE_PIXEL[1]))
    # A pixel is not blamed for what the scattered light under the wings of a profile may be wrong by.
    doubt = (BACKGROUND_ERROR * np.where(lit, background / np.maximum(expected, 1e-6), 0.0)) ** 2
    defects &= np.abs(deviation) > 8 * np.sqrt(variance + doubt)
    common = _common_to_columns(deviation, np.where(sane & ~spots & ~defects, w, 0))
    rest = deviation - common
    bright = lit & (variance < PIXEL_SCATTER**2) & ~defects
    if bright.sum() > 1000:
        measured = (1.4826 * np.median(np.abs(rest[bright]))) ** 2 - np.median(variance[bright])
        prior = float(np.clip(measured, 0.001**2, 0.03**2))
    else:
        prior = PIXEL_SCATTER**2
    keep = prior / (prior + variance)
    # A spot far off its surroundings is real whatever the typical scatter is.
    keep = np.where(np.abs(rest) > 5 * np.sqrt(variance + prior + doubt), 1.0, keep)
    data = np.where(lit & ~defects, 1.0 + common + keep * rest, 1.0).astype(np.float32)
    # Too far off for a flat, not sure enough for a defect: it stays undivided.
    data[(data < PLAUSIBLE_PIXEL[0]) | (data > PLAUSIBLE_PIXEL[1])] = 1.0
    left = np.where(sane, prior / (prior + variance) * variance, 0.0)
    light = np.where(sane, expected.astype(np.float32) ** 2, 0.0)
    total = gaussian_filter1d(light.sum(axis=0), SMOOTH_COLUMNS)
    error = np.sqrt(gaussian_filter1d((light * left).sum(axis=0), SMOOTH_COLUMNS) / np.maximum(total, 1e-30))
    return PixelFlat(data, defects, float(np.sqrt(prior)), error.astype(np.float32))


def _common_to_columns(deviation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What the pixels of each column have in common in each amplifier's half, (ny, nx), shrunk by its own noise.

    Widths of columns differ by the steps of the mask they were written with.  Wavelengths move by some pixels from column to column
    over the fibres, so the lamp's spectrum does not take this for its own.
    """
    half = deviation.shape[0] // 2
    common = np.zeros_like(deviation)
    for rows in (slice(0, half), slice(half, None)):
        w, d = weight[rows], deviation[rows]
        total = w.sum(axis=0, dtype=float)
        seen = total > 0.1 * np.median(total)
        mean = np.divide((w * d).sum(axis=0, dtype=float), total, out=np.zeros(total.shape), where=seen)
        scatter = np.divide((w * (d - mean) ** 2).sum(axis=0), total, out=np.zeros(total.shape), where=seen)
        variance = scatter * np.divide((w.astype(float) ** 2).sum(axis=0), total**2, out=np.ones(total.shape), where=seen)
        if seen.any():
            prior = max((1.4826 * np.median(np.abs(mean[seen]))) ** 2 - np.median(variance[seen]), 0.0)
            common[rows] = np.where(seen, mean * prior / (prior + variance + 1e-12), 0.0)
    return common


def _along_columns(ratio: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted running mean of ``ratio`` along dispersion; 1 where there is nothing to average."""
    kernel = gaussian_kernel(SMOOTH_COLUMNS)
    weight = plain(weight, np.float32)
    top = convolved_rows(weight * plain(ratio, np.float32), kernel)
    bottom = convolved_rows(weight, kernel)
    enough = bottom > 1e-3 * bottom.max() if bottom.size else bottom > 0
    return np.divide(top, bottom, out=np.ones_like(top), where=enough & (bottom > 0))


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Weights (2 n + 1,) float32 of a Gaussian cut off at four sigma [px]; they sum to one."""
    reach = int(4.0 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (kernel / kernel.sum()).astype(np.float32)


def convolved_rows(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each row of ``image`` (ny, nx) float32 convolved with a symmetric kernel; the ends are continued by their last values."""
    out = np.zeros(image.shape, np.float32)
    _convolve(plain(image, np.float32), plain(kernel, np.float32), out)
    return out


@njit(cache=True, fastmath=FAST)
def _convolve(image, kernel, out):
    ny, nx = image.shape
    reach = kernel.size // 2
    padded = np.zeros(nx + 2 * reach, np.float32)
    for y in range(ny):
        padded[:reach], padded[reach : reach + nx], padded[reach + nx :] = image[y, 0], image[y], image[y, nx - 1]
        row = out[y]
        for k in range(reach):
            left, right, w = padded[k : k + nx], padded[2 * reach - k : 2 * reach - k + nx], kernel[k]
            for x in range(nx):
                row[x] += w * (left[x] + right[x])
        for x in range(nx):
            row[x] += kernel[reach] * image[y, x]
