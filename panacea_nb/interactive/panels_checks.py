"""The panel of interactive_checks.ipynb: arc lines, fibres, skies side by side, cosmic rays, the combination."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator
from pathlib import Path

import ipywidgets as w
import numpy as np

from ..errors import PanaceaError
from ..products import cosmicmarks
from . import again, checks, draw, draw_checks, there
from .canvas import Canvas
from .choices import Choices
from .fiberlist import numbers
from .model import ExposureModel
from .twin import Twin
from .work import Work

TABS = ("arc lines", "fibres", "skies side by side", "cosmic rays", "combination")
ARCS, FIBERS, SKIES, COSMICS, COMBINE = range(5)
UNITS = {"description_width": "92px"}


def wide(pixels: int) -> w.Layout:
    """A widget of so many pixels."""
    return w.Layout(width=f"{pixels}px")


class ChecksPanel:
    """Inspection of one exposure and of its channel's calibrations; see `Work` for the parameters."""

    def __init__(self, *arguments: str, **named: str) -> None:
        self.work = Work(*arguments, **named)
        self.twins = [Twin() for _ in TABS]
        self.canvases = [Canvas(label=name) for name in TABS]
        self._arcs: dict[str, checks.Arcs] = {}
        self._filling = False
        ready = [e for e in self.work.entries if e.ready]
        ordered = sorted(
            ready, key=lambda e: (self.work.choices.object.lower() not in e.object_name.lower(), e.is_standard)
        )
        self.exposure = w.Dropdown(
            options=[(f"{e.channel}: {e.object_name}, {e.label}", e) for e in ordered], description="exposure",
            layout=wide(520), style=UNITS,
        )  # fmt: skip
        text = {"style": UNITS, "continuous_update": False}
        self.fiber = w.BoundedIntText(value=140, min=1, max=280, description="fibre", layout=wide(180), **text)
        self.lines = w.SelectMultiple(description="left out", rows=6, layout=wide(330), style=UNITS)
        self.off = w.Text(description="fibres off", layout=wide(520), **text)
        self.skies = w.SelectMultiple(description="compare", rows=7, layout=wide(420), style=UNITS)
        self.take = w.Dropdown(description="take", layout=wide(420), style=UNITS)
        self.column = w.BoundedIntText(value=1000, min=1, max=2064, description="column", layout=wide(180), **text)
        self.row = w.BoundedIntText(value=1000, min=1, max=2064, description="row", layout=wide(180), **text)
        self.tracks = w.Dropdown(description="largest", layout=wide(330), style=UNITS)
        self.unmark = w.Button(description="take last mark back", layout=wide(170))
        self.sides = w.SelectMultiple(
            options=list(dict.fromkeys(e.channel for e in ready)),
            description="channels",
            rows=4,
            layout=wide(260),
            style=UNITS,
        )
        self.left_out = w.SelectMultiple(description="left out", rows=4, layout=wide(260), style=UNITS)
        self.frames = [
            w.Checkbox(description=n.replace("_", " "), indent=False)
            for n in ("barycentric", "vacuum", "match_resolution")
        ]
        self.file = w.Text(value=self.work.file, description="file", layout=wide(520), **text)
        self.save_button = w.Button(description="save", button_style="primary", layout=wide(90))
        self.load_button = w.Button(description="load", layout=wide(90))
        self.status, self.table = w.HTML(), w.HTML()
        self.tabs = w.Tab(
            [
                w.VBox([w.HBox([self.lines, self.fiber]), self.canvases[ARCS], self.table]),
                w.VBox([w.HBox([self.off]), self.canvases[FIBERS]]),
                w.VBox([w.HBox([self.skies, self.take]), self.canvases[SKIES]]),
                w.VBox([w.HBox([self.column, self.row, self.tracks, self.unmark]), self.canvases[COSMICS]]),
                w.VBox([w.HBox([self.sides, self.left_out, w.VBox(self.frames)]), self.canvases[COMBINE]]),
            ],
            titles=TABS,
        )
        self._fill()
        self._wire()
        self.refresh(*range(len(TABS)))

    @property
    def choices(self) -> Choices:
        return self.work.choices

    @property
    def entry(self) -> there.Entry:
        return self.exposure.value

    @property
    def model(self) -> ExposureModel:
        return self.work.model(self.entry.channel, self.entry.name)

    @property
    def arcs(self) -> checks.Arcs:
        channel = self.entry.channel
        if channel not in self._arcs:
            self._arcs[channel] = checks.Arcs(self.work.layout, channel)
        return self._arcs[channel]

    @property
    def regions(self) -> dict[str, dict]:
        """Skies to compare beside the usual ones: what was chosen, and that of another exposure."""
        chosen, found = self.choices, {}
        if chosen.sky_mode in ("region", "mask"):
            name = f"sky_{chosen.sky_mode}"
            found[f"{chosen.sky_mode} {getattr(chosen, name)}"[:60]] = {
                "sky_mode": chosen.sky_mode,
                name: getattr(chosen, name),
            }
        for other in self.work.entries:
            if other.channel == self.entry.channel and other.name != self.entry.name and "06_sky" in other.stages:
                found[f"exposure {other.name}"] = {
                    "sky_mode": "exposure",
                    "sky_obsid": other.obsid,
                    "sky_exp": other.exposure,
                }
        return found

    def _ipython_display_(self) -> None:
        from IPython.display import display

        keep = w.HBox([self.file, self.save_button, self.load_button])
        display(w.VBox([self.exposure, self.status, self.tabs, keep]))

    def show_twins(self) -> None:
        """Static figures of all tabs, kept up to date."""
        for twin in self.twins:
            twin.show(with_text=twin is self.twins[-1])

    # --- widgets -------------------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        chosen, channel = self.choices, self.entry.channel
        before, self._filling = self._filling, True
        with contextlib.suppress(PanaceaError):
            waves = [f"{wave:.3f}".rstrip("0").rstrip(".") for wave in self.arcs.lines["wavelength"]]
            self.lines.options = [(f"{wave} Å", wave) for wave in waves]
            dropped = [float(text) for text in chosen.drop_lines.get(channel, "").split(",") if text]
            self.lines.value = [wave for wave in waves if any(abs(float(wave) - one) < 0.5 for one in dropped)]
        self.off.value = chosen.dead_fibers.get(channel, "")
        names = [*checks.SKIES, *self.regions]
        self.skies.options = names
        self.skies.value = [name for name in self.skies.value if name in names] or [
            "auto",
            "auto, polynomial",
            *(n for n in self.regions if not n.startswith("exposure")),
        ]
        self.take.options = ["as it is", *names]
        self.take.value = "as it is"
        with contextlib.suppress(PanaceaError):
            tracks = checks.brightest_cosmics(self.model, chosen)
            self.tracks.options = [
                ("go to one of the largest tracks", ()),
                *((f"column {x}, row {y}: {n} pixels", (x, y)) for x, y, n in tracks),
            ]
            if tracks and (self.column.value, self.row.value) == (1000, 1000):
                self.column.value, self.row.value = tracks[0][:2]
        self.sides.value = [side for side in self.sides.options if side in chosen.sides]
        own = list(dict.fromkeys(e.name for e in self._of_target()))
        self.left_out.options = own
        self.left_out.value = [n for n in own if n in chosen.leave_out or n.partition("_")[0] in chosen.leave_out]
        for box in self.frames:
            box.value = getattr(chosen, box.description.replace(" ", "_"))
        self._filling = before

    def _of_target(self) -> list[there.Entry]:
        return [e for e in self.work.entries if e.object_name == self.entry.object_name]

    def _wire(self) -> None:
        def on(widget: w.Widget, change: Callable[..., object], *tabs: int) -> None:
            widget.observe(
                lambda event: None if self._filling else self.change(lambda: change(event["new"]), *tabs), "value"
            )

        def by_channel(option: str) -> Callable[[str], object]:
            return lambda text: self.choices.set(
                **{option: {**getattr(self.choices, option), self.entry.channel: text}}
            )

        on(self.exposure, lambda _: None, *range(len(TABS)))
        on(self.lines, lambda value: by_channel("drop_lines")(",".join(value)), ARCS)
        on(self.fiber, lambda _: None, ARCS, FIBERS)
        on(self.off, by_channel("dead_fibers"), FIBERS, SKIES)
        on(self.skies, lambda _: None, SKIES)
        on(
            self.take,
            lambda name: None if name == "as it is" else checks.take_sky(self.choices, name, self.regions),
            SKIES,
        )
        on(self.column, lambda _: None, COSMICS)
        on(self.row, lambda _: None, COSMICS)
        on(self.tracks, self._go_to, COSMICS)
        on(self.sides, lambda value: self.choices.set(sides=tuple(value)), COMBINE)
        on(self.left_out, lambda value: self.choices.set(leave_out=tuple(value)), COMBINE)
        for box in self.frames:
            name = box.description.replace(" ", "_")
            on(box, lambda value, name=name: self.choices.set(**{name: value}), COMBINE)
        on(self.file, lambda value: setattr(self.work, "path", Path(value).expanduser().absolute()))
        self.unmark.on_click(lambda _: self.change(self._take_back, COSMICS))
        self.save_button.on_click(lambda _: self.save())
        self.load_button.on_click(
            lambda _: self.change(lambda: setattr(self.work, "choices", self.work.loaded()), *range(len(TABS)))
        )
        for canvas, clicked in ((ARCS, self._click_line), (FIBERS, self._click_fiber), (COSMICS, self._click_pixel)):
            self.canvases[canvas].answers(clicked, lambda key: None)

    def _go_to(self, place: tuple[int, ...]) -> None:
        if place:
            self._filling = True
            self.column.value, self.row.value = place
            self._filling = False

    def _click_line(self, places: list[tuple[float, float]]) -> None:
        picture = self.canvases[ARCS].picture
        if picture is None or not picture.limits[0] <= places[0][0] <= picture.limits[2]:
            return
        waves = [value for _, value in self.lines.options]
        nearest = min(waves, key=lambda wave: abs(float(wave) - places[0][0]))
        chosen = set(self.lines.value) ^ {nearest}
        self.lines.value = [wave for wave in waves if wave in chosen]

    def _click_fiber(self, places: list[tuple[float, float]]) -> None:
        picture = self.canvases[FIBERS].picture
        if picture is None or not picture.inside(*places[0]):
            return  # the trace beside it
        fiber = int(np.clip(round(places[0][0]), 1, self.arcs.level.size))
        self.fiber.value = fiber
        self.off.value = ",".join(map(str, sorted(numbers(self.off.value) ^ {fiber})))

    # --- cosmic rays ---------------------------------------------------------------------------------------------------
    @property
    def marks(self) -> list[cosmicmarks.Mark]:
        return cosmicmarks.load(self.choices.cosmics_file) if self.choices.cosmics_file else []

    def _keep_marks(self, marks: list[cosmicmarks.Mark]) -> None:
        path = self.work.path.parent / checks.MARKS_FILE
        cosmicmarks.save(path, marks)
        self.choices.set(cosmics_file=str(path) if marks else "")

    def _click_pixel(self, places: list[tuple[float, float]]) -> None:
        picture = self.canvases[COSMICS].picture
        inside = [place for place in places if picture is not None and picture.inside(*place)]
        if not inside:
            return
        shape = self.model.spectra(self.choices)["cosmics"].shape
        ends = [again.nearest_pixel(x - 1, y - 1, shape) for x, y in (inside[0], inside[-1])]
        cosmics = self.model.spectra(self.choices).flag("cosmics")
        marks = checks.toggled(self.marks, self.model, cosmics, (*ends[0], *ends[1]))
        self.change(lambda: self._keep_marks(marks), COSMICS)

    def _take_back(self) -> None:
        own = [mark for mark in self.marks if mark.exposure == self.model.label]
        if own:
            self._keep_marks([mark for mark in self.marks if mark != own[-1]])

    # --- showing -------------------------------------------------------------------------------------------------------
    def change(self, make: Callable[[], object], *tabs: int) -> None:
        """Make a change and draw the tabs that it concerns; one that is not allowed is said and undone."""
        earlier = self.choices.definition
        with self._reported():
            try:
                make()
            except (PanaceaError, ValueError):
                self.choices.definition = earlier
                self._fill()
                raise
            self._fill()
            self.refresh(*tabs)

    def refresh(self, *tabs: int) -> None:
        """Draw some tabs anew."""
        makers = (self._draw_arcs, self._draw_fibers, self._draw_skies, self._draw_cosmics, self._draw_combination)
        for tab in tabs:
            with self._reported():
                picture = makers[tab]()
                self.canvases[tab].put(picture)
                self.twins[tab].put(picture, self.choices.to_yaml(self.work.path))
        for twin in self.twins:
            twin.text = self.choices.to_yaml(self.work.path)

    def _draw_arcs(self) -> draw.Picture:
        dropped = self.choices.drop_lines.get(self.entry.channel, "")
        solution = self.arcs.solve(dropped)
        rows = "".join(
            f"<tr><td>{wave:.2f}</td><td>{used}</td><td>{middle:+.3f}</td><td>{spread:.3f}</td></tr>"
            for wave, used, middle, spread in checks.line_table(solution)
        )
        head = "<tr><th>line [Å]</th><th>fibres</th><th>residual [px]</th><th>spread [px]</th></tr>"
        self.table.value = f"<table cellpadding='3'>{head}{rows}</table>"
        return draw_checks.arc_lines(
            self.arcs, solution, [float(x) for x in dropped.split(",") if x], self.fiber.value - 1
        )

    def _draw_fibers(self) -> draw.Picture:
        off = numbers(self.choices.dead_fibers.get(self.entry.channel, ""))
        return draw_checks.fiber_levels(self.arcs, off, self.fiber.value - 1)

    def _draw_skies(self) -> draw.Picture:
        return draw_checks.skies(checks.skies(self.model, self._own(), self.skies.value, self.regions))

    def _own(self) -> Choices:
        """The choices as if they had been made for the exposure that is looked at."""
        own = Choices(self.choices.definition.to_dict())
        own.set(
            object=self.entry.object_name, leave_out=(), obsid=None, exp=None, sides=(self.entry.channel, *own.sides)
        )
        return own

    def _draw_cosmics(self) -> draw.Picture:
        cut = checks.cutout(self.model, self.choices, self.column.value, self.row.value)
        return draw_checks.cosmic_rays(cut, len(self.model.marks(self.choices)))

    def _draw_combination(self) -> draw.Picture:
        return draw_checks.combination(checks.Combination(self.work.layout, self._of_target()).combine(self.choices))

    def save(self) -> None:
        """Write the choices to the file."""
        with self._reported():
            self.status.value = self.work.save()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (PanaceaError, ValueError, np.linalg.LinAlgError, OSError) as error:
            self.status.value = f'<span style="color:#b00020">{html.escape(str(error))}</span>'
