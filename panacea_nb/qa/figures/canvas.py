"""What all figures share: style, panels placed by hand, robust limits, images brought to the size of the screen."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from ...instrument import LENSLET_PITCH, N_FIBERS
from ...instrument import channel as find_channel
from .. import show

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW = show.CYCLE
DARK, GREY, LIGHT = "#333333", "#7f7f7f", "#d0d0d0"
IMAGE, LEVEL, DIVERGING = "viridis", "cividis", "RdBu_r"
SHADES = 64  # steps of a colour map: finer ones are not seen, and noise in them makes large files

SAMPLE = 30_000  # pixels by which the colours of a palette are chosen

STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.titley": 1.0,  # where it is, not where a search for free room puts it: that takes a third of the time
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.3,
    "lines.linewidth": 1.2,
    "image.origin": "lower",
    "image.interpolation": "nearest",
    "axes.formatter.limits": (-4, 6),
    "axes.formatter.use_mathtext": False,
    "text.hinting": "force_autohint",  # a tenth faster than what fonts bring of their own
    # Names of targets come from headers: a dollar sign in one is no formula.
    "text.parse_math": False,
}

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Drawing = tuple[Figure, str]


class QuickCanvas(FigureCanvasAgg):
    """A canvas that draws once, and with few colours.

    Matplotlib draws every figure twice when it is saved, the first time to find its layout; here the layout is given.
    A palette of 256 colours makes the files two to three times smaller.
    """

    def print_figure(self, filename, *args, **kwargs) -> None:
        """Write the figure as PNG to a file or buffer; everything but the file is ignored."""
        self.draw()
        few = with_palette(np.asarray(self.buffer_rgba()))
        few.save(filename, format="png", dpi=(show.DPI, show.DPI))


def with_palette(rgba: np.ndarray) -> Image.Image:
    """An image (ny, nx, 4) of bytes in at most 256 colours, its transparency ignored.

    Colours that differ by less than 4 of 255 are one: then there are some hundred of them, and their median cut is
    quick, while that of all pixels would take as long as half of the drawing.
    """
    pixel = np.ascontiguousarray(rgba).view("<u4")[..., 0]
    cell = ((pixel >> 2) & 0x3F) | ((pixel >> 4) & 0xFC0) | ((pixel >> 6) & 0x3F000)
    count = np.bincount(cell.ravel(), minlength=1 << 18)
    color = np.zeros(count.size, "<u4")
    color[cell] = pixel
    color[-1] = 0xFFFFFF  # paper stays white
    count[-1] += 1
    used = np.flatnonzero(count)
    shades = color[used].view(np.uint8).reshape(-1, 4)[:, :3]
    index = np.arange(used.size)
    if used.size > 256:
        # Paper (the last) has a colour of its own; the others count as often as they are seen, of which a sample is enough.
        inks = count[used[:-1]]
        often = 1 + inks * SAMPLE // inks.sum()
        strip = Image.fromarray(np.repeat(shades[:-1], often, axis=0)[None])
        few = strip.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        index = np.append(np.asarray(few)[0][np.cumsum(often) - 1], 255)
        palette = np.reshape(few.getpalette(), (-1, 3))[:255]
        shades = np.vstack([palette, np.full((256 - len(palette), 3), 255)])
    lookup = np.zeros(count.size, np.uint8)
    lookup[used] = index
    image = Image.fromarray(lookup[cell])
    image.putpalette(np.asarray(shades, np.uint8).tobytes())
    return image


def drawn(function: Callable[..., Drawing]) -> Callable[..., None]:
    """Show what ``function`` draws: it returns a figure and its alt text."""

    @functools.wraps(function)
    def draw(*args, **kwargs) -> None:
        with matplotlib.rc_context(STYLE), np.errstate(all="ignore"):
            figure, alt = function(*args, **kwargs)
            show.figure(figure, alt)

    return draw


def canvas(headline: str, width: float = 10.0, height: float = 4.2) -> Figure:
    """A figure with its finding as headline.  Panels are placed by `grid`: a layout engine would double the time."""
    fig = show.new_figure(width, height)
    fig.set_layout_engine("none")
    QuickCanvas(fig)
    fig.text(0.1 / width, 1 - 0.08 / height, headline, ha="left", va="top", fontsize=12, fontweight="bold", color=DARK)
    return fig


def grid(
    fig: Figure,
    widths: Sequence[float] = (1,),
    heights: Sequence[float] = (1,),
    *,
    left: float = 0.75,
    right: float = 0.15,
    bottom: float = 0.55,
    top: float = 0.62,
    wspace: float = 0.75,
    hspace: float = 0.6,
):
    """A GridSpec whose margins and gaps are in inches."""
    width, height = fig.get_size_inches()
    nx, ny = len(widths), len(heights)
    mean_width = (width - left - right - wspace * (nx - 1)) / nx
    mean_height = (height - bottom - top - hspace * (ny - 1)) / ny
    return fig.add_gridspec(
        ny,
        nx,
        width_ratios=widths,
        height_ratios=heights,
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=wspace / mean_width,
        hspace=hspace / mean_height,
    )


def label(ax: Axes, title: str = "", x: str = "", y: str = "", *, nx: int = 5, ny: int = 5) -> None:
    """Title and axis labels, and at most so many ticks (each costs a millisecond)."""
    ax.set_title(title)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(nx, steps=[1, 2, 2.5, 5, 10]))
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(ny, steps=[1, 2, 2.5, 5, 10]))


def light_frame(ax: Axes) -> None:
    """For line plots: a grid instead of a box."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e6e6e6", linewidth=0.7)
    ax.set_axisbelow(True)


def log_axis(ax: Axes, between: tuple[float, ...] = (1.0,)) -> None:
    """A logarithmic y axis with plain numbers (formulas are switched off), ticks at ``between`` x 10^n."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=between, numticks=6))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(_power))


def _power(value: float, _: object = None) -> str:
    """A tick of a logarithmic axis: far from 1 as a power of ten."""
    exponent = np.log10(value) if value > 0 else 0.0
    if 0.01 <= value < 10_000 or abs(exponent - round(exponent)) > 0.01:
        return f"{value:g}"
    return "10" + str(round(exponent)).translate(_SUPERSCRIPT)


def nothing(ax: Axes, text: str) -> None:
    """An empty panel that says why it is empty."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=DARK, wrap=True)


def color_map(name: str, shades: int = SHADES, bad: str = LIGHT) -> Colormap:
    """A colour map of few shades, with grey for what is not known."""
    return matplotlib.colormaps[name].resampled(shades).with_extremes(bad=bad)


def image_panel(
    ax: Axes,
    data: np.ndarray,
    extent: Sequence[float] | None = None,
    *,
    norm: Normalize | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str | Colormap = IMAGE,
    aspect: str | float = "auto",
):
    """Show an array; values that are not finite are grey."""
    shades = color_map(cmap) if isinstance(cmap, str) else cmap
    limits = {"norm": norm} if norm is not None else {"vmin": vmin, "vmax": vmax}
    return ax.imshow(np.ma.masked_invalid(data), cmap=shades, aspect=aspect, extent=extent, **limits)


def color_bar(
    fig: Figure, axes: Axes | Sequence[Axes], image: ScalarMappable, text: str, *, n: int = 5, pad: float = 0.08
) -> None:
    """A labelled colour bar to the right of one panel or of a column of panels."""
    axes = [axes] if isinstance(axes, Axes) else list(axes)
    width = fig.get_size_inches()[0]
    boxes = [a.get_position() for a in axes]
    right, low, high = max(b.x1 for b in boxes), min(b.y0 for b in boxes), max(b.y1 for b in boxes)
    cax = fig.add_axes((right + pad / width, low, 0.13 / width, high - low))
    bar = fig.colorbar(image, cax=cax, ticks=MaxNLocator(n, steps=[1, 2, 2.5, 5, 10]))
    bar.outline.set_visible(False)
    bar.set_label(text)


# --- numbers ---


def finite(values: np.ndarray, most: int = 200_000) -> np.ndarray:
    """The finite values as a flat array, thinned to about ``most``."""
    flat = np.asarray(values).ravel()
    flat = flat[:: max(1, flat.size // most)].astype(float)
    return flat[np.isfinite(flat)]


def limits(values: np.ndarray, low: float = 1.0, high: float = 99.0, margin: float = 0.0) -> tuple[float, float]:
    """Percentiles as limits of a scale; (0, 1) without data."""
    good = finite(values)
    if not good.size:
        return 0.0, 1.0
    a, b = (float(v) for v in np.percentile(good, [low, high]))
    if not b > a:
        a, b = a - 0.5 * max(abs(a), 1e-30), a + 0.5 * max(abs(a), 1e-30)
    return a - margin * (b - a), b + margin * (b - a)


def symmetric(values: np.ndarray, share: float = 98.0, floor: float = 1e-30) -> float:
    """A limit v so that -v..v holds ``share`` per cent of the values."""
    good = np.abs(finite(values))
    return max(float(np.percentile(good, share)), floor) if good.size else max(1.0, floor)


def rounded_up(value: float) -> float:
    """The next of 1, 2, 5, 10 ... that is not smaller."""
    if not value > 0 or not np.isfinite(value):
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(k * power for k in (1, 2, 5, 10) if k * power >= 0.999 * value))


def middle(values: np.ndarray) -> float:
    """Median of what is finite; NaN without any."""
    good = finite(values)
    return float(np.median(good)) if good.size else float("nan")


def spread(values: np.ndarray) -> float:
    """1.4826 x median absolute deviation from the median; NaN without data."""
    good = finite(values)
    return 1.4826 * float(np.median(np.abs(good - np.median(good)))) if good.size else float("nan")


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: 'unknown' when there is none."""
    if value is None or not np.isfinite(value):
        return "unknown"
    text = f"{float(value):.{digits}g}"
    return f"{float(value):.0f}" if "e+0" in text else text.replace("e-0", "e-")


def handy_unit(values: np.ndarray) -> tuple[float, str]:
    """A unit in which the values are handy, and its name."""
    good = np.abs(finite(values))
    top = float(np.percentile(good, 99)) if good.size else 0.0
    if not top > 0:
        return 1.0, ""
    exponent = int(np.floor(np.log10(top)))
    return 10.0**exponent, f"10{str(exponent).translate(_SUPERSCRIPT)} "


def printable(text: object, most: int = 40) -> str:
    """Text that every font can show, cut to ``most`` characters."""
    clean = "".join(c if 32 <= ord(c) < 127 else "?" for c in str(text))
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def block_mean(
    image: np.ndarray, rows: int, columns: int, good: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Means over blocks, and how many pixels each holds; NaN where none is good.

    Parameters
    ----------
    image : (ny, nx)
    rows, columns : int
        Size of a block; rows and columns that fill no block are left out.
    good : (ny, nx) bool, optional
        Pixels to use; by default those that are finite.
    """
    ny, nx = (image.shape[0] // rows) * rows, (image.shape[1] // columns) * columns
    part = image[:ny, :nx]
    use = np.isfinite(part) if good is None else good[:ny, :nx]
    if use.all():
        return _sums(part, rows, columns) / (rows * columns), np.full((ny // rows, nx // columns), rows * columns)
    total = _sums(np.where(use, part, 0), rows, columns)
    count = _sums(use.astype(np.float32), rows, columns)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count


def _sums(part: np.ndarray, rows: int, columns: int) -> np.ndarray:
    ny, nx = part.shape
    narrow = part.reshape(ny // rows, rows, nx).sum(axis=1) if rows > 1 else part
    return narrow.reshape(ny // rows, nx // columns, columns).sum(axis=2)


def block_of(size: int, most: int) -> int:
    """Pixels per block that bring ``size`` down to at most ``most``."""
    return max(1, -(-size // most))


def panel_pixels(ax: Axes) -> tuple[int, int]:
    """Rows and columns of the screen that a panel has."""
    box = ax.get_position()
    width, height = ax.figure.get_size_inches() * show.DPI
    return max(1, int(box.height * height)), max(1, int(box.width * width))


def shrunk(ax: Axes, image: np.ndarray, good: np.ndarray | None = None) -> tuple[np.ndarray, tuple[float, ...]]:
    """An image as block means that ``ax`` has screen pixels for, and its extent in pixels of the original.

    An image with more pixels than the screen would lose some of them, and what they show, at random.
    """
    rows, columns = panel_pixels(ax)
    b, c = block_of(image.shape[0], rows), block_of(image.shape[1], columns)
    small, _ = block_mean(image, b, c, good)
    return small, (-0.5, small.shape[1] * c - 0.5, -0.5, small.shape[0] * b - 0.5)


def running(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of ``width`` neighbours of (n,) values and the indices of their centres."""
    n = values.size // width
    if n == 0:
        return np.zeros(0), np.zeros(0)
    part = values[: n * width].reshape(n, width)
    use = np.isfinite(part)
    mean = np.where(use.any(axis=1), np.where(use, part, 0).sum(axis=1) / np.maximum(use.sum(axis=1), 1), np.nan)
    return np.arange(n) * width + 0.5 * (width - 1), mean


def nan_percentile(values: np.ndarray, percent: Sequence[float] | float, axis: int = 0) -> np.ndarray:
    """Percentiles along an axis, NaN where there is no finite value (and no warning about it)."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=axis)  # NaN goes to the end
    ordered = np.moveaxis(ordered, axis, 0)
    count = np.isfinite(ordered).sum(axis=0)
    wanted = np.atleast_1d(np.asarray(percent, float))
    out = np.full((wanted.size, *ordered.shape[1:]), np.nan)
    if ordered.shape[0]:
        for k, p in enumerate(wanted):
            at = p / 100 * np.maximum(count - 1, 0)
            low = np.floor(at).astype(int)
            high = np.minimum(low + 1, np.maximum(count - 1, 0))
            a = np.take_along_axis(ordered, low[None], 0)[0]
            b = np.take_along_axis(ordered, high[None], 0)[0]
            out[k] = np.where(count > 0, a + (at - low) * (b - a), np.nan)
    return out[0] if np.ndim(percent) == 0 else out


# --- fibres ---


def lenslet_positions(n_fibers: int) -> np.ndarray | None:
    """Places (nf, 2) of the lenslets [IFU arcsec], the same in all channels; None for another number of fibres."""
    return find_channel("uv").fiber_positions() if n_fibers == N_FIBERS else None


def lenslets(
    ax: Axes,
    positions: np.ndarray,
    values: np.ndarray,
    *,
    vmin: float,
    vmax: float,
    cmap: str | Colormap = IMAGE,
    edges: np.ndarray | str = "none",
    widths: np.ndarray | float = 0.0,
):
    """The field as a mosaic of lenslets coloured by ``values`` (nf,); grey where there is none."""
    half = 0.5 * LENSLET_PITCH
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    shades = color_map(cmap) if isinstance(cmap, str) else cmap
    mosaic = PolyCollection(
        positions[:, None, :] + corners[None], edgecolors=edges, linewidths=widths, antialiaseds=True
    )
    mosaic.set(array=np.ma.masked_invalid(np.asarray(values, float)), cmap=shades, clim=(vmin, vmax))
    ax.add_collection(mosaic)
    ax.set_xlim(positions[:, 0].min() - 1.6 * half, positions[:, 0].max() + 1.6 * half)
    ax.set_ylim(positions[:, 1].min() - 1.6 * half, positions[:, 1].max() + 1.6 * half)
    ax.set_aspect("equal", adjustable="box", anchor="W")
    return mosaic


def warm_up() -> None:
    """Draw what figures have in common, to no use: fonts and display are looked up once, before kernels are forked."""
    from IPython.display import HTML, Image, display  # noqa: F401

    with matplotlib.rc_context(STYLE):
        fig = canvas("headline", 3, 2)
        left, right = (fig.add_subplot(part) for part in grid(fig, (1, 1)))
        left.plot([1, 2], [1, 10], label="10⁻¹⁷ Å")
        left.set_yscale("log")
        label(left, "title", "x", "y")
        light_frame(left)
        left.legend()
        fig.colorbar(right.imshow([[0.0, 1.0]]), ax=right)
        fig.savefig(io.BytesIO(), format="png")
