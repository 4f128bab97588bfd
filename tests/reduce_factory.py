"""Small made-up frames and spectra with known truth, for the tests of the reduction's steps."""

from __future__ import annotations

import numpy as np

from panacea_nb.reduce.extract import FiberModel
from panacea_nb.reduce.trace import PROFILE_BLOCK, gaussian_coef

SPACING = 6.8  # px between fibres, as on the chip
FWHM = 4.0  # px of the profile
SIGMA = FWHM / np.sqrt(8 * np.log(2))
READ_NOISE = 3.0  # e-


def traces(nf: int, nx: int, first: float = 14.3, bend: float = 1.5) -> np.ndarray:
    """Curved traces (nf, nx) whose phase against the pixels changes along each fibre."""
    x = np.linspace(-1, 1, nx)
    return first + SPACING * np.arange(nf)[:, None] + bend * (x**2 + 0.3 * x)[None, :]


def rows_of(trace: np.ndarray) -> int:
    """Rows that hold all fibres with their wings."""
    return int(np.ceil(trace.max())) + 14


def fiber_model(trace: np.ndarray, alive: np.ndarray | None = None, fwhm: float = FWHM) -> FiberModel:
    nf, nx = trace.shape
    return FiberModel(trace, gaussian_coef(nf, nx, fwhm), PROFILE_BLOCK, np.ones(nf, bool) if alive is None else alive)


def paint(trace: np.ndarray, amplitude: np.ndarray, n_rows: int, sigma: float | np.ndarray = SIGMA) -> np.ndarray:
    """Image (n_rows, nx) of fibres with Gaussian profiles, made without the code under test."""
    nf, nx = trace.shape
    amplitude = np.broadcast_to(amplitude, trace.shape)
    sigma = np.broadcast_to(np.reshape(sigma, (-1, 1)), trace.shape)
    image = np.zeros((n_rows, nx))
    middle = np.round(trace).astype(int)
    columns = np.broadcast_to(np.arange(nx), trace.shape)
    for k in range(-13, 14):
        row = middle + k
        inside = (row >= 0) & (row < n_rows)
        light = amplitude * np.exp(-0.5 * ((row - trace) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
        np.add.at(image, (row[inside], columns[inside]), light[inside])
    return image


def expose(rng: np.random.Generator, light: np.ndarray, read_noise: float = READ_NOISE) -> np.ndarray:
    """Photon and read noise on an image of expected electrons."""
    return (rng.poisson(light) + rng.normal(0, read_noise, light.shape)).astype(np.float32)


def read_noise(image: np.ndarray, value: float = READ_NOISE) -> np.ndarray:
    return np.full((image.shape[0], 1), value, np.float32)


def nothing(image: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape, bool)


def wavelengths(nf: int, nx: int, start: float = 5000.0, dispersion: float = 1.0, spread: float = 4.0) -> np.ndarray:
    """Wavelengths (nf, nx) [A]: slightly curved, shifted from fibre to fibre by fractions of a pixel and more."""
    x = np.arange(nx)
    f = np.linspace(-1, 1, nf)[:, None]
    return start + dispersion * (x + 2e-5 * x**2)[None, :] + spread * dispersion * f**2 + 0.37 * f * dispersion


def lines_on_continuum(centers: np.ndarray, fluxes: np.ndarray, sigma: float, level: float = 40.0):
    """A spectrum as a function of wavelength and of a Gaussian line sigma [A]: exact for every width."""

    def spectrum(wave: np.ndarray, extra: np.ndarray | float = 0.0) -> np.ndarray:
        wide = np.sqrt(sigma**2 + np.asarray(extra))
        middle = centers.mean()
        out = level * (1 + 0.1 * np.sin((wave - middle) / 90.0))
        for c, flux in zip(centers, fluxes, strict=True):
            out = out + flux / (np.sqrt(2 * np.pi) * wide) * np.exp(-0.5 * ((wave - c) / wide) ** 2)
        return out

    return spectrum


def robust(values: np.ndarray) -> float:
    """Scatter from the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
