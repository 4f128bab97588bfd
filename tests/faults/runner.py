"""Apply faults to copies of a small reduced night, reduce them, and judge how that ended."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from panacea_nb.products.digest import content_digest
from panacea_nb.products.layout import Layout
from panacea_nb.simulate import simulate_night
from panacea_nb.simulate.damage import RawNight
from panacea_nb.simulate.scenario import scenario
from panacea_nb.workflow import status
from panacea_nb.workflow.status import State

from .fault import CALIBRATION, FAINT, GUIDER, RESULTS, STAR, Fault

NIGHT, CHANNEL = "20250115", "uv"
LIMIT = 900.0  # s for one reduction
TRACEBACK = re.compile(r"Traceback \(most recent call last\)")


@dataclass
class Result:
    """How a fault ended.

    Attributes
    ----------
    fault : Fault
    code : int, exit code
    said : str, the sentence that was found, or the closing lines of the output where none was
    problems : list of str, what is not as it must be; empty when all is
    seconds : float
    """

    fault: Fault
    code: int
    said: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Base:
    """The undamaged night: raw frames and their reduction."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "out", NIGHT)


def make_base(folder: Path, until: str = "10") -> Base:
    """Simulate and reduce the small night, unless it is there."""
    base = Base(folder)
    if not (folder / "done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        simulate_night(base.raw, NIGHT, 1, [CHANNEL], scenario("demo"), 2)
        code, text = reduce(base.raw, base.layout.output, until)
        if code != 0:
            raise RuntimeError(f"the undamaged night ended with {code}:\n{text}")
        (folder / "done").touch()
    return base


def reduce(raw: Path, output: Path, until: str, *options: str, within: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run ``panacea-nb reduce``: exit code and everything that it said."""
    before = [word.format(out=output, folder=output.parent) for word in within]
    command = [*before, sys.executable, "-m", "panacea_nb", "reduce", "-d", NIGHT, "-s", CHANNEL]
    command += ["--baseraw", str(raw), "--output", str(output)]
    command += ["--until", until] if until != "10" else []
    done = subprocess.run(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=LIMIT,
    )
    return done.returncode, done.stdout


def copy_of(base: Base, folder: Path, fault: Fault) -> Base:
    """A night to damage: raw files shared by hard links, and the output without what the fault concerns."""
    copy = Base(folder)
    shutil.copytree(base.raw, copy.raw, copy_function=os.link, ignore=shutil.ignore_patterns("truth"))
    if fault.group == CALIBRATION:
        return copy
    shutil.copytree(base.layout.output, copy.layout.output, copy_function=_link_large, symlinks=True)
    for name, record in status.read_all(copy.layout.status_dir).items():
        if f"{FAINT:07d}" in name or record.stage in ("00_inventory", "09_combine", "10_night"):
            for path in {*record.claims, *record.products, record.notebook}:
                (copy.layout.output / path).unlink(missing_ok=True)
            status.record_path(copy.layout.status_dir, name).unlink()
    return copy


def _link_large(source: str, target: str) -> None:
    """Products are replaced, never changed in place: they can be shared. Records and logs are copied."""
    if source.endswith(".fits"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def try_fault(base: Base, folder: Path, fault: Fault) -> Result:
    """Damage a copy of the night, reduce it, and compare what comes of it with what must."""
    begin = time.monotonic()
    outside = set(_around(folder, fault))
    copy = copy_of(base, folder / fault.place, fault)
    fault.do(copy.layout if fault.group == RESULTS else RawNight(copy.raw, NIGHT))
    code, text = reduce(copy.raw, copy.layout.output, fault.until, *fault.options, within=fault.within)
    told = text + "\n" + _records_text(copy.layout)
    result = Result(fault, code, _sentence(fault.says, told, text), seconds=time.monotonic() - begin)
    if code != fault.ends:
        result.problems.append(f"exit code {code} instead of {fault.ends}")
    if not re.search(fault.says, told, re.IGNORECASE):
        result.problems.append(f"nothing says {fault.says!r}")
    if TRACEBACK.search(text):
        result.problems.append("the output is a traceback")
    result.problems += _wrong_claims(copy.layout)
    if fault.group not in (CALIBRATION, GUIDER):  # these serve all exposures
        result.problems += _other_exposure(base.layout, copy.layout)
    result.problems += [f"written outside of the output: {path}" for path in sorted(set(_around(folder, fault)) - outside)]
    shutil.rmtree(folder / fault.place, ignore_errors=True)
    return result


def _around(folder: Path, fault: Fault) -> list[str]:
    """Names beside the output and in the places that hostile names point to."""
    found = [str(path) for path in folder.parent.glob("*evil*")] + [
        str(path) for path in folder.glob("*") if path.name != fault.place
    ]
    return found + [str(path) for path in Path("/tmp").glob("*evil*")]


def _records_text(layout: Layout) -> str:
    """Errors, decisions and verdicts of all records of the damaged exposure and of what serves it."""
    lines = []
    for record in status.read_all(layout.status_dir).values():
        if record.error:
            lines.append(f"{record.id}: {record.error.get('message', '')}")
        lines += [f"{item.get('code', '')}: {item.get('text', '')}" for item in record.decisions]
        lines += [
            f"{m['name']} {m['verdict']}: {m['reason']}" for m in record.metrics if m.get("verdict") in ("warn", "fail")
        ]
    return "\n".join(lines)


def _sentence(pattern: str, told: str, text: str) -> str:
    for line in told.splitlines():
        if re.search(pattern, line, re.IGNORECASE):
            return " ".join(line.split())[:400]
    return " | ".join(text.strip().splitlines()[-3:])[:400]


def _wrong_claims(layout: Layout) -> list[str]:
    """Successes whose files are not there, and products of tasks that did not succeed."""
    problems = []
    for record in status.read_all(layout.status_dir).values():
        if record.state is State.SUCCEEDED:
            problems += [
                f"{record.id} claims {path}, which is not there"
                for path in record.products
                if not (layout.output / path).is_file()
            ]
        elif record.state.ended:
            left = [path for path in record.claims if path != record.notebook and (layout.output / path).exists()]
            problems += [f"{record.id} {record.state.value} and left {path}" for path in left]
        if record.state is State.FAILED and not (record.error or {}).get("message"):
            problems.append(f"{record.id} failed without a word")
        if record.state is State.FAILED and (record.error or {}).get("type") in _NOT_UNDERSTOOD:
            problems.append(f"{record.id} failed with a bare {record.error['type']}: {record.error.get('message')}")
    return problems


# What an error that nobody foresaw looks like.
_NOT_UNDERSTOOD = {
    "ValueError",
    "TypeError",
    "IndexError",
    "KeyError",
    "AttributeError",
    "LinAlgError",
    "ZeroDivisionError",
    "RuntimeError",
}


def _other_exposure(base: Layout, layout: Layout) -> list[str]:
    """The star's products must be those of the undamaged night."""
    problems = []
    for stage in ("05_extract", "06_sky", "07_flux"):
        task = f"{stage}-{STAR:07d}-exp01-{CHANNEL}"
        before, after = status.read(base.status_dir, task), status.read(layout.status_dir, task)
        if before is None:
            continue  # the undamaged night was not reduced as far
        if after is None or after.products != before.products:
            problems.append(f"{task} is not as in the undamaged night")
            continue
        changed = [
            path
            for path in after.products
            if path.endswith(".fits") and content_digest(layout.output / path) != after.products[path]
        ]
        problems += [f"{path} was changed" for path in changed]
    return problems
