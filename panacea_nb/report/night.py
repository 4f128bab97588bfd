"""The facts of a night as its page shows them: rows by exposure and channel, calibrations, troubles and decisions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astropy.io import ascii as ascii_tables
from astropy.table import Table

from ..instrument import UnknownChannelError, channel
from ..products.layout import Layout
from . import calchoice, drawing, spectra
from .links import Link, product_files, relative
from .pages import Page
from .privacy import LONGEST_NAME, clean
from .records import VERDICTS, Record, channel_order, number, plain, worst
from .spectra import Observed

# Which figures stand for a task on the night page, and how many of them; the rest is one click away.
SHOWN_FIGURES = {"07_flux": 2, "08_standard": 1, "06_sky": 1, "05_extract": 1}
SHOWN_TARGET_FIGURES = 3
SHOWN_CALIBRATION_FIGURES = 1
# Names under which the night table or the metrics of a stage hold what a row shows.
_NAMES = {
    "object": ("object", "target", "object_name"),
    "program": ("program", "programme", "qprog"),
    "obsid": ("obsid",),
    "exp": ("exp", "exposure"),
    "channel": ("channel", "side"),
    "sn": ("sn", "snr", "source_sn", "source_snr", "signal_to_noise"),
    "fwhm": ("fwhm", "seeing", "source_fwhm"),
    "transparency": ("transparency", "throughput", "throughp"),
    "exptime": ("exptime",),
    "sky": ("sky",),
    "start": ("start",),
}
_TEXTS = ("object", "program", "start")
# What a row shows comes from the night table, else from the measures of its tasks, else from the header of its products.
_CARDS = {"sn": "SNR", "fwhm": "SEEING", "transparency": "THROUGHP", "exptime": "EXPTIME"}


@dataclass(frozen=True)
class Preview:
    """Image and spectrum of an exposure in the size of a table's row."""

    image: str
    says: str
    spark: str


@dataclass
class Row:
    """One exposure in one channel (or a target of a programme, or the calibrations of a channel) and what its tasks left."""

    key: tuple
    tasks: list[Record]
    facts: Mapping[str, Any] = field(default_factory=dict)
    products: list[Link] = field(default_factory=list)
    figures: list[dict[str, str]] = field(default_factory=list)
    preview: Preview | None = None
    page: str = ""

    @property
    def badge(self) -> str:
        """The worst of its tasks."""
        return worst(task.badge for task in self.tasks)

    @property
    def anchor(self) -> str:
        """The row's place on the page."""
        return self.tasks[0].folder

    @property
    def words(self) -> str:
        """What a search finds beside the row's own texts: codes of decisions, measures out of their limits."""
        codes = {decision["code"] for task in self.tasks for decision in task.decisions}
        broken = {metric.label for task in self.tasks for metric in task.metrics if metric.verdict in ("warn", "fail")}
        return " ".join(sorted(codes | broken))

    @property
    def warnings(self) -> int:
        """Fallbacks used."""
        return len({d["code"] + d["text"] for task in self.tasks for d in task.decisions if d["severity"] == "warn"})


@dataclass
class Trouble:
    """Something that an operator should look at."""

    badge: str
    where: str
    text: str
    page: str = ""


@dataclass(frozen=True)
class Cost:
    """Time and memory that the tasks of a stage took."""

    stage: str
    tasks: int
    wall: float
    cpu: float
    slowest: float
    megabytes: float | None


@dataclass
class Night:
    """Everything the night page shows, or with ``program`` what is a programme's own of it."""

    layout: Layout
    program: str
    rows: list[Row]
    targets: list[Row]
    calibrations: list[Row]
    tasks: list[Record]
    troubles: list[Trouble]
    decisions: list[dict[str, Any]]
    unread: list[str]
    pages: Mapping[str, Page]
    links: list[Link]
    choices: list[calchoice.Choice] = field(default_factory=list)

    @property
    def costs(self) -> list[Cost]:
        """Time and memory by stage, and of everything."""
        stages: dict[str, list[Record]] = {}
        for task in self.tasks:
            if task.wall:
                stages.setdefault(task.stage, []).append(task)
        found = [_cost(stage, tasks) for stage, tasks in sorted(stages.items())]
        return [*found, _cost("all", [t for tasks in stages.values() for t in tasks])] if found else []

    @property
    def verdicts(self) -> dict[str, int]:
        """How many exposures x channels passed, warned, failed or did not get that far."""
        counts = Counter(row.badge if row.badge in VERDICTS else "open" for row in self.rows)
        return {name: counts.get(name, 0) for name in (*VERDICTS, "open")}

    @property
    def states(self) -> dict[str, int]:
        """How many tasks are in each state."""
        return dict(sorted(Counter(task.state for task in self.tasks).items()))

    @property
    def stages(self) -> list[str]:
        """The stages that ran per exposure, in order."""
        return sorted({task.stage for row in self.rows for task in row.tasks})

    @property
    def calibration_stages(self) -> list[str]:
        """The stages that ran per channel, in order."""
        return sorted({task.stage for row in self.calibrations for task in row.tasks})


def gather(
    layout: Layout,
    folder: Path,
    records: list[Record],
    unread: list[str],
    pages: Mapping[str, Page],
    facts: Mapping[tuple, Mapping[str, Any]],
    seen: Mapping[tuple, Observed],
    program: str = "",
) -> Night:
    """Put the records, the night table and the pages of a night together.

    Parameters
    ----------
    layout : Layout
        The paths of the night.
    folder : Path
        Where the page will lie.
    records, unread : list
        From `records.read_records`; for a programme only what is its own, and the calibrations.
    pages : mapping
        Page of each task that has one, by the task's id.
    facts : mapping
        From `observed`.
    seen : mapping
        What the products of each exposure and channel say.
    program : str
        The programme whose report it is; empty for the whole night.
    """
    rows: dict[tuple, Row] = {}
    calibrations: dict[tuple, Row] = {}
    targets: dict[tuple, Row] = {}
    for record in records:
        if record.target:
            key = (record.program, record.target)
            targets.setdefault(key, Row(key, [], _target_facts(record))).tasks.append(record)
        elif record.obsid is not None:
            key = (record.obsid, record.exp or 1, record.channel)
            rows.setdefault(key, Row(key, [], facts.get(key, {}))).tasks.append(record)
        elif record.channel:
            calibrations.setdefault((record.channel,), Row((record.channel,), [])).tasks.append(record)
    for key, row in rows.items():
        row.facts = _row_facts(row, seen.get(key, Observed()))
        row.products = _products(layout, folder, row.tasks)
        row.figures = _figures(row.tasks, pages, SHOWN_FIGURES)
        row.preview = _preview(row, seen.get(key, Observed()))
    for row in targets.values():
        row.products = _products(layout, folder, row.tasks)
        row.figures = _figures(row.tasks, pages, dict.fromkeys((t.stage for t in row.tasks), SHOWN_TARGET_FIGURES))
    for row in calibrations.values():
        row.products = _products(layout, folder, row.tasks)
        every = dict.fromkeys((task.stage for task in row.tasks), SHOWN_CALIBRATION_FIGURES)
        row.figures = _figures(row.tasks, pages, every)
    # A programme's own table lies beside its products; the files of the night name all programmes.
    own = [layout.program_dir(program) / f"night_{layout.night}.ecsv"]
    files = own if program else [layout.run_file, layout.night_table, layout.frames_file]
    links = [Link(relative(path, folder), path.name) for path in files if path.is_file()]
    return Night(
        layout,
        program,
        sorted(rows.values(), key=lambda row: (row.key[0], row.key[1], channel_order(row.key[2]))),
        sorted(targets.values(), key=lambda row: row.key),
        sorted(calibrations.values(), key=lambda row: channel_order(row.key[0])),
        records,
        _troubles(records, pages, rows),
        _decisions(records),
        unread,
        pages,
        links,
        calchoice.read(layout),
    )


def observed(layout: Layout) -> dict[tuple, dict[str, Any]]:
    """What the inventory and the night table say about each exposure x channel; the night table has the last word."""
    found: dict[tuple, dict[str, Any]] = {}
    for path in (layout.frames_file, layout.night_table):
        for line in _read_table(path):
            keys = [line.get("obsid"), line.get("exp"), line.get("channel")]
            try:
                obsid, exp = int(keys[0]), int(keys[1])
            except (TypeError, ValueError):
                continue
            names = [str(keys[2])] if keys[2] else ["uv", "orange", "red", "farred"]
            for name in names:
                found.setdefault((obsid, exp, name), {}).update(line)
    return found


def _read_table(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        table = Table.read(path, format="ascii.ecsv")
    except (OSError, ValueError, ascii_tables.InconsistentTableError):
        return []
    columns = {plain(name): name for name in table.colnames}
    chosen = {
        fact: next((columns[plain(name)] for name in names if plain(name) in columns), None)
        for fact, names in _NAMES.items()
    }
    return [
        {fact: _plain_value(line[name]) for fact, name in chosen.items() if name is not None and line[name] is not None}
        for line in table
    ]


def _plain_value(value: Any) -> Any:
    """A cell of a table as a Python value; None where it is masked."""
    if getattr(value, "mask", False) is not False and bool(value.mask):
        return None
    return value.item() if hasattr(value, "item") else value


def _row_facts(row: Row, seen: Observed) -> dict[str, Any]:
    facts = {name: value for name, value in row.facts.items() if value not in (None, "")}
    for name in ("sn", "fwhm", "transparency"):
        metric = next(filter(None, (task.metric(_NAMES[name]) for task in row.tasks)), None)
        if name not in facts and metric is not None:
            facts[name] = metric.value
    for name, card in _CARDS.items():
        facts.setdefault(name, seen.value(card))
    facts.setdefault("object", seen.header.get("OBJECT", ""))
    facts["shift"] = seen.shift
    facts["airmass"] = seen.value("AIRMASS")
    facts["sky_mag"] = spectra.sky_magnitude(_real(facts.get("sky")), row.key[2])
    programs = {task.program for task in row.tasks if task.program}
    facts.setdefault("program", ", ".join(sorted(programs)))
    facts["blank"] = _is_blank(str(facts.get("object", "")), row.key[2])
    for name in _TEXTS:
        facts[name] = clean(facts.get(name, ""), LONGEST_NAME)
    return {name: value if name in (*_TEXTS, "blank") else _real(value) for name, value in facts.items()}


def _real(value: Any) -> float | None:
    """A number; None for what is none, or was not measured."""
    try:
        real = float(value)
    except (TypeError, ValueError):
        return None
    return real if math.isfinite(real) else None


def _preview(row: Row, seen: Observed) -> Preview | None:
    if seen.field is None and seen.spectrum is None:
        return None
    where = f"{row.facts['object'] or 'unnamed'} {row.key[2]}"
    found = (
        f"source at {seen.field.source[0]:.1f}, {seen.field.source[1]:.1f} arcsec"
        if seen.field and seen.field.source
        else "no source"
    )
    says = f"Collapsed image of {where}: {found}"
    spark = ""
    if seen.spectrum is not None and seen.spectrum.measured.any():
        spark = drawing.sparkline(
            seen.spectrum, f"Spectrum of {where}: median S/N {number(seen.spectrum.snr)} per sample"
        )
    return Preview(drawing.image_uri(seen.field) if seen.field is not None else "", says, spark)


def _cost(stage: str, tasks: list[Record]) -> Cost:
    memory = [task.megabytes for task in tasks if task.megabytes]
    walls = [task.wall or 0.0 for task in tasks]
    return Cost(
        stage, len(tasks), sum(walls), sum(task.cpu or 0.0 for task in tasks), max(walls), max(memory, default=None)
    )


def _target_facts(record: Record) -> dict[str, Any]:
    """What the row of a target shows: which exposures and channels were combined, and how well they are measured."""
    given = record.parameters.get("exposures")
    names = [str(name) for name in given] if isinstance(given, list) else []
    channels = sorted({name.split(":")[-1].partition("/")[0] for name in names}, key=channel_order)
    snr = record.metric(("snr",))
    return {
        "object": clean(record.target, LONGEST_NAME),
        "program": record.program,
        "channels": ", ".join(channels),
        "combined": f"{len(names)} of {record.parameters.get('expected', len(names))}" if names else "",
        "sn": _real(snr.value) if snr else None,
    }


def _is_blank(object_name: str, name: str) -> bool:
    """Whether OBJECT puts the target on the other IFU, so that this channel saw blank sky."""
    try:
        slot = channel(name).ifuslot
    except UnknownChannelError:
        return False
    slots = [part for part in object_name.split("_") if part in ("056", "066")]
    return bool(slots) and slot not in slots


def _products(layout: Layout, folder: Path, tasks: list[Record]) -> list[Link]:
    return [Link(relative(path, folder), path.name) for path in product_files(layout, tasks)]


def _figures(tasks: list[Record], pages: Mapping[str, Page], shown: Mapping[str, int]) -> list[dict[str, str]]:
    found = []
    for stage, count in shown.items():
        for task in tasks:
            page = pages.get(task.id)
            if task.stage != stage or page is None:
                continue
            figures = [figure for figure in page.figures if figure.tagged] or list(page.figures)
            found += [
                {
                    "src": f"{page.folder}/{figure.thumbnail}",
                    "href": f"{page.href}#fig-{figure.number}" if page.written else f"{page.folder}/{figure.file}",
                    "alt": f"{task.title}: {figure.caption}",
                    "stage": stage,
                }
                for figure in figures[:count]
            ]
    return found


def _troubles(records: list[Record], pages: Mapping[str, Page], rows: Mapping[tuple, Row]) -> list[Trouble]:
    """Errors first, then what they blocked, then measures out of limits."""
    troubles = []
    for record in records:
        row = rows.get((record.obsid, record.exp or 1, record.channel))
        where = f"{record.title} {row.facts.get('object', '') if row else ''}".strip()
        page = pages[record.id].href if record.id in pages and pages[record.id].written else ""
        if record.state in ("failed", "blocked", "aborted"):
            said = record.error.get("message") or record.error.get("reason") or ""
            kind = record.error.get("type", "") if record.state == "failed" else ""
            place = record.error.get("where", "") if record.state == "failed" else ""
            text = ": ".join(part for part in (kind, said) if part) or "no reason was recorded"
            troubles.append(Trouble(record.state, where, f"{text} ({place})" if place else text, page))
            continue
        for metric in record.metrics:
            if metric.verdict in ("warn", "fail"):
                limits = f" (limit: {metric.limits})" if metric.limits else ""
                reason = f" {metric.reason[0].upper()}{metric.reason[1:].rstrip('.')}." if metric.reason else ""
                troubles.append(Trouble(metric.verdict, where, f"{metric.label} {metric.shown}{limits}.{reason}", page))
    order = ("failed", "blocked", "aborted", "fail", "warn")
    return sorted(troubles, key=lambda trouble: order.index(trouble.badge))


def _decisions(records: list[Record]) -> list[dict[str, Any]]:
    """Each decision once, with the tasks that took it; fallbacks before choices."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        for decision in record.decisions:
            key = (decision["severity"], decision["code"], decision["text"])
            where = found.setdefault(key, [])
            if record.title not in where:
                where.append(record.title)
    return [
        {"severity": severity, "code": code, "text": text, "where": where}
        for (severity, code, text), where in sorted(found.items(), key=lambda item: (item[0][0] != "warn", item[0]))
    ]
