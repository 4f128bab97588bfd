"""The report of a night as a folder of files."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..products.layout import Layout
from ..products.write import write_bytes
from .links import inside, product_files, relative
from .night import gather, observed
from .pages import Converter, Page, environment
from .records import Record, read_records

# Shorter paths (``/``, ``/d``) would take harmless texts with them.
_SHORTEST_HIDDEN_PATH = 5


def build(layout: Layout, *, html: bool = True) -> Path:
    """Build the report of a night: ``index.html`` and a page for every executed notebook.

    The pages are static, hold relative links only and ask nothing from the network.  A night that is half done, or
    partly failed, has a report of what is there.  Notebooks unchanged since the last build are not converted again.

    Parameters
    ----------
    layout : Layout
        The paths of the night.
    html : bool
        False leaves out the pages of the notebooks; the night page then links to the notebooks themselves.

    Returns
    -------
    Path
        The night page.
    """
    records, unread = read_records(layout.status_dir)
    converter = Converter(layout.report_dir, _hidden_paths(layout, records), html=html)
    pages: dict[str, Page] = {}
    facts = observed(layout)
    for record in records:
        notebook = inside(layout, record.notebook)
        if notebook is None:
            continue
        target = str(facts.get((record.obsid, record.exp, record.channel), {}).get("object") or record.target)
        page = converter.convert(record, notebook, product_files(layout, [record]), target)
        if page is not None:
            pages[record.id] = page
    converter.finish()
    night = gather(layout, records, unread, pages, facts)
    notebooks = {record.id: _notebook_link(layout, record) for record in records}
    if html:
        notebooks.update({name: page.href for name, page in pages.items()})
    text = environment().get_template("night.html.j2").render(night=night, notebooks=notebooks)
    return write_bytes(layout.report_dir / "index.html", converter.hide(text).encode("utf-8"))


def _notebook_link(layout: Layout, record: Record) -> str:
    path = inside(layout, record.notebook)
    return relative(path, layout.report_dir) if path is not None else ""


def _hidden_paths(layout: Layout, records: list[Record]) -> dict[str, str]:
    """Absolute paths that pages must not show, longest first, and the words in their place."""
    hidden = {str(Path.home()): "~"}
    try:
        asked = yaml.safe_load(layout.run_file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        asked = None
    given = [record.parameters for record in records] + ([asked] if isinstance(asked, dict) else [])
    for parameters in given:
        if Path(str(parameters.get("baseraw") or "")).is_absolute():
            hidden[str(parameters["baseraw"]).rstrip("/")] = "BASERAW"
    hidden[str(layout.output.absolute())] = hidden[str(layout.output.resolve())] = "OUTPUT"
    chosen = {path: shown for path, shown in hidden.items() if len(path) >= _SHORTEST_HIDDEN_PATH}
    return dict(sorted(chosen.items(), key=lambda item: -len(item[0])))
