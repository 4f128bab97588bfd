"""Regions and lists of fibres that a user names: which fibres are sky, which hold the object."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..errors import RequestError
from ..instrument import LENSLET_PITCH
from .refraction import Refraction

SHAPES = {"circle": 3, "annulus": 4, "ellipse": 5}  # and how many numbers each takes
SUBPOINTS = 12  # per side of a lenslet, for the part of it that a region covers: 1 % for a border across it
NODES = 9  # wavelengths at which a region is followed through refraction
SKY_SHARE = 0.5  # of a lenslet, averaged along the channel, must lie in a sky region
OBJECT_SHARE = 0.05  # of a lenslet in an object's region, at any wavelength, keeps the fibre from being sky
_SHAPE = re.compile(r"([a-z]+)\(([^()]*)\)")


class RegionError(RequestError):
    """A region or list of fibres cannot be understood, or holds no fibre."""


@dataclass(frozen=True)
class Shape:
    """One shape in IFU arcsec: ``circle(x,y,r)``, ``annulus(x,y,r_in,r_out)`` or ``ellipse(x,y,a,b,angle)``.

    a and b are half axes; the angle [deg] runs from IFU +x to the first of them, towards +y.
    """

    kind: str
    numbers: tuple[float, ...]

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points lie in the shape; arrays of any one shape [arcsec]."""
        x0, y0, *size = self.numbers
        dx, dy = x - x0, y - y0
        if self.kind == "ellipse":
            a, b, angle = size
            c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
            return ((c * dx + s * dy) / a) ** 2 + ((c * dy - s * dx) / b) ** 2 <= 1.0
        r2 = dx**2 + dy**2
        if self.kind == "annulus":
            return (r2 >= size[0] ** 2) & (r2 <= size[1] ** 2)
        return r2 <= size[0] ** 2


@dataclass(frozen=True)
class Region:
    """The union of shapes, at the wavelength at which the user gave it.

    Attributes
    ----------
    shapes : tuple of Shape
    text : str, as the user wrote it
    """

    shapes: tuple[Shape, ...]
    text: str

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points [arcsec] lie in any of the shapes."""
        return np.any([shape.inside(x, y) for shape in self.shapes], axis=0)

    def overlap(self, positions: np.ndarray, wave: np.ndarray, refraction: Refraction, reference: float) -> np.ndarray:
        """Part of each lenslet's area that the region covers, (nf, nw), when it moves as refraction moves the light.

        Parameters
        ----------
        positions : (nf, 2) [arcsec]; wave : (nw,) [A]
        reference : float [A], wavelength at which the region was given
        """
        part = ((np.arange(SUBPOINTS) + 0.5) / SUBPOINTS - 0.5) * LENSLET_PITCH
        px = positions[:, 0][:, None] + np.repeat(part, SUBPOINTS)
        py = positions[:, 1][:, None] + np.tile(part, SUBPOINTS)
        dx, dy = refraction.offset(np.asarray(wave, float), reference)
        return np.stack([self.inside(px - a, py - b).mean(axis=1) for a, b in zip(dx, dy, strict=True)], axis=1)


def parse_region(text: str) -> Region:
    """A region from its text: shapes joined by ``+``, such as ``circle(0,0,1.5)+ellipse(2,1,3,1.5,30)``.

    Raises
    ------
    RegionError
    """
    shapes = []
    for part in re.sub(r"\s", "", text).lower().split("+"):
        found = _SHAPE.fullmatch(part)
        kind = found[1] if found else ""
        try:
            numbers = tuple(float(word) for word in found[2].split(",")) if found else ()
        except ValueError:
            numbers = ()
        if kind not in SHAPES or len(numbers) != SHAPES[kind] or not np.isfinite(numbers).all():
            raise RegionError(
                f"region {text!r}: {part!r} is none of circle(x,y,r), annulus(x,y,r_in,r_out), ellipse(x,y,a,b,angle) [arcsec, deg]"
            )
        smallest = 0.0 if kind == "annulus" else 1e-6  # an annulus may begin at its centre
        if min(numbers[2:4]) < smallest or (kind == "annulus" and numbers[2] >= numbers[3]):
            raise RegionError(f"region {text!r}: in {part!r} sizes must be above 0, an inner radius below the outer")
        shapes.append(Shape(kind, numbers))
    return Region(tuple(shapes), text)


def sky_fibers(
    region: Region, positions: np.ndarray, wave: tuple[float, float], refraction: Refraction, reference: float
) -> np.ndarray:
    """Fibres (nf,) bool that lie in a sky region, for most of their area and of the channel's range ``wave`` [A]."""
    share = region.overlap(positions, np.linspace(*wave, NODES), refraction, reference).mean(axis=1)
    return share >= SKY_SHARE


def object_fibers(
    region: Region, positions: np.ndarray, wave: tuple[float, float], refraction: Refraction, reference: float
) -> np.ndarray:
    """Fibres (nf,) bool that an object's region touches at any wavelength of the channel."""
    share = region.overlap(positions, np.linspace(*wave, NODES), refraction, reference).max(axis=1)
    return share > OBJECT_SHARE


def fiber_list(text: str, n_fibers: int) -> np.ndarray:
    """Fibres (n_fibers,) bool from a list of their numbers, counted from 1: ``1-20,35 101-140``.

    Raises
    ------
    RegionError
    """
    chosen = np.zeros(n_fibers, bool)
    for word in re.split(r"[,\s]+", text.strip()):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last <= n_fibers:
            raise RegionError(
                f"fibres {text[:60]!r}: {word!r} is no fibre from 1 to {n_fibers}, nor a range such as 101-140"
            )
        chosen[first - 1 : last] = True
    return chosen
