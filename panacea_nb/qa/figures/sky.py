"""Figures of 06_sky: which fibres are sky, the sky's spectrum, and whether what is left is noise."""

from __future__ import annotations

import weakref

import numpy as np

from .canvas import (
    BLUE,
    DARK,
    DIVERGING,
    GREY,
    ORANGE,
    PINK,
    Drawing,
    canvas,
    color_bar,
    drawn,
    finite,
    grid,
    image_panel,
    label,
    lenslets,
    light_frame,
    limits,
    log_axis,
    middle,
    nan_percentile,
    nothing,
    number,
    rounded_up,
    running,
    spread,
    symmetric,
)

BIN = 16  # columns of a mean, as in the metrics
PULL = 4.0  # sigma, end of the scale of residuals

# The model of the sky takes longer to evaluate than a figure to draw, and four figures need it.
_last: dict[str, object] = {}


def _native(field) -> np.ndarray:
    """Sky model (nf, nx) [e- per column] of a field, kept for the next figure of the same field."""
    known = _last.get("field")
    if known is None or known() is not field:
        _last.update(field=weakref.ref(field), native=field.sky.native())
    return _last["native"]


def _residual(field, amplitude: np.ndarray, variance: np.ndarray, good: np.ndarray, with_source: bool) -> np.ndarray:
    """What is left of the fibres without sky, in units of the noise (nf, nx); NaN where a sample is not to be used."""
    rest = amplitude - _native(field)
    if not with_source:
        rest = rest - field.source_native
    return np.where(good & (variance > 0), rest / np.sqrt(np.maximum(variance, 1e-9)), np.nan)


def _means(pull: np.ndarray) -> np.ndarray:
    """Means of `BIN` neighbouring columns in units of their noise, (nf, n)."""
    n = pull.shape[1] // BIN
    part = pull[:, : n * BIN].reshape(pull.shape[0], n, BIN)
    use = np.isfinite(part)
    count = use.sum(axis=2)
    return np.where(count > BIN // 2, np.where(use, part, 0).sum(axis=2) / np.sqrt(np.maximum(count, 1)), np.nan)


@drawn
def sky_fibers(field, positions, alive) -> Drawing:
    """Light of every fibre over the sky model, and which fibres were taken as sky.

    Parameters
    ----------
    field : `reduce.fieldmodel.FieldModel`; positions : (nf, 2) [arcsec]; alive : (nf,) bool
    """
    sky = field.sky
    excess = np.where(alive & np.isfinite(sky.level), 100 * (np.asarray(sky.level, float) - 1), np.nan)
    chosen = int(sky.fibers.sum())
    best = field.search.get("best", float("nan"))
    found = (
        f"source at {number(field.source.x)}″, {number(field.source.y)}″" if field.source is not None else "no source"
    )
    fig = canvas(f"{chosen} of {int(alive.sum())} fibres are sky; {found} (S/N {number(best)})", height=4.3)
    cells = grid(fig, (1, 1.15), left=0.75, right=0.95, wspace=0.9)
    reach = rounded_up(float(np.clip(1.25 * symmetric(excess[sky.fibers], 98), 1.0, 50.0))) if chosen else 5.0
    top = rounded_up(float(np.clip(symmetric(excess, 99.5), reach, 20 * reach)))
    ax = fig.add_subplot(cells[0])
    fibers = np.arange(1, excess.size + 1)
    for mask, marker, color, name in (
        (sky.fibers, "o", BLUE, "sky"),
        (alive & ~sky.fibers, "D", ORANGE, "not used as sky"),
    ):
        face = color if marker == "o" else "none"
        ax.plot(
            fibers[mask],
            np.clip(excess[mask], -reach, 1.3 * top),
            marker,
            color=color,
            markerfacecolor=face,
            markersize=4,
            label=f"{name} ({int(mask.sum())})",
        )
    ax.axhline(0, color=DARK, linewidth=0.8)
    if top > 3 * reach:
        ax.set_yscale("symlog", linthresh=reach)
        ax.set_yticks([-reach, 0, reach, top], [number(v, 2) for v in (-reach, 0, reach, top)])
        ax.minorticks_off()
    ax.set_ylim(-1.2 * reach, (6 if top > 3 * reach else 1.5) * top)
    light_frame(ax)
    label(ax, "light over the sky model", "fibre", "excess over the sky [%]")
    ax.legend(loc="upper right")
    ax = fig.add_subplot(cells[1])
    edges = np.where(
        (alive & ~sky.fibers)[:, None], np.array([[0.84, 0.37, 0.0, 1.0]]), np.array([[0.0, 0.0, 0.0, 0.0]])
    )
    mosaic = lenslets(
        ax,
        positions,
        excess,
        vmin=-reach,
        vmax=reach,
        cmap=DIVERGING,
        edges=edges,
        widths=np.where(sky.fibers, 0.0, 1.4),
    )
    color_bar(fig, ax, mosaic, "excess over the sky [%]")
    if field.source is not None:
        ax.plot(field.source.x, field.source.y, "x", color="black", markersize=10, markeredgewidth=2.2)
    label(ax, "the field: framed fibres are not sky; ×: source", "IFU x [arcsec]", "IFU y [arcsec]")
    alt = (
        f"Sky fibres: {chosen} of {int(alive.sum())} living fibres are taken as sky, with "
        f"{number(spread(excess[sky.fibers]), 2)} % scatter in their "
        f"light; {found}, S/N {number(best)}; the gradient of the sky over the field is "
        f"{number(100 * float(np.ptp(sky.gradient)), 2)} %."
    )
    return fig, alt


@drawn
def sky_spectrum(field, amplitude, variance, good) -> Drawing:
    """The sky's spectrum, the spread of the residuals of sky fibres in their noise, and their mean [% of the sky].

    Parameters
    ----------
    field : `reduce.fieldmodel.FieldModel`; amplitude, variance : (nf, nx) [e- per column]; good : (nf, nx) bool
    """
    sky = field.sky
    pull = _residual(field, amplitude, variance, good, False)[sky.fibers]
    chi = spread(pull)
    wave = (
        np.median(sky.wavelength[sky.fibers], axis=0)
        if sky.fibers.any()
        else sky.wavelength[sky.wavelength.shape[0] // 2]
    )
    light = sky.spectrum(wave)
    native = _native(field)
    weight = np.where(good & sky.fibers[:, None] & (variance > 0), 1.0 / np.maximum(variance, 1e-9), 0.0)
    rest = (weight * np.where(weight > 0, amplitude - native - field.source_native, 0)).sum(axis=0)
    total = (weight * native).sum(axis=0)
    at, above = running(rest, BIN)
    _, below = running(total, BIN)
    bias = np.where(below > 0, 100 * above / np.where(below > 0, below, 1.0), np.nan)
    width = nan_percentile(np.abs(pull), 50, axis=0) * 1.4826 if pull.size else np.full(wave.size, np.nan)
    _, width = running(width, 4)
    worst = symmetric(bias, 98) if finite(bias).size else float("nan")
    fig = canvas(
        f"Sky fibres scatter by {number(chi)} of their noise; their mean stays within {number(worst, 2)} % of the sky",
        height=5.6,
    )
    cells = grid(fig, (1,), (1.7, 1, 1), left=0.85, hspace=0.42)
    ax = fig.add_subplot(cells[0])
    ax.plot(wave, light, color=DARK, linewidth=0.9)
    low, high = limits(light, 0.5, 99.8, 0.06)
    ax.set_ylim(low, high)
    axes = [ax]
    label(ax, "sky of the average fibre (lines beyond the scale are cut)", "", "e⁻ / Å", nx=8, ny=4)
    ax = fig.add_subplot(cells[1])
    _, centre = running(wave, 4)
    ax.plot(centre, width, color=BLUE, linewidth=0.8)
    ax.axhline(1, color=ORANGE, linestyle="--", linewidth=1.2)
    low, high = limits(width, 0.5, 99.5, 0.2)
    ax.set_ylim(min(low, 0.8), max(high, 1.2))
    axes.append(ax)
    label(ax, "spread of the sky fibres in units of their noise (dashed: 1)", "", "", nx=8, ny=3)
    ax = fig.add_subplot(cells[2])
    ax.plot(np.interp(at, np.arange(wave.size), wave), bias, drawstyle="steps-mid", color=DARK, linewidth=0.9)
    ax.axhline(0, color=ORANGE, linewidth=1.0)
    top = max(1.3 * symmetric(bias, 98), 0.05)
    ax.set_ylim(-top, top)
    axes.append(ax)
    label(ax, f"mean residual of the sky fibres, {BIN} columns [% of sky]", "wavelength in air [Å]", "", nx=8, ny=3)
    for k, ax in enumerate(axes):
        ax.set_xlim(wave.min(), max(wave.max(), wave.min() + 1))
        light_frame(ax)
        if k < 2:
            ax.tick_params(labelbottom=False)
    alt = (
        f"Sky spectrum of {int(sky.fibers.sum())} fibres, {number(middle(light))} e-/A in the median; residuals of "
        "the sky fibres scatter by "
        f"{number(chi)} times their noise, and their mean in bins of {BIN} columns stays within {number(worst, 2)} % "
        "of the sky (98 % of the bins)."
    )
    return fig, alt


@drawn
def sky_subtracted(field, amplitude, variance, good) -> Drawing:
    """All fibres without the sky, in units of their noise.

    Parameters
    ----------
    field : `reduce.fieldmodel.FieldModel`; amplitude, variance : (nf, nx) [e- per column]; good : (nf, nx) bool
    """
    pull = _residual(field, amplitude, variance, good, True)
    nf, nx = pull.shape
    chi = spread(pull[field.sky.fibers])
    mean = nan_percentile(_means(pull), 50, axis=1) if nx >= BIN else np.full(nf, np.nan)
    bright = int((mean > 3).sum())
    fig = canvas(
        f"Without the sky, blank fibres scatter by {number(chi)} of their noise; {bright} fibres show a source",
        height=4.8,
    )
    cells = grid(fig, (5, 1), left=0.75, right=0.25, wspace=1.25)
    ax = fig.add_subplot(cells[0])
    step = 3
    means = _block_pulls(pull, step)
    shown = image_panel(
        ax, means, (-0.5, means.shape[1] * step - 0.5, 0.5, nf + 0.5), vmin=-PULL, vmax=PULL, cmap=DIVERGING
    )
    color_bar(fig, ax, shown, f"means of {step} columns / noise")
    label(ax, "grey: dead or masked", "column", "fibre", nx=7)
    ax.set_xlim(-0.5, nx - 0.5)
    ax = fig.add_subplot(cells[1])
    fibers = np.arange(1, nf + 1)
    ax.plot(np.clip(mean, -3, 30), fibers, ".", color=GREY, markersize=4)
    mark = field.sky.fibers
    ax.plot(np.clip(mean[mark], -3, 30), fibers[mark], ".", color=BLUE, markersize=4)
    ax.axvline(0, color=DARK, linewidth=0.8)
    ax.set_ylim(0.5, nf + 0.5)
    light_frame(ax)
    label(ax, "median (blue: sky)", f"{BIN}-column S/N", "", nx=3)
    alt = (
        f"Sky-subtracted fibres in units of their noise: the {int(mark.sum())} sky fibres scatter by {number(chi)}; "
        f"{bright} fibres lie more than "
        f"3 sigma per {BIN} columns above the sky in the median."
    )
    return fig, alt


def _block_pulls(pull: np.ndarray, step: int) -> np.ndarray:
    """Means of ``step`` columns in units of their noise."""
    n = pull.shape[1] // step
    part = pull[:, : n * step].reshape(pull.shape[0], n, step)
    use = np.isfinite(part)
    count = use.sum(axis=2)
    return np.where(count > 0, np.where(use, part, 0).sum(axis=2) / np.sqrt(np.maximum(count, 1)), np.nan)


@drawn
def sky_pulls(field, amplitude, variance, good) -> Drawing:
    """Distribution of the residuals of sky fibres, single samples and means, against the unit Gaussian.

    Parameters
    ----------
    field : `reduce.fieldmodel.FieldModel`; amplitude, variance : (nf, nx) [e- per column]; good : (nf, nx) bool
    """
    fibers = field.sky.fibers
    pull = _residual(field, amplitude, variance, good, False)[fibers]
    bright = _native(field)[fibers]
    # On lines: samples with far more sky than the run of their neighbours.
    line = bright > 1.3 * nan_percentile(bright, 50, axis=1)[:, None] if bright.size else np.zeros(bright.shape, bool)
    sets = (
        ("single samples", finite(pull, 400_000), BLUE, "-"),
        ("on bright sky", finite(np.where(line, pull, np.nan), 400_000), PINK, ":"),
        (f"means of {BIN} columns", finite(_means(pull), 400_000), ORANGE, "--"),
    )
    widths = [1.4826 * float(np.median(np.abs(v))) if v.size else float("nan") for _, v, _, _ in sets]
    fig = canvas(
        f"Residuals of the sky over their noise: {number(widths[0])} in single samples, {number(widths[2])} in means "
        f"of {BIN} columns",
        height=4.3,
    )
    ax = fig.add_subplot(grid(fig, left=0.85)[0])
    edges = np.linspace(-7, 7, 85)
    centre = 0.5 * (edges[1:] + edges[:-1])
    ax.fill_between(
        centre, 1e-6, np.exp(-0.5 * centre**2) / np.sqrt(2 * np.pi), color="#dcdcdc", linewidth=0, label="unit Gaussian"
    )
    for (name, values, color, style), width in zip(sets, widths, strict=True):
        if values.size:
            density = np.histogram(values, edges)[0] / values.size / (edges[1] - edges[0])
            ax.plot(
                centre,
                np.where(density > 0, density, np.nan),
                color=color,
                linestyle=style,
                drawstyle="steps-mid",
                label=f"{name}: {number(width)}",
            )
    if not any(v.size for _, v, _, _ in sets):
        nothing(ax, "no sky fibre with usable samples")
    else:
        log_axis(ax)
        ax.set_ylim(1e-5, 1)
        light_frame(ax)
        label(ax, "robust width in the legend", "(measured − model) / noise", "density", nx=8)
        ax.legend(loc="upper right")
    alt = (
        f"Residuals of {int(fibers.sum())} sky fibres in units of their noise: robust width {number(widths[0])} in "
        f"single samples, {number(widths[1])} on "
        f"bright sky, {number(widths[2])} in means of {BIN} columns; 1 is perfect."
    )
    return fig, alt
