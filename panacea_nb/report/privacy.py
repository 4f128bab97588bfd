"""What no page may show: absolute paths, which name machines and people; and header texts made fit to be shown."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..products.layout import Layout

# Shorter paths (``/``, ``/d``) would take harmless texts with them.
_SHORTEST_HIDDEN_PATH = 5
# A path is hidden where it ends or goes on below, not where it is the beginning of a longer name.
_PATH_ENDS = r"(?![\w.-])"
_HOMES = re.compile(r"/(?:home|Users|users)/[^/\s\"'<>&:;,)]+")
LONGEST_TEXT = 2000
LONGEST_NAME = 80


@dataclass(frozen=True)
class Hidden:
    """Texts that no page may show and what stands in their place; call it with a page's text."""

    words: tuple[tuple[str, str], ...]

    def __call__(self, text: str) -> str:
        """``text`` without the absolute paths that name this machine and its user."""
        for secret, shown in self.words:
            text = re.sub(re.escape(secret) + _PATH_ENDS, lambda _, shown=shown: shown, text)
        return _HOMES.sub("~", text)


def hidden_paths(layout: Layout, given: Iterable[Mapping[str, Any]]) -> Hidden:
    """What the pages of a run must not show.

    Parameters
    ----------
    layout : Layout
        The paths of the night; what its ``run.yaml`` names is hidden as well.
    given : iterable of mapping
        Parameters of the tasks: any absolute path among them is hidden but for its last part.
    """
    found = {str(Path.home()): "~", sys.prefix: "PYTHON", str(Path(__file__).resolve().parents[2]): "PACKAGE"}
    for parameters in (*given, read_run(layout)):
        for name, value in parameters.items():
            if isinstance(value, str) and value.startswith("/") and "\n" not in value:
                path = value.rstrip("/")
                # a run that was moved was written to another place than where it is now
                found[path] = {"baseraw": "BASERAW", "output": "OUTPUT"}.get(name, path.rpartition("/")[2])
    found[str(layout.output.absolute())] = found[str(layout.output.resolve())] = "OUTPUT"
    chosen = {path: shown for path, shown in found.items() if len(path) >= _SHORTEST_HIDDEN_PATH}
    return Hidden(tuple(sorted(chosen.items(), key=lambda item: -len(item[0]))))


def read_run(layout: Layout) -> dict[str, Any]:
    """What the run was asked to do (``run.yaml``); empty where that cannot be read."""
    try:
        asked = yaml.safe_load(layout.run_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return asked if isinstance(asked, dict) else {}


def clean(text: Any, limit: int = LONGEST_TEXT) -> str:
    """An untrusted text as one that can be shown: no control characters, nothing that turns the reading direction, not too long.

    Markup needs no care here: the templates escape it.
    """
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(text)[: 4 * limit])
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else f"{kept[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"
