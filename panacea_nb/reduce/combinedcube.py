"""Exposures and channels of a target become one cube, from the fibres and not from cubes that were interpolated before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..decisions import Decision
from .combine import MIN_COVER
from .commongrid import moved, neighbour_correlation, propagated, to_grid
from .cube import Grid, build_cube, spaxel_grid, sum_error_factor
from .refraction import Refraction

COMMON_WAVE = (
    6700.0  # A, where both arms measure: light of this wavelength ties the fibres of one arm to those of the other
)
MAX_APART = 60.0  # arcsec between fields, beyond which they do not show the same object
MAX_SPLIT = 1.0  # arcsec between the places of one source in the two channels of an exposure, which see it at the same time


@dataclass(frozen=True, eq=False)
class FiberField:
    """The fibres of one exposure in one channel.

    Attributes
    ----------
    name : str; exposure : str, which the channels of one exposure and arm share
    wave : (n,) [A]; skysub, error : (nf, n) [erg/s/cm2/A], error 0: bad
    positions : (nf, 2) [IFU arcsec]; sky : (nf, 2) right ascension, declination [deg]
    refraction : Refraction in this exposure's IFU axes
    source : (x, y, wave) [IFU arcsec, A] where the source stands, or None
    home : (x, y) of the arm's refraction at `COMMON_WAVE`
    snr : of the source; scale : factor of the flux, as its spectrum's
    velocity : barycentric correction, not applied [km/s]
    sigma : (n,) of the line-spread function [A], or None
    correlation : of the errors of samples one, two, ... apart
    """

    name: str
    wave: np.ndarray
    skysub: np.ndarray
    error: np.ndarray
    positions: np.ndarray
    sky: np.ndarray
    refraction: Refraction
    source: tuple[float, float, float] | None
    exposure: str = ""
    home: tuple[float, float] = (0.0, 0.0)
    snr: float = 0.0
    scale: float = 1.0
    velocity: float = 0.0
    sigma: np.ndarray | None = None
    correlation: tuple[float, ...] = ()

    @property
    def middle(self) -> float:
        """Middle of the channel [A]."""
        return 0.5 * float(self.wave[0] + self.wave[-1])

    def path(self, wave: float) -> np.ndarray:
        """Place (2,) [IFU arcsec] of the refraction table at a wavelength."""
        return np.array(
            [np.interp(wave, self.refraction.wavelength, t) for t in (self.refraction.x, self.refraction.y)]
        )


@dataclass(frozen=True)
class CombinedCube:
    """Attributes
    ----------
    wave : (n,) [A], the part of the grid that was measured
    flux, error : (n, ny, nx) float32 [erg/s/cm2/A per spaxel], 0 where nothing was measured
    spaxels : Grid in the axes of ``first``; first : FiberField
    aligned : dict name -> ``source``, ``channel`` (the source of the exposure's other channel) or ``sky``
    apart : dict name -> [arcsec] between where source and sky coordinates put a field
    sum_factor : float, error of a sum over many spaxels over the root of their squared errors
    correlation : dict name -> correlation of the errors of neighbours along wavelength
    sigma : float, line width to which all was smoothed [A]; 0 where nothing was
    decisions : list of Decision
    """

    wave: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    spaxels: Grid
    first: FiberField
    aligned: dict[str, str]
    apart: dict[str, float]
    sum_factor: float
    correlation: dict[str, float]
    sigma: float
    decisions: list[Decision]


def tangent_plane(sky: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Offsets (n, 2) east and north [arcsec] of positions [deg] from a centre, gnomonic."""
    ra, dec = np.radians(sky.T)
    ra0, dec0 = np.radians(centre)
    cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    east = np.cos(dec) * np.sin(ra - ra0) / cosine
    north = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cosine
    return np.degrees(np.stack([east, north], axis=1)) * 3600


def on_sky(field: FiberField) -> tuple[np.ndarray, np.ndarray]:
    """The field's centre (2,) [deg] and the linear map (3, 2) from 1, IFU x, y to arcsec east and north of it."""
    angle = np.radians(field.sky)
    vector = np.stack(
        [np.cos(angle[:, 1]) * np.cos(angle[:, 0]), np.cos(angle[:, 1]) * np.sin(angle[:, 0]), np.sin(angle[:, 1])]
    )
    mean = vector.mean(axis=1)  # no trouble where right ascension jumps from 360 to 0 deg
    centre = np.degrees([np.arctan2(mean[1], mean[0]), np.arctan2(mean[2], np.hypot(mean[0], mean[1]))])
    design = np.column_stack([np.ones(field.positions.shape[0]), field.positions])
    return centre, np.linalg.lstsq(design, tangent_plane(field.sky, tuple(centre)), rcond=None)[0]


def to_reference(field: FiberField, first: FiberField) -> tuple[np.ndarray, np.ndarray, float]:
    """How a field's IFU axes go over into those of the first one, by their places on the sky.

    Light of `COMMON_WAVE` falls where the sky coordinates say, give or take a constant that all exposures share.

    Returns
    -------
    turn : (2, 2) and shift (2,): ``place @ turn + shift`` is where an object that stands at ``place`` at the field's middle
        stands in the axes of the first, at the wavelength of its source (or its middle)
    separation : [arcsec] of the fields' centres
    """
    (here, own), (there, theirs) = on_sky(field), on_sky(first)
    back = np.linalg.inv(theirs[1:])
    turn = own[1:] @ back  # row vectors: IFU of the field -> sky -> IFU of the first
    offset = tangent_plane(here[None, :], tuple(there))[0]
    separation = float(np.hypot(*offset))
    at = first.source[2] if first.source is not None else first.middle
    leave = np.array(field.home) - field.path(field.middle)
    arrive = first.path(at) - np.array(first.home)
    return turn, leave @ turn + (own[0] + offset - theirs[0]) @ back + arrive, separation


def with_neighbours(fields: Sequence[FiberField]) -> list[tuple[FiberField, str]]:
    """Fields in which no source was found take that of the other channel of the same exposure, moved by refraction.

    Returns
    -------
    list of field, and how it is aligned: ``source``, ``channel`` or ``sky``
    """
    made = []
    for field in fields:
        other = next((f for f in fields if f.exposure == field.exposure and f.source is not None), None)
        if field.source is not None or not field.exposure or other is None or other.source is None:
            made.append((field, "sky" if field.source is None else "source"))
            continue
        x, y = np.array(other.source[:2]) + field.path(field.middle) - other.path(other.source[2])
        made.append((replace(field, source=(float(x), float(y), field.middle)), "channel"))
    return made


def split_sources(fields: Sequence[FiberField]) -> list[Decision]:
    """A warning of each exposure whose two channels found their source at two places: two objects, perhaps."""
    made = []
    for i, field in enumerate(fields):
        for other in fields[i + 1 :]:
            if field.source is None or other.source is None or not field.exposure or field.exposure != other.exposure:
                continue
            there = np.array(other.source[:2]) + field.path(field.source[2]) - other.path(other.source[2])
            split = float(np.hypot(*(there - field.source[:2])))
            if split > MAX_SPLIT:
                text = (
                    f"{field.name} and {other.name} found their sources {split:.1f} arcsec apart: the spectrum may be of two "
                    "objects; look at both images, and give the place with --source_x and --source_y"
                )
                made.append(Decision("TWOPLACES", text, "warn"))
    return made


def place(field: FiberField, first: FiberField) -> tuple[np.ndarray, Refraction, float, float, float]:
    """Fibre places (nf, 2) and refraction in the axes of ``first``, the wavelength at which they hold, and how sure that is.

    The source sets the offset where both have one, for pointing is not known to a tenth of an arcsecond; else the sky does.

    Returns
    -------
    positions, refraction, wave, apart, separation : ``apart`` [arcsec] between where source and sky put it, NaN without a source
    """
    turn, shift, separation = to_reference(field, first)
    path = np.stack([field.refraction.x, field.refraction.y], axis=1) @ turn
    refraction = Refraction(field.refraction.wavelength, path[:, 0], path[:, 1])
    if field.source is None or first.source is None:
        return field.positions @ turn + shift, refraction, field.middle, float("nan"), separation
    source, target = np.array(field.source[:2]), np.array(first.source[:2])
    at_middle = source + field.path(field.middle) - field.path(field.source[2])
    apart = float(np.hypot(*(at_middle @ turn + shift - target)))
    return (field.positions - source) @ turn + target, refraction, field.source[2], apart, separation


def combine_cubes(
    fields: Sequence[FiberField],
    grid: np.ndarray,
    *,
    barycentric: bool = False,
    vacuum: bool = False,
    match_resolution: bool = False,
) -> CombinedCube:
    """Weighted mean of all fields on the spaxels of the one with most signal.

    Every field's refraction is taken out, it is turned and shifted onto the first, scaled as its spectrum is, and weighted at each
    wavelength by the inverse of the median variance of its spaxels: one weight per wavelength, so that no spaxel's noise or light
    decides about its own weight.

    Parameters
    ----------
    grid : (n,) [A], in the frame and medium of the options, see `combine.combine_spectra`

    Raises
    ------
    ValueError
        If there is no field.
    """
    if not fields:
        raise ValueError("there is no field to combine")
    ready = sorted(
        with_neighbours(fields), key=lambda item: (("source", "channel", "sky").index(item[1]), -item[0].snr)
    )
    first = ready[0][0]
    waves = {f.name: moved(f.wave, f.velocity, barycentric=barycentric, vacuum=vacuum) for f in fields}
    grid = grid[(grid >= min(w[0] for w in waves.values())) & (grid <= max(w[-1] for w in waves.values()))]
    sigma = max(float(f.sigma.max()) for f in fields if f.sigma is not None) if match_resolution else 0.0
    spaxels = spaxel_grid(first.positions)
    shape = (grid.size, spaxels.y.size * spaxels.x.size)
    light, noise, weights = (np.zeros(shape) for _ in range(3))
    aligned, apart, correlation, decisions = {}, {}, {}, split_sources(fields)
    for field, how in ready:
        *where, apart[field.name], separation = place(field, first)
        if how == "sky" and separation > MAX_APART:
            text = (
                f"{field.name} shows no source and lies {separation:.0f} arcsec from {first.name}: not part of the cube"
            )
            decisions.append(Decision("FARAPART", text, "warn"))
            continue
        if apart[field.name] > MAX_APART:
            text = (
                f"the source of {field.name} lies {apart[field.name]:.0f} arcsec from that of {first.name} but is in the cube: "
                "if it is another object, leave the exposure out with --leave-out N_expNN"
            )
            decisions.append(Decision("FARAPART", text, "warn"))
        aligned[field.name] = how
        matrix = to_grid(waves[field.name], grid, field.sigma, sigma)
        rows = np.flatnonzero(np.diff(matrix.indptr))
        matrix = matrix[rows]
        correlation[field.name] = neighbour_correlation(matrix, field.correlation)
        flux, variance, seen = _on_spaxels(field, *where, spaxels, matrix)
        typical = _median(variance, seen)
        weight = seen * np.where(typical > 0, 1.0 / np.where(typical > 0, typical, 1.0), 0.0)[:, None]
        light[rows] += weight * flux
        noise[rows] += weight**2 * variance
        weights[rows] += weight
    known = weights > 0
    safe = np.where(known, weights, 1.0)
    size = (grid.size, spaxels.y.size, spaxels.x.size)
    flux = np.where(known, light / safe, 0.0).astype(np.float32).reshape(size)
    error = np.where(known, np.sqrt(noise) / safe, 0.0).astype(np.float32).reshape(size)
    return CombinedCube(
        grid, flux, error, spaxels, first, aligned, apart, sum_error_factor(first.positions, spaxels), correlation, sigma,
        decisions,
    )  # fmt: skip


def _on_spaxels(field: FiberField, positions, refraction: Refraction, at: float, spaxels: Grid, matrix):
    """Flux, variance and whether it was measured, each (n, n_spaxels), of one field on the common wavelengths and spaxels."""
    good = field.error > 0
    values, errors = field.scale * field.skysub, field.scale * field.error
    cubes = build_cube([values], good, positions, field.wave, refraction, at, spaxels, [errors])
    cube, error = (c.reshape(field.wave.size, -1).astype(float) for c in cubes)
    cover = matrix @ (error > 0).astype(float)
    seen = cover > MIN_COVER
    safe = np.where(seen, cover, 1.0)
    variance = propagated(matrix, error, field.correlation)
    return np.where(seen, (matrix @ cube) / safe, 0.0), np.where(seen, variance / safe**2, 0.0), seen


def _median(variance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Median (n,) over the spaxels that were seen, 0 where none was."""
    out = np.zeros(variance.shape[0])
    some = seen.any(axis=1)
    out[some] = np.nanmedian(np.where(seen[some], variance[some], np.nan), axis=1)
    return out
