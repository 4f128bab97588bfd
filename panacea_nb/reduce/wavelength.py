"""Wavelengths and line-spread function of every fibre from arc lamps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import legendre
from scipy.ndimage import gaussian_filter1d
from scipy.signal.windows import tukey

from ..decisions import Decision
from ..errors import PanaceaError, RequestError
from .arclines import LineFits, blend_error, measure_lines, odd_lines

SAME_LINE = 0.5  # A, from a line of the list: it is the one that was named
# Degrees along the chip and in all that are tried, without and with a known map.  Few lines tell the dispersion, but all fibres the
# shape of the slit: it may have terms of higher degree.
DEGREES = ((3, 3), (3, 4), (3, 5), (4, 4), (4, 5), (5, 5))
DEGREES_BESIDE = ((1, 1), (2, 2), (3, 3), (3, 4), (3, 5))
LSF_DEGREES = ((2, 2), (2, 3), (2, 4), (3, 3), (3, 4), (4, 4))  # of the lines' widths, along the chip and in all
WIDTH_ERROR = 0.02  # px, of a line's width that no noise explains
EMPTY_STRETCH = 0.15  # of the chip without an arc line is worth a warning
MUCH_LONGER = 2.0  # than the longest between the lines of the list
MAX_RMS = 0.35  # px; a solution worse than this is none
_OTHER_ARCS = "choose other arcs with --cal-date cmp=YYYYMMDD"


class WavelengthError(PanaceaError):
    """No wavelength solution could be found."""


class LineChoiceError(RequestError):
    """An arc line that was to be left out is none."""


@dataclass(frozen=True)
class WavelengthSolution:
    """Attributes
    ----------
    wavelength : (nf, nx) float64 [A, air], at pixel centres
    lsf : (nf, nx) float32, Gaussian sigma of the line-spread function [px], the pixel's own width not included
    lines : LineFits
    used : (nl, nf) bool, measurements in the final fit
    residual : (nl, nf) float [px], measured minus fitted centre; NaN where not measured
    rms : float [px], robust, over the used measurements
    degree : int, total degree of the fit
    decisions : list of Decision
    """

    wavelength: np.ndarray
    lsf: np.ndarray
    lines: LineFits
    used: np.ndarray
    residual: np.ndarray
    rms: float
    degree: int
    decisions: list[Decision] = field(default_factory=list)

    def lines_used(self) -> np.ndarray:
        """Lines used in a quarter of the fibres or more: wavelengths [A], and how much the solution is too large there [px]."""
        many = np.flatnonzero(self.used.sum(axis=1) >= self.used.shape[1] // 4)
        left = [np.median(self.residual[i][self.used[i]]) for i in many]
        return np.array([self.lines.wavelength[many], left])


def without_lines(lines, dropped: str):
    """The table of arc lines without those that the user drops, and the decision that says so.

    Parameters
    ----------
    lines : table with ``wavelength`` [A, air]
    dropped : str, wavelengths separated by commas, each within `SAME_LINE` of a line

    Raises
    ------
    LineChoiceError
    """
    wave = np.asarray(lines["wavelength"], float)
    keep = np.ones(wave.size, bool)
    for word in filter(None, dropped.split(",")):
        nearest = int(np.argmin(np.abs(wave - float(word))))
        if abs(wave[nearest] - float(word)) > SAME_LINE:
            raise LineChoiceError(
                f"--drop-lines: there is no arc line at {word} A; the nearest listed one is {wave[nearest]:.2f} A"
            )
        keep[nearest] = False
    if keep.all():
        return lines, []
    text = f"arc lines left out by hand: {', '.join(f'{w:.2f}' for w in wave[~keep])} A"
    return lines[keep], [Decision("LINESOFF", text, "info")]


def relative_shifts(spectra: np.ndarray, dead: np.ndarray, reach: int = 8) -> np.ndarray:
    """Smooth shift [px] of every fibre's arc against the middle fibre, by correlating neighbours outwards from the middle."""
    nf, nx = spectra.shape
    # Lines only, compressed: a saturated lamp line must not decide alone.
    lines = spectra - gaussian_filter1d(
        np.minimum(spectra, np.percentile(spectra, 90, axis=1, keepdims=True)), 60, axis=1
    )
    lines = np.sqrt(np.maximum(lines, 0))
    lines = gaussian_filter1d(lines, 1.5, axis=1)
    lines -= lines.mean(axis=1, keepdims=True)
    # A line at the edge of the chip must not come in from one side.
    lines *= tukey(nx, 8 * reach / nx)
    alive = np.flatnonzero(~dead)
    lags = np.arange(-reach, reach + 1)
    steps = np.zeros(nf)
    core = slice(reach, nx - reach)
    for a, b in zip(alive[:-1], alive[1:], strict=True):
        value = np.array([(lines[a, core] * lines[b, reach + k : nx - reach + k]).sum() for k in lags])
        i = int(np.clip(np.argmax(value), 1, lags.size - 2))
        curve = value[i - 1] - 2 * value[i] + value[i + 1]
        steps[b] = lags[i] + (0.5 * (value[i - 1] - value[i + 1]) / curve if curve < 0 else 0.0)
    shift = np.cumsum(steps)
    return shift - np.interp(nf // 2, alive, shift[alive])


def match_pattern(spectrum: np.ndarray, columns: np.ndarray, intensity: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Where the listed lines lie in one spectrum: columns moved by a shift and a stretch that best meet its peaks.

    Returns
    -------
    columns : (nl,) [px]; score : mean height of the spectrum at the lines, in its own noise; runner_up : at another shift
    """
    nx = spectrum.size
    local = gaussian_filter1d(spectrum, 40)
    noise = 1.4826 * np.median(np.abs(spectrum - np.median(spectrum))) + 1e-9
    peaks = gaussian_filter1d(np.log1p(np.maximum(spectrum - np.minimum(local, np.median(spectrum)), 0) / noise), 1.5)
    weight = np.sqrt(np.maximum(intensity, 0.01 * intensity.max()))
    shifts, stretches = np.arange(-70, 70.1, 1.0), np.arange(-0.03, 0.0301, 0.0015)
    s, k = np.meshgrid(shifts, stretches, indexing="ij")
    middle = 0.5 * (nx - 1)
    where = columns + s[..., None] + k[..., None] * (columns - middle)
    inside = (where > 3) & (where < nx - 4)
    height = np.interp(where, np.arange(nx), peaks) * inside * weight
    score = height.sum(axis=-1) / weight.sum()
    i, j = np.unravel_index(np.argmax(score), score.shape)
    far = np.abs(s - shifts[i]) > 12
    return columns + shifts[i] + stretches[j] * (columns - middle), float(score[i, j]), float(score[far].max())


def predicted_columns(spectra: np.ndarray, dead: np.ndarray, lines, reference: np.ndarray | None) -> np.ndarray:
    """First guess (nl, nf) of the listed lines' columns in each fibre.

    ``lines`` has wavelength, column and intensity; ``reference`` is a known wavelength map (nf, nx), or None.
    """
    nf, nx = spectra.shape
    binning = 1 if nx > 1500 else 2
    wave, column = np.asarray(lines["wavelength"], float), np.asarray(lines["column"], float) / binning
    intensity = np.asarray(lines["intensity"], float)
    if reference is not None:
        x = np.arange(nx)
        guess = np.stack([np.interp(wave, reference[f], x, left=np.nan, right=np.nan) for f in range(nf)], axis=1)
        # The whole map may have moved: one shift for all fibres from the strongest lines.
        strong = np.argsort(intensity)[::-1][:4]
        offsets = np.arange(-25, 25.25, 0.25)
        sample = np.flatnonzero(~dead)[::7]
        smooth = gaussian_filter1d(np.log1p(np.maximum(spectra, 0)), 1.5, axis=1)
        score = np.zeros(offsets.size)
        for f in sample:
            at = guess[strong, f][:, None] + offsets
            score += np.nansum(np.where(np.isfinite(at), np.interp(at, x, smooth[f]), np.nan), axis=0)
        return guess + offsets[int(np.argmax(score))]
    shift = relative_shifts(spectra, dead, reach=max(3, 8 // binning))
    alive = np.flatnonzero(~dead)
    centre = alive[np.argmin(np.abs(alive - nf // 2))]
    x = np.arange(nx)
    near = alive[np.abs(alive - centre) <= 8]
    typical = np.median([np.interp(x + shift[f] - shift[centre], x, spectra[f]) for f in near], axis=0)
    columns, score, runner_up = match_pattern(typical, column, intensity)
    if score < 1.0 or score < 1.05 * runner_up:
        raise WavelengthError(
            f"the listed arc lines do not fit the lamps' spectrum (score {score:.2f}, next best {runner_up:.2f}): "
            "is a lamp missing or saturated? Choose other arcs with --cal-date cmp=YYYYMMDD"
        )
    return columns[:, None] + (shift - shift[centre])[None, :]


def _unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return 2 * (values - low) / (high - low) - 1


def _vander(x: np.ndarray, f: np.ndarray, degree: int, along: int | None = None) -> np.ndarray:
    """2-D Legendre terms of total ``degree``, the degree along columns limited to ``along``."""
    a = legendre.legvander(x, degree)
    b = legendre.legvander(f, degree)
    top = degree if along is None else min(along, degree)
    return np.stack([a[..., i] * b[..., j] for i in range(top + 1) for j in range(degree - i + 1)], axis=-1)


def _fitted(design: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Least squares with thousands of rows (n, m) and few columns, by their normal equations: Legendre terms do well."""
    return np.linalg.lstsq(design.T @ design, design.T @ value, rcond=1e-12)[0]


def fit_wavelength(lines: LineFits, shape: tuple[int, int], reference: np.ndarray | None, dead: np.ndarray):
    """2-D Legendre polynomial wavelength(column, fibre), outliers rejected, degree chosen by the Bayesian information criterion.

    With a ``reference`` map the polynomial describes the difference from it.

    Returns
    -------
    wavelength (nf, nx), used (nl, nf), residual (nl, nf) [px], rms [px], degree
    """
    nf, nx = shape
    f_axis = _unit(np.arange(nf, dtype=float), 0, nf - 1)
    target = np.repeat(lines.wavelength[:, None], nf, axis=1)
    if reference is not None:
        x = np.arange(nx)
        target = target - np.stack([np.interp(lines.centre[:, f], x, reference[f]) for f in range(nf)], axis=1)
    dispersion = np.abs(np.median(np.diff(reference, axis=1))) if reference is not None else None
    if dispersion is None:
        seen = lines.good.any(axis=1)
        if seen.sum() < 2:
            raise WavelengthError(
                "no arc line was measured: are the lamps exposed? Choose other arcs with --cal-date cmp=YYYYMMDD"
            )
        middle = np.array([np.median(c[g]) for c, g in zip(lines.centre[seen], lines.good[seen], strict=True)])
        dispersion = abs(np.polyfit(middle, lines.wavelength[seen], 1)[0])
    cx, cf = _unit(lines.centre, 0, nx - 1), np.repeat(f_axis[None, :], lines.wavelength.size, axis=0)
    error = np.hypot(lines.error, blend_error(lines, dead)[:, None])
    usable = lines.good & ~dead[None, :] & (error < 0.3)
    n_lines = int((usable.sum(axis=1) > nf // 4).sum())
    best = None
    all_degrees, spare = (DEGREES, 2) if reference is None else (DEGREES_BESIDE, 1)
    degrees = tuple(d for d in all_degrees if n_lines >= d[0] + spare)
    grid_x = _unit(np.arange(nx, dtype=float), 0, nx - 1)
    full = np.broadcast_to(grid_x, (nf, nx)), np.broadcast_to(f_axis[:, None], (nf, nx))
    weight = 1.0 / spread_floor(error) ** 2
    if degrees:
        usable[_odd_ones(cx, cf, target / dispersion, weight, usable, *degrees[-1])] = False
    for along, degree in degrees:
        used, terms = usable.copy(), _vander(cx, cf, degree, along)
        for _ in range(6):
            w, design = np.sqrt(weight[used]), terms[used]
            coef = _fitted(design * w[:, None], target[used] * w)
            raw = (terms @ coef - target) / dispersion
            # Fibres stand beside a smooth slit by up to some tenths of a pixel, which tells nothing of lines nor of degrees.
            rest = raw - fiber_offsets(raw, used, error)
            per_line = np.array([np.median(rest[i][used[i]]) if used[i].any() else 0.0 for i in range(used.shape[0])])
            spread = 1.4826 * np.median(np.abs(rest[used])) + 0.003
            # A line that is off in most fibres is misidentified or blended: all of it goes.
            line_ok = np.abs(per_line) < np.maximum(0.25, 6 * spread)
            new = usable & (np.abs(rest) < 5 * np.hypot(spread, error)) & line_ok[:, None]
            if (new == used).all():
                break
            used = new
        if used.sum() < 3 * design.shape[1]:
            continue
        effective = max(n_lines * 8, 20)  # fibres of a line are not independent witnesses of the dispersion
        chi = np.mean((rest[used] / spread_floor(error[used])) ** 2)
        bic = effective * np.log(chi) + np.log(effective) * design.shape[1]
        if best is None or bic < best[0]:
            rms = 1.4826 * float(np.median(np.abs(rest[used])))
            solution = _vander(*full, degree, along) @ coef
            best = (bic, solution, used, raw, rms, degree)
    if best is None:
        needed = all_degrees[0][0] + spare
        if n_lines < needed:
            raise WavelengthError(
                f"{n_lines} arc lines were measured in a quarter of the fibres or more, {needed} are needed (were the lamps on, "
                f"and is it this channel?): {_OTHER_ARCS}, or give fewer --drop-lines"
            )
        raise WavelengthError(
            f"the {n_lines} arc lines that were measured fit no smooth wavelength solution (is a lamp another one than its OBJECT "
            f"says?): {_OTHER_ARCS}"
        )
    _, solution, used, raw, rms, degree = best
    if reference is not None:
        solution = solution + reference
    residual = np.where(lines.good, raw, np.nan)
    return solution, used, residual, rms, degree


def _odd_ones(
    cx: np.ndarray, cf: np.ndarray, target: np.ndarray, weight: np.ndarray, usable: np.ndarray, along: int, degree: int
) -> np.ndarray:
    """`odd_lines` (nl,) bool of lines measured in many fibres: places, targets [px] and weights (nl, nf)."""
    w, terms = np.sqrt(weight[usable]), _vander(cx, cf, degree, along)
    rest = target - terms @ _fitted(terms[usable] * w[:, None], target[usable] * w)
    odd = np.zeros(usable.shape[0], bool)
    many = np.flatnonzero(usable.sum(axis=1) > usable.shape[1] // 4)
    place, offset = (np.array([np.median(v[i][usable[i]]) for i in many]) for v in (cx, rest))
    error = np.array([np.median(weight[i][usable[i]]) ** -0.5 / np.sqrt(usable[i].sum()) for i in many])
    if many.size > along + 4:
        odd[many] = odd_lines(place, offset, error, along)
    return odd


def spread_floor(error: np.ndarray) -> np.ndarray:
    """Errors of line centres with the part that no noise explains (blends, undersampling)."""
    return np.hypot(error, 0.01)


def fiber_offsets(residual: np.ndarray, used: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Offset of each fibre [px] from the smooth solution, shrunk by its own uncertainty (a slit is not perfectly smooth)."""
    weight = np.where(used, 1.0 / (error**2 + 0.02**2), 0.0)
    total = weight.sum(axis=0)
    mean = np.divide((weight * np.nan_to_num(residual)).sum(axis=0), total, out=np.zeros(total.size), where=total > 0)
    noise = np.where(total > 0, 1.0 / np.maximum(total, 1e-12), 0.0)
    alive = total > 0
    if alive.sum() < 10:
        return np.zeros(total.size)
    centre = np.median(mean[alive])
    real = max(0.0, (1.4826 * np.median(np.abs(mean[alive] - centre))) ** 2 - float(np.median(noise[alive])))
    return np.where(alive, mean * real / (real + noise + 1e-12), 0.0)


def fit_lsf(lines: LineFits, used: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Gaussian sigma [px] of the line-spread function over fibres and columns, float32.

    A polynomial surface through the lines' widths, its degree chosen by the Bayesian information criterion, and what single fibres
    differ from it by in all their lines.
    """
    nf, nx = shape
    f = np.repeat(_unit(np.arange(nf, dtype=float), 0, nf - 1)[None, :], used.shape[0], axis=0)
    x = _unit(lines.centre, 0, nx - 1)
    strong = used & (lines.error < 0.08)
    if strong.sum() < 60:
        strong = used
    n_lines = int((strong.sum(axis=1) > nf // 5).sum())
    error = np.hypot(lines.error, WIDTH_ERROR)
    best = None
    for along, degree in LSF_DEGREES if n_lines >= 4 else ((1, 1),):
        if along > 2 and n_lines < along + 3:
            continue
        good, terms = strong.copy(), _vander(x, f, degree, along)
        for _ in range(5):
            coef = _fitted(terms[good] / error[good][:, None], lines.sigma[good] / error[good])
            rest = lines.sigma - terms @ coef
            rest = rest - fiber_offsets(rest, good, lines.error)
            spread = 1.4826 * np.median(np.abs(rest[good])) + 0.005
            good = strong & (np.abs(rest) < 4 * spread)
        effective = max(n_lines * 8, 20)  # as of wavelengths: fibres of a line are not independent witnesses
        # Outliers of one degree must not make another's merit.
        chi = np.mean(np.minimum((rest[strong] / error[strong]) ** 2, 16.0))
        bic = effective * np.log(chi) + np.log(effective) * terms.shape[-1]
        if best is None or bic < best[0]:
            best = bic, coef, fiber_offsets(lines.sigma - terms @ coef, good, lines.error), along, degree
    _, coef, offset, along, degree = best
    grid_f = np.broadcast_to(_unit(np.arange(nf, dtype=float), 0, nf - 1)[:, None], (nf, nx))
    grid_x = np.broadcast_to(_unit(np.arange(nx, dtype=float), 0, nx - 1), (nf, nx))
    surface = _vander(grid_x, grid_f, degree, along) @ coef + offset[:, None]
    return np.clip(surface, 0.5, 6.0).astype(np.float32)


def solve_wavelength(
    spectra: np.ndarray, variance: np.ndarray, dead: np.ndarray, lines, *, reference: np.ndarray | None = None
) -> WavelengthSolution:
    """Wavelength and line-spread function of every fibre from the summed spectra of all lamps.

    Parameters
    ----------
    spectra, variance : (nf, nx) [e-], fibre amplitudes of the arcs
    dead : (nf,) bool
    lines : table with wavelength [A, air], column [px at mid fibre], intensity
    reference : (nf, nx), optional
        A known wavelength map; then only a smooth difference from it is fitted (needed in uv, where lines are weak).

    Raises
    ------
    WavelengthError
    """
    nf, nx = spectra.shape
    decisions: list[Decision] = []
    guess = predicted_columns(spectra, dead, lines, reference)
    wave = np.asarray(lines["wavelength"], float)
    fits = measure_lines(spectra, variance, guess, wave)
    # Second pass from the first solution: lines that were guessed badly are found, narrow windows are centred.
    solution, used, residual, rms, degree = fit_wavelength(fits, (nf, nx), reference, dead)
    x = np.arange(nx)
    guess = np.stack([np.interp(wave, solution[f], x, left=np.nan, right=np.nan) for f in range(nf)], axis=1)
    fits = measure_lines(spectra, variance, guess, wave)
    solution, used, residual, rms, degree = fit_wavelength(fits, (nf, nx), reference, dead)
    offset = fiber_offsets(residual, used, fits.error)
    solution = solution - offset[:, None] * np.gradient(solution, axis=1)
    residual = residual - offset[None, :]
    if rms > MAX_RMS:
        raise WavelengthError(
            f"the arc lines scatter by {rms:.2f} px about the wavelength solution, at most {MAX_RMS} is allowed (is a lamp weak, "
            f"or another one than its OBJECT says?): {_OTHER_ARCS}, or leave bad lines out with --drop-lines CHANNEL=LIST"
        )
    if np.any(np.diff(solution, axis=1) <= 0):
        raise WavelengthError(
            "wavelengths do not rise all along the chip, so arc lines were taken for others: "
            f"{_OTHER_ARCS}, or leave bad lines out with --drop-lines CHANNEL=LIST"
        )
    lost = [f"{w:.1f}" for w, u in zip(wave, used, strict=True) if u.sum() < nf // 4]
    if lost:
        decisions.append(
            Decision("ARCLINES", f"arc lines not used (faint, blended or outliers): {', '.join(lost)}", "info")
        )
    if reference is None:
        decisions += empty_stretches(np.median(solution[~dead], axis=0), wave, used.sum(axis=1) >= nf // 4)
    return WavelengthSolution(solution, fit_lsf(fits, used, (nf, nx)), fits, used, residual, rms, degree, decisions)


def empty_stretches(solution: np.ndarray, lines: np.ndarray, used: np.ndarray) -> list[Decision]:
    """Warns of stretches of the chip that should have arc lines and have none: a lamp that is off or weak.

    The scatter of the lines that there are does not show what the polynomial does between and beyond them.

    Parameters
    ----------
    solution : (nx,) [A], of a typical fibre; lines : (nl,) [A], those of the list; used : (nl,) bool
    """

    def gaps(wave: np.ndarray) -> list[tuple[float, float]]:
        inside = np.sort(wave[(wave > solution[0]) & (wave < solution[-1])])
        ends = np.concatenate([[solution[0]], inside, [solution[-1]]])
        return list(zip(ends[:-1], ends[1:], strict=True))

    def length(low: float, high: float) -> float:
        return float(np.subtract(*np.interp([high, low], solution, np.arange(solution.size))))

    usual = max(length(*gap) for gap in gaps(lines))
    least = max(EMPTY_STRETCH * solution.size, MUCH_LONGER * usual)
    empty = [f"{low:.0f} to {high:.0f} A" for low, high in gaps(lines[used]) if length(low, high) > least]
    text = (
        f"no arc line was measured from {' and from '.join(empty)}, where the list has some: wavelengths there are extrapolated or "
        "bridged, and may be off by half a pixel. Is a lamp missing? Choose other arcs with --cal-date cmp=YYYYMMDD"
    )
    return [Decision("ARCGAP", text, "warn")] if empty else []
