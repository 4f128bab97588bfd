"""A headless Chromium, pages that note everything that goes wrong on them, and a reduced night with its reports."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from panacea_nb.products.layout import Layout
from panacea_nb.report import build, find

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "runs" / "browser-test"
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)


@dataclass
class Watched:
    """A page and what went wrong on it."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, where: Path | str, ready: str = "") -> Page:
        url = where if isinstance(where, str) else where.resolve().as_uri()
        self.page.goto(url)
        if ready:
            self.page.wait_for_selector(ready, state="attached", timeout=20_000)
        return self.page

    def shoot(self, name: str, *, full: bool = True) -> None:
        """Keep a picture of the page for people to look at, with all its images loaded."""
        self.page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        self.page.wait_for_timeout(250)
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=full)


@pytest.fixture(scope="session")
def chromium():
    program = subprocess.run([ROOT / "tests" / "browser" / "chromium.sh"], capture_output=True, text=True, check=False)
    if program.returncode:
        pytest.fail(program.stderr)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program.stdout.strip(), args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Make a page: ``visit(width=400, dark=True)``; whatever complains or leaves the page fails the test at its end."""
    made: list[Watched] = []
    contexts = []

    def make(
        width: int = 1400, height: int = 1000, *, dark: bool = False, scripts: bool = True, origin: str = "file:"
    ) -> Watched:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        watched = Watched(context.new_page())

        def asked(request) -> None:
            watched.asked.append(request.url)
            if not request.url.startswith((origin, "data:", "blob:")):
                watched.wrong.append(f"asked for {request.url}")

        watched.page.on("console", lambda m: watched.wrong.append(m.text) if m.type in ("error", "warning") else None)
        watched.page.on("pageerror", lambda error: watched.wrong.append(str(error)))
        watched.page.on("requestfailed", lambda request: watched.wrong.append(f"no answer from {request.url}"))
        watched.page.on("dialog", lambda dialog: (watched.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        watched.page.on("request", asked)
        made.append(watched)
        return watched

    yield make
    wrong = [text for watched in made for text in watched.wrong]
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="session")
def layout(tmp_path_factory) -> Layout:
    """A copy of a reduced night with its reports, at a path with blanks; the demo's unless BROWSER_TEST_ROOT names another root."""
    source = Path(os.environ.get("BROWSER_TEST_ROOT", ROOT / "runs" / "demo"))
    if not (source / "NIGHTS").is_dir():
        pytest.fail(
            f"no reduced night lies in {source}: make demo first, or name another output root in BROWSER_TEST_ROOT"
        )
    target = tmp_path_factory.mktemp("a stick") / "some output"
    skipped = shutil.ignore_patterns("report", "raw", "*_cube.fits", "*.part")
    shutil.copytree(
        source, target, ignore=skipped, copy_function=os.link if _same_disk(source, target) else shutil.copy2
    )
    found = find.run(target)
    begun = time.monotonic()
    build(found)
    print(f"the report took {time.monotonic() - begun:.1f} s")
    return found


def _same_disk(source: Path, target: Path) -> bool:
    return source.stat().st_dev == target.parent.stat().st_dev
