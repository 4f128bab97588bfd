"""Figures of 02_trace: traces, profiles, scattered light."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from scipy.ndimage import maximum_filter1d

from ...reduce.extract import FiberModel, spline_basis
from ...reduce.kernels import HALF_WIDTH
from ...reduce.scatter import GAP_DISTANCE
from .canvas import (
    BLUE,
    DARK,
    DIVERGING,
    ORANGE,
    Drawing,
    block_mean,
    block_of,
    canvas,
    color_bar,
    drawn,
    finite,
    grid,
    image_panel,
    label,
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

PROFILE_FIBERS = 70  # fibres whose pixels the profile is drawn from
PROFILE_COLUMNS = 24


def crest_offset(flat: np.ndarray, model: FiberModel, n_columns: int = 24) -> np.ndarray:
    """Distance [px] of the crest of light from the trace next to it, (n_alive, n_columns); NaN without a crest."""
    ny, nx = flat.shape
    trace = model.trace[model.alive]
    half = max(1, min(8, nx // (2 * n_columns)))
    columns = np.linspace(half, nx - half - 1, n_columns).round().astype(int)
    rows = np.clip(np.round(trace[:, columns]).astype(int), 2, ny - 3)
    near = np.stack([flat[:, max(0, c - half) : c + half + 1].mean(axis=1) for c in columns], axis=1)
    values = np.stack([near[rows + k, np.arange(columns.size)] for k in (-2, -1, 0, 1, 2)])
    light = np.log(np.maximum(values, 1e-6))
    top = np.clip(np.argmax(values, axis=0), 1, 3)
    left, centre, right = (np.take_along_axis(light, (top + k)[None], 0)[0] for k in (-1, 0, 1))
    curve = left - 2 * centre + right
    crest = rows + top - 2 + np.where(curve < 0, 0.5 * (left - right) / np.where(curve < 0, curve, 1.0), np.nan)
    return crest - trace[:, columns]


@drawn
def traces_on_image(flat, model) -> Drawing:
    """Traces on the flat: the whole chip, its corners and its middle.

    Parameters
    ----------
    flat : (ny, nx) [e-]; model : `reduce.extract.FiberModel`
    """
    ny, nx = flat.shape
    alive = int(model.alive.sum())
    off = crest_offset(flat, model) if alive else np.zeros(0)
    worst = float(np.max(np.abs(finite(off)))) if finite(off).size else float("nan")
    fig = canvas(
        f"{alive} of {model.alive.size} fibres traced; crests lie {number(middle(np.abs(off)), 2)} px off (largest "
        f"{number(worst, 2)} px)",
        height=6.0,
    )
    cells = grid(fig, (1, 1, 1), (1, 1), left=0.65, bottom=0.3, wspace=0.2, hspace=0.5)
    ax = fig.add_subplot(cells[0, 0])
    small, extent = shrunk(ax, flat)
    low, high = limits(small, 1, 99.5)
    image_panel(ax, small, extent, norm=PowerNorm(0.5, max(low, 0.0), max(high, low + 1)))
    label(ax, "whole flat, with the regions", nx=4)
    height, width = min(64, ny), min(110, nx)
    places = {
        (0, 1): ("top left", 0.0, 1.0),
        (0, 2): ("top right", 1.0, 1.0),
        (1, 0): ("middle", 0.5, 0.5),
        (1, 1): ("bottom left", 0.0, 0.0),
        (1, 2): ("bottom right", 1.0, 0.0),
    }
    for cell, (name, u, v) in places.items():
        x0 = int(round(u * (nx - width)))
        y0 = _first_row(model, v, x0, width, height, ny)
        ax.add_patch(_box(x0, y0, width, height))
        _region(fig.add_subplot(cells[cell]), flat, model, (x0, y0, width, height), name)
    alt = (
        f"Traces on the flat: {alive} of {model.alive.size} fibres have light; the crests of light lie "
        f"{number(middle(np.abs(off)), 2)} px "
        f"from the traces (median), {number(worst, 2)} px at most."
    )
    return fig, alt


def _first_row(model: FiberModel, v: float, x0: int, width: int, height: int, ny: int) -> int:
    """First row of a region that holds the outermost (v = 0, 1) or the middle fibres at these columns."""
    if not model.alive.any():
        return int(v * (ny - height))
    rows = model.trace[model.alive][:, x0 : x0 + width]
    centre = {0.0: rows.min() + 0.35 * height, 1.0: rows.max() - 0.35 * height}.get(v, float(np.median(rows)))
    return int(np.clip(centre - height / 2, 0, ny - height))


def _box(x0: int, y0: int, width: int, height: int):
    from matplotlib.patches import Rectangle

    return Rectangle((x0, y0), width, height, fill=False, edgecolor=ORANGE, linewidth=1.5)


def _region(ax: Axes, flat: np.ndarray, model: FiberModel, box: tuple[int, int, int, int], name: str) -> None:
    x0, y0, width, height = box
    part = flat[y0 : y0 + height, x0 : x0 + width]
    low, high = limits(part, 1, 99.5)
    image_panel(ax, part, (x0 - 0.5, x0 + width - 0.5, y0 - 0.5, y0 + height - 0.5), vmin=low, vmax=high, cmap="gray")
    columns = np.arange(x0, x0 + width, 4)
    for fiber, (trace, alive) in enumerate(zip(model.trace[:, columns], model.alive, strict=True)):
        if np.any((trace > y0 - 1) & (trace < y0 + height)):
            ax.plot(
                columns, trace, color=ORANGE if alive else BLUE, linewidth=1.2, linestyle=(0, (5, 5)) if alive else ":"
            )
            if fiber % 5 == 4 and y0 + 1 < trace[-1] < y0 + height - 2:
                box = {"facecolor": "black", "alpha": 0.7, "linewidth": 0, "pad": 1}
                ax.text(
                    columns[-1] - 1,
                    trace[-1],
                    str(fiber + 1),
                    color="white",
                    fontsize=9,
                    ha="right",
                    va="center",
                    bbox=box,
                )
    ax.set_xlim(x0 - 0.5, x0 + width - 0.5)
    ax.set_ylim(y0 - 0.5, y0 + height - 0.5)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(f"{name}: x {x0}–{x0 + width}, y {y0}–{y0 + height}")


def profile_samples(flat: np.ndarray, result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of many fibres scaled to one, after the light of their neighbours is taken off.

    Returns
    -------
    distance [px], value [share of the fibre's light per px], error : (n,)
    """
    model, amplitude = result.model, result.extraction.amplitude
    ny, nx = flat.shape
    fibers = np.flatnonzero(model.alive)
    fibers = (
        fibers[np.unique(np.linspace(0, fibers.size - 1, min(PROFILE_FIBERS, fibers.size)).astype(int))]
        if fibers.size
        else fibers
    )
    columns = np.linspace(4, nx - 5, PROFILE_COLUMNS).astype(int)
    if not fibers.size:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    f, x = (g.ravel() for g in np.meshgrid(fibers, columns, indexing="ij"))
    centre = model.trace[f, x]
    span = np.arange(-int(HALF_WIDTH), int(HALF_WIDTH) + 1)
    rows = np.round(centre).astype(int)[:, None] + span
    inside = (rows >= 0) & (rows < ny)
    rows = np.clip(rows, 0, ny - 1)
    distance = rows - centre[:, None]
    basis = spline_basis(distance.ravel()).reshape(*distance.shape, -1)
    own = np.einsum("nkc,nc->nk", basis, model.coef[f, np.minimum(x // model.block, model.coef.shape[1] - 1)])
    light = np.maximum(amplitude[f, x], 1e-6)[:, None]
    xs = np.broadcast_to(x[:, None], rows.shape)
    total = result.extraction.model[rows, xs]
    rest = flat[rows, xs] - result.background[rows, xs] - total
    error = np.sqrt(np.maximum(total, 1.0)) / light
    keep = inside & (light > 0.3 * max(middle(amplitude[f, x]), 1e-6)) & (np.abs(distance) < HALF_WIDTH)
    return distance[keep], (rest / light + own)[keep], error[keep]


@drawn
def profile_fit(flat, result) -> Drawing:
    """Cross-dispersion profile with its pixels, and what the model leaves of the flat.

    Parameters
    ----------
    flat : (ny, nx) [e-]; result : `reduce.trace.TraceResult`
    """
    model = result.model
    distance, value, _ = profile_samples(flat, result)
    rest = flat - result.background - result.extraction.model
    light = result.extraction.model
    ny, nx = flat.shape
    c = block_of(nx, 130)
    over, _ = block_mean(rest, 1, c)
    local, _ = block_mean(light, 1, c)
    crest = maximum_filter1d(np.nan_to_num(local), 9, axis=0)
    percent = np.where(crest > 0.05 * nan_percentile(crest, 90, axis=0), 100 * over / np.maximum(crest, 1e-6), np.nan)
    rms = spread(percent)
    fig = canvas(
        f"The profile model leaves {number(rms, 2)} % of the fibres' crests (means of {c} columns)", height=5.2
    )
    cells = grid(fig, (1, 1.15), (1, 1, 1), left=0.8, right=1.0, wspace=0.85, hspace=0.5)
    ax = fig.add_subplot(cells[:, 0])
    _profile_panel(ax, model, distance, value)
    reach = float(np.clip(symmetric(percent, 97), 0.5, 20))
    axes, height = [], min(72, ny)
    for k, (name, v) in enumerate((("top", 1.0), ("middle", 0.5), ("bottom", 0.0))):
        ax = fig.add_subplot(cells[k, 1])
        axes.append(ax)
        y0 = _first_row(model, v, 0, nx, height, ny)
        shown = image_panel(
            ax,
            percent[y0 : y0 + height],
            (-0.5, over.shape[1] * c - 0.5, y0 - 0.5, y0 + height - 0.5),
            vmin=-reach,
            vmax=reach,
            cmap=DIVERGING,
        )
        label(ax, f"residual at the {name} of the chip", "column" if k == 2 else "", "row", ny=3)
        if k < 2:
            ax.tick_params(labelbottom=False)
    color_bar(fig, axes, shown, "(flat − model) / fibre's crest [%]")
    alt = (
        f"Profile of the fibres and its residual: the model leaves {number(rms, 2)} % of the light on the fibres' "
        f"crests (robust RMS, means of {c} columns); "
        f"mean profile {number(fwhm(model))} px FWHM."
    )
    return fig, alt


def mean_profile(model: FiberModel, u: np.ndarray) -> np.ndarray:
    """The mean profile of living fibres at ``u`` px from the trace; zero without any."""
    if not model.alive.any():
        return np.zeros(u.size)
    return spline_basis(u) @ model.coef[model.alive].mean(axis=(0, 1))


def fwhm(model: FiberModel) -> float:
    """Full width at half maximum [px] of the mean profile."""
    u = np.linspace(-HALF_WIDTH + 0.01, HALF_WIDTH - 0.01, 2000)
    p = mean_profile(model, u)
    return float(np.ptp(u[p > 0.5 * p.max()])) if p.max() > 0 else float("nan")


def _profile_panel(ax: Axes, model: FiberModel, distance: np.ndarray, value: np.ndarray) -> None:
    if not distance.size:
        nothing(ax, "no fibre with light")
        return
    floor = 1e-5
    step = max(1, distance.size // 6000)
    ax.plot(
        distance[::step],
        np.maximum(value[::step], floor),
        ".",
        color=BLUE,
        markersize=1.5,
        alpha=0.35,
        label="pixels of many fibres",
        rasterized=True,
    )
    u = np.linspace(-HALF_WIDTH + 0.02, HALF_WIDTH - 0.02, 240)
    ax.plot(u, np.maximum(mean_profile(model, u), floor), color=DARK, linewidth=1.6, label="mean model")
    edges = np.arange(-HALF_WIDTH, HALF_WIDTH + 0.01, 0.5)
    index = np.digitize(distance, edges)
    binned = [middle(value[index == k]) for k in range(1, edges.size)]
    ax.plot(
        0.5 * (edges[1:] + edges[:-1]),
        np.maximum(binned, floor),
        "o",
        color=ORANGE,
        markersize=4,
        markerfacecolor="none",
        label="their median",
    )
    log_axis(ax)
    ax.set_ylim(floor, 0.5)
    light_frame(ax)
    label(ax, "profile", "distance from the trace [px]", "share of the fibre's light per px")
    ax.legend(loc="lower center", markerscale=2)


@drawn
def scattered_light(flat, result) -> Drawing:
    """Light between the groups of fibres against the model of scattered light, along three columns.

    Parameters
    ----------
    flat : (ny, nx) [e-]; result : `reduce.trace.TraceResult`
    """
    ny, nx = flat.shape
    half = min(20, nx // 8)
    columns = [int(s * (nx - 1)) for s in (0.1, 0.5, 0.9)]
    alive = result.model.alive
    light = float(np.sum(np.maximum(result.extraction.amplitude[alive], 0))) if alive.any() else float("nan")
    share = 100 * float(result.background.sum()) / light if light > 0 else float("nan")
    cuts = [_cut(flat, result, c, half) for c in columns]
    rest = np.concatenate([(measured - model)[gap] for measured, model, gap in cuts])
    level = middle(np.concatenate([model[gap] for _, model, gap in cuts]))
    left = 100 * middle(np.abs(rest)) / level if level and level > 0 else float("nan")
    fig = canvas(
        f"Scattered light is {number(share, 2)} % of all light; between the fibres the model is off by "
        f"{number(left, 2)} %",
        height=5.4,
    )
    cells = grid(fig, (1,), (1, 1, 1), hspace=0.42)
    top = max([float(np.percentile(finite(m), 99)) for m, _, _ in cuts if finite(m).size] + [1.0])
    bottom = (
        max(0.3, 0.4 * float(np.percentile(finite(np.concatenate([m for _, m, _ in cuts])), 1)))
        if finite(result.background).size
        else 0.3
    )
    rows = np.arange(ny)
    for k, (column, (measured, model, gap)) in enumerate(zip(columns, cuts, strict=True)):
        ax = fig.add_subplot(cells[k])
        ax.plot(rows, np.maximum(measured, bottom), color="#c4c4c4", linewidth=0.5, label="fibres")
        ax.plot(rows[gap], np.maximum(measured[gap], bottom), "o", color=BLUE, markersize=3, label="between the groups")
        ax.plot(rows, np.maximum(model, bottom), color=ORANGE, linewidth=1.6, label="scattered-light model")
        log_axis(ax)
        ax.set_ylim(bottom, 2 * top)
        ax.set_xlim(0, ny)
        light_frame(ax)
        label(
            ax,
            f"columns {max(0, column - half)}–{min(nx - 1, column + half)}",
            "row" if k == 2 else "",
            "e⁻ per px",
            nx=9,
        )
        if k < 2:
            ax.tick_params(labelbottom=False)
        else:
            ax.legend(loc="upper right", ncols=3, bbox_to_anchor=(1.0, 3.95))
    alt = (
        f"Scattered light is {number(share, 2)} % of the fibres' light, {number(level)} e- per pixel between the "
        "groups of fibres; "
        f"there the model differs from the frame by {number(left, 2)} % (median)."
    )
    return fig, alt


def _cut(flat: np.ndarray, result, column: int, half: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median light, model of scattered light, and which rows see no fibre, of columns about ``column``."""
    ny, nx = flat.shape
    near = slice(max(0, column - half), min(nx, column + half + 1))
    measured = nan_percentile(flat[:, near], 50, axis=1)
    model = np.asarray(result.background[:, near], float).mean(axis=1)
    gap = np.ones(ny, bool)
    trace = result.model.trace[result.model.alive][:, near]
    for low, high in zip(
        np.floor(trace.min(axis=1) - GAP_DISTANCE), np.ceil(trace.max(axis=1) + GAP_DISTANCE), strict=True
    ):
        gap[max(0, int(low)) : max(0, int(high) + 1)] = False
    return measured, model, gap & np.isfinite(measured)
