"""What the air above the telescope takes away."""

from __future__ import annotations

import numpy as np

from .tables import table


def extinction(wave: np.ndarray) -> np.ndarray:
    """Extinction [mag per airmass] at the wavelengths ``wave`` [A, air]; the end values hold outside 3200..10400 A.

    Source: Kitt Peak table of IRAF's onedstds, used for McDonald too, which lies at about the same height.
    """
    t = table("extinction")
    return np.interp(wave, np.asarray(t["wavelength"], float), np.asarray(t["extinction"], float))


def mean_telluric(wave: np.ndarray) -> np.ndarray:
    """Mean telluric transmission, 0..1, at the wavelengths ``wave`` [A, air]; 1 where nothing absorbs.

    It has LRS2's resolution.
    """
    t = table("telluric")
    transmission = np.asarray(t["transmission"], float)
    grid = t.meta["start"] + t.meta["step"] * np.arange(transmission.size)
    return np.interp(wave, grid, transmission, left=1.0, right=1.0)


def sky_templates(channel: str) -> tuple[np.ndarray, np.ndarray]:
    """Shapes of the night sky in a channel without strong sky lines (uv).

    Returns
    -------
    wavelength : (n,) [A, air]
    spectra : (3, n)
        Dark, grey and bright time [e-/s/cm2/A per fibre, through the default response].
    """
    t = table(f"sky_{channel}")
    wave = np.asarray(t["wavelength"], float)
    r = table("response")
    own = np.asarray(r["channel"]) == channel
    response = np.interp(wave, np.asarray(r["wavelength"], float)[own], np.asarray(r["response"], float)[own])
    return wave, np.stack([np.asarray(t[n], float) * 1e-18 / response for n in ("dark", "grey", "bright")])
