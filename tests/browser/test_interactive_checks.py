"""The checks panel in a real JupyterLab: an arc line left out, a fibre switched off, a cosmic ray marked, and all of it saved."""

# ruff: noqa: F401, F811 - fixtures are imported
from __future__ import annotations

import re

import yaml
from interactive_lab import RUN, browser, lab, needs_lab, night, page, prepared, quiet, run_all, shoot

pytestmark = needs_lab
TABS = ("arc lines", "fibres", "skies side by side", "cosmic rays", "combination")


def canvas(page):
    """The image of the tab that is open."""
    return page.locator(".panacea-canvas:visible").first


def alt(page) -> str:
    return canvas(page).locator("img").get_attribute("alt")


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    canvas(page).scroll_into_view_if_needed()


def click(page, x: float, y: float, to: tuple[float, float] | None = None) -> None:
    """Click at fractions of the open image, or draw from there to another place."""
    box = canvas(page).locator("img").bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.down()
    if to:
        page.mouse.move(box["x"] + to[0] * box["width"], box["y"] + to[1] * box["height"], steps=4)
    page.mouse.up()


def changed(page, before: str) -> str:
    """The alt text of the open image once it differs from the one before."""
    page.wait_for_function(
        "(old) => [...document.querySelectorAll('.panacea-canvas img')]"
        ".some((one) => one.checkVisibility() && one.alt && one.alt !== old)",
        arg=before,
        timeout=120_000,
    )
    return alt(page)


def test_what_is_corrected_by_hand_is_seen_and_saved(lab, page):
    date, raw = night()
    saved = lab.folder / "checks.yaml"
    where = {"output": str(RUN.resolve()), "night": date, "baseraw": str(raw), "choices": str(saved)}
    prepared(lab.folder, "interactive_checks", **where)
    run_all(page, lab.url("interactive_checks.ipynb"))
    page.get_by_role("tab", name="arc lines", exact=True).wait_for(timeout=180_000)
    page.wait_for_selector('.jp-StatusBar-TextItem:has-text("| Idle")', timeout=180_000)

    open_tab(page, "arc lines")
    before = alt(page)
    assert "0 lines are left out" in before
    click(page, 0.5, 0.75)
    assert "1 lines are left out by hand" in changed(page, before)
    shoot(page, "interactive-arcs")

    open_tab(page, "fibres")
    before = alt(page)
    click(page, 0.2, 0.5)
    assert "1 switched off by hand" in changed(page, before)
    shoot(page, "interactive-fibres")

    open_tab(page, "skies side by side")
    assert re.search("auto: RMS .*; auto, polynomial: RMS", alt(page))
    shoot(page, "interactive-skies")

    open_tab(page, "cosmic rays")
    before = alt(page)
    hit = int(before.split()[0])
    click(page, 0.60, 0.20, to=(0.62, 0.25))
    after = changed(page, before)
    assert "1 marks by hand" in after
    assert int(after.split()[0]) > hit
    shoot(page, "interactive-cosmics")

    open_tab(page, "combination")
    shoot(page, "interactive-combination")
    page.get_by_role("button", name="save", exact=True).click()
    page.locator(".widget-html-content", has_text="saved:").first.wait_for(timeout=60_000)
    chosen = yaml.safe_load(saved.read_text())
    assert chosen["cosmics_file"] == "choices_cosmics.txt"
    assert re.search(
        r"^\w+/\d{7}_exp\d\d hit \d+ \d+ \d+ \d+$", (saved.parent / "choices_cosmics.txt").read_text(), re.M
    )
    assert list(chosen["drop_lines"]) == list(chosen["dead_fibers"])
    quiet(page, lab)
