"""Wavelength zero of a science frame from its own sky: lines of known wavelength, or the shape of known sky spectra."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import legendre
from scipy.ndimage import gaussian_filter1d

from ..instrument import mean_telluric
from .flat import KNOT_PIXELS, smooth_design
from .sky import SkyModel
from .wavebend import LineShifts, line_shifts, smooth_bend

ZERO_ROUNDS = 10
UNLISTED_ROUNDS = (2, 4, 6)  # of the fit, after which lines that the list lacks are looked for
UNLISTED_SIGMA = 6.0  # significance of such a line
GROUPS = 4  # of lines, that are asked for the shift one by one
SLOPE_PRIOR = 0.03  # px per half range, of the shift along a channel
WIDTH_PRIOR = 0.1  # relative, of the lines' widths against those of the arcs
BEND_LINES = 12  # of the sky, from which what the arcs' polynomial does between and beyond their lines can be seen
BEND_ROUNDS = 3  # of measuring a bend and fitting the lines with it: at first lines may be half a pixel from their place


@dataclass(frozen=True)
class WavelengthZero:
    """Shift of the sky's lines against their wavelengths.

    Attributes
    ----------
    shift : float [A] at the channel's middle; slope : float [A per half range]; error : float [A]
    used : bool, whether it is significant enough to be applied
    bend : (k,) [A], Legendre terms over the channel of what sky lines show beside arc lines, empty where that is nothing
    n_lines : int
    model, spectrum, grid : arrays for the figure (fitted and measured sky [e-/A], wavelength [A])
    """

    shift: float
    slope: float
    error: float
    used: bool
    n_lines: int
    grid: np.ndarray
    spectrum: np.ndarray
    model: np.ndarray
    bend: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def offset(self, wave: np.ndarray) -> np.ndarray:
        """How far [A] the calibrations' wavelengths are too large at ``wave`` [A]."""
        z = 2 * (wave - self.grid[0]) / (self.grid[-1] - self.grid[0]) - 1
        bend = legendre.legval(np.clip(z, -1.0, 1.0), self.bend) if self.bend.size else 0.0
        return self.shift + self.slope * z + bend


def zero_from_lines(
    sky: SkyModel,
    lines: np.ndarray,
    lsf_sigma,
    response: tuple[np.ndarray, np.ndarray] | None = None,
    arcs: np.ndarray | None = None,
) -> WavelengthZero:
    """Wavelength zero of the sky model from a list of sky-line wavelengths.

    All listed lines are fitted together with one shift, its slope along the channel where enough lines carry it, and a common
    change of their widths, on a continuum of splines in which the air may absorb.  Lines that the list lacks would pull the listed
    ones beside them: they are found in what the fit leaves and get an amplitude of their own, but no say in the shift.  Pixels that
    nothing explains lose their weight.

    Parameters
    ----------
    lines : (n,) [A, air]
    lsf_sigma : callable-like (n_grid,) array [A]
        Gaussian sigma of the reference line width on ``sky.spectrum``'s own range; a scalar works too.
    response : wavelength [A] and factor from electrons to flux, optional
        The lines are fitted in flux, as users will see them: where the response is steep, a line's centre in electrons lies up to
        0.02 px beside that in flux.
    arcs : (2, m), optional
        The arc lines that the wavelengths rest on [A], and by how much these are too large there [px].  Where they are few, the
        sky's lines may show that their polynomial is wrong between and beyond them, which is then taken out too, see
        `wavebend.smooth_bend`.
    """
    given = sky, lines, lsf_sigma, response
    zero, _ = _fit_lines(*given, np.zeros(0))
    if arcs is None or not arcs.size or zero.n_lines < BEND_LINES:
        return zero
    pixel = sky.spectrum.step / KNOT_PIXELS
    bend = np.zeros(0)
    for _ in range(BEND_ROUNDS):
        # Half of a line that is off its place would look like one that the list lacks.
        _, shifts = _fit_lines(*given, bend, all_listed=True)
        bend = smooth_bend(shifts, _unit(arcs[0], zero.grid), arcs[1], pixel, bend)
        if not bend.size:
            return zero
    return _fit_lines(*given, bend)[0]


def _unit(wave: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Wavelengths as places from -1 to 1 on a grid."""
    return 2 * (wave - grid[0]) / (grid[-1] - grid[0]) - 1


def _fit_lines(
    sky: SkyModel,
    lines: np.ndarray,
    lsf_sigma,
    response: tuple[np.ndarray, np.ndarray] | None,
    bend: np.ndarray,
    all_listed: bool = False,
) -> tuple[WavelengthZero, LineShifts]:
    """The fit of `zero_from_lines` with a given ``bend``.

    With ``all_listed`` no lines are looked for that the list lacks, and it is told what each line would be moved by beside the fit.
    """
    step = sky.spectrum.step / 2
    low, high = float(np.percentile(sky.wavelength, 0.2)), float(np.percentile(sky.wavelength, 99.8))
    grid = np.arange(low, high, step)
    factor = relative_response(grid, response)
    value = sky.spectrum(grid) * factor
    variance = sky.spectrum.variance(grid) * factor**2 + (0.003 * value) ** 2 + 1e-12
    sigma0 = np.broadcast_to(lsf_sigma(grid) if callable(lsf_sigma) else lsf_sigma, grid.shape)
    inside = lines[(lines > low + 8 * step) & (lines < high - 8 * step)]
    n = inside.size
    if n == 0:
        return WavelengthZero(0.0, 0.0, np.inf, False, 0, grid, value, value), LineShifts.none()
    z, at_lines = _unit(grid, grid), _unit(inside, grid)
    bent = legendre.legval(at_lines, bend) if bend.size else 0.0
    with_slope = n >= 8
    terms = [np.ones_like(z), z] if with_slope else [np.ones_like(z)]
    continuum = smooth_design(grid.size, max(6, int((high - low) / 60))).T
    # Light of stars and the moon comes through the air: beside lines, its absorption would look like a shift of these.
    absorbed = 1.0 - mean_telluric(grid)
    if (absorbed > 0).any():
        continuum = np.concatenate([continuum, smooth_design(grid.size, 1).T * absorbed])
    first = continuum.T @ np.linalg.lstsq(continuum.T, value, rcond=None)[0]
    flux = np.maximum(np.interp(inside, grid, value - first), 0)
    moved, wider = np.zeros(2), np.zeros(2)
    unlisted, shifts = np.zeros(0), LineShifts.none()
    weight, error = 1.0 / variance, np.inf
    pixel = sky.spectrum.step / KNOT_PIXELS
    for turn in range(ZERO_ROUNDS):
        where = np.concatenate([inside + moved[0] + moved[1] * at_lines + bent, unlisted])
        sigma = sigma0 * (1 + wider[0] + wider[1] * z)
        u = (grid[None, :] - where[:, None]) / sigma[None, :]
        near = np.abs(u) < 6
        shapes = np.where(near, np.exp(-0.5 * np.where(near, u, 0) ** 2), 0.0)
        shift_slope = (flux[:n, None] * shapes[:n] * u[:n] / sigma[None, :]).sum(axis=0)
        width_slope = (flux[:, None] * shapes * u**2).sum(axis=0)
        columns = np.concatenate(
            [shapes, continuum, [shift_slope * t for t in terms], [width_slope * t for t in terms]]
        )
        at = where.size + continuum.shape[0]  # where the shift stands among the unknowns
        weighted = columns * weight
        normal, rhs = weighted @ columns.T, weighted @ value
        for j in range(at + len(terms), at + 2 * len(terms)):
            normal[j, j] += 1.0 / WIDTH_PRIOR**2
            rhs[j] -= wider[j - at - len(terms)] / WIDTH_PRIOR**2
        if with_slope:
            # What is left of the slope after the arcs is flexure, which is nearly one shift for the whole detector.
            prior = 1.0 / (SLOPE_PRIOR * pixel) ** 2
            normal[at + 1, at + 1] += prior
            rhs[at + 1] -= prior * moved[1]
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
        system = normal / np.outer(scale, scale)
        solution = np.linalg.lstsq(system, rhs / scale, rcond=1e-9)[0] / scale
        model = solution @ columns
        k = len(terms)
        moved[:k] += np.clip(solution[at : at + k], -1.5 * step, 1.5 * step)
        wider[:k] = np.clip(wider[:k] + np.clip(solution[at + k : at + 2 * k], -0.1, 0.1), -0.4, 0.4)
        flux = np.maximum(solution[: where.size], 0)
        rest = (value - model) / np.sqrt(variance)
        spread = 1.4826 * float(np.median(np.abs(rest))) + 1e-9
        weight = 1.0 / variance / np.maximum(1.0, np.abs(rest) / (3 * spread)) ** 2
        error = float(np.sqrt(np.linalg.pinv(system, rcond=1e-9)[at, at])) / scale[at] * max(1.0, spread) * np.sqrt(2)
        if turn == ZERO_ROUNDS - 1 and n >= GROUPS * GROUPS:
            error = max(error, _disagreement(columns, at, flux[:n, None] * shapes[:n] * u[:n] / sigma, weight, value))
        if turn == ZERO_ROUNDS - 1 and all_listed:
            slopes = flux[:n, None] * shapes[:n] * u[:n] / sigma
            others = np.concatenate([columns[:at], columns[at + len(terms) :]])
            shifts = line_shifts(others, slopes, weight, value, at_lines, inside, float(sigma.mean()), pixel)
        if turn in UNLISTED_ROUNDS and not all_listed:
            found = _unlisted_lines(rest, spread, grid, where, float(sigma.mean()))
            unlisted, flux = np.concatenate([unlisted, found]), np.concatenate([flux, np.zeros(found.size)])
    used = bool(np.isfinite(error) and error < 0.06 * 2 * step and abs(moved[0]) < 4 * sigma0.mean())
    slope = float(moved[1]) if with_slope else 0.0
    return WavelengthZero(float(moved[0]), slope, error, used, int(n), grid, value, model, bend), shifts


def _disagreement(columns: np.ndarray, at: int, slopes: np.ndarray, weight: np.ndarray, value: np.ndarray) -> float:
    """Error [A] of a shift from how much groups of lines disagree about it: every fourth line, beginning with the first four.

    What is no line but looks like one (absorption in the continuum, lines that the list lacks) moves single lines much, and is in
    no error that follows from noise.

    Parameters
    ----------
    columns : (m, n_grid) of the fit, in which the shift stands at ``at``; slopes : (n_lines, n_grid), each line's part of it
    """
    groups = np.stack([slopes[k::GROUPS].sum(axis=0) for k in range(GROUPS)])
    split = np.concatenate([columns[:at], groups, columns[at + 1 :]])
    weighted = split * weight
    normal = weighted @ split.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    found = np.linalg.lstsq(normal / np.outer(scale, scale), weighted @ value / scale, rcond=1e-9)[0] / scale
    return float(np.std(found[at : at + GROUPS], ddof=1) / np.sqrt(GROUPS))


def relative_response(wave: np.ndarray, response: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Factor from electrons to flux at ``wave`` [A] in units of its median; 1 where no response is given."""
    if response is None:
        return np.ones(np.shape(wave))
    factor = np.interp(wave, *response)
    return factor / np.median(factor)


def _unlisted_lines(rest: np.ndarray, spread: float, grid: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """Wavelengths of peaks in what the lines leave, in units of its noise, at least a line's sigma from all lines known."""
    width = sigma / (grid[1] - grid[0])
    smooth = gaussian_filter1d(rest, width) * np.sqrt(2 * np.sqrt(np.pi) * width)
    peak = np.flatnonzero((smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])) + 1
    peak = grid[peak[smooth[peak] > UNLISTED_SIGMA * spread]]
    return peak[np.abs(peak[:, None] - where[None, :]).min(axis=1) > sigma] if peak.size else peak


def zero_from_template(sky: SkyModel, template_wave: np.ndarray, templates: np.ndarray) -> WavelengthZero:
    """Wavelength zero from the shape of known night-sky spectra, for a channel without usable lines (uv).

    The measured sky over its own smooth continuum is a mixture of the templates over theirs, moved by a shift.

    Parameters
    ----------
    template_wave : (n,) [A]; templates : (k, n) [proportional to e-/A]
    """
    low = max(float(np.percentile(sky.wavelength, 0.5)), float(template_wave[0]))
    high = min(float(np.percentile(sky.wavelength, 99.5)), float(template_wave[-1]))
    step = sky.spectrum.step
    grid = np.arange(low, high, step)
    value = sky.spectrum(grid)
    variance = sky.spectrum.variance(grid) + 1e-12
    continuum = smooth_design(grid.size, max(8, int((high - low) / 50))).T
    shift, error = 0.0, np.inf
    model = value
    for _ in range(8):
        counts = np.stack([np.interp(grid - shift, template_wave, t) for t in templates])
        # The mixture may change slowly along the channel: each template times a line in wavelength.
        z = np.linspace(-1, 1, grid.size)
        shapes = np.concatenate([counts, counts * z])
        mean = np.linalg.lstsq((shapes / np.sqrt(variance)).T, value / np.sqrt(variance), rcond=1e-8)[0] @ shapes
        derivative = -np.gradient(mean, grid)
        columns = np.concatenate([shapes, continuum, [derivative]])
        dw = columns / variance
        normal = dw @ columns.T
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
        system = normal / np.outer(scale, scale) + 1e-9 * np.eye(scale.size)
        solution = np.linalg.solve(system, (dw @ value) / scale) / scale
        covariance = np.linalg.inv(system) / np.outer(scale, scale)
        model = solution @ columns
        spread = np.sqrt(np.mean(np.clip((value - model) / np.sqrt(variance), -5, 5) ** 2))
        shift += float(np.clip(solution[-1], -0.5 * step, 0.5 * step))
        error = float(np.sqrt(covariance[-1, -1])) * max(1.0, spread)
    used = bool(np.isfinite(error) and error < 0.08 * step and abs(shift) < 2.0 * step)
    return WavelengthZero(shift, 0.0, error, used, 0, grid, value, model)


def corrected_wavelength(sky: SkyModel, zero: WavelengthZero) -> np.ndarray:
    """The wavelength map (nf, nx) with the fibres' relative shifts and the zero taken out."""
    if not zero.used:
        return sky.wavelength
    return sky.wavelength - zero.offset(sky.wavelength)
