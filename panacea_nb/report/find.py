"""Runs named by a path: the folder of a night, anything in it, or an output root with one night."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from ..products.layout import RUN_NAME, Layout


class RunNotFoundError(RequestError):
    """There is no run where one was looked for."""


def run(named: str | Path) -> Layout:
    """The layout of a run.

    Parameters
    ----------
    named : str or Path
        ``ROOT/NIGHTS/20260115`` or ``..._TAG``, any file or folder in it, or a ROOT that holds one run only.

    Raises
    ------
    RunNotFoundError
        If there is none, or the root holds several.
    """
    path = Path(named).expanduser().absolute()
    for folder in (path, *path.parents):
        match = RUN_NAME.fullmatch(folder.name)
        if match and folder.parent.name == "NIGHTS" and (folder / "status").is_dir():
            return Layout(folder.parent.parent, match[1], match[2] or "")
    root = path.parent if path.name == "NIGHTS" else path
    found = Layout.runs(root)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(Path(named) / "NIGHTS" / layout.night_dir.name) for layout in found[:6])
        raise RunNotFoundError(f"{named} holds {len(found)} runs: name one of them, as in {names}")
    raise RunNotFoundError(f"no run lies in {named}: name the folder of a night, as in runs/NIGHTS/20260115")
