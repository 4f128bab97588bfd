"""Figure of 08_standard: the response of a standard star."""

from __future__ import annotations

import numpy as np

from .canvas import (
    BLUE,
    GREEN,
    ORANGE,
    Drawing,
    canvas,
    drawn,
    finite,
    grid,
    handy_unit,
    label,
    light_frame,
    limits,
    log_axis,
    middle,
    number,
    printable,
)


@drawn
def response(response, star) -> Drawing:
    """Response from a standard with the points it rests on, and its ratio to the default.

    Parameters
    ----------
    response : `reduce.flux.Response`; star : `instrument.Standard`
    """
    wave, ratio, used = response.wavelength, response.ratio, response.fitted
    level = middle(ratio)
    shape = 100 * float(np.ptp(finite(ratio))) / level if finite(ratio).size and level else float("nan")
    rest = np.where(used, response.measured / response.response - 1, np.nan)
    name = printable(star.name)
    words = f"response {number(level, 4)} × the default, its shape differs by {number(shape, 2)} %"
    fig = canvas(f"{name}: {words}", height=5.0)
    cells = grid(fig, (1,), (1.6, 1), left=0.85, hspace=0.42)
    ax = fig.add_subplot(cells[0])
    unit, words = handy_unit(response.response)
    left = ~used & np.isfinite(response.measured)
    if left.any():
        ax.plot(wave[left], response.measured[left] / unit, ".", color="#b8b8b8", markersize=2, label="left out")
    ax.plot(wave[used], response.measured[used] / unit, ".", color=BLUE, markersize=2.5, label="published / measured")
    ax.plot(wave, response.response / ratio / unit, color=GREEN, linestyle="--", label="default")
    ax.plot(wave, response.response / unit, color=ORANGE, linewidth=1.6, label="response")
    low, high = limits(response.response / unit, 0, 100)
    if low > 0:
        log_axis(ax, (1.0, 2.0, 5.0))
        ax.set_ylim(low / 1.4, high * 1.4)
    light_frame(ax)
    ax.tick_params(labelbottom=False)
    label(
        ax,
        f"{number(100 * float(used.mean()))} % of the channel compared; points scatter by "
        f"{number(100 * 1.4826 * middle(np.abs(rest)), 2)} %",
        "",
        f"{words}erg/e⁻",
        nx=8,
    )
    ax.legend(loc="best", ncols=2, markerscale=3)
    top = fig.add_subplot(cells[1])
    top.plot(wave, ratio, color=ORANGE, linewidth=1.6)
    relative = np.where(response.response > 0, response.error / response.response, 0) * ratio
    top.fill_between(wave, ratio - relative, ratio + relative, color=ORANGE, alpha=0.25, linewidth=0)
    top.axhline(1, color=GREEN, linestyle="--")
    low, high = limits(np.append(ratio, 1.0), 0, 100, 0.15)
    top.set_ylim(low, high)
    light_frame(top)
    label(top, "response / default", "wavelength in air [Å]", "ratio", nx=8, ny=4)
    for panel in (ax, top):
        panel.set_xlim(wave[0], wave[-1])
    alt = (
        f"Response from {name}: {number(level, 4)} times the default in the median, its shape differs by "
        f"{number(shape, 2)} % over the channel; {number(100 * float(used.mean()))} % of the channel could be compared."
    )
    return fig, alt
