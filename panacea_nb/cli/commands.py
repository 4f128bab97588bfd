"""What each command does: one function of a lower room each, and its result printed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..workflow import rundef
from ..workflow.rundef import DefinitionError, RunDefinition
from .batch import sites, submit

__all__ = ["inspect", "lab", "reduce", "report", "simulate", "sites", "status", "submit"]

if TYPE_CHECKING:
    from ..products.layout import Layout

BASERAW_VARIABLE = "PANACEA_BASERAW"


class NoRunError(RequestError):
    """There is no run where one was looked for."""


class LabMissingError(RequestError):
    """JupyterLab is not installed."""


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the run definition that were on the command line."""
    names = {item.name for item in dataclasses.fields(RunDefinition)}
    return {name: value for name, value in vars(options).items() if name in names}


def definition(options: argparse.Namespace, *, needs_raw: bool = True) -> RunDefinition:
    """The run definition of a command line, its configuration file and the environment.

    Raises
    ------
    DefinitionError
        If something is wrong or missing.
    """
    values: dict[str, Any] = {}
    config = getattr(options, "config", None)
    if config:
        values.update(rundef.check_names(rundef.read_yaml(Path(config)), config))
        beside = Path(config).expanduser().absolute().parent / str(values.get("cosmics_file", ""))
        if beside.is_file():  # written together, moved together
            values["cosmics_file"] = str(beside)
    values.update(_given(options))
    made = RunDefinition(**values)
    if needs_raw:
        baseraw = made.baseraw or os.environ.get(BASERAW_VARIABLE, "")
        if not baseraw:
            raise DefinitionError(
                f"no raw data were named: give --baseraw DIR (the folder with the nights) or set {BASERAW_VARIABLE}"
            )
        folder = Path(baseraw).expanduser().absolute()
        if not folder.is_dir():
            raise DefinitionError(f"--baseraw: {folder} is not a folder")
        made.baseraw = str(folder)
    if made.sky_mask_file is not None:
        made.sky_mask = str(made.sky_mask_file)
    if made.cosmics_file:
        made.cosmics_file = str(Path(made.cosmics_file).expanduser().absolute())
    made.output = str(Path(made.output).expanduser().absolute())
    return made


def simulate(options: argparse.Namespace) -> int:
    """``panacea-nb simulate``."""
    from .. import simulate as room

    return room.run(options)


def inspect(options: argparse.Namespace) -> int:
    """``panacea-nb inspect``: the frames of a night, and the calibrations that serve it."""
    from .. import raw

    asked = definition(options)
    archive = raw.NightArchive(asked.baseraw)
    index = archive.index(asked.night) or raw.index_night(asked.baseraw, asked.night)
    choices = [
        raw.associate(
            asked.baseraw,
            asked.night,
            channel,
            cal_dates=asked.cal_dates,
            exclude=asked.exclude,
            use_flat=asked.use_flat,
            archive=archive,
        )
        for channel in asked.sides
    ]
    print(raw.inspect_text(index, choices))
    return 0


def reduce(options: argparse.Namespace) -> int:
    """``panacea-nb reduce``."""
    from ..workflow import runs, stages

    asked = definition(options)
    for name in filter(None, (asked.until, *asked.redo)):
        stages.find(name)
    if options.dry_run:
        print(runs.dry_run(asked))
        return 0
    return runs.reduce(asked).exit_code


def status(options: argparse.Namespace) -> int:
    """``panacea-nb status``: a table of the tasks of a night, or of all nights."""
    from ..products.layout import Layout
    from ..workflow import overview

    values = _given(options)
    output = Path(values.get("output", "runs")).expanduser().absolute()
    if "night" not in values:
        text = overview.nights(output)
        if not text:
            raise NoRunError(f"there is no run under {output}: name its root with --output")
        print(text)
        return 0
    asked = definition(options, needs_raw=False)
    layout = Layout(Path(asked.output), asked.night, asked.tag)
    text = overview.night(layout)
    if not text:
        raise NoRunError(f"no run of night {asked.night} lies in {layout.night_dir}: check -d, --tag and --output")
    print(text)
    return 0


def verify(options: argparse.Namespace) -> int:
    """``panacea-nb verify``: every file of one run, or of all runs of a root, against its record."""
    from ..products.layout import Layout
    from ..workflow import verify as checking

    values = _given(options)
    output = Path(values.get("output", "runs")).expanduser().absolute()
    if "night" in values:
        asked = definition(options, needs_raw=False)
        layouts = [Layout(Path(asked.output), asked.night, asked.tag)]
    else:
        layouts = Layout.runs(output)
    layouts = [layout for layout in layouts if layout.status_dir.is_dir()]
    if not layouts:
        raise NoRunError(f"there is no such run under {output}: check -d, --tag and --output")
    found = [(layout, checking.verify(layout)) for layout in layouts]
    print("\n".join(checking.text(*pair) for pair in found))
    return int(any(findings for _, findings in found))


def report(options: argparse.Namespace) -> int:
    """``panacea-nb report``: build the report of a night again, or one page of it as a file of its own."""
    layout = _run_of(options)
    from .. import report as room

    if options.target or options.single_file or options.pdf:
        print(room.share(layout, options.target, pdf=options.pdf, file=options.file))
    elif options.file:
        raise DefinitionError("--file is for one page: give --target, --single-file or --pdf with it")
    else:
        print(room.build(layout))
    return 0


def _run_of(options: argparse.Namespace) -> Layout:
    """The run that was named, by its folder or by date, output and tag."""
    from ..products.layout import Layout

    if options.night_folder:
        from ..report import find

        if _given(options):
            raise DefinitionError("RUN names the night with its root and tag: leave out -d, --output and --tag, or RUN")
        return find.run(options.night_folder)
    asked = definition(options, needs_raw=False)
    layout = Layout(Path(asked.output), asked.night, asked.tag)
    if not layout.status_dir.is_dir():
        raise NoRunError(f"no run of night {asked.night} lies in {layout.night_dir}: check -d, --tag and --output")
    return layout


def diff(options: argparse.Namespace) -> int:
    """``panacea-nb diff``: two reductions of the same data side by side."""
    from ..report import diff as room
    from ..report import find

    print(room.build(find.run(options.run_a), find.run(options.run_b), target=options.target, file=options.file))
    return 0


def trends(options: argparse.Namespace) -> int:
    """``panacea-nb trends``: measures of all nights over time; 0 also when a night is flagged."""
    from ..report import trends as room

    made = room.build(Path(options.root).expanduser().absolute())
    print(made.text)
    return 0


def lab(options: argparse.Namespace) -> int:
    """``panacea-nb lab``: JupyterLab on the notebooks, on this machine's (or this container's) own addresses only."""
    from ..products import image
    from ..workflow import processes

    if options.container and not image.inside():
        raise DefinitionError(
            "--container is for a container with a network of its own; here it would open JupyterLab to the whole network"
        )

    if importlib.util.find_spec("jupyterlab") is None:
        raise LabMissingError(
            "JupyterLab is not installed here: pip install 'panacea-nb[lab]' (in a checkout: make lab)"
        )
    folder = Path(options.folder).expanduser().absolute() if options.folder else _notebooks()
    if not folder.is_dir():
        raise DefinitionError(f"--folder: {folder} is not a folder")
    # Made visible to the kernels, which start in the notebooks' folder, also where the package is not installed.
    os.environ["PYTHONPATH"] = processes.python_path()
    sys.stdout.flush()
    place = ["--ip=0.0.0.0", "--no-browser"] if options.container else ["--ip=127.0.0.1"]
    command = [sys.executable, "-m", "jupyterlab", *place, f"--ServerApp.root_dir={folder}", *options.extra]
    os.execv(sys.executable, command)


def _notebooks() -> Path:
    """A folder of notebooks to work in: that of the checkout, else copies in the current folder."""
    from ..workflow import notebooks

    source = notebooks.folder()
    if source.name != "_notebooks":
        return source
    target = Path.cwd() / "notebooks"
    target.mkdir(exist_ok=True)
    for notebook in sorted(source.glob("*.ipynb")):
        if not (target / notebook.name).exists():
            shutil.copyfile(notebook, target / notebook.name)
    return target
