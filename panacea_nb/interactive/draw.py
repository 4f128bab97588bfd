"""Pictures of the panels: PNGs that are drawn in a tenth of a second, and say what they show."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from PIL import Image

from ..instrument import LENSLET_PITCH
from ..qa import show
from ..qa.figures.canvas import (
    BLUE,
    DARK,
    DIVERGING,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    canvas,
    handy_unit,
    image_panel,
    label,
    lenslets,
    light_frame,
    limits,
    middle,
    nothing,
    number,
    with_palette,
)
from ..reduce.calibrated import Rectified
from ..reduce.cube import Grid
from ..reduce.psf import lenslet_fractions
from ..reduce.skyregion import parse_region
from .model import Shown

FIELD_SIZE = (7.2, 4.4)  # inches, at show.DPI
WIDE = (12.6, 2.7)


@dataclass(frozen=True)
class Picture:
    """A PNG, what it says, and where its main panel lies.

    Attributes
    ----------
    png : bytes; alt : str
    box : (x0, y0, x1, y1) of the panel in fractions of the picture, from its upper left corner
    limits : (x0, y0, x1, y1) of the panel in the data's coordinates, x0, y0 at its lower left corner
    """

    png: bytes
    alt: str
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    limits: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Coordinates of the data at a place of the picture, given in fractions from its upper left corner."""
        u = (x - self.box[0]) / (self.box[2] - self.box[0])
        v = (self.box[3] - y) / (self.box[3] - self.box[1])
        x0, y0, x1, y1 = self.limits
        return x0 + u * (x1 - x0), y0 + v * (y1 - y0)

    def inside(self, x: float, y: float) -> bool:
        """Whether coordinates of the data lie in the panel."""
        x0, y0, x1, y1 = self.limits
        return min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1)


def drawn(function: Callable[..., tuple[Figure, str, Axes]]) -> Callable[..., Picture]:
    """The picture of what ``function`` draws: a figure, its alt text, and the panel that answers."""

    @functools.wraps(function)
    def draw(*args, **kwargs) -> Picture:
        with matplotlib.rc_context(STYLE), np.errstate(all="ignore"):
            fig, alt, ax = function(*args, **kwargs)
            buffer = io.BytesIO()
            fig.savefig(buffer, format="png", dpi=show.DPI)
        frame = ax.get_position(original=False)
        (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
        box = (frame.x0, 1 - frame.y1, frame.x1, 1 - frame.y0)
        return Picture(buffer.getvalue(), alt, tuple(map(float, box)), tuple(map(float, (x0, y0, x1, y1))))

    return draw


@drawn
def field(shown: Shown, image: np.ndarray, spaxels: Grid, regions: dict[str, str], title: str):
    """The collapsed image with the source, the regions of the choices, and the fibres that are sky.

    Parameters
    ----------
    image : (ny, nx), spaxels : Grid
    regions : text of the regions ``sky``, ``never sky`` and ``sum``, those that there are
    """
    even, source = shown.even, shown.found.source
    half = shown.options.wavelength_bin
    fig = canvas(title, *FIELD_SIZE)
    ax = fig.add_axes((0.085, 0.115, 0.9, 0.79))
    values = np.where(image == 0, np.nan, image)
    unit, words = handy_unit(values)
    low, high = limits(values / unit, 2, 99.5)
    step = float(spaxels.x[1] - spaxels.x[0])
    extent = (spaxels.x[0] - step / 2, spaxels.x[-1] + step / 2, spaxels.y[0] - step / 2, spaxels.y[-1] + step / 2)
    image_panel(ax, values / unit, extent, vmin=low, vmax=high, aspect="equal")
    window = f"{shown.centre - half:.0f}–{shown.centre + half:.0f} Å"
    label(ax, "", f"IFU x [arcsec]   ({window}; {low:.3g} to {high:.3g} in {words}erg/s/cm²/Å)", "IFU y [arcsec]")
    places = even.positions
    sky = shown.sky.field.sky.fibers
    ax.plot(*places[sky & even.alive].T, ".", color="white", markersize=2.6, alpha=0.85)
    ax.plot(*places[~even.alive].T, "x", color=ORANGE, markersize=5, markeredgewidth=1.2)
    for kind, color in (("sky", "white"), ("never sky", ORANGE), ("sum", "#ffe14d")):
        if regions.get(kind):
            _outline(ax, regions[kind], color)
    if source is not None:
        nodes = np.linspace(even.grid[0], even.grid[-1], 12)
        dx, dy = even.path_of(source).offset(nodes, source.wave_ref)
        ax.plot(source.x + dx, source.y + dy, color="white", linewidth=2.6)
        ax.plot(source.x + dx, source.y + dy, color=DARK, linewidth=1.0)
        ax.plot(source.x, source.y, "x", color="white", markersize=12, markeredgewidth=3.6)
        ax.plot(source.x, source.y, "x", color="black", markersize=11, markeredgewidth=1.8)
        radius = shown.found.extraction.radius
        if radius is not None:
            ax.add_patch(Circle((source.x, source.y), radius, fill=False, edgecolor="#ffe14d", linewidth=1.8))
    ax.set(xlim=extent[:2], ylim=extent[2:])
    count = int((sky & even.alive).sum())
    where = "no source" if source is None else f"source at {source.x:.2f}, {source.y:.2f} arcsec"
    return fig, f"Collapsed image, {window.replace('Å', 'A')}: {where}; {count} sky fibres.", ax


def _outline(ax: Axes, region: str, color: str) -> None:
    for shape in parse_region(region).shapes:
        x, y, *size = shape.numbers
        if shape.kind == "ellipse":
            patches = [Ellipse((x, y), 2 * size[0], 2 * size[1], angle=size[2])]
        else:
            patches = [Circle((x, y), radius) for radius in size]
        for patch in patches:
            patch.set(fill=False, edgecolor=color, linewidth=1.6, linestyle="--" if color == "white" else "-")
            ax.add_patch(patch)


@drawn
def spectrum(shown: Shown, before: Shown | None = None):
    """The source's spectrum with its error and the sky through the same weights; grey, the one before the last change."""
    wave, found = shown.even.grid, shown.found
    flux, error = _clean(found)
    fig = canvas(_headline(shown), *WIDE)
    ax = fig.add_axes((0.06, 0.19, 0.925, 0.66))
    unit, words = handy_unit(flux)
    usable = np.isfinite(flux)
    if found.source is None and not usable.any():
        nothing(ax, f"no source (best S/N {number(found.search.get('best'))})")
        return fig, _headline(shown).replace("Å", "A") + ".", ax
    if before is not None:
        ax.plot(wave, _clean(before.found)[0] / unit, color=GREY, linewidth=0.6, label="before")
    ax.fill_between(
        wave, (flux - error) / unit, (flux + error) / unit, color=BLUE, alpha=0.35, linewidth=0, label="1 σ"
    )
    ax.plot(wave, flux / unit, color=DARK, linewidth=0.7, label="flux")
    low, high = limits(flux / unit, 0.3, 99.97, 0.12)
    ax.set(ylim=(min(low, 0.0), high), xlim=(wave[0], wave[-1]))
    ax.axhline(0, color=GREY, linewidth=0.7)
    half = shown.options.wavelength_bin
    ax.axvspan(shown.centre - half, shown.centre + half, color=GREEN, alpha=0.25, linewidth=0, label="window")
    light_frame(ax)
    label(ax, "", f"wavelength in air [Å]   (flux in {words}erg/s/cm²/Å)", "", nx=10, ny=4)
    ax.legend(loc="upper right", ncols=4)
    return fig, _headline(shown).replace("Å", "A").replace("²", "2") + ".", ax


def _clean(found) -> tuple[np.ndarray, np.ndarray]:
    usable = found.spectrum.error > 0
    return np.where(usable, found.spectrum.flux, np.nan), np.where(usable, found.spectrum.error, np.nan)


def _headline(shown: Shown) -> str:
    flux, error = _clean(shown.found)
    how = shown.found.extraction.how
    if shown.found.source is None and how == "psf":
        return f"No source: best S/N {number(shown.found.search.get('best'))}, 5 σ limit {number(shown.found.limit, 2)} erg/s/cm²/Å"
    return f"Spectrum ({how}): S/N {number(middle(flux / error))} per element, median flux {number(middle(flux))} erg/s/cm²/Å"


def residuals(shown: Shown) -> tuple[np.ndarray, float]:
    """What sky and source leave in each fibre over the channel, in units of its noise (nf,), and their robust spread."""
    search, source = shown.found.search, shown.found.source
    means, variances = (np.atleast_2d(np.asarray(search[name], float)) for name in ("means", "variances"))
    wave = np.atleast_1d(np.asarray(search["wave"], float))
    model = np.zeros_like(means)
    if source is not None and source.chunk_flux.size == wave.size:
        dx, dy = shown.even.path_of(source).offset(wave, source.wave_ref)
        fwhm = source.fwhm * (wave / source.wave_ref) ** source.exponent
        place = (shown.even.positions, source.x + dx, source.y + dy, fwhm, source.beta)
        model = lenslet_fractions(*place, shear=source.shear, disk=source.disk) * source.chunk_flux[:, None]
    known = np.isfinite(variances) & shown.even.alive[None, :]
    weight = np.where(known, 1.0 / np.where(known, variances, 1.0), 0.0)
    total = weight.sum(axis=0)
    rest = (weight * (means - model)).sum(axis=0) / np.sqrt(np.where(total > 0, total, np.nan))
    return rest, 1.4826 * middle(np.abs(rest))


@drawn
def residual(shown: Shown):
    """What sky and source leave in the fibres, over the whole channel."""
    rest, spread = residuals(shown)
    reach = float(np.clip(np.nanpercentile(np.abs(rest), 99) if np.isfinite(rest).any() else 3.0, 3.0, 50.0))
    chi = shown.sky.field.sky.chi
    fig = canvas(f"Left in the fibres: {number(spread, 2)} σ", 5.4, FIELD_SIZE[1])
    ax = fig.add_axes((0.1, 0.115, 0.88, 0.79))
    lenslets(ax, shown.even.positions, rest, vmin=-reach, vmax=reach, cmap=DIVERGING)
    ax.set_anchor("C")
    label(ax, "", f"IFU x [arcsec]   (±{number(reach, 2)} σ; sky RMS {number(chi)})", "")
    source = shown.found.source
    if source is not None:
        ax.plot(source.x, source.y, "x", color="black", markersize=9, markeredgewidth=1.5)
    return fig, f"Residual of the fibres: {number(spread, 2)} times their noise; sky RMS over noise {number(chi)}.", ax


def fiber_at(even: Rectified, places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the fibres whose lenslets a stroke touches, in their order along it."""
    found: dict[int, None] = {}
    path = list(places)
    for (x0, y0), (x1, y1) in zip(path, path[1:] or path, strict=False):
        steps = max(1, int(np.hypot(x1 - x0, y1 - y0) / (0.3 * LENSLET_PITCH)))
        for part in np.linspace(0, 1, steps + 1):
            distance = np.hypot(*(even.positions - (x0 + part * (x1 - x0), y0 + part * (y1 - y0))).T)
            nearest = int(np.argmin(distance))
            if distance[nearest] <= LENSLET_PITCH / np.sqrt(2):
                found[nearest] = None
    return list(found)


def together(rows: Sequence[Sequence[Picture]]) -> Picture:
    """Several pictures as one: what is shared of a panel."""
    images = [[Image.open(io.BytesIO(picture.png)).convert("RGB") for picture in row] for row in rows]
    width = max(sum(image.width for image in row) for row in images)
    height = sum(max(image.height for image in row) for row in images)
    sheet = Image.new("RGB", (width, height), "white")
    y = 0
    for row in images:
        x = 0
        for image in row:
            sheet.paste(image, (x, y))
            x += image.width
        y += max(image.height for image in row)
    buffer = io.BytesIO()
    with_palette(np.asarray(sheet.convert("RGBA"))).save(buffer, format="png")
    return Picture(buffer.getvalue(), " ".join(picture.alt for row in rows for picture in row))
