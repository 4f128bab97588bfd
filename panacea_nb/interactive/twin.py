"""Static twins: a figure and the choices of the same state, which stay in the notebook when the widgets are gone."""

from __future__ import annotations

from typing import Any

from .draw import Picture


class Twin:
    """The last picture of a panel and the text of its choices; shown outputs follow each change."""

    def __init__(self) -> None:
        self.picture: Picture | None = None
        self.text = ""
        self._handles: list[tuple[Any, Any]] = []

    def put(self, picture: Picture, text: str) -> None:
        """Take a new state, and show it where the twin is shown."""
        self.picture, self.text = picture, text
        for image, choices in self._handles:
            image.update(self._image(picture))
            if choices is not None:
                choices.update(self._code(text))

    def show(self, *, with_text: bool = True) -> None:
        """Show picture and choices here; they are kept up to date while the kernel lives."""
        from IPython.display import display

        if self.picture is None:
            print("nothing is shown yet")
            return
        image = display(self._image(self.picture), display_id=True)
        choices = display(self._code(self.text), display_id=True) if with_text else None
        self._handles = [(image, choices)]

    @staticmethod
    def _image(picture: Picture) -> Any:
        from IPython.display import Image

        return Image(data=picture.png, format="png", alt=picture.alt)

    @staticmethod
    def _code(text: str) -> Any:
        from IPython.display import Code

        return Code(text, language="yaml")
