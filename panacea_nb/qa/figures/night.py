"""Figures of 00_inventory and 10_night: the night in time, the exposures, the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.patches import Rectangle

from ...instrument import CHANNELS
from .. import show
from .canvas import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    YELLOW,
    Drawing,
    canvas,
    drawn,
    finite,
    grid,
    light_frame,
    log_axis,
    middle,
    nothing,
    number,
    printable,
)

KINDS = {
    "zro": ("bias", GREY),
    "drk": ("dark", DARK),
    "cmp": ("arc", PINK),
    "flt": ("flat", YELLOW),
    "twi": ("twilight", SKY),
    "sci": ("science", BLUE),
    "eng": ("engineering", ORANGE),
}
CHANNEL_STYLE = {"uv": (PINK, "o"), "orange": (ORANGE, "s"), "red": (GREEN, "^"), "farred": (BLUE, "D")}
MOST_ROWS = 60  # rows of the verdict matrix; what passed goes first when there are more
DAY = 86400.0
ENDED_WELL = "succeeded"


def _time_axis(ax: Axes, low: float, high: float) -> None:
    ax.set_xlim(low, high)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


@drawn
def night_timeline(index) -> Drawing:
    """When each type of frame was taken.

    Parameters
    ----------
    index : `raw.NightIndex`
    """
    exposures = index.exposures()
    # Both IFUs are read out together: one bar for them.
    seen = {(e.obsid, e.exp, e.kind): e for e in reversed(exposures)}
    unique = sorted(seen.values(), key=lambda e: e.start)
    counts = Counter(e.kind for e in unique)
    words = ", ".join(f"{counts[k]} {name}" for k, (name, _) in KINDS.items() if counts.get(k))
    fig = canvas(f"Night {index.night}: {words or 'no exposure'}", height=3.8)
    ax = fig.add_subplot(grid(fig, left=1.05, right=0.3, bottom=0.5)[0])
    if not unique:
        nothing(ax, "no exposure was found")
        return fig, f"Night {index.night}: no exposure was found."
    rows = [k for k in KINDS if counts.get(k)]
    start = np.array([date2num(e.start) for e in unique])
    length = np.array([(e.exptime or 0.0) / DAY for e in unique])
    span = max(float((start + length).max() - start.min()), 60 / DAY)
    labelled = -np.inf
    for e, x, w in zip(unique, start, length, strict=True):
        if e.kind not in rows:
            continue
        y = len(rows) - 1 - rows.index(e.kind)
        ax.barh(y, max(w, 0.003 * span), left=x, height=0.6, color=KINDS[e.kind][1], linewidth=0)
        if e.kind in ("sci", "eng") and e.exp == 1 and x > labelled:
            ax.text(x, y + 0.34, str(e.obsid), fontsize=9, ha="left", va="bottom", color=DARK)
            labelled = x + 0.009 * (len(str(e.obsid)) + 0.15) * span
    ax.set_yticks(range(len(rows)), [f"{KINDS[k][0]} ({counts[k]})" for k in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.3)
    ax.set_title("numbers: observations")
    _time_axis(ax, start.min() - 0.02 * span, start.min() + 1.03 * span)
    ax.set_xlabel("UT")
    light_frame(ax)
    first, end = (unique[int(np.argmin(start))].start, unique[int(np.argmax(start))].start)
    alt = f"Exposures of night {index.night} from {first:%H:%M} to {end:%H:%M} UT: {words}."
    return fig, alt


def _column(table, name: str) -> np.ndarray:
    """A numeric column with NaN where a value is missing."""
    if name not in table.colnames:
        return np.full(len(table), np.nan)
    values = np.ma.asarray(table[name])
    return np.ma.filled(values.astype(float), np.nan)


@drawn
def night_overview(table) -> Drawing:
    """S/N of the sources, their width, and transparency against time, by channel.

    Parameters
    ----------
    table : `astropy.table.Table` of `products.nightly.night_table`
    """
    n = len(table)
    verdicts = Counter(str(v) for v in table["verdict"]) if n else Counter()
    words = ", ".join(f"{verdicts[v]} {v}" for v in ("pass", "warn", "fail") if verdicts.get(v))
    snr, fwhm, clear = (_column(table, name) for name in ("snr", "fwhm", "transparency"))
    targets = len({(int(o), int(e)) for o, e in zip(table["obsid"], table["exposure"], strict=True)}) if n else 0
    fig = canvas(
        f"{targets} exposures, {n} calibrated spectra: {words}" if n else "No exposure was calibrated", height=6.0
    )
    alt = (
        f"Night overview: {targets} exposures, {n} calibrated spectra ({words}); median source FWHM "
        f"{number(middle(fwhm))} arcsec, transparency "
        f"{number(middle(clear))}, best S/N {number(float(np.max(finite(snr), initial=0.0)))}."
        if n
        else "No exposure was calibrated this night."
    )
    cells = grid(fig, (1,), (1, 1, 1), left=0.85, right=1.35, hspace=0.4, bottom=0.5)
    if not n:
        nothing(fig.add_subplot(cells[:, 0]), "no exposure reached its calibration")
        return fig, alt
    time = np.array([_when(t) for t in table["start"]])
    low, high = float(np.min(finite(time), initial=np.inf)), float(np.max(finite(time), initial=-np.inf))
    margin = max(0.05 * (high - low), 600 / DAY)
    channels = np.asarray(table["channel"]).astype(str)
    panels = (
        ("signal-to-noise of the source", "S/N", snr),
        ("width of the source", "FWHM [arcsec]", fwhm),
        ("transparency from the guide cameras (numbers: observations)", "transparency", clear),
    )
    for k, (title, unit, values) in enumerate(panels):
        ax = fig.add_subplot(cells[k])
        for name, (color, mark) in CHANNEL_STYLE.items():
            mine = (channels == name) & np.isfinite(values) & np.isfinite(time)
            shift = (list(CHANNEL_STYLE).index(name) - 1.5) * 0.06 * margin
            ax.plot(
                time[mine] + shift,
                values[mine],
                mark,
                color=color,
                markersize=6,
                label=name,
                markeredgecolor="white",
                markeredgewidth=0.5,
            )
        light_frame(ax)
        ax.set_title(title)
        ax.set_ylabel(unit)
        good = finite(values)
        if k == 0 and good.size and good.min() > 0 and good.max() > 20 * good.min():
            log_axis(ax)
        elif good.size:
            ax.set_ylim(0, 1.15 * max(good.max(), 1e-3))
        if np.isfinite(low):
            _time_axis(ax, low - margin, high + margin)
        if k < 2:
            ax.tick_params(labelbottom=False)
            ax.xaxis.get_offset_text().set_visible(False)
        if k == 0:
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    _numbers(ax, table, time)
    ax.set_xlabel("UT")
    return fig, alt


def _when(text: object) -> float:
    try:
        return float(date2num(datetime.fromisoformat(str(text))))
    except ValueError:
        return float("nan")


def _numbers(ax: Axes, table, time: np.ndarray) -> None:
    """Numbers of the observations along the foot of a panel."""
    span = np.ptp(finite(time)) if finite(time).size else 0.0
    last = -np.inf
    for obsid, t in sorted(
        {(int(o), float(t)) for o, t in zip(table["obsid"], time, strict=True)}, key=lambda pair: pair[1]
    ):
        if np.isfinite(t) and t - last > 0.03 * span:
            ax.text(
                t,
                0.03,
                str(obsid),
                transform=ax.get_xaxis_transform(),
                fontsize=9.5,
                color=DARK,
                ha="center",
                va="bottom",
            )
            last = t


@drawn
def verdict_matrix(tasks) -> Drawing:
    """State and verdict of every task: a row per channel, exposure or target, a column per stage.

    Parameters
    ----------
    tasks : list of dict with id, stage, state, verdict, channel, obsid, exp, target
    """
    tasks = list(tasks)
    words = [_word(t) for t in tasks]
    counts = Counter(words)
    summary = ", ".join(f"{counts[w]} {_SAID.get(w, w)}" for w in _ORDER if counts.get(w)) or "no task"
    stages = sorted({str(t.get("stage") or "?") for t in tasks})
    rows = _rows(tasks)
    hidden = 0
    if len(rows) > MOST_ROWS:
        state = {
            row: max((_ORDER.index(w) for t, w in zip(tasks, words, strict=True) if _row(t) == row), default=0)
            for row in rows
        }
        keep = set(sorted(rows, key=lambda r: (-state[r], rows.index(r)))[:MOST_ROWS])
        hidden = len(rows) - len(keep)
        rows = [r for r in rows if r in keep]
    note = f" ({hidden} rows of the best not shown)" if hidden else ""
    fig = canvas(f"{len(tasks)} tasks: {summary}{note}", height=max(1.7, 1.1 + 0.25 * len(rows)))
    ax = fig.add_subplot(grid(fig, left=1.75, right=0.15, bottom=0.1, top=0.95)[0])
    alt = f"Verdicts of {len(tasks)} tasks: {summary}."
    bad = [
        str(t.get("id", "?"))
        for t, w in zip(tasks, words, strict=True)
        if w in ("fail", "failed", "blocked", "aborted")
    ]
    if bad:
        alt += f" Not well: {', '.join(printable(b) for b in bad[:8])}{' and others' if len(bad) > 8 else ''}."
    if not tasks:
        nothing(ax, "no task was recorded")
        return fig, alt
    _cells(ax, tasks, words, rows, stages)
    return fig, alt


_ORDER = ("pass", "info", "pending", "running", "warn", "aborted", "blocked", "fail", "failed")
_FILL = {
    "pass": "#cfe8dd",
    "info": "#eeeeee",
    "pending": "#eeeeee",
    "running": "#d6e6f5",
    "warn": "#fbe3bd",
    "aborted": "#e3c6dd",
    "blocked": "#d9d9d9",
    "fail": "#f4b6bd",
    "failed": "#b00020",
}
_SAID = {"fail": "of bad quality (fail)", "failed": "failed to run"}
_INK = {**show.COLORS, "failed": "white"}


def _word(task: dict) -> str:
    """What a cell says: the verdict of a task that ended well, else its state."""
    state, verdict = str(getattr(task.get("state"), "value", task.get("state")) or ""), str(task.get("verdict") or "")
    word = (verdict or "pass") if state in (ENDED_WELL, "") else state
    return word if word in _ORDER else "info"


def _row(task: dict) -> str:
    """The row of a task: its exposure and channel, or the channel, or the target, or the night."""
    channel = str(task.get("channel") or "")
    if task.get("target"):
        return f"target {printable(task['target'], 14)}"
    if task.get("obsid") not in (None, ""):
        return f"obs {task['obsid']} exp {task.get('exp')} {channel}"
    return f"calibrations {channel}" if channel else "night"


def _rows(tasks: Sequence[dict]) -> list[str]:
    order = {name: i for i, name in enumerate(CHANNELS)}

    def key(task: dict) -> tuple:
        obsid = task.get("obsid")
        number_ = int(obsid) if obsid not in (None, "") else (0 if task.get("channel") else -1)
        return (number_, int(task.get("exp") or 0), order.get(str(task.get("channel") or ""), 9))

    return list(dict.fromkeys(_row(t) for t in sorted(tasks, key=key)))


def _cells(ax: Axes, tasks: Iterable[dict], words: Iterable[str], rows: list[str], stages: list[str]) -> None:
    place = {row: len(rows) - 1 - i for i, row in enumerate(rows)}
    for task, word in zip(tasks, words, strict=True):
        row = _row(task)
        if row not in place:
            continue
        x, y = stages.index(str(task.get("stage") or "?")), place[row]
        ax.add_patch(Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, facecolor=_FILL[word], linewidth=0))
        weight = "bold" if word not in ("pass", "info", "pending") else "normal"
        ax.text(x, y, word, ha="center", va="center", fontsize=9.5, color=_INK.get(word, DARK), fontweight=weight)
    ax.set_xlim(-0.5, len(stages) - 0.5)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.set_xticks(range(len(stages)), [printable(s, 24).replace("_", "\n", 1) for s in stages])
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(rows)), list(reversed(rows)))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
