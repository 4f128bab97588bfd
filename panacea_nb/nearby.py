"""Copies of raw archives near the processor: who reads a frame takes the copy where the workflow has made one.

Names, records and digests stay those of the archive itself; only the bytes come from nearer.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

VARIABLE = "PANACEA_NB_RAW_COPIES"


def copy_of(path: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Where the copy of a file lies in a folder of copies."""
    full = os.path.abspath(path)
    return Path(folder) / f"{hashlib.sha256(os.fsencode(full)).hexdigest()[:16]}-{os.path.basename(full)}"


def nearest(path: str) -> str:
    """The copy of a raw file in the folder that the environment names, the file itself where there is none."""
    folder = os.environ.get(VARIABLE, "")
    if folder:
        copy = copy_of(path, folder)
        if copy.is_file():
            return str(copy)
    return path
