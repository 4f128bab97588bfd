"""The explore panel in a real JupyterLab: run it, move the slider, place source and sky, save; then reduce what was saved."""

# ruff: noqa: F401, F811 - fixtures are imported
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import yaml
from interactive_lab import ROOT, RUN, SHOTS, browser, lab, needs_lab, night, page, prepared, quiet, run_all, shoot

pytestmark = needs_lab


class Panel:
    """The explore panel on a page."""

    def __init__(self, page) -> None:
        self.page = page
        self.field, self.residual, self.spectrum = (page.locator(".panacea-canvas").nth(k) for k in range(3))

    def said(self, what: str, timeout: float = 120_000) -> str:
        """Wait until the line of the state holds a text."""
        found = self.page.locator(".jupyter-widgets .widget-html-content", has_text=re.compile(what)).first
        found.wait_for(timeout=timeout)
        return found.inner_text()

    def numbers(self) -> str:
        return self.spectrum.locator("img").get_attribute("alt")

    def click_field(self, x: float, y: float) -> None:
        self.field.scroll_into_view_if_needed()
        box = self.field.locator("img").bounding_box()
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def fresh(self, before: str) -> str:
        """The numbers of the spectrum once they differ from those before."""
        deadline = time.monotonic() + 60
        while self.numbers() == before:
            assert time.monotonic() < deadline, f"the spectrum stayed: {before}"
            self.page.wait_for_timeout(50)
        return self.numbers()


def test_source_and_sky_placed_in_the_browser_are_what_a_reduction_gives(lab, page, tmp_path):
    date, raw = night()
    saved = lab.folder / "choices.yaml"
    where = {"output": str(RUN.resolve()), "night": date, "baseraw": str(raw), "choices": str(saved)}
    prepared(lab.folder, "interactive_explore", **where)
    run_all(page, lab.url("interactive_explore.ipynb"))
    panel = Panel(page)
    panel.said("sky fibres, RMS")
    panel.field.scroll_into_view_if_needed()
    shoot(page, "interactive-opened")
    first = panel.numbers()

    start = time.monotonic()
    panel.click_field(0.55, 0.45)
    placed = panel.fresh(first)
    seconds = {"source": time.monotonic() - start}
    assert "source placed at" in panel.said("source placed at")

    window = panel.field.locator("img").get_attribute("alt")
    page.locator(".jupyter-widgets .noUi-handle").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("(old) => document.querySelector('.panacea-canvas img').alt !== old", arg=window)
    page.wait_for_timeout(3000)  # all five moves

    before = panel.numbers()
    page.get_by_role("button", name="sky region").click()
    start = time.monotonic()
    panel.click_field(0.42, 0.5)
    panel.said("first look after")
    seconds["sky, first look"] = time.monotonic() - start
    panel.said("sky fibres, RMS")
    seconds["sky, exact"] = time.monotonic() - start
    panel.fresh(before)
    panel.field.scroll_into_view_if_needed()
    shoot(page, "interactive-placed")

    page.get_by_role("button", name="save", exact=True).click()
    panel.said("saved:")
    chosen = yaml.safe_load(saved.read_text())
    assert chosen["sky_mode"] == "region"
    assert chosen["sky_region"].startswith("annulus(")
    assert {"source_x", "source_y", "central_wave"} <= set(chosen)
    page.locator(".jp-OutputArea-output img").last.scroll_into_view_if_needed()
    shoot(page, "interactive-twin")
    assert "source_x" in page.locator(".jp-OutputArea-output .highlight").last.inner_text()

    page.reload()  # what was saved comes back
    run_all(page, lab.url("interactive_explore.ipynb"))
    panel.said("source placed at")
    assert (
        page.locator('input[type="text"]')
        .evaluate_all("(all) => all.map((one) => one.value)")
        .count(chosen["sky_region"])
    )

    quiet(page, lab)
    (SHOTS / "interactive-seconds.json").write_text(json.dumps(seconds, indent=1))
    assert placed != first

    # Headless: the same spectrum, bit by bit.
    output = tmp_path / "runs"
    shutil.copytree(RUN, output, copy_function=os.link, ignore=shutil.ignore_patterns("raw"))
    command = [
        sys.executable,
        "-m",
        "panacea_nb",
        "reduce",
        "--config",
        str(saved),
        "--output",
        str(output),
        "--overwrite",
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    from astropy.io import fits

    from panacea_nb.interactive.model import spectrum_digest

    seen = re.search(r"# Seen: (\w+)/(\d{7}_exp\d\d), spectrum sha256 (\w+)", saved.read_text())
    (product,) = (output / "LRS2").rglob(f"spectrum_{date}_{seen[2]}_{seen[1]}.fits")
    assert spectrum_digest(fits.getdata(product)) == seen[3]
