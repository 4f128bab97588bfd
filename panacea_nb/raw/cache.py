"""Keep what was learned from walking a night's tars, so that each is walked once.

One JSON file per night and root of raw data, with one entry per container, valid as long as its stamp (size and time
of change) is the same.  The cache is only ever a short cut: a file that is damaged, of another version or not
writable means that the tars are walked again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class NightCache:
    """Payloads of the containers of one night.

    Parameters
    ----------
    cache_dir : str, Path or None
        Folder of the cache files, made when needed; None keeps nothing.
    name : str
        What is cached (``frames``, ``guider``): part of the file name.
    baseraw : str or Path
        Root of the raw archive.
    night : str
        YYYYMMDD.
    version : str
        Changes whenever the payload's form does; a file of another version is dropped.
    """

    def __init__(self, cache_dir: str | Path | None, name: str, baseraw: str | Path, night: str, version: str) -> None:
        self._version = version
        self._old: dict[str, Any] = {}
        self._new: dict[str, Any] = {}
        self.file: Path | None = None
        if cache_dir is not None:
            root = hashlib.sha256(os.fsencode(os.path.abspath(baseraw))).hexdigest()[:12]
            self.file = Path(cache_dir) / f"{name}_{night}_{root}.json"
            self._old = self._load()
        self._changed = False

    def _load(self) -> dict[str, Any]:
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("cache %s is not readable (%s): the tars are walked again", self.file, error)
            return {}
        if not isinstance(content, dict) or content.get("version") != self._version:
            return {}
        entries = content.get("containers")
        return entries if isinstance(entries, dict) else {}

    def get(self, path: str, stamp: str) -> Any:
        """Payload of a container, None when it is not known or has changed."""
        entry = self._old.get(path)
        return entry.get("payload") if isinstance(entry, dict) and entry.get("stamp") == stamp else None

    def keep(self, path: str, stamp: str, payload: Any) -> None:
        """Have the payload of a container in the file that `save` writes."""
        self._new[path] = {"stamp": stamp, "payload": payload}
        self._changed |= self._old.get(path) != self._new[path]

    def save(self) -> None:
        """Write the file in one step, if there is anything new; containers that are gone are dropped from it."""
        if self.file is None or not (self._changed or self._new.keys() != self._old.keys()):
            return
        content = {"version": self._version, "containers": self._new}
        temporary = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.file.parent, prefix=".cache-")
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(content, stream, separators=(",", ":"))
            os.replace(temporary, self.file)
        except OSError as error:
            log.warning("cache %s cannot be written (%s): the tars will be walked again next time", self.file, error)
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)
