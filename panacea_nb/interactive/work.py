"""What the panels share: the run, the choices, and the models of its exposures."""

from __future__ import annotations

import html
from pathlib import Path

from ..errors import PanaceaError, RequestError
from ..products.layout import Layout, locate
from . import there
from .choices import FILE, Choices
from .model import ExposureModel


class OtherRunError(RequestError):
    """A file of choices was made for another run."""


class Work:
    """What both panels share: the run, the choices, and the models of its exposures.

    Parameters
    ----------
    output, night, tag, baseraw : str, as in the notebooks of the stages
    choices : str, file of the choices: they are loaded when it is there
    """

    def __init__(self, output: str, night: str, tag: str = "", baseraw: str = "", choices: str = FILE) -> None:
        self.layout = Layout.locate(output, night, tag)
        self.path = Path(choices).expanduser().absolute()
        begun = {"baseraw": str(locate(baseraw))} if baseraw else {}
        self.choices = self.loaded() if self.path.is_file() else Choices.of_run(self.layout, **begun)
        self.baseraw = begun.get("baseraw") or self.choices.baseraw
        self.entries = there.entries(self.layout, self.baseraw)
        self.models: dict[tuple[str, str], ExposureModel] = {}
        if not any(entry.ready for entry in self.entries):
            raise PanaceaError(
                f"no exposure under {self.layout.work_dir} has been extracted yet: reduce the night first, "
                f"at least until 05_extract (panacea-nb reduce -d {night} --until 05)"
            )
        if not self.path.is_file():
            ready = [entry for entry in self.entries if entry.ready]
            name = self.choices.object.lower()
            known = any(name and name in entry.object_name.lower() for entry in ready)
            sides = tuple(dict.fromkeys(entry.channel for entry in ready))
            self.choices.set(sides=sides, **({} if known else {"object": there.targets(self.entries)[0]}))

    def loaded(self) -> Choices:
        """The choices in the file.

        Raises
        ------
        OtherRunError
            If they are for another night or root than the one that is worked on.
        """
        found = Choices.load(self.path)
        other = Path(found.output).expanduser().absolute()
        if found.night != self.layout.night or other.resolve() != self.layout.output.resolve():
            raise OtherRunError(
                f"{self.path.name} holds choices for night {found.night} under {other}, not for {self.layout.night} under "
                f"{self.layout.output}: name another file (parameter 'choices'), or work on that night"
            )
        return found

    def model(self, channel: str, name: str) -> ExposureModel:
        """The model of an exposure, its inputs read on first use."""
        key = channel, name
        if key not in self.models:
            entry = next((e for e in self.entries if (e.channel, e.name) == key), None)
            if entry is None or not entry.ready:
                raise PanaceaError(f"{channel} {name} has not been extracted yet: reduce it at least until 05_extract")
            self.models[key] = ExposureModel(self.layout, entry, self.baseraw, self.model)
        return self.models[key]

    def of_target(self) -> list[there.Entry]:
        """Exposures of the target that can be worked on, on the channels that were chosen."""
        name = self.choices.object.strip().lower()
        chosen = [e for e in self.entries if e.ready and e.channel in self.choices.sides]
        chosen = [e for e in chosen if name in e.object_name.lower()]
        return sorted(chosen, key=lambda e: (not e.on_target, self.choices.sides.index(e.channel), e.obsid, e.exposure))

    @property
    def file(self) -> str:
        """The file of the choices as it is shown: without what it has in common with the current folder."""
        return str(self.path.relative_to(Path.cwd())) if self.path.is_relative_to(Path.cwd()) else str(self.path)

    def save(self, seen: dict[str, str] | None = None) -> str:
        """Write the choices with digests of the spectra that were ``seen``; returns what was done, and how to reduce with them."""
        self.choices.save(self.path, seen)
        return f"saved: {self.path}<br><code>panacea-nb reduce --config {html.escape(str(self.path))}</code>"
