"""Find the fibres on a flat or twilight, say which is which, and measure their traces and profiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter

from ..errors import PanaceaError
from ..instrument import AMP_ROWS
from .arrays import plain
from .extract import Extraction, FiberModel, extract, spline_basis, trace_offsets
from .kernels import HALF_WIDTH, N_COEF
from .scatter import ScatterModel, fit_scatter, gap_pixels, scattered_light
from .shiftkernels import SHARING, TERMS, profile_moments

SPAN = 24  # columns per block in which a fibre's position is measured
TRACE_DEGREE = 5  # Legendre degree of a trace; leaves .002 px on real curvature
PROFILE_DEGREE = 2  # total degree over the detector of each profile coefficient
LEAST_AROUND = 0.3  # of the median fibre's light, that the neighbours of any fibre should have
SHARP = 3  # columns to either side that a pixel is compared with
SHARP_SHARE, SHARP_SIGMA = 1.5, 10.0  # times their light, and sigma above that: no light of a smooth spectrum
DEAD_SHARE = 0.15  # a fibre with less than this share of its neighbours' light is dead
PROFILE_BLOCK = 16  # columns that share one profile
STRIDE = 4  # columns skipped in the early rounds
_OTHER_FLATS = (
    "the twilights or flats are probably too faint or of another channel: choose others with --cal-date twi=YYYYMMDD "
    "(flats: flt=YYYYMMDD), or take internal flats instead of twilights with --use_flat"
)


class TraceError(PanaceaError):
    """The fibres could not be found or told apart."""


@dataclass(frozen=True)
class TraceResult:
    """Attributes
    ----------
    model : FiberModel
    dead : (nf,) bool
    extraction : Extraction of the frame that was traced
    scatter : ScatterModel
    background : (ny, nx) float32, light scattered under the fibres of that frame [e-]
    match : float, how well the pattern of fibres fits the reference (1: perfectly)
    runner_up : float, the same one fibre off
    offset : (2,) float, rows by which each amplifier's fibres lie off the reference [px]
    residual : (nf,) float, RMS of the measured centres about each trace [px]
    widths : (nf,) float, relative width of each fibre's profile
    """

    model: FiberModel
    dead: np.ndarray
    extraction: Extraction
    scatter: ScatterModel
    background: np.ndarray
    match: float
    runner_up: float
    offset: np.ndarray
    residual: np.ndarray
    widths: np.ndarray


def _block_profiles(image: np.ndarray, bad: np.ndarray, span: int) -> np.ndarray:
    """Mean over each block of columns, (n_blocks, ny), without bad pixels."""
    ny, nx = image.shape
    n = nx // span
    good = ~bad[:, : n * span].reshape(ny, n, span)
    part = np.where(good, image[:, : n * span].reshape(ny, n, span), 0.0)
    return (part.sum(axis=2) / np.maximum(good.sum(axis=2), 1)).T.astype(float)


def _match_amplifier(profile: np.ndarray, rows: np.ndarray, dead: np.ndarray, first: int) -> tuple[float, float, float]:
    """Shift of the reference rows that best explains the light of one amplifier: (shift, match, match one fibre off)."""
    light = profile[first : first + AMP_ROWS]
    local = gaussian_filter1d(maximum_filter1d(light, 15), 8)
    light = np.clip(light / np.maximum(local, 1e-9 + 0.02 * np.max(local)), 0, 1)
    shifts = np.arange(-18.0, 18.01, 0.25)
    sigma = 1.9
    # All shifts are multiples of a quarter of a row: each template is every fourth element of one.
    fine = first + shifts[0] + 0.25 * np.arange(4 * AMP_ROWS + shifts.size - 1)
    template = np.exp(-0.5 * ((fine[:, None] - rows[~dead]) / sigma) ** 2).sum(axis=1)
    at = np.arange(shifts.size)[::-1, None] + 4 * np.arange(AMP_ROWS)
    b = template[at] - template[at].mean(axis=1, keepdims=True)
    a = light - light.mean()
    score = b @ a / np.sqrt((a * a).sum() * (b * b).sum(axis=1) + 1e-30)
    best = int(np.argmax(score))
    others = np.abs(np.abs(shifts - shifts[best]) - 6.8) < 1.5
    return float(shifts[best]), float(score[best]), float(score[others].max()) if others.any() else 0.0


def initial_traces(
    image: np.ndarray, bad: np.ndarray, reference: np.ndarray, dead: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """Centres of all fibres in blocks of columns, followed outwards from the middle of the chip.

    Parameters
    ----------
    image : (ny, nx) [e-], flat or twilight
    reference : (nf,) rows [px] at mid-chip; dead : (nf,) bool

    Returns
    -------
    columns : (n,), centres : (nf, n) with NaN where nothing was found, offset : (2,), match, runner_up
    """
    blocks = _block_profiles(image, bad, SPAN)
    n, ny = blocks.shape
    columns = np.arange(n) * SPAN + (SPAN - 1) / 2
    middle = n // 2
    half = reference.size // 2
    central = np.median(blocks[middle - 2 : middle + 3], axis=0)
    start = reference.astype(float).copy()
    offset, match, runner_up = np.zeros(2), 1.0, 0.0
    for k, part in enumerate((slice(0, half), slice(half, None))):
        shift, good, other = _match_amplifier(central, reference[part], dead[part], k * AMP_ROWS)
        if good < 0.35:
            raise TraceError(
                f"the fibres of the {('bottom (LL or RU)', 'top (LU or RL)')[k]} amplifier were not recognised "
                f"(pattern match {good:.2f}, 0.35 needed): {_OTHER_FLATS}"
            )
        start[part] += shift
        offset[k], match, runner_up = shift, min(match, good), max(runner_up, other)
    centres = np.full((reference.size, n), np.nan)
    position = _refine(central, start, 3.0)
    drift = position - start
    smooth = _robust_smooth(drift, dead)
    position = _refine(central, start + smooth, 2.0)
    for direction in (range(middle, n), range(middle - 1, -1, -1)):
        last = np.where(np.isfinite(position), position, start + smooth)
        for b in direction:
            found = _refine(blocks[b], last, 1.6)
            moved = _robust_smooth(found - last, dead)
            found = np.where(np.abs(found - last - moved) < 0.5, found, np.nan)
            centres[:, b] = found
            last = np.where(np.isfinite(found), found, last + moved)
    return columns, centres, offset, match, runner_up


def _robust_smooth(values: np.ndarray, dead: np.ndarray) -> np.ndarray:
    """A smooth curve over fibres through values with gaps and outliers."""
    x = np.linspace(-1, 1, values.size)
    good = np.isfinite(values) & ~dead
    if good.sum() < 10:
        return np.zeros_like(values)
    for _ in range(3):
        fit = legendre.legfit(x[good], values[good], 4)
        rest = values - legendre.legval(x, fit)
        spread = 1.4826 * np.median(np.abs(rest[good])) + 0.02
        good = np.isfinite(rest) & (np.abs(rest) < 4 * spread) & ~dead
    return legendre.legval(x, fit)


def _refine(profile: np.ndarray, guess: np.ndarray, reach: float) -> np.ndarray:
    """Centre of the peak next to each guess from a Gaussian through three smoothed pixels; NaN when there is none within reach."""
    smooth = gaussian_filter1d(profile, 0.8)
    result = np.full(guess.size, np.nan)
    span = int(np.ceil(reach))
    rows = np.clip(np.round(guess).astype(int), span + 2, profile.size - span - 3)
    window = rows[:, None] + np.arange(-span, span + 1)
    peak = window[np.arange(rows.size), np.argmax(smooth[window], axis=1)]
    left, mid, right = (np.log(np.maximum(smooth[peak + d], 1e-6)) for d in (-1, 0, 1))
    curve = left - 2 * mid + right
    ok = (curve < 0) & (mid >= left) & (mid >= right)
    result[ok] = peak[ok] + 0.5 * (left[ok] - right[ok]) / curve[ok]
    result[np.abs(result - guess) > reach + 0.5] = np.nan
    return result


def fit_traces(
    columns: np.ndarray,
    centres: np.ndarray,
    weight: np.ndarray,
    nx: int,
    dead: np.ndarray,
    reference: np.ndarray,
    degree: int = TRACE_DEGREE,
) -> tuple[np.ndarray, np.ndarray]:
    """Legendre polynomial of each fibre's centres; fibres with too few take the shape of their neighbours.

    Parameters
    ----------
    columns : (n,); centres, weight : (nf, n); dead : (nf,) bool
    reference : (nf,) rows at mid-chip: how far a dark fibre lies from the next lit ones; beside gaps and at the ends of the slit no
        interpolation tells

    Returns
    -------
    trace : (nf, nx), residual : (nf,) RMS [px]
    """
    full = legendre.legvander(2 * np.arange(nx) / (nx - 1) - 1, degree)
    base = legendre.legvander(2 * columns / (nx - 1) - 1, degree)
    nf = centres.shape[0]
    coefs, residual = np.full((nf, degree + 1), np.nan), np.full(nf, np.nan)
    usable = np.isfinite(centres) & (weight > 0)
    value, good = np.where(usable, centres, 0.0), usable
    products = (base[:, :, None] * base[:, None, :]).reshape(base.shape[0], -1)
    for _ in range(3):
        some = good.sum(axis=1) >= 3 * (degree + 1)
        w = np.where(good, weight, 0.0)
        w /= np.maximum(w.max(axis=1, keepdims=True), 1e-300)
        # Legendre terms over the whole chip are all but orthogonal: their normal equations are as good as the fit itself.
        normal = (w @ products).reshape(nf, degree + 1, degree + 1) + 1e-12 * np.eye(degree + 1)
        fit = np.linalg.solve(normal, ((w * value) @ base)[..., None])[..., 0]
        rest = value - fit @ base.T
        coefs[some] = fit[some]
        count = np.maximum(good.sum(axis=1), 1)
        residual[some] = np.sqrt((np.where(good, rest, 0.0) ** 2).sum(axis=1) / count)[some]
        spread = 1.4826 * _middle(np.abs(rest), good) + 1e-3
        good = np.where(some[:, None], usable & (np.abs(rest) < 4 * spread[:, None]), good)
    known = np.isfinite(coefs[:, 0]) & ~dead
    index = np.arange(nf)
    coefs[:, 0] -= reference
    for k in range(degree + 1):
        coefs[~known, k] = np.interp(index[~known], index[known], coefs[known, k])
    coefs[:, 0] += reference
    return coefs @ full.T, residual


def _middle(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Median of the good values of each row; 0 where there are none."""
    ordered = np.sort(np.where(good, values, np.inf), axis=1)
    count = np.maximum(good.sum(axis=1), 1)
    rows = np.arange(values.shape[0])
    middle = 0.5 * (ordered[rows, (count - 1) // 2] + ordered[rows, count // 2])
    return np.where(good.any(axis=1), middle, 0.0)


def detector_basis(nf: int, columns: np.ndarray, nx: int, degree: int) -> np.ndarray:
    """Legendre terms of total ``degree`` over fibre and column, (nf, len(columns), m)."""
    f = legendre.legvander(np.linspace(-1, 1, nf), degree)
    x = legendre.legvander(2 * np.asarray(columns) / (nx - 1) - 1, degree)
    terms = [f[:, None, i] * x[None, :, j] for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack(terms, axis=-1)


def profile_equations(
    image: np.ndarray,
    weight: np.ndarray,
    amplitude: np.ndarray,
    trace: np.ndarray,
    widths: np.ndarray,
    columns: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the profile's coefficients, each a polynomial over the detector with the terms of `detector_basis`.

    Parameters
    ----------
    image, weight : (ny, nx); amplitude, trace : (nf, nx) [e-], [px]; widths : (nf,), relative
    columns : (k,) int, those that take part

    Returns
    -------
    matrix : (N_COEF * m, N_COEF * m), rhs : (N_COEF * m,)
        Unknowns ordered coefficient-major.
    """
    nf, nx = trace.shape
    position = np.linspace(-1, 1, nf)
    across = np.zeros((nf, TERMS))
    across[:, : 2 * PROFILE_DEGREE + 1] = legendre.legvander(position, 2 * PROFILE_DEGREE)
    along = legendre.legvander(2 * columns / (nx - 1) - 1, PROFILE_DEGREE)
    products = np.zeros((columns.size, SHARING, N_COEF, N_COEF, TERMS))
    data = np.zeros((columns.size, N_COEF, TERMS))
    profile_moments(
        plain(image, np.float32), plain(weight, np.float32), plain(amplitude, np.float64), plain(trace, np.float64),
        plain(widths, np.float64), columns, across, products, data,
    )  # fmt: skip
    terms = [(i, j) for i in range(PROFILE_DEGREE + 1) for j in range(PROFILE_DEGREE + 1 - i)]
    m = len(terms)
    basis = np.stack([along[:, j] for _, j in terms], axis=1)
    matrix = np.zeros((N_COEF, N_COEF, m, m))
    for d in range(min(SHARING, nf)):
        # A term at a fibre times a term at the fibre d further on, as a polynomial of the first fibre.
        ahead = np.stack(
            [across[: nf - d, i, None] * across[d:, : PROFILE_DEGREE + 1] for i in range(PROFILE_DEGREE + 1)], axis=1
        )
        power = np.linalg.lstsq(across[: nf - d, : 2 * PROFILE_DEGREE + 1], ahead.reshape(nf - d, -1), rcond=None)[0]
        power = power.reshape(-1, PROFILE_DEGREE + 1, PROFILE_DEGREE + 1)
        factor = np.zeros((columns.size, TERMS, m, m))
        for a, (i, _) in enumerate(terms):
            for b, (k, _) in enumerate(terms):
                factor[:, : power.shape[0], a, b] = (basis[:, a] * basis[:, b])[:, None] * power[None, :, i, k]
        part = np.tensordot(products[:, d], factor, axes=((0, 3), (0, 1)))
        matrix += part if d == 0 else part + part.transpose(1, 0, 3, 2)
    rhs = np.einsum("kjm,kc,cm->jc", data, basis, np.eye(TERMS)[[i for i, _ in terms]])
    size = N_COEF * m
    return matrix.transpose(0, 2, 1, 3).reshape(size, size), rhs.ravel()


def fit_profile(
    image: np.ndarray,
    weight: np.ndarray,
    amplitude: np.ndarray,
    trace: np.ndarray,
    widths: np.ndarray,
    alive: np.ndarray,
    step: int,
    block: int = PROFILE_BLOCK,
) -> np.ndarray:
    """Coefficients (nf, n_blocks, N_COEF) of the profiles that best make the image from the given amplitudes and traces.

    The profile of the detector is smooth in position; a fibre differs from it by its relative width.  Each is normalised to
    a sum of one.
    """
    nf, nx = trace.shape
    columns = np.arange(step // 2, nx, step)
    live = np.where(alive[:, None], amplitude, 0.0)
    matrix, rhs = profile_equations(image, weight, live, trace, widths, columns)
    scale = np.trace(matrix) / matrix.shape[0]
    matrix[np.diag_indices_from(matrix)] += 1e-8 * scale
    solution = np.linalg.solve(matrix, rhs).reshape(N_COEF, -1)
    n_blocks = -(-nx // block)
    centres = np.minimum(np.arange(n_blocks) * block + block / 2, nx - 1)
    coef = np.einsum("fbm,cm->fbc", detector_basis(nf, centres, nx, PROFILE_DEGREE), solution)
    return normalised(widened(coef, widths))


def widened(coef: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Each fibre's profile stretched by its relative width, as coefficients on the same knots."""
    nodes = np.linspace(-HALF_WIDTH + 0.02, HALF_WIDTH - 0.02, 3 * N_COEF)
    solve = np.linalg.pinv(spline_basis(nodes))
    out = np.empty_like(coef)
    for f in range(coef.shape[0]):
        if widths[f] == 1.0:
            out[f] = coef[f]
        else:
            out[f] = coef[f] @ (solve @ (spline_basis(nodes / widths[f]) / widths[f])).T
    return out


def normalised(coef: np.ndarray) -> np.ndarray:
    """Coefficients scaled so that the profile, summed over pixels at any phase, is one."""
    phases = np.arange(-0.5, 0.5, 0.125)
    total = sum(spline_basis(p + np.arange(-10, 11)).sum(axis=0) for p in phases) / phases.size
    return coef / (coef @ total)[..., None]


def gaussian_coef(nf: int, nx: int, fwhm: float) -> np.ndarray:
    """Coefficients of a Gaussian profile, the start of the iteration."""
    nodes = np.linspace(-HALF_WIDTH + 0.01, HALF_WIDTH - 0.01, 4 * N_COEF)
    shape = np.exp(-0.5 * (nodes / (fwhm / 2.3548)) ** 2)
    coef = np.linalg.lstsq(spline_basis(nodes), shape, rcond=None)[0]
    return normalised(np.broadcast_to(coef, (nf, -(-nx // PROFILE_BLOCK), N_COEF)).copy())


def find_dead(amplitude: np.ndarray, expected_dead: np.ndarray) -> np.ndarray:
    """Fibres with almost no light against their neighbours; those said to be dead are dead only if they are dark."""
    level = np.median(amplitude, axis=1)
    around = median_filter(np.where(expected_dead, np.nan_to_num(np.median(level)), level), 15, mode="mirror")
    # Among many dead fibres the neighbours are dark as well.
    return level < DEAD_SHARE * np.maximum(around, LEAST_AROUND * np.median(level[~expected_dead]))


def sharp_pixels(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Pixels (ny, nx) bool brighter than a lamp's or the twilight's light can be between columns on both sides.

    Hot columns, and cosmic rays of single frames: a few of them would bend the polynomials that all traces and profiles share.
    """
    padded = np.pad(image, ((0, 0), (SHARP, SHARP)), mode="reflect")
    beside = np.maximum(padded[:, : -2 * SHARP], padded[:, 2 * SHARP :])
    sigma = np.sqrt(np.asarray(noise, np.float32) ** 2 + np.maximum(beside, 0))
    return image > np.maximum(SHARP_SHARE * beside, 0) + SHARP_SIGMA * sigma


def trace_fibers(
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    reference: np.ndarray,
    expected_dead: np.ndarray,
    *,
    rounds: int = 5,
) -> TraceResult:
    """Traces, profiles, dead fibres and scattered light from a well exposed flat or twilight.

    The first centres come from the light itself; then traces, the profile (a B-spline whose coefficients vary smoothly over the
    detector), each fibre's width, and the scattered light are improved in turn until they agree.

    Parameters
    ----------
    image : (ny, nx) float32 [e-]
    noise : (ny, 1) or (ny, nx) [e-]
    bad : (ny, nx) bool
    reference : (nf,) rows at mid-chip; expected_dead : (nf,) bool

    Raises
    ------
    TraceError
        When the pattern of fibres is not that of the channel.
    """
    ny, nx = image.shape
    nf = reference.size
    bad = bad | sharp_pixels(image, noise)
    columns, centres, offset, match, runner_up = initial_traces(image, bad, reference, expected_dead)
    seen = np.isfinite(centres).mean(axis=1) > 0.5
    if (~seen & ~expected_dead).sum() > nf // 5:
        raise TraceError(f"only {int(seen.sum())} of {nf} fibres were found: {_OTHER_FLATS}")
    trace, residual = fit_traces(columns, centres, np.isfinite(centres).astype(float), nx, expected_dead | ~seen, reference)
    # A dead fibre may still pass a little light: all take part until their light has been measured.
    state = _State(
        FiberModel(trace, gaussian_coef(nf, nx, 4.0), PROFILE_BLOCK, np.ones(nf, bool)), np.ones(nf), residual
    )
    gap = gap_pixels(state.model, ny)
    background, result, dead = np.zeros_like(image), None, np.zeros(nf, bool)
    for turn in range(rounds):
        last = turn == rounds - 1
        stride = 1 if last else STRIDE
        clean = _thinned((image - background).astype(np.float32), noise, bad, stride)
        state = _improve(state, *clean, stride, 24 if last else 9, dead, reference)
        if turn in (0, rounds - 3):
            # Light under the fibres looks like wide profiles: it has to go early.
            result = extract(
                image,
                noise,
                bad,
                state.model,
                background=background,
                light=None if result is None else result.amplitude,
            )
            background = scattered_light(fit_scatter(image, result.model, bad, gap), result.model)
            dead = find_dead(result.amplitude, expected_dead)
    result = extract(image, noise, bad, state.model, background=background, light=result.amplitude)
    scatter = fit_scatter(image, result.model, bad, gap)
    background = scattered_light(scatter, result.model)
    model = FiberModel(state.model.trace, state.model.coef, PROFILE_BLOCK, ~dead)
    result = extract(image, noise, bad, model, background=background, light=result.amplitude)
    return TraceResult(model, dead, result, scatter, background, match, runner_up, offset, state.residual, state.widths)


@dataclass(frozen=True)
class _State:
    """The fibre model on its way: traces and profiles, widths (nf,), scatter of the centres about the traces (nf,)."""

    model: FiberModel
    widths: np.ndarray
    residual: np.ndarray


def _thinned(
    image: np.ndarray, noise: np.ndarray, bad: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every ``stride``-th column of a frame: enough for the early rounds."""
    rows = (
        np.broadcast_to(np.asarray(noise, np.float32), (image.shape[0], 1))
        if np.shape(noise)[-1] == 1
        else noise[:, ::stride]
    )
    return np.ascontiguousarray(image[:, ::stride]), rows, np.ascontiguousarray(bad[:, ::stride])


def _improve(
    state: _State,
    image: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    stride: int,
    step: int,
    dead: np.ndarray,
    reference: np.ndarray,
) -> _State:
    """One round on a frame without scattered light, given by every ``stride``-th column: profile, then traces and widths.

    ``step`` is the distance of the columns (of those given) on which the profile is fitted.
    """
    nx = state.model.trace.shape[1]
    model = state.model.every(stride)
    result = extract(image, noise, bad, model)
    floor = np.broadcast_to(np.asarray(noise, np.float32) ** 2, image.shape)
    weight = np.where(bad, 0, 1.0 / (floor + np.maximum(result.model, 0) + 1e-4 * result.model**2)).astype(np.float32)
    coef = fit_profile(
        image, weight, result.amplitude, model.trace, state.widths, model.alive, step, PROFILE_BLOCK // stride
    )
    model = FiberModel(model.trace, coef, PROFILE_BLOCK // stride, model.alive)
    result = extract(image, noise, bad, model, light=result.amplitude)
    span = max(1, SPAN // stride)
    shift, w_shift, widening, w_width = trace_offsets(image, noise, bad, model, result, span)
    middle = np.minimum((np.arange(shift.shape[1]) * span + (span - 1) / 2) * stride, nx - 1)
    at = np.clip(middle.round().astype(int), 0, nx - 1)
    trace, residual = fit_traces(at, state.model.trace[:, at] + np.clip(shift, -0.6, 0.6), w_shift, nx, dead, reference)
    change = np.average(widening, axis=1, weights=w_width + 1e-12)
    change -= np.median(change[~dead])
    widths = np.where(dead, 1.0, np.clip(state.widths * (1 + np.clip(change, -0.05, 0.05)), 0.85, 1.15))
    return _State(FiberModel(trace, coef, PROFILE_BLOCK, state.model.alive), widths, residual)
