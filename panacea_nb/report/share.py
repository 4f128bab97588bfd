"""One page of a report as one file: for mail, for paper."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..products.layout import Layout, safe_name
from ..products.write import write_bytes
from . import pdf as printer
from . import site


def share(layout: Layout, target: str = "", *, pdf: bool = False, file: str | Path = "") -> Path:
    """Write the page of a target, or of the night, as one file that needs no other.

    Parameters
    ----------
    layout : Layout
        The paths of the night.
    target : str
        Name of the target; empty for the night page.
    pdf : bool
        Print it with an installed browser.
    file : str or Path
        Where to write it; by default in the current folder, named after target and night.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    NoSuchTargetError, TooLargeError, BrowserMissingError, PrintingError
    """
    if pdf:
        printer.browser()  # says what is missing before anything is done
    if target:
        found, text = site.single_target(layout, target)
        stem = f"{safe_name(found.record.target)}_{layout.night_dir.name}"
    else:
        text, stem = site.single_night(layout), f"night_{layout.night_dir.name}"
    path = Path(file) if file else Path.cwd() / f"{stem}.{'pdf' if pdf else 'html'}"
    if not pdf:
        return write_bytes(path.absolute(), text.encode("utf-8"))
    with tempfile.TemporaryDirectory(prefix="panacea-page-") as folder:
        page = Path(folder) / f"{stem}.html"
        page.write_text(text, encoding="utf-8")
        return printer.write(page, path)
