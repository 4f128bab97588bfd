"""Compiled code that was shipped with an installation: used wherever it is, also where nothing can be written.

numba looks for compiled code beside the source, and looks away when it may not write there, as in a container image that runs
read-only or as any user.  And it takes only code that was compiled for this very processor, which the machine that built an
image rarely has.  So an image is built with ``python -m panacea_nb.jit panacea_nb.reduce.warmup``, for a processor that all
of today's machines can stand in for, and `use_shipped` shows numba a private folder of links to that code; whatever is
compiled all the same goes there too.
An ordinary installation has nothing shipped, and numba's own ways hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path

from .errors import PanaceaError

FOLDER = Path(sys.prefix, "share", "panacea_nb", "jit")
_STAMP = "stamp.json"
# Processor to compile for, and the flags by which Linux says that a processor can stand in for it.
_TARGETS = {
    # Haswell (2013), Zen (2017) and later.
    "x86_64": ("x86-64-v3", frozenset("avx2 bmi1 bmi2 f16c fma abm movbe".split())),
    "aarch64": ("generic", frozenset({"asimd"})),
}
_VARIABLES = ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


class ShippingError(PanaceaError):
    """Compiled code could not be put where an installation carries it along."""


def ship(module: str) -> None:
    """Leave in `FOLDER` what the ``warm_up`` of a module compiles.

    It is named, not given: where numba keeps a function's code is settled when the function is defined.

    Raises
    ------
    ShippingError
        If there is shipped code already, or nothing was compiled.
    """
    if FOLDER.exists():
        raise ShippingError(f"{FOLDER} exists: remove it before compiled code is shipped anew")
    FOLDER.mkdir(parents=True)
    cpu, _ = _TARGETS.get(platform.machine(), ("generic", frozenset()))
    _tell_numba(FOLDER, cpu)
    importlib.import_module(module).warm_up()
    digest = hashlib.sha256()
    compiled = sorted(FOLDER.glob("*/*"))
    for path in compiled:
        digest.update(path.name.encode() + path.read_bytes())
    if not compiled:
        raise ShippingError(f"{module} had been imported before, or compiles nothing: nothing is in {FOLDER}")
    (FOLDER / _STAMP).write_text(json.dumps({"cpu": cpu, "digest": digest.hexdigest()}), encoding="ascii")


def use_shipped() -> bool:
    """Have numba use the shipped code, if there is any and the processor can run it; before anything is compiled.

    Nothing is changed where the environment already says how numba is to work.
    """
    if not FOLDER.is_dir() or any(name in os.environ for name in _VARIABLES):
        return False
    try:
        stamp = json.loads((FOLDER / _STAMP).read_text(encoding="ascii"))
        if not _runs_here(stamp["cpu"]):
            return False
        place = _private_folder(f"panacea_nb-{os.getuid()}-jit-{stamp['digest'][:12]}")
        for shipped in FOLDER.glob("*/*"):
            link = place / shipped.relative_to(FOLDER)
            link.parent.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(shipped)
    except (OSError, ValueError, KeyError):
        return False  # slower, with the same result: everything is compiled anew
    _tell_numba(place, stamp["cpu"])
    return True


def _private_folder(name: str) -> Path:
    """A folder of this user alone; shared by all his processes where possible."""
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"{name}-"))


def _runs_here(cpu: str) -> bool:
    name, flags = _TARGETS.get(platform.machine(), ("generic", frozenset()))
    return name == cpu and flags <= _processor_flags()


def _processor_flags() -> set[str]:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
        for line in stream:
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                return set(value.split())
    return set()


def _tell_numba(folder: Path, cpu: str) -> None:
    os.environ.update(dict(zip(_VARIABLES, (str(folder), cpu, ""), strict=True)))
    if "numba" in sys.modules:
        from numba.core import config

        config.reload_config()


if __name__ == "__main__":
    ship(sys.argv[1])
