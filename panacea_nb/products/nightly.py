"""The night as a whole: one row per exposure and channel, the state of every task, and what each programme may see of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.table import MaskedColumn, Table

from .layout import Layout

COLUMNS: dict[str, tuple[type, str, str]] = {
    "obsid": (int, "", "observation"),
    "exposure": (int, "", "exposure of the observation"),
    "channel": (str, "", "uv, orange, red or farred"),
    "target": (str, "", "OBJECT"),
    "program": (str, "", "programme"),
    "kind": (str, "", "type of the frame"),
    "start": (str, "", "start of the exposure (UT)"),
    "exptime": (float, "s", "exposure time"),
    "snr": (float, "", "S/N of the source, or of the best candidate"),
    "source_x": (float, "arcsec", "IFU x of the source"),
    "source_y": (float, "arcsec", "IFU y of the source"),
    "fwhm": (float, "arcsec", "FWHM of the source"),
    "transparency": (float, "", "from the guide cameras, 1 where unknown"),
    "area": (float, "cm2", "illuminated mirror area"),
    "sky": (float, "erg / (Angstrom s cm2)", "median sky per fibre"),
    "fallbacks": (str, "", "codes of the fallbacks taken"),
    "sky_mode": (str, "", "where the sky came from"),
    "extraction": (str, "", "how the source's spectrum was taken"),
    "telluric": (str, "", "correction for the air's absorption"),
    "verdict": (str, "", "pass, warn or fail"),
}


def _load(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return record if isinstance(record, dict) else None


def night_table(layout: Layout) -> Table:
    """One row per exposure and channel that reached 07_flux, in order of time."""
    found = [_load(path) for path in sorted(layout.work_dir.glob("*/07_flux.json"))]
    rows = sorted((r for r in found if r), key=lambda r: (r["start"], r["obsid"], r["exposure"], r["channel"]))
    table = Table(meta={"night": layout.night, "tag": layout.tag})
    for name, (kind, unit, text) in COLUMNS.items():
        values = [row.get(name) for row in rows]
        missing = [v is None for v in values]
        fill = {int: -1, float: np.nan, str: ""}[kind]
        data = [fill if v is None else kind(v) for v in values]
        column = MaskedColumn(data, name=name, mask=missing, dtype=kind if kind is not str else None, description=text)
        if kind is str and not data:
            column = MaskedColumn([], name=name, dtype="U1", description=text)
        if unit:
            column.unit = unit
        table.add_column(column)
    return table


def rows(table: Table) -> list[list[object]]:
    """The table's rows as plain values fit to show; masked ones are empty."""
    return [["" if np.ma.is_masked(row[name]) else row[name] for name in table.colnames] for row in table]


def task_records(layout: Layout) -> list[dict]:
    """State of every task of the night from the status records: id, stage, state, verdict, why, channel, obsid, exp, target."""
    result = []
    for path in sorted(layout.status_dir.glob("*.json")):
        record = _load(path)
        if not record or "id" not in record or record.get("stage") == "10_night":
            continue
        parameters = record.get("parameters") or {}
        error = record.get("error") or {}
        result.append(
            {
                "id": record["id"],
                "stage": record.get("stage", ""),
                "state": record.get("state", ""),
                "verdict": record.get("verdict") or "",
                "why": error.get("message") or "",
                "channel": parameters.get("channel") or "",
                "obsid": parameters.get("obsid"),
                "exp": parameters.get("exposure"),
                "target": parameters.get("target") or "",
            }
        )
    return result


def by_program(layout: Layout, table: Table) -> Iterator[tuple[Path, Table]]:
    """Each programme's own rows, and where they lie: beside its products."""
    for program in sorted(set(table["program"])) if len(table) else ():
        part = table[np.asarray(table["program"]) == program]
        yield layout.program_dir(str(program)) / f"night_{layout.night}.ecsv", part


def metrics(tasks: list[dict]) -> dict[str, float]:
    """Metrics of 10_night."""
    return {
        "failed": float(sum(t["state"] in ("failed", "aborted") for t in tasks)),
        "blocked": float(sum(t["state"] == "blocked" for t in tasks)),
        "failing_verdicts": float(sum(t["verdict"] == "fail" for t in tasks)),
    }
