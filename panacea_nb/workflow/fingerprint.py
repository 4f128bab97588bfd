"""What went into a task, as digests: a task is up to date when they are what its record says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import PanaceaError
from . import files, notebooks
from .graph import Task, text_digest
from .status import Record, State

_PACKAGE = Path(__file__).resolve().parents[1]
# What a notebook may use: a change of any file here can change a result; workflow, command line and report cannot.
ROOMS = ("instrument", "raw", "reduce", "products", "qa")

NEW = "new"
UP_TO_DATE = "up to date"


def code_digest() -> str:
    """sha256 over sources and data of the rooms that notebooks use, and the package's version."""
    digest = hashlib.sha256(__version__.encode())
    for room in ROOMS:
        for path in sorted((_PACKAGE / room).rglob("*")):
            if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc") and "__pycache__" not in path.parts:
                digest.update(f"\0{path.relative_to(_PACKAGE).as_posix()}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


class DigestCache:
    """Digests of raw frames, remembered by file, place in it, size and time, so that gigabytes are read once.

    Parameters
    ----------
    path : Path or None
        ``work/digests.json``; None keeps nothing.
    reader : callable, optional
        What reads a frame's digest; by default `panacea_nb.raw.digest`.
    """

    def __init__(self, path: Path | None, reader: Callable[[Any], str] | None = None) -> None:
        self.path = path
        self._reader = reader
        self._known: dict[str, str] = {}
        self._changed = False
        if path is not None:
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                known = {}  # a cache: at worst the frames are read again
            if isinstance(known, dict):
                self._known = {str(key): str(value) for key, value in known.items()}

    def of(self, frame: Any) -> str:
        """Digest of a frame's bytes (`FrameRecord`)."""
        container = Path(frame.container[0])
        stat = container.stat()
        key = (
            f"{container}|{'|'.join(frame.container[1:])}|{frame.offset}|{frame.size}|{stat.st_size}|{stat.st_mtime_ns}"
        )
        if key not in self._known:
            self._known[key] = self._read(frame)
            self._changed = True
        return self._known[key]

    def _read(self, frame: Any) -> str:
        if self._reader is None:
            from .. import raw

            self._reader = raw.digest
        return self._reader(frame)

    def save(self) -> None:
        """Keep what was learnt for the next run."""
        if self.path is not None and self._changed:
            files.write_text(self.path, json.dumps(self._known, indent=0), durable=False)
            self._changed = False


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Digest of all that went in, and of its parts (to say later which of them changed)."""

    value: str
    parts: dict[str, Any]


class Fingerprinter:
    """Computes fingerprints and compares them with records.

    Parameters
    ----------
    output : Path
        Output root, which paths in records are relative to.
    baseraw : str
        Folder of the raw nights, for the guide-camera frames.
    cache : DigestCache
        Digests of raw frames.
    code : str, optional
        Digest of the package's code; computed when not given.
    index_dir : Path, optional
        Where the raw room keeps its indexes.
    thorough : bool
        Read finished files again even where size and time of change are those that were left.
    """

    def __init__(
        self,
        output: Path,
        baseraw: str,
        cache: DigestCache,
        code: str | None = None,
        index_dir: Path | None = None,
        *,
        thorough: bool = False,
    ) -> None:
        self.thorough = thorough
        self.output, self.baseraw, self.cache, self.index_dir = output, baseraw, cache, index_dir
        self.code = code if code is not None else code_digest()
        self._notebooks: dict[Path, str] = {}
        self._guiders: dict[tuple[int, int], Any] = {}

    def compute(self, task: Task, upstream: dict[str, dict[str, str]], extra: str = "") -> Fingerprint:
        """The fingerprint of a task whose needs have ended.

        Parameters
        ----------
        task : Task
            The task.
        upstream : dict
            Task id -> products (path -> content digest) of what it needs, and of its hopes that came true.
        extra : str
            A digest of anything else that it reads (the night page: all records).
        """
        if task.source not in self._notebooks:
            self._notebooks[task.source] = notebooks.source_digest(task.source)
        parts: dict[str, Any] = {
            "parameters": task.depends,
            "notebook": self._notebooks[task.source],
            "code": self.code,
            "raw": text_digest([[_frame_name(frame), self.cache.of(frame)] for frame in task.frames]),
            "upstream": {name: text_digest(products) for name, products in upstream.items()},
            "facts": dict(task.facts),
        }
        if task.guider is not None:
            parts["guider"] = self._guider(task.guider)
        if extra:
            parts["records"] = extra
        return Fingerprint(text_digest(parts), parts)

    def _guider(self, exposure: Any) -> list[Any]:
        """What the guide cameras say of an exposure, as it goes into its calibration."""
        key = (exposure.obsid, exposure.exp)
        if key not in self._guiders:
            from .. import raw

            try:
                seen = raw.guider(
                    self.baseraw, exposure.start, exposure.exptime or 0.0, exposure.night, cache_dir=self.index_dir
                )
            except PanaceaError as error:
                self._guiders[key] = [str(error)]
            else:
                names = ("transparency", "illumination", "seeing", "n_frames")
                self._guiders[key] = [repr(getattr(seen, name)) for name in names]
        return self._guiders[key]

    def reason(self, task: Task, fingerprint: Fingerprint, record: Record | None) -> str:
        """Why a task must run: ``up to date`` when it need not."""
        if record is None or (record.state is State.PENDING and not record.fingerprint):
            return NEW
        if record.state is not State.SUCCEEDED:
            return f"was {record.state.value}"
        if record.fingerprint != fingerprint.value:
            return f"changed {_changes(record.inputs, fingerprint.parts)}"
        return self._damage(record) or UP_TO_DATE

    def _damage(self, record: Record) -> str:
        """What of a finished task is not there any more as it was left; nothing when all is."""
        expected = {**record.products, record.notebook: record.notebook_digest}
        for relative, digest in expected.items():
            path = self.output / relative
            try:
                stat = path.stat()
            except OSError:
                return f"missing {relative}"
            if not self.thorough and record.files.get(relative) == [stat.st_size, stat.st_mtime_ns]:
                continue
            from .verify import look

            found = look(path, digest)
            if found:
                return f"{found} {relative}"
        return ""


def _frame_name(frame: Any) -> list[Any]:
    return [frame.night, frame.obsid, frame.exp, frame.ifuslot, frame.amp, frame.kind]


def _changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The parts of a fingerprint that differ, in words."""
    words = {
        "raw": "raw frames",
        "guider": "guider frames",
        "facts": "inputs",
        "upstream": "input",
        "records": "other tasks",
    }
    found = []
    for part in new:
        if old.get(part) == new[part]:
            continue
        if part in ("parameters", "upstream") and isinstance(old.get(part), dict):
            keys = sorted(k for k in {*old[part], *new[part]} if old[part].get(k) != new[part].get(k))
            found.append(f"{words.get(part, part)} {', '.join(keys)}")
        else:
            found.append(words.get(part, part))
    return ", ".join(found) or "inputs"
