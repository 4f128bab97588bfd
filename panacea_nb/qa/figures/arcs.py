"""Figures of 03_wavelength: arc lines, residuals of the solution, line-spread function."""

from __future__ import annotations

import numpy as np

from .canvas import (
    BLUE,
    DARK,
    DIVERGING,
    GREEN,
    LEVEL,
    ORANGE,
    Drawing,
    canvas,
    color_bar,
    color_map,
    drawn,
    finite,
    grid,
    image_panel,
    label,
    light_frame,
    limits,
    log_axis,
    middle,
    nothing,
    number,
    shrunk,
    symmetric,
)

FWHM = 2.3548  # of a Gaussian, in sigma
USED_SHARE = 0.25  # of the fibres: a line measured in fewer was not used
MOST_POINTS = 12_000


def _used(solution) -> np.ndarray:
    """(nl,) bool: lines that took part in the solution of enough fibres."""
    return solution.used.sum(axis=1) > USED_SHARE * solution.used.shape[1]


@drawn
def arc_spectrum(amplitude, solution) -> Drawing:
    """The summed lamps in the middle fibre, with the listed lines.

    Parameters
    ----------
    amplitude : (nf, nx) [e- per column]; solution : `reduce.wavelength.WavelengthSolution`
    """
    nf, nx = amplitude.shape
    lit = np.flatnonzero(np.nanmax(np.where(np.isfinite(amplitude), amplitude, 0.0), axis=1) > 0)
    used = _used(solution)
    lines = solution.lines.wavelength
    words = f"{int(used.sum())} of {lines.size} listed arc lines used"
    fig = canvas(f"{words}; they scatter by {number(solution.rms, 2)} px about the solution", height=5.2)
    cells = grid(fig, (1,), (1, 1), left=0.8, hspace=0.4, top=0.6)
    alt = (
        f"Arc spectrum of the middle fibre: {int(used.sum())} of {lines.size} listed lines are used, with a scatter of "
        f"{number(solution.rms, 2)} px; not used: {', '.join(f'{w:.1f}' for w in lines[~used]) or 'none'} Å."
    )
    if not lit.size:
        nothing(fig.add_subplot(cells[:, 0]), "no fibre shows any light")
        return fig, alt
    fiber = int(lit[np.argmin(np.abs(lit - nf // 2))])
    wave, light = solution.wavelength[fiber], np.asarray(amplitude[fiber], float)
    floor = max(1.0, 0.5 * float(np.percentile(finite(light), 20)))
    ceiling = 6 * max(float(finite(light).max()), 2 * floor)
    cut = 0.5 * (wave[0] + wave[-1])
    for k, (low, high) in enumerate(((wave[0], cut), (cut, wave[-1]))):
        ax = fig.add_subplot(cells[k])
        ax.plot(wave, np.maximum(light, floor), color=DARK, linewidth=0.8)
        last = -np.inf
        for w, u in sorted(zip(lines, used, strict=True)):
            if not low - 5 <= w <= high + 5:
                continue
            top = float(np.max(np.maximum(light[np.abs(wave - w) < 4 * (wave[1] - wave[0])], floor), initial=floor))
            ax.plot(
                [w, w], [1.4 * top, 4 * top], color=BLUE if u else ORANGE, linestyle="-" if u else ":", linewidth=1.8
            )
            if u and w - last > 0.022 * (high - low):
                ax.text(w, 4.4 * top, f"{w:.0f}", rotation=90, ha="center", va="bottom", fontsize=9, color=BLUE)
                last = w
        log_axis(ax)
        margin = 0.004 * (high - low)
        ax.set_xlim(low - margin, high + margin)
        ax.set_ylim(floor, 4 * ceiling)
        light_frame(ax)
        label(
            ax,
            f"fibre {fiber + 1}: used lines solid, others dotted" if k == 0 else "",
            "wavelength in air [Å]" if k else "",
            "e⁻ per column",
            nx=9,
        )
    return fig, alt


@drawn
def wavelength_residuals(solution) -> Drawing:
    """Measured minus fitted position of every line in every fibre.

    Parameters
    ----------
    solution : `reduce.wavelength.WavelengthSolution`
    """
    residual = np.where(solution.used, solution.residual, np.nan)
    lines, nf = solution.lines.wavelength, residual.shape[1]
    centre = np.array([middle(r) for r in residual])
    worst = float(np.max(np.abs(finite(centre)))) if finite(centre).size else float("nan")
    fig = canvas(
        f"Arc lines scatter by {number(solution.rms, 2)} px; a line as a whole is off by {number(worst, 2)} px at most",
        height=4.4,
    )
    cells = grid(fig, (1.25, 1), left=0.85, right=0.95, wspace=0.95)
    reach = float(np.clip(1.3 * symmetric(residual, 99), 0.02, 1.0))
    ax = fig.add_subplot(cells[0])
    fibers = np.broadcast_to(np.arange(1, nf + 1), residual.shape)
    wave = np.broadcast_to(lines[:, None], residual.shape) + 0.004 * np.ptp(lines) * (fibers / nf - 0.5)
    good = np.isfinite(residual)
    if good.any():
        step = max(1, int(good.sum()) // MOST_POINTS)
        ax.scatter(
            wave[good][::step],
            residual[good][::step],
            c=fibers[good][::step],
            s=3,
            cmap=LEVEL,
            linewidths=0,
            rasterized=True,
        )
        seen = np.isfinite(centre)
        ax.plot(
            lines[seen],
            centre[seen],
            "D",
            color=ORANGE,
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label="median of a line",
        )
        ax.axhline(0, color=DARK, linewidth=0.8)
        ax.set_ylim(-reach, reach)
        light_frame(ax)
        ax.legend(loc="upper right")
        label(ax, "by line, fibres from dark to light", "wavelength in air [Å]", "measured − fitted [px]", nx=6)
    else:
        nothing(ax, "no line was used")
    ax = fig.add_subplot(cells[1])
    shown = image_panel(ax, residual, (0.5, nf + 0.5, -0.5, lines.size - 0.5), vmin=-reach, vmax=reach, cmap=DIVERGING)
    color_bar(fig, ax, shown, "measured − fitted [px]")
    ticks = np.unique(np.linspace(0, max(lines.size - 1, 0), min(8, lines.size)).astype(int))
    label(ax, "by line and fibre; grey: not used", "fibre", "", nx=4)
    ax.set_yticks(ticks, [f"{lines[i]:.0f} Å" for i in ticks])
    alt = (
        f"Residuals of the wavelength solution (degree {solution.degree}): {number(solution.rms, 2)} px RMS over "
        f"{int(good.sum())} measurements "
        f"of {int(_used(solution).sum())} lines; the line farthest off as a whole is at {number(worst, 2)} px."
    )
    return fig, alt


@drawn
def lsf_map(solution) -> Drawing:
    """Width of the line-spread function over the chip, and the measured lines that it rests on.

    Parameters
    ----------
    solution : `reduce.wavelength.WavelengthSolution`
    """
    width = FWHM * np.asarray(solution.lsf, float)
    nf, nx = width.shape
    low, high = limits(width, 1, 99)
    typical = middle(width)
    power = middle(solution.wavelength / np.maximum(width * np.gradient(solution.wavelength, axis=1), 1e-9))
    fig = canvas(
        f"Lines are {number(typical)} px wide (FWHM; {number(low)} to {number(high)} px over the chip): R ≈ "
        f"{power:.0f}",
        height=4.2,
    )
    cells = grid(fig, (1, 1.1), left=0.7, wspace=1.75)
    ax = fig.add_subplot(cells[0])
    small, _ = shrunk(ax, width)
    shown = image_panel(ax, small, (-0.5, nx - 0.5, 0.5, nf + 0.5), vmin=low, vmax=high, cmap=color_map(LEVEL, 24))
    color_bar(fig, ax, shown, "FWHM [px]")
    label(ax, "fitted surface", "column", "fibre", nx=4)
    ax = fig.add_subplot(cells[1])
    measured = np.where(solution.used, FWHM * solution.lines.sigma, np.nan)
    thirds = np.array_split(np.arange(nf), 3)
    for part, name, color, mark in zip(thirds, ("bottom", "middle", "top"), (BLUE, GREEN, ORANGE), "os^", strict=True):
        if not part.size:
            continue
        at = [middle(np.where(solution.used, solution.lines.centre, np.nan)[i, part]) for i in range(measured.shape[0])]
        value = [middle(measured[i, part]) for i in range(measured.shape[0])]
        ax.plot(at, value, mark, color=color, markersize=5, label=f"{name} third")
        ax.plot(np.arange(nx), np.median(width[part], axis=0), color=color)
    floor, ceiling = limits(np.concatenate([finite(measured), finite(width)]), 2, 98, 0.25)
    ax.set_ylim(floor, ceiling)
    light_frame(ax)
    label(ax, "lines (points) and surface", "column", "FWHM [px]", nx=5)
    ax.legend(loc="best", ncols=3, columnspacing=0.8, handletextpad=0.3)
    alt = (
        f"Line-spread function: FWHM {number(typical)} px (median), {number(low)} to {number(high)} px over the chip, "
        "a resolving power of "
        f"{power:.0f}; measured widths of {int(_used(solution).sum())} lines in the bottom, middle and top third of "
        "the fibres with the fitted surface."
    )
    return fig, alt
