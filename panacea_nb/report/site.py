"""The reports of a night as folders of files: one of the night for its operators, one of each programme for its own people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..products.layout import Layout, safe_name
from ..products.write import write_bytes
from . import assets, interactive, parallel, spectra, targets
from .links import inside, product_files, relative
from .night import Night, gather, observed
from .pages import Converter, Page, convert, environment
from .privacy import LONGEST_NAME, Hidden, clean, hidden_paths
from .records import Record, read_records
from .targets import Place, Target

SUMMARY = "summary.json"
# Stages whose records and notebooks name no target: a programme may see that they went well.
_SHARED = ("01_bias", "02_trace", "03_wavelength", "04_flat")


class NoSuchTargetError(RequestError):
    """No target of the night has the name that was asked for."""


@dataclass
class Plan:
    """What there is of a night, and where it will be shown."""

    layout: Layout
    records: list[Record]
    unread: list[str]
    facts: dict[tuple, dict[str, Any]]
    hidden: Hidden
    night: Converter
    programs: dict[str, Converter]

    def own(self, program: str) -> list[Record]:
        """What is a programme's own, and the calibrations that served it."""
        return [r for r in self.records if r.program == program or (r.stage in _SHARED and not r.program)]


def build(layout: Layout, *, html: bool = True, workers: int | None = None) -> Path:
    """Build the reports of a night: ``index.html``, a page for every target and every executed notebook.

    The pages are static, hold relative links only and ask nothing from the network.  A night that is half done, or
    partly failed, has a report of what is there.  Notebooks unchanged since the last build are not converted again.
    What belongs to one programme is shown a second time beside its products, with nothing of another programme in it.

    Parameters
    ----------
    layout : Layout
        The paths of the night.
    html : bool
        False leaves out the pages of the notebooks; the night page then links to the notebooks themselves.
    workers : int, optional
        Processes at the same time; as many as there are cores by default.

    Returns
    -------
    Path
        The night page.
    """
    crew = parallel.Crew(workers)
    plan = prepare(layout, html=html, crew=crew)
    wanted = _targets(plan)
    for _ in crew.each(targets.build, wanted):
        pass
    seen = _products(layout, plan.records)
    places = [(plan.night, ""), *((converter, program) for program, converter in plan.programs.items())]
    for converter, program in places:
        folder = converter.report
        write_bytes(folder / "assets" / interactive.script_name(), interactive.script().encode(), durable=False)
        pages = [target for target in wanted if not program or target.record.program == program]
        _sweep(folder, pages)
        night = _night(plan, converter, program, seen, pages)
        text = night_page(plan, night, converter)
        write_bytes(folder / "index.html", plan.hidden(text).encode("utf-8"))
        if program:
            _summarise(night, folder)
            _index(layout, program)
    return layout.report_dir / "index.html"


def prepare(layout: Layout, *, html: bool = True, crew: parallel.Crew | None = None) -> Plan:
    """Read the records of a night and bring the pages of its notebooks up to date."""
    records, unread = read_records(layout.status_dir)
    hidden = hidden_paths(layout, (record.parameters for record in records))
    names = sorted(
        {record.program for record in records if record.program and safe_name(record.program) == record.program}
    )
    programs = {name: Converter(layout.program_report_dir(name), hidden, html=html) for name in names}
    plan = Plan(
        layout, records, unread, observed(layout), hidden, Converter(layout.report_dir, hidden, html=html), programs
    )
    for record in records:
        notebook = inside(layout, record.notebook)
        if notebook is None:
            continue
        known = plan.facts.get((record.obsid, record.exp, record.channel), {}).get("object")
        about = (record, notebook, product_files(layout, [record]), clean(known or record.target, LONGEST_NAME))
        plan.night.ask(*about)
        if record.program in programs:
            programs[record.program].ask(*about)
    convert((plan.night, *programs.values()), crew or parallel.Crew(1))
    for converter in (plan.night, *programs.values()):
        converter.finish()
    return plan


def night_page(plan: Plan, night: Night, converter: Converter) -> str:
    """The night page, or a programme's, as HTML."""
    notebooks = {record.id: _notebook_link(plan.layout, record, converter.report) for record in night.tasks}
    if converter.html:
        notebooks.update({name: page.href for name, page in converter.pages.items()})
    return environment().get_template("night.html.j2").render(night=night, notebooks=notebooks)


def single_night(layout: Layout) -> str:
    """The night page as one file: what it shows, without the notebooks behind it."""
    plan = prepare(layout)
    night = _night(plan, plan.night, "", _products(layout, plan.records), [])
    return assets.one_file(plan.hidden(night_page(plan, night, plan.night)), layout.report_dir)


def single_target(layout: Layout, name: str) -> tuple[Target, str]:
    """The page of a target as one file.

    Raises
    ------
    NoSuchTargetError
    """
    plan = prepare(layout)
    target = find_target(targets.of_night(layout, plan.records), name, layout)
    converter = plan.programs.get(target.record.program, plan.night)
    program = target.record.program if target.record.program in plan.programs else ""
    return target, targets.single_file(target, Place(converter.report, converter.pages, plan.hidden, program))


def find_target(known: Iterable[Target], name: str, layout: Layout) -> Target:
    """The one target that is called so: by its whole name, else by a part of it; ``PROGRAM/NAME`` tells two apart.

    Raises
    ------
    NoSuchTargetError
        If there is none, or more than one.
    """
    known = list(known)
    program, _, short = name.rpartition("/")
    asked = safe_name(short).lower()
    mine = [t for t in known if not program or t.record.program.lower() == program.lower()]
    found = [t for t in mine if t.record.target.lower() == asked] or [
        t for t in mine if asked in t.record.target.lower()
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{t.record.program}/{t.record.target}" for t in (found or known)) or "none at all"
    what = "more than one target fits" if found else "no target is called"
    raise NoSuchTargetError(f"{what} {clean(name, LONGEST_NAME)!r} in {layout.night_dir.name}; there are: {names}")


def _targets(plan: Plan) -> list[Target]:
    """The targets of the night with the reports in which each has a page."""
    found = []
    for target in targets.of_night(plan.layout, plan.records):
        places = [Place(plan.night.report, plan.night.pages, plan.hidden)]
        own = plan.programs.get(target.record.program)
        if own is not None:
            places.append(Place(own.report, own.pages, plan.hidden, target.record.program))
        found.append(Target(plan.layout, target.record, target.tasks, tuple(places)))
    return found


def _night(plan: Plan, converter: Converter, program: str, seen: dict, pages: list[Target]) -> Night:
    records = plan.own(program) if program else plan.records
    keys = {(r.obsid, r.exp or 1, r.channel) for r in records if r.obsid is not None}
    facts = {key: value for key, value in plan.facts.items() if key in keys}
    shown: dict[str, Page] = converter.pages
    unread = [] if program else plan.unread
    night = gather(plan.layout, converter.report, records, unread, shown, facts, seen, program)
    hrefs = {(target.record.program, target.record.target): target.href for target in pages}
    by_task = {task.id: target.href for target in pages for task in target.tasks}
    for row in night.targets:
        row.page = hrefs.get(row.key, "")
    for row in night.rows:
        row.page = next((by_task[task.id] for task in row.tasks if task.id in by_task), "")
    return night


def _products(layout: Layout, records: list[Record]) -> dict[tuple, spectra.Observed]:
    """What the products of each exposure and channel say."""
    tasks: dict[tuple, list[Record]] = {}
    for record in records:
        if record.obsid is not None:
            tasks.setdefault((record.obsid, record.exp or 1, record.channel), []).append(record)
    return {key: spectra.observed(product_files(layout, own)) for key, own in tasks.items()}


def _notebook_link(layout: Layout, record: Record, folder: Path) -> str:
    path = inside(layout, record.notebook)
    return relative(path, folder) if path is not None else ""


def _sweep(folder: Path, pages: list[Target]) -> None:
    """Remove pages of targets that are no longer there, and scripts of other versions."""
    stems = {target.record.folder for target in pages}
    for path in (folder / "targets").glob("*"):
        stem = path.name
        for ending in (".html", "-spectrum.png", "-field.png"):
            stem = stem.removesuffix(ending)
        if stem not in stems:
            path.unlink()
    for path in (folder / "assets").glob("bokeh-*.js"):
        if path.name != interactive.script_name():
            path.unlink()


def _summarise(night: Night, folder: Path) -> None:
    """What the programme's list of nights says of this one."""
    content = {
        "night": night.layout.night,
        "verdicts": night.verdicts,
        "targets": [
            {"name": row.facts["object"], "badge": row.badge, "page": row.page, "sn": row.facts["sn"]}
            for row in night.targets
        ],
    }
    write_bytes(folder / SUMMARY, json.dumps(content, indent=1).encode(), durable=False)


def _index(layout: Layout, program: str) -> None:
    """The programme's list of its nights."""
    folder = layout.program_report_dir(program).parent
    nights = []
    for path in sorted(folder.glob(f"*/{SUMMARY}"), reverse=True):
        try:
            nights.append({"folder": path.parent.name, **json.loads(path.read_text(encoding="utf-8"))})
        except (OSError, ValueError, TypeError):
            continue
    text = environment().get_template("program.html.j2").render(program=program, nights=nights, tag=layout.tag)
    write_bytes(folder / "index.html", text.encode("utf-8"))
