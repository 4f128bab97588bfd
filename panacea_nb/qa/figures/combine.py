"""Figures of 09_combine: how exposures and channels agree, and what they make together."""

from __future__ import annotations

import numpy as np

from .canvas import (
    BLUE,
    GREEN,
    GREY,
    IMAGE,
    ORANGE,
    PINK,
    Drawing,
    canvas,
    drawn,
    finite,
    grid,
    handy_unit,
    label,
    light_frame,
    limits,
    middle,
    number,
    printable,
)

COLOURS = {"uv": PINK, "orange": ORANGE, "red": GREEN, "farred": BLUE}
BIN = 24  # samples that are averaged to be seen


def _nothing(target: str) -> Drawing:
    fig = canvas(f"{printable(target)}: no source was found, so there is no combined spectrum", height=1.2)
    return fig, "No source was found in any exposure."


def _binned(wave: np.ndarray, flux: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = wave.size // BIN * BIN
    weight = np.where(error[:n] > 0, 1.0 / np.where(error[:n] > 0, error[:n], 1.0) ** 2, 0.0).reshape(-1, BIN)
    total = weight.sum(axis=1)
    mean = np.full(total.size, np.nan)
    mean[total > 0] = (weight * flux[:n].reshape(-1, BIN)).sum(axis=1)[total > 0] / total[total > 0]
    return wave[:n].reshape(-1, BIN).mean(axis=1), mean


@drawn
def combined_parts(result, target: str) -> Drawing:
    """Spectra of all exposures and channels as scaled, and their ratio to the combined one, in bins.

    Parameters
    ----------
    result : `reduce.combine.Combined` or None
    """
    if result is None:
        return _nothing(target)
    factors = np.array(list(result.scales.values()))
    spread = 100 * float(factors.max() / factors.min() - 1)
    words = f"{len(result.parts)} spectra, flux scales within {number(spread, 2)} %"
    fig = canvas(f"{printable(target)}: {words}", height=5.0)
    cells = grid(fig, (1,), (1.6, 1), left=0.85, hspace=0.42)
    ax, below = fig.add_subplot(cells[0]), fig.add_subplot(cells[1])
    good = result.error > 0
    unit, name = handy_unit(result.flux[good])
    seen, heights, offsets = set(), [], []
    for part in result.parts:
        wave, flux = _binned(part.wave, part.flux, part.error)
        colour = COLOURS.get(part.channel, GREY)
        ax.plot(wave, flux / unit, color=colour, linewidth=1.0, label="" if part.channel in seen else part.channel)
        seen.add(part.channel)
        heights.append(flux / unit)
        mean = np.interp(wave, *_binned(result.wave[good], result.flux[good], result.error[good]))
        offsets.append(np.where(mean > 0, flux / np.where(mean > 0, mean, 1.0), np.nan))
        below.plot(wave, offsets[-1], color=colour, linewidth=0.9)
    light_frame(ax)
    ax.set_ylim(*limits(np.concatenate(heights), 1, 99, 0.2))
    label(ax, "exposures and channels, scaled, in bins", "", f"{name}erg/s/cm²/Å", nx=8)
    ax.tick_params(labelbottom=False)
    ax.legend(loc="best", ncols=4)
    light_frame(below)
    below.axhline(1, color=GREY, linestyle="--")
    rest = finite(np.abs(np.concatenate(offsets) - 1))
    away = middle(rest) if rest.size else float("nan")
    below.set_ylim(*(1 + float(np.clip(6 * away if rest.size else 1.0, 0.03, 1.0)) * np.array([-1, 1])))
    words = f"{words}; bins differ from the mean by {number(100 * away, 2)} % in the median"
    label(below, "over the combined spectrum, in bins", "wavelength [Å]", "ratio", nx=8, ny=4)
    for panel in (ax, below):
        panel.set_xlim(min(p.wave[0] for p in result.parts), max(p.wave[-1] for p in result.parts))
    return fig, f"Combination of {printable(target)}: {words}."


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
    ax.plot(result.wave, flux, color=BLUE, linewidth=0.7, label="flux")
    ax.plot(result.wave, error, color=ORANGE, linewidth=0.8, label="error")
    low, high = limits(flux, 0.5, 99.5, 0.25)
    ax.set_ylim(min(low, 0), high)
    light_frame(ax)
    label(ax, "combined spectrum", "", f"{name}erg/s/cm²/Å", nx=8)
    ax.tick_params(labelbottom=False)
    ax.legend(loc="best", ncols=2)
    below.step(result.wave, result.count, color=GREEN, where="mid", linewidth=1.0)
    below.set_ylim(0, result.count.max() + 0.6)
    light_frame(below)
    label(below, "spectra that took part", "wavelength [Å]", "number", nx=8, ny=3)
    first, last = result.wave[good][[0, -1]]
    for panel in (ax, below):
        panel.set_xlim(first, last)
    alt = f"Combined spectrum of {printable(target)}, {first:.0f} to {last:.0f} Å, S/N {number(snr, 3)} per sample."
    return fig, alt


@drawn
def combined_image(cube: np.ndarray, spaxels, aligned: dict[str, bool], target: str) -> Drawing:
    """The combined cube, averaged over thirds of the wavelengths that were measured.

    Parameters
    ----------
    cube : (n, ny, nx); spaxels : `reduce.cube.Grid`; aligned : name -> whether a source aligned the field
    """
    used = np.flatnonzero((cube != 0).any(axis=(1, 2)))
    words = f"{len(aligned)} fields, {sum(aligned.values())} aligned by a source"
    fig = canvas(f"{printable(target)}: cube of {words}", height=2.9)
    cells = grid(fig, (1, 1, 1), (1,), left=0.7)
    extent = (spaxels.x[0] - 0.2, spaxels.x[-1] + 0.2, spaxels.y[0] - 0.2, spaxels.y[-1] + 0.2)
    for k, part in enumerate(np.array_split(used, 3)):
        ax = fig.add_subplot(cells[k])
        if part.size == 0:
            continue
        block = cube[part[:: max(1, part.size // 400)]]
        seen = (block != 0).sum(axis=0)
        image = np.where(seen > 0, block.sum(axis=0) / np.maximum(seen, 1), np.nan)
        unit, name = handy_unit(finite(image))
        low, high = limits(image / unit, 1, 99.7)
        ax.imshow(image / unit, extent=extent, cmap=IMAGE, vmin=low, vmax=high)
        text = f"third {k + 1}: up to {number(high, 2)} {name}".strip()
        label(ax, text, "IFU x [arcsec]", "" if k else "IFU y [arcsec]", nx=4, ny=4)
    return fig, f"Images of {printable(target)} in three parts of the combined cube: {words}."
