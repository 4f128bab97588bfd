"""Spectrophotometric standards: which OBJECT is one, and its published flux."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from .tables import table

AB_ZERO_POINT = 48.60
"""Zero point of AB magnitudes: m = -2.5 log10(f_nu [erg/s/cm2/Hz]) - 48.60 (Oke & Gunn 1983, ApJ 266, 713)."""

LIGHT_SPEED = 2.99792458e18
"""Speed of light [A/s]."""

LEAST_COVERAGE = 300.0
"""Range [A] of a channel that a table must reach for a response to be made."""

EXTRAPOLATION_SPAN = 1500.0
"""Range [A] at the end of a table from which its slope is taken beyond that end."""


@dataclass(frozen=True)
class Standard:
    """A standard star of the list.

    Attributes
    ----------
    name : str
        Name as OBJECT holds it.
    star : str or None
        Name of its table; None when no table is packaged.
    reference : str
        Paper of the magnitudes; empty without a table.
    source : str
        Table of IRAF's onedstds that the magnitudes come from; empty without a table.
    """

    name: str
    star: str | None
    reference: str = ""
    source: str = ""

    @property
    def has_table(self) -> bool:
        """Whether published magnitudes are packaged, so that a response can be made from this star."""
        return self.star is not None

    @property
    def coverage(self) -> tuple[float, float] | None:
        """First and last wavelength [A] of the table; None without one."""
        if not self.has_table:
            return None
        wave, _ = _magnitudes(self.star)
        return float(wave[0]), float(wave[-1])

    def reaches(self, low: float, high: float) -> bool:
        """Whether the table holds enough of a range of wavelengths [A] to compare a spectrum with it."""
        if self.coverage is None:
            return False
        return min(high, self.coverage[1]) - max(low, self.coverage[0]) >= LEAST_COVERAGE

    def interpolation_error(self, wave: np.ndarray) -> np.ndarray:
        """Relative error of the published flux between the points of the table, (n,); 0 outside of it.

        What a straight line between the neighbours of a point would miss of it, halved: in the wings of lines, where the table's
        steps of 50 A and more are long, a few per cent.
        """
        assert self.star is not None
        known, mag = _magnitudes(self.star)
        share = (known[1:-1] - known[:-2]) / (known[2:] - known[:-2])
        missed = np.abs(mag[1:-1] - (1 - share) * mag[:-2] - share * mag[2:])
        missed = np.concatenate([[missed[0]], missed, [missed[-1]]])
        k = np.clip(np.searchsorted(known, wave, side="right") - 1, 0, known.size - 2)
        worst = np.maximum(missed[k], missed[k + 1])
        return np.where((wave >= known[0]) & (wave <= known[-1]), 0.5 * worst * np.log(10) / 2.5, 0.0)

    def flux(self, wave: np.ndarray, extrapolate: bool = True) -> np.ndarray | None:
        """Published flux density above the atmosphere.

        Magnitudes are interpolated linearly in wavelength. Beyond an end of the table (see `coverage`) they go on with
        the slope against log wavelength of the last 1500 A, which suits the Rayleigh-Jeans tail of these hot stars.

        Parameters
        ----------
        wave : ndarray
            Wavelengths [A, air].
        extrapolate : bool
            If false, values outside the table are NaN.

        Returns
        -------
        ndarray or None
            f_lambda [erg/s/cm2/A]; None when the star has no table.
        """
        if not self.has_table:
            return None
        wave = np.asarray(wave, float)
        known, mag = _magnitudes(self.star)
        values = np.interp(wave, known, mag)
        for outside, end, inside in (
            (wave < known[0], 0, known <= known[0] + EXTRAPOLATION_SPAN),
            (wave > known[-1], -1, known >= known[-1] - EXTRAPOLATION_SPAN),
        ):
            if not np.any(outside):
                continue
            slope = np.polyfit(np.log(known[inside]), mag[inside], 1)[0]
            extended = mag[end] + slope * np.log(wave / known[end])
            values = np.where(outside, extended if extrapolate else np.nan, values)
        f_nu = 10 ** (-0.4 * (values + AB_ZERO_POINT))
        return f_nu * LIGHT_SPEED / wave**2


@cache
def _magnitudes(star: str) -> tuple[np.ndarray, np.ndarray]:
    t = table("standards")
    rows = np.asarray(t["star"]) == star
    return np.asarray(t["wavelength"], float)[rows], np.asarray(t["ab_mag"], float)[rows]


@cache
def _patterns() -> tuple[tuple[re.Pattern, Standard], ...]:
    """Patterns of all names; longer names first, so that HZ_44 is not taken for HZ_4."""
    entries = []
    for e in table("standards").meta["standards"]:
        standard = Standard(e["name"], e["star"], e.get("reference", ""), e.get("table", ""))
        # a blank, an underscore or nothing may separate the parts of a name; digits may not go on after it
        parts = [re.escape(p) for p in re.split("_", e["name"])]
        entries.append((re.compile(r"(?<![A-Za-z0-9])" + "[_ ]?".join(parts) + r"(?![0-9])", re.IGNORECASE), standard))
    return tuple(sorted(entries, key=lambda e: -len(e[1].name)))


def standard_names() -> tuple[str, ...]:
    """All names that make an OBJECT a standard."""
    return tuple(e["name"] for e in table("standards").meta["standards"])


def find_standard(object_name: str) -> Standard | None:
    """The standard whose name is contained in OBJECT, without case; None when there is none.

    Examples
    --------
    >>> find_standard("hz_44_056_E").name
    'HZ_44'
    >>> find_standard("NGC_4565_056_E") is None
    True
    """
    for pattern, standard in _patterns():
        if pattern.search(object_name):
            return standard
    return None
