"""Where things run: a site is a small YAML file that says what a machine has and how work is started there.

The files travel with the package (``runs/sites/`` of a checkout); a user copies one, edits it and names it by its path.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ..errors import RequestError
from .containers import ENGINES, Container
from .rundef import DefinitionError, read_yaml
from .stages import STAGES, Stage

LAUNCHERS = ("none", "srun", "ibrun")
SCHEDULERS = ("none", "slurm")
DEFAULT = "local"
_RESERVE = 0.1  # part of a node's memory that is left to the system and its file cache
_DRIVER_MEMORY = 400  # MB of driver and interchange, on the first node
_PACKAGE = Path(__file__).resolve().parents[1]


class SiteError(RequestError):
    """A site is unknown, or its file holds something that cannot be meant."""


@dataclass(frozen=True)
class Site:
    """What a machine has and how work is started there.

    Parameters
    ----------
    name, about : str
        What the site is called, and one line on what it is for.
    cores : int or None
        Of a node; None takes those that the process may use.
    memory : float or None
        Of a node [GB]; None takes what the machine or the batch system gives.
    workers : int or None
        Notebooks at the same time on a node; None computes it from cores and memory.
    container : Container
        What the workers run in.
    scratch : str
        Node-local folder for temporary files; empty takes ``$TMPDIR`` or ``/tmp``.
    staging : bool
        Copy the raw files that a task reads to ``scratch``, once per node.
    launcher : str
        How workers are started on several nodes of an allocation: ``none`` (one node only), ``srun``, ``ibrun``.
    address : str
        Address of the driver's node, for workers on others; empty finds it.
    scheduler : str
        ``none`` or ``slurm``: whether `submit` and pilot jobs are possible.
    partition, account, walltime : str
        Of a job; ``account`` is usually ``$PANACEA_ACCOUNT``; ``walltime`` is HH:MM:SS.
    nodes : int
        Nodes of a job.
    grace : int
        Seconds before the wall time at which the job begins to end itself.
    modules, setup, sbatch : tuple of str
        Modules to load; further lines for the shell; further options for sbatch.
    """

    name: str
    about: str = ""
    cores: int | None = None
    memory: float | None = None
    workers: int | None = None
    container: Container = field(default_factory=Container)
    scratch: str = ""
    staging: bool = False
    launcher: str = "none"
    address: str = ""
    scheduler: str = "none"
    partition: str = ""
    account: str = ""
    walltime: str = "02:00:00"
    nodes: int = 1
    grace: int = 180
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, check(value))
            except ValueError as error:
                raise SiteError(f"site {self.name}: {name}: {value!r} {error}") from None
        if self.nodes > 1 and self.launcher == "none":
            raise SiteError(f"site {self.name}: {self.nodes} nodes need a launcher: srun or ibrun")
        if self.seconds <= self.grace + 60:
            raise SiteError(
                f"site {self.name}: walltime {self.walltime} leaves nothing before the grace of {self.grace} s: "
                "make the one longer or the other shorter"
            )

    @property
    def seconds(self) -> int:
        """The wall time [s]."""
        return wall_seconds(self.walltime)

    def cores_here(self) -> int:
        """Cores of a node: as the site says, else as this process may use."""
        return self.cores or available_cores()

    def memory_here(self) -> float:
        """Memory of a node [MB]: as the site says, else as the batch system or the machine gives."""
        return self.memory * 1000 if self.memory else available_memory()

    def workers_per_node(self, table: Iterable[Stage] = STAGES) -> int:
        """Notebooks at the same time on a node: all its cores, as far as memory holds the largest stages."""
        if self.workers:
            return self.workers
        peak = max((stage.memory for stage in table), default=1000)
        room = self.memory_here() * (1 - _RESERVE) - _DRIVER_MEMORY
        return max(1, min(self.cores_here(), math.floor(room / peak)))

    def account_name(self) -> str:
        """The account to be charged, variables filled in.

        Raises
        ------
        SiteError
            If it names a variable that is not set: only whoever submits needs it.
        """
        text = os.path.expandvars(self.account)
        if "$" in text:
            raise SiteError(
                f"site {self.name} charges the account {self.account}, which is not set: export {text.lstrip('${').rstrip('}')}"
                "=YOUR-ACCOUNT (your project's name), or write it into a copy of the site's file"
            )
        return text

    def changed(self, **values: Any) -> Site:
        """This site with other values, checked again."""
        return dataclasses.replace(self, **values)


def wall_seconds(text: str) -> int:
    """Seconds of a wall time HH:MM:SS (or D-HH:MM:SS)."""
    days, _, clock = text.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def available_memory() -> float:
    """Memory that this process may use [MB]: of the machine, of the Slurm job, of the control group, the least."""
    found = [psutil.virtual_memory().total / 1e6]
    slurm = os.environ.get("SLURM_MEM_PER_NODE", "")
    if slurm.isdigit() and int(slurm) > 0:
        found.append(float(slurm))
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(float(Path(place).read_text()) / 1e6)
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(found)


# --- checks of values -------------------------------------------------------------------------------------------------
def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text (put it in quotes)")
    if "\n" in value:
        raise ValueError("holds more than one line")
    return value


def _optional_count(value: Any) -> int | None:
    return None if value is None else _count(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("is not a whole number of 1 or more")
    return value


def _optional_size(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value < 1e6:
        raise ValueError("is not a number of GB (0.5 or more)")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _wall(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d", value):
        raise ValueError('is not a time "HH:MM:SS" in quotes')
    return value


def _one_of(words: tuple[str, ...]) -> Any:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return value

    return check


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list")
    return tuple(_text(item) for item in value)


def _scratch(value: Any) -> str:
    text = _text(value)
    if text and not re.match(r"[/$~]", text):
        raise ValueError("is not an absolute path")
    return text


def _partition(value: Any) -> str:
    text = _text(value)
    if text and not re.fullmatch(r"[\w.,-]+", text):
        raise ValueError("is not the name of a partition")
    return text


_CHECKS = {
    "about": _text,
    "cores": _optional_count,
    "memory": _optional_size,
    "workers": _optional_count,
    "scratch": _scratch,
    "staging": _flag,
    "launcher": _one_of(LAUNCHERS),
    "address": _text,
    "scheduler": _one_of(SCHEDULERS),
    "partition": _partition,
    "account": _text,
    "walltime": _wall,
    "nodes": _count,
    "grace": _count,
    "modules": _texts,
    "setup": _texts,
    "sbatch": _texts,
}


# --- files ------------------------------------------------------------------------------------------------------------
def folder() -> Path:
    """Where the sites that travel with the package lie: in the checkout, else in the wheel."""
    for candidate in (_PACKAGE.parent / "runs" / "sites", _PACKAGE / "_sites"):
        if any(candidate.glob("*.yaml")):
            return candidate
    raise SiteError(
        f"no sites in {_PACKAGE.parent / 'runs/sites'} nor inside the package: the installation is incomplete"
    )


def names() -> list[str]:
    """The sites that travel with the package."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(text: str) -> Site:
    """The site that a user names: one of the package's by its name, or a file by its path.

    Raises
    ------
    SiteError
        If there is none, or the file is not a valid site.
    """
    known = names()
    if text in known:
        return read(folder() / f"{text}.yaml")
    if text.endswith((".yaml", ".yml")) or "/" in text:
        path = Path(text).expanduser()
        if not path.is_file():
            raise SiteError(f"--site: there is no file {path}; sites with a name are {', '.join(known)}")
        return read(path)
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"sites are {', '.join(known)}"
    raise SiteError(f"--site: there is no site {text!r}: {hint} (a file of your own is named by its path, FILE.yaml)")


def read(path: Path) -> Site:
    """The site in a file, checked.

    Raises
    ------
    SiteError
        With the file, the key, its value and what is allowed.
    """
    try:
        values = read_yaml(path)
    except DefinitionError as error:
        raise SiteError(str(error).replace("the configuration", "the site", 1)) from error
    try:
        return from_dict({"name": path.stem, **values})
    except SiteError as error:
        raise SiteError(f"{path}: {error}") from None


def from_dict(values: Mapping[str, Any]) -> Site:
    """A site from names and values; unknown names are refused."""
    given = dict(values)
    _refuse_unknown(given, [item.name for item in dataclasses.fields(Site)], "")
    given["name"] = str(given.get("name", "unnamed"))
    box = given.get("container")
    if box is not None:
        if not isinstance(box, Mapping):
            raise SiteError(f"container: {box!r} is not a list of lines 'engine: ...', 'image: ...'")
        _refuse_unknown(box, [item.name for item in dataclasses.fields(Container)], "container: ")
        parts = {}
        for key, value in box.items():
            try:
                parts[key] = _texts(value) if key in ("binds", "options") else _text(value)
            except ValueError as error:
                raise SiteError(f"container: {key}: {value!r} {error}") from None
        if parts.get("engine", "none") not in ENGINES:
            raise SiteError(f"container: engine: {parts['engine']!r} is none of {', '.join(ENGINES)}")
        try:
            given["container"] = Container(**parts)
        except RequestError as error:
            raise SiteError(f"container: {error}") from error
    return Site(**given)


def _refuse_unknown(values: Mapping[str, Any], allowed: list[str], where: str) -> None:
    for key in values:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(allowed)}"
            raise SiteError(f"{where}unknown key {str(key)!r}: {hint}")


# --- for people -------------------------------------------------------------------------------------------------------
def listing() -> str:
    """One line per site."""
    from . import progress

    rows = []
    for name in names():
        site = find(name)
        memory = f"{site.memory:g} GB" if site.memory else "all"
        rows.append((name, str(site.cores or "all"), memory, site.scheduler, site.container.engine, site.about))
    table = progress.table(("site", "cores", "memory", "batch system", "container", "what it is"), rows)
    return f"{table}\nThey lie in {folder()}; copy one, edit it, and name it by its path: --site FILE.yaml"


def explain(site: Site) -> str:
    """All that a site says, and what follows from it."""
    lines = [f"{site.name}: {site.about}"]
    for item in dataclasses.fields(Site):
        value = getattr(site, item.name)
        if item.name in ("name", "about"):
            continue
        if item.name == "container":
            lines.append(f"  {'container':10s} {value.engine} {value.image}".rstrip())
            lines += [f"  {'':10s} bind {bind}" for bind in value.binds]
            lines += [f"  {'':10s} option {word}" for word in value.options]
            continue
        shown = ", ".join(value) if isinstance(value, tuple) else value
        if shown not in (None, "", False):
            lines.append(f"  {item.name:10s} {'yes' if shown is True else shown}")
    peak = max(stage.memory for stage in STAGES)
    lines.append(
        f"  so {site.workers_per_node()} notebooks at the same time on a node: {site.cores_here()} cores, "
        f"{site.memory_here() / 1000:.0f} GB, and {peak / 1000:.2f} GB for the largest stage"
    )
    if site.account and "$" in os.path.expandvars(site.account):
        lines.append(f"  the account {site.account} is not set here; submitting needs it")
    return "\n".join(lines)
