"""Spectra of what the simulated instrument looks at: night sky, twilight, lamps, stars, galaxies."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from astropy.table import Table
from scipy.ndimage import gaussian_filter1d

from ..instrument import Channel, find_standard, mean_telluric
from .spectra import Spectrum, fine_grid
from .streams import stream

SKY_LEVELS = ("dark", "grey", "bright")
"""Kinds of night for which a sky is tabulated."""

TABLE_UNIT = 1e-18
"""Unit of the tabulated sky [erg/s/cm2(/A)]."""

LAMP_OF_ELEMENT = {"Hg": "hg", "Cd": "cd", "Ar": "fear", "Fe": "fear", "Ne": "fear"}
"""Lamp that shows an element; the iron-argon lamp's impurities stand for neon."""

LINE_WIDTH = 120.0
"""Velocity dispersion [km/s] of emission lines."""

LIGHT_SPEED = 299792.458
"""Speed of light [km/s]."""

# Strong Fraunhofer lines: wavelength [A, air], depth, sigma [A]
FRAUNHOFER = np.array([
    (3820.4, 0.6, 1.2), (3933.7, 0.93, 5.0), (3968.5, 0.92, 4.5), (4045.8, 0.5, 0.8), (4101.7, 0.45, 1.5),
    (4226.7, 0.6, 0.8), (4307.8, 0.5, 3.5), (4340.5, 0.5, 1.5), (4383.5, 0.5, 0.8), (4861.3, 0.6, 1.5),
    (5167.3, 0.5, 0.8), (5172.7, 0.6, 0.9), (5183.6, 0.65, 1.0), (5270.0, 0.5, 1.0), (5890.0, 0.65, 0.6),
    (5895.9, 0.6, 0.5), (6562.8, 0.7, 1.6), (8498.0, 0.45, 1.2), (8542.1, 0.6, 1.8), (8662.1, 0.55, 1.6),
])  # fmt: skip


@cache
def _table(name: str) -> Table:
    text = (files("panacea_nb.simulate") / "data" / f"{name}.ecsv").read_text(encoding="utf-8")
    return Table.read(text.splitlines(), format="ascii.ecsv")


def blank_spectrum(ch: Channel, dispersion: float) -> tuple[float, float, np.ndarray]:
    """Start, step and wavelengths of the fine grid of a channel, some 40 px wider than the detector."""
    return fine_grid(ch.wave_min - 140 * dispersion, ch.wave_max + 140 * dispersion, dispersion)


def night_sky(ch: Channel, level: str, dispersion: float) -> Spectrum:
    """Sky of a fibre [erg/s/cm2/A] on a dark, grey or bright night."""
    start, step, wave = blank_spectrum(ch, dispersion)
    t = _table("sky_continuum")
    t = t[t["channel"] == ch.name]
    continuum = TABLE_UNIT * np.interp(wave, np.asarray(t["wavelength"]), np.asarray(t[level], float))
    t = _table("sky_lines")
    t = t[(t["channel"] == ch.name) & (np.asarray(t[level]) > 0)]
    flux = TABLE_UNIT * np.asarray(t[level], float)
    lines = np.column_stack([np.asarray(t["wavelength"], float), flux, np.zeros(len(t))])
    return Spectrum(start, step, continuum, lines)


def solar(wave: np.ndarray) -> np.ndarray:
    """A sun-like spectrum, 1 where nothing absorbs.

    It has the strong Fraunhofer lines and a forest of weak ones that thins out redward.
    """
    depth = np.zeros(wave.size)
    for center, strength, width in FRAUNHOFER:
        depth += -np.log(1 - strength) * np.exp(-0.5 * ((wave - center) / width) ** 2)
    rng = stream(0, "fraunhofer")
    n = 6000
    centers = 3500 + 7200 * rng.uniform(size=n) ** 2.2
    strengths = rng.exponential(0.25, n) * np.clip((6500 / centers) ** 2, 0.2, 2)
    step = wave[1] - wave[0]
    forest = np.zeros(wave.size)
    place = np.round((centers - wave[0]) / step).astype(int)
    inside = (place >= 0) & (place < wave.size)
    np.add.at(forest, place[inside], strengths[inside] * 0.3 / step)
    return np.exp(-depth - gaussian_filter1d(forest, 0.15 / step))


def black_body(wave: np.ndarray, temperature: float) -> np.ndarray:
    """Shape of a black body in f_lambda, 1 at 6000 A."""

    def planck(w: np.ndarray | float) -> np.ndarray:
        return 1 / (np.asarray(w) ** 5 * np.expm1(1.4388e8 / (np.asarray(w) * temperature)))

    return planck(wave) / planck(6000.0)


def twilight(ch: Channel, dispersion: float) -> Spectrum:
    """Shape of the twilight sky: sunlight, bluer than the sun, with the air's absorption."""
    start, step, wave = blank_spectrum(ch, dispersion)
    shape = black_body(wave, 5780) * (wave / 6000) ** -2 * solar(wave) * mean_telluric(wave)
    return Spectrum(start, step, shape)


def flat_lamp(ch: Channel, dispersion: float) -> Spectrum:
    """Shape of the internal flat-field lamp: a smooth continuum."""
    start, step, wave = blank_spectrum(ch, dispersion)
    return Spectrum(start, step, black_body(wave, 3900) * (1 + 0.05 * np.sin(wave / 350)))


def arc_lamp(ch: Channel, lamp: str, dispersion: float, seed: int) -> Spectrum:
    """Lines of one lamp: flux such that a line of intensity 1 has unit peak per pixel; some lines are in no list.

    Parameters
    ----------
    lamp : str
        ``hg``, ``cd`` or ``fear``.
    """
    start, step, wave = blank_spectrum(ch, dispersion)
    t = ch.arc_lines()
    listed = np.asarray(t["wavelength"], float)
    area = dispersion * np.sqrt(2 * np.pi) * (listed.mean() / ch.resolving_power / dispersion / 2.355)
    own = np.array([LAMP_OF_ELEMENT[e] == lamp for e in t["element"]])
    lines = [(w, area * i, 0.0) for w, i in zip(listed[own], np.asarray(t["intensity"], float)[own], strict=True)]
    rng = stream(seed, "unlisted", ch.name, lamp)
    faintest = np.median(np.asarray(t["intensity"], float))
    for w in rng.uniform(ch.wave_min, ch.wave_max, 6 if lamp == "fear" else 2):
        if np.min(np.abs(listed - w)) > 14 * dispersion:
            lines.append((w, area * faintest * rng.uniform(0.03, 0.15), 0.0))
    rng = stream(seed, "lamp level", ch.name, lamp)
    return Spectrum(start, step, np.full(wave.size, 3e-4 * rng.uniform(0.5, 1.5)), np.array(lines).reshape(-1, 3))


def standard_spectrum(ch: Channel, name: str, dispersion: float) -> Spectrum:
    """Published spectrum [erg/s/cm2/A] of a standard behind the mean telluric absorption.

    Raises
    ------
    ValueError
        If the star has no table.
    """
    start, step, wave = blank_spectrum(ch, dispersion)
    standard = find_standard(name)
    if standard is None or not standard.has_table:
        raise ValueError(f"{name}: no published magnitudes are packaged for this star.")
    return Spectrum(start, step, standard.flux(wave) * mean_telluric(wave))


def smooth_source(ch: Channel, dispersion: float, level: float, shape: np.random.Generator, rng: np.random.Generator,
                  line_flux: tuple[float, ...]) -> Spectrum:  # fmt: skip
    """A smooth continuum with emission lines, behind the mean telluric absorption.

    Parameters
    ----------
    level : float
        Continuum [erg/s/cm2/A] at 6000 A.
    shape : Generator
        Draws the continuum's shape: the same for all channels of a target, so that its channels join.
    rng : Generator
        Draws the lines: they stand at random places away from each other and from telluric bands.
    line_flux : tuple of float
        Flux [erg/s/cm2] of each line.
    """
    start, step, wave = blank_spectrum(ch, dispersion)
    continuum = level * (wave / 6000) ** shape.uniform(-0.8, 0.8)
    continuum *= 1 + 0.06 * np.sin(wave / shape.uniform(350, 600) + shape.uniform(0, 6))
    span = ch.wave_max - ch.wave_min
    part = 0.85 * span / max(len(line_flux), 1)
    lines = []
    for i, flux in enumerate(line_flux):
        for _ in range(50):
            center = ch.wave_min + 0.075 * span + part * (i + rng.uniform(0.1, 0.9))
            if mean_telluric(center + np.linspace(-15, 15, 31)).min() > 0.97:
                break
        lines.append((center, flux, center * LINE_WIDTH / LIGHT_SPEED))
    return Spectrum(start, step, continuum * mean_telluric(wave), np.array(lines).reshape(-1, 3))
