"""Spectra as sums: over a circle around the source, or over the region of an extended object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..decisions import Decision
from ..instrument import LENSLET_PITCH
from .cube import bridged
from .optimal import MIN_COUPLED, ExtractedSpectrum, coupled_variance
from .refraction import Refraction
from .skyregion import Region, Shape, parse_region
from .source import PointSource

NODES = 24  # wavelengths at which an aperture is followed through refraction; between them it is interpolated
MIN_KEPT = 0.5  # of what an aperture should hold must lie on good fibres
ISOPHOTE = 0.1  # of the peak: fibres brighter belong to an extended object when no region is given
ISOPHOTE_SIGMA = 3.0  # and must be as significant as this
NEIGHBOUR = 1.5  # lenslets; fibres of one object touch


@dataclass(frozen=True)
class Extraction:
    """Attributes
    ----------
    how : str: psf, aperture or extended
    radius : float or None [arcsec]; region : str
    correction : float or None, median over the channel of the factor for light outside of the aperture
    decisions : list of Decision
    """

    how: str
    radius: float | None = None
    region: str = ""
    correction: float | None = None
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class FiberSet:
    """The area of some lenslets, as a shape of a `Region`."""

    positions: np.ndarray
    members: np.ndarray

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether the lenslet nearest to each point is a member, and no further than its corner."""
        distance, nearest = cKDTree(self.positions).query(np.stack([x, y], axis=-1))
        return self.members[nearest] & (distance <= LENSLET_PITCH / np.sqrt(2))


def cover(
    region: Region, positions: np.ndarray, wave: np.ndarray, refraction: Refraction, reference: float
) -> np.ndarray:
    """Part of each lenslet's area in a region that follows refraction, (nf, nw), interpolated between `NODES` wavelengths."""
    nodes = np.linspace(wave[0], wave[-1], NODES)
    at = region.overlap(positions, nodes, refraction, reference)
    return np.stack([np.interp(wave, nodes, row) for row in at])


def sum_over(
    area: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    shape: np.ndarray | None = None,
    *,
    correct: bool = False,
    coupling: np.ndarray | None = None,
    shared: np.ndarray | None = None,
) -> ExtractedSpectrum:
    """Sum of flux over an area, with its error.

    Elements that are not good are made up for by the good ones: by the source's ``shape`` where it is known, else by the fibre's
    own light to either side in wavelength (`cube.bridged`), and where much is hidden by area.
    Errors of neighbouring wavelengths are not independent, and are not combined here.

    Parameters
    ----------
    area : (nf, nw), part of each lenslet that is summed
    value, variance, sky : (nf, nw); good : (nf, nw) bool
    shape : (nf, nw), share of a point source's light in each fibre, of all its light
    correct : bool
        Divide by the part of the source's light that the area holds (outside of the field counts as lost).
    coupling : (nf, nw), optional, see `optimal.coupled_variance`
    shared : (nf, nw), optional, part of the 1-sigma error that all fibres have in common, see `optimal.extract_source`
    """
    usable = good & (variance > 0)
    if shape is None:
        (value, sky), (error,), usable = bridged((value, sky), (np.sqrt(np.where(usable, variance, 0.0)),), usable)
        variance = error**2
    expected = area if shape is None else area * shape
    whole = expected.sum(axis=0)
    kept = (expected * usable).sum(axis=0)
    enough = (kept > MIN_KEPT * whole) & (kept > 0)
    safe = np.where(enough, kept, 1.0)
    factor = np.where(enough, (1.0 if correct and shape is not None else whole) / safe, 0.0)
    flux = factor * np.where(usable, area * value, 0.0).sum(axis=0)
    common = np.zeros_like(variance) if shared is None else np.where(usable, shared, 0.0)
    alone = np.where(usable, np.maximum(variance - common**2, 0.05 * variance), 0.0)
    own = (area**2 * alone).sum(axis=0) + (area * common).sum(axis=0) ** 2
    error = factor * np.sqrt(np.maximum(own + coupled_variance(area, alone, usable, coupling), MIN_COUPLED * own))
    light = factor * np.where(usable, area * sky, 0.0).sum(axis=0)
    return ExtractedSpectrum(flux, error, light, error.copy(), np.where(whole > 0, kept, 0.0))


def isophote(positions: np.ndarray, value: np.ndarray, variance: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fibres (nf,) bool of the brightest object: connected, above `ISOPHOTE` of its peak and significant, over all wavelengths."""
    weight = np.where(good & (variance > 0), 1.0 / np.where(variance > 0, variance, 1.0), 0.0)
    total = weight.sum(axis=1)
    level = np.divide((weight * value).sum(axis=1), total, out=np.zeros(total.size), where=total > 0)
    error = np.divide(1.0, np.sqrt(total), out=np.full(total.size, np.inf), where=total > 0)
    bright = (level > ISOPHOTE * level.max()) & (level > ISOPHOTE_SIGMA * error)
    found = np.zeros(bright.size, bool)
    found[np.argmax(level)] = bright.any()
    near = np.hypot(*(positions[:, None, k] - positions[None, :, k] for k in (0, 1))) < NEIGHBOUR * LENSLET_PITCH
    while True:
        grown = found | (bright & near[found].any(axis=0))
        if (grown == found).all():
            return found
        found = grown


def extract_as_asked(
    how: str,
    radius: float | None,
    correct: bool,
    region: str,
    psf: ExtractedSpectrum,
    shape: np.ndarray | None,
    source: PointSource | None,
    light: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    place: tuple[np.ndarray, np.ndarray, Refraction, float],
    coupling: np.ndarray | None = None,
    shared: np.ndarray | None = None,
) -> tuple[ExtractedSpectrum, Extraction]:
    """The spectrum as the user asked for it.

    Parameters
    ----------
    how : str: psf, aperture or extended
    radius : float or None [arcsec]; correct : bool; region : str; see the command line's help
    psf : the optimal spectrum; shape : (nf, nw) or None; source : PointSource or None
    light : value, variance, sky, good (nf, nw)
    place : positions (nf, 2), wavelengths (nw,), refraction, wavelength at which positions hold
    coupling : (nf, nw) correlation of a fibre's error with that of the next one, or None
    shared : (nf, nw) part of the error that all fibres have in common, or None
    """
    value, variance, sky, good = light
    positions, wave, refraction, reference = place
    if how == "extended":
        if region:
            chosen, text = parse_region(region), region
        else:
            members = isophote(positions, value, variance, good)
            chosen, text = Region((FiberSet(positions, members),), ""), f"{int(members.sum())} fibres"
        area = cover(chosen, positions, wave, refraction, reference)
        spectrum = sum_over(area, value, variance, sky, good, coupling=coupling, shared=shared)
        said = Decision("EXTRACTION", f"spectrum summed over {text}", "info")
        return spectrum, Extraction("extended", region=text, decisions=(said,))
    if how == "psf" or source is None or shape is None:
        return psf, Extraction("psf")
    radius = source.fwhm if radius is None else radius
    circle = Region((Shape("circle", (source.x, source.y, radius)),), "")
    area = cover(circle, positions, wave, refraction, reference)
    decisions = []
    if correct and source.extended:
        correct = False
        text = "no aperture correction: the object is extended, and its light outside of the aperture is not known"
        decisions.append(Decision("NOAPERCORR", text, "warn"))
    how_sure = {"coupling": coupling, "shared": shared}
    spectrum = sum_over(area, value, variance, sky, good, shape, correct=correct, **how_sure)
    held = float(np.median((area * shape).sum(axis=0)))
    words = f"times {1 / held:.3f} for the light outside of it" if correct and held > 0 else "as it is"
    decisions.append(
        Decision("EXTRACTION", f"spectrum summed over a circle of {radius:.2f} arcsec radius, {words}", "info")
    )
    return spectrum, Extraction("aperture", radius, "", 1 / held if correct and held > 0 else None, tuple(decisions))
