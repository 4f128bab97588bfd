"""Pages of the executed notebooks: verdict and figures first, the code folded, no script, nothing from the network."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import bleach
import jinja2
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from markupsafe import Markup
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML

from .. import __version__
from ..products.write import write_bytes
from . import assets, interactive, parallel
from .figures import Figure, extract
from .links import Link, relative
from .privacy import LONGEST_NAME, Hidden, clean
from .records import BADGES, Record, fixed, number

TEMPLATES = Path(__file__).with_name("templates")
# What HTML made by a notebook may hold; the rest (scripts, frames, forms, outside images) is taken out.
_TAGS = frozenset(
    """a abbr b blockquote br caption code col colgroup dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i kbd li ol p pre s
    small span strong sub sup table tbody td tfoot th thead tr u ul""".split()
)
_SPANS = ["colspan", "rowspan"]
_ATTRIBUTES = {"*": ["class", "style", "title"], "a": ["href"], "td": _SPANS, "th": _SPANS}
_STYLES = ("font-weight", "text-align", "white-space")  # colours belong to the page, which has a dark form too
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Page:
    """The page of one notebook: its path relative to the report, the figures beside it, and whether it was written."""

    href: str
    figures: tuple[Figure, ...]
    written: bool = True

    @property
    def folder(self) -> str:
        """Where page and figures lie, relative to the report."""
        return self.href.rpartition("/")[0]


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates of the site; everything put into them is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, fixed=fixed, clean=clean, name=lambda text: clean(text, LONGEST_NAME))
    made.globals.update(
        badges=BADGES, version=__version__, policy=assets.policy, script=assets.script, bokeh_script=_bokeh_script
    )
    return made


def _bokeh_script() -> Markup:
    return Markup(interactive.script())


@lru_cache(maxsize=1)
def templates_digest() -> str:
    """Digest of the templates, this room and the package's version: when it changes, every page is written again."""
    total = hashlib.sha256(f"{__version__} {interactive.script_name()}".encode())
    for path in (*sorted(TEMPLATES.rglob("*")), *sorted(Path(__file__).parent.glob("*.py"))):
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


class _Exporter(HTMLExporter):
    """nbconvert's exporter without its second pass over the page, which would look for images that are elsewhere by now."""

    def from_notebook_node(self, nb: Any, resources: Any = None, **options: Any) -> tuple[str, dict]:
        self.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=self))
        return TemplateExporter.from_notebook_node(self, nb, resources, **options)


@lru_cache(maxsize=1)
def _exporter() -> HTMLExporter:
    made = _Exporter(
        template_name="panacea",
        extra_template_basedirs=[str(TEMPLATES / "nbconvert")],
        exclude_anchor_links=True,
    )
    made.register_filter("safe_html", safe_html)
    return made


def safe_html(text: str) -> str:
    """HTML that a notebook made, without what runs, asks the network or looks like another part of the page."""
    return bleach.clean(
        text,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        protocols={"http", "https"},
        strip=True,
        css_sanitizer=CSSSanitizer(allowed_css_properties=_STYLES),
    )


@dataclass(frozen=True)
class Order:
    """A page that is asked for: whose, where, and what stands on it beside the notebook."""

    record: Record
    notebook: Path
    report: Path
    href: str
    facts: dict[str, Any]
    hidden: Hidden
    html: bool
    key: str

    @property
    def folder(self) -> Path:
        """Where the page and its figures go."""
        return (self.report / self.href).parent


class Converter:
    """Turns executed notebooks into pages of one report, leaving alone what has not changed.

    `ask` for every page, `convert` the orders of all reports together (a notebook that several reports show is read once),
    then take the pages from `pages` and `finish`.

    Parameters
    ----------
    report : Path
        Folder of the report.
    hidden : Hidden
        Texts that no page may show (absolute paths) and what stands in their place.
    html : bool
        False leaves out the pages and takes only the figures.
    """

    def __init__(self, report: Path, hidden: Hidden, *, html: bool = True) -> None:
        self.report = report.resolve()
        self.hidden = hidden
        self.html = html
        self.pages: dict[str, Page] = {}
        self.orders: list[Order] = []
        self._known = self._read_manifest()
        self._made: dict[str, dict[str, Any]] = {}

    @property
    def manifest(self) -> Path:
        """What was built from what; it lets the next build skip what is unchanged."""
        return self.report / "pages.json"

    def ask(self, record: Record, notebook: Path, products: Sequence[Path] = (), target: str = "") -> None:
        """Ask for the page of one task's notebook; there will be none if it cannot be read.

        Parameters
        ----------
        record : Record
            The task; its verdict and measures head the page.
        notebook : Path
            The executed notebook.
        products : sequence of Path
            Files that the task left and the page links.
        target : str
            What was observed.
        """
        try:
            source = notebook.read_bytes()
        except OSError:
            return
        href = f"notebooks/{record.folder}/{record.stage}.html"
        folder = (self.report / href).parent
        facts = {
            "target": target,
            "night": relative(self.report / "index.html", folder),
            "notebook": relative(notebook, folder),
            "products": [Link(relative(path, folder), path.name) for path in products],
        }
        everything = (record, facts, self.hidden, self.html, templates_digest())
        key = hashlib.sha256(source + repr(everything).encode()).hexdigest()
        order = Order(record, notebook, self.report, href, facts, self.hidden, self.html, key)
        known = self._known.get(href)
        if known and known["key"] == key and self._complete(href, known):
            self.take(order, tuple(Figure(**fields) for fields in known["figures"]))
        else:
            self.orders.append(order)

    def take(self, order: Order, figures: tuple[Figure, ...]) -> None:
        """Note that the page of an order is there."""
        self._made[order.href] = {"key": order.key, "figures": [figure.to_dict() for figure in figures]}
        self.pages[order.record.id] = Page(order.href, figures, order.html)

    def finish(self) -> None:
        """Remove pages of tasks that are no longer there, and remember what was built."""
        keep = {self.report / href for href in self._made} if self.html else set()
        for href, made in self._made.items():
            folder = (self.report / href).parent
            keep.update(folder / figure[kind] for figure in made["figures"] for kind in ("file", "thumbnail"))
        root = self.report / "notebooks"
        for path in sorted(root.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in keep and path.suffix in (".html", ".png"):
                path.unlink()
        write_bytes(self.manifest, self.hidden(json.dumps(self._made, indent=1)).encode())

    def _complete(self, href: str, known: dict) -> bool:
        folder = (self.report / href).parent
        files = [folder / figure[kind] for figure in known["figures"] for kind in ("file", "thumbnail")]
        if self.html:
            files.append(self.report / href)
        return all(path.is_file() for path in files)

    def _read_manifest(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            return {href: {"key": made["key"], "figures": list(made["figures"])} for href, made in content.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def convert(converters: Iterable[Converter], crew: parallel.Crew) -> None:
    """Make the pages that were asked for, of all reports together; each notebook is read and converted once."""
    wanted: dict[Path, list[tuple[Converter, Order]]] = {}
    for converter in converters:
        for order in converter.orders:
            wanted.setdefault(order.notebook, []).append((converter, order))
        converter.orders = []
    jobs = [tuple(order for _, order in pairs) for pairs in wanted.values()]
    for pairs, figures in zip(wanted.values(), crew.each(make, jobs), strict=True):
        if figures is not None:
            for converter, order in pairs:
                converter.take(order, figures)


def make(orders: Sequence[Order]) -> tuple[Figure, ...] | None:
    """The pages of one notebook, wherever they are wanted: its figures; None if it is damaged."""
    first = orders[0]
    try:
        content = nbformat.reads(first.notebook.read_bytes().decode("utf-8"), as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return None
    figures, files = extract(content, first.record.stage)
    body = _body(content) if any(order.html for order in orders) else ""
    for order in orders:
        for name, data in files.items():
            write_bytes(order.folder / name, data, durable=False)
        if order.html:
            facts = {"record": order.record, "figures": figures, **order.facts}
            text = environment().get_template("notebook.html.j2").render(body=body, **facts)
            write_bytes(order.report / order.href, order.hidden(text).encode("utf-8"), durable=False)
    return tuple(figures)


def _body(content: Any) -> str:
    for cell in content.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                output["plain"] = _ANSI.sub("", "\n".join(output.traceback))
    return _exporter().from_notebook_node(content)[0]
