"""From sky-subtracted native spectra to calibrated, rectified ones, with the source found and extracted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..decisions import Decision
from ..instrument import channel as find_channel
from .aperture import Extraction, extract_as_asked
from .arrays import BLOCK
from .companion import at_wavelength, companion_decision, from_dict, light_beside, told_apart
from .covariance import correlation, neighbour_covariance
from .cube import Grid, build_cube, collapse, spaxel_grid
from .fieldmodel import usable_samples
from .flux import FluxScale
from .maskbits import DQ
from .optimal import ExtractedSpectrum, extract_source
from .rectify import rectify
from .refraction import Refraction
from .source import PointSource, find_source, source_shapes
from .sourceprior import prior_from_dict
from .spline import CommonSpectrum
from .telluric import Transmission, correct

LIMIT_SIGMA = 5.0  # of the upper limit that is given without a source
FLUX_UNCERTAINTY = 0.05  # absolute scale with guider data; without them it is that of the transparency: unknown
FLUX_UNCERTAINTY_DEFAULT = 0.30


@dataclass(frozen=True)
class FluxOptions:
    """Choices of the user for flux and source; see the command line's help."""

    central_wave: float | None = None
    wavelength_bin: float = 10.0
    source_x: float | None = None
    source_y: float | None = None
    standard_date: str | None = None
    standard_obsid: int | None = None
    extraction: str = "psf"
    aperture: float | None = None
    aperture_correction: bool = True
    extract_region: str = ""
    telluric: str = "none"
    covariance: bool = False

    @property
    def fixed(self) -> tuple[float, float] | None:
        """The fixed source position, if any."""
        if self.source_x is None or self.source_y is None:
            return None
        return float(self.source_x), float(self.source_y)


@dataclass(frozen=True)
class Calibrated:
    """Attributes
    ----------
    grid : (nw,) [A, air]; response : (nw,)
    skysub, sky, error : (nf, nw) [erg/s/cm2/A]; error 0: bad
    dq : (nf, nw) uint8; correlation : (3,)
    source, companion : PointSource or None; search : dict of the search; spectrum : ExtractedSpectrum (zeros without a source)
    limit : float, 5-sigma limit of a point source, median over the channel [erg/s/cm2/A]
    refraction : Refraction; centre : float [A] and half_width of the collapse window
    positions : (nf, 2); alive : (nf,)
    cubes : dict obs, sky, skysub; spaxels : Grid; collapsed : (ny, nx)
    lsf : (nf, nw) sigma [A]; shapes : (nf, nw) or None
    decisions : list of Decision
    extraction : Extraction, how the spectrum was taken
    air : Transmission by which the spectrum was divided, or None
    neighbours : (3, nf, nw) float32 correlation of errors with those of elements 1, 2, 3 further on, or None
    choices : dict, the user's choices of sky, extraction and telluric correction in words, for the night's table
    """

    grid: np.ndarray
    response: np.ndarray
    skysub: np.ndarray
    sky: np.ndarray
    error: np.ndarray
    dq: np.ndarray
    correlation: np.ndarray
    source: PointSource | None
    companion: PointSource | None
    search: dict
    spectrum: ExtractedSpectrum
    limit: float
    refraction: Refraction
    centre: float
    half_width: float
    positions: np.ndarray
    alive: np.ndarray
    cubes: dict[str, np.ndarray]
    spaxels: Grid
    collapsed: np.ndarray
    lsf: np.ndarray
    shapes: np.ndarray | None
    decisions: list[Decision] = field(default_factory=list)
    extraction: Extraction = field(default_factory=lambda: Extraction("psf"))
    air: Transmission | None = None
    neighbours: np.ndarray | None = None
    choices: dict[str, str] = field(default_factory=dict)

    def log_line(self, name: str, channel: str) -> str:
        """The line of the log that users search for."""
        if self.source is None:
            return f"{name}, {channel}: No source found, s/n too low: {self.search['best']:.2f}"
        return f"{name}, {channel}: source found at s/n: {self.source.snr:.2f}, fwhm: {self.source.fwhm:.2f}"


@dataclass(frozen=True)
class Rectified:
    """Calibrated spectra of all fibres on the channel's grid, before a source is looked for.

    Attributes
    ----------
    grid : (nw,) [A, air]; factor : (nw,) flux per e-/A; response : (nw,)
    skysub, sky, error : (nf, nw) [erg/s/cm2/A]; good : (nf, nw) bool; dq : (nf, nw) uint8
    correlation : (3,); shared : (nf, nw), error that all fibres share through the sky
    under : (nw,), light under a source where no sky was subtracted
    electron : (nf, nw), flux of one electron per column; gain : (nf, nw), see `rectify`
    coupling : (nf, nw); lsf : (nf, nw) sigma [A]; covariance : (3, nf, nw) or None
    positions : (nf, 2); alive : (nf,); refraction : Refraction; wave : first and last wavelength of the channel [A]
    meta : plain values of the sky stage
    """

    grid: np.ndarray
    factor: np.ndarray
    response: np.ndarray
    skysub: np.ndarray
    sky: np.ndarray
    error: np.ndarray
    good: np.ndarray
    dq: np.ndarray
    correlation: np.ndarray
    shared: np.ndarray
    under: np.ndarray
    electron: np.ndarray
    gain: np.ndarray
    coupling: np.ndarray
    lsf: np.ndarray
    covariance: np.ndarray | None
    positions: np.ndarray
    alive: np.ndarray
    refraction: Refraction
    wave: tuple[float, float]
    meta: Mapping

    @property
    def sky_mode(self) -> str:
        return str(self.meta.get("sky_mode", "auto"))

    @property
    def field(self) -> tuple:
        """Positions, grid, flux, variance, sky, good, refraction: what extraction takes."""
        return self.positions, self.grid, self.skysub, self.error**2, self.sky, self.good, self.refraction

    def path_of(self, source: PointSource | None) -> Refraction:
        """The path by refraction: the source's own where it showed one, else the instrument's table."""
        return self.refraction if source is None else source.refracted(self.refraction)

    def centre(self, options: FluxOptions) -> float:
        """Wavelength [A] at which the user's positions hold: the centre of the collapse window."""
        return 0.5 * (self.wave[0] + self.wave[1]) if options.central_wave is None else float(options.central_wave)


@dataclass(frozen=True)
class Measured:
    """The source found in rectified spectra, and its spectrum; see `Calibrated` for what each means."""

    source: PointSource | None
    companion: PointSource | None
    search: dict
    spectrum: ExtractedSpectrum
    limit: float
    centre: float
    shapes: np.ndarray | None
    extraction: Extraction
    air: Transmission | None
    decisions: list[Decision]


def calibrate(
    channel: str,
    cal,
    spectra: Mapping[str, np.ndarray],
    sky: Mapping[str, np.ndarray],
    scale: FluxScale,
    response: np.ndarray,
    options: FluxOptions,
    air: Transmission | None = None,
) -> Calibrated:
    """Calibrate one exposure: rectify, find and extract the source, build cubes.

    Parameters
    ----------
    cal : object with ``alive``, ``lsf``, ``positions``
    spectra : arrays ``amplitude``, ``variance`` (native, e- per column), ``coupling`` (see `Extraction`)
    sky : arrays of the sky stage: ``sky``, ``sky_variance``, ``wavelength``, ``factor``, ``gradient``, ``extra``,
        ``coef``, ``mask``, and ``stray`` where a bright source scatters light; ``sky.meta`` holds the knots
    scale : FluxScale; response : (nw,) on the channel's grid
    air : Transmission, by which the source's spectrum is divided, if any
    """
    even = rectified(channel, cal, spectra, sky, scale, response, covariance=options.covariance)
    return assembled(even, measured(even, options, air), options)


def rectified(
    channel: str,
    cal,
    spectra: Mapping[str, np.ndarray],
    sky: Mapping[str, np.ndarray],
    scale: FluxScale,
    response: np.ndarray,
    *,
    covariance: bool = False,
) -> Rectified:
    """The part of `calibrate` that no choice about the source changes: flux-calibrated spectra on the channel's grid."""
    facts = find_channel(channel)
    grid = facts.wave_grid()
    path = facts.refraction()
    refraction = Refraction(*(np.asarray(path[name], float) for name in ("wavelength", "x", "y")))
    alive, positions = cal.alive, cal.positions
    wavelength = sky["wavelength"]
    unit = sky["factor"] / sky["gradient"][:, None]  # throughput x A per column
    safe = np.where(alive[:, None], np.maximum(unit, 1e-9), 1.0)
    usable = usable_samples(sky["mask"]) & alive[:, None] & (spectra["variance"] > 0)
    rest = np.where(alive[:, None], (fiber_light(spectra, sky) - sky["sky"]) / safe, 0.0)
    variance = np.where(alive[:, None], spectra["variance"] / safe**2, 0.0)
    even = rectify(rest, variance, sky["mask"], usable, wavelength, grid)
    sky_density, sky_var = sky_on_grid(sky, wavelength, grid, safe)
    factor = scale.factor * response
    good = (even.mask == 0) & alive[:, None] & (even.variance > 0)
    error = np.where(good, np.sqrt(np.maximum(even.variance + sky_var, 0)), 0.0) * factor
    skysub = np.where(alive[:, None], even.value, 0.0) * factor
    sky_flux = np.where(alive[:, None], sky_density, 0.0) * factor
    dq = even.mask | np.where(alive[:, None], 0, np.uint8(DQ.DEADFIBER)).astype(np.uint8)
    good = error > 0
    none = str(sky.meta.get("sky_mode", "auto")) == "none"
    under = level_under(skysub, good) if none else np.zeros(grid.size)
    lsf = np.stack(
        [np.interp(grid, wavelength[f], cal.lsf[f] * np.gradient(wavelength[f])) for f in range(wavelength.shape[0])]
    )
    electron = np.stack([np.interp(grid, wavelength[f], alive[f] / safe[f]) for f in range(wavelength.shape[0])]) * factor
    neighbours = neighbour_covariance(variance, usable, wavelength, grid) if covariance else None
    return Rectified(
        grid, factor, response, skysub, sky_flux, error, good, dq, even.correlation, np.sqrt(np.maximum(sky_var, 0)) * factor,
        under, electron, even.gain, coupling_on_grid(spectra["coupling"], wavelength, grid), lsf, neighbours, positions, alive,
        refraction, (facts.wave_min, facts.wave_max), sky.meta,
    )  # fmt: skip


def fiber_light(spectra: Mapping[str, np.ndarray], sky: Mapping[str, np.ndarray]) -> np.ndarray:
    """Light of the fibres (nf, nx) [e- per column], without what a bright source scatters on them; arguments as in `calibrate`."""
    return spectra["amplitude"] - sky["stray"] if "stray" in sky else spectra["amplitude"]


def measured(even: Rectified, options: FluxOptions, air: Transmission | None = None) -> Measured:
    """The part of `calibrate` that choices about the source change: find it, fit it, extract its spectrum."""
    centre = even.centre(options)
    positions, grid, skysub, variance, sky_flux, good, refraction = field = even.field
    found = (from_dict(even.meta.get(name)) for name in ("source", "companion"))
    found = (None if one is None else at_wavelength(one, centre, refraction) for one in found)
    target, others, air_shape = told_apart(*found, options.fixed)
    beside = 0.0 if target is None else light_beside(target, others, *field)
    # The chunks' variances take the correlation of neighbouring elements into account.
    correlated = max(0.2, 1 + 2 * float(even.correlation.sum()))
    middle = 0.5 * (even.wave[0] + even.wave[1])  # where the sky stage's prior holds
    prior = air_shape or prior_from_dict(even.meta["prior"]).moved(middle, centre, refraction)
    near = (target.x, target.y) if target is not None and others else None
    source, search = find_source(
        positions, grid, np.where(good, skysub - even.under - beside, 0.0), variance * correlated, sky_flux + even.under, good,
        refraction, wave_ref=centre, fixed=options.fixed, prior=prior, systematic=float(even.meta["level_scatter"]),
        electron=even.electron, near=near, disk=target is not None and target.disk > 0 and options.fixed is None,
    )  # fmt: skip
    spectrum, shapes, limit = _spectrum(source, others, field, centre, even.shared, (even.coupling, even.gain))
    own_light = skysub - beside if options.extraction == "aperture" else skysub
    spectrum, extraction = extract_as_asked(
        options.extraction, options.aperture, options.aperture_correction, options.extract_region, spectrum, shapes, source,
        (own_light, variance, sky_flux, good), (positions, grid, even.path_of(source), centre), even.coupling, even.shared,
    )  # fmt: skip
    if air is not None:
        spectrum = correct(spectrum, air)
    second = others[0] if others and source is not None else None
    decisions = [*(source.decisions if source is not None else []), *extraction.decisions]
    decisions += [companion_decision(source, second)] if second is not None else []
    return Measured(source, second, search, spectrum, limit, centre, shapes, extraction, air, decisions)


def assembled(even: Rectified, found: Measured, options: FluxOptions) -> Calibrated:
    """The part of `calibrate` that puts everything together: cubes, the collapsed image, errors' correlation."""
    neighbours = None if even.covariance is None else correlation(even.covariance, even.error / even.factor)
    spaxels = spaxel_grid(even.positions)
    values = [even.skysub + even.sky, even.sky, even.skysub]
    path = even.path_of(found.source)
    place = (even.positions, even.grid, path, found.centre, spaxels)
    cubes = dict(zip(("obs", "sky", "skysub"), build_cube(values, even.good, *place), strict=True))
    collapsed = collapse(cubes["skysub"], even.grid, found.centre, options.wavelength_bin)
    air = found.air
    choices = {"sky_mode": even.sky_mode, "extraction": found.extraction.how, "telluric": air.kind if air else "none"}
    return Calibrated(
        even.grid, even.response, even.skysub, even.sky, even.error, even.dq, even.correlation, found.source, found.companion,
        found.search, found.spectrum, found.limit, path, found.centre, options.wavelength_bin, even.positions,
        even.alive, cubes, spaxels, collapsed, even.lsf, found.shapes, found.decisions, found.extraction, air, neighbours,
        choices,
    )  # fmt: skip


def collapsed_image(
    even: Rectified, source: PointSource | None, centre: float, half_width: float
) -> tuple[np.ndarray, Grid]:
    """The collapsed image (ny, nx) of `assembled` alone, and its spaxels: of a window [A] that need not be the run's."""
    spaxels = spaxel_grid(even.positions)
    cube = build_cube([even.skysub], even.good, even.positions, even.grid, even.path_of(source), centre, spaxels)[0]
    return collapse(cube, even.grid, centre, half_width), spaxels


def level_under(value: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Median over the fibres at each wavelength, (nw,): where no sky is subtracted, a source is what stands above it."""
    some = good.any(axis=0)
    level = np.zeros(value.shape[1])
    level[some] = np.nanmedian(np.where(good, value, np.nan)[:, some], axis=0)
    return level


def sky_on_grid(sky, wavelength: np.ndarray, grid: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sky model (nf, nw) [e-/A] evaluated anew on the grid with each fibre's line width, and its variance."""
    spectrum = CommonSpectrum(float(sky.meta["start"]), float(sky.meta["step"]), sky["coef"], np.zeros((1, 1)))
    nf = wavelength.shape[0]
    extra = np.stack([np.interp(grid, wavelength[f], sky["extra"][f]) for f in range(nf)])
    density = spectrum(np.broadcast_to(grid, extra.shape).copy(), extra) * sky["gradient"][:, None]
    if "correction" in sky:
        density += np.stack([np.interp(grid, wavelength[f], sky["correction"][f] / unit[f]) for f in range(nf)])
    native = sky["sky_variance"] / unit**2
    variance = np.stack([np.interp(grid, wavelength[f], native[f]) for f in range(nf)])
    outside = (grid[None, :] < wavelength[:, :1]) | (grid[None, :] > wavelength[:, -1:])
    return np.where(outside, 0.0, density), variance


def coupling_on_grid(coupling: np.ndarray, wavelength: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Correlation (nf, nw) of each fibre's error with the next one's on the grid, from that (nf, nb) of blocks of columns."""
    nf, nx = wavelength.shape
    middle = np.minimum(np.arange(coupling.shape[1]) * BLOCK + BLOCK // 2, nx - 1)
    return np.stack([np.interp(grid, wavelength[f, middle], coupling[f]) for f in range(nf)])


def _spectrum(
    source: PointSource | None,
    others: list[PointSource],
    field: tuple,
    centre: float,
    shared: np.ndarray,
    between: tuple[np.ndarray, np.ndarray],
):
    """Spectrum of the source, or zeros; shapes; and the 5-sigma limit of a point source in mid-field.

    ``between`` is the coupling of the fibres and the gain of the interpolation.
    """
    positions, grid, skysub, variance, sky, good, refraction = field
    data = (skysub, variance, sky, good)
    if source is None:
        zero = np.zeros(grid.size)
        blank = PointSource(0.0, 0.0, centre, 1.5, -0.2, 3.5, 0.0, {}, True, 0.0, zero[:1], zero[:1], zero[:1])
        found = extract_source(source_shapes(blank, positions, grid, refraction), *data, shared, *between)
        return ExtractedSpectrum(zero, zero.copy(), zero.copy(), zero.copy(), zero.copy()), None, _limit(found)
    shapes = source_shapes(source, positions, grid, refraction)
    beside = [source_shapes(other, positions, grid, refraction) for other in others]
    spectrum = extract_source(shapes, *data, shared, *between, beside)
    return spectrum, shapes, _limit(spectrum)


def _limit(spectrum: ExtractedSpectrum) -> float:
    """What a point source must have to be seen, median over the channel."""
    usable = spectrum.error > 0
    return LIMIT_SIGMA * float(np.median(spectrum.error[usable])) if usable.any() else float("nan")
