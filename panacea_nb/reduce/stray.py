"""Light that a bright source scatters over the chip, measured again on the fibres beside it.

The scattered light of 05_extract is that of the twilight's fibre image, known to some per cent of itself, without reflections.
Under a faint source that is nothing.  A star a thousand times brighter than the sky scatters as much on fibres beside its own as
the sky gives them, so that those per cent are per cents of the sky.  The fibres show what is left: it is smooth over the chip, and
follows where the star's light is there, not its image in the field.
"""

from __future__ import annotations

import numpy as np

from ..decisions import Decision
from .scatter import gaussian_matrix
from .sky import GRADIENT_PRIOR, field_basis

STEP = 32  # columns in a bin
SIGMAS = (25.0, 50.0, 100.0, 200.0)  # px of the chip: what is scattered wider is all but a part of the sky
TURNED = 100.0  # px, of a reflection: the image turned about the middle of the chip
PRIOR = 0.002  # of the source's light, that what goes into each of them may be other than in the twilight
SHARE = 1.0  # of the sky's light, in all fibres together: a fainter source scatters nothing that matters
MOST = 0.5  # of the sky's light: a fibre with more of the source shows its image, not what it scatters
MODEL_ERROR = 0.1  # of the source's light in a fibre, by which its model may be wrong
LEAST = 0.3  # of the usual weight, that a bin must have
ROUNDS = 4
CLIP = 4.0  # sigma


def _binned(values: np.ndarray) -> np.ndarray:
    """Mean over `STEP` columns, (nf, nb); columns left over at the end are left out."""
    nb = values.shape[1] // STEP
    return values[:, : nb * STEP].reshape(values.shape[0], nb, STEP).mean(axis=2)


def spread(light: np.ndarray, rows: np.ndarray, sigma: float) -> np.ndarray:
    """What fibres (nf, nb) get of the light of all fibres spread over the chip by a Gaussian of ``sigma`` px.

    ``light`` (nf, nb) [e- per column] is binned by `STEP` columns; ``rows`` (nf,) [px] is where the fibres lie.
    """
    pitch = float(
        np.median(np.diff(np.sort(rows)))
    )  # the fit of all fibres gives each as many pixels of a level background
    across = np.exp(-0.5 * ((rows[:, None] - rows[None, :]) / sigma) ** 2) * pitch / (np.sqrt(2 * np.pi) * sigma)
    return across @ light @ gaussian_matrix(light.shape[1], sigma / STEP)


def stray_light(
    rest: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    source: np.ndarray,
    sky: np.ndarray,
    rows: np.ndarray,
    positions: np.ndarray,
) -> np.ndarray | None:
    """Scattered light of the source beside that which was taken off already, (nf, nx) [e- per column]; None of a faint source.

    A few numbers are fitted to the fibres that hold little of the source's image: how much of its light goes into Gaussians of
    some widths, and into a reflection, each with a prior.  An error of the sky, in spectrum and tilt over the field, is free: what
    all fibres get of the source cannot be told from the sky, and stays with it.

    Parameters
    ----------
    rest : (nf, nx) [e- per column], without sky and source; ``variance``, ``good`` : of it
    source, sky : (nf, nx) [e- per column], their models
    rows : (nf,) [px], where the fibres lie on the chip; positions : (nf, 2) [arcsec]
    """
    if source.sum() < SHARE * sky.sum():
        return None
    weight = np.where(good & (variance > 0), 1.0 / np.maximum(variance, 1e-9), 0.0)
    total, light, level = _binned(weight), _binned(source), _binned(sky)
    known = (light.sum(axis=1) < MOST * level.sum(axis=1))[:, None] & (total > 0)
    known &= total > LEAST * np.median(total[known]) if known.any() else False
    parts = [spread(light, rows, s) for s in SIGMAS]
    parts.append(spread(light, rows, TURNED)[::-1, ::-1])
    tilts = [t[:, None] * level for t in field_basis(positions, 2).T]
    terms = np.stack([*parts, *tilts])
    prior = np.array([PRIOR] * len(parts) + [GRADIENT_PRIOR] * len(tilts))
    total = np.where(known, total, 1.0)
    data = np.where(known, _binned(weight * rest) / total, 0.0)
    n = level.shape[1]
    noise = 1.0 / (total * STEP) + n * (MODEL_ERROR * light) ** 2
    coef, levels, kept = np.zeros(prior.size), 0.0, known
    for _ in range(ROUNDS):
        # What a fibre is off by in all columns together must not average down over them: flat errors, levels of detector rows.
        spread2 = noise + n * (levels * level) ** 2
        w = np.where(kept, 1.0 / spread2, 0.0)
        # What all fibres have in common, in the proportions of the sky, is the sky's.
        norm = np.maximum((w * level**2).sum(axis=0), 1e-30)
        columns = terms - level * ((w * level * terms).sum(axis=1, keepdims=True) / norm)
        own = data - level * ((w * level * data).sum(axis=0) / norm)
        flat = columns.reshape(prior.size, -1)
        normal = (flat * w.ravel()) @ flat.T + np.diag(prior**-2.0)
        coef = np.linalg.solve(normal, (flat * w.ravel()) @ own.ravel())
        left = own - np.tensordot(coef, columns, axes=1)
        kept = known & (left**2 < CLIP**2 * spread2)
        levels = _level_scatter(left, level, np.where(kept, 1.0 / noise, 0.0))
    stray = np.tensordot(coef[: len(parts)], columns[: len(parts)], axes=1)
    middle = (np.arange(n) + 0.5) * STEP - 0.5
    return np.stack([np.interp(np.arange(rest.shape[1]), middle, row) for row in stray])


def _level_scatter(left: np.ndarray, level: np.ndarray, weight: np.ndarray) -> float:
    """Scatter of the fibres' levels, in units of the sky, beyond their noise; all arrays (nf, nb)."""
    norm = (weight * level**2).sum(axis=1)
    some = norm > 0
    if not some.any():
        return 0.0
    each = (weight * level * left).sum(axis=1)[some] / norm[some]
    return float(np.sqrt(max((1.4826 * np.median(np.abs(each))) ** 2 - np.median(1.0 / norm[some]), 0.0)))


def stray_decision(stray: np.ndarray, sky: np.ndarray) -> Decision:
    """What is said of it: the most that a fibre gets, against the sky."""
    most = float(np.max(np.abs(stray.sum(axis=1)) / np.maximum(sky.sum(axis=1), 1e-30)))
    text = (
        f"the source scatters other light over the chip than the twilight tells, up to {100 * most:.0f} % of the sky in a fibre: "
        "measured on the fibres beside it, and subtracted"
    )
    return Decision("STRAYLIGHT", text, "info")
