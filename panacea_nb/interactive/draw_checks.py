"""Pictures of the checks: arc lines, fibres, skies side by side, cosmic rays, the combination."""

from __future__ import annotations

import numpy as np

from ..qa.figures.canvas import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    IMAGE,
    ORANGE,
    canvas,
    handy_unit,
    image_panel,
    label,
    light_frame,
    limits,
    middle,
    nothing,
    number,
)
from ..reduce.combine import Combined
from ..reduce.wavelength import WavelengthSolution
from .checks import Arcs, Cutout, line_table
from .draw import drawn
from .model import Shown

COLORS = (DARK, BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9")


@drawn
def arc_lines(arcs: Arcs, solution: WavelengthSolution, dropped: list[float], fiber: int):
    """The arc in one fibre with its lines, and the residual of every line in every fibre; dropped lines are orange."""
    fig = canvas(f"{len(solution.lines.wavelength)} arc lines scatter by {number(solution.rms, 2)} px", 12.6, 4.6)
    top = fig.add_axes((0.06, 0.56, 0.925, 0.34))
    wave, light = solution.wavelength[fiber], arcs.amplitude[fiber]
    top.plot(wave, np.arcsinh(light / 50.0), color=DARK, linewidth=0.7)
    ax = fig.add_axes((0.06, 0.12, 0.925, 0.34))
    for k, line in enumerate(solution.lines.wavelength):
        top.axvline(line, color=BLUE, linewidth=0.8, alpha=0.7)
        rest = np.where(solution.used[k], solution.residual[k], np.nan)
        ax.plot(np.full(rest.size, line), rest, ".", color=BLUE, markersize=2)
    for line in dropped:
        for panel in (top, ax):
            panel.axvline(line, color=ORANGE, linewidth=1.6, linestyle="--")
    low, high = limits(solution.residual[solution.used], 0.5, 99.5, 0.3)
    reach = max(abs(low), abs(high), 0.05)
    ax.set(xlim=(wave[0], wave[-1]), ylim=(-reach, reach))
    ax.axhline(0, color=GREY, linewidth=0.7)
    top.set(xlim=(wave[0], wave[-1]))
    label(top, "", "", f"fibre {fiber + 1}, arsinh", nx=10, ny=3)
    label(ax, "", "wavelength in air [Å]", "residual [px]", nx=10, ny=4)
    light_frame(ax)
    worst = max(line_table(solution), key=lambda row: abs(row[2]) if np.isfinite(row[2]) else 0.0)
    said = f"Arc lines scatter by {number(solution.rms, 2)} px over all fibres; line {worst[0]:.2f} A by {number(worst[2], 2)}"
    return fig, f"{said}; {len(dropped)} lines are left out by hand.", ax


@drawn
def fiber_levels(arcs: Arcs, off: set[int], fiber: int):
    """Light of every fibre on the flat, and the trace of one on the image; fibres switched off are orange."""
    fig = canvas(
        f"Fibre {fiber + 1}: level {number(arcs.level[fiber] / middle(arcs.level), 2)} of the middle one", 12.6, 3.6
    )
    ax = fig.add_axes((0.06, 0.15, 0.5, 0.72))
    numbers = np.arange(1, arcs.level.size + 1)
    level = arcs.level / middle(arcs.level)
    ax.plot(numbers, level, ".", color=BLUE, markersize=4)
    ax.plot(numbers[~arcs.alive], level[~arcs.alive], "x", color=GREY, label="dead")
    chosen = np.array([number_ in off for number_ in numbers])
    ax.plot(numbers[chosen], level[chosen], "x", color=ORANGE, markeredgewidth=2, label="switched off")
    ax.axvline(fiber + 1, color=GREY, linewidth=0.8)
    ax.set(xlim=(0, arcs.level.size + 1), ylim=(min(0.0, float(level.min())), float(np.nanmax(level)) * 1.1))
    label(ax, "", "fibre", "light on the flat", nx=8)
    light_frame(ax)
    if chosen.any() or (~arcs.alive).any():
        ax.legend(loc="lower right")
    side = fig.add_axes((0.62, 0.15, 0.365, 0.72))
    ny, nx = arcs.flat.shape
    row = int(np.clip(np.median(arcs.trace[fiber]), 12, ny - 13))
    part = arcs.flat[row - 12 : row + 13]
    low, high = limits(part, 2, 99)
    image_panel(side, part[:, ::4], (0, nx, row - 12.5, row + 12.5), vmin=low, vmax=high)
    side.plot(np.arange(nx), arcs.trace[fiber], color=ORANGE, linewidth=1.2)
    side.set(xlim=(0, nx), ylim=(row - 12.5, row + 12.5))
    label(side, "", "column; rows of the flat, with the trace", "")
    return (
        fig,
        f"Light of the fibres on the flat; {int((~arcs.alive).sum())} dead, {len(off)} switched off by hand.",
        ax,
    )


@drawn
def skies(shown: dict[str, Shown]):
    """Mean residual of the sky fibres for each choice of sky, in running means, and the spectra that come out."""
    fig = canvas(f"{len(shown)} choices of sky side by side", 12.6, 5.0)
    ax, below = fig.add_axes((0.06, 0.56, 0.925, 0.34)), fig.add_axes((0.06, 0.11, 0.925, 0.34))
    unit, words = 1.0, ""
    first = next(iter(shown.values()), None)
    shares = []
    for k, (name, one) in enumerate(shown.items()):
        color, even = COLORS[k % len(COLORS)], one.even
        fibers = first.sky.field.sky.fibers & even.alive  # the same for all, so that they can be compared
        good = even.good[fibers]
        count = np.maximum(good.sum(axis=0), 1)
        rest = _smooth(np.where(good, even.skysub[fibers], 0.0).sum(axis=0) / count)
        level = _smooth(np.where(good, (even.skysub + even.sky)[fibers], 0.0).sum(axis=0) / count)
        share = np.where(level > 0.05 * middle(level), 100 * rest / np.maximum(level, 1e-30), np.nan)
        shares.append(share)
        ax.plot(even.grid, share, color=color, linewidth=0.9, label=name)
        flux = np.where(one.found.spectrum.error > 0, one.found.spectrum.flux, np.nan)
        if k == 0:
            unit, words = handy_unit(flux)
        below.plot(even.grid, _smooth(flux) / unit, color=color, linewidth=0.9)
    if not shown:
        nothing(ax, "choose what to compare")
    ax.axhline(0, color=GREY, linewidth=0.7)
    for panel in (ax, below):
        light_frame(panel)
    if shown:
        ends = next(iter(shown.values())).even.grid[[0, -1]]
        ax.set(xlim=ends, ylim=limits(np.concatenate(shares), 0.5, 99.5, 0.15))
        below.set(xlim=ends)
        ax.legend(loc="upper right", ncols=3)
    label(ax, "", "", "left of the sky [%]", nx=10, ny=4)
    label(below, "", f"wavelength in air [Å]   (spectrum in {words}erg/s/cm²/Å; means of 25)", "", nx=10, ny=4)
    words_ = "; ".join(f"{name}: RMS {number(one.sky.field.sky.chi)}" for name, one in shown.items())
    return fig, f"Choices of sky side by side. {words_}.", ax


def _smooth(values: np.ndarray, width: int = 25) -> np.ndarray:
    good = np.isfinite(values)
    kernel = np.ones(width)
    count = np.convolve(good, kernel, "same")
    return np.where(count > 0, np.convolve(np.where(good, values, 0.0), kernel, "same") / np.maximum(count, 1), np.nan)


@drawn
def cosmic_rays(cut: Cutout, count: int):
    """A part of the CCD image, its cosmic rays outlined; columns and rows count from 1."""
    ny, nx = cut.image.shape
    fig = canvas(f"Cosmic rays at columns {cut.x0 + 1}–{cut.x0 + nx}, rows {cut.y0 + 1}–{cut.y0 + ny}", 12.6, 4.5)
    low, high = limits(cut.image, 1, 98.5)
    for k, hit in enumerate((None, cut.cosmics)):
        ax = fig.add_axes((0.06 + 0.48 * k, 0.12, 0.445, 0.77))
        extent = (cut.x0 + 0.5, cut.x0 + nx + 0.5, cut.y0 + 0.5, cut.y0 + ny + 0.5)
        image_panel(ax, cut.image, extent, vmin=low, vmax=high, cmap=IMAGE, aspect="equal")
        if hit is not None:
            y, x = np.nonzero(hit)
            ax.plot(
                x + cut.x0 + 1,
                y + cut.y0 + 1,
                "s",
                color=ORANGE,
                markersize=2.6,
                markerfacecolor="none",
                markeredgewidth=0.9,
            )
        ax.set(xlim=extent[:2], ylim=extent[2:])
        label(ax, "" if k == 0 else "click or draw a box to mark", "column", "row" if k == 0 else "")
        if k:
            ax.tick_params(labelleft=False)
    return (
        fig,
        f"{int(cut.cosmics.sum())} pixels hit by cosmic rays in this part of the image; {count} marks by hand.",
        ax,
    )


@drawn
def combination(result: Combined | None):
    """The parts as scaled, and the combined spectrum."""
    if result is None:
        fig = canvas("Nothing to combine", 12.6, 3.0)
        ax = fig.add_axes((0.06, 0.19, 0.925, 0.66))
        nothing(ax, "no spectrum with a source is left")
        return fig, "Nothing to combine.", ax
    count = len(result.parts)
    fig = canvas(f"{count} spectr{'um' if count == 1 else 'a'} combined", 12.6, 3.4)
    ax = fig.add_axes((0.06, 0.16, 0.925, 0.71))
    usable = result.error > 0
    unit, words = handy_unit(np.where(usable, result.flux, np.nan))
    for k, part in enumerate(result.parts):
        flux = np.where(part.error > 0, part.flux, np.nan)
        name = f"{part.channel} {part.obsid} exp {part.exp}"
        ax.plot(part.wave, _smooth(flux, 9) / unit, color=COLORS[1 + k % 5], linewidth=0.7, alpha=0.8, label=name)
    flux = np.where(usable, result.flux, np.nan)
    ax.plot(result.wave, _smooth(flux, 9) / unit, color=DARK, linewidth=0.9, label="combined")
    low, high = limits(_smooth(flux, 9) / unit, 0.3, 99.9, 0.15)
    ends = result.wave[usable][[0, -1]] if usable.any() else result.wave[[0, -1]]
    ax.set(xlim=ends, ylim=(min(low, 0.0), high))
    light_frame(ax)
    label(ax, "", f"wavelength [Å]   (flux in {words}erg/s/cm²/Å; means of 9)", "", nx=10, ny=4)
    ax.legend(loc="upper right", ncols=4)
    scales = ", ".join(f"{name} x {value:.3f}" for name, value in result.scales.items())
    return fig, f"Combined spectrum of {len(result.parts)} exposures and channels: {scales}.", ax
