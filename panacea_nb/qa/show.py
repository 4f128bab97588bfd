"""Show figures and tables in a notebook so that they survive as static pages: PNG with an alt text that says the finding."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 90
COLORS = {
    "pass": "#0b6e4f",
    "warn": "#9a5b00",
    "fail": "#b00020",
}  # readable on white, and told apart without colour by the word
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe & Ito: safe for the colour-blind


def new_figure(width: float = 10.0, height: float = 4.0) -> Figure:
    """A figure of ``width`` x ``height`` inches outside pyplot (nothing to close, nothing global)."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure(fig: Figure, alt: str) -> None:
    """Display ``fig`` as PNG; ``alt`` is what somebody who cannot see it should know."""
    from IPython.display import Image, display

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI)
    display(Image(data=buffer.getvalue(), format="png", alt=alt))


def table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Display a small table; every text is escaped."""
    from IPython.display import HTML, display

    head = "".join(f"<th>{html.escape(str(h))}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_text(v))}</td>" for v in row) + "</tr>" for row in rows)
    display(HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"))


def facts(values: Mapping[str, object]) -> None:
    """Display name-value pairs."""
    table(values.items(), ("what", "value"))


def decisions(items: Iterable) -> None:
    """Display decisions, fallbacks first."""
    ordered = sorted(items, key=lambda d: d.severity != "warn")
    if ordered:
        table(((d.severity, d.code, d.text) for d in ordered), ("", "code", "decision"))
    else:
        print("no fallback was needed")


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def verdict_html(verdict) -> str:
    """The verdict as a table."""
    rows = []
    for m in verdict.metrics:
        mark = f'<strong style="color:{COLORS[m.verdict]}">{m.verdict}</strong>'
        cells = (m.name.replace("_", " "), f"{m.value:.4g} {m.unit}", m.threshold, m.reason)
        rows.append(
            "<tr>"
            + "".join(f"<td>{html.escape(c)}</td>" for c in cells[:2])
            + f"<td>{mark}</td>"
            + "".join(f"<td>{html.escape(c)}</td>" for c in cells[2:])
            + "</tr>"
        )
    head = "".join(f"<th>{h}</th>" for h in ("metric", "value", "verdict", "limits", "why"))
    word = f'<strong style="color:{COLORS[verdict.overall]}">{verdict.overall}</strong>'
    title = f"<p>Verdict of {html.escape(verdict.stage)}: {word}</p>"
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
