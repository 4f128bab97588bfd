"""The page of a target: its spectrum over all channels, where it was found, what was measured, how to do it again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..products.layout import Layout
from ..products.write import write_bytes
from . import assets, drawing, interactive, rerun, spectra
from .figures import Figure
from .links import Link, inside, product_files, relative
from .pages import Page, environment, templates_digest
from .privacy import LONGEST_NAME, Hidden, clean, read_run
from .records import Record, channel_order, fixed, number, worst
from .spectra import Field, Observed, Spectrum

_EXPOSURE = re.compile(r"(?:(\d{8}):)?([a-z]+)/(\d+)_exp(\d+)")
FIGURES = {"09_combine": 3, "07_flux": 2, "08_standard": 1}
MOST_LINES = 16  # spectra of single exposures in the plot


@dataclass(frozen=True)
class Place:
    """A report that shows the target: its folder, the pages of its notebooks, and where its night page is."""

    report: Path
    pages: Mapping[str, Page]
    hidden: Hidden
    program: str = ""


@dataclass(frozen=True)
class Target:
    """A target of a night and all that was done for it."""

    layout: Layout
    record: Record
    tasks: tuple[Record, ...]
    places: tuple[Place, ...] = field(default_factory=tuple)

    @property
    def exposures(self) -> list[tuple[int, int, str]]:
        """Observation, exposure and channel of what belongs to it, from the blue to the red."""
        keys = {(task.obsid, task.exp or 1, task.channel) for task in self.tasks if task.obsid is not None}
        return sorted(keys, key=lambda key: (channel_order(key[2]), key[0], key[1]))

    @property
    def href(self) -> str:
        """Its page, relative to a report."""
        return f"targets/{self.record.folder}.html"

    @property
    def badge(self) -> str:
        """The worst of everything that was done for it."""
        return worst(task.badge for task in (self.record, *self.tasks))


@dataclass(frozen=True)
class Content:
    """What the products of a target say, read once for all its pages."""

    combined: Spectrum | None
    header: Mapping[str, Any]
    parts: tuple[tuple[tuple[int, int, str], Observed], ...]
    command: str = ""

    @property
    def lines(self) -> list[Spectrum]:
        """The spectra to draw, the most important first."""
        singles = [
            seen.spectrum for _, seen in self.parts if seen.spectrum is not None and seen.spectrum.measured.any()
        ]
        return [line for line in (self.combined, *singles) if line is not None][: MOST_LINES + 1]

    @property
    def fields(self) -> list[Field]:
        """The collapsed images."""
        return [seen.field for _, seen in self.parts if seen.field is not None]


def of_night(layout: Layout, records: list[Record]) -> list[Target]:
    """The targets of a night that were combined, or should have been."""
    by_exposure: dict[tuple, list[Record]] = {}
    for record in records:
        if record.obsid is not None:
            by_exposure.setdefault((record.program, record.obsid, record.exp or 1, record.channel), []).append(record)
    found = []
    for record in records:
        if not record.target:
            continue
        given = record.parameters.get("exposures")
        tasks: list[Record] = []
        for name in given if isinstance(given, list) else ():
            match = _EXPOSURE.fullmatch(str(name))
            if match and match[1] in (None, layout.night):
                # tasks of the earliest stages do not know the programme
                for program in (record.program, ""):
                    tasks += by_exposure.get((program, int(match[3]), int(match[4]), match[2]), [])
        found.append(Target(layout, record, tuple(tasks)))
    return found


def read(target: Target) -> Content:
    """What the products of a target say."""
    layout = target.layout
    combined, header = None, {}
    for path in product_files(layout, [target.record]):
        if path.name.endswith("combined_spectrum.fits"):
            combined, header = spectra.read_spectrum(path, "combined"), spectra.read_header(path)
    parts = []
    for key in target.exposures:
        own = [t for t in target.tasks if (t.obsid, t.exp or 1, t.channel) == key]
        parts.append((key, spectra.observed(product_files(layout, own))))
    asked = read_run(layout)
    objects = {str(seen.header.get("OBJECT", "")) for _, seen in parts} - {""}
    name = target.record.target
    selects = bool(objects) and all(name.lower() in one.lower() for one in objects)
    obsid = target.exposures[0][0] if target.exposures else None
    command = rerun.command(asked, layout.night, name=name if selects or obsid is None else "", obsid=obsid)
    return Content(
        combined, header, tuple(parts), command + (f" --tag {layout.tag}" if layout.tag and "tag" not in asked else "")
    )


def build(target: Target) -> list[str]:
    """Write the pages of a target, one in each place that shows it; nothing where all of them are up to date."""
    key = _key(target)
    if all(_ends_with(place.report / target.href, key) for place in target.places):
        return []
    content = read(target)
    pictures = _pictures(target, content)
    plot = interactive.spectra(content.lines) if content.lines else ""
    made = []
    for place in target.places:
        for name, data in pictures.items():
            write_bytes(place.report / "targets" / name, data, durable=False)
        text = render(target, content, place, plot=plot, pictures=list(pictures))
        write_bytes(place.report / target.href, place.hidden(text).encode() + key, durable=False)
        made.append(target.href)
    return made


def _key(target: Target) -> bytes:
    """What the pages of a target are made of, as a comment at their end."""
    states = []
    for path in (target.layout.run_file, *product_files(target.layout, [target.record, *target.tasks])):
        with contextlib.suppress(OSError):
            state = path.stat()
            states.append((path.name, state.st_size, state.st_mtime_ns))
    shown = [(sorted(place.pages.items()), place.hidden) for place in target.places]
    everything = (target.record, target.tasks, states, shown, templates_digest())
    return f"<!-- {hashlib.sha256(repr(everything).encode()).hexdigest()} -->\n".encode()


def _ends_with(path: Path, key: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            stream.seek(-len(key), os.SEEK_END)
            return stream.read() == key
    except OSError:
        return False


def single_file(target: Target, place: Place) -> str:
    """The page of a target as one file that needs no other."""
    content = read(target)
    pictures = _pictures(target, content)
    for name, data in pictures.items():
        write_bytes(place.report / "targets" / name, data, durable=False)
    plot = interactive.spectra(content.lines) if content.lines else ""
    text = place.hidden(render(target, content, place, plot=plot, pictures=list(pictures), alone=True))
    return assets.one_file(text, (place.report / target.href).parent)


def render(
    target: Target, content: Content, place: Place, *, plot: str, pictures: list[str], alone: bool = False
) -> str:
    """The page of a target as HTML; with ``alone`` it is to be one file."""
    folder = (place.report / target.href).parent
    notebooks = {task.id: _notebook(target.layout, task, place, folder) for task in (target.record, *target.tasks)}
    rows = [
        {
            "key": key,
            "tasks": [task for task in target.tasks if (task.obsid, task.exp or 1, task.channel) == key],
            "seen": seen,
            "products": _links(
                target.layout, [t for t in target.tasks if (t.obsid, t.exp or 1, t.channel) == key], folder
            ),
        }
        for key, seen in content.parts
    ]
    decisions = {
        (d["severity"], d["code"], d["text"]) for task in (target.record, *target.tasks) for d in task.decisions
    }
    return (
        environment()
        .get_template("target.html.j2")
        .render(
            target=target,
            name=clean(target.record.target, LONGEST_NAME),
            record=target.record,
            facts=_facts(target, content),
            finding=_finding(content),
            found=_found(content),
            spectrum_picture=next((name for name in pictures if name.endswith("-spectrum.png")), ""),
            field_picture=next((name for name in pictures if name.endswith("-field.png")), ""),
            plot=plot,
            rows=rows,
            notebooks=notebooks,
            products=_links(target.layout, [target.record], folder),
            figures=_figures(target, place, folder),
            decisions=sorted(decisions, key=lambda d: (d[0] != "warn", d)),
            warned=[(t, m) for t in (target.record, *target.tasks) for m in t.metrics if m.verdict in ("warn", "fail")],
            command=content.command,
            place=rerun.PLACE,
            citation=rerun.citation(),
            bibtex=rerun.bibtex(),
            night_page="" if alone else relative(place.report / "index.html", folder),
            program_report=place.program,
            bokeh="inline" if alone else "file",
            bokeh_file=relative(place.report / "assets" / interactive.script_name(), folder),
        )
    )


def _pictures(target: Target, content: Content) -> dict[str, bytes]:
    made = {}
    if content.lines:
        drawn = content.lines[:1] if content.combined is not None else content.lines
        made[f"{target.record.folder}-spectrum.png"] = drawing.spectrum_figure(
            drawn, clean(target.record.target, LONGEST_NAME)
        )
    if content.fields:
        made[f"{target.record.folder}-field.png"] = drawing.fields_figure(content.fields)
    return made


def _facts(target: Target, content: Content) -> list[tuple[str, str]]:
    """What an astronomer asks first: where, when, how long, in which conditions."""
    head = content.header or next((seen.header for _, seen in content.parts if seen.header), {})
    text = {
        key: clean(head.get(key, ""), LONGEST_NAME)
        for key in ("QRA", "QDEC", "OBJECT", "SPECSYS", "AIRORVAC", "PNBVERS")
    }
    times: dict[str, float] = {}
    for key, seen in content.parts:
        times[key[2]] = times.get(key[2], 0.0) + (seen.value("EXPTIME") or 0.0)
    where = f"{text['QRA']} {text['QDEC']}" if text["QRA"] else ""
    frame = {"TOPOCENT": "not corrected for the Earth's motion", "BARYCENT": "in the frame of the barycentre"}
    waves = ", ".join(filter(None, (text["AIRORVAC"] and f"in {text['AIRORVAC']}", frame.get(text["SPECSYS"], ""))))
    facts = [
        ("programme", clean(target.record.program, LONGEST_NAME)),
        ("OBJECT", text["OBJECT"]),
        ("position (queue)", where),
        ("exposure time", "; ".join(f"{name} {number(seconds)} s" for name, seconds in times.items() if seconds)),
        ("seeing", _range([seen.value("SEEING") for _, seen in content.parts], 1, "arcsec")),
        ("transparency", _range([seen.value("THROUGHP") for _, seen in content.parts], 2, "")),
        ("airmass", _range([seen.value("AIRMASS") for _, seen in content.parts], 2, "")),
        ("wavelengths", waves),
        ("S/N per sample", number(content.combined.snr) if content.combined is not None else ""),
        ("reduced with", f"panacea_nb {text['PNBVERS']}" if text["PNBVERS"] else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _range(values: list[float | None], digits: int, unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = fixed(min(known), digits), fixed(max(known), digits)
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()


def _finding(content: Content) -> str:
    """What the spectrum shows, in words."""
    if not content.lines:
        return "No spectrum: no source was found, or nothing was extracted."
    main = content.lines[0]
    good = main.measured
    wave = main.wave[good]
    level = float(np.median(main.flux[good]))
    missing = _gaps(wave)
    holes = f"; nothing was measured at {', '.join(f'{a:.0f} to {b:.0f}' for a, b in missing)} Å" if missing else ""
    return (
        f"Spectrum from {wave[0]:.0f} to {wave[-1]:.0f} Å: median flux {level:.2g} erg/s/cm²/Å, median S/N "
        f"{number(round(main.snr, 1))} per sample{holes}."
    )


def _gaps(wave: np.ndarray) -> list[tuple[float, float]]:
    step = np.diff(wave)
    wide = np.flatnonzero(step > max(20.0, 10 * float(np.median(step)))) if step.size else []
    return [(float(wave[i]), float(wave[i + 1])) for i in wide]


def _found(content: Content) -> str:
    """Where the source was found, in words."""
    places = [
        f"{key[2]} observation {key[0]} exposure {key[1]} at {x:.1f}, {y:.1f} arcsec, FWHM {width:.1f}"
        for key, seen in content.parts
        if seen.field is not None and seen.field.source is not None
        for x, y, width in (seen.field.source,)
    ]
    none = sum(seen.field is not None and seen.field.source is None for _, seen in content.parts)
    said = f"The source, in a circle with a radius of its FWHM: {'; '.join(places)}." if places else ""
    return f"{said}{f' No source in {none} of {len(content.parts)} images.' if none else ''}".strip()


def _notebook(layout: Layout, task: Record, place: Place, folder: Path) -> str:
    page = place.pages.get(task.id)
    if page is not None and page.written:
        return relative(place.report / page.href, folder)
    path = inside(layout, task.notebook)
    return relative(path, folder) if path is not None else ""


def _links(layout: Layout, tasks: list[Record], folder: Path) -> list[Link]:
    return [Link(relative(path, folder), path.name) for path in product_files(layout, tasks)]


def _figures(target: Target, place: Place, folder: Path) -> list[dict[str, str]]:
    """Figures of the notebooks that judge the target itself."""
    found = []
    for stage, most in FIGURES.items():
        for task in (target.record, *target.tasks):
            page = place.pages.get(task.id)
            if task.stage != stage or page is None:
                continue
            chosen: list[Figure] = ([figure for figure in page.figures if figure.tagged] or list(page.figures))[:most]
            base = (place.report / page.href).parent
            found += [
                {
                    "src": relative(base / figure.thumbnail, folder),
                    "full": relative(base / figure.file, folder),
                    "href": f"{relative(place.report / page.href, folder)}#fig-{figure.number}"
                    if page.written
                    else relative(base / figure.file, folder),
                    "alt": f"{task.title}: {figure.caption}",
                    "title": task.title,
                }
                for figure in chosen
            ]
    return found
