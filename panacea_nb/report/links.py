"""Links between the files of a run: always relative, and never to anything outside of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..products.layout import Layout
from .records import Record


@dataclass(frozen=True)
class Link:
    """A link of a page: where to, relative to the page, and its text."""

    href: str
    text: str


def relative(path: Path, folder: Path) -> str:
    """A link to ``path`` from a page in ``folder``."""
    return quote(Path(os.path.relpath(Path(path).resolve(), Path(folder).resolve())).as_posix())


def inside(layout: Layout, name: str) -> Path | None:
    """The file of that name relative to the output root; None if there is none, or it would lie outside."""
    path = (layout.output / name).resolve()
    return path if name and path.is_relative_to(layout.output.resolve()) and path.is_file() else None


def product_files(layout: Layout, records: list[Record]) -> list[Path]:
    """The products that tasks left for users (files between stages are none), each once."""
    names = {name for record in records for name in record.products if name.startswith("LRS2/")}
    paths = (inside(layout, name) for name in sorted(names))
    return [path for path in paths if path is not None]
