"""The path of a source over the field: refraction by the air moves its light with wavelength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..decisions import Decision

# Length and turn [deg] of a path beyond which no air makes it: two stars of different colours that look like one, say.
USUAL_SCALE = (0.7, 1.4)
USUAL_TURN = 25.0


@dataclass(frozen=True)
class Refraction:
    """Path of a source over the field, x(wavelength), y(wavelength) [arcsec], as a table."""

    wavelength: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def offset(self, wave: np.ndarray | float, reference: float) -> tuple[np.ndarray, np.ndarray]:
        """Displacement at ``wave`` from where the source is at ``reference`` [A]."""
        dx = np.interp(wave, self.wavelength, self.x) - np.interp(reference, self.wavelength, self.x)
        dy = np.interp(wave, self.wavelength, self.y) - np.interp(reference, self.wavelength, self.y)
        return dx, dy

    def changed(self, along: float, across: float) -> Refraction:
        """The path longer by a share ``along`` and turned by ``across`` (a share of its length, from IFU x to y).

        The zenith distance of what the telescope tracks is up to six degrees from its usual one, which makes the path longer or
        shorter by up to a fifth; its direction changes with the parallactic angle.
        """
        x = (1 + along) * self.x - across * self.y
        return Refraction(self.wavelength, x, (1 + along) * self.y + across * self.x)

    def apart(self, one: Sequence[float], other: Sequence[float], wave: np.ndarray) -> float:
        """RMS distance [arcsec] over wavelengths (n,) of the paths changed in one way and in another, their means on each other."""
        between = self.changed(one[0] - other[0] - 1, one[1] - other[1])
        return float(np.sqrt(sum(np.var(np.interp(wave, self.wavelength, v)) for v in (between.x, between.y))))


def path_scale(path: Sequence[float]) -> tuple[float, float]:
    """Length of a changed path over the table's, and its turn [deg]."""
    along, across = path
    return float(np.hypot(1 + along, across)), float(np.degrees(np.arctan2(across, 1 + along)))


def scaled_path(scale: float, turn: float) -> tuple[float, float]:
    """The change of a path, as `Refraction.changed` takes it, from what `path_scale` gives."""
    angle = np.radians(turn)
    return float(scale * np.cos(angle) - 1), float(scale * np.sin(angle))


def is_usual(path: tuple[float, float]) -> bool:
    """Whether air and telescope can make such a change of the path."""
    scale, turn = path_scale(path)
    return USUAL_SCALE[0] <= scale <= USUAL_SCALE[1] and abs(turn) <= USUAL_TURN


def path_decision(path: Sequence[float]) -> Decision:
    """What is said of a path that is not the table's."""
    scale, turn = path_scale(path)
    text = (
        f"the source's own light shows its path by refraction: {scale:.2f} times as long as the instrument's table has it, "
        f"turned by {turn:.1f} deg"
    )
    if is_usual(path):
        return Decision("REFRPATH", text, "info")
    text += (
        ": no air does that, and the table's path is kept. It may be two stars of different colours closer than the seeing, whose "
        "spectra are then mixed, or an object that is elsewhere in one colour than in another: look at its image and at what the "
        "model leaves in 06_sky"
    )
    return Decision("REFRPATH", text, "warn")
