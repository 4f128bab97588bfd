"""Find the object in the field, model it as a point source seen through refraction, and extract its spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import least_squares

from ..decisions import Decision
from ..instrument import LENSLET_PITCH
from .chunks import SYSTEMATIC, chunk_means, level_shapes, whitening, with_levels
from .detection import detection_map, line_search, significance
from .psf import lenslet_fractions
from .refraction import Refraction, is_usual, path_decision
from .sky import field_basis
from .sourceprior import PATH_CHANGES, ShapePrior, SourcePrior

FWHM_LIMITS = (0.7, 5.0)
BETA_LIMITS = (1.8, 8.0)
DISK_FWHM_LIMITS = (0.9, 10.0)
DISK_LIMITS = (0.3, 8.0)  # from an exponential with a cusp to nearly a Gaussian
DISK_INDEX = (0.5, 4.0)  # Sersic's: from a Gaussian to the profile of an elliptical galaxy
STAR_ERROR, DISK_ERROR = 0.01, 0.1  # of the local light: what the model of a star, of a galaxy may be wrong by
MODEL_FLUX = 0.005  # of the flux, that no model of an image tells better
WHOLE = 0.8  # of the light, that must fall on the field for a place to count
MIN_PLACES = 30
SKY_SHARE = 0.3  # of an object's mean light in the field, by which the sky under it may be off
DETECTION = 5.0  # S/N of the matched filter over the whole channel
LINE_DETECTION = 6.5  # S/N in one narrow window: more trials
SAME_SOURCE = 1.0  # arcsec from where a source was expected: the map of detections has steps of 0.3
MAX_SEEING = 2.9  # arcsec; a wider object is extended, unless the seeing is known to be that bad
WIDE = 2.0  # sigma by which an image is wider than expected
MOST_SHEAR = 0.6  # an axis ratio of one to two: no star is that long
MIN_BETA = 2.2  # shallower wings are those of a galaxy
PATH_FREE = 50.0  # S/N from which a source may show that its path by refraction is not the instrument's usual one
PATH_SURE = 9.0  # by which chi-square must fall then: of two parameters, noise makes it so in one case of a hundred
PATH_LEAST = 0.01  # arcsec (RMS over the channel) by which the paths must differ


@dataclass(frozen=True)
class PointSource:
    """A point source in the field.

    Attributes
    ----------
    x, y : float, IFU arcsec at ``wave_ref``
    wave_ref : float [A]
    fwhm : float, arcsec at ``wave_ref``; exponent : FWHM ~ wavelength^exponent; beta : Moffat exponent
    snr : float, of the detection
    error : dict of 1-sigma errors of x, y, fwhm, beta, shear (NaN where held)
    fixed : bool, position given by the user
    chi : float, reduced chi-square of the fit over fibres and chunks
    chunk_wave, chunk_flux, chunk_error : (n,) source flux by chunk, unit of the data
    decisions : list of Decision
    shear : ellipticity of the model, see `psf.lenslet_fractions`
    disk : Sersic index of a disk with ``beta`` its steepness, see `psf.lenslet_fractions`; 0 where the model is a Moffat
    flux_error : float, relative error of the flux that all wavelengths share: of place, shape, levels and what the model does not
        explain; NaN where none was fitted
    path : how its path by refraction differs from the instrument's table, see `Refraction.changed`
    widest : float, arcsec; a wider image is no star's
    unexplained : float, RMS of what the model leaves in the fibres beyond their noise, as a share of the model's own RMS
    """

    x: float
    y: float
    wave_ref: float
    fwhm: float
    exponent: float
    beta: float
    snr: float
    error: dict[str, float]
    fixed: bool
    chi: float
    chunk_wave: np.ndarray
    chunk_flux: np.ndarray
    chunk_error: np.ndarray
    decisions: list[Decision] = field(default_factory=list)
    shear: tuple[float, float] = (0.0, 0.0)
    disk: float = 0.0
    unexplained: float = 0.0
    flux_error: float = float("nan")
    path: tuple[float, float] = (0.0, 0.0)
    widest: float = MAX_SEEING

    def refracted(self, refraction: Refraction) -> Refraction:
        """The path of this source, where ``refraction`` is the instrument's table."""
        return refraction.changed(*self.path)

    def parameters(self) -> list[float]:
        """What `_shapes` is called with."""
        par = [self.x, self.y, float(np.log(self.fwhm)), self.exponent, self.beta, *self.shear, *self.path]
        return [*par, float(np.log(self.disk))] if self.disk else par

    @property
    def extended(self) -> bool:
        """Whether the fitted shape is no star's: wider than the seeing can be, or with the wings of a galaxy."""
        return self.disk > 0 or self.fwhm > self.widest or self.beta < MIN_BETA


def _shapes(par, positions, wave, wave_ref, refraction):
    """Shares (n, nf) of a source; ``par``: x, y, ln FWHM, its exponent, beta, shear (2), path (2), and ln n of a disk."""
    x, y, log_fwhm, exponent, beta, e1, e2, along, across, *index = par
    dx, dy = refraction.changed(along, across).offset(wave, wave_ref)
    fwhm = np.exp(log_fwhm) * (wave / wave_ref) ** exponent
    return lenslet_fractions(positions, x + dx, y + dy, fwhm, beta, shear=(e1, e2), disk=_index_of(par))


def _index_of(par: np.ndarray) -> float:
    """Sersic index in the parameters of `_shapes`; 0 of a Moffat's."""
    return float(np.exp(par[9])) if len(par) > 9 else 0.0


def _chunk_fluxes(shape, means, weight):
    norm = (shape**2 * weight).sum(axis=1)
    flux = (shape * means * weight).sum(axis=1) / np.maximum(norm, 1e-300)
    return flux, 1.0 / np.sqrt(np.maximum(norm, 1e-300))


def _without_sky(shape: np.ndarray, means: np.ndarray, weight: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """What a source of given shape and an error of the sky leave of the chunks' means, (n, nf), and the tilts' coefficients.

    Free are the flux of the source and a level that all fibres share in each chunk, and a tilt of the sky over the field,
    ``tilts`` (k, n, nf), with a prior of one.
    """
    w, p, pp = weight.sum(axis=1), (weight * shape).sum(axis=1), (weight * shape**2).sum(axis=1)
    determinant = np.maximum(w * pp - p**2, 1e-300)

    def left(values: np.ndarray) -> np.ndarray:
        d, pd = (weight * values).sum(axis=-1), (weight * shape * values).sum(axis=-1)
        flux, level = (w * pd - p * d) / determinant, (pp * d - p * pd) / determinant
        return values - flux[..., None] * shape - level[..., None]

    rest, shapes = left(means), left(tilts)
    weighted = (shapes * weight).reshape(len(tilts), -1)
    normal = weighted @ shapes.reshape(len(tilts), -1).T + np.eye(len(tilts))
    coef = np.linalg.solve(normal, weighted @ rest.ravel())
    return rest - np.tensordot(coef, shapes, axes=1), coef


def fit_point_source(
    positions: np.ndarray,
    wave: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
    refraction: Refraction,
    wave_ref: float,
    *,
    start: tuple[float, float],
    snr: float,
    fixed: bool = False,
    expected: ShapePrior | None = None,
    place: tuple[float, float, float] | None = None,
    disk: bool = False,
    common: np.ndarray | None = None,
    path: tuple[float, float] = (0.0, 0.0),
) -> PointSource:
    """Fit position, width and shape of one source to all chunks together; the chunks' fluxes are free.
    Refraction is held at the instrument's table, changed by ``path``, unless a star's own light shows surely that the change is
    another (`Refraction.changed`).  The shape has priors (``expected``), and the place where it is known (``place``:
    x, y, error), which decide where the light cannot.  With ``disk`` an elliptical disk is fitted instead of a Moffat.

    ``common`` (n, nf) are the errors of levels that a fibre has in all chunks together (`level_shapes`) beside ``variances``: where
    they are large, place and shape are told from how the fibres' light changes along the spectrum.
    """
    expected = expected or ShapePrior()
    common = np.zeros_like(means) if common is None else common
    noise, variances = variances, with_levels(variances, common)
    shape_limits, fwhm_limits = (DISK_LIMITS, DISK_FWHM_LIMITS) if disk else (BETA_LIMITS, FWHM_LIMITS)
    weight = np.where(np.isfinite(variances), 1.0 / variances, 0.0)
    root = np.sqrt(weight)
    # A bright object's residuals are those of the model, not of the photons; no galaxy is quite a disk, and where it meets the sky
    # counts most.
    peak = np.abs(means).max(axis=1, keepdims=True)
    local = (DISK_ERROR if disk else STAR_ERROR) * np.abs(means)
    doubt = local**2 + (5e-4 * peak) ** 2
    limited = np.where(weight > 0, 1.0 / np.sqrt(np.where(weight > 0, variances, 1.0) + doubt), 0.0)
    # Colours of a galaxy's parts are no levels of fibres: there, errors stay what they are in each chunk.
    white = whitening(variances + doubt, 0 * common) if disk else whitening(noise + doubt, common)

    def whole(p: np.ndarray) -> np.ndarray:
        par = np.array([start[0], start[1], *p]) if fixed else p
        return par if par.size == 9 else np.concatenate([par[:7], path, par[7:]])

    def residuals(p):
        par = whole(p)
        shape = _shapes(par, positions, wave, wave_ref, refraction)
        rest, tilt = _without_sky(np.pad(shape, beside), data, root_weight**2, tilts)
        own = np.einsum("fij,jf->if", white, rest[:, :-1])
        rest = np.concatenate([own.ravel(), rest[:, -1] * root_weight[:, -1]])
        priors = [
            (par[3] - expected.exponent[0]) / expected.exponent[1],
            (par[4] - expected.beta[0]) / expected.beta[1],
            (np.exp(par[2]) - expected.fwhm[0]) / expected.fwhm[1],
            *((par[5:7] - expected.shear[:2]) / expected.shear[2]),
            *((par[7:9] - path) / PATH_CHANGES),
            *((par[9:] - np.log(expected.index[0])) / expected.index[1]),
            *((par[:2] - place[:2]) / place[2] if place is not None and not fixed else ()),
            *tilt,
        ]
        return np.concatenate([rest, priors])

    width = min(max(expected.fwhm[0], fwhm_limits[0] * 1.05), fwhm_limits[1] * 0.95)
    steep = min(max(expected.beta[0], shape_limits[0] * 1.05), shape_limits[1] * 0.95)
    tail = [np.log(width), expected.exponent[0], steep, *np.clip(expected.shear[:2], -0.9 * MOST_SHEAR, 0.9 * MOST_SHEAR)]
    low = [np.log(fwhm_limits[0]), -0.5, shape_limits[0], -MOST_SHEAR, -MOST_SHEAR]
    high = [np.log(fwhm_limits[1]), 0.1, shape_limits[1], MOST_SHEAR, MOST_SHEAR]
    if disk:
        tail, low, high = ([*a, np.log(b)] for a, b in ((tail, expected.index[0]), (low, DISK_INDEX[0]), (high, DISK_INDEX[1])))
    if fixed:
        p0, bounds = np.array(tail), (low, high)
    else:
        p0 = np.array([*start, *tail])
        bounds = ([start[0] - 1.2, start[1] - 1.2, *low], [start[0] + 1.2, start[1] + 1.2, *high])
    # Sky and wings of an object must not settle on each other's errors: the sky may be off, in level and tilt, by a share of the
    # object's mean light, the more so the more of the field the object fills.  A pseudo-fibre at the end holds the level's prior.
    first = _shapes(whole(np.array([*([] if fixed else start), *tail])), positions, wave, wave_ref, refraction)
    light = SKY_SHARE * np.abs(_chunk_fluxes(first, means, limited**2)[0]) * first.mean(axis=1) + 1e-30
    beside = ((0, 0), (0, 1))
    data, root_weight = np.pad(means, beside), np.column_stack([limited, 1.0 / light])
    tilts = np.pad(field_basis(positions, 2).T[:, None, :] * light[:, None], ((0, 0), *beside))
    how = {"loss": "soft_l1", "f_scale": 3.0, "x_scale": "jac", "max_nfev": 60}
    fit = least_squares(residuals, p0, bounds=bounds, **how)
    decisions = []
    if snr > PATH_FREE and wave.size > 1 and not disk:
        room = [np.pad(side, (0, 2), constant_values=value) for side, value in zip(bounds, (-1.0, 1.0), strict=True)]
        other = least_squares(residuals, np.concatenate([fit.x, path]), bounds=room, **how)
        apart = refraction.apart(whole(other.x)[7:9], path, wave)
        if 2 * (fit.cost - other.cost) > PATH_SURE and apart > PATH_LEAST:
            decisions.append(path_decision(whole(other.x)[7:9]))
            fit = other if is_usual(whole(other.x)[7:9]) else fit
    par = whole(fit.x)
    shape = _shapes(par, positions, wave, wave_ref, refraction)
    flux, error = _chunk_fluxes(shape, means, weight)
    n_data = int((weight > 0).sum())
    chi = float(np.sum(((means - flux[:, None] * shape) * root) ** 2) / max(1, n_data - wave.size - fit.x.size))
    unexplained = _unexplained(means, flux[:, None] * shape, variances)
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac)
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0))

    def flux_at(change: np.ndarray) -> np.ndarray:
        return _chunk_fluxes(_shapes(whole(fit.x + change), positions, wave, wave_ref, refraction), means, weight)[0]

    elsewhere = _scatter_beside(positions, par, means - flux[:, None] * shape, weight, flux)
    # An image that the model describes to a few per cent gives no flux that is known better.
    flux_error = float(np.hypot(_flux_error(flux_at, flux, error, covariance, elsewhere), unexplained))
    if fixed:
        sigma = np.concatenate([[np.nan, np.nan], sigma])
    errors = {"x": sigma[0], "y": sigma[1], "fwhm": sigma[2] * np.exp(par[2]), "beta": sigma[4], "shear": max(sigma[5:7])}
    if np.exp(par[2]) < fwhm_limits[0] * 1.02 or np.exp(par[2]) > fwhm_limits[1] * 0.98:
        perhaps = (
            "extended, two sources or noise" if np.exp(par[2]) > fwhm_limits[0] * 1.02 else "a cosmic ray or noise"
        )
        text = (
            f"the width of the source ended at the limit of what is tried ({np.exp(par[2]):.2f} arcsec), so it may be {perhaps}, "
            "and its flux is uncertain: look at the image, and give its place with --source_x and --source_y, or use "
            "--extraction aperture"
        )
        decisions.append(Decision("PSFLIMIT", text, "warn"))
    inside = np.min(np.hypot(positions[:, 0] - par[0], positions[:, 1] - par[1]))
    if inside > LENSLET_PITCH:
        decisions.append(
            Decision(
                "SRCEDGE",
                f"the source lies {inside:.2f} arcsec outside the field: its flux rests on the PSF's wings",
                "warn",
            )
        )
    return PointSource(
        float(par[0]), float(par[1]), wave_ref, float(np.exp(par[2])), float(par[3]), float(par[4]), snr,
        {k: float(v) for k, v in errors.items()}, fixed, chi, wave, flux, error, decisions,
        (float(par[5]), float(par[6])), _index_of(par), unexplained, flux_error, (float(par[7]), float(par[8])),
        max(MAX_SEEING, expected.fwhm[0] + 2 * expected.fwhm[1]) if not disk else MAX_SEEING,
    )  # fmt: skip


def _flux_error(
    flux_at: Callable[[np.ndarray], np.ndarray],
    flux: np.ndarray,
    error: np.ndarray,
    covariance: np.ndarray,
    beside: float,
) -> float:
    """Relative error of the flux that all bins share.

    Parameters
    ----------
    flux_at : fluxes (n,) at changed parameters (m,); flux, error : (n,), those found, their errors of noise and levels
    covariance : (m, m) of the parameters
    beside : what the same source measured elsewhere in the field would scatter by, see `_scatter_beside`
    """
    total = float(np.sum((flux / error) ** 2))
    if total <= 0:
        return float("nan")
    steps = 0.3 * np.sqrt(np.maximum(np.diag(covariance), 1e-20))
    rises = [(np.sum(flux_at(row) * flux / error**2) / total - 1.0) / step for row, step in zip(np.diag(steps), steps, strict=True)]
    return float(np.sqrt(rises @ covariance @ rises + max(1.0 / total, beside**2) + MODEL_FLUX**2))


def _scatter_beside(
    positions: np.ndarray, par: np.ndarray, rest: np.ndarray, weight: np.ndarray, flux: np.ndarray
) -> float:
    """Scatter of the relative flux that the source's own image finds at other places of the field, in what the fit leaves there.

    It holds what no error of single fibres knows: levels that neighbours on the chip share, a sky that bends over the field.

    Parameters
    ----------
    par : of the fit; rest, weight : (n, nf), of the bins; flux : (n,)
    """
    x, y = positions.T
    fwhm = np.full(x.size, np.exp(par[2]))
    image = lenslet_fractions(positions, x, y, fwhm, par[4], 2, shear=tuple(par[5:7]), disk=_index_of(par))
    norm = image**2 @ (weight * flux[:, None] ** 2).sum(axis=0)
    found = image @ (weight * rest * flux[:, None]).sum(axis=0) / np.maximum(norm, 1e-300)
    inside = image.sum(axis=1) > WHOLE * image.sum(axis=1).max()
    elsewhere = inside & (np.hypot(x - par[0], y - par[1]) > fwhm)
    if elsewhere.sum() < MIN_PLACES:
        return 0.0
    return 1.4826 * float(np.median(np.abs(found[elsewhere])))


def _unexplained(means: np.ndarray, model: np.ndarray, variances: np.ndarray) -> float:
    """RMS of means - model beyond three sigma of what noise makes of it, as a share of the RMS of the model; arrays (n, nf)."""
    known = np.isfinite(variances)
    noise = variances[known]
    beyond = np.sum((means - model)[known] ** 2) - noise.sum() - 3 * np.sqrt(2 * np.sum(noise**2))
    return float(np.sqrt(max(beyond, 0.0) / max(np.sum(model[known] ** 2), 1e-300)))


def find_source(
    positions: np.ndarray,
    wave: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    refraction: Refraction,
    *,
    wave_ref: float,
    fixed: tuple[float, float] | None = None,
    prior: SourcePrior | None = None,
    systematic: float = SYSTEMATIC,
    electron: np.ndarray | None = None,
    disk: bool = False,
    lines: bool = True,
    near: tuple[float, float] | None = None,
) -> tuple[PointSource | None, dict]:
    """Look for the brightest source of the field.

    First over the whole channel, then, when nothing is there, in narrow windows for a source that shows lines
    alone.  A position given by the user is taken as it is.

    Parameters
    ----------
    positions : (nf, 2) [arcsec]; wave : (nw,) [A]
    value, variance, sky : (nf, nw), sky-subtracted flux density, its variance, the sky
    good : (nf, nw) bool
    wave_ref : float [A], wavelength at which the position and the ``prior`` hold
    systematic, electron : see `level_shapes`
    disk : bool, fit an extended object
    lines : bool, look for a source with lines alone as well
    near : place [arcsec] of the source among others whose light was taken out: what these leave may be brighter

    Returns
    -------
    source : PointSource or None
    search : dict with x, y, snr (map), best (S/N of the best candidate), chunk_wave, means, variances
    """
    prior = prior or SourcePrior()
    how = {"expected": prior.disk if disk else prior.point, "place": prior.place, "disk": disk, "path": prior.path}
    flat, rows = level_shapes(sky, electron, systematic)
    centres, means, noise, common = chunk_means(value, variance, flat, good, wave, rows=rows)
    variances = with_levels(noise, common)
    usual = refraction.changed(*prior.path)
    # Of the usual width in any seeing: in a wider map an image covers more of what `significance` compares it with.
    xs, ys, snr, by_chunk = detection_map(positions, centres, means, variances, usual, wave_ref)
    j, i = np.unravel_index(np.argmax(snr), snr.shape)
    best = significance(snr)
    at = fixed or near
    if at is not None:
        away = np.hypot(xs[None, :] - at[0], ys[:, None] - at[1])
        merit = np.where(away < SAME_SOURCE, snr, -np.inf) if fixed is None else -away
        j, i = np.unravel_index(np.argmax(merit), snr.shape)
        best = float(snr[j, i])
    search = {
        "x": xs,
        "y": ys,
        "snr": snr,
        "best": best,
        "wave": centres,
        "means": means,
        "variances": variances,
        "line": np.nan,
    }
    if fixed is not None:
        data = (positions, centres, means, noise, refraction, wave_ref)
        source = fit_point_source(*data, start=fixed, snr=best, fixed=True, common=common, **how)
        return source, search
    if best < DETECTION:
        if not lines:
            return None, search
        found = line_search(positions, wave, value, variance, sky, good, usual, wave_ref, xs, ys, systematic)
        search["line_snr"] = found[0]
        search["best"] = max(best, found[0]) if found[0] >= LINE_DETECTION else best
        if found[0] < LINE_DETECTION:
            return None, search
        best, i, j, centres, means, noise = found
        common = None
        search.update(wave=centres, means=means, variances=noise, line=float(centres[0]))
    start = (float(xs[i]), float(ys[j]))
    if prior.place is not None and np.hypot(start[0] - prior.place[0], start[1] - prior.place[1]) > SAME_SOURCE:
        how["place"] = None  # another object
    data = (positions, centres, means, noise, refraction, wave_ref)
    source = fit_point_source(*data, start=start, snr=best, common=common, **how)
    return source, search


def surprise(source: PointSource, expected: ShapePrior) -> float:
    """Chi-square of an image's width against what is expected of a star's."""
    return ((source.fwhm - expected.fwhm[0]) / expected.fwhm[1]) ** 2


def is_wide(source: PointSource, expected: ShapePrior) -> bool:
    """Whether an image is wider than a star's should be, so that it may be that of an extended object."""
    return source.fwhm > expected.fwhm[0] and surprise(source, expected) > WIDE**2


def misfit(source: PointSource, positions: np.ndarray, search: dict, refraction: Refraction) -> float:
    """Chi-square of a source's image in the bins of a search (see `find_source`), its flux and the sky's level free in each."""
    shape = _shapes(source.parameters(), positions, search["wave"], source.wave_ref, refraction)
    weight = 1.0 / search["variances"]
    rest, _ = _without_sky(shape, search["means"], weight, np.zeros((1, *shape.shape)))
    return float(np.sum(weight * rest**2))


def source_shapes(
    source: PointSource, positions: np.ndarray, wave: np.ndarray, refraction: Refraction, n_nodes: int = 48
) -> np.ndarray:
    """Share of the source's light in each fibre at each wavelength, (nf, nw), interpolated between nodes."""
    nodes = np.linspace(wave.min(), wave.max(), n_nodes)
    at = _shapes(source.parameters(), positions, nodes, source.wave_ref, refraction)
    s = (np.asarray(wave) - nodes[0]) / (nodes[1] - nodes[0])
    k = np.clip(np.floor(s).astype(int), 0, n_nodes - 2)
    r = s - k
    if np.ndim(wave) == 1:
        return ((1 - r)[:, None] * at[k] + r[:, None] * at[k + 1]).T
    fibers = np.arange(positions.shape[0])[:, None]
    return (1 - r) * at[k, fibers] + r * at[k + 1, fibers]
