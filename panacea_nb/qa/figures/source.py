"""Figures of 07_flux: the field, the source and its model, its spectrum."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ...reduce.psf import lenslet_fractions
from .canvas import (
    BLUE,
    DARK,
    DIVERGING,
    GREEN,
    GREY,
    LEVEL,
    ORANGE,
    Drawing,
    canvas,
    color_bar,
    drawn,
    finite,
    grid,
    handy_unit,
    image_panel,
    label,
    lenslets,
    light_frame,
    limits,
    log_axis,
    middle,
    nothing,
    number,
    symmetric,
)

PARTS = ("blue", "middle", "red")
PART_COLORS = (BLUE, GREEN, ORANGE)
RING = 0.35  # arcsec, width of a ring about the source
OVAL = 0.02  # ellipticity that is worth a word


def _extent(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Extent of an image whose pixels are centred on ``x`` and ``y``."""
    dx = 0.5 * (x[1] - x[0]) if x.size > 1 else 0.5
    dy = 0.5 * (y[1] - y[0]) if y.size > 1 else 0.5
    return float(x[0] - dx), float(x[-1] + dx), float(y[0] - dy), float(y[-1] + dy)


def _found(result) -> str:
    """The source in a few words."""
    source = result.source
    if source is None:
        return f"no source: best S/N {number(result.search.get('best'))}"
    how = "fixed at" if source.fixed else "at"
    return (
        f"source {how} {number(source.x)}″, {number(source.y)}″, S/N {number(source.snr)}, FWHM {number(source.fwhm)}″"
    )


def _path(ax: Axes, result) -> None:
    """Where refraction puts the source along the channel, from blue to red."""
    nodes = np.linspace(result.grid[0], result.grid[-1], 12)
    dx, dy = result.refraction.offset(nodes, result.source.wave_ref)
    x, y = result.source.x + dx, result.source.y + dy
    ax.plot(x, y, color="white", linewidth=3.2, solid_capstyle="round")
    ax.plot(x, y, color=DARK, linewidth=1.4)
    ax.plot(x[0], y[0], "o", color=BLUE, markersize=7, markeredgecolor="white", label=f"{nodes[0]:.0f} Å")
    ax.plot(x[-1], y[-1], "s", color=ORANGE, markersize=7, markeredgecolor="white", label=f"{nodes[-1]:.0f} Å")
    ax.plot(result.source.x, result.source.y, "x", color="white", markersize=11, markeredgewidth=3.4)
    ax.plot(result.source.x, result.source.y, "x", color="black", markersize=10, markeredgewidth=1.8, label="source")


@drawn
def collapsed_image(result) -> Drawing:
    """The collapsed image and the map of the source search, with the source and its path by refraction.

    Parameters
    ----------
    result : `reduce.calibrated.Calibrated`
    """
    found = _found(result)
    headline = found[0].upper() + found[1:]
    if result.source is None:
        headline += f"; a point source of {number(result.limit, 2)} erg/s/cm²/Å would show at 5 σ"
    fig = canvas(headline, height=3.5)
    cells = grid(fig, (1, 1), left=0.65, right=1.0, wspace=1.75)
    ax = fig.add_subplot(cells[0])
    image = np.where(result.collapsed == 0, np.nan, result.collapsed)
    unit, words = handy_unit(image)
    low, high = limits(image / unit, 2, 99.5)
    shown = image_panel(
        ax, image / unit, _extent(result.spaxels.x, result.spaxels.y), vmin=low, vmax=high, aspect="equal"
    )
    color_bar(fig, ax, shown, f"{words}erg/s/cm²/Å")
    label(
        ax,
        f"{result.centre - result.half_width:.0f}–{result.centre + result.half_width:.0f} Å, sky subtracted",
        "IFU x [arcsec]",
        "IFU y [arcsec]",
    )
    axes = [ax]
    ax = fig.add_subplot(cells[1])
    snr = np.asarray(result.search["snr"], float)
    low, high = limits(snr, 1, 99.9)
    shown = image_panel(
        ax,
        snr,
        _extent(np.asarray(result.search["x"]), np.asarray(result.search["y"])),
        vmin=low,
        vmax=max(high, 5.0),
        cmap=LEVEL,
        aspect="equal",
    )
    color_bar(fig, ax, shown, "S/N")
    label(ax, "matched filter, whole channel", "IFU x [arcsec]", "")
    axes.append(ax)
    if result.source is not None:
        for panel in axes:
            field = {"xlim": panel.get_xlim(), "ylim": panel.get_ylim()}
            _path(panel, result)
            panel.set(**field)
        axes[0].legend(loc="lower left", frameon=True, framealpha=0.9, handletextpad=0.3, fontsize=9, borderpad=0.3)
    line = result.search.get("line", np.nan)
    alt = (
        f"Collapsed image at {result.centre:.0f} A: {found.replace('″', ' arcsec')}; 5-sigma limit of a point source "
        f"{number(result.limit, 2)} erg/s/cm2/A"
        + (f"; found by its line at {line:.0f} A" if np.isfinite(line) else "")
        + "."
    )
    return fig, alt


def _parts(result) -> list[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """The search averaged over thirds of the channel: name, range, and data, model and error (nf,) of each."""
    search, source = result.search, result.source
    wave = np.atleast_1d(np.asarray(search["wave"], float))
    means, variances = (np.atleast_2d(np.asarray(search[k], float)) for k in ("means", "variances"))
    model = np.zeros_like(means)
    if source is not None and source.chunk_flux.size == wave.size:
        dx, dy = result.refraction.offset(wave, source.wave_ref)
        fwhm = source.fwhm * (wave / source.wave_ref) ** source.exponent
        place = (result.positions, source.x + dx, source.y + dy, fwhm, source.beta)
        model = lenslet_fractions(*place, shear=source.shear, disk=source.disk) * source.chunk_flux[:, None]
    out = []
    groups = np.array_split(np.arange(wave.size), min(3, wave.size))
    for name, part in zip(PARTS if len(groups) == 3 else ("line", "line"), groups, strict=False):
        known = np.isfinite(variances[part]) & np.isfinite(means[part]) & result.alive[None, :]
        count = known.sum(axis=0)
        safe = np.maximum(count, 1)
        data = np.where(count > 0, np.where(known, means[part], 0).sum(axis=0) / safe, np.nan)
        fit = np.where(count > 0, np.where(known, model[part], 0).sum(axis=0) / safe, np.nan)
        error = np.where(count > 0, np.sqrt(np.where(known, variances[part], 0).sum(axis=0)) / safe, np.nan)
        out.append((name, f"{wave[part[0]]:.0f}–{wave[part[-1]]:.0f} Å", data, fit, error))
    return out


@drawn
def source_model(result) -> Drawing:
    """Light of the fibres, the fitted Moffat and what it leaves in three parts of the channel, and the radial profile.

    Parameters
    ----------
    result : `reduce.calibrated.Calibrated`
    """
    parts = _parts(result)
    source = result.source
    if source is None:
        headline = (
            f"No source to model (best S/N {number(result.search.get('best'))}): light of the fibres without the sky"
        )
    else:
        kind = "Sérsic" if source.disk else "Moffat"
        shape = f"n {number(source.disk, 2)}" if source.disk else f"β {number(source.beta, 2)}"
        oval = f", oval by {100 * np.hypot(*source.shear):.0f} %" if np.hypot(*source.shear) > OVAL else ""
        sure = f": place and shape tell its flux to {100 * source.flux_error:.2g} %" if np.isfinite(source.flux_error) else ""
        headline = (
            f"{kind} of {number(source.fwhm)}″ FWHM, {shape}{oval}, "
            f"at reduced χ² {number(source.chi, 2)}{sure}"
        )
    fig = canvas(headline, height=max(1.15 + 1.36 * len(parts), 3.4))
    cells = grid(
        fig, (1, 1, 1, 0.1, 1.5), [1] * len(parts), left=0.45, right=0.15, bottom=0.5, wspace=0.25, hspace=0.26
    )
    unit, words = handy_unit(np.concatenate([p[2] for p in parts]))
    left_over = []
    for k, (name, where, data, fit, error) in enumerate(parts):
        low, high = limits(data / unit, 3, 99.7)
        peak = float(np.max(finite(fit), initial=0.0)) if source is not None else 0.0
        if peak > 0:
            high = max(high, peak / unit)
        rest = (data - fit) / error
        reach = float(np.clip(symmetric(rest, 99), 3.0, 50.0))
        left_over.append(middle(np.abs(rest)) * 1.4826)
        for j, (values, vmin, vmax, cmap, title) in enumerate(
            (
                (data / unit, low, high, "viridis", f"{name}: {where}"),
                (fit / unit, low, high, "viridis", "model"),
                (rest, -reach, reach, DIVERGING, f"residual, ±{number(reach, 2)} σ"),
            )
        ):
            ax = fig.add_subplot(cells[k, j])
            lenslets(ax, result.positions, values, vmin=vmin, vmax=vmax, cmap=cmap)
            ax.set(anchor="C", xticks=[], yticks=[])
            ax.set_title(title if k == 0 or j != 1 else "", fontsize=9.5)
            if j == 0:
                ax.set_ylabel(f"{low:.1f} … {high:.1f}", fontsize=9.5)
            if source is not None and j < 2:
                ax.plot(source.x, source.y, "+", color="white", markersize=6)
    fig.text(
        0.05,
        0.015,
        f"maps: 12.4″ × 7.1″, scale in {words}erg/s/cm²/Å per fibre; residual in units of the noise",
        fontsize=9.5,
        color=DARK,
    )
    _radial(fig.add_subplot(cells[:, 4]), result, parts)
    if source is None:
        alt = f"No source was found (best S/N {number(result.search.get('best'))}): the fibres' light, without a model."
    else:
        alt = (
            f"Source model: {kind} of {number(source.fwhm)} arcsec FWHM, {shape.replace('β', 'beta')}{oval}{sure}; reduced "
            f"chi-square {number(source.chi, 2)}, {number(100 * source.unexplained, 2)} % of the light unexplained; "
            f"the residual of the fibres is {' / '.join(number(v, 2) for v in left_over)} times their noise in the "
            f"{' / '.join(p[0] for p in parts)} part."
        )
    return fig, alt


def _radial(ax: Axes, result, parts) -> None:
    """Light of fibres over the source's total against distance, in rings, with the model."""
    source = result.source
    if source is None:
        nothing(ax, "no source")
        return
    wave = np.atleast_1d(np.asarray(result.search["wave"], float))
    groups = np.array_split(np.arange(wave.size), len(parts))
    edges = np.arange(0.0, 5.01, RING)
    top = 0.0
    for (name, _, data, fit, error), part, color, mark in zip(parts, groups, PART_COLORS, "os^", strict=False):
        total = float(np.mean(source.chunk_flux[part])) if source.chunk_flux.size == wave.size else float("nan")
        if not total > 0:
            continue
        dx, dy = result.refraction.offset(float(wave[part].mean()), source.wave_ref)
        distance = np.hypot(result.positions[:, 0] - source.x - dx, result.positions[:, 1] - source.y - dy)
        rings = []
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            inside = (distance >= low) & (distance < high) & np.isfinite(data) & np.isfinite(error)
            if inside.any():
                noise = float(np.sqrt(np.sum(error[inside] ** 2))) / inside.sum()
                mean = data[inside].mean() if data[inside].mean() > noise else np.nan  # no place on a logarithmic axis
                rings.append((distance[inside].mean(), mean, noise, fit[inside].mean()))
        if rings:
            r, mean, noise, model = np.array(rings).T
            ax.errorbar(
                r,
                mean / total,
                noise / total,
                fmt=mark,
                color=color,
                markersize=4,
                markerfacecolor="none",
                linewidth=0.9,
                label=name,
            )
            ax.plot(r, model / total, color=color, linewidth=1.0)
            top = max(top, float(np.max(model)) / total)
    if not top > 0:
        ax.clear()
        nothing(ax, "the model has no light")
        return
    log_axis(ax)
    ax.set_ylim(max(1e-5, 2e-4 * top), 2.5 * top)
    ax.set_xlim(0, 5)
    light_frame(ax)
    ax.set_xlabel("distance from the source [arcsec]")
    ax.set_title("share of the source's light per fibre:\nrings above their noise, model (lines)", fontsize=9.5)
    ax.legend(loc="upper right")


@drawn
def extracted_spectrum(result) -> Drawing:
    """Spectrum of the source with its error, the sky through the same weights, and the response.

    Parameters
    ----------
    result : `reduce.calibrated.Calibrated`
    """
    wave = result.grid
    spectrum = result.spectrum
    usable = spectrum.error > 0
    sky = np.where(usable, spectrum.sky, np.nan)
    if result.source is None:
        alive = result.alive & (result.error > 0).any(axis=1)
        sky = np.median(result.sky[alive], axis=0) if alive.any() else np.full(wave.size, np.nan)
    flux, error = np.where(usable, spectrum.flux, np.nan), np.where(usable, spectrum.error, np.nan)
    snr = middle(flux / error)
    masked = 100 * float(1 - usable.mean())
    if result.source is None:
        headline = f"No source: nothing above {number(result.limit, 2)} erg/s/cm²/Å (5 σ, point source, per element)"
    else:
        headline = (
            f"Spectrum of the source: S/N {number(snr)} per element (median), flux {number(middle(flux))} erg/s/cm²/Å"
        )
    fig = canvas(headline, height=5.6)
    cells = grid(fig, (1,), (2, 1, 0.8), left=0.6, hspace=0.4)
    ax = fig.add_subplot(cells[0])
    unit, words = handy_unit(flux)
    if usable.any() and result.source is not None:
        ax.fill_between(
            wave, (flux - error) / unit, (flux + error) / unit, color=BLUE, alpha=0.35, linewidth=0, label="1 σ"
        )
        ax.plot(wave, flux / unit, color=DARK, linewidth=0.7, label="flux")
        low, high = limits(flux / unit, 0.3, 99.7, 0.12)
        ax.set_ylim(min(low, 0.0), high)
        ax.axhline(0, color=GREY, linewidth=0.7)
        ax.legend(loc="upper right", ncols=2)
    else:
        nothing(ax, f"no source was found (best S/N {number(result.search.get('best'))})")
    axes = [ax]
    label(ax, f"source, its whole light [{words}erg/s/cm²/Å]", nx=8, ny=4)
    ax = fig.add_subplot(cells[1])
    unit, words = handy_unit(sky)
    ax.plot(wave, sky / unit, color=ORANGE, linewidth=0.7)
    low, high = limits(sky / unit, 0.5, 99.5, 0.08)
    ax.set_ylim(low, high)
    axes.append(ax)
    what = "sky through the same weights" if result.source is not None else "sky of the median fibre"
    label(ax, f"{what} [{words}erg/s/cm²/Å]", nx=8, ny=3)
    ax = fig.add_subplot(cells[2])
    unit, words = handy_unit(result.response)
    ax.plot(wave, np.where(result.response > 0, result.response / unit, np.nan), color=GREEN)
    axes.append(ax)
    if finite(result.response).max(initial=0.0) > 0:
        log_axis(ax, (1.0, 2.0, 5.0))
    label(ax, f"response [{words}erg/e⁻]", "wavelength in air [Å]", nx=8, ny=3)
    for k, ax in enumerate(axes):
        ax.set_xlim(wave[0], wave[-1])
        if ax.lines:
            light_frame(ax)
        if k < 2:
            ax.tick_params(labelbottom=False)
    alt = (
        headline.replace("²", "2").replace("Å", "A").replace("σ", "sigma")
        + f"; {number(masked, 2)} % of the elements are masked."
    )
    return fig, alt
