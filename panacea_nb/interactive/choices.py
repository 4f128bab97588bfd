"""The choices made by hand: options of a run definition, kept in one small YAML file that `panacea-nb reduce --config` takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..products.layout import Layout
from ..workflow import files
from ..workflow.config import read_yaml
from ..workflow.rundef import RunDefinition, check_names

FILE = "choices.yaml"
_HEAD = "# Choices made by hand. Reduce with them: panacea-nb reduce --config {name}\n"
_ALWAYS = ("night", "sides", "object", "baseraw", "output")
_NEVER = ("jobs", "until", "redo", "thorough", "overwrite")  # how a run is done, not what
_SKY = {"sky_region": "", "sky_mask": "", "sky_obsid": None, "sky_exp": None, "sky_degree": 0}
_EXTRACTION = {"aperture": None, "no_aperture_correction": False, "extract_region": ""}


def defaults() -> dict[str, Any]:
    """The options of a run definition when nothing is asked for."""
    return RunDefinition(night="20200101").to_dict() | {"night": ""}


class Choices:
    """What was chosen so far; each change is checked as the command line checks it, and refused as a whole when it is not allowed.

    Parameters
    ----------
    values : mapping
        Options by name, as in a configuration file.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        kept = {name: value for name, value in values.items() if name not in _NEVER}
        self.definition = RunDefinition.from_dict(kept, where="the choices")

    @classmethod
    def of_run(cls, layout: Layout, **changes: Any) -> Choices:
        """Those that a run was made with, where it has left them, as a beginning."""
        values = read_yaml(layout.run_file) if layout.run_file.is_file() else {}
        values |= {"night": layout.night, "tag": layout.tag, "output": str(layout.output), **changes}
        return cls(check_names(values, str(layout.run_file)))

    @classmethod
    def load(cls, path: str | Path) -> Choices:
        """Those in a file.

        Raises
        ------
        DefinitionError
            If the file cannot be read or holds something that cannot be meant.
        """
        path = Path(path)
        values = check_names(read_yaml(path), str(path))
        beside = path.absolute().parent / str(values.get("cosmics_file") or "")
        if beside.is_file():
            values["cosmics_file"] = str(beside)
        return cls(values)

    def __getattr__(self, name: str) -> Any:
        if name == "definition":
            raise AttributeError(name)
        return getattr(self.definition, name)

    def set(self, **changes: Any) -> bool:
        """Take changes; whether anything is different now.

        Raises
        ------
        DefinitionError
            Then nothing was changed.
        """
        made = dataclasses.replace(self.definition, **changes)
        different = made != self.definition
        self.definition = made
        return different

    def set_sky(self, mode: str, **what: Any) -> bool:
        """Take the sky from somewhere else: a mode with what it needs (see the command line's help); the rest is forgotten."""
        return self.set(**{**_SKY, "sky_mode": mode, **what})

    def set_extraction(self, how: str, **what: Any) -> bool:
        """Extract in another way: psf, aperture or extended, with what that needs; the rest is forgotten."""
        return self.set(**{**_EXTRACTION, "extraction": how, **what})

    def to_dict(self) -> dict[str, Any]:
        """The options that are not as they are by default, and always those that say what to reduce."""
        usual, now = defaults(), self.definition.to_dict()
        return {name: now[name] for name in now if name not in _NEVER and (name in _ALWAYS or now[name] != usual[name])}

    def to_yaml(self, path: str | Path = FILE, seen: Mapping[str, str] | None = None) -> str:
        """The text of a file at ``path``; files that it names and that lie beside it are named without their folder.

        ``seen`` are digests of the spectra that were seen, by exposure: comments, to compare a reduction with.
        """
        path = Path(path).expanduser().absolute()
        values = self.to_dict()
        marks = values.get("cosmics_file")
        if marks and Path(marks).absolute().parent == path.parent:
            values["cosmics_file"] = Path(marks).name
        lines = [f"# Seen: {name}, spectrum sha256 {digest}\n" for name, digest in sorted((seen or {}).items())]
        return (
            _HEAD.format(name=path.name) + "".join(lines) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        )

    def save(self, path: str | Path, seen: Mapping[str, str] | None = None) -> Path:
        """Write the file, in one step; see `to_yaml`."""
        path = Path(path).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, self.to_yaml(path, seen))
        return path
