"""Figures of 04_flat: pixel response, throughput of the fibres, and what their model leaves of the twilight."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection

from .canvas import (
    DARK,
    DIVERGING,
    IMAGE,
    ORANGE,
    Drawing,
    block_mean,
    canvas,
    color_bar,
    drawn,
    finite,
    grid,
    image_panel,
    label,
    lenslet_positions,
    lenslets,
    light_frame,
    limits,
    log_axis,
    middle,
    nan_percentile,
    nothing,
    number,
    shrunk,
    spread,
    symmetric,
)

ZOOM = 220  # px of the region shown at full resolution


@drawn
def pixel_flat(pixels) -> Drawing:
    """Response of the pixels: the chip, its most marked region in full, and the histogram.

    Parameters
    ----------
    pixels : `reduce.flat.PixelFlat`
    """
    percent = 100 * (np.asarray(pixels.data, np.float32) - 1)
    known = (pixels.data != 1) & ~pixels.defects
    bad = int(pixels.defects.sum())
    fig = canvas(f"Pixel response scatters by {number(100 * pixels.scatter, 2)} %; {bad} defective pixels", height=4.2)
    cells = grid(fig, (1, 1, 0.75), left=0.75, wspace=1.2)
    ax = fig.add_subplot(cells[0])
    small, extent = shrunk(ax, percent)
    reach = float(np.clip(symmetric(small, 99.7), 0.1, 10))
    color_bar(fig, ax, image_panel(ax, small, extent, vmin=-reach, vmax=reach, cmap=DIVERGING), "")
    label(ax, "whole chip, means [%]", "column", "row", nx=4)
    y0, x0, height, width = _marked_region(percent, pixels.defects)
    _outline(ax, x0, y0, width, height)
    ax = fig.add_subplot(cells[1])
    part = np.where(pixels.defects, np.nan, percent)[y0 : y0 + height, x0 : x0 + width]
    reach = float(np.clip(symmetric(part, 99.5), 0.5, 30))
    box = (x0 - 0.5, x0 + width - 0.5, y0 - 0.5, y0 + height - 0.5)
    color_bar(fig, ax, image_panel(ax, part, box, vmin=-reach, vmax=reach, cmap=DIVERGING), "")
    label(ax, "the box in full [%]; grey: defects", "column", "", nx=4)
    ax = fig.add_subplot(cells[2])
    values = finite(percent[::3, ::3][known[::3, ::3]])
    if values.size:
        count, edges = np.histogram(values, 80, (-10, 10))
        ax.stairs(np.maximum(count, 0.5), edges, fill=True, color=DARK, alpha=0.55, baseline=0.5)
        log_axis(ax)
        light_frame(ax)
        label(ax, "pixels per 0.25 %", "response − 1 [%]", nx=5)
    else:
        nothing(ax, "no pixel was measured")
    alt = (
        f"Pixel flat: the response of pixels scatters by {number(100 * pixels.scatter, 2)} %, {bad} pixels are "
        "defective and "
        f"{number(100 * float(known.mean()), 3)} % of the chip could be measured; the box marks the region farthest "
        "from one, "
        f"at columns {x0}-{x0 + width} and rows {y0}-{y0 + height}."
    )
    return fig, alt


def _marked_region(percent: np.ndarray, defects: np.ndarray) -> tuple[int, int, int, int]:
    """First row and column, and size, of the region with most structure beyond single pixels."""
    step = 12
    height, width = min(ZOOM, percent.shape[0]), min(ZOOM, percent.shape[1])
    small, _ = block_mean(percent, step, step, ~defects)
    power = np.nan_to_num(np.minimum(small**2, 25.0))
    if not power.size:
        return 0, 0, height, width
    j, i = np.unravel_index(int(np.argmax(power)), power.shape)
    y0 = int(np.clip((j + 0.5) * step - height / 2, 0, percent.shape[0] - height))
    x0 = int(np.clip((i + 0.5) * step - width / 2, 0, percent.shape[1] - width))
    return y0, x0, height, width


def _outline(ax, x0: int, y0: int, width: int, height: int) -> None:
    xs = np.array([x0, x0 + width, x0 + width, x0, x0]) - 0.5
    ax.plot(xs, np.array([y0, y0, y0 + height, y0 + height, y0]) - 0.5, color=DARK, linewidth=1.4)


@drawn
def throughput(throughput, wavelength, alive) -> Drawing:
    """Throughput of the fibres over the field and against wavelength.

    Parameters
    ----------
    throughput : `reduce.flat.Throughput`; wavelength : (nf, nx) [A]; alive : (nf,) bool
    """
    relative = np.where(alive[:, None], throughput.relative, np.nan)
    level = nan_percentile(relative, 50, axis=1)
    rms = 100 * float(np.std(finite(level))) if finite(level).size else float("nan")
    low, high = limits(level, 1, 99)
    faint = int(np.argmin(np.where(np.isfinite(level), level, np.inf)))
    fig = canvas(
        f"Throughput of the fibres differs by {number(rms, 2)} % RMS ({number(low)} to {number(high)} of the average)",
        height=4.4,
    )
    cells = grid(fig, (1.15, 1), left=0.7, right=0.2, wspace=1.65)
    ax = fig.add_subplot(cells[0])
    centre = relative[:, relative.shape[1] // 2]
    positions = lenslet_positions(level.size)
    if positions is not None:
        mosaic = lenslets(ax, positions, centre, vmin=low, vmax=high)
        color_bar(fig, ax, mosaic, "throughput (average fibre = 1)")
        label(ax, "over the field at mid-channel; grey: dead", "IFU x [arcsec]", "IFU y [arcsec]")
    else:
        ax.plot(np.arange(1, level.size + 1), centre, ".", color=DARK)
        light_frame(ax)
        label(ax, "at mid-channel", "fibre", "throughput (average fibre = 1)")
    ax = fig.add_subplot(cells[1])
    columns = np.unique(np.linspace(0, relative.shape[1] - 1, 60).astype(int))
    shades = _shades(level.size)
    curves = np.stack([wavelength[:, columns], relative[:, columns]], axis=-1)[alive]
    ax.add_collection(LineCollection(curves, colors=shades[alive], linewidths=0.5, alpha=0.6))
    if np.any(alive):
        ax.set_xlim(float(wavelength[alive].min()), float(wavelength[alive].max()))
        band = nan_percentile(relative[:, columns], [16, 50, 84], axis=0)
        for line, style in zip(band, (":", "-", ":"), strict=True):
            ax.plot(
                np.median(wavelength[alive][:, columns], axis=0), line, color=ORANGE, linewidth=1.8, linestyle=style
            )
        ax.set_ylim(*limits(relative, 0.2, 99.8, 0.08))
    else:
        nothing(ax, "no living fibre")
    light_frame(ax)
    label(ax, "every fibre; orange: median and 16–84 %", "wavelength in air [Å]", "throughput", nx=5)
    alt = (
        f"Throughput of {int(np.sum(alive))} fibres: {number(rms, 2)} % RMS from fibre to fibre, 98 % of them between "
        f"{number(low)} and "
        f"{number(high)} of the average; the lowest is fibre {faint + 1} with {number(level[faint])}."
    )
    return fig, alt


def _shades(n: int) -> np.ndarray:
    return matplotlib.colormaps[IMAGE](np.linspace(0, 0.95, n))


@drawn
def flat_residual(throughput, alive) -> Drawing:
    """What spectrum times throughput leaves of the twilight: by fibre and column, and the mean over fibres.

    Parameters
    ----------
    throughput : `reduce.flat.Throughput`; alive : (nf,) bool
    """
    percent = np.where(alive[:, None], 100 * np.asarray(throughput.residual, float), np.nan)
    nf, nx = percent.shape
    rms = spread(percent)
    column = nan_percentile(percent, 50, axis=0)
    stripes = spread(column)
    fig = canvas(
        f"The twilight differs from its model by {number(rms, 2)} %; stripes common to all fibres: "
        f"{number(stripes, 2)} %",
        height=5.0,
    )
    cells = grid(fig, (1,), (2.2, 1), left=0.75, right=0.95, hspace=0.45)
    ax = fig.add_subplot(cells[0])
    small, _ = shrunk(ax, percent)
    reach = float(np.clip(symmetric(small, 98), 0.05, 20))
    shown = image_panel(ax, small, (-0.5, nx - 0.5, 0.5, nf + 0.5), vmin=-reach, vmax=reach, cmap=DIVERGING)
    color_bar(fig, ax, shown, "data / model − 1 [%]")
    label(ax, "by fibre and column (means); grey: dead", "", "fibre", nx=8)
    ax.tick_params(labelbottom=False)
    ax = fig.add_subplot(cells[1])
    ax.plot(np.arange(nx), column, color=DARK, linewidth=0.7)
    ax.axhline(0, color=ORANGE, linewidth=0.8)
    top = max(1.2 * symmetric(column, 99.5), 0.02)
    ax.set_xlim(-0.5, nx - 0.5)
    ax.set_ylim(-top, top)
    light_frame(ax)
    label(ax, "median of the fibres", "column", "[%]", nx=8, ny=3)
    noise = middle(np.where(alive, throughput.scatter, np.nan))
    alt = (
        f"Twilight over its model: {number(rms, 2)} % robust RMS in single samples ({number(noise)} times the "
        "expected noise); the median over "
        f"fibres scatters by {number(stripes, 2)} % from column to column, {number(symmetric(column, 99.5), 2)} % at "
        "worst."
    )
    return fig, alt
