"""A JupyterLab of its own, with a token and on this machine's address only, and pages of a headless Chromium for it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "runs" / "browser-test"
RUN = Path(os.environ.get("BROWSER_TEST_ROOT", ROOT / "runs" / "demo"))
LAB = {"jupyterlab", "anywidget", "ipywidgets"}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)

absent = sorted(name for name in LAB if importlib.util.find_spec(name) is None)
needs_lab = pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not installed here: make lab")


def night() -> tuple[str, Path]:
    """The night that was reduced, and the root of its raw data."""
    found = sorted((RUN / "NIGHTS").glob("[0-9]*"))
    if not found:
        pytest.skip(f"no reduced night under {RUN}: make demo, or name a root with BROWSER_TEST_ROOT")
    said = yaml.safe_load((found[0] / "run.yaml").read_text())
    raw = os.environ.get("BROWSER_TEST_RAW") or (str(RUN / "raw") if (RUN / "raw").is_dir() else said["baseraw"])
    return found[0].name[:8], Path(raw).resolve()


@pytest.fixture(scope="module")
def browser(request):
    """A headless Chromium: that of the other browser tests where there is one."""
    try:
        yield request.getfixturevalue("chromium")
    except pytest.FixtureLookupError:
        api = pytest.importorskip("playwright.sync_api")
        program = next(filter(None, map(shutil.which, CHROMIUM)), None)
        if program is None:
            pytest.skip("no Chromium here: apt-get install chromium")
        with api.sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=program, args=QUIET.split())
            yield started
            started.close()


class Lab:
    """A JupyterLab of its own, on this machine's address only, with a token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.token = secrets.token_hex(16)
        settings = folder / ".jupyter" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        places = {f"JUPYTER_{name}_DIR": str(folder / ".jupyter" / name.lower()) for name in ("CONFIG", "RUNTIME")}
        places["JUPYTERLAB_SETTINGS_DIR"] = str(folder / ".jupyter" / "lab" / "user-settings")
        places["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / ".jupyter" / "lab" / "workspaces")
        extra = [
            "--no-browser", f"--port={self.port}", "--allow-root", f"--IdentityProvider.token={self.token}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
        ]  # fmt: skip
        command = [sys.executable, "-m", "panacea_nb", "lab", "--folder", str(folder), "--", *extra]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.log = (folder / "lab.log").open("w")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, env={**os.environ, **places, "PYTHONPATH": path}, start_new_session=True
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status?token={self.token}", timeout=5).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise AssertionError((folder / "lab.log").read_text()[-3000:]) from None
                time.sleep(0.5)

    def url(self, notebook: str) -> str:
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


def prepared(folder: Path, name: str, **parameters: object) -> None:
    """A copy of a notebook whose parameters cell says what to work on."""
    made = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    cell = next(c for c in made["cells"] if "parameters" in c["metadata"].get("tags", []))
    text = "".join(cell["source"])
    for key, value in parameters.items():
        text, count = re.subn(
            rf"^{key}: (\w+) = .*$", lambda m, v=value, k=key: f"{k}: {m[1]} = {v!r}", text, flags=re.M
        )
        assert count == 1, key
    cell["source"] = text
    (folder / f"{name}.ipynb").write_text(json.dumps(made))


def shoot(page, name: str) -> None:
    """Keep a picture of the page for people to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(400)
    page.screenshot(path=SHOTS / f"{name}.png")


def quiet(page, lab) -> None:
    """Nothing was wrong on the page, and nothing was asked of any other machine."""
    own = (f"http://127.0.0.1:{lab.port}/", "data:", "blob:")
    assert [url for url in page.asked if not url.startswith(own)] == []
    assert page.wrong == []


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    started = Lab(tmp_path_factory.mktemp("lab"))
    yield started
    started.stop()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1600, "height": 1400}, locale="en-US")
    made = context.new_page()
    made.wrong, made.asked = [], []
    made.on("console", lambda m: made.wrong.append(m.text) if m.type == "error" else None)
    made.on("pageerror", lambda e: made.wrong.append(str(e)))
    made.on("request", lambda r: made.asked.append(r.url))
    yield made
    context.close()


def run_all(page, url: str) -> None:
    """Open a notebook and run all its cells."""
    page.goto(url)
    page.wait_for_selector('.jp-StatusBar-TextItem:has-text("| Idle")', timeout=120_000)
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click('.lm-Menu-item[data-command="runmenu:run-all"]')
