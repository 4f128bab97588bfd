"""How light falls on the lenslets: gradients, point sources with refraction, galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import map_coordinates, uniform_filter
from scipy.signal import fftconvolve

from ..instrument import LENSLET_PITCH, N_FIBERS, Channel

N_NODES = 24
"""Wavelengths at which the light on each lenslet is worked out; a cubic goes between them."""

GAUSS_POINTS = 7
"""Points per side of a lenslet in the integration of a point source's image."""

IMAGE_STEP = 0.05
"""Pixel [arcsec] of the image of an extended source."""

SEEING_POWER = -0.2
"""Seeing goes with wavelength to this power (Kolmogorov turbulence)."""

SEEING_WAVE = 5000.0
"""Wavelength [A] at which seeing is quoted."""


@dataclass(frozen=True)
class PointSource:
    """Image of a star: Moffat of a wavelength-dependent width.

    Attributes
    ----------
    seeing : float
        FWHM [arcsec] at 5000 A.
    beta : float
        Exponent of the Moffat.
    x, y : float
        IFU place [arcsec] to which the refraction table's own x, y are added.
    refraction : float
        Factor on the table's range about its value in mid-channel.
    shear : tuple of float
        Ellipticity along x, and along the diagonal, at constant area.
    """

    seeing: float
    beta: float
    x: float
    y: float
    refraction: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)

    def fwhm(self, wave: np.ndarray) -> np.ndarray:
        """FWHM [arcsec] at wavelengths [A]."""
        return self.seeing * (np.asarray(wave) / SEEING_WAVE) ** SEEING_POWER

    def path(self, ch: Channel, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place (x, y) [IFU arcsec] at wavelengths [A]."""
        return tuple(p + o for p, o in zip(refraction_path(ch, wave, self.refraction), (self.x, self.y), strict=True))

    def fraction(self, ch: Channel, wave: np.ndarray) -> np.ndarray:
        """Part of the light (f, n) that each lenslet receives at each of its wavelengths (f, n)."""
        nodes = _nodes(wave)
        px, py = self.path(ch, nodes)
        fwhm = self.fwhm(nodes)
        alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / self.beta) - 1)
        t, weight = np.polynomial.legendre.leggauss(GAUSS_POINTS)
        t = t * LENSLET_PITCH / 2
        xy = ch.fiber_positions()
        dx = xy[:, 0, None, None] + t[:, None] - px
        dy = xy[:, 1, None, None] + t[:, None] - py
        dx, dy = dx[:, :, None, :], dy[:, None, :, :]
        e1, e2 = self.shear
        r2 = ((1 - e1) * dx**2 - 2 * e2 * dx * dy + (1 + e1) * dy**2) / np.sqrt(1 - e1**2 - e2**2)
        moffat = (self.beta - 1) / (np.pi * alpha2) * (1 + r2 / alpha2) ** -self.beta
        inside = np.einsum("fabk,a,b->fk", moffat, weight, weight) * (LENSLET_PITCH / 2) ** 2
        return _between(nodes, inside, wave)


@dataclass(frozen=True)
class Galaxy:
    """An inclined disc of Sersic's profile behind the seeing.

    Attributes
    ----------
    seeing, beta, x, y, refraction
        As of a point source.
    radius : float
        Effective radius [arcsec] along the major axis.
    ratio, angle : float
        Axis ratio, and angle [rad] of the major axis against x.
    index : float
        Sersic index: 1 an exponential, 1/2 a Gaussian.
    """

    seeing: float
    beta: float
    x: float
    y: float
    radius: float
    ratio: float
    angle: float
    refraction: float = 1.0
    index: float = 1.0

    def fwhm(self, wave: np.ndarray) -> np.ndarray:
        """Seeing FWHM [arcsec] at wavelengths [A]."""
        return self.seeing * (np.asarray(wave) / SEEING_WAVE) ** SEEING_POWER

    def path(self, ch: Channel, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place (x, y) [IFU arcsec] of the centre at wavelengths [A]."""
        return tuple(p + o for p, o in zip(refraction_path(ch, wave, self.refraction), (self.x, self.y), strict=True))

    def fraction(self, ch: Channel, wave: np.ndarray) -> np.ndarray:
        """Part of the light (f, n) that each lenslet receives at each of its wavelengths (f, n)."""
        nodes = _nodes(wave)
        half = 14.0
        axis = np.arange(-half, half + IMAGE_STEP / 2, IMAGE_STEP)
        dx, dy = np.meshgrid(axis, axis)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        r = np.hypot(dx * cos + dy * sin, (dy * cos - dx * sin) / self.ratio)
        # half of the light within the effective radius (Ciotti & Bertin 1999, A&A 352, 447)
        b = 2 * self.index - 1 / 3 + 0.009876 / self.index
        image = np.exp(-b * (r / self.radius) ** (1 / self.index))
        # the disc is far wider than the change of seeing over a channel: one blur, at mid-channel, serves
        alpha2 = (self.fwhm(nodes.mean()) / 2) ** 2 / (2 ** (1 / self.beta) - 1)
        blur = (1 + (dx**2 + dy**2) / alpha2) ** -self.beta
        image = fftconvolve(image, blur, mode="same")
        image /= image.sum()
        size = LENSLET_PITCH / IMAGE_STEP
        image = uniform_filter(image, int(round(size))) * size**2
        px, py = self.path(ch, nodes)
        xy = ch.fiber_positions()
        place = [(xy[:, i, None] - p + half) / IMAGE_STEP for i, p in ((1, py), (0, px))]
        inside = map_coordinates(image, place, order=1, mode="nearest")
        return _between(nodes, inside, wave)


def refraction_path(ch: Channel, wave: np.ndarray, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Refraction (x, y) [arcsec] of a channel's table, straight lines between its points and beyond its ends."""
    t = ch.refraction()
    known = np.asarray(t["wavelength"], float)
    out = []
    for column in ("x", "y"):
        value = np.asarray(t[column], float)
        middle = np.interp(0.5 * (ch.wave_min + ch.wave_max), known, value)
        inner = np.interp(wave, known, value)
        below = value[0] + (wave - known[0]) * (value[1] - value[0]) / (known[1] - known[0])
        above = value[-1] + (wave - known[-1]) * (value[-1] - value[-2]) / (known[-1] - known[-2])
        inner = np.where(wave < known[0], below, np.where(wave > known[-1], above, inner))
        out.append(middle + factor * (inner - middle))
    return tuple(out)


def gradient(ch: Channel, amplitude: float, rng: np.random.Generator, degree: int = 2) -> np.ndarray:
    """Brightness (N_FIBERS,) of a surface that is not quite even: mean 1, peak to peak ``amplitude``."""
    xy = ch.fiber_positions()
    x, y = xy[:, 0] / np.abs(xy[:, 0]).max(), xy[:, 1] / np.abs(xy[:, 1]).max()
    terms = [x, y] if degree == 1 else [x, y, 0.7 * x**2, 0.7 * x * y, 0.7 * y**2]
    shape = sum(rng.uniform(-1, 1) * t for t in terms)
    shape = shape - shape.mean()
    return 1 + amplitude * shape / np.ptp(shape)


def _nodes(wave: np.ndarray) -> np.ndarray:
    return np.linspace(wave.min(), wave.max(), N_NODES)


def _between(nodes: np.ndarray, values: np.ndarray, wave: np.ndarray) -> np.ndarray:
    curves = CubicSpline(nodes, values, axis=1)
    if wave.ndim == 1:
        return curves(wave)
    out = np.empty((N_FIBERS, wave.shape[1]))
    step = nodes[1] - nodes[0]
    piece = np.minimum(((wave - nodes[0]) / step).astype(int), nodes.size - 2)
    t = wave - nodes[piece]
    rows = np.arange(N_FIBERS)[:, None]
    # the spline's own coefficients, so that every fibre can have wavelengths of its own in one step
    c = curves.c[:, piece, rows]
    out = ((c[0] * t + c[1]) * t + c[2]) * t + c[3]
    return out
