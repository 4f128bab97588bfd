"""Figures of 05_extract: what the fibre model leaves of a frame, cosmic rays, flexure, the spectra."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from ...instrument import CHANNELS
from ...reduce.maskbits import DQ, UNUSABLE
from .canvas import (
    BLUE,
    DARK,
    DIVERGING,
    ORANGE,
    SKY,
    Drawing,
    block_mean,
    block_of,
    canvas,
    color_bar,
    color_map,
    drawn,
    grid,
    image_panel,
    label,
    light_frame,
    limits,
    middle,
    nothing,
    number,
    panel_pixels,
    shrunk,
    spread,
    symmetric,
)

PULL = 4.0  # sigma, end of the scale of residuals
ZOOM_ROWS, ZOOM_COLUMNS = 90, 260
CUTOUT = 56  # px of a cosmic-ray cutout
HALF_FIBER = 3.5  # px, half the distance of fibres
STRIDE = 3  # every third column is enough for the whole chip


@drawn
def frame_and_residual(data, noise, result) -> Drawing:
    """A frame, and frame minus fibre model in units of the noise: the whole chip, and the brightest part of it in full.

    Parameters
    ----------
    data : (ny, nx) [e-]; noise : (ny, 1) or (ny, nx) read noise [e-]; result : `reduce.exposure.ScienceExtraction`
    """
    ny, nx = data.shape
    cosmic = 100 * float(result.cosmics.mean())
    fig = canvas(
        f"Pixels scatter about the fibre model by {number(result.chi)} of their noise; {number(cosmic, 2)} % hit by "
        "cosmic rays",
        height=6.6,
    )
    cells = grid(fig, (1, 1), (1.25, 1), left=0.7, right=0.85, wspace=1.5, hspace=0.75)
    thin = slice(None, None, STRIDE if nx > 500 else 1)
    expected = (result.extraction.model + result.background)[:, thin]
    sigma = np.sqrt(np.broadcast_to(np.asarray(noise, np.float32) ** 2, data.shape)[:, thin] + np.maximum(expected, 0))
    pull = (data[:, thin] - expected) / sigma
    ax = fig.add_subplot(cells[0, 0])
    small, extent = shrunk(ax, data[:, thin])
    low, high = limits(small, 1, 99.5)
    shown = image_panel(ax, small, _stretched(extent, nx, small.shape[1]), norm=PowerNorm(0.5, low, max(high, low + 1)))
    color_bar(fig, ax, shown, "e⁻ per px", n=4)
    label(ax, "frame (means)", "column", "row", nx=4)
    ax = fig.add_subplot(cells[0, 1])
    rows, columns = panel_pixels(ax)
    b, c = block_of(ny, rows), block_of(pull.shape[1], columns)
    small, count = block_mean(pull, b, c, np.isfinite(pull) & ~result.cosmics[:, thin])
    box = _stretched(extent, nx, small.shape[1])
    image_panel(ax, small * np.sqrt(count), box, vmin=-PULL, vmax=PULL, cmap=DIVERGING)
    label(ax, f"residual: means of {b * c} px in their noise", "column", nx=4)
    residuals = [ax]
    y0, x0, height, width = _brightest(result, ny, nx)
    region = (slice(y0, y0 + height), slice(x0, x0 + width))
    for axes in fig.axes[0:3:2]:
        axes.plot(
            [x0, x0 + width, x0 + width, x0, x0], [y0, y0, y0 + height, y0 + height, y0], color=ORANGE, linewidth=1.4
        )
    box = (x0 - 0.5, x0 + width - 0.5, y0 - 0.5, y0 + height - 0.5)
    ax = fig.add_subplot(cells[1, 0])
    low, high = limits(data[region], 1, 99.7)
    shown = image_panel(ax, data[region], box, norm=PowerNorm(0.5, low, max(high, low + 1)))
    color_bar(fig, ax, shown, "e⁻ per px", n=4)
    label(ax, "the box in full", "column", "row", nx=4, ny=4)
    ax = fig.add_subplot(cells[1, 1])
    expected = (result.extraction.model + result.background)[region]
    sigma = np.sqrt(np.broadcast_to(np.asarray(noise, np.float32) ** 2, data.shape)[region] + np.maximum(expected, 0))
    part = np.where(result.cosmics[region], np.nan, (data[region] - expected) / sigma)
    shown = image_panel(ax, part, box, vmin=-PULL, vmax=PULL, cmap=color_map(DIVERGING, bad="#00d060"))
    color_bar(fig, [*residuals, ax], shown, "(frame − model) / noise")
    label(ax, "residual; green: cosmic rays", "column", nx=4, ny=4)
    alt = (
        f"Frame and residual: lit pixels scatter about the fibre model by {number(result.chi)} times their noise; in "
        "the enlarged region the "
        f"robust RMS is {number(spread(part))}; {int(result.cosmics.sum())} pixels ({number(cosmic, 2)} %) are hit by "
        "cosmic rays."
    )
    return fig, alt


def _stretched(extent: tuple[float, ...], nx: int, n: int) -> tuple[float, ...]:
    """The extent of thinned columns in those of the frame."""
    return (-0.5, nx - 0.5, extent[2], extent[3]) if n else extent


def _brightest(result, ny: int, nx: int) -> tuple[int, int, int, int]:
    """First row and column and size of the region about the brightest line in the brightest fibre."""
    height, width = min(ZOOM_ROWS, ny), min(ZOOM_COLUMNS, nx)
    amplitude = np.where(result.mask & UNUSABLE, 0.0, result.extraction.amplitude)
    amplitude = np.where(np.isfinite(amplitude), amplitude, 0.0)
    fiber = int(np.argmax(np.median(amplitude, axis=1)))
    column = int(np.argmax(np.median(amplitude, axis=0)))
    row = result.model.trace[fiber, column]
    y0 = int(np.clip(row - height / 2, 0, ny - height)) if np.isfinite(row) else 0
    return y0, int(np.clip(column - width / 2, 0, nx - width)), height, width


@drawn
def cosmic_rays(data, result) -> Drawing:
    """Four regions with many hits, before and after.

    Parameters
    ----------
    data : (ny, nx) [e-]; result : `reduce.exposure.ScienceExtraction`
    """
    hit = result.cosmics
    share = 100 * float(hit.mean())
    lost = int(((result.mask & DQ.LOSTWEIGHT) > 0).sum())
    fig = canvas(
        f"{int(hit.sum())} pixels ({number(share, 2)} %) hit by cosmic rays; {lost} samples lost to them and to "
        "defects",
        height=5.2,
    )
    cells = grid(fig, (1, 1, 1, 1), left=0.4, right=0.1, bottom=0.3, top=0.85, wspace=0.25)
    places = _crowded(hit, result)
    for k, (y0, x0, height, width, name) in enumerate(places):
        region = (slice(y0, y0 + height), slice(x0, x0 + width))
        known = ~_lost_pixels(result, y0, x0, height, width)
        after = np.where(
            known, np.where(hit[region], (result.extraction.model + result.background)[region], data[region]), np.nan
        )
        low, high = limits(after, 1, 99.5)
        gap = np.full((2, width), np.nan)
        both = np.concatenate([after, gap, data[region]])
        ax = fig.add_subplot(cells[k])
        image_panel(ax, both, norm=PowerNorm(0.6, low, max(high + 0.5 * (high - low), low + 1)))
        if hit[region].any():
            ax.contour(
                np.concatenate([hit[region], gap > 0, hit[region] & False]).astype(float),
                [0.5],
                colors=ORANGE,
                linewidths=0.7,
            )
        ax.set_xticks([])
        ax.set_yticks(
            [0.5 * height, 1.5 * height + 2] if k == 0 else [],
            ["after", "before"] if k == 0 else [],
            rotation=90,
            va="center",
        )
        ax.tick_params(length=0)
        ax.set_title(f"{name}: {int(hit[region].sum())} px\nx {x0}–{x0 + width}, y {y0}–{y0 + height}", fontsize=9.5)
    fig.text(
        0.04,
        0.02,
        "outlined: filled from the fibre model; grey: samples that lost too much of their light",
        fontsize=9.5,
        color=DARK,
    )
    alt = (
        f"Cosmic rays: {int(hit.sum())} pixels ({number(share, 2)} % of the chip) are hit, {lost} samples lost too "
        "much of their light; four "
        "regions at full resolution before and after, with "
        f"{', '.join(str(int(hit[y : y + h, x : x + w].sum())) for y, x, h, w, _ in places)} "
        "pixels filled (outlined)."
    )
    return fig, alt


def _lost_pixels(result, y0: int, x0: int, height: int, width: int) -> np.ndarray:
    """(height, width) bool: pixels on samples that too many hits have left without a value."""
    lost = np.zeros((height, width), bool)
    columns = slice(x0, x0 + width)
    samples = (result.mask[:, columns] & DQ.LOSTWEIGHT) > 0
    rows = np.arange(y0, y0 + height)[:, None]
    for trace, bad in zip(result.model.trace[:, columns], samples, strict=True):
        if bad.any():
            lost |= bad & (np.abs(rows - trace) < HALF_FIBER)
    return lost


def _crowded(hit: np.ndarray, result) -> list[tuple[int, int, int, int, str]]:
    """Three regions with the most hits in different parts of the chip, and one on the brightest line of the sky."""
    ny, nx = hit.shape
    height, width = min(CUTOUT, ny), min(CUTOUT, nx)
    step = min(28, height, width)
    count, _ = block_mean(hit.astype(np.float32), step, step)
    places = []

    def place(j: int, i: int, name: str) -> None:
        y0 = int(np.clip((j + 0.5) * step - height / 2, 0, ny - height))
        x0 = int(np.clip((i + 0.5) * step - width / 2, 0, nx - width))
        places.append((y0, x0, height, width, name))

    rows = np.array_split(np.arange(count.shape[0]), 3)
    for part, name in zip(rows, ("bottom", "middle", "top"), strict=True):
        if part.size:
            j, i = np.unravel_index(int(np.argmax(count[part])), count[part].shape)
            place(int(part[0] + j), int(i), name)
    light = np.median(np.where(np.isfinite(result.extraction.amplitude), result.extraction.amplitude, 0.0), axis=0)
    i = min(int(np.argmax(light)) // step, count.shape[1] - 1)
    place(int(np.argmax(count[:, i])), i, "brightest line")
    return places


@drawn
def flexure(result, wavelength) -> Drawing:
    """Shifts across and along dispersion, and the sky spectrum that set the wavelength zero.

    Parameters
    ----------
    result : `reduce.exposure.ScienceExtraction`; wavelength : (nf, nx) [A] of the calibrations
    """
    nf, nx = wavelength.shape
    flex, zero, alive = result.flexure, result.zero, result.model.alive
    moved = np.where(alive[:, None], (result.wavelength - wavelength) / np.gradient(wavelength, axis=1), np.nan)
    along = middle(moved)
    weight = np.where(alive[:, None], flex.weight, 0.0)
    left = float((flex.measured * weight).sum() / weight.sum()) if weight.sum() > 0 else float("nan")
    applied = zero is not None and zero.used
    across = number(float(flex.coef[0]))
    second = f"wavelengths by {number(along)} px along dispersion" if applied else "the sky gave no wavelength zero"
    fig = canvas(f"Fibres moved by {across} px across, {second}", height=6.0)
    cells = grid(fig, (1, 1), (1, 1), left=0.75, right=0.95, wspace=1.6, hspace=0.75)
    ax = fig.add_subplot(cells[0, 0])
    small = _weighted_blocks(flex.measured, weight, block_of(nf, 28), block_of(weight.shape[1], 24))
    reach = float(np.clip(symmetric(small, 98), 0.02, 1.0))
    shown = image_panel(ax, small, (-0.5, nx - 0.5, 0.5, nf + 0.5), vmin=-reach, vmax=reach, cmap=DIVERGING)
    color_bar(fig, ax, shown, "px", n=4)
    label(ax, f"across: left after the correction, mean {number(left, 2)} px", "column", "fibre", nx=4)
    ax = fig.add_subplot(cells[0, 1])
    low, high = limits(moved, 1, 99)
    if high - low < 1e-3:
        low, high = along - 5e-3, along + 5e-3
    shown = image_panel(ax, shrunk(ax, moved)[0], (-0.5, nx - 0.5, 0.5, nf + 0.5), vmin=low, vmax=high)
    color_bar(fig, ax, shown, "px", n=4)
    label(ax, "along: applied to the wavelengths", "column", "", nx=4)
    _zero_panel(fig.add_subplot(cells[1, :]), zero)
    error = zero.error / float(np.median(np.gradient(wavelength, axis=1))) if zero is not None else float("nan")
    end = "wavelength zero measured on the sky" if applied else "no wavelength zero from the sky: the arcs' is kept"
    alt = (
        f"Flexure: {across} px across dispersion (error {number(float(flex.error[0]), 2)}; {number(left, 2)} px left), "
        f"{number(along)} px along dispersion (error {number(error, 2)} px); {end}."
    )
    return fig, alt


def _weighted_blocks(values: np.ndarray, weight: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Weighted means over blocks; NaN where there is no weight."""
    above, _ = block_mean(np.nan_to_num(values) * weight, rows, columns)
    below, _ = block_mean(weight, rows, columns)
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _zero_panel(ax: Axes, zero) -> None:
    """Measured sky and the model whose lines (or template) gave the zero."""
    if zero is None or zero.grid.size < 2:
        nothing(ax, "no sky could be fitted: the wavelength zero is that of the arcs")
        return
    ax.plot(zero.grid, zero.spectrum, color=DARK, linewidth=0.9, label="sky, all sky fibres")
    ax.plot(
        zero.grid,
        zero.model,
        color=ORANGE,
        linewidth=0.9,
        linestyle="--",
        label="list of lines, fitted" if zero.n_lines else "known sky, fitted",
    )
    rest = zero.spectrum - zero.model
    low, high = limits(np.concatenate([zero.spectrum, zero.model]), 0.5, 99.7, 0.05)
    base = low - 0.22 * (high - low)
    ax.plot(
        zero.grid,
        np.clip(rest, -0.12 * (high - low), 0.12 * (high - low)) + base,
        color=BLUE,
        linewidth=0.7,
        label="difference",
    )
    lines = _channel_lines(zero.grid)
    if zero.n_lines and lines.size:
        ax.plot(
            lines + zero.shift,
            np.full(lines.size, low - 0.05 * (high - low)),
            "|",
            color=SKY,
            markersize=6,
            label="listed lines",
        )
    ax.set_xlim(zero.grid[0], zero.grid[-1])
    ax.set_ylim(base - 0.15 * (high - low), high + 0.22 * (high - low))
    light_frame(ax)
    what = f"{zero.n_lines} listed lines" if zero.n_lines else "known night-sky spectra"
    state = "applied" if zero.used else "not applied"
    label(
        ax,
        f"zero from {what}: {number(zero.shift)} ± {number(zero.error, 2)} Å, {state}",
        "wavelength in air [Å]",
        "e⁻ / Å",
        nx=8,
    )
    ax.legend(loc="upper left", ncols=4)


def _channel_lines(grid_: np.ndarray) -> np.ndarray:
    """Listed sky lines of the channel whose range is that of ``grid_``."""
    centre = 0.5 * (grid_[0] + grid_[-1])
    channel = min(CHANNELS.values(), key=lambda c: abs(0.5 * (c.wave_min + c.wave_max) - centre))
    lines = channel.sky_lines()
    return lines[(lines > grid_[0]) & (lines < grid_[-1])]


@drawn
def fiber_spectra(result) -> Drawing:
    """The spectra of all fibres as extracted.

    Parameters
    ----------
    result : `reduce.exposure.ScienceExtraction`
    """
    good = ((result.mask & UNUSABLE) == 0) & result.model.alive[:, None] & (result.extraction.variance > 0)
    spectra = np.where(good, result.extraction.amplitude, np.nan)
    nf, nx = spectra.shape
    level = middle(spectra)
    snr = middle(spectra / np.sqrt(np.maximum(result.extraction.variance, 1e-9)))
    lost = 100 * float(1 - good[result.model.alive].mean()) if result.model.alive.any() else 100.0
    saturated = int(((result.mask & DQ.SATURATED) > 0).sum())
    fig = canvas(
        f"{int(result.model.alive.sum())} fibres, {number(level)} e⁻ per column at S/N {number(snr, 2)}; "
        f"{number(lost, 2)} % of the samples lost",
        height=4.8,
    )
    ax = fig.add_subplot(grid(fig, left=0.75, right=1.05, top=0.85)[0])
    small, _ = shrunk(ax, spectra)
    low, high = limits(small, 1, 99.5)
    shown = image_panel(ax, small, (-0.5, nx - 0.5, 0.5, nf + 0.5), norm=PowerNorm(0.5, low, max(high, low + 1)))
    color_bar(fig, ax, shown, "e⁻ per column")
    label(ax, "", "column", "fibre", nx=8)
    _wavelength_axis(ax, result.wavelength, nx)
    alt = (
        f"Spectra of {int(result.model.alive.sum())} living fibres: {number(level)} e- per column at a S/N of "
        f"{number(snr, 2)} (medians), "
        f"{number(lost, 2)} % of their samples masked, {saturated} saturated."
    )
    return fig, alt


def _wavelength_axis(ax: Axes, wavelength: np.ndarray, nx: int) -> None:
    """Wavelengths of the middle fibre along the top."""
    wave = wavelength[wavelength.shape[0] // 2]
    if not np.all(np.diff(wave) > 0):
        return
    step = 100.0 if np.ptp(wave) < 900 else 200.0
    ticks = np.arange(np.ceil(wave[0] / step) * step, wave[-1], step)
    top = ax.twiny()
    top.set_xlim(-0.5, nx - 0.5)
    top.set_xticks(np.interp(ticks, wave, np.arange(nx)), [f"{t:.0f}" for t in ticks])
    top.set_xlabel("wavelength in air [Å], middle fibre", labelpad=4)
