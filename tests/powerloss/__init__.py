"""A disk that forgets: what a power cut leaves of the files that were not brought to the disk.

`hook/sitecustomize.py`, found through PYTHONPATH, writes down what every process has brought to the disk (``os.fsync`` of files and
folders); `cut` then leaves of a tree what a file system may leave of it:

- a file whose present content was never synced is empty, or noise of its length;
- a name that was made, replaced or removed since its folder was last synced is as it is now, or as it was then.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

JOURNAL = "PANACEA_NB_TEST_DISK"
HOOK = Path(__file__).parent / "hook"


def watched(environment: dict[str, str], journal: Path) -> dict[str, str]:
    """An environment in which Python processes write down what they sync."""
    (journal / "contents").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(p for p in (str(HOOK), environment.get("PYTHONPATH", "")) if p)
    return {**environment, "PYTHONPATH": path, JOURNAL: str(journal)}


def cut(root: Path, journal: Path, chance: random.Random) -> int:
    """Take away what was not on the disk; returns how many files and names that were."""
    content, listing = _synced(journal)
    lost = 0
    # From the leaves up: a folder that is lost takes with it what was decided on before.
    for folder, folders, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder) / name
            if path.is_symlink() or _digest(path) in content:
                continue
            size = path.stat().st_size
            path.write_bytes(b"" if chance.random() < 0.5 else chance.randbytes(size))
            lost += size > 0
        before = listing.get(os.stat(folder).st_ino)
        if before is None:
            continue  # never synced: anything goes, the likely thing is that its names were written in the end
        for name in {*before, *folders, *names}:
            path = Path(folder) / name
            now = os.lstat(path).st_ino if os.path.lexists(path) else None
            if now == before.get(name) or chance.random() < 0.5:
                continue
            lost += 1
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            old = journal / "contents" / str(before.get(name))
            if old.is_file():
                shutil.copy(old, path)
    return lost


def _synced(journal: Path) -> tuple[set[str], dict[int, dict[str, int]]]:
    """Digests of all contents that were synced, and the last synced names of each folder with their inodes."""
    digests: set[str] = set()
    listings: dict[int, dict[str, int]] = {}
    for line in (journal / "synced").read_text().splitlines() if (journal / "synced").exists() else ():
        entry = json.loads(line)
        if "names" in entry:
            listings[entry["inode"]] = entry["names"]
        else:
            digests.add(entry["digest"])
    return digests, listings


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
