"""Spectra of any sharpness, and how a fibre with its own line-spread function and pixels sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import erf

FINE_STEPS = 10
"""Points per detector pixel of a spectrum that is to be blurred."""

LSF_WING_RATIO = 2.0
"""Width of the line-spread function's wings over that of its core."""

LINE_REACH = 7.0
"""Widths (sigma) on either side of a line's centre where its light is laid down."""


@dataclass
class Spectrum:
    """A continuum on an even fine grid, plus narrow lines.

    Attributes
    ----------
    start, step : float
        Grid of the continuum [A, air].
    continuum : ndarray (n,)
        Flux density.
    lines : ndarray (m, 3)
        Wavelength [A, air], flux (flux density times A) and intrinsic sigma [A] of each line.
    """

    start: float
    step: float
    continuum: np.ndarray
    lines: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def wave(self) -> np.ndarray:
        """Wavelengths (n,) of the continuum."""
        return self.start + self.step * np.arange(self.continuum.size)

    def scaled(self, continuum: float, lines: float | None = None) -> Spectrum:
        """The same spectrum with its continuum, and its lines, multiplied by a factor each."""
        factor = np.array([1.0, continuum if lines is None else lines, 1.0])
        return Spectrum(self.start, self.step, self.continuum * continuum, self.lines * factor)

    def smooth(self, sigma: float) -> np.ndarray:
        """Continuum and lines (n,) on the fine grid, blurred by a Gaussian of one sigma [A]."""
        out = gaussian_filter1d(self.continuum, sigma / self.step, mode="nearest", truncate=5)
        for wave, flux, own in self.lines:
            s = np.hypot(sigma, own)
            out += flux * np.exp(-0.5 * ((self.wave - wave) / s) ** 2) / (s * np.sqrt(2 * np.pi))
        return out


@dataclass
class Pixels:
    """Where samples of many fibres lie, and how sharp they are.

    Attributes
    ----------
    low, high : ndarray (f, n)
        Wavelengths [A] of the lower and upper border of each pixel, rising along the second axis.
    sigma : ndarray (f, n)
        Core sigma [A] of the line-spread function.
    wing : float
        Part of a line's light in the wings.
    """

    low: np.ndarray
    high: np.ndarray
    sigma: np.ndarray
    wing: float

    @property
    def width(self) -> np.ndarray:
        """Width (f, n) of the pixels [A]."""
        return self.high - self.low

    def shifted(self, by: np.ndarray) -> Pixels:
        """The same pixels moved by (f, n) A."""
        return Pixels(self.low + by, self.high + by, self.sigma, self.wing)

    def sample(self, spectrum: Spectrum) -> np.ndarray:
        """Mean flux density (f, n) in each pixel after blurring with the line-spread function."""
        out = self._continuum(spectrum)
        for line in spectrum.lines:
            self._add_line(out, *line)
        return out

    def _continuum(self, spectrum: Spectrum) -> np.ndarray:
        if not np.any(spectrum.continuum):
            return np.zeros(self.sigma.shape)
        # four blurred versions and the cubic through them in sigma^2: blurring is diffusion, smooth in that variable
        nodes = np.linspace(0.999 * self.sigma.min(), 1.001 * self.sigma.max(), 4)
        places = []
        for edge in (self.low, self.high):
            p = np.clip((edge - spectrum.start) / spectrum.step, 0, spectrum.continuum.size - 1.001)
            index = p.astype(np.int32)
            places.append((index, p - index))
        s2, n2 = self.sigma**2, nodes**2
        out = np.zeros(self.sigma.shape)
        for k, node in enumerate(nodes):
            weight = np.ones(self.sigma.shape)
            for j in range(nodes.size):
                if j != k:
                    weight *= (s2 - n2[j]) / (n2[k] - n2[j])
            blurred = self._blur(spectrum, node)
            half = 0.5 * np.diff(blurred, append=blurred[-1])
            total = np.concatenate([[0.0], np.cumsum(blurred[:-1] + half[:-1])])
            (i0, t0), (i1, t1) = places
            integral = total[i1] + t1 * (blurred[i1] + t1 * half[i1])
            integral -= total[i0] + t0 * (blurred[i0] + t0 * half[i0])
            out += weight * integral
        return out * spectrum.step / self.width

    def _blur(self, spectrum: Spectrum, sigma: float) -> np.ndarray:
        s = sigma / spectrum.step
        core = gaussian_filter1d(spectrum.continuum, s, mode="nearest", truncate=5)
        wing = gaussian_filter1d(spectrum.continuum, LSF_WING_RATIO * s, mode="nearest", truncate=4)
        return (1 - self.wing) * core + self.wing * wing

    def _add_line(self, out: np.ndarray, wave: float, flux: float, own: float) -> None:
        n = out.shape[1]
        middle = out.shape[1] // 2
        pixel = self.width[:, middle].mean()
        reach = int(np.ceil(LINE_REACH * np.hypot(self.sigma.max(), own) / pixel)) + 1
        center = 0.5 * (self.low + self.high)
        if wave < center.min() - reach * pixel or wave > center.max() + reach * pixel:
            return
        # pixel nearest to the line in each fibre: count those that lie below it
        nearest = np.array([np.searchsorted(c, wave) for c in center])
        columns = nearest[:, None] + np.arange(-reach, reach + 1)
        rows = np.broadcast_to(np.arange(out.shape[0])[:, None], columns.shape)
        inside = (columns >= 0) & (columns < n)
        rows, columns = rows[inside], columns[inside]
        low, high = self.low[rows, columns] - wave, self.high[rows, columns] - wave
        sigma = self.sigma[rows, columns]
        light = np.zeros(rows.size)
        for part, ratio in ((1 - self.wing, 1.0), (self.wing, LSF_WING_RATIO)):
            s = np.sqrt(2) * np.hypot(ratio * sigma, own)
            light += 0.5 * part * (erf(high / s) - erf(low / s))
        out[rows, columns] += flux * light / (high - low)


def fine_grid(wave_min: float, wave_max: float, dispersion: float) -> tuple[float, float, np.ndarray]:
    """Start, step and wavelengths of a fine grid that covers a range with room for blurring at both ends."""
    step = dispersion / FINE_STEPS
    start = wave_min - 40 * dispersion
    n = int(np.ceil((wave_max + 40 * dispersion - start) / step))
    return start, step, start + step * np.arange(n)
