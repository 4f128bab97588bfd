"""Cross-dispersion profile of a fibre: pixel-integrated, not Gaussian, of slowly varying width."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf

HALF_WIDTH = 13
"""Rows on either side of the trace where a fibre has light; farther out it is scattered light's business."""

TABLE_STEP = 0.01
"""Step [scaled px] of the tabulated cumulative profile; straight lines between give the profile to 1e-5 of its sum."""

BOX = 1.6
"""Width [px] of the fibre's image, whose sharp edge makes the core flatter than a Gaussian."""


@dataclass(frozen=True)
class Profile:
    """A profile: a Gaussian blurred by a box (the fibre), plus a broader Gaussian (the wings).

    Attributes
    ----------
    sigma : float
        Width [px] of the core's Gaussian at scale 1.
    wing : float
        Part of the light in the wings.
    wing_sigma : float
        Width [px] of the wings' Gaussian at scale 1.
    cumulative : ndarray (n,) float32
        The integral of the profile from its lower end, in steps of `TABLE_STEP`, from ``-reach`` to ``reach``.
    """

    sigma: float
    wing: float
    wing_sigma: float
    cumulative: np.ndarray = field(init=False, repr=False)
    reach: float = HALF_WIDTH / 0.9

    def __post_init__(self) -> None:
        n = int(round(2 * self.reach / TABLE_STEP)) + 1
        u = (np.arange(n) - (n - 1) / 2) * TABLE_STEP
        fine = np.linspace(-BOX / 2, BOX / 2, 41)
        core = np.mean([_gauss_cdf(u - b, self.sigma) for b in fine], axis=0)
        total = (1 - self.wing) * core + self.wing * _gauss_cdf(u, self.wing_sigma)
        total = (total - total[0]) / (total[-1] - total[0])
        object.__setattr__(self, "cumulative", total.astype(np.float32))

    def weights(self, rows: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Part of a fibre's light in each pixel.

        Parameters
        ----------
        rows : ndarray (n,)
            Consecutive pixel rows.
        center, scale : ndarray (m,)
            Trace [px] and width scale at m columns.

        Returns
        -------
        ndarray (n, m) float32
            Light per pixel; the sum over all rows is 1.
        """
        edges = np.append(rows, rows[-1] + 1).astype(np.float32) - np.float32(0.5)
        place = (edges[:, None] - center.astype(np.float32)) / scale.astype(np.float32)
        place += np.float32(self.reach)
        place *= np.float32(1 / TABLE_STEP)
        np.clip(place, 0, self.cumulative.size - 1.001, out=place)
        index = place.astype(np.int32)
        place -= index
        low = self.cumulative[index]
        low += (self.cumulative[index + 1] - low) * place
        return np.diff(low, axis=0)

    def central(self, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Value of the profile at its centre as reductions read it: the mean of the two pixels around the trace."""
        out = np.empty(center.shape)
        for i, (c, s) in enumerate(zip(center, scale, strict=True)):
            low = np.floor(c).astype(int)
            rows = np.arange(low.min(), low.max() + 2)
            w = self.weights(rows, c, s)
            k = np.arange(c.size)
            out[i] = 0.5 * (w[low - rows[0], k] + w[low - rows[0] + 1, k])
        return out


def _gauss_cdf(u: np.ndarray, sigma: float) -> np.ndarray:
    return 0.5 * (1 + erf(u / (np.sqrt(2) * sigma)))
