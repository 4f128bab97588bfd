"""Spectra that can be zoomed: Bokeh's description of a plot as JSON, and its script, so that a page needs no network.

Bokeh (BSD-3-Clause) is embedded as it comes with its Python package, and only its core.  A page says what to draw in a block of
JSON, which runs nothing; ``plot.js`` of this package hands it to Bokeh.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from .drawing import CHANNEL_COLORS, INK, OTHER_COLORS, SOFT, power_of
from .spectra import Spectrum, limits, smoothed

HEIGHT = 430


def script_name() -> str:
    """File name of Bokeh's script beside the pages; it names the version, so that a browser never takes an old one."""
    import bokeh

    return f"bokeh-{bokeh.__version__}.min.js"


@lru_cache(maxsize=1)
def script() -> str:
    """Bokeh's core script; a ``</script`` in it would end the element, so there is none."""
    import bokeh

    path = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)  # a browser's inspector would ask for it
    return text.replace("</script", "<\\/script")


def spectra(lines: Sequence[Spectrum], *, shown: int = 1, ratio: bool = False) -> Markup:
    """Spectra, the errors and the sky of the first one, as JSON for ``plot.js``.

    Parameters
    ----------
    lines : sequence of Spectrum
        The first is what the page is about; the height follows it.
    shown : int
        How many are shown from the beginning; the others are switched on by the reader.
    ratio : bool
        The last one is a ratio, drawn below with an axis of its own.
    """
    from bokeh.embed import json_item

    main = lines[0]
    above = list(lines[:-1] if ratio else lines)
    scale, power = power_of(np.concatenate([line.flux for line in above]))
    plot = _plot(f"flux [10{_raised(power)} erg/s/cm²/Å]", HEIGHT)
    _hover(plot, power)
    series, last = [], []
    color = CHANNEL_COLORS.get(main.channel, CHANNEL_COLORS["uv"])
    if (main.error > 0).any():
        last.append(_add(plot, main.wave, main.error / scale, "error (1 sigma)", "#8a96a3", True, step=True))
    if np.isfinite(main.sky).any():
        last.append(_add(plot, main.wave, main.sky / scale, "sky", "#7A3E9D", False))
    for number, line in enumerate(above[1:]):
        own = OTHER_COLORS[number % len(OTHER_COLORS)] if len(above) > 2 else CHANNEL_COLORS["orange"]
        series.append(_add(plot, line.wave, line.flux / scale, line.name, own, number + 1 < shown))
    # drawn last, so that it lies above the others, but listed first
    series.insert(0, _add(plot, main.wave, main.flux / scale, main.name, color, True, width=1.2))
    plot.y_range.start, plot.y_range.end = limits(smoothed(main.flux) / scale, 0.0)
    content: dict[str, Any] = {"series": series + last, "fit": main.name, "item": None}
    if ratio:
        below = _plot("ratio B / A", 230, x_range=plot.x_range)
        plot.xaxis.visible = False
        _add(below, lines[-1].wave, lines[-1].flux, lines[-1].name, INK, True)
        low, high = limits(lines[-1].flux, 1.0)
        below.y_range.start, below.y_range.end = min(low, 0.98), max(high, 1.02)
        from bokeh.layouts import column

        content["item"] = json_item(column(plot, below, sizing_mode="stretch_width"))
    else:
        content["item"] = json_item(plot)
    content["ranges"] = _ranges(above)
    return as_json(content)


def as_json(content: Any) -> Markup:
    """JSON that may stand inside a ``script`` element, whatever texts it holds."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for letter, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(letter, code)
    return Markup(text)


def _plot(label: str, height: int, **options: Any) -> Any:
    from bokeh.models import BoxZoomTool, PanTool, Range1d, ResetTool, SaveTool, WheelZoomTool
    from bokeh.plotting import figure

    zoom = BoxZoomTool(dimensions="width")
    wheel = WheelZoomTool(dimensions="width")
    tools = [zoom, PanTool(), wheel, ResetTool(), SaveTool()]
    plot = figure(
        height=height, sizing_mode="stretch_width", tools=tools, active_drag=zoom, active_scroll=None, y_range=Range1d(0, 1),
        output_backend="canvas", **options,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.toolbar.autohide = False
    plot.xaxis.axis_label, plot.yaxis.axis_label = "wavelength [Å]", label
    for axis in (plot.xaxis, plot.yaxis):
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = SOFT
        axis.axis_label_text_font_size = "13px"
        axis.major_label_text_font_size = "12px"
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = "#9aa5b1"
    plot.xgrid.grid_line_color = plot.ygrid.grid_line_color = "#e8ebef"
    plot.outline_line_color = None
    plot.x_range.range_padding = 0.01
    return plot


def _add(
    plot: Any, wave: np.ndarray, values: np.ndarray, name: str, color: str, visible: bool, **how: Any
) -> dict[str, Any]:
    data = {"x": np.asarray(wave, np.float32), "y": np.asarray(values, np.float32)}
    draw = plot.step if how.pop("step", False) else plot.line
    made = draw("x", "y", source=data, color=color, line_width=how.get("width", 1.0), visible=visible, name=name)
    return {"name": name, "color": color, "visible": visible, "id": made.id}


def _hover(plot: Any, power: int) -> None:
    from bokeh.models import HoverTool

    tips = [("", "$name"), ("wavelength", "@x{0.00} Å"), ("value", f"@y{{0.0000}} × 10{_raised(power)}")]
    plot.add_tools(HoverTool(tooltips=tips, mode="mouse", line_policy="nearest"))


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _ranges(lines: Sequence[Spectrum]) -> list[dict[str, Any]]:
    """Where to jump: everything, and each channel that there is."""
    found = {"all": [float("inf"), float("-inf")]}
    for line in lines:
        wave = line.wave[line.measured]
        if not wave.size:
            continue
        for name in ("all", line.channel) if line.channel else ("all",):
            low, high = found.get(name, [float("inf"), float("-inf")])
            found[name] = [min(low, float(wave[0])), max(high, float(wave[-1]))]
    return [{"name": name, "start": low, "end": high} for name, (low, high) in found.items() if low < high]
