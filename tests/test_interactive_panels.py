"""The panels without a browser: clicks, strokes and fields become choices, and what is not allowed is said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ipywidgets", reason="of the lab extra: make lab")
pytest.importorskip("anywidget", reason="of the lab extra: make lab")

from panacea_nb.instrument import channel
from panacea_nb.interactive import draw, panels
from panacea_nb.interactive.choices import Choices
from panacea_nb.interactive.there import Entry
from panacea_nb.interactive.work import OtherRunError
from panacea_nb.products.layout import Layout
from panacea_nb.reduce.refraction import Refraction

NIGHT = "20250115"
ENTRIES = [
    Entry("uv", 4, 1, "STAR_056_E", "STANDARDS", True, True, 120.0, ("05_extract",)),
    Entry("uv", 5, 1, "NGC_1_056_E", "P1", True, False, 900.0, ("05_extract",)),
    Entry("uv", 5, 2, "NGC_1_056_E", "P1", True, False, 900.0, ("05_extract",)),
    Entry("orange", 5, 1, "NGC_1_056_E", "P1", True, False, 900.0, ("05_extract",)),
]
POSITIONS = channel("uv").fiber_positions()
FIBERS = np.arange(280) < 30


class FakeWork(panels.Work):
    """A run of which nothing is read."""

    def __init__(self, path) -> None:
        self.path, self.entries = path, ENTRIES
        self.choices = Choices({"night": NIGHT, "sides": "uv,orange", "object": "NGC_1_056_E"})

    def loaded(self):
        return Choices.load(self.path)

    def model(self, side, name):
        return SimpleNamespace(facts=channel(side))


@pytest.fixture
def panel(tmp_path, monkeypatch):
    """A panel that shows a source at 0.5, -0.5 and draws nothing."""
    monkeypatch.setattr(panels, "Work", FakeWork)
    monkeypatch.setattr(panels.ExplorePanel, "refresh", lambda self: None)
    made = panels.ExplorePanel(tmp_path / "choices.yaml")
    even = SimpleNamespace(positions=POSITIONS, refraction=Refraction([3000.0, 5000.0], [0.0, 1.0], [0.0, 0.0]))
    sky = SimpleNamespace(field=SimpleNamespace(sky=SimpleNamespace(fibers=FIBERS)))
    source = SimpleNamespace(x=0.5, y=-0.5)
    made.shown = SimpleNamespace(
        found=SimpleNamespace(source=source), even=even, sky=sky, centre=4000.0, digest=lambda: "ab"
    )
    made.canvas.put(draw.Picture(b"", "", (0.0, 0.0, 1.0, 1.0), (-7.0, -4.0, 7.0, 4.0)))
    return made


def click(panel, *places: tuple[float, float]) -> None:
    """Press and release on the image, at places given in arcsec, as the browser tells it."""
    points = [[(x + 7) / 14, (4 - y) / 8] for x, y in places]
    panel.canvas.event = {"points": points, "count": panel.canvas.event.get("count", 0) + 1}


def test_the_target_comes_with_its_exposures_on_the_channels_chosen(panel):
    assert panel.target.options == ("NGC_1_056_E", "STAR_056_E")
    assert [label for label, _ in panel.exposure.options] == [
        "uv: 5 exp 1, 900 s",
        "uv: 5 exp 2, 900 s",
        "orange: 5 exp 1, 900 s",
    ]
    panel.sides.value = ("orange",)
    assert panel.choices.sides == ("orange",)
    assert panel.entry == ENTRIES[3]
    panel.left_out.value = ("0000005_exp02",)
    assert panel.choices.leave_out == ("0000005_exp02",)


def test_a_click_places_the_source_and_arrow_keys_move_it(panel):
    click(panel, (1.234, -0.8))
    assert (panel.choices.source_x, panel.choices.source_y) == (1.234, -0.8)
    assert (panel.source_x.value, panel.source_y.value) == ("1.234", "-0.8")
    panel.canvas.event = {"key": "ArrowUp", "points": [], "count": 99}
    assert (panel.choices.source_x, panel.choices.source_y) == (0.5, -0.4)  # from where the source was found
    panel.search.click()
    assert panel.choices.source_x is None
    panel.source_x.value = "2"
    assert (panel.choices.source_x, panel.choices.source_y) == (2.0, -0.5)
    panel.undo_button.click()
    assert panel.choices.source_x is None


def test_clicks_place_regions(panel):
    panel.purpose.value = panels.SKY
    click(panel, (1.0, -1.0))
    assert (panel.choices.sky_mode, panel.choices.sky_region) == ("region", "annulus(1,-1,2.5,4)")
    panel.add.value, panel.shape.value = True, "circle"
    click(panel, (-3.0, 2.0))
    assert panel.choices.sky_region == "annulus(1,-1,2.5,4)+circle(-3,2,2.5)"
    assert panel.sky_what.value == panel.choices.sky_region
    panel.add.value, panel.shape.value, panel.purpose.value = False, "ellipse", panels.OBJECT
    click(panel, (0.0, 0.0))
    assert panel.choices.sky_exclude == "ellipse(0,0,2,1,0)"
    panel.purpose.value = panels.SUM
    click(panel, (0.5, 0.5))
    assert (panel.choices.extraction, panel.choices.extract_region) == ("extended", "ellipse(0.5,0.5,2,1,0)")
    assert panel.extraction.value == "extended"


def test_a_stroke_paints_fibres(panel):
    panel.purpose.value = panels.PAINT
    start, end = POSITIONS[100], POSITIONS[103]
    click(panel, tuple(start), tuple(end))
    touched = {f + 1 for f in draw.fiber_at(panel.shown.even, [tuple(start), tuple(end)])}
    assert {101, 104} <= touched
    assert panel.choices.sky_mode == "mask"
    assert panels.numbers(panel.choices.sky_mask) == touched
    panel.purpose.value = panels.ERASE
    click(panel, tuple(start))
    assert panels.numbers(panel.choices.sky_mask) == touched - {101}
    panel.purpose.value = panels.OFF
    click(panel, tuple(POSITIONS[7]))
    assert panel.choices.dead_fibers == {"uv": "8"}
    click(panel, tuple(POSITIONS[7]))
    assert panel.choices.dead_fibers == {}


def test_erasing_begins_with_the_fibres_that_are_sky(panel):
    panel.purpose.value = panels.ERASE
    click(panel, tuple(POSITIONS[3]))
    assert panel.choices.sky_mask == "1-3,5-30"


def test_what_is_not_allowed_is_said_and_undone(panel):
    panel.sky_mode.value = "region"
    assert panel.choices.sky_region == "annulus(0.50,-0.50,2.5,4)"
    panel.sky_what.value = "square(1,2,3)"
    assert "is no region" in panel.status.value
    assert panel.sky_what.value == panel.choices.sky_region == "annulus(0.50,-0.50,2.5,4)"
    panel.aperture.value = "-1"
    assert "must be greater than 0" in panel.status.value
    assert panel.choices.extraction == "psf"


def test_the_window_moves_and_places_go_with_it(panel):
    panel.choices.set(source_x=1.0, source_y=0.0)
    panel.centre.value = 4500.0
    assert (panel.choices.central_wave, panel.choices.source_x) == (4500.0, 1.25)


def test_saved_choices_fill_the_panel_again(panel):
    click(panel, (1.0, 1.0))
    panel.aperture.value = "2.5"
    panel.save_button.click()
    assert "panacea-nb reduce --config" in panel.status.value
    panel.search.click()
    panel.extraction.value = "psf"
    panel.load_button.click()
    assert (panel.source_x.value, panel.extraction.value, panel.aperture.value) == ("1", "aperture", "2.5")


def test_only_what_was_seen_is_said_to_be_seen(panel):
    panel.current = True
    panel.save()
    assert "# Seen: uv/0000005_exp01, spectrum sha256 ab" in panel.work.path.read_text()
    panel.current = False  # the last change could not be computed
    panel.save()
    assert "# Seen" not in panel.work.path.read_text()


def test_choices_of_another_night_are_not_taken(tmp_path):
    work = object.__new__(panels.Work)
    work.layout, work.path = Layout(tmp_path / "out", NIGHT), tmp_path / "choices.yaml"
    Choices({"night": "20250116", "output": str(tmp_path / "out")}).save(work.path)
    with pytest.raises(OtherRunError, match=r"choices\.yaml holds choices for night 20250116 .*: name another file"):
        work.loaded()
    Choices({"night": NIGHT, "output": str(tmp_path / "out"), "tag": "deep"}).save(work.path)
    assert work.loaded().tag == "deep"


def test_another_target_begins_without_places(panel):
    click(panel, (1.0, 1.0))
    panel.target.value = "STAR_056_E"
    assert (panel.choices.object, panel.choices.source_x, panel.choices.sky_mode) == ("STAR_056_E", None, "auto")
    assert panel.entry == ENTRIES[0]
