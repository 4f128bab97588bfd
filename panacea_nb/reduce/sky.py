"""Sky model on native pixels: one super-sampled spectrum, each fibre's line width, throughput and place in the field."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from ..decisions import Decision
from ..errors import PanaceaError
from .arrays import plain
from .flat import knot_step, reference_variance
from .skykernels import SHIFT_TERMS, WIDTH_TERMS, compare, slit_equations, slit_field
from .skytilt import levels_beside, line_levels
from .spline import CommonSpectrum, fit_common

CLIP_SIGMA = 4.5  # single samples
CLIP_RUN = 3.5  # means of five neighbouring samples: faint emission lines
MEDIAN_COLUMNS = 500  # of which a first level of each fibre is the median
MODEL_ERROR = 0.01  # of the sky's light, in the comparison with single samples
FLAT_ERROR = 0.003  # what the fibre flat may be wrong by, in the choice of sky fibres
MIN_FIBERS = 20
FAINTEST = 0.14  # share of fibres taken as sky when an object fills the field (found by trial on a galaxy, see docs)
MIN_GRADIENT_SHARE = 0.35  # of the fibres must be free of objects for a gradient of the sky to be told from their light
GRADIENT_PRIOR = 0.02  # of the sky, per polynomial term over the field: night skies and twilight flats tilt by 1-3 %
# px, px^2: shifts and widths across the slit against the calibrations
SLIT_PRIOR = np.array([0.05, 0.05, 0.03, 0.02, 0.02, 0.02, 0.2, 0.2, 0.13])
SLIT_SIGMA = 3.0  # significance that such a term must have
NEIGHBOURHOOD = 0.7  # arcsec, Gaussian sigma over which levels are averaged to find the faintest region
NEIGHBOURS = (1, 2)  # fibres apart, whose levels share the errors of detector rows
SOURCE_ERROR = 0.2  # of a source's light in a fibre: what the model of its wings may be wrong by
MAX_SPREAD = 0.06  # of the fibres' levels below the sky, that is taken for noise of any kind
ROW_NOISE = 0.4  # e- per column that the levels of detector rows leave in a fibre


class SkyError(PanaceaError):
    """No sky could be measured."""


@dataclass(frozen=True)
class SkyModel:
    """Attributes
    ----------
    spectrum : CommonSpectrum, e-/A of the average fibre at the reference line width
    factor : (nf, nx) float64, throughput x gradient x A per px: multiplies the spectrum to give e- per column
    extra : (nf, nx) float64, line variance beyond the reference [A^2]
    wavelength : (nf, nx) float64 [A], corrected for the fibres' relative shifts
    gradient : (nf,) float64, sky level of each fibre relative to the field's mean
    terms : dict, fitted coefficients: shift [px], width [px^2], gradient
    fibers : (nf,) bool, fibres taken as sky
    level : (nf,) float64, light of each fibre over the sky model
    level_error : (nf,) float64
    chi : float, robust RMS of (measured - model) / sigma of the sky fibres
    level_scatter : float, scatter of the sky fibres' levels beyond their noise: flat errors, row noise of the electronics
    decisions : list of Decision
    """

    spectrum: CommonSpectrum
    factor: np.ndarray
    extra: np.ndarray
    wavelength: np.ndarray
    gradient: np.ndarray
    terms: dict[str, np.ndarray]
    fibers: np.ndarray
    level: np.ndarray
    level_error: np.ndarray
    chi: float
    level_scatter: float
    decisions: list[Decision] = field(default_factory=list)

    def native(self) -> np.ndarray:
        """The model (nf, nx) [e- per column]."""
        return self.spectrum(self.wavelength, self.extra) * self.factor

    def native_variance(self) -> np.ndarray:
        """Variance of `native` from that of the fitted spectrum."""
        low, high = float(self.wavelength.min()), float(self.wavelength.max())
        nodes = np.linspace(low, high, 2 * self.spectrum.coef.size)
        variance = self.spectrum.variance(nodes)
        return np.interp(self.wavelength, nodes, variance) * self.factor**2


def field_basis(positions: np.ndarray, degree: int) -> np.ndarray:
    """Polynomial terms (nf, m) of the field position [arcsec], without the constant, each of mean zero."""
    x, y = positions[:, 0] / 6.0, positions[:, 1] / 3.5
    terms = []
    if degree >= 1:
        terms += [x, y]
    if degree >= 2:
        terms += [x * x, x * y, y * y]
    if not terms:
        return np.zeros((positions.shape[0], 0))
    basis = np.stack(terms, axis=1)
    return basis - basis.mean(axis=0)


def fiber_levels(amplitude: np.ndarray, weight: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale of each fibre's spectrum to the model, and its error (statistical and flat)."""
    norm = (weight * model**2).sum(axis=1)
    scale = np.divide((weight * model * amplitude).sum(axis=1), norm, out=np.full(norm.size, np.nan), where=norm > 0)
    error = np.sqrt(np.divide(1.0, norm, out=np.full(norm.size, np.inf), where=norm > 0) + FLAT_ERROR**2)
    return scale, error


def level_scatter(level: np.ndarray, noise: np.ndarray, fibers: np.ndarray) -> float:
    """Scatter of the fibres' levels (nf,) beyond their ``noise``, as a sum over neighbours has it.

    Levels of detector rows make errors that neighbouring fibres share: the light of a source falls on fibres that lie side by
    side, so it meets them together.  `FLAT_ERROR` at least.
    """
    rest = np.where(fibers, level - np.median(level[fibers]), 0.0)
    spread = 1.4826 * float(np.median(np.abs(rest[fibers])))
    limit = 4.0 * max(spread, 1e-12)
    rest = np.clip(rest, -limit, limit)
    shared = 0.0
    for lag in NEIGHBOURS:
        both = fibers[lag:] & fibers[:-lag]
        if both.sum() > MIN_FIBERS:
            shared += 2.0 * float(np.mean((rest[lag:] * rest[:-lag])[both]))
    alone = spread**2 - float(np.median(noise[fibers])) ** 2
    return float(np.sqrt(max(alone + max(shared, 0.0), FLAT_ERROR**2)))


def _with_row_noise(error: np.ndarray, sky: float) -> np.ndarray:
    """Errors of the levels, with the noise of detector rows where it is large against the ``sky`` [e- per column].

    Else a faint sky's fibres would be chosen by that noise: the faint ones, or the bright ones.
    """
    share = ROW_NOISE / max(sky, 1e-9)
    return np.hypot(error, share) if share > MAX_SPREAD else error


def choose_fibers(
    level: np.ndarray, error: np.ndarray, alive: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, int]:
    """Fibres that hold sky alone, and the degree of gradient that they can carry.

    Starts from the faintest third, fits a plane, and takes in every fibre that agrees with it, until nothing changes.  An object
    that fills the field leaves few; then the faintest `FAINTEST` are taken as they are.

    Returns
    -------
    fibers : (nf,) bool, degree : int (0, 1 or 2)
    """
    usable = alive & np.isfinite(level)
    order = np.sort(level[usable])
    chosen = usable & (level <= order[max(MIN_FIBERS, order.size // 3) - 1])
    degree = 1
    for turn in range(12):
        basis = np.column_stack([np.ones(level.size), field_basis(positions, degree)])
        rest = level - fit_plane(basis, level, error, chosen)
        if turn == 0:
            # The faintest third is a biased sample: its mean lies below the sky's by about a sigma.
            rest = rest - np.median(rest[usable & (rest < 3 * error)])
        below = rest[usable & (rest < 0)]
        spread = 1.4826 * np.median(-below) if below.size > 5 else 0.0
        sigma = np.maximum(error, min(spread, MAX_SPREAD))
        new = usable & (rest < 2.5 * sigma) & (rest > -4 * sigma)
        if new.sum() < MIN_FIBERS:
            break
        share = new.sum() / usable.sum()
        degree = 2 if share > 0.7 else 1
        if (new == chosen).all():
            break
        chosen = new
    if chosen.sum() < 0.35 * usable.sum():
        return faintest_fibers(level, error, usable, positions), 0
    return chosen, degree


def fit_plane(basis: np.ndarray, level: np.ndarray, error: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Smooth levels (nf,) through those of the chosen fibres.

    Each term but the constant has a prior of `GRADIENT_PRIOR`, so that a few fibres on one side of the field, or levels that
    scatter more than their errors say, do not invent a gradient that no sky has.
    """
    sigma = error[chosen]
    for _ in range(2):
        normal = (basis[chosen].T / sigma**2) @ basis[chosen]
        normal[np.arange(1, basis.shape[1]), np.arange(1, basis.shape[1])] += 1.0 / GRADIENT_PRIOR**2
        centre = np.average(level[chosen], weights=sigma**-2)
        coef = np.linalg.solve(normal, (basis[chosen].T / sigma**2) @ (level[chosen] - centre))
        rest = level[chosen] - centre - basis[chosen] @ coef
        sigma = np.hypot(error[chosen], 1.4826 * np.median(np.abs(rest - np.median(rest))))
    return centre + basis @ coef


def faintest_fibers(level: np.ndarray, error: np.ndarray, usable: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The `FAINTEST` share of the fibres, (nf,) bool, by the mean level of each fibre and its neighbours.

    The mean over neighbours keeps the choice from preferring fibres that are faint by noise or by an error of the flat alone,
    which would make the sky too faint.
    """
    distance = np.hypot(*(positions[:, None, k] - positions[None, :, k] for k in (0, 1)))
    weight = np.exp(-0.5 * (distance / NEIGHBOURHOOD) ** 2) * np.where(usable, 1.0 / error**2, 0.0)[None, :]
    smooth = weight @ np.where(usable, level, 0.0) / np.maximum(weight.sum(axis=1), 1e-30)
    smooth = np.where(usable, smooth, np.inf)
    return usable & (smooth <= np.sort(smooth)[max(MIN_FIBERS, int(FAINTEST * usable.sum())) - 1])


def _faint_third(density: np.ndarray, usable: np.ndarray, may: np.ndarray) -> np.ndarray:
    """The third of the fibres that ``may`` be sky with the faintest median over a part of the columns, (nf,) bool."""
    part = np.where(usable, density, np.nan)[:, :: max(1, density.shape[1] // MEDIAN_COLUMNS)]
    level = np.full(may.size, np.inf)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a fibre without a usable sample in that part
        level[may] = np.nan_to_num(np.nanmedian(part[may], axis=1), nan=np.inf)
    return may & (level <= np.sort(level[may])[max(MIN_FIBERS, may.sum() // 3) - 1])


def fit_sky(
    amplitude: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    wavelength: np.ndarray,
    lsf: np.ndarray,
    throughput: np.ndarray,
    positions: np.ndarray,
    alive: np.ndarray,
    *,
    source: np.ndarray | None = None,
    exclude: np.ndarray | None = None,
    lit: np.ndarray | None = None,
    broad: bool = False,
    fibers: np.ndarray | None = None,
    start: SkyModel | None = None,
    rounds: int = 4,
) -> SkyModel:
    """Fit the sky in the fibres that see nothing else.

    After Bolton & Burles (2007, New J. Phys. 9, 443) and desispec's sky.py in spirit: no spectrum is resampled; the model is
    compared with every native sample through that sample's own wavelength, line width and throughput.  Besides the spectrum,
    small smooth terms are fitted: wavelength shifts and line widths that change across the slit, and the sky's gradient.

    Parameters
    ----------
    amplitude, variance : (nf, nx) [e- per column]
    good : (nf, nx) bool
    wavelength : (nf, nx) [A, air]; lsf : (nf, nx) sigma [px]; throughput : (nf, nx)
    positions : (nf, 2) [arcsec]; alive : (nf,) bool
    source : (nf, nx), optional
        Model of the sources [e- per column], subtracted before the fit.
    exclude : (nf,) bool, optional
        Fibres never taken as sky.
    lit : (nf, nx) bool, optional
        Samples never taken as sky.
    broad : bool
        Whether ``source`` is an object that covers much of the field: the sky's gradient is then told by its lines, see `skytilt`.
    fibers : (nf,) bool, optional
        Sky fibres fixed by the user.
    start : SkyModel, optional
        Of the same frame, with another model of its sources: what it found is the beginning, and two ``rounds`` are enough.
    """
    nf, nx = amplitude.shape
    data = plain(amplitude if source is None else amplitude - source, np.float64)
    variance = plain(variance, np.float64)
    usable = plain((good if lit is None else good & ~lit) & alive[:, None] & (variance > 0), bool)
    base_weight = np.where(usable, 1.0 / np.maximum(variance, 1e-9), 0.0)
    dispersion = np.gradient(wavelength, axis=1)
    lam = wavelength.copy()
    extra = arc_extra = reference_variance(wavelength, lsf, alive)[0]
    gradient = np.ones(nf)
    step = knot_step(wavelength)
    limits = float(wavelength.min()) - 3, float(wavelength.max()) + 3
    f_axis, x_axis = np.linspace(-1, 1, nf), np.linspace(-1, 1, nx)
    clipped, z = np.zeros((nf, nx), bool), np.empty((nf, nx))
    decisions: list[Decision] = []
    may = alive & np.array([usable[f].sum() > nx // 4 for f in range(nf)])
    if exclude is not None:
        may &= ~exclude
    if may.sum() < MIN_FIBERS:
        raise SkyError(
            f"only {int(may.sum())} fibres have enough good samples to serve as sky, {MIN_FIBERS} are needed: the others are "
            "saturated, flagged, dead, or kept from it by --dead-fibers or --sky_exclude: look at the frame, or take the sky from "
            "another exposure with --sky_obsid N"
        )
    if fibers is not None:
        chosen = may & fibers
    elif start is not None and (may & start.fibers).sum() >= MIN_FIBERS:
        chosen = may & start.fibers
    else:
        chosen = _faint_third(data / np.maximum(throughput * dispersion, 1e-9), usable, may)
    # A plane through a few fibres on one side of the field would run away on the other.
    allowed = 0 if (may if fibers is None else may & fibers).sum() < MIN_GRADIENT_SHARE * alive.sum() else 2
    degree = min(1, allowed)
    shift_coef, width_coef = np.zeros(len(SHIFT_TERMS)), np.zeros(len(WIDTH_TERMS))
    if start is not None:
        gradient, lam, extra = start.gradient, start.wavelength, start.extra
        shift_coef, width_coef = start.terms["shift"].copy(), start.terms["width"].copy()
        degree = min(int(start.terms["degree"][0]), allowed)
    spectrum = None
    for turn in range(rounds):
        factor = throughput * dispersion * gradient[:, None]
        weight = np.where(chosen[:, None] & ~clipped, base_weight, 0.0)
        spectrum = fit_common(lam, data, weight, step=step, factor=factor, extra=extra, limits=limits)
        model = spectrum(lam, extra) * factor
        compare(data, model, variance, usable, MODEL_ERROR, CLIP_SIGMA, CLIP_RUN, z, clipped)
        # A fibre that holds an object must not be judged by those of its samples that happen to agree with the sky.
        stray = np.abs(z - np.median(z, axis=1, keepdims=True)) > CLIP_SIGMA
        if turn == rounds - 1:
            break
        level, error = fiber_levels(data, np.where(stray, 0, base_weight), model / gradient[:, None])
        # Where the wings of a source are, a tilt of the sky must not be made of what its model is wrong by.
        share = np.zeros(nf)
        if source is not None:
            share = np.nan_to_num(fiber_levels(source, base_weight, model / gradient[:, None])[0])
        if fibers is None:
            error = _with_row_noise(error, float(np.median(model[chosen])))
            chosen, degree = choose_fibers(level, error, may, positions)
            degree = min(degree, allowed)
        weight = np.where(chosen[:, None] & ~clipped, base_weight, 0.0)
        # Gradient: relative levels of the sky fibres as a low polynomial over the field.
        basis = np.column_stack([np.ones(nf), field_basis(positions, 2 if broad else degree)])
        before = gradient
        if broad:
            clean = np.where(stray | clipped, 0, base_weight)
            lines = line_levels(data, clean, model / before[:, None], throughput * dispersion)
            gradient = levels_beside(basis, (level, np.hypot(error, share)), lines, share, chosen, alive, GRADIENT_PRIOR)
        else:
            gradient = fit_plane(basis, level, np.hypot(error, SOURCE_ERROR * share), chosen)
        gradient = gradient / np.mean(gradient[may])
        # Wavelength shift and line width across the slit, linearised about the current model.
        slope, curve = spectrum.derivatives(lam)
        px = dispersion
        # The fitted spectrum has taken its share of each term; without it the terms are what is left over the mean of the fibres.
        rest = data - model * (gradient / before)[:, None]
        normal, rhs = slit_equations(slope, curve, px, factor, weight, rest, f_axis, x_axis)
        # A faint sky says little: what it does not show clearly is as in the calibrations.
        sure = SLIT_SIGMA / np.sqrt(np.maximum(np.diag(normal), 1e-30))
        normal += np.diag(SLIT_PRIOR**-2)
        rhs -= np.concatenate([shift_coef, width_coef]) / SLIT_PRIOR**2
        scale = np.sqrt(np.diag(normal))
        solution = np.linalg.lstsq(normal / np.outer(scale, scale), rhs / scale, rcond=1e-6)[0] / scale
        solution = np.where(np.abs(solution) > sure, solution, 0.0)
        shift_coef += np.clip(solution[: shift_coef.size], -0.5, 0.5)
        width_coef += np.clip(solution[shift_coef.size :], -1.0, 1.0)
        lam = wavelength + slit_field(shift_coef, SHIFT_TERMS, f_axis, x_axis) * px
        extra = arc_extra + slit_field(width_coef, WIDTH_TERMS, f_axis, x_axis) * px**2
    level, error = fiber_levels(data, np.where(stray, 0, base_weight), model)
    inner = chosen[:, None] & usable & ~clipped
    chi = 1.4826 * float(np.median(np.abs(z[inner])))
    if degree == 0 and fibers is None and allowed > 0:
        decisions.append(
            Decision(
                "SKYFAINT",
                f"an object fills the field: sky from the faintest {int(chosen.sum())} fibres, "
                f"{'its gradient from its lines' if broad else 'no gradient fitted'}; where they hold light of the object, "
                "spectra are too faint: take the sky from another exposure with --sky_obsid N",
                "warn",
            )
        )
    scatter = level_scatter(level, np.sqrt(np.maximum(error**2 - FLAT_ERROR**2, 0)), chosen)
    terms = {"shift": shift_coef, "width": width_coef, "degree": np.array([degree])}
    return SkyModel(
        spectrum,
        throughput * dispersion * gradient[:, None],
        extra,
        lam,
        gradient,
        terms,
        chosen,
        level,
        error,
        chi,
        scatter,
        decisions,
    )
