"""Whether a run's files are what its records say: nothing missing, nothing altered, nothing that no record knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..products.layout import Layout
from . import progress, status
from .status import Record, State

_SUFFIXES = {".fits", ".ipynb", ".ecsv", ".dat"}  # of products and notebooks

MISSING, ALTERED, DAMAGED, STALE, FOREIGN, UNREADABLE = (
    "missing",
    "altered",
    "damaged",
    "stale",
    "foreign",
    "unreadable",
)
_MEANING = {
    MISSING: "it was there when its task ended",
    ALTERED: "its content is not what its task left",
    DAMAGED: "it cannot be read as what it is",
    STALE: "left by an earlier success of a task that failed or is blocked now",
    FOREIGN: "no record knows it",
    UNREADABLE: "this status record is damaged: its task counts as never run",
}


@dataclass(frozen=True)
class Finding:
    """One file that is not as it should be.

    Attributes
    ----------
    path : str, relative to the output root
    what : str, one of the words above
    task : str, the task it belongs to; empty where none is known
    """

    path: str
    what: str
    task: str = ""

    @property
    def meaning(self) -> str:
        """The finding in words."""
        return _MEANING[self.what]


def verify(layout: Layout) -> list[Finding]:
    """Compare every file of a night with its record, by content; foreign files are looked for in the folders it wrote to.

    Parameters
    ----------
    layout : Layout
        Of the night (and tag).

    Returns
    -------
    list of Finding
        Empty where all is well.
    """
    found = [
        Finding(layout.relative(path), UNREADABLE, path.stem)
        for path in sorted(layout.status_dir.glob("*.json"))
        if status.read(layout.status_dir, path.stem) is None
    ]
    records = status.read_all(layout.status_dir)
    for record in records.values():
        found += _of_task(layout.output, record)
    return found + list(_foreign(layout, records.values()))


def _of_task(output: Path, record: Record) -> Iterator[Finding]:
    kept = {**record.products, record.notebook: record.notebook_digest} if record.state is State.SUCCEEDED else {}
    for relative, digest in kept.items():
        what = look(output / relative, digest)
        if what:
            yield Finding(relative, what, record.id)
    if record.state.ended:
        for relative in record.claims:
            if relative not in kept and relative != record.notebook and (output / relative).exists():
                yield Finding(relative, STALE, record.id)


def look(path: Path, digest: str) -> str:
    """What is wrong with a file that should have this content digest: missing, altered, damaged, or nothing."""
    from ..products.digest import content_digest, file_digest

    try:
        found = file_digest(path) if path.suffix == ".ipynb" else content_digest(path)
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError, TypeError):  # no FITS file any more
        return DAMAGED
    return "" if found == digest else ALTERED


def _foreign(layout: Layout, records: Iterable[Record]) -> Iterator[Finding]:
    """Files of this night in product folders and beside its notebooks that belong to no record of any night of the root."""
    mine = list(records)
    known = {path for record in _all_records(layout) for path in (*record.claims, *record.products, record.notebook)}
    folders = {(layout.output / path).parent for record in mine for path in (*record.products, record.notebook) if path}
    for folder in sorted(folders):
        own = folder.is_relative_to(layout.night_dir)
        for path in sorted(folder.glob("*")):
            relative = layout.relative(path)
            ours = own or layout.night in path.name or layout.night in folder.name
            if ours and path.is_file() and path.suffix in _SUFFIXES and relative not in known:
                yield Finding(relative, FOREIGN)


def _all_records(layout: Layout) -> Iterator[Record]:
    """Records of all runs of a root: product folders are shared between nights and tags."""
    for run in Layout.runs(layout.output):
        yield from status.read_all(run.status_dir).values()


def text(layout: Layout, found: list[Finding]) -> str:
    """The findings as a table, with what to do about them."""
    name = f"night {layout.night}{f' ({layout.tag})' if layout.tag else ''}"
    if not found:
        return f"{name}: every file is what its record says"
    rows = [(item.what, item.path, item.task, item.meaning) for item in found]
    lines = [progress.table(("found", "file", "task", "meaning"), rows)]
    redo = sorted({item.task for item in found if item.task and item.what in (MISSING, ALTERED, DAMAGED, UNREADABLE)})
    if redo:
        lines.append(f"to be made again: {', '.join(redo)}")
        lines.append(
            f"  panacea-nb reduce --config '{layout.run_file}' --thorough   (runs these tasks, and what depends on them)"
        )
    if any(item.what == STALE for item in found):
        lines.append("stale files are whole, but of an earlier run: mend what failed and run again, or remove them")
    if any(item.what == FOREIGN for item in found):
        lines.append("foreign files were put there by no run: nothing reads them; move them away")
    return "\n".join(lines)
