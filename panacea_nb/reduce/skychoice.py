"""The user's choices of sky: fibres or region named, the sky of another exposure, refinement, or none at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.polynomial import legendre
from scipy.ndimage import uniform_filter1d

from ..decisions import Decision
from .arrays import fill_gaps
from .flat import reference_variance
from .refraction import Refraction
from .sky import FLAT_ERROR, SkyError, SkyModel, faintest_fibers, fiber_levels, fit_sky
from .skykernels import SHIFT_TERMS, WIDTH_TERMS
from .skyregion import Region, object_fibers, sky_fibers
from .spline import CommonSpectrum

MIN_CHOSEN = (
    5  # fibres named by the user: fewer sample the line-spread function at too few phases, and cosmic rays stay
)
SMOOTH = 61  # columns; what is smoother belongs to objects, not to sky lines, when two skies are compared
MAX_SCALE_ERROR = 0.03  # of the factor between two skies from their lines; beyond, the exposure times say more
TIME_ERROR = 0.05  # of that factor from the exposure times: illumination of the mirror and the sky itself change
OBJECT_LINE = 0.1  # of the sky's line: a mean residual beyond is an emission line of the object
LINE_SIGMA = 5.0


@dataclass(frozen=True)
class OtherSky:
    """The sky that another exposure of the channel left.

    Attributes
    ----------
    name : str, observation and exposure
    spectrum : CommonSpectrum (without its normal matrix), e-/A
    wave, variance : (n,) [A] and [(e-/A)^2] of the fitted spectrum
    exptime : float [s]
    """

    name: str
    spectrum: CommonSpectrum
    wave: np.ndarray
    variance: np.ndarray
    exptime: float


@dataclass(frozen=True)
class SkyChoice:
    """What the user asked for; see the command line's help.

    Attributes
    ----------
    mode : str: auto, region, mask, exposure or none
    region, exclude : Region or None
    fibers : (nf,) bool or None, of a mask
    other : OtherSky or None; exptime : float [s] of this exposure
    degree : int, of the factor between the two skies along wavelength
    refine : str: none, polynomial or pca
    """

    mode: str = "auto"
    region: Region | None = None
    exclude: Region | None = None
    fibers: np.ndarray | None = None
    other: OtherSky | None = None
    exptime: float = 0.0
    degree: int = 0
    refine: str = "none"

    def decision(self, n_fibers: int) -> Decision:
        """What was done, for report and log; ``n_fibers`` were taken as sky."""
        how = {
            "auto": f"{n_fibers} fibres without an object",
            "region": f"{n_fibers} fibres in {self.region.text if self.region else ''}",
            "mask": f"the {n_fibers} fibres that were named",
            "exposure": f"exposure {self.other.name if self.other else ''}",
            "none": "none is subtracted, as asked for; the model only serves to find cosmic rays",
        }[self.mode]
        beside = f", without the object's {self.exclude.text}" if self.exclude else ""
        return Decision("SKYMODE", f"sky: {how}{beside}", "info")

    def facts(self) -> dict[str, object]:
        """The choice as plain values, for the next stage and the headers."""
        return {
            "sky_mode": self.mode,
            "sky_region": self.region.text if self.region else "",
            "sky_exclude": self.exclude.text if self.exclude else "",
            "sky_other": self.other.name if self.other else "",
            "sky_refine": self.refine,
        }


@dataclass(frozen=True)
class AdjustedSky(SkyModel):
    """A sky model whose spectrum was not fitted to this frame, or to which a correction was added.

    Attributes
    ----------
    fixed_variance : (nf, nx) or None, of the spectrum's part [e-^2 per column], where no normal matrix tells it
    correction, correction_variance : (nf, nx) or None [e- per column], added to the spectrum's part
    scale : (k,) Legendre coefficients of the factor to the other exposure's sky, or None; scale_error : (k,)
    """

    fixed_variance: np.ndarray | None = None
    correction: np.ndarray | None = None
    correction_variance: np.ndarray | None = None
    scale: np.ndarray | None = None
    scale_error: np.ndarray | None = None

    def native(self) -> np.ndarray:
        """The model (nf, nx) [e- per column]."""
        model = super().native()
        return model if self.correction is None else model + self.correction

    def native_variance(self) -> np.ndarray:
        """Variance of `native`."""
        own = super().native_variance() if self.fixed_variance is None else self.fixed_variance
        return own if self.correction_variance is None else own + self.correction_variance


def adjusted(sky: SkyModel, **changes: object) -> AdjustedSky:
    """A sky model with a correction added to it."""
    if isinstance(sky, AdjustedSky):
        return replace(sky, **changes)
    return AdjustedSky(**{item.name: getattr(sky, item.name) for item in fields(SkyModel)}, **changes)


def sky_fit(
    choice: SkyChoice, positions: np.ndarray, refraction: Refraction, wave: tuple[float, float], reference: float
) -> Callable[..., SkyModel]:
    """The function that fits the sky as the user chose it, to be called as `fit_sky`.

    Parameters
    ----------
    positions : (nf, 2) [arcsec]; wave : first and last wavelength of the channel [A]
    reference : float [A], wavelength at which the user's regions hold

    Raises
    ------
    SkyError
        When the choice leaves fewer than `MIN_CHOSEN` fibres.
    """
    if choice.mode == "exposure":
        return lambda *data, **how: borrowed_sky(choice, *data, source=how.get("source"))
    barred = np.zeros(positions.shape[0], bool)
    if choice.exclude is not None:
        barred = object_fibers(choice.exclude, positions, wave, refraction, reference)
    if choice.mode in ("region", "mask"):
        fibers = choice.fibers
        if choice.mode == "region":
            fibers = sky_fibers(choice.region, positions, wave, refraction, reference)
        return lambda *data, **how: _fit_named(fibers & ~barred, *data, **how)
    if not barred.any():
        return fit_sky

    def fit(*data, exclude=None, **how):
        return fit_sky(*data, exclude=barred if exclude is None else barred | exclude, **how)

    return fit


def _fit_named(
    fibers: np.ndarray,
    *data: np.ndarray,
    exclude: np.ndarray | None = None,
    lit: np.ndarray | None = None,
    **how: object,
) -> SkyModel:
    """`fit_sky` with the fibres that were named and no others; a source in them is subtracted, not avoided."""
    count = int((fibers & data[7]).sum())
    if count < MIN_CHOSEN:
        raise SkyError(
            f"{count} living fibres were named as sky, {MIN_CHOSEN} are needed: name a larger region or more fibres"
        )
    return fit_sky(*data, fibers=fibers, **how)


def high_pass(rows: np.ndarray) -> np.ndarray:
    """Rows without what is smooth over `SMOOTH` columns."""
    return rows - uniform_filter1d(rows, SMOOTH, axis=1, mode="nearest")


def borrowed_sky(
    choice: SkyChoice,
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
) -> AdjustedSky:
    """The sky of another exposure, seen through this frame's own wavelengths, line widths and throughput.

    An object that fills the field leaves no fibre with sky alone, yet sky lines are narrow and everywhere: the factor between
    the two skies (a polynomial along the channel where asked for) and a shift in wavelength are fitted to what lies above the
    smooth light of each fibre.  Where the lines do not tell the factor, as in uv, it is that of the exposure times.

    Arrays as in `fit_sky`.
    """
    other = choice.other
    data = amplitude if source is None else amplitude - source
    usable = good & alive[:, None] & (variance > 0)
    extra, _ = reference_variance(wavelength, lsf, alive)
    dispersion = np.gradient(wavelength, axis=1)
    unit = throughput * dispersion
    low, high = float(wavelength.min()), float(wavelength.max())
    terms = legendre.legvander(2 * (wavelength - low) / (high - low) - 1, choice.degree)
    start = choice.exptime / other.exptime if choice.exptime > 0 and other.exptime > 0 else 1.0
    scale, moved = np.zeros(choice.degree + 1), 0.0
    scale[0] = start
    spectrum, covariance = other.spectrum, np.eye(choice.degree + 2)
    clipped = np.zeros(usable.shape, bool)
    for _ in range(5):
        spectrum = replace(other.spectrum, start=other.spectrum.start + moved)
        light = spectrum(wavelength, extra) * unit
        slope = spectrum.derivatives(wavelength)[0] * unit * (terms @ scale)
        model = light * (terms @ scale)
        rest = high_pass(fill_gaps(data - model, usable & ~clipped))
        sigma2 = np.maximum(variance, 1e-9) + (0.01 * model) ** 2
        lines = high_pass(model)
        weight = np.where(usable & ~clipped, 1.0 / sigma2, 0.0)
        columns = np.stack(
            [*(high_pass(light * terms[..., k]).ravel() for k in range(scale.size)), -high_pass(slope).ravel()]
        )
        normal = (columns * weight.ravel()) @ columns.T
        covariance = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
        step = covariance @ ((columns * weight.ravel()) @ rest.ravel())
        scale = scale + step[:-1]
        moved += float(np.clip(step[-1], -1.0, 1.0))
        left = high_pass(fill_gaps(data - model, usable)) - (step @ columns).reshape(data.shape)
        clipped = (np.abs(left) > LINE_SIGMA * np.sqrt(sigma2)) | _object_lines(left, lines, sigma2, usable, wavelength)
    decisions = []
    error = np.sqrt(np.diag(covariance)[:-1])
    if not (error[0] < MAX_SCALE_ERROR * abs(scale[0]) and scale[0] > 0):
        why = f"the sky lines give {scale[0]:.2f} +- {error[0]:.2f}"
        scale, error, moved = np.zeros(scale.size), np.zeros(scale.size), 0.0
        scale[0], error[0] = start, TIME_ERROR * start
        covariance = np.diag([*error**2, 0.0])
        text = f"factor {start:.3f} to the sky of {other.name} from the exposure times ({why})"
        decisions.append(Decision("SKYSCALE", text, "warn"))
    spectrum = replace(other.spectrum, start=other.spectrum.start + moved)
    knots = spectrum.start + spectrum.step * (np.arange(spectrum.coef.size) - 1)  # where each spline has its peak
    along = legendre.legval(np.clip(2 * (knots - low) / (high - low) - 1, -1.2, 1.2), scale)
    spectrum = replace(spectrum, coef=spectrum.coef * along)
    factor_variance = np.einsum("...i,ij,...j->...", terms, covariance[:-1, :-1], terms)
    light = other.spectrum(wavelength - moved, extra)
    own = np.interp(wavelength - moved, other.wave, other.variance) * (terms @ scale) ** 2
    fixed = (own + factor_variance * light**2) * unit**2
    model = spectrum(wavelength, extra) * unit
    level, level_error = fiber_levels(data, np.where(usable & ~clipped, 1.0 / np.maximum(variance, 1e-9), 0.0), model)
    fibers = faintest_fibers(
        np.where(np.isfinite(level), level, np.inf), level_error, alive & np.isfinite(level), positions
    )
    pull = ((data - model) / np.sqrt(np.maximum(variance, 1e-9)))[fibers[:, None] & usable & ~clipped]
    text = f"sky of exposure {other.name} times {scale[0]:.4f} +- {error[0]:.4f}, moved by {moved:.3f} A"
    decisions.insert(0, Decision("SKYEXPOSURE", text, "info"))
    terms = {"shift": np.zeros(len(SHIFT_TERMS)), "width": np.zeros(len(WIDTH_TERMS)), "degree": np.array([0])}
    return AdjustedSky(
        spectrum, unit, extra, wavelength, np.ones(positions.shape[0]), terms, fibers, level, level_error,
        1.4826 * float(np.median(np.abs(pull))) if pull.size else float("nan"), FLAT_ERROR, decisions,
        fixed_variance=fixed, scale=scale, scale_error=error,
    )  # fmt: skip


def _object_lines(
    rest: np.ndarray, lines: np.ndarray, sigma2: np.ndarray, usable: np.ndarray, wavelength: np.ndarray
) -> np.ndarray:
    """Samples (nf, nx) bool at wavelengths where the fibres' mean residual is an object's emission line."""
    low, step = float(wavelength.min()), float(np.median(np.diff(wavelength, axis=1)))
    index = ((wavelength - low) / step).astype(int)
    size = index.max() + 1
    weight = np.where(usable, 1.0 / sigma2, 0.0).ravel()
    total = np.bincount(index.ravel(), weight, size)
    safe = np.maximum(total, 1e-30)
    mean = np.bincount(index.ravel(), weight * rest.ravel(), size) / safe
    line = np.bincount(index.ravel(), weight * lines.ravel(), size) / safe
    marked = (np.abs(mean) * np.sqrt(total) > LINE_SIGMA) & (np.abs(mean) > OBJECT_LINE * np.abs(line))
    return marked[index]
