"""Read the tables that travel with the package; each is read once per process."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml
from astropy.table import Table


@cache
def table(name: str) -> Table:
    """Read one ECSV table of ``instrument/data``.

    The table is shared by all callers: copy it before changing it.

    Parameters
    ----------
    name : str
        File name without its ending.
    """
    text = (files("panacea_nb.instrument") / "data" / f"{name}.ecsv").read_text(encoding="utf-8")
    return Table.read(text.splitlines(), format="ascii.ecsv")


@cache
def channel_facts() -> dict[str, dict]:
    """The facts of ``data/channels.yaml``: channel name to a dict of its entries."""
    text = (files("panacea_nb.instrument") / "data" / "channels.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def warm_up() -> None:
    """Read all tables."""
    for entry in sorted((files("panacea_nb.instrument") / "data").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".ecsv"):
            table(entry.name.removesuffix(".ecsv"))
