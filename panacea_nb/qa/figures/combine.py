"""Figures of 09_combine: how exposures and channels agree, and what they make together."""

from __future__ import annotations

import numpy as np

from .canvas import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    IMAGE,
    ORANGE,
    PINK,
    Drawing,
    canvas,
    color_bar,
    drawn,
    finite,
    grid,
    handy_unit,
    image_panel,
    label,
    light_frame,
    limits,
    middle,
    number,
    printable,
)

COLOURS = {"uv": PINK, "orange": ORANGE, "red": GREEN, "farred": BLUE}
JOINTS = (("uv", "orange", 4640.0, 40.0), ("orange", "red", 6700.0, 260.0), ("red", "farred", 8337.0, 80.0))
"""Neighbours, the middle of what both measure and half of what is shown [A]."""
BINS = 60  # bins of a channel at most
BIN_SNR = 30.0  # signal to noise that a bin of a faint source should have
FEWEST = 8  # bins of a channel at least
THIRDS = 3


def _nothing(target: str) -> Drawing:
    fig = canvas(f"{printable(target)}: no source was found, so there is no combined spectrum", height=1.2)
    return fig, "No source was found in any exposure."


def _bin_size(part) -> int:
    """Samples per bin that make the noise small against what is to be seen."""
    good = part.error > 0
    snr = middle(np.abs(part.flux[good]) / part.error[good]) if good.any() else 1.0
    wanted = int(np.ceil((BIN_SNR / max(snr, 0.1)) ** 2))
    return int(np.clip(wanted, max(part.wave.size // BINS, 1), max(part.wave.size // FEWEST, 1)))


def _binned(size: int, wave: np.ndarray, flux: np.ndarray, error: np.ndarray, mean: np.ndarray):
    """Bins of an exposure and of the combined spectrum at the same samples with the same weights: wave, flux, error, mean."""
    n = wave.size // size * size
    used = (error[:n] > 0) & np.isfinite(mean[:n])
    weight = np.where(used, 1.0 / np.where(used, error[:n], 1.0) ** 2, 0.0).reshape(-1, size)
    total = weight.sum(axis=1)
    some = np.where(total > 0, total, np.nan)
    means = [(weight * np.where(used, v[:n], 0.0).reshape(-1, size)).sum(axis=1) / some for v in (flux, mean)]
    return wave[:n].reshape(-1, size).mean(axis=1), means[0], 1.0 / np.sqrt(some), means[1]


@drawn
def combined_parts(result, target: str) -> Drawing:
    """Spectra of all exposures and channels as scaled, their ratio to the combined one, and where the channels meet.

    Parameters
    ----------
    result : `reduce.combine.Combined` or None
    """
    if result is None or not (result.error > 0).any():
        return _nothing(target)
    factors = np.array(list(result.scales.values()))
    scales = 100 * float(factors.max() / factors.min() - 1)
    joints = [joint for joint in JOINTS if {joint[0], joint[1]} <= {part.channel for part in result.parts}]
    fig = canvas("", height=7.6 if joints else 5.4)
    rows = grid(fig, (1,), (1.5, 1.1, 1.1)[: 3 if joints else 2], left=0.85, hspace=0.85, top=0.75)
    ax, below = fig.add_subplot(rows[0]), fig.add_subplot(rows[1])
    good = result.error > 0
    unit, name = handy_unit(result.flux[good])
    counts: dict[str, int] = {}
    offsets, heights, noise = [], [], []
    for part in result.parts:
        index = counts[part.channel] = counts.get(part.channel, 0) + 1
        mean = np.interp(part.wave, result.wave[good], result.flux[good], left=np.nan, right=np.nan)
        wave, flux, error, same = _binned(_bin_size(part), part.wave, part.flux, part.error, mean)
        style = {"color": COLOURS.get(part.channel, GREY), "alpha": 1.0 if index == 1 else 0.6}
        fine = _binned(8, part.wave, part.flux, part.error, mean)
        ax.plot(fine[0], fine[1] / unit, linewidth=0.8, label=part.channel if index == 1 else "", **style)
        heights.append(fine[1] / unit)
        safe = np.where(same > 3 * error, same, np.nan)
        mark = {
            "marker": "os^Dv"[(index - 1) % 5],
            "markersize": 3.5,
            "markerfacecolor": "none" if index > 1 else style["color"],
        }
        below.errorbar(wave, flux / safe, error / safe, linestyle="none", elinewidth=0.7, **mark, **style)
        offsets.append(flux / safe - 1)
        noise.append(error / safe)
    light_frame(ax)
    ax.set_ylim(*limits(np.concatenate(heights), 0.5, 99.3, 0.15))
    label(ax, "exposures and channels, scaled", "wavelength [Å]", f"{name}erg/s/cm²/Å", nx=8)
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=4)
    light_frame(below)
    below.axhline(1, color=GREY, linestyle="--", linewidth=1.0)
    rest = finite(np.abs(np.concatenate(offsets)))
    away = middle(rest) if rest.size else float("nan")
    wide = max(1.3 * float(np.percentile(rest, 95)), 2 * middle(np.concatenate(noise))) if rest.size else 1.0
    reach = float(np.clip(wide, 0.02, 1.0))
    below.set_ylim(1 - reach, 1 + reach)
    marks = "filled: first exposure, open: others" if max(counts.values()) > 1 else "one exposure of each channel"
    label(below, f"over the combined spectrum, in bins ({marks})", "wavelength [Å]", "ratio", nx=8, ny=4)
    for panel in (ax, below):
        panel.set_xlim(min(p.wave[0] for p in result.parts), max(p.wave[-1] for p in result.parts))
    if joints:
        _joints(fig, rows[2], result, joints, unit, name)
    words = f"{len(result.parts)} spectra, flux scales within {number(scales, 2)} %"
    words = f"{words}, bins within {number(100 * away, 2)} % of the mean"
    fig.texts[0].set_text(f"{printable(target)}: {words}")
    return fig, f"Combination of {printable(target)}: {words}, in the median."


def _joints(fig, cell, result, joints, unit: float, name: str) -> None:
    """The wavelengths that two channels measure: both as scaled."""
    inner = cell.subgridspec(1, len(joints), wspace=0.22)
    for k, (first, second, at, half) in enumerate(joints):
        ax = fig.add_subplot(inner[k])
        pair = [p for p in result.parts if p.channel in (first, second)]
        seen = []
        for part in pair:
            near = (np.abs(part.wave - at) < half) & (part.error > 0)
            size = max(1, int(near.sum()) // 40)
            wave, flux, error, _ = _binned(size, *(v[near] for v in (part.wave, part.flux, part.error, part.flux)))
            style = {"color": COLOURS[part.channel], "linewidth": 0.9}
            ax.plot(wave, flux / unit, drawstyle="steps-mid", **style)
            ax.fill_between(
                wave, (flux - error) / unit, (flux + error) / unit, alpha=0.2, linewidth=0, color=style["color"]
            )
            seen.append(flux / unit)
        light_frame(ax)
        ax.set_ylim(*limits(np.concatenate(seen), 1, 99, 0.4))
        label(ax, f"{first} and {second}", "wavelength [Å]", "" if k else f"{name}erg/s/cm²/Å", nx=4, ny=4)


@drawn
def combined_spectrum(result, target: str) -> Drawing:
    """The combined spectrum with its error, and how many spectra made each sample."""
    if result is None or not (result.error > 0).any():
        return _nothing(target)
    good = result.error > 0
    snr = middle(result.flux[good] / result.error[good])
    fig = canvas(f"{printable(target)}: S/N {number(snr, 3)} per sample in the median", height=4.6)
    cells = grid(fig, (1,), (2.4, 1), left=0.85, hspace=0.4)
    ax, below = fig.add_subplot(cells[0]), fig.add_subplot(cells[1])
    unit, name = handy_unit(result.flux[good])
    flux, error = (np.where(good, v, np.nan) / unit for v in (result.flux, result.error))
    wave, mean, _, _ = _binned(6, result.wave, result.flux, result.error, result.flux)
    ax.plot(result.wave, flux, color=GREY, linewidth=0.5, alpha=0.5, label="samples")
    ax.plot(wave, mean / unit, color=BLUE, linewidth=0.9, label="mean of six")
    ax.plot(result.wave, error, color=ORANGE, linewidth=0.9, label="error of a sample")
    low, high = limits(mean / unit, 0.5, 99.7, 0.15)
    ax.set_ylim(min(low, 0), high)
    light_frame(ax)
    label(ax, "combined spectrum", "", f"{name}erg/s/cm²/Å", nx=8)
    ax.tick_params(labelbottom=False)
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3)
    below.step(result.wave, result.count, color=GREEN, where="mid", linewidth=1.0)
    below.set_ylim(0, result.count.max() + 0.6)
    light_frame(below)
    label(below, "spectra that took part", "wavelength [Å]", "number", nx=8, ny=3)
    below.yaxis.get_major_locator().set_params(integer=True)
    first, last = result.wave[good][[0, -1]]
    for panel in (ax, below):
        panel.set_xlim(first, last)
    alt = f"Combined spectrum of {printable(target)}, {first:.0f} to {last:.0f} Å, S/N {number(snr, 3)} per sample."
    return fig, alt


@drawn
def combined_image(made, target: str) -> Drawing:
    """The combined cube channel by channel (one channel: in thirds), with the place of the source.

    Parameters
    ----------
    made : `reduce.combinedcube.CombinedCube`
    """
    aligned, x, y = made.aligned, made.spaxels.x, made.spaxels.y
    words = f"{len(aligned)} fields, {sum(how != 'sky' for how in aligned.values())} aligned by a source"
    ranges = _ranges(made)
    rows, columns = (2, 2) if len(ranges) == 4 else (1, len(ranges))
    fig = canvas(f"{printable(target)}: cube of {words}", height=0.6 + 2.6 * rows)
    cells = grid(fig, (1,) * columns, (1,) * rows, left=0.6, right=0.85, wspace=1.25, hspace=0.75)
    half = 0.5 * (x[1] - x[0])
    extent = (x[0] - half, x[-1] + half, y[0] - half, y[-1] + half)
    for k, (channel, low, high) in enumerate(ranges):
        ax = fig.add_subplot(cells[k // columns, k % columns])
        image = _mean_image(made, (made.wave >= low) & (made.wave < high))
        unit, name = handy_unit(finite(image))
        shown = image_panel(ax, image / unit, extent, vmin=None, vmax=None, cmap=IMAGE, aspect="equal")
        shown.set_clim(*limits(image / unit, 1, 99.7))
        if made.first.source is not None:
            ax.plot(*made.first.source[:2], marker="+", color="white", markersize=9, markeredgewidth=1.6)
            ax.plot(*made.first.source[:2], marker="+", color=DARK, markersize=8, markeredgewidth=0.7)
        label(
            ax,
            f"{channel}, {low:.0f}–{high:.0f} Å",
            "IFU x [arcsec]",
            "" if k % columns else "IFU y [arcsec]",
            nx=5,
            ny=4,
        )
        color_bar(fig, ax, shown, f"{name}erg/s/cm²/Å", n=4, pad=0.05)
    return fig, f"Images of {printable(target)} in {len(ranges)} part(s) of the combined cube: {words}."


def _ranges(made) -> list[tuple[str, float, float]]:
    """(name, first, last [A]) of what is shown: the channels, or thirds of a single one."""
    there = {name.rpartition("_")[2] for name in made.aligned}
    names = [name for name in COLOURS if name in there]
    first, last = float(made.wave[0]), float(made.wave[-1])
    if len(names) == 1:
        edges = np.linspace(first, last, THIRDS + 1)
        return [(names[0], float(a), float(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    starts = {second: at for name, second, at, _ in JOINTS if name in there}
    ends = {name: at for name, second, at, _ in JOINTS if second in there}
    found = [(n, max(first, starts.get(n, first)), min(last, ends.get(n, last))) for n in names]
    return [item for item in found if item[2] > item[1]]


def _mean_image(made, inside: np.ndarray) -> np.ndarray:
    """Mean over some wavelengths, each weighted by its typical noise; NaN where little of them was measured.

    At the border refraction leaves some spaxels with a few wavelengths, whose noise would be the brightest thing in the image.
    """
    chosen = np.flatnonzero(inside)
    chosen = chosen[:: max(1, chosen.size // 400)]
    flux, error = made.flux[chosen].astype(float), made.error[chosen].astype(float)
    typical = np.array([middle(e[e > 0]) for e in error])
    weight = np.where(np.isfinite(typical), 1.0 / np.where(np.isfinite(typical), typical, 1.0) ** 2, 0.0)[
        :, None, None
    ] * (error > 0)
    total = weight.sum(axis=0)
    enough = total > 0.5 * total.max(initial=0.0)
    return np.where(enough, (weight * flux).sum(axis=0) / np.where(enough, total, 1.0), np.nan)
