"""Make an executed notebook say truly how its run ended; papermill cannot be relied on for that."""

from __future__ import annotations

from typing import Any

import nbformat

from .kernel import Session

END_TAG = "panacea-nb-end"
_COLOUR = {"failed": "#b00020", "aborted": "#8a5a00"}


def mend(notebook: Any, session: Session, state: str, reason: str) -> Any:
    """Mark each cell by whether it really ran, and put the end of the run on top of the notebook.

    Parameters
    ----------
    notebook : NotebookNode
        As papermill left it; it is changed in place.
    session : Session
        The account of the cells.
    state : str
        ``failed`` or ``aborted``.
    reason : str
        Why, for people.
    """
    remove_markers(notebook)
    for index, cell in enumerate(notebook.cells):
        if index in session.finished:
            continue
        account = cell.metadata.setdefault("papermill", {})
        if index == session.current:
            account.update(status="failed", exception=True)
        else:
            account.update(status="pending", exception=None, start_time=None, end_time=None, duration=None)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
    notebook.metadata.setdefault("papermill", {})["exception"] = True
    where = f" at {session.place}" if session.place else ""
    banner = nbformat.v4.new_markdown_cell(
        f'<div style="border-left:6px solid {_COLOUR.get(state, "#b00020")};padding:0.5em 1em">\n\n'
        f"**{state.upper()}{where}.** No product of this run was kept.\n\n{_quoted(reason)}\n</div>"
    )
    banner.metadata["tags"] = [END_TAG]
    notebook.cells.insert(0, banner)
    return notebook


def remove_markers(notebook: Any) -> None:
    """Take out the cells that papermill and `mend` put in, so that numbers of cells are those of the run again."""
    notebook.cells = [cell for cell in notebook.cells if not _is_marker(cell)]


def _is_marker(cell: Any) -> bool:
    tags = cell.metadata.get("tags", [])
    return END_TAG in tags or "papermill-error-cell-tag" in tags


def _quoted(text: str) -> str:
    """A text as an indented block: whatever it holds is shown, not interpreted."""
    return "\n".join(f"    {line}" for line in text.splitlines()[:40])
