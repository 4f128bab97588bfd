"""A field of known sky and sources on native pixels, for the tests of the choices of sky."""

from __future__ import annotations

import numpy as np
from reduce_factory import lines_on_continuum, wavelengths

from panacea_nb.instrument import channel
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction

POSITIONS = channel("orange").fiber_positions()
NF, NX = POSITIONS.shape[0], 320
WAVE = wavelengths(NF, NX)
DISPERSION = np.gradient(WAVE, axis=1)
SIGMA = 1.9  # A
F, X = np.linspace(-1, 1, NF)[:, None], np.linspace(-1, 1, NX)[None, :]
LSF = (1.95 + 0.06 * F**2) / DISPERSION
EXTRA = (LSF * DISPERSION) ** 2 - SIGMA**2
CENTERS = np.array([5033.3, 5061.0, 5098.7, 5127.2, 5160.9, 5190.1, 5221.6, 5256.4, 5290.2])
FLUXES = np.array([300.0, 2500.0, 900.0, 5000.0, 400.0, 1500.0, 8000.0, 700.0, 2000.0])
SKY = lines_on_continuum(CENTERS, FLUXES, SIGMA)
FAINT_LINES = lines_on_continuum(CENTERS[:1], FLUXES[:1] * 0.0, SIGMA)
THROUGHPUT = np.random.default_rng(800).uniform(0.9, 1.1, (NF, 1)) * np.ones(NX)
UNIT = THROUGHPUT * DISPERSION
ALIVE = np.arange(NF) != 17
PATH = Refraction(np.array([4990.0, 5330.0]), np.array([0.3, -0.3]), np.array([-0.4, 0.4]))
RANGE = (float(WAVE.min()), float(WAVE.max()))
MIDDLE = 5160.0


def share_of(x: float, y: float, fwhm: float = 1.5) -> np.ndarray:
    """Share of a point source's light in every native sample (nf, nx)."""
    nodes = np.linspace(*RANGE, 25)
    dx, dy = PATH.offset(nodes, MIDDLE)
    at = lenslet_fractions(POSITIONS, x + dx, y + dy, fwhm * (nodes / MIDDLE) ** -0.2, 3.4)
    return np.stack([np.interp(WAVE[f], nodes, at[:, f]) for f in range(NF)])


def observe(rng, source=0.0, sky=SKY, times=1.0, factor=1.0, wave=WAVE):
    """Amplitudes and variances, and the sky's part [e- per column]; ``factor`` multiplies the sky's light."""
    night = times * sky(wave, EXTRA) * UNIT * factor
    light = (night + source * UNIT) * ALIVE[:, None]
    variance = np.where(ALIVE[:, None], light + 16.0, 0.0)
    return light + np.sqrt(variance) * rng.normal(size=light.shape), variance, night


def arrays(data, variance):
    """Arguments of `fit_sky`."""
    good = np.broadcast_to(ALIVE[:, None], data.shape).copy()
    return data, variance, good, WAVE, LSF, THROUGHPUT, POSITIONS, ALIVE
