"""Refinements of a fitted sky where the user asks for them: its level by groups of fibres, or its lines' residuals by PCA."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.polynomial import legendre
from scipy.ndimage import binary_dilation, median_filter

from ..decisions import Decision
from .arrays import fill_gaps
from .fieldmodel import FieldModel
from .skychoice import adjusted

GROUP = 20  # fibres; amplifier and slit errors change slowly along the slit
MIN_GROUP = 4  # sky fibres that a group needs
DEGREE = 3  # of the polynomial along the channel
LEVEL_PRIOR = 0.02  # of the sky, per term: flats and skies err by no more
LINE_RATIO = 1.3  # sky over its running median: a sky line
LINE_WINDOW = 101  # columns of that median, and of the continuum that the projection does not see
GROW = 3  # columns added on both sides of a line
MAX_COMPONENTS = 5
NOISE_MARGIN = 1.1  # a component must be this much stronger than the strongest of noise alone
MIN_PCA_FIBERS = 30
CLIP = 4.0  # sigma; an object's own emission line is not projected
SOURCE_ERROR = 0.05  # of the source's light, by which its model may err


def level_correction(
    field: FieldModel, amplitude: np.ndarray, variance: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Decision]:
    """Level of the sky along the channel, by groups of neighbouring fibres, from the sky fibres of each.

    A Legendre polynomial of degree `DEGREE` times the sky, with a prior of `LEVEL_PRIOR` per term.

    Returns
    -------
    correction, its variance : (nf, nx) [e- per column]; decision
    """
    sky = field.sky
    native = sky.native()
    nf, nx = native.shape
    rest = amplitude - native - field.source_native
    terms = legendre.legvander(np.linspace(-1, 1, nx), DEGREE)
    weight = np.where(good & sky.fibers[:, None], 1.0 / np.maximum(variance, 1e-9), 0.0)
    weight = np.where(np.abs(rest) * np.sqrt(weight) > CLIP, 0.0, weight)
    correction, spread = np.zeros((nf, nx)), np.zeros((nf, nx))
    done, largest = 0, 0.0
    edges = list(range(0, nf, GROUP))
    for first in edges:
        rows = slice(first, min(first + GROUP, nf))
        if sky.fibers[rows].sum() < MIN_GROUP:
            continue
        normal = np.einsum("fx,xi,xj->ij", weight[rows] * native[rows] ** 2, terms, terms)
        covariance = np.linalg.inv(normal + np.eye(DEGREE + 1) / LEVEL_PRIOR**2)
        coef = covariance @ np.einsum("fx,xi->i", weight[rows] * native[rows] * rest[rows], terms)
        correction[rows] = (terms @ coef) * native[rows]
        spread[rows] = np.einsum("xi,ij,xj->x", terms, covariance, terms) * native[rows] ** 2
        done, largest = done + 1, max(largest, float(np.abs(terms @ coef).max()))
    text = (
        f"sky level refined by polynomials in {done} of {len(edges)} groups of fibres, by at most {100 * largest:.2f} %"
    )
    return correction, spread, Decision("SKYPOLY", text, "info" if done == len(edges) else "warn")


def line_columns(field: FieldModel) -> tuple[np.ndarray, np.ndarray]:
    """Even grid of wavelengths (n,) over the channel, about one per column, and whether each lies on a sky line (n,) bool."""
    sky = field.sky
    step = float(np.median(np.diff(sky.wavelength, axis=1)))
    grid = np.arange(float(sky.wavelength.min()), float(sky.wavelength.max()), step)
    light = sky.spectrum(grid)
    line = light > LINE_RATIO * np.maximum(median_filter(light, LINE_WINDOW, mode="nearest"), 1e-9)
    return grid, binary_dilation(line, iterations=GROW)


def _above(rest: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Residuals without the smooth light that a source's model has left."""
    filled = fill_gaps(rest, use)
    return filled - median_filter(filled, size=(1, LINE_WINDOW), mode="nearest")


def _on_grid(values: np.ndarray, use: np.ndarray, wavelength: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Rows interpolated onto the grid of lines; 0 where a sample is not to be used."""
    clean = np.where(use, values, 0.0)
    return np.stack([np.interp(grid, w, v, left=0.0, right=0.0) for w, v in zip(wavelength, clean, strict=True)])


def line_correction(
    field: FieldModel, amplitude: np.ndarray, variance: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Decision]:
    """Residuals on sky lines by principal components of the sky fibres (after Soto et al. 2016, MNRAS 458, 3210, in spirit).

    Components come from sky fibres alone, and only those stronger than noise makes.  Each fibre's residual without its
    source's model and without smooth light is projected on them at the wavelengths of sky lines only, with the scatter of the
    sky fibres' amplitudes as prior: what the sky fibres do not do, an object's light cannot make the correction do.

    Returns
    -------
    correction, its variance : (nf, nx) [e- per column]; decision
    """
    sky = field.sky
    nothing = np.zeros(amplitude.shape)
    grid, line = line_columns(field)
    if line.sum() < 10 or sky.fibers.sum() < MIN_PCA_FIBERS:
        why = f"{int(line.sum())} columns on sky lines, {int(sky.fibers.sum())} sky fibres"
        return nothing, nothing.copy(), Decision("SKYPCA", f"no refinement by PCA: {why} are too few", "warn")
    at = grid[line]
    unit = np.maximum(sky.factor, 1e-9)
    native = sky.native()
    rest = amplitude - native - field.source_native
    sigma = np.sqrt(np.maximum(variance, 1e-9) + (SOURCE_ERROR * field.source_native) ** 2)
    above = _above(rest, good)
    fibers = np.flatnonzero(sky.fibers)
    use = good[fibers] & (np.abs(above[fibers]) < 3 * CLIP * sigma[fibers])
    noise = np.median((sigma / unit)[fibers], axis=0)
    scale = np.interp(at, np.median(sky.wavelength[fibers], axis=0), noise)
    trained = _on_grid(above[fibers] / unit[fibers], use, sky.wavelength[fibers], at) / scale
    # Noise alone through the same steps: what its strongest component is (drawn once, with a fixed seed).
    drawn = np.random.default_rng(0).normal(size=use.shape) * sigma[fibers]
    blank = _on_grid(_above(drawn, good[fibers]) / unit[fibers], use, sky.wavelength[fibers], at) / scale
    limit = np.linalg.svd(blank, compute_uv=False)[0]
    _, strength, shapes = np.linalg.svd(trained, full_matrices=False)
    count = int(min(MAX_COMPONENTS, (strength > NOISE_MARGIN * limit).sum()))
    if count == 0:
        return (
            nothing,
            nothing.copy(),
            Decision("SKYPCA", "no refinement by PCA: sky lines leave nothing but noise", "info"),
        )
    prior = (strength[:count] ** 2 - limit**2) / fibers.size
    full = np.zeros((count, grid.size))
    full[:, line] = shapes[:count] * scale
    correction, spread = nothing, nothing.copy()
    for f in np.flatnonzero(good.any(axis=1)):
        design = np.stack([np.interp(sky.wavelength[f], grid, row) for row in full], axis=1) * unit[f][:, None]
        on = np.interp(sky.wavelength[f], grid, line.astype(float)) > 0.5
        weight = np.where(good[f] & on, sigma[f] ** -2, 0.0)
        for _ in range(3):
            covariance = np.linalg.inv((design.T * weight) @ design + np.diag(1.0 / prior))
            fit = design @ (covariance @ (design.T @ (weight * above[f])))
            weight = np.where(np.abs(above[f] - fit) > CLIP * sigma[f], 0.0, weight)
        correction[f] = fit
        spread[f] = np.einsum("xi,ij,xj->x", design, covariance, design)
    text = f"sky lines refined by {count} principal components of {fibers.size} sky fibres"
    return correction, spread, Decision("SKYPCA", text, "info")


CORRECTIONS = {"polynomial": level_correction, "pca": line_correction}


def refined(field: FieldModel, kind: str, amplitude: np.ndarray, variance: np.ndarray, good: np.ndarray) -> FieldModel:
    """The field with its sky refined as asked for: ``none``, ``polynomial`` or ``pca``."""
    if kind == "none":
        return field
    correction, spread, decision = CORRECTIONS[kind](field, amplitude, variance, good)
    sky = adjusted(field.sky, correction=correction, correction_variance=spread)
    pull = (amplitude - sky.native() - field.source_native) / np.sqrt(np.maximum(variance, 1e-9))
    inner = good & sky.fibers[:, None]
    chi = 1.4826 * float(np.median(np.abs(pull[inner]))) if inner.any() else float("nan")
    return replace(field, sky=replace(sky, chi=chi), decisions=[*field.decisions, decision])
