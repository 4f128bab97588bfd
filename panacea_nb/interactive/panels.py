"""The panel of interactive_explore.ipynb: choose target and exposures, place source and sky, see the spectrum."""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ipywidgets as w
import numpy as np

from ..errors import PanaceaError
from ..qa.figures.canvas import printable
from ..workflow.checks import EXTRACTIONS, SKY_REFINEMENTS, as_fibers
from . import draw, single_threaded, there
from .canvas import Canvas
from .choices import Choices
from .fiberlist import numbers
from .model import ExposureModel, Shown, moved
from .twin import Twin
from .work import Work

SOURCE, SKY, OBJECT, SUM, PAINT, ERASE, OFF = (
    "source", "sky region", "never sky", "sum over", "paint sky fibres", "erase them", "fibres off or on",
)  # fmt: skip
PURPOSES = (SOURCE, SKY, OBJECT, SUM, PAINT, ERASE, OFF)
SHAPES = ("circle", "annulus", "ellipse")
NUDGE = {"ArrowLeft": (-0.1, 0.0), "ArrowRight": (0.1, 0.0), "ArrowUp": (0.0, 0.1), "ArrowDown": (0.0, -0.1)}
UNITS = {"description_width": "92px"}
NARROW = {"style": {"description_width": "78px"}}


def wide(pixels: int) -> w.Layout:
    """A widget of so many pixels."""
    return w.Layout(width=f"{pixels}px")


class ExplorePanel:
    """Source, sky and extraction of a target's exposures; see `Work` for the parameters."""

    def __init__(self, *arguments: str, **named: str) -> None:
        self.work = Work(*arguments, **named)
        self.shown: Shown | None = None
        self.before: Shown | None = None
        self.current = False  # whether what is shown belongs to the choices as they are
        self.seconds: dict[str, float] = {}
        self.twin = Twin()
        self._filling = False
        self._make_widgets()
        self._fill()
        self._wire()
        self.refresh()

    @property
    def choices(self) -> Choices:
        return self.work.choices

    @property
    def entry(self) -> there.Entry:
        """The exposure that is shown."""
        return self.exposure.value

    # --- widgets -------------------------------------------------------------------------------------------------------
    def _make_widgets(self) -> None:
        text = {"style": UNITS, "continuous_update": False}
        self.target = w.Dropdown(
            options=there.targets(self.work.entries), description="target", layout=wide(330), style=UNITS
        )
        self.sides = w.SelectMultiple(
            options=list(dict.fromkeys(e.channel for e in self.work.entries)), description="channels", rows=4,
            layout=wide(330), style=UNITS,
        )  # fmt: skip
        self.exposure = w.Dropdown(description="shown", layout=wide(330), style=UNITS)
        self.left_out = w.SelectMultiple(description="left out", rows=4, layout=wide(330), style=UNITS)
        self.canvas = Canvas()
        self.centre = w.FloatSlider(description="window [Å]", step=1.0, readout_format=".0f", layout=wide(430), **text)
        self.half = w.BoundedFloatText(description="± [Å]", min=1.0, max=2000.0, step=5.0, layout=wide(180), **text)
        self.purpose = w.ToggleButtons(
            options=PURPOSES, description="a click sets", style={"button_width": "148px"} | UNITS
        )
        self.shape = w.Dropdown(options=SHAPES, value="annulus", description="shape", layout=wide(200), style=UNITS)
        self.add = w.Checkbox(description="add to what is there", indent=False, layout=wide(170))
        sizes = (("r, inner [″]", 2.5), ("outer [″]", 4.0), ("a [″]", 2.0), ("b [″]", 1.0), ("angle [°]", 0.0))
        self.sizes = [w.FloatText(value=v, description=d, layout=wide(145), **text | NARROW) for d, v in sizes]
        self.source_x = w.Text(description="source x", placeholder="searched for", layout=wide(200), **text)
        self.source_y = w.Text(description="y [arcsec]", placeholder="searched for", layout=wide(200), **text)
        self.search = w.Button(description="search for it", layout=wide(110))
        self.sky_mode = w.Dropdown(
            options=("auto", "region", "mask", "exposure", "none"), description="sky", layout=wide(200), style=UNITS
        )
        self.sky_what = w.Text(description="from", layout=wide(420), **text)
        self.sky_exclude = w.Text(description="never sky", layout=wide(420), **text)
        self.refine = w.Dropdown(options=SKY_REFINEMENTS, description="refined by", layout=wide(200), style=UNITS)
        self.extraction = w.Dropdown(options=EXTRACTIONS, description="extraction", layout=wide(200), style=UNITS)
        self.aperture = w.Text(description="radius", placeholder="its FWHM", layout=wide(200), **text)
        self.region = w.Text(description="sum over", placeholder="what is bright", layout=wide(420), **text)
        self.telluric = w.Dropdown(options=("none", "mean"), description="telluric", layout=wide(200), style=UNITS)
        self.tag = w.Text(description="tag", placeholder="none", layout=wide(200), **text)
        self.off = w.Text(description="fibres off", layout=wide(420), **text)
        self.file = w.Text(value=self.work.file, description="file", layout=wide(420), **text)
        self.save_button = w.Button(description="save", button_style="primary", layout=wide(90))
        self.load_button = w.Button(description="load", layout=wide(90))
        self.undo_button = w.Button(description="undo", layout=wide(90))
        self.status = w.HTML()
        self.spectrum, self.residual = Canvas(label="spectrum"), Canvas(label="residual of the fibres")

    def widget(self) -> w.Widget:
        """The whole panel."""
        choose = w.HBox([w.VBox([self.target, self.exposure]), self.sides, self.left_out])
        a_click = w.VBox([self.purpose, w.HBox([self.shape, self.add, *self.sizes])])
        look = w.VBox([self.canvas, w.HBox([self.centre, self.half])])
        source = w.HBox([self.source_x, self.source_y, self.search])
        sky = w.VBox([source, w.HBox([self.sky_mode, self.refine]), self.sky_what, self.sky_exclude, self.off])
        extract = w.VBox([w.HBox([self.extraction, self.aperture]), self.region, w.HBox([self.telluric, self.tag])])
        keep = w.VBox([self.file, w.HBox([self.save_button, self.load_button, self.undo_button])])
        fields = w.HBox([sky, w.VBox([extract, keep])])
        return w.VBox([choose, a_click, self.status, w.HBox([look, self.residual]), self.spectrum, fields])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget())

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Widgets are filled from the choices: that is no change of them."""
        before, self._filling = self._filling, True
        try:
            yield
        finally:
            self._filling = before

    def _fill(self) -> None:
        """Bring all widgets to the choices."""
        chosen = self.choices
        with self._quiet():
            names = [n for n in self.target.options if chosen.object.lower() in n.lower()]
            self.target.value = names[0] if names else self.target.options[0]
            self.sides.value = tuple(side for side in self.sides.options if side in chosen.sides)
            some = self.work.of_target()
            shown = next(
                (
                    e
                    for e in some
                    if self.exposure.value and (e.channel, e.name) == (self.entry.channel, self.entry.name)
                ),
                None,
            )
            self.exposure.options = [(f"{e.channel}: {e.label}", e) for e in some]
            self.exposure.value = shown or (some[0] if some else None)
            labels = {
                e.name: f"{e.obsid} exp {e.exposure}"
                for e in self.work.entries
                if chosen.object.lower() in e.object_name.lower()
            }
            self.left_out.options = [(label, name) for name, label in labels.items()]
            self.left_out.value = tuple(
                n for n in labels if n in chosen.leave_out or n.partition("_")[0] in chosen.leave_out
            )
            if some:
                facts = self.work.model(self.entry.channel, self.entry.name).facts
                self.centre.min, self.centre.max = min(facts.wave_min, self.centre.max), facts.wave_max
                self.centre.min = facts.wave_min
                inside = chosen.central_wave is not None and facts.wave_min <= chosen.central_wave <= facts.wave_max
                self.centre.value = chosen.central_wave if inside else 0.5 * (facts.wave_min + facts.wave_max)
            self.half.value = chosen.wavelength_bin
            self.source_x.value, self.source_y.value = _text(chosen.source_x), _text(chosen.source_y)
            self.sky_mode.value, self.refine.value = chosen.sky_mode, chosen.sky_refine
            other = (
                ""
                if chosen.sky_obsid is None
                else f"{chosen.sky_obsid}" + (f"_exp{chosen.sky_exp:02d}" if chosen.sky_exp else "")
            )
            self.sky_what.value = {"region": chosen.sky_region, "mask": chosen.sky_mask, "exposure": other}.get(
                chosen.sky_mode, ""
            )
            self.sky_what.placeholder = {
                "region": "annulus(x,y,in,out) + ...", "mask": "1-20,35", "exposure": "observation, as 12 or 12_exp02",
            }.get(chosen.sky_mode, "")  # fmt: skip
            self.sky_exclude.value = chosen.sky_exclude
            self.extraction.value, self.aperture.value = chosen.extraction, _text(chosen.aperture)
            self.region.value, self.tag.value = chosen.extract_region, chosen.tag
            self.telluric.value = chosen.telluric if chosen.telluric in self.telluric.options else "none"
            self.off.value = chosen.dead_fibers.get(self.entry.channel, "") if some else ""

    def _wire(self) -> None:
        """Say what each widget changes."""

        def on(widget: w.Widget, change: Callable[..., object], name: str = "value") -> None:
            widget.observe(lambda event: None if self._filling else self.change(lambda: change(event["new"])), name)

        on(self.target, self.choose_target)
        on(self.sides, lambda value: self.choices.set(sides=tuple(value)))
        on(self.exposure, lambda _: setattr(self, "before", None))
        on(self.left_out, lambda value: self.choices.set(leave_out=tuple(value)))
        on(self.centre, lambda value: self.move_window(value, self.half.value))
        on(self.half, lambda value: self.choices.set(wavelength_bin=value))
        for box in (self.source_x, self.source_y):
            on(box, lambda _: self.place_source(self.source_x.value, self.source_y.value))
        on(self.sky_mode, self.take_sky_mode)
        on(self.sky_what, lambda value: self.take_sky(self.sky_mode.value, value))
        on(self.sky_exclude, lambda value: self.choices.set(sky_exclude=value))
        on(self.refine, lambda value: self.choices.set(sky_refine=value))
        on(self.extraction, lambda value: self.choices.set_extraction(value))
        on(self.aperture, lambda value: self.choices.set_extraction("aperture", aperture=value or None))
        on(self.region, lambda value: self.choices.set_extraction("extended", extract_region=value))
        on(self.telluric, lambda value: self.choices.set(telluric=value))
        on(self.tag, lambda value: self.choices.set(tag=value))
        on(self.off, self.switch_off)
        on(self.file, lambda value: setattr(self.work, "path", Path(value).expanduser().absolute()))
        self.search.on_click(lambda _: self.change(lambda: self.choices.set(source_x=None, source_y=None)))
        self.save_button.on_click(lambda _: self.save())
        self.load_button.on_click(lambda _: self.load())
        self.undo_button.on_click(lambda _: self.undo())
        self.canvas.answers(self.clicked, self.nudge)

    # --- choices -------------------------------------------------------------------------------------------------------
    def change(self, make: Callable[[], object]) -> None:
        """Make a change of the choices and show it; one that is not allowed is said and undone."""
        earlier = self.choices.definition
        try:
            make()
        except (PanaceaError, ValueError) as error:
            self.choices.definition = earlier
            self._fill()
            self._say(html.escape(str(error)), warn=True)
            return
        if self.choices.definition != earlier:
            self._earlier = earlier
        self._fill()
        self.refresh()

    def undo(self) -> None:
        """Take the last change back; a second time, make it again."""
        earlier = getattr(self, "_earlier", None)
        if earlier is not None:
            self.change(lambda: setattr(self.choices, "definition", earlier))

    def choose_target(self, name: str) -> None:
        """Go to another target; places that were chosen in the field of the last one are forgotten."""
        self.choices.set_extraction("psf")
        self.choices.set_sky("auto", source_x=None, source_y=None, sky_exclude="", object=name, leave_out=())
        self.before = None

    def move_window(self, centre: float, half: float) -> None:
        """Move the collapse window; places go with the light."""
        if self.shown is not None:
            path = self.shown.even.path_of(self.shown.found.source)
            self.choices.set(**moved(self.choices, centre, half, path, self.shown.centre))

    def place_source(self, x: float | str, y: float | str) -> None:
        """Put the source somewhere [IFU arcsec]; with one coordinate alone the other is where it was found."""
        found = self.shown.found.source if self.shown else None
        if x in ("", None) and y in ("", None):
            self.choices.set(source_x=None, source_y=None)
            return
        x = (round(found.x, 3) if found else 0.0) if x in ("", None) else x
        y = (round(found.y, 3) if found else 0.0) if y in ("", None) else y
        self.choices.set(source_x=x, source_y=y)

    def nudge(self, key: str) -> None:
        """Move the source by a tenth of an arcsecond."""
        source = self.shown.found.source if self.shown else None
        if source is not None and key in NUDGE:
            dx, dy = NUDGE[key]
            self.change(lambda: self.place_source(round(source.x + dx, 3), round(source.y + dy, 3)))

    def take_sky_mode(self, mode: str) -> None:
        """Go to another mode of the sky; one that needs more begins with what is at hand."""
        source = self.shown.found.source if self.shown else None
        if mode == "region":
            x, y = (source.x, source.y) if source else (0.0, 0.0)
            self.choices.set_sky(
                "region", sky_region=f"annulus({x:.2f},{y:.2f},{self.sizes[0].value:g},{self.sizes[1].value:g})"
            )
        elif mode == "mask":
            self.choices.set_sky("mask", sky_mask=self._sky_fibers())
        elif mode == "exposure":
            other = next(
                (
                    e
                    for e in self.work.entries
                    if e.channel == self.entry.channel and e.name != self.entry.name and e.ready
                ),
                None,
            )
            if other is None:
                raise PanaceaError("there is no other exposure of this channel to take the sky from")
            self.choices.set_sky("exposure", sky_obsid=other.obsid, sky_exp=other.exposure)
        else:
            self.choices.set_sky(mode)

    def take_sky(self, mode: str, text: str) -> None:
        """Take what is written in the field beside the mode."""
        if mode == "exposure":
            obsid, _, exp = text.partition("_exp")
            self.choices.set_sky("exposure", sky_obsid=obsid, sky_exp=exp or None)
        elif mode in ("region", "mask"):
            self.choices.set_sky(mode, **{f"sky_{mode}": text})

    def _sky_fibers(self) -> str:
        """The fibres that are sky now, as a list."""
        if self.choices.sky_mode == "mask":
            return self.choices.sky_mask
        fibers = np.flatnonzero(self.shown.sky.field.sky.fibers) + 1 if self.shown else range(1, 11)
        return as_fibers(",".join(map(str, fibers)))

    def switch_off(self, text: str) -> None:
        """Switch fibres of the channel off: a list of their numbers."""
        self.choices.set(dead_fibers={**self.choices.dead_fibers, self.entry.channel: text})

    def clicked(self, places: list[tuple[float, float]]) -> None:
        """Do what a click or stroke on the image is for."""
        inside = [place for place in places if self.canvas.picture and self.canvas.picture.inside(*place)]
        if inside and self.shown is not None:
            self.change(lambda: self._clicked(inside))

    def _clicked(self, places: list[tuple[float, float]]) -> None:
        x, y = places[0]
        purpose = self.purpose.value
        if purpose == SOURCE:
            self.place_source(round(x, 3), round(y, 3))
        elif purpose in (PAINT, ERASE, OFF):
            self._paint(purpose, draw.fiber_at(self.shown.even, places))
        else:
            options = {SKY: "sky_region", OBJECT: "sky_exclude", SUM: "extract_region"}
            held = getattr(self.choices, options[purpose]) if self.add.value else ""
            text = "+".join(filter(None, (held, self._shape_at(x, y))))
            if purpose == SKY:
                self.choices.set_sky("region", sky_region=text)
            elif purpose == OBJECT:
                self.choices.set(sky_exclude=text)
            else:
                self.choices.set_extraction("extended", extract_region=text)

    def _shape_at(self, x: float, y: float) -> str:
        inner, outer, a, b, angle = (box.value for box in self.sizes)
        numbers = {"circle": (inner,), "annulus": (inner, outer), "ellipse": (a, b, angle)}[self.shape.value]
        return f"{self.shape.value}({','.join(f'{v:g}' for v in (round(x, 2), round(y, 2), *numbers))})"

    def _paint(self, purpose: str, fibers: list[int]) -> None:
        touched = {fiber + 1 for fiber in fibers}
        if purpose == OFF:
            held = numbers(self.choices.dead_fibers.get(self.entry.channel, ""))
            self.switch_off(",".join(map(str, sorted(held ^ touched))))
            return
        # The first stroke begins a mask of its own; erasing begins with the fibres that are sky now.
        held = numbers(self.choices.sky_mask if purpose == PAINT else self._sky_fibers())
        chosen = held | touched if purpose == PAINT else held - touched
        self.choices.set_sky("mask", sky_mask=as_fibers(",".join(map(str, sorted(chosen)))))

    def save(self) -> None:
        """Write the choices to the file."""
        with self._reported():
            # What could not be computed was not seen.
            seen = {f"{self.entry.channel}/{self.entry.name}": self.shown.digest()} if self.current else {}
            self._say(self.work.save(seen))

    def load(self) -> None:
        """Take the choices from the file."""
        self.change(lambda: setattr(self.work, "choices", self.work.loaded()))

    # --- showing -------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Compute what the choices change and draw it: of a new sky a first look, then what a reduction gives."""
        if not self.exposure.value:
            self._say("no exposure of this target has been extracted on the channels that were chosen", warn=True)
            return
        start, self.current = time.perf_counter(), False
        with self._reported():
            model = self.work.model(self.entry.channel, self.entry.name)
            before = self.shown
            quick = model.show(self.choices, first_look=True)
            if quick is not None:
                self._draw(model, quick, before)
                self.seconds["first look"] = time.perf_counter() - start
                self._say(f"first look after {self.seconds['first look']:.1f} s; the exact sky follows ...")
            exact = model.show(self.choices)
            self._draw(model, exact, before)
            self.seconds["exact"] = time.perf_counter() - start
            self.shown, self.before, self.current = exact, before, True
            self._say(self._facts(exact))
            self.twin.put(self._together(), self.choices.to_yaml(self.work.path))

    def _draw(self, model: ExposureModel, shown: Shown, before: Shown | None) -> None:
        self.spectrum.put(draw.spectrum(shown, _same(before, shown)))  # first: it is what is waited for
        image, spaxels = model.image(shown)
        chosen = self.choices
        regions = {"sky": chosen.sky_region, "never sky": chosen.sky_exclude, "sum": chosen.extract_region}
        title = f"{printable(self.entry.object_name)}, {self.entry.channel}, {self.entry.label}"
        self.canvas.put(draw.field(shown, image, spaxels, regions, title))
        self.residual.put(draw.residual(shown))

    def _together(self) -> draw.Picture:
        return draw.together([[self.canvas.picture, self.residual.picture], [self.spectrum.picture]])

    def _facts(self, shown: Shown) -> str:
        source = shown.found.source
        what = "no source" if source is None else (
            f"source {'placed' if source.fixed else 'found'} at {source.x:.3f}, {source.y:.3f} arcsec, S/N {source.snr:.1f}, "
            f"FWHM {source.fwhm:.2f} arcsec"
        )  # fmt: skip
        warned = [d.text for d in shown.decisions if d.severity == "warn"]
        facts = f"{what}; {int(shown.sky.field.sky.fibers.sum())} sky fibres, RMS {shown.sky.field.sky.chi:.3f}"
        chosen = self.choices
        placed = chosen.source_x is not None or chosen.sky_region or chosen.sky_exclude or chosen.extract_region
        if placed and len(chosen.sides) > 1:
            warned.append(
                f"places hold at the centre of the window, in each of {', '.join(chosen.sides)} at its own: choose one channel and "
                "save a file for each, or look at all of them"
            )
        if not single_threaded():
            warned.append(
                "numpy was imported before the panel: the last bits may differ from a reduction; restart the kernel"
            )
        return f"{facts}; {self.seconds['exact']:.2f} s" + "".join(f"<br>⚠ {html.escape(text)}" for text in warned)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (PanaceaError, np.linalg.LinAlgError, OSError) as error:
            self._say(html.escape(str(error)), warn=True)

    def _say(self, text: str, *, warn: bool = False) -> None:
        self.status.value = f'<span style="color:{"#b00020" if warn else "#333333"};line-height:1.4">{text}</span>'


def _same(before: Shown | None, shown: Shown) -> Shown | None:
    """The state before, when it is of the same exposure."""
    return before if before is not None and np.array_equal(before.even.grid, shown.even.grid) else None


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
