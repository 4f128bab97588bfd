"""Small and static pictures: previews for tables, figures for print and for browsers without scripts."""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from . import spectra
from .spectra import Field, Spectrum, binned, limits, smoothed

# Okabe & Ito: told apart by everyone; a channel has the same everywhere.
CHANNEL_COLORS = {"uv": "#0072B2", "orange": "#D55E00", "red": "#CC79A7", "farred": "#5B4A00"}
OTHER_COLORS = ("#009E73", "#56B4E9", "#E69F00", "#444444", "#7A3E9D", "#008080", "#A0522D", "#708090")
INK, SOFT = "#1b2330", "#5a6675"
SPARK_WIDTH, SPARK_HEIGHT = 100, 40
_SPARK_BINS = 98
_DPI = 130


def sparkline(spectrum: Spectrum, says: str) -> Markup:
    """A spectrum as a small line in SVG, crisp at every size, with what it shows in words."""
    level = binned(smoothed(spectrum.flux), _SPARK_BINS)
    low, high = limits(level, 0.0)
    x = np.linspace(1, SPARK_WIDTH - 1, level.size)
    y = SPARK_HEIGHT - 2 - (np.clip(level, low, high) - low) / (high - low) * (SPARK_HEIGHT - 4)
    path, pen = [], "M"
    for here, there, known in zip(x, y, np.isfinite(level), strict=True):
        if known:
            path.append(f"{pen}{here:.1f} {there:.1f}")
        pen = "L" if known else "M"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}" '
        f'role="img" aria-label="{escape(says)}"><title>{escape(says)}</title>'
        f'<path class="{escape(spectrum.channel)}" d="{"".join(path)}"/></svg>'
    )


def image_uri(field: Field) -> str:
    """The collapsed image as a tiny PNG, one pixel per spaxel, north of the IFU up; to be shown enlarged."""
    image = np.where(np.isfinite(field.image), field.image, np.nan)
    good = image[np.isfinite(image)]
    low, high = np.percentile(good, [5, 99.7]) if good.size else (0.0, 1.0)
    scaled = np.arcsinh(4 * np.clip(np.nan_to_num((image - low) / max(high - low, 1e-30)), 0, 1)) / np.arcsinh(4)
    pixels = _palette()[(255 * scaled[::-1]).astype(int)]
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, "PNG", optimize=True)
    return uri(buffer.getvalue())


def uri(png: bytes) -> str:
    """A PNG as the text of a link."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _palette() -> np.ndarray:
    import matplotlib

    return (255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3]).round().astype(np.uint8)


def spectrum_figure(lines: list[Spectrum], name: str) -> bytes:
    """Spectra with their errors as a PNG for print; ``lines`` are drawn in their order, each in the colour of its channel."""
    figure, axes = _axes(11.0, 3.9)
    scale, power = power_of(np.concatenate([line.flux for line in lines]))
    for number, line in enumerate(lines):
        color = CHANNEL_COLORS.get(line.channel, CHANNEL_COLORS["uv"] if len(lines) == 1 else OTHER_COLORS[number % 8])
        axes.fill_between(line.wave, 0, line.error / scale, color="#b9c2cd", lw=0, step="mid")
        axes.plot(line.wave, line.flux / scale, color=color, lw=0.7, label=line.name)
    axes.set_ylim(*limits(np.concatenate([smoothed(line.flux) for line in lines]) / scale, 0.0))
    _label(axes, power, name)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def ratio_figure(first: Spectrum, second: Spectrum, ratio: np.ndarray, names: tuple[str, str]) -> bytes:
    """Two spectra and their ratio, one above the other, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 5.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    scale, power = power_of(first.flux)
    above.plot(first.wave, first.flux / scale, color="#56B4E9", lw=1.8, label=f"A: {names[0]}")
    above.plot(second.wave, second.flux / scale, color="#8a3d00", lw=0.6, label=f"B: {names[1]}")
    above.set_ylim(*limits(np.concatenate([smoothed(line.flux) for line in (first, second)]) / scale, 0.0))
    _label(above, power, "")
    above.set_xlabel("")
    above.legend(frameon=False, fontsize=9)
    below.axhline(1.0, color=SOFT, lw=0.8, ls=":")
    below.plot(first.wave, ratio, color=INK, lw=0.7)
    low, high = limits(ratio, 1.0)
    below.set_ylim(min(low, 0.98), max(high, 1.02))
    below.set_ylabel("B / A")
    below.set_xlabel("wavelength [Å]")
    _plain(below)
    return _png(figure)


def fields_figure(fields: list[Field]) -> bytes:
    """Collapsed images side by side with the source that was found, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    columns = min(2, len(fields))
    rows = -(-len(fields) // columns)
    width, height = 3.4 * columns + 0.5, 2.3 * rows + 0.25
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.62 / width, right=1 - 0.08 / width, bottom=0.45 / height, top=1 - 0.25 / height, hspace=0.22, wspace=0.14
    )
    for number, (axes, field) in enumerate(
        zip(figure.subplots(rows, columns, squeeze=False).flat, fields, strict=False)
    ):
        good = field.image[np.isfinite(field.image)]
        low, high = np.percentile(good, [3, 99.7]) if good.size else (0.0, 1.0)
        axes.imshow(
            field.image,
            origin="lower",
            extent=field.extent,
            cmap="viridis",
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        if field.source is not None:
            x, y, width = field.source
            for color, thick in (("black", 2.6), ("white", 1.2)):
                axes.add_patch(Circle((x, y), max(width, 0.5), fill=False, ec=color, lw=thick))
        if field.sky_axes is not None:
            _compass(axes, field)
        axes.set_title(spectra.short_name(field.name), fontsize=8, color=INK)
        axes.tick_params(labelsize=7, colors=SOFT)
        if number % columns == 0:
            axes.set_ylabel("IFU y [arcsec]", fontsize=8)
        if number >= len(fields) - columns:
            axes.set_xlabel("IFU x [arcsec]", fontsize=8)
    for axes in figure.axes[len(fields) :]:
        axes.set_axis_off()
    return _png(figure)


def power_of(flux: np.ndarray) -> tuple[float, int]:
    """A power of ten by which fluxes become numbers near one."""
    good = np.abs(flux[np.isfinite(flux)])
    level = float(np.percentile(good, 90)) if good.size else 0.0
    power = int(np.floor(np.log10(level))) if level > 0 else 0
    return 10.0**power, power


def _compass(axes, field: Field) -> None:
    """Arrows to north and east in a corner of the image."""
    left, right, bottom, top = field.extent
    length = 0.16 * (right - left)
    start = np.array([right - 1.35 * length, top - 1.35 * length])
    for axis, letter in zip(field.sky_axes, "EN", strict=True):
        direction = np.array(axis) / (float(np.hypot(*axis)) or 1.0)
        end = start + 0.75 * length * direction
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": "white", "lw": 1, "shrinkA": 0, "shrinkB": 0}
        )
        axes.text(*(start + 1.1 * length * direction), letter, color="white", fontsize=7, ha="center", va="center")


def _axes(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI)  # its margins are known, so no time goes into finding them
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.065, right=0.995, bottom=0.135, top=0.93)
    return figure, figure.subplots()


def _label(axes, power: int, title: str) -> None:
    axes.set_xlabel("wavelength [Å]")
    axes.set_ylabel(f"$F_\\lambda$ [$10^{{{power}}}$ erg s$^{{-1}}$ cm$^{{-2}}$ Å$^{{-1}}$]")
    if title:
        axes.set_title(title, fontsize=10, color=INK, parse_math=False)
    _plain(axes)


def _plain(axes) -> None:
    axes.grid(True, color="#e3e7ec", lw=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
