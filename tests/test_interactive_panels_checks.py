"""The checks panel without a browser: what clicks and fields make of the choices."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ipywidgets", reason="of the lab extra: make lab")
pytest.importorskip("anywidget", reason="of the lab extra: make lab")

from panacea_nb.interactive import draw, panels_checks
from panacea_nb.interactive.choices import Choices
from panacea_nb.interactive.there import Entry
from panacea_nb.products import cosmicmarks
from panacea_nb.products.bundle import Bundle

ENTRIES = [
    Entry("uv", 5, 1, "NGC_1_056_E", "P1", True, False, 900.0, ("05_extract", "06_sky", "07_flux")),
    Entry("uv", 6, 1, "NGC_1_056_E", "P1", True, False, 900.0, ("05_extract", "06_sky", "07_flux")),
]
COSMICS = np.zeros((60, 80), np.uint8)
COSMICS[20, 30:34] = 1


class FakeWork:
    """A run of which nothing is read."""

    def __init__(self, path) -> None:
        self.path, self.entries, self.layout, self.file = path, ENTRIES, None, path.name
        self.choices = Choices({"night": "20250115", "sides": "uv", "object": "NGC_1_056_E"})

    def save(self) -> str:
        return f"saved: {self.choices.save(self.path)}"

    def model(self, channel, name):
        found = Bundle({"cosmics": COSMICS, "image": np.zeros(COSMICS.shape)}, {})
        return SimpleNamespace(label=f"{channel}/{name}", spectra=lambda choices: found)


@pytest.fixture
def panel(tmp_path, monkeypatch):
    arcs = SimpleNamespace(lines={"wavelength": np.array([3650.153, 4046.563, 4358.327])}, level=np.ones(280))
    monkeypatch.setattr(panels_checks, "Work", FakeWork)
    monkeypatch.setattr(panels_checks.ChecksPanel, "arcs", arcs)
    monkeypatch.setattr(panels_checks.ChecksPanel, "refresh", lambda self, *tabs: None)
    made = panels_checks.ChecksPanel(tmp_path / "choices.yaml")
    limits = {
        panels_checks.ARCS: (3600.0, -1.0, 4600.0, 1.0),
        panels_checks.FIBERS: (0.0, 0.0, 281.0, 1.2),
        panels_checks.COSMICS: (0.5, 0.5, 80.5, 60.5),
    }
    for tab, where in limits.items():
        made.canvases[tab].put(draw.Picture(b"", "", (0.0, 0.0, 1.0, 1.0), where))
    return made


def click(panel, tab: int, *places: tuple[float, float]) -> None:
    canvas = panel.canvases[tab]
    x0, y0, x1, y1 = canvas.picture.limits
    points = [[(x - x0) / (x1 - x0), (y1 - y) / (y1 - y0)] for x, y in places]
    canvas.event = {"points": points, "count": canvas.event.get("count", 0) + 1}


def test_a_click_leaves_the_nearest_line_out_and_another_takes_it_back(panel):
    click(panel, panels_checks.ARCS, (4055.0, 0.0))
    assert panel.choices.drop_lines == {"uv": "4046.563"}
    click(panel, panels_checks.ARCS, (4300.0, 0.0))
    assert panel.choices.drop_lines == {"uv": "4046.563,4358.327"}
    click(panel, panels_checks.ARCS, (4040.0, 0.0))
    assert panel.lines.value == ("4358.327",)
    click(panel, panels_checks.ARCS, (5000.0, 0.0))  # beside the panel
    assert panel.choices.drop_lines == {"uv": "4358.327"}


def test_a_click_switches_a_fibre_off(panel):
    click(panel, panels_checks.FIBERS, (79.2, 1.0))
    assert (panel.choices.dead_fibers, panel.fiber.value) == ({"uv": "79"}, 79)
    click(panel, panels_checks.FIBERS, (300.0, 1.0))  # the trace beside it
    assert panel.choices.dead_fibers == {"uv": "79"}
    panel.off.value = "12-14"
    assert panel.choices.dead_fibers == {"uv": "12-14"}
    panel.off.value = "500"
    assert "no fibre from 1 to 280" in panel.status.value
    assert panel.off.value == "12-14"


def test_marks_of_cosmic_rays_go_to_a_file_beside_the_choices(panel, tmp_path):
    click(panel, panels_checks.COSMICS, (31.0, 21.0))  # hit: it becomes clean
    click(panel, panels_checks.COSMICS, (10.0, 5.0), (12.2, 6.6))
    texts = [mark.text() for mark in cosmicmarks.load(tmp_path / "choices_cosmics.txt")]
    assert texts == ["uv/0000005_exp01 clean 31 21", "uv/0000005_exp01 hit 10 5 12 7"]
    panel.save_button.click()
    assert "cosmics_file: choices_cosmics.txt" in (tmp_path / "choices.yaml").read_text()
    panel.unmark.click()
    panel.unmark.click()
    assert panel.choices.cosmics_file == ""


def test_skies_can_be_taken_and_exposures_left_out(panel):
    assert "exposure 0000006_exp01" in panel.skies.options
    panel.take.value = "exposure 0000006_exp01"
    assert (panel.choices.sky_mode, panel.choices.sky_obsid, panel.choices.sky_exp) == ("exposure", 6, 1)
    panel.left_out.value = ("0000006_exp01",)
    assert panel.choices.leave_out == ("0000006_exp01",)
    panel.frames[1].value = True
    assert panel.choices.vacuum
