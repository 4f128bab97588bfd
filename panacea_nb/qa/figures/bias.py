"""Figures of 01_bias: master bias, dark, read noise."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ...instrument import AMP_ROWS
from .canvas import (
    BLUE,
    DARK,
    ORANGE,
    Drawing,
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
    nothing,
    number,
    shrunk,
    spread,
)

AMPLIFIERS = (("bottom amplifier", slice(0, AMP_ROWS), BLUE), ("top amplifier", slice(AMP_ROWS, 2 * AMP_ROWS), ORANGE))
LONG_EXPOSURE = 1800.0  # s, in which the dark current is shown


@drawn
def bias_overview(bias, dark) -> Drawing:
    """Master bias, dark current, and the level of single bias frames.

    Parameters
    ----------
    bias : `reduce.bias.MasterBias`; dark : `reduce.bias.MasterDark`
    """
    noise = " / ".join(number(v) for v in bias.rdnoise)
    drift = np.asarray(bias.drift, float)
    worst = float(np.abs(drift).max()) if drift.size else float("nan")
    low, high = limits(bias.data, 0.5, 99.5)
    fig = canvas(f"Bias of {bias.n_frames} frames: read noise {noise} e⁻, level steady to {number(worst, 2)} e⁻")
    cells = grid(fig, (1, 1, 1), wspace=1.4)
    ax = fig.add_subplot(cells[0])
    small, extent = shrunk(ax, bias.data)
    _amplifiers(ax)
    color_bar(fig, ax, image_panel(ax, small, extent, vmin=low, vmax=high), "bias [e⁻]")
    label(ax, "master bias", "column", "row", nx=4)
    ax = fig.add_subplot(cells[1])
    current = LONG_EXPOSURE * middle(dark.rate) if dark.exposure > 0 else float("nan")
    if dark.exposure > 0:
        small, extent = shrunk(ax, LONG_EXPOSURE * dark.rate)
        floor, ceiling = limits(small, 1, 99)
        _amplifiers(ax)
        color_bar(fig, ax, image_panel(ax, small, extent, vmin=min(floor, 0.0), vmax=max(ceiling, 0.1)), "")
        label(ax, f"dark [e⁻ in {LONG_EXPOSURE:.0f} s]", "column", nx=4)
    else:
        nothing(ax, "no dark frames:\nno dark current subtracted")
    ax = fig.add_subplot(cells[2])
    if drift.size:
        for k, (name, _, color) in enumerate(AMPLIFIERS):
            ax.plot(
                np.arange(1, drift.shape[0] + 1),
                drift[:, k],
                "o-" if k == 0 else "s--",
                color=color,
                label=name,
                markersize=5,
            )
        reach = max(1.3 * worst, 0.1)
        ax.set_ylim(-reach, reach)
        light_frame(ax)
        label(ax, "frames − master", "bias frame", "level [e⁻]")
        ax.legend(loc="best")
    else:
        nothing(ax, "levels of the single frames\nwere not kept")
    bad = 100 * float((bias.bad | dark.hot).mean())
    alt = (
        f"Master bias of {bias.n_frames} frames: read noise {noise} e- (bottom / top amplifier), structure from "
        f"{number(low)} to "
        f"{number(high)} e-, single frames within {number(worst, 2)} e- of the master, dark current "
        f"{number(current, 2)} e- in "
        f"{LONG_EXPOSURE:.0f} s, {number(bad, 2)} % of the pixels bad."
    )
    return fig, alt


def _amplifiers(ax: Axes) -> None:
    """The border between the two amplifiers."""
    ax.axhline(AMP_ROWS - 0.5, color="white", linewidth=0.8, linestyle=":")


@drawn
def read_noise(image, bias) -> Drawing:
    """Histogram of one bias frame about the master against the Gaussian of the measured read noise.

    Parameters
    ----------
    image : `reduce.ccd.ChannelImage`, a bias frame; bias : `reduce.bias.MasterBias`
    """
    rest = np.asarray(image.data[:, ::3], float) - bias.data[:, ::3]
    words = " / ".join(number(v) for v in bias.rdnoise)
    wide = [spread(rest[rows]) for _, rows, _ in AMPLIFIERS]
    seen = " / ".join(number(v) for v in wide)
    fig = canvas(f"Read noise {words} e⁻ (bottom / top); one frame scatters by {seen} e⁻ about the master", height=3.9)
    cells = grid(fig, (1, 1), wspace=0.75)
    beyond = []
    for cell, (name, rows, color), sigma in zip(cells, AMPLIFIERS, bias.rdnoise, strict=True):
        ax = fig.add_subplot(cell)
        values = finite(rest[rows], 800_000)
        if not values.size or not sigma > 0:
            nothing(ax, f"{name}: no data")
            beyond.append(float("nan"))
            continue
        values = (values - np.median(values)) / sigma
        count, edges = np.histogram(values, 96, (-8, 8))
        centre = 0.5 * (edges[1:] + edges[:-1])
        ax.stairs(
            np.maximum(count, 0.3), edges, fill=True, color=color, alpha=0.45, label="frame − master", baseline=0.3
        )
        gauss = values.size * (edges[1] - edges[0]) * np.exp(-0.5 * centre**2) / np.sqrt(2 * np.pi)
        ax.plot(centre[gauss > 0.3], gauss[gauss > 0.3], color=DARK, label=f"Gaussian of {number(sigma)} e⁻")
        log_axis(ax)
        ax.set_ylim(0.3, 4 * max(count.max(), 1))
        light_frame(ax)
        beyond.append(100 * float((np.abs(values) > 5).mean()))
        label(
            ax,
            f"{name}: {number(beyond[-1], 2)} % beyond 5 σ",
            "deviation [read noise]",
            "pixels" if rows.start == 0 else "",
        )
        ax.legend(loc="upper right")
    alt = (
        f"One bias frame against the master: read noise {words} e- in the bottom / top amplifier, scatter of this "
        f"frame {seen} e-; "
        f"beyond 5 sigma lie {' / '.join(number(v, 2) for v in beyond)} % of the pixels."
    )
    return fig, alt
