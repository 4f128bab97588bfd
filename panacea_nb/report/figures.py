"""Figures of an executed notebook as files: full size for the page of the notebook, small ones for the night page."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

# Twice the width at which the night page shows them, for screens of high density.
THUMBNAIL_WIDTH = 480
_FIRST_SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)", re.DOTALL)
_MARKUP = re.compile(r"[*_`#>\[\]]|\(https?://[^)]*\)|<[^>]*>")


@dataclass(frozen=True)
class Figure:
    """One figure of a notebook.

    Parameters
    ----------
    number : int
        1 for the first of its notebook; the page has the anchor ``fig-{number}``.
    file, thumbnail : str
        Names of the files beside the page.
    caption : str
        What the notebook says before the figure, one sentence; the alternative text where the figure carries none.
    tagged : bool
        Whether its cell has the tag ``figure``.
    """

    number: int
    file: str
    thumbnail: str
    caption: str
    width: int
    height: int
    tagged: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON and for templates."""
        return dict(self.__dict__)


def extract(notebook: Any, stem: str) -> tuple[list[Figure], dict[str, bytes]]:
    """Take the PNG outputs out of ``notebook`` (changed in place): the figures, and the contents of their files by name.

    Each output keeps, as ``metadata['panacea_figure']``, the fields of its `Figure`; a damaged image stays without one
    and is left out of the page.
    """
    figures: list[Figure] = []
    files: dict[str, bytes] = {}
    said = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            said = caption(cell.source) or said
        for output in cell.get("outputs", ()):
            png = output.get("data", {}).get("image/png")
            if png is None:
                continue
            output.data = {"image/png": ""}
            figure = _save(png, files, stem, len(figures) + 1, _alt(output) or said, "figure" in _tags(cell))
            if figure is not None:
                output.metadata["panacea_figure"] = figure.to_dict()
                figures.append(figure)
    return figures, files


def caption(markdown: str) -> str:
    """The first sentence of a markdown cell as plain text; its heading when it has no more."""
    lines = [line.strip() for line in markdown.splitlines() if line.strip()]
    prose = " ".join(line for line in lines if not line.startswith("#")) or " ".join(lines)
    text = " ".join(_MARKUP.sub("", prose).split())
    sentence = _FIRST_SENTENCE.match(text)
    return (sentence[1] if sentence else text)[:240]


def _save(png: str, files: dict[str, bytes], stem: str, count: int, said: str, tagged: bool) -> Figure | None:
    try:
        content = base64.b64decode("".join(png), validate=False)
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            small = image.convert("RGB")
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError):
        return None
    small.thumbnail((THUMBNAIL_WIDTH, 4 * THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # An octree takes a quarter of the time of the median cut, and nobody tells them apart at this size.
    small.quantize(128, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", compress_level=6)
    name, thumbnail = f"{stem}-{count:02d}.png", f"{stem}-{count:02d}-small.png"
    files[name], files[thumbnail] = content, buffer.getvalue()
    return Figure(count, name, thumbnail, said or f"Figure {count} of {stem}", width, height, tagged)


def _alt(output: Any) -> str:
    return str(output.get("metadata", {}).get("image/png", {}).get("alt", "")).strip()


def _tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])
