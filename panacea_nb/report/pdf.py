"""A page as PDF, printed by a browser that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import PanaceaError, RequestError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
BROWSER_VARIABLE = "PANACEA_BROWSER"
_SECONDS = 120
_QUIET = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-pdf-header-footer", "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=8000",
)  # fmt: skip


class BrowserMissingError(RequestError):
    """No browser that can print is installed."""


class PrintingError(PanaceaError):
    """The browser did not print the page."""


def browser() -> str:
    """The program of an installed browser.

    Raises
    ------
    BrowserMissingError
    """
    named = os.environ.get(BROWSER_VARIABLE, "")
    for name in (named,) if named else BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    tried = named or ", ".join(BROWSERS)
    raise BrowserMissingError(
        f"--pdf needs Chromium or Chrome, and none is installed here (tried {tried}). On Debian or Ubuntu: apt install chromium; "
        f"or name the program in {BROWSER_VARIABLE}. Without it: --single-file, and print that page from any browser"
    )


def write(page: Path, target: Path) -> Path:
    """Print a page that needs no other file.

    Raises
    ------
    BrowserMissingError, PrintingError
    """
    program = browser()
    target = target.absolute()
    with tempfile.TemporaryDirectory(prefix="panacea-print-") as profile:
        printed = Path(profile) / "page.pdf"
        command = [
            program,
            *_QUIET,
            f"--user-data-dir={profile}/profile",
            f"--print-to-pdf={printed}",
            page.absolute().as_uri(),
        ]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium has no sandbox for root
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise PrintingError(f"{program} did not print {page.name} within {_SECONDS} s") from error
        if not printed.is_file() or not printed.stat().st_size:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PrintingError(f"{program} did not print {page.name} (exit code {done.returncode}): {last}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(printed, target)
    return target
