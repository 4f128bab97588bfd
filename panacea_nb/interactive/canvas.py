"""The widget that shows an image and tells where it was clicked or painted on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from .draw import Picture


class Canvas(anywidget.AnyWidget):
    """A PNG that answers; places are told in the data's own coordinates to the function given to `answers`."""

    _esm = Path(__file__).with_name("canvas.js")
    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("image: click to place, arrow keys move the source").tag(sync=True)
    event = traitlets.Dict({}).tag(sync=True)

    picture: Picture | None = None

    def put(self, picture: Picture) -> None:
        """Show a picture."""
        self.picture = picture
        self.alt = picture.alt
        self.png = picture.png

    def answers(self, clicked: Callable[[list[tuple[float, float]]], None], keyed: Callable[[str], None]) -> None:
        """Call ``clicked`` with the places of a click or stroke, ``keyed`` with the name of an arrow key."""

        def tell(change: dict) -> None:
            event = change["new"]
            if event.get("key"):
                keyed(str(event["key"]))
            elif self.picture is not None and event.get("points"):
                clicked([self.picture.place(float(x), float(y)) for x, y in event["points"]])

        self.observe(tell, "event")
