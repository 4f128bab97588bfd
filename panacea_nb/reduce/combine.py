"""Exposures and channels of a target become one spectrum: common grid, scales from the overlaps, unbiased weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import maximum_filter1d

from ..decisions import Decision
from ..instrument import mean_telluric
from .commongrid import common_grid, moved, neighbour_correlation, propagated, resampling, to_grid

OVERLAPS = {
    ("uv", "orange"): (4635.0, 4645.0),
    ("orange", "red"): (6450.0, 6950.0),
    ("red", "farred"): (8275.0, 8400.0),
}  # A, in which both channels measure the same light (LRS2Multi)
ORDER = ("uv", "orange", "red", "farred")
ANCHOR = ("orange", "red", "uv", "farred")  # the channel whose flux scale is kept: the first that is there
MAX_ERROR = 0.025  # of a scale factor: the flux scales agree to some per cent without it, so a noisier one does harm
MAX_SCALE = 3.0  # more than that is no difference of transparency or aperture
SURELY = 3.0  # errors of a scale factor, by which it must lie beyond that for an exposure to be left out
OUTLIER_SIGMA = 6.0  # of a sample against the other exposures
OUTLIER_SHARE = 0.2  # of the flux, which seeing and centring may change from exposure to exposure
BINS = (1, 8, 64)  # samples that are put together to compare spectra
SIGNAL = 5.0  # sigma, by which a spectrum must have more power than its noise to be compared
STANDS_OUT = 4.0  # sigma of a sample that has no say in a factor
MAX_OUTLIERS = 0.01  # of an exposure's samples: cosmic rays that stage 05 left are far fewer
MIN_ABSORPTION = 0.005  # of the air, that a correction would be for
MAX_DRIFT = 15.0  # km/s between exposures, above which lines that are left topocentric get visibly wider
MIN_COVER = 0.5  # of a smoothing kernel must lie on samples that were measured


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
    left_out : names of parts that are not in the sum: too bright or too faint to be the same object
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
    left_out: tuple[str, ...] = ()
    decisions: list[Decision] = field(default_factory=list)


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


def flux_ratio(
    a: np.ndarray, ea: np.ndarray, b: np.ndarray, eb: np.ndarray, correlated: float = 1.0
) -> tuple[float, float]:
    """Factor by which spectrum ``b`` must be multiplied to agree with ``a``, and its error.

    ``correlated`` is the variance of a sum of neighbouring samples over that of independent ones.

    Both are noisy: the sum of (a - s b)^2 / (ea^2 + s^2 eb^2) is made least by repeated linear fits whose weights do not follow the
    noise.  Samples that stand out (cosmic rays, variable lines) lose their weight.  Faint continua tell more in bins, lines without
    them: what gives the smallest error is taken.

    Returns
    -------
    factor, error : NaN and inf when there is nothing to compare
    """
    use = (ea > 0) & (eb > 0)
    best = float("nan"), float("inf")
    for width in BINS:
        size = int(use.sum()) // width * width
        if size < 5 * width:
            break
        one, other = (x[use][:size].reshape(-1, width).mean(axis=1) for x in (a, b))
        errors = [np.sqrt((e[use][:size].reshape(-1, width) ** 2).sum(axis=1)) / width for e in (ea, eb)]
        # Within a bin the correlation of neighbours is in the error, single samples keep theirs and have it in that of the sum.
        within, beside = (1.0, correlated) if width == 1 else (np.sqrt(correlated), 1.0)
        # From all samples, and from those that agree with a factor of 1: a cosmic ray draws the first to itself, the second knows
        # nothing of lines where these are all the light there is.
        data = one, within * errors[0], other, within * errors[1]
        fits = [_fitted_ratio(*data, start, beside) for start in (None, 1.0)]
        best = min(best, min(fits, key=lambda fit: fit[0])[1:], key=lambda found: found[1])
    return best


def _fitted_ratio(a, ea, b, eb, start: float | None, correlated: float) -> tuple[float, float, float]:
    """Chi-square in which samples that stand out count no more than the limit, factor and error; see `flux_ratio`."""

    def deviates(scale: float) -> tuple[np.ndarray, np.ndarray]:
        rest = (a - scale * b) / np.sqrt(ea**2 + scale**2 * eb**2)
        spread = max(1.0, 1.4826 * float(np.median(np.abs(rest))))
        return np.abs(rest), np.abs(rest) < STANDS_OUT * spread

    def cost(scale: float) -> float:
        return float((np.minimum(deviates(scale)[0], STANDS_OUT) ** 2).sum())

    scale = 1.0 if start is None else start
    keep = np.ones(a.size, bool) if start is None else deviates(scale)[1]
    error = float("inf")
    for _ in range(15):
        w = keep / (ea**2 + scale**2 * eb**2)
        # The part of b that is signal: its own noise would pull the factor down.
        power = (w * (b**2 - eb**2)).sum()
        if power <= SIGNAL * np.sqrt(2 * ((w * eb**2) ** 2).sum()):
            return cost(scale), float("nan"), float("inf")
        new = float((w * a * b).sum() / power)
        error = float(np.sqrt(correlated * (w * b**2).sum()) / power)
        keep = deviates(new)[1]
        if abs(new - scale) < 1e-5 * abs(new):
            break
        scale = new
    return cost(new), new, error


def exposure_scales(parts: Sequence[Part]) -> tuple[dict[str, float], set[str], list[Decision]]:
    """Factors that bring the exposures of each channel to their common mean.

    Every exposure is compared with the one of its channel that has most signal; the mean, weighted by exposure time, of those that
    can be compared keeps its flux.  One that is too faint to be compared keeps its own; one that is surely brighter or fainter by
    more than any cloud makes it shows something else, and is left out.

    Returns
    -------
    scales : name -> factor, of those that are part of the sum
    compared : names of those that are on a common scale
    decisions
    """
    scales: dict[str, float] = {}
    compared: set[str] = set()
    decisions = []
    for channel in ORDER:
        own = [part for part in parts if part.channel == channel]
        if not own:
            continue
        best = max(own, key=_signal)
        found = {best.name: 1.0}
        kept = {best.name: max(best.exptime, 1.0)}
        for part in own:
            if part is best:
                continue
            other = part.__dict__ if np.array_equal(part.wave, best.wave) else on_grid(part, best.wave)
            share, error = flux_ratio(
                other["flux"], other["error"], best.flux, best.error, max(1 + 2 * sum(best.correlation), 0.2)
            )
            if share + SURELY * error < 1 / MAX_SCALE or share - SURELY * error > MAX_SCALE:
                text = (
                    f"{part.name} is {share:.3g} +- {error:.1g} times as bright as {best.name}, which no difference of clouds and "
                    "aperture is: not part of the sum. Is it the same object? --leave-out N_expNN takes one of them out of the run"
                )
                decisions.append(Decision("APART", text, "warn"))
                continue
            scales[part.name] = 1.0
            if _is_sure(share, error):
                found[part.name], kept[part.name] = 1 / share, max(part.exptime, 1.0)
            else:
                text = f"{part.name}: too faint to be scaled to {best.name}; its flux is kept"
                decisions.append(Decision("NOSCALE", text, "info"))
        # On the scale of the best, the true mean is that of what each measured.
        mean = sum(time / found[name] for name, time in kept.items()) / sum(kept.values())
        scales |= {name: ratio * mean for name, ratio in found.items()}
        compared |= set(found)
    return scales, compared, decisions


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


def disagreeing(flux: np.ndarray, error: np.ndarray, share: float = OUTLIER_SHARE, reach: int = 0) -> np.ndarray:
    """Samples (n_parts, n) bool that stand above the other exposures of the same channel: cosmic rays that were left.

    A sample is compared with the weighted mean of the others; where there are two, the brighter one stands out.

    Parameters
    ----------
    flux, error : (n_parts, n), on one grid; error 0: not measured
    share : of the others' flux, by which one may differ
    reach : samples to either side, over which the others' highest flux counts: wavelengths that differ by less than a line's width
        put the flank of a line in one exposure beside its peak in another
    """
    weight = np.where(error > 0, 1.0 / np.where(error > 0, error, 1.0) ** 2, 0.0)
    total, light = weight.sum(axis=0), (weight * flux).sum(axis=0)
    rest = total - weight
    some = (rest > 0) & (weight > 0)
    others = np.where(rest > 0, (light - weight * flux) / np.where(rest > 0, rest, 1.0), -np.inf)
    highest = maximum_filter1d(others, 2 * reach + 1, axis=1, mode="nearest")
    sigma = np.sqrt(np.where(some, error**2 + 1.0 / np.where(some, rest, 1.0), np.inf))
    allowed = share * np.where(some, np.abs(highest), 0.0)
    return some & (flux - highest > OUTLIER_SIGMA * sigma + allowed)


def _without_outliers(
    placed: list[dict], own: Sequence[Part], compared: set[str], step: float
) -> tuple[dict[str, int], list[Decision]]:
    """Take samples out that disagree with the channel's other exposures, in place; how many of each, and what was not believed.

    ``step`` [A] is that of the grid on which they are.
    """
    flux, error = (np.stack([one[name] for one in placed]) for name in ("flux", "error"))
    # Those that could not be scaled may differ as much as exposures may.
    share = OUTLIER_SHARE if all(part.name in compared for part in own) else MAX_SCALE - 1
    reach = int(np.ceil(max(float(np.median(part.sigma)) for part in own) / step))
    counts, decisions = {}, []
    for part, one, out in zip(own, placed, disagreeing(flux, error, share, reach), strict=True):
        counts[part.name] = int(out.sum())
        if counts[part.name] > MAX_OUTLIERS * (one["error"] > 0).sum():
            text = (
                f"{counts[part.name]} samples of {part.name} stand above the channel's other exposures: too many for cosmic rays, "
                "so they are kept; do the exposures show the same object, and is its flux steady?"
            )
            decisions.append(Decision("DISAGREE", text, "warn"))
            counts[part.name] = 0
            continue
        one["error"] = np.where(out, 0.0, one["error"])
    return counts, decisions


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
    scales, compared, found = exposure_scales(parts)
    decisions += found
    left_out = tuple(part.name for part in parts if part.name not in scales)
    parts = [scaled(part, scales[part.name]) for part in parts if part.name in scales]
    waves = [moved(part.wave, part.velocity, barycentric=barycentric, vacuum=vacuum) for part in parts]
    placed = [on_grid(part, grid, wave, sigma) for part, wave in zip(parts, waves, strict=True)]
    step = float(grid[1] - grid[0])
    correlation: dict[str, float] = {}
    rejected = {part.name: 0 for part in parts}
    means: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for channel in ORDER:
        own = [i for i, part in enumerate(parts) if part.channel == channel]
        if not own:
            continue
        if len(own) > 1:
            counts, found = _without_outliers([placed[i] for i in own], [parts[i] for i in own], compared, step)
            rejected |= counts
            decisions += found
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
        parts, scales, rejected, correlation, sigma, left_out, decisions,
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
