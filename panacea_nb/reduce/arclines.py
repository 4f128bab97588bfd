"""Lines of arc lamps: where they lie in every fibre, and which of them are to be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from scipy.special import erf

BLEND_DISTANCE = 9.0  # px; closer lines disturb each other's centres
FIT_REACH = 7  # px on each side of a line that its fit uses
NARROW_REACH = 4  # px, for a line with a blend on one side
START_SIGMA = 1.9  # px; LSF of 4.5 px FWHM
LINE_ERROR = 0.02  # px, by which lines are off for reasons of their own: the list, faint blends
ODD_LINE, ODD_SIGMA = 0.08, 5.0  # px and sigma, by which a line is off what the others say, not to be one of them
WIDE_LINE = 0.15  # relative, by which line widths differ on their own from a straight line over the chip


@dataclass(frozen=True)
class LineFits:
    """Gaussian fits of the arc lines in all fibres.

    Attributes
    ----------
    wavelength : (nl,) [A, air]; centre, sigma, flux, error : (nl, nf) [px, px, e-, px]; good : (nl, nf) bool
    """

    wavelength: np.ndarray
    centre: np.ndarray
    sigma: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    good: np.ndarray


def pixel_gaussian(x: np.ndarray, centre: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """A unit Gaussian integrated over pixels centred on ``x`` (all arrays broadcast)."""
    s = np.sqrt(2.0) * sigma
    return 0.5 * (erf((x + 0.5 - centre) / s) - erf((x - 0.5 - centre) / s))


def fit_line(
    spectra: np.ndarray, variance: np.ndarray, guess: np.ndarray, low: int, high: int, sigma: float = START_SIGMA
):
    """Fit one pixel-integrated Gaussian on a constant to all fibres at once (Levenberg-Marquardt, vectorised over fibres).

    Parameters
    ----------
    spectra, variance : (nf, nx)
    guess : (nf,) [px]
    low, high : int
        Pixels below and above the guess that take part.

    Returns
    -------
    centre, sigma, flux, error, good : (nf,) each; ``error`` is that of the centre [px]
    """
    nf, nx = spectra.shape
    start = np.round(np.nan_to_num(guess)).astype(int)
    inside = (start - low >= 0) & (start + high < nx) & np.isfinite(guess)
    guess = np.where(np.isfinite(guess), guess, start)
    start = np.clip(start, low, nx - high - 1)
    columns = start[:, None] + np.arange(-low, high + 1)
    rows = np.arange(nf)[:, None]
    data, var = spectra[rows, columns].astype(float), variance[rows, columns].astype(float)
    weight = np.where(var > 0, 1.0 / np.maximum(var, 1e-12), 0.0)
    background = np.percentile(data, 15, axis=1)
    flux = np.maximum((data - background[:, None]).sum(axis=1), 1.0)
    par = np.stack([flux, np.clip(guess, start - 2, start + 2), np.full(nf, sigma), background], axis=1)
    damping = np.full(nf, 1e-2)

    def chi(p):
        model = p[:, :1] * pixel_gaussian(columns, p[:, 1:2], p[:, 2:3]) + p[:, 3:4]
        return model, (weight * (data - model) ** 2).sum(axis=1)

    model, best = chi(par)
    for _ in range(12):
        f, c, s = par[:, :1], par[:, 1:2], par[:, 2:3]
        shape = pixel_gaussian(columns, c, s)
        up, down = (columns + 0.5 - c) / s, (columns - 0.5 - c) / s
        g_up, g_down = (
            np.exp(-0.5 * up**2) / (np.sqrt(2 * np.pi) * s),
            np.exp(-0.5 * down**2) / (np.sqrt(2 * np.pi) * s),
        )
        jac = np.stack([shape, f * (g_down - g_up), f * (g_down * down - g_up * up), np.ones_like(shape)], axis=2)
        normal = np.einsum("fp,fpi,fpj->fij", weight, jac, jac)
        gradient = np.einsum("fp,fpi->fi", weight * (data - model), jac)
        diagonal = np.einsum("fii->fi", normal)
        damped = normal + np.eye(4) * (damping[:, None] * diagonal + 1e-12)[:, None, :]
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial = par + step
        trial[:, 2] = np.clip(trial[:, 2], 0.6, 5.0)
        trial[:, 1] = np.clip(trial[:, 1], start - low + 1.0, start + high - 1.0)
        trial_model, trial_chi = chi(trial)
        better = trial_chi <= best
        par[better], model[better], best[better] = trial[better], trial_model[better], trial_chi[better]
        damping = np.where(better, damping * 0.2, damping * 8)
    covariance = np.linalg.pinv(normal)
    error = np.sqrt(np.maximum(covariance[:, 1, 1], 0))
    flux_error = np.sqrt(np.maximum(covariance[:, 0, 0], 0))
    # A model that does not fit (blend, ghost) says so in chi-square; its error grows with it.
    error *= np.sqrt(np.maximum(1.0, best / max(1, low + high + 1 - 4)))
    good = (
        inside
        & (par[:, 0] > 4 * flux_error)
        & (np.abs(par[:, 1] - guess) < 3.5)
        & (par[:, 2] > 0.7)
        & (par[:, 2] < 4.5)
    )
    return par[:, 1], par[:, 2], par[:, 0], error, good


def measure_lines(spectra: np.ndarray, variance: np.ndarray, guess: np.ndarray, wavelength: np.ndarray) -> LineFits:
    """Fit every line in every fibre; lines with a neighbour within `BLEND_DISTANCE` use only their free side."""
    order = np.argsort(wavelength)
    middle = np.array([np.median(g[np.isfinite(g)]) if np.isfinite(g).any() else -1e3 for g in guess])
    fits = []
    for i in range(wavelength.size):
        rank = int(np.flatnonzero(order == i)[0])
        below = middle[i] - middle[order[rank - 1]] if rank > 0 else np.inf
        above = middle[order[rank + 1]] - middle[i] if rank + 1 < order.size else np.inf
        low = NARROW_REACH if abs(below) < 2 * BLEND_DISTANCE else FIT_REACH
        high = NARROW_REACH if abs(above) < 2 * BLEND_DISTANCE else FIT_REACH
        low, high = (3 if abs(below) < BLEND_DISTANCE else low), (3 if abs(above) < BLEND_DISTANCE else high)
        fits.append(fit_line(spectra, variance, guess[i], low, high))
    centre, sigma, flux, error, good = (np.stack(part) for part in zip(*fits, strict=True))
    return LineFits(np.asarray(wavelength, float), centre, sigma, flux, error, good.astype(bool))


def blend_error(lines: LineFits, dead: np.ndarray) -> np.ndarray:
    """What the centres of lines may be off by, (nl,) [px], that are wider than those beside them: unresolved blends.

    The width that lines have without is a straight line over the chip, robust against the wide ones.
    """
    seen = lines.good & ~dead
    many = np.flatnonzero(seen.sum(axis=1) > dead.size // 4)
    blend = np.zeros(lines.wavelength.size)
    if many.size < 4:
        return blend
    centre, sigma = (np.array([np.median(v[i][seen[i]]) for i in many]) for v in (lines.centre, lines.sigma))
    # The median of the slopes between all pairs (Theil 1950, Sen 1968): three blends of ten lines do not change it much.
    i, j = np.triu_indices(many.size, 1)
    apart = centre[j] - centre[i]
    slope = np.median((sigma[j] - sigma[i]) / np.where(np.abs(apart) > 1, apart, np.inf))
    usual = slope * centre + np.median(sigma - slope * centre)
    # A faint line beside, one to two sigma away, moves the centre by one to two times what it adds to the width.
    blend[many] = 2 * np.maximum(sigma / usual - 1 - WIDE_LINE, 0.0) * usual
    return blend


def odd_lines(x: np.ndarray, offset: np.ndarray, error: np.ndarray, along: int) -> np.ndarray:
    """Lines that are surely off what all others say, (n,) bool: blended, or others than they were taken for.

    One at a time, that without which a polynomial of degree ``along`` fits the others best.  Near the ends of the chip a line's own
    residual does not tell, for the polynomial bends to it.

    Parameters
    ----------
    x : (n,) places, -1 to 1; offset, error : (n,) [px]
    """
    odd = np.zeros(x.size, bool)
    sigma = np.hypot(error, LINE_ERROR)
    terms, value = legendre.legvander(x, along) / sigma[:, None], offset / sigma
    while 4 * odd.sum() < x.size - 3 and (~odd).sum() >= along + 4:
        left = np.flatnonzero(~odd)
        found = []
        for k in left:
            others = left[left != k]
            coef = np.linalg.lstsq(terms[others], value[others], rcond=None)[0]
            rest = float(np.sum((value[others] - terms[others] @ coef) ** 2))
            found.append((rest, k, abs(float(value[k] - terms[k] @ coef)), terms[others]))
        rest, k, off, others = min(found, key=lambda item: item[0])
        scatter = max(1.0, np.sqrt(rest / (left.size - 2 - along)))
        known = np.sqrt(1.0 + terms[k] @ np.linalg.pinv(others.T @ others) @ terms[k])
        if off * sigma[k] < ODD_LINE or off < ODD_SIGMA * scatter * known:
            break
        odd[k] = True
    return odd
