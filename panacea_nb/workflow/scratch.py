"""Temporary files: where they lie, and what several kernels can share of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from importlib import metadata
from pathlib import Path

from . import files

PREFIX = "pnb-"  # of a run's own temporary folder
SHIPPED_FONTS = Path(sys.prefix, "share", "panacea_nb", "mpl")  # a font list that a container image carries
_SOCKET_PATH_LIMIT = 90  # characters: a Unix socket's path holds 108 (104 on macOS), with its number


def root(wanted: str = "") -> Path:
    """Folder for temporary files, with a path short enough for sockets and plain enough for shells.

    ``wanted`` is the site's; it is taken where it can be written, else that of the environment.
    """
    folder = os.path.expanduser(os.path.expandvars(wanted))
    if not folder or not os.access(folder, os.W_OK):
        folder = tempfile.gettempdir()
    plain = len(folder) < _SOCKET_PATH_LIMIT - 45 and re.fullmatch(r"[A-Za-z0-9_./-]+", folder)
    return Path(folder) if plain or not os.access("/tmp", os.W_OK) else Path("/tmp")


def font_cache() -> Path | None:
    """A folder with matplotlib's font list, made once per user and machine: looking for fonts takes seconds."""
    try:
        # A list serves one version of matplotlib and one set of fonts only: a container may share this folder, not the fonts.
        place = f"{zlib.crc32(sys.prefix.encode()):08x}"
        folder = root() / f"panacea_nb-{os.getuid()}-mpl{metadata.version('matplotlib')}-{place}"
        folder.mkdir(mode=0o700, exist_ok=True)
        stat = folder.lstat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o077 or folder.is_symlink():
            return None  # somebody else's: not to be trusted
        if not any(folder.glob("fontlist*.json")):
            part = Path(tempfile.mkdtemp(dir=folder))
            for shipped in SHIPPED_FONTS.glob("fontlist*.json"):
                shutil.copyfile(shipped, part / shipped.name)
            if not any(part.iterdir()):
                subprocess.run(
                    [sys.executable, "-c", "import matplotlib.font_manager"],
                    env={**os.environ, "MPLCONFIGDIR": str(part)},
                    check=True,
                    timeout=120,
                    capture_output=True,
                )
            for made in part.glob("fontlist*.json"):
                os.replace(made, folder / made.name)
            files.remove_tree(part)
    except (OSError, subprocess.SubprocessError, metadata.PackageNotFoundError):
        return None  # every kernel then makes its own: slower, with the same result
    return folder
