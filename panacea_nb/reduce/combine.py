"""Exposures and channels of a target become one spectrum: common grid, scales from the overlaps, unbiased weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import csr_array

from ..decisions import Decision
from ..instrument import mean_telluric

GRID = (3650.0, 10500.0, 0.7)  # A: first, last, step, as users of LRS2Multi know it
OVERLAPS = {
    ("uv", "orange"): (4635.0, 4645.0),
    ("orange", "red"): (6450.0, 6950.0),
    ("red", "farred"): (8275.0, 8400.0),
}  # A, in which both channels measure the same light (LRS2Multi)
ORDER = ("uv", "orange", "red", "farred")
ANCHOR = ("orange", "red", "uv", "farred")  # the channel whose flux scale is kept: the first that is there
MAX_ERROR = 0.025  # of a scale factor: the flux scales agree to some per cent without it, so a noisier one does harm
MAX_SCALE = 3.0  # more than that is no difference of transparency or aperture
OUTLIER_SIGMA = 6.0  # of a sample against the other exposures
OUTLIER_SHARE = 0.2  # of the flux, which seeing and centring may change from exposure to exposure
MIN_ABSORPTION = 0.005  # of the air, that a correction would be for
MAX_DRIFT = 15.0  # km/s between exposures, above which lines that are left topocentric get visibly wider
MIN_COVER = 0.5  # of a smoothing kernel must lie on samples that were measured
LIGHT_SPEED = 299792.458  # km/s


@dataclass(frozen=True, eq=False)
class Part:
    """The extracted spectrum of one exposure in one channel.

    Attributes
    ----------
    channel : str; obsid, exp : int
    wave : (n,) [A, air, topocentric], even steps
    flux, error, sky, sky_error : (n,) [erg/s/cm2/A]; error 0: not measured
    telluric : (n,) transmission by which the flux was divided; 1 where it was not
    sigma : (n,) Gaussian sigma of the line-spread function [A]
    velocity : float, barycentric correction of the exposure [km/s], not applied
    exptime : float [s]
    night : str, YYYYMMDD
    correlation : of the errors of samples one, two, ... apart
    """

    channel: str
    obsid: int
    exp: int
    wave: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    sky: np.ndarray
    sky_error: np.ndarray
    telluric: np.ndarray
    sigma: np.ndarray
    velocity: float = 0.0
    exptime: float = 0.0
    night: str = ""
    correlation: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """As in the names of its products."""
        return f"{self.night}_{self.obsid:07d}_exp{self.exp:02d}_{self.channel}".lstrip("_")


@dataclass(frozen=True)
class Combined:
    """Attributes
    ----------
    wave : (n,) [A]
    flux, error, sky, sky_error : (n,); error 0 where nothing was measured
    telluric : (n,)
    count : (n,) int, exposures x channels that took part
    parts : list of Part, scaled, on their own samples at wavelengths in the frame and medium of the result
    scales : dict name -> factor applied
    rejected : dict name -> number of samples that disagreed with the other exposures
    correlation : dict channel -> correlation of the errors of neighbouring elements
    sigma : float, line width to which all was smoothed [A]; 0 where nothing was
    decisions : list of Decision
    """

    wave: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    sky: np.ndarray
    sky_error: np.ndarray
    telluric: np.ndarray
    count: np.ndarray
    parts: list[Part]
    scales: dict[str, float]
    rejected: dict[str, int]
    correlation: dict[str, float]
    sigma: float = 0.0
    decisions: list[Decision] = field(default_factory=list)


def common_grid(first: float = GRID[0], last: float = GRID[1], step: float = GRID[2]) -> np.ndarray:
    """Wavelengths (n,) [A] of combined spectra."""
    return first + step * np.arange(int(round((last - first) / step)) + 1)


def air_to_vacuum(wave: np.ndarray) -> np.ndarray:
    """Vacuum wavelengths of air wavelengths [A]: the inverse of Morton (1991, ApJS 77, 119), as the VALD data base gives it."""
    s2 = (1e4 / np.asarray(wave, float)) ** 2
    index = 1 + 8.336624212083e-5 + 0.02408926869968 / (130.1065924522 - s2) + 1.599740894897e-4 / (38.92568793293 - s2)
    return wave * index


def moved(wave: np.ndarray, velocity: float, *, barycentric: bool, vacuum: bool) -> np.ndarray:
    """Wavelengths [A, air, topocentric] in the frame and medium that were chosen; ``velocity`` is the correction [km/s]."""
    # In the order in which light was changed: air to vacuum where the telescope stands, then the motion of the Earth.
    wave = air_to_vacuum(wave) if vacuum else wave
    return wave * (1 + velocity / LIGHT_SPEED) if barycentric else wave


def resampling(wave: np.ndarray, grid: np.ndarray) -> csr_array:
    """Matrix (n_grid, n) of the shares that the samples of one grid have in those of another.

    Flux densities are averaged over the width of each new sample, so that flux is kept (as Carnall 2017, arXiv:1705.05165, does).
    Rows without full cover are empty.
    """
    edges = _edges(np.asarray(wave, float))
    target = _edges(np.asarray(grid, float))
    low = np.searchsorted(edges, target[:-1], side="right") - 1
    high = np.searchsorted(edges, target[1:], side="left") - 1
    inside = (low >= 0) & (high < wave.size) & (target[:-1] >= edges[0]) & (target[1:] <= edges[-1])
    rows, columns, values = [], [], []
    most = int((high - low)[inside].max(initial=0)) + 1
    index = np.flatnonzero(inside)
    for k in range(most):
        column = low[index] + k
        take = column <= high[index]
        r, c = index[take], column[take]
        share = np.minimum(edges[c + 1], target[r + 1]) - np.maximum(edges[c], target[r])
        rows.append(r), columns.append(c), values.append(share / (target[r + 1] - target[r]))
    shape = (grid.size, wave.size)
    return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def _edges(wave: np.ndarray) -> np.ndarray:
    middle = 0.5 * (wave[1:] + wave[:-1])
    return np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])


def smoothing(own: np.ndarray, sigma: float, step: float) -> csr_array:
    """Matrix (n, n) that makes lines of width ``own`` (n,) [A] as wide as ``sigma``; wider ones are left as they are."""
    extra = np.sqrt(np.maximum(sigma**2 - np.asarray(own, float) ** 2, 0.0))
    reach = int(np.ceil(5 * extra.max(initial=0.0) / step))
    offset = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offset * step / np.maximum(extra, 0.05 * step)[:, None]) ** 2)
    row = np.repeat(np.arange(extra.size), offset.size)
    column = row + np.tile(offset, extra.size)
    take = (column >= 0) & (column < extra.size) & (kernel.ravel() > 1e-6)
    matrix = csr_array((kernel.ravel()[take], (row[take], column[take])), shape=(extra.size, extra.size))
    return matrix.multiply(1.0 / matrix.sum(axis=1)[:, None]).tocsr()


def to_grid(wave: np.ndarray, grid: np.ndarray, own: np.ndarray | None = None, sigma: float = 0.0) -> csr_array:
    """Matrix (n_grid, n) of `smoothing` to ``sigma`` (0: none), then `resampling`."""
    matrix = resampling(wave, grid)
    return matrix if not sigma or own is None else (matrix @ smoothing(own, sigma, wave[1] - wave[0])).tocsr()


def propagated(matrix: csr_array, error: np.ndarray, correlation: Sequence[float] = ()) -> np.ndarray:
    """Variances of ``matrix @ values`` for values with ``error`` (n,) or (n, m) that correlate with their neighbours."""
    variance = matrix.multiply(matrix) @ error**2
    columns = matrix.tocsc()
    for lag, rho in enumerate(correlation, start=1):
        both = columns[:, :-lag].multiply(columns[:, lag:]).tocsr()
        variance = variance + 2 * rho * (both @ (error[:-lag] * error[lag:]))
    return np.maximum(variance, 0.0)


def on_grid(
    part: Part, grid: np.ndarray, wave: np.ndarray | None = None, sigma: float = 0.0
) -> dict[str, np.ndarray | float]:
    """A part's arrays on a common grid; error 0 where less than the whole of a sample was measured.

    ``wave`` (n,) stands for the part's own wavelengths where these were corrected; ``sigma`` is the line width to smooth to.
    ``correlation`` is that of the errors of neighbours on the grid.
    """
    wave = part.wave if wave is None else wave
    matrix = to_grid(wave, grid, part.sigma, sigma)
    good = (part.error > 0).astype(float)
    cover = matrix @ good
    full = (resampling(wave, grid) @ good > 0.999) & (cover > MIN_COVER)
    safe = np.where(full, cover, 1.0)
    out = {name: np.where(full, (matrix @ (good * getattr(part, name))) / safe, 0.0) for name in ("flux", "sky")}
    for name in ("error", "sky_error"):
        spread = np.sqrt(propagated(matrix, good * getattr(part, name), part.correlation))
        out[name] = np.where(full, spread / safe, 0.0)
    out["telluric"] = np.where(full, (matrix @ (good * part.telluric)) / safe, 1.0)
    return out | {"correlation": neighbour_correlation(matrix, part.correlation)}


def neighbour_correlation(matrix: csr_array, correlation: Sequence[float] = ()) -> float:
    """Correlation of neighbouring elements of ``matrix @ values``, mean over those that there are."""
    own = propagated(matrix, np.ones(matrix.shape[1]), correlation)
    first, second = matrix[:-1].tocsc(), matrix[1:].tocsc()
    both = first.multiply(second).sum(axis=1)
    for lag, rho in enumerate(correlation, start=1):
        both = both + rho * first[:, :-lag].multiply(second[:, lag:]).sum(axis=1)
        both = both + rho * first[:, lag:].multiply(second[:, :-lag]).sum(axis=1)
    used = (own[:-1] > 0) & (own[1:] > 0)
    return float(np.mean(both[used] / np.sqrt(own[:-1][used] * own[1:][used]))) if used.any() else 0.0


def flux_ratio(
    a: np.ndarray, ea: np.ndarray, b: np.ndarray, eb: np.ndarray, correlated: float = 1.0
) -> tuple[float, float]:
    """Factor by which spectrum ``b`` must be multiplied to agree with ``a``, and its error.

    ``correlated`` is the variance of a sum of neighbouring samples over that of independent ones.

    Both are noisy: the sum of (a - s b)^2 / (ea^2 + s^2 eb^2) is made least by repeated linear fits whose weights do not follow the
    noise.  Samples that stand out (cosmic rays, variable lines) lose their weight.

    Returns
    -------
    factor, error : NaN and inf when there is nothing to compare
    """
    use = (ea > 0) & (eb > 0)
    if use.sum() < 5:
        return float("nan"), float("inf")
    a, ea, b, eb = a[use], ea[use], b[use], eb[use]
    scale, keep = 1.0, np.ones(a.size, bool)
    error = float("inf")
    for _ in range(15):
        w = keep / (ea**2 + scale**2 * eb**2)
        # The part of b that is signal: its own noise would pull the factor down.
        power = (w * (b**2 - eb**2)).sum()
        if power <= 0:
            return float("nan"), float("inf")
        new = float((w * a * b).sum() / power)
        error = float(np.sqrt(correlated * (w * b**2).sum()) / power)
        rest = (a - new * b) * np.sqrt(1.0 / (ea**2 + new**2 * eb**2))
        spread = max(1.0, 1.4826 * float(np.median(np.abs(rest))))
        keep = np.abs(rest) < 4 * spread
        if abs(new - scale) < 1e-5 * abs(new):
            break
        scale = new
    return new, error


def exposure_scales(parts: Sequence[Part]) -> tuple[dict[str, float], list[Decision]]:
    """Factors that bring the exposures of each channel to their common mean.

    Every exposure is compared with the one of its channel that has most signal; the mean, weighted by exposure time, of those that
    can be compared keeps its flux, and the others keep theirs.
    """
    scales: dict[str, float] = {part.name: 1.0 for part in parts}
    decisions = []
    for channel in ORDER:
        own = [part for part in parts if part.channel == channel]
        if len(own) < 2:
            continue
        best = max(own, key=_signal)
        found = {best.name: 1.0}
        for part in own:
            if part is best:
                continue
            other = part.__dict__ if np.array_equal(part.wave, best.wave) else on_grid(part, best.wave)
            ratio, error = flux_ratio(
                best.flux, best.error, other["flux"], other["error"], max(1 + 2 * sum(best.correlation), 0.2)
            )
            if _is_sure(ratio, error):
                found[part.name] = ratio
            else:
                text = f"{part.name}: too faint, or too different, to be scaled to {best.name}; its flux is kept"
                decisions.append(Decision("NOSCALE", text, "info"))
        times = {part.name: max(part.exptime, 1.0) for part in own if part.name in found}
        # On the scale of the best, the true mean is that of what each measured.
        mean = sum(time / found[name] for name, time in times.items()) / sum(times.values())
        scales |= {name: ratio * mean for name, ratio in found.items()}
    return scales, decisions


def _signal(part: Part) -> float:
    good = part.error > 0
    return float(((part.flux[good] / part.error[good]) ** 2 - 1).sum())


def _is_sure(ratio: float, error: float) -> bool:
    return error < MAX_ERROR * ratio and 1 / MAX_SCALE < ratio < MAX_SCALE


def channel_scales(spectra: dict[str, tuple[np.ndarray, np.ndarray]], grid: np.ndarray, correlation: dict[str, float]):
    """Factors that join the channels in their overlaps, from the anchor outwards.

    Parameters
    ----------
    spectra : channel -> (flux, error) on ``grid``
    correlation : channel -> that of the errors of neighbouring samples

    Returns
    -------
    scales : channel -> factor; decisions
    """
    scales = dict.fromkeys(spectra, 1.0)
    decisions = []
    anchor = next(name for name in ANCHOR if name in spectra)
    start = ORDER.index(anchor)
    chain = [(ORDER[i], ORDER[i + 1]) for i in range(start, len(ORDER) - 1)]
    chain += [(ORDER[i], ORDER[i - 1]) for i in range(start, 0, -1)]
    for known, new in chain:
        if known not in spectra or new not in spectra:
            continue
        low, high = OVERLAPS.get((known, new)) or OVERLAPS[(new, known)]
        inside = (grid >= low) & (grid <= high)
        (a, ea), (b, eb) = ((x[inside], e[inside]) for x, e in (spectra[known], spectra[new]))
        ratio, error = flux_ratio(
            scales[known] * a, scales[known] * ea, b, eb, 1 + 2 * max(correlation[known], correlation[new])
        )
        if _is_sure(ratio, error):
            scales[new] = ratio
            text = f"{new} multiplied by {ratio:.4f} +- {error:.4f} to agree with {known} at {low:.0f}-{high:.0f} A"
            decisions.append(Decision("SCALED", text, "info"))
        else:
            scales[new] = scales[known]
            text = f"{new} cannot be scaled to {known}: the overlap at {low:.0f}-{high:.0f} A has too little signal"
            decisions.append(Decision("NOOVERLAP", text, "info"))
    return scales, decisions


def scaled(part: Part, factor: float) -> Part:
    """The part with flux, sky and errors multiplied."""
    names = ("flux", "error", "sky", "sky_error")
    return replace(part, **{name: factor * getattr(part, name) for name in names})


def disagreeing(flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Samples (n_parts, n) bool that stand above the other exposures of the same channel: cosmic rays that were left.

    A sample is compared with the weighted mean of the others; where there are two, the brighter one stands out.
    """
    weight = np.where(error > 0, 1.0 / np.where(error > 0, error, 1.0) ** 2, 0.0)
    total, light = weight.sum(axis=0), (weight * flux).sum(axis=0)
    rest = total - weight
    some = (rest > 0) & (weight > 0)
    others = np.where(some, (light - weight * flux) / np.where(some, rest, 1.0), 0.0)
    sigma = np.sqrt(np.where(some, error**2 + 1.0 / np.where(some, rest, 1.0), np.inf))
    return some & (flux - others > OUTLIER_SIGMA * sigma + OUTLIER_SHARE * np.abs(others))


def combine_spectra(
    parts: Sequence[Part],
    grid: np.ndarray | None = None,
    *,
    barycentric: bool = False,
    vacuum: bool = False,
    match_resolution: bool = False,
) -> Combined:
    """One spectrum of a target from all its exposures and channels.

    Each part is resampled once.  The weights are the inverse variances of the extraction, which come from models of the light and
    not from the noisy samples: they do not bias faint flux (weights from the data would favour samples that are low by chance).

    Parameters
    ----------
    parts : sequence of Part
    grid : (n,), optional; wavelengths of the result [A], in the frame and medium that the options choose
    barycentric : bool; move the wavelengths to the barycentre of the solar system
    vacuum : bool; wavelengths in vacuum
    match_resolution : bool; smooth all to the widest line-spread function, the same in A at all wavelengths

    Raises
    ------
    ValueError
        If there is no part.
    """
    if not parts:
        raise ValueError("there is no spectrum to combine")
    grid = common_grid() if grid is None else grid
    sigma = max(float(part.sigma.max()) for part in parts) if match_resolution else 0.0
    decisions = _notes(parts, sigma, barycentric=barycentric)
    scales, found = exposure_scales(parts)
    decisions += found
    parts = [scaled(part, scales[part.name]) for part in parts]
    waves = [moved(part.wave, part.velocity, barycentric=barycentric, vacuum=vacuum) for part in parts]
    placed = [on_grid(part, grid, wave, sigma) for part, wave in zip(parts, waves, strict=True)]
    correlation: dict[str, float] = {}
    rejected = {part.name: 0 for part in parts}
    means: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for channel in ORDER:
        own = [i for i, part in enumerate(parts) if part.channel == channel]
        if not own:
            continue
        if len(own) > 1:
            flux, error = (np.stack([placed[i][name] for i in own]) for name in ("flux", "error"))
            for i, out in zip(own, disagreeing(flux, error), strict=True):
                placed[i]["error"] = np.where(out, 0.0, placed[i]["error"])
                rejected[parts[i].name] = int(out.sum())
        correlation[channel] = float(np.mean([placed[i]["correlation"] for i in own]))
        mean = _weighted([placed[i] for i in own])
        means[channel] = mean["flux"], mean["error"]
    factors, found = channel_scales(means, grid, correlation)
    decisions += found
    for i, part in enumerate(parts):
        factor = factors[part.channel]
        scales[part.name] *= factor
        for name in ("flux", "error", "sky", "sky_error"):
            placed[i][name] = factor * placed[i][name]
    parts = [replace(scaled(part, factors[part.channel]), wave=wave) for part, wave in zip(parts, waves, strict=True)]
    total = _weighted(placed)
    return Combined(
        grid, total["flux"], total["error"], total["sky"], total["sky_error"], total["telluric"], total["count"],
        parts, scales, rejected, correlation, sigma, decisions,
    )  # fmt: skip


def _notes(parts: Sequence[Part], sigma: float, *, barycentric: bool) -> list[Decision]:
    """What a user must know of the spectra that are put together."""
    made = []
    if sigma:
        made.append(Decision("SMOOTHED", f"all spectra smoothed to a line width of sigma {sigma:.2f} A", "info"))
    span = float(np.ptp([part.velocity for part in parts]))
    if span > MAX_DRIFT and not barycentric:
        text = f"the Earth's motion differs by {span:.1f} km/s between the exposures and is not corrected: use --barycentric"
        made.append(Decision("VELSPAN", text, "warn"))
    corrected = [part.name for part in parts if (part.telluric != 1).any()]
    absorbed = [part for part in parts if mean_telluric(part.wave).min() < 1 - MIN_ABSORPTION]  # uv has none to correct
    if 0 < len(corrected) < len(absorbed):
        text = (
            f"only {', '.join(corrected)} had the air's absorption corrected before: where others join them the sum is a mixture: "
            "reduce all exposures with the same --telluric"
        )
        made.append(Decision("TELLMIX", text, "warn"))
    return made


def _weighted(placed: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Inverse-variance mean of parts on one grid."""
    error = np.stack([one["error"] for one in placed])
    weight = np.where(error > 0, 1.0 / np.where(error > 0, error, 1.0) ** 2, 0.0)
    total = weight.sum(axis=0)
    safe = np.where(total > 0, total, 1.0)

    def mean(name: str) -> np.ndarray:
        return (weight * np.stack([one[name] for one in placed])).sum(axis=0) / safe

    sky_error = np.stack([one["sky_error"] for one in placed])
    return {
        "flux": mean("flux"),
        "sky": mean("sky"),
        "error": np.where(total > 0, 1.0 / np.sqrt(safe), 0.0),
        "sky_error": np.sqrt((weight**2 * sky_error**2).sum(axis=0)) / safe,
        "telluric": np.where(total > 0, mean("telluric"), 1.0),
        "count": (weight > 0).sum(axis=0).astype(np.int16),
    }
