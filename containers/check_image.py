"""Run inside an image: is it what it should be, for a user it does not know, where nothing can be written?

``python check_image.py requirements.lock`` compares the installed packages with the lock, each way, and sees that nothing is
compiled or looked for anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

OWN = {"panacea-nb", "pip"}  # pip comes with the environment; the lock says nothing of it
failures = []


def check(name: str, holds: object, what: object = "") -> None:
    """Print a line, and remember a failure."""
    print(f"{'ok  ' if holds else 'FAIL'} {name}{f': {what}' if what != '' else ''}", flush=True)
    if not holds:
        failures.append(name)


def locked(path: Path) -> dict[str, str]:
    """Packages that the lock pins for this Python and system."""
    pins = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)\s*(?:;\s*(.*?))?\s*(?:--hash|$)", line)
        if match and (not match[3] or Marker(match[3]).evaluate()):
            pins[canonicalize_name(match[1])] = match[2]
    return pins


def packages(lock: Path) -> None:
    """The same packages as in the lock, none more and none less."""
    wanted = locked(lock)
    found = {canonicalize_name(dist.metadata["Name"]): dist.version for dist in distributions()}
    differing = {name for name in wanted | found if wanted.get(name) != found.get(name)} - OWN
    check("packages as in the lock", not differing, sorted(differing) if differing else f"{len(wanted)} packages")
    written = Path(sys.prefix, "share/panacea_nb/packages.txt").read_text(encoding="utf-8").split()
    check("packages as noted in the image", {f"{name}=={found[name]}" for name in found} - set(map(_plain, written)) <= {
        f"panacea-nb=={found.get('panacea-nb')}"
    })  # fmt: skip
    check("no JupyterLab", "jupyterlab" not in found)


def _plain(line: str) -> str:
    name, _, version = line.partition("==")
    return f"{canonicalize_name(name)}=={version}"


def rights() -> None:
    """Nothing can be written beside /tmp, and there is no network."""
    for folder in ("/", "/opt/venv", "/etc"):
        check(f"{folder} cannot be written to", not os.access(folder, os.W_OK))
    interfaces = set(os.listdir("/sys/class/net")) if Path("/sys/class/net").is_dir() else set()
    check("no network", interfaces <= {"lo"}, " ".join(sorted(interfaces)))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    check("no rights", re.search(r"^CapEff:\s*0+$", status, re.M))


def compiled() -> None:
    """The compiled code of the image is used as it is."""
    from panacea_nb.reduce import warmup

    start = time.monotonic()
    warmup.warm_up()
    anew = warmup.compiled_here()
    loaded = sum(sum(function.stats.cache_hits.values()) for _, function in warmup.functions())
    check("nothing is compiled", not anew and loaded, anew or f"{loaded} loaded in {time.monotonic() - start:.1f} s")


def fonts() -> None:
    """The list of fonts of the image is used as it is."""
    from panacea_nb.workflow import scratch

    start = time.monotonic()
    folder = scratch.font_cache()
    made = list(folder.glob("fontlist*.json")) if folder else []
    shipped = list(scratch.SHIPPED_FONTS.glob("fontlist*.json"))
    same = made and shipped and made[0].read_bytes() == shipped[0].read_bytes()
    check("fonts are known", same, f"{time.monotonic() - start:.1f} s")


def program() -> None:
    """The program runs, with its notebooks, and knows that it is in an image."""
    from panacea_nb.products import image
    from panacea_nb.workflow import notebooks

    check("notebooks are in the package", notebooks.folder().name == "_notebooks", notebooks.folder())
    start = time.monotonic()
    done = subprocess.run(["panacea-nb", "--version"], capture_output=True, text=True, check=False)
    check("panacea-nb starts", done.returncode == 0, f"{done.stdout.strip()}, {time.monotonic() - start:.1f} s")
    check("it knows that it is in an image", image.digest() != image.NONE, image.digest())
    print("     image of", json.loads(image.MARKER.read_text(encoding="utf-8")))


if __name__ == "__main__":
    packages(Path(sys.argv[1]))
    rights()
    compiled()
    fonts()
    program()
    sys.exit(1 if failures else 0)
