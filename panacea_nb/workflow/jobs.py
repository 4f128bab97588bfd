"""Batch jobs: one readable script each, what was submitted, and what became of it.

Beside the script ``NAME.sh`` lie ``NAME.json`` (what this module knows of the job), ``NAME.{night}.yaml`` (the run
definition of each night), ``NAME.codes`` (the exit code of every night that ended) and the job's output.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import re
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import RequestError
from ..products.layout import Layout
from . import files, lock, processes, slurm, status
from .driver import GRACE_VARIABLE
from .pool import setup_lines
from .rundef import RunDefinition
from .sites import Site, wall_seconds

TAIL = 60  # s of the grace that are kept for what comes after the driver
CHARGED = 900  # s: wall times are multiples of what a job is charged at least
_FRESH = 60.0  # s within which a lock's sign of life counts


class JobError(RequestError):
    """A job cannot be made or submitted."""


@dataclass
class Job:
    """One batch job.

    Parameters
    ----------
    name : str
        Of its files and in the queue.
    folder : str
        Where its files lie.
    lanes : list of list of str
        Nights; those of one lane are reduced one after the other, the lanes beside each other.
    walltime : str
        HH:MM:SS.
    nodes : int
        Nodes.
    workers : int or None
        Notebooks at the same time in a lane; None takes what the node holds.
    tag : str
        Tag of its nights.
    job : str
        Number of the last submission.
    again, done : int
        How often it has been submitted again since it last brought a task further, and how many tasks had succeeded then.
    """

    name: str
    folder: str
    lanes: list[list[str]]
    walltime: str
    nodes: int = 1
    workers: int | None = None
    tag: str = ""
    job: str = ""
    again: int = 0
    done: int = 0
    history: list[str] = field(default_factory=list)

    @property
    def nights(self) -> list[str]:
        """All its nights, in order."""
        return sorted(night for lane in self.lanes for night in lane)

    @property
    def script(self) -> Path:
        """The batch script."""
        return Path(self.folder) / f"{self.name}.sh"

    @property
    def record(self) -> Path:
        """What is known of the job."""
        return Path(self.folder) / f"{self.name}.json"

    def definition_file(self, night: str) -> Path:
        """The run definition of a night."""
        return Path(self.folder) / f"{self.name}.{night}.yaml"

    def codes(self) -> dict[str, int]:
        """Exit codes of the nights that have ended since the last submission."""
        try:
            lines = (Path(self.folder) / f"{self.name}.codes").read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        pairs = [line.split() for line in lines]
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

    def save(self) -> None:
        """Write down what is known."""
        files.write_json(self.record, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Job:
        """The job of a ``NAME.json``.

        Raises
        ------
        JobError
            If it is none.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {item.name for item in dataclasses.fields(cls)}
            job = cls(**{key: value for key, value in values.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise JobError(f"{path} is not the record of a job: {error}") from error
        job.folder = str(path.parent)
        return job


def clock(seconds: float) -> str:
    """Seconds as HH:MM:SS."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def program() -> list[str]:
    """The words that start this very panacea-nb."""
    return [sys.executable, "-m", "panacea_nb"]


def script_text(job: Job, site: Site) -> str:
    """The batch script of a job: to be read, and to be submitted by hand as well (``sbatch NAME.sh``)."""
    grace = min(site.grace, max(30, wall_seconds(job.walltime) // 3))
    tail = min(TAIL, grace // 3)
    options = [f"--job-name={job.name}", f"--nodes={job.nodes}", "--ntasks-per-node=1", f"--time={job.walltime}"]
    if site.partition:
        options.append(f"--partition={site.partition}")
    if site.account:
        options.append(f"--account={site.account_name()}")
    if site.cores and site.launcher != "ibrun" and "--exclusive" not in site.sbatch:
        options.append(f"--cpus-per-task={site.cores}")
    options += [f"--signal=B:USR1@{grace}", "--requeue", "--open-mode=append"]
    options += [f"--output={job.folder}/{job.name}-%j.out", *site.sbatch]
    quoted = {name: shlex.quote(value) for name, value in (("folder", job.folder), ("name", job.name))}
    lines = ["#!/bin/bash", f"# {_title(job)}", "# Written by panacea-nb submit; it may be submitted again by hand."]
    lines += [f"#SBATCH {option}" for option in options]
    lines += ["", *setup_lines(site)]
    # Told to the driver: how long running tasks may take after the signal; the rest of the grace is for the last line.
    lines.append(f"export {GRACE_VARIABLE}={grace - tail}")
    if not _installed():
        lines.append(f"export PYTHONPATH={shlex.quote(processes.python_path())}")
    lines += [
        f"panacea_nb=({shlex.join(program())})",
        f'cd {quoted["folder"]} && job={quoted["name"]} && rm -f "$job.codes" || exit 2',
        *_BODY,
    ]
    for lane in job.lanes:
        lines.append(f"lane {' '.join(lane)} & lanes+=($!)")
    lines += _TAIL
    return "\n".join(lines) + "\n"


_BODY = """
# Slurm warns this script before the wall time is over (USR1); the drivers then begin nothing new and end with code 3.
lane() {  # reduces nights one after the other
    local night code again stop= driver=
    trap 'stop=1; [ -z "$driver" ] || kill -USR1 "$driver"' USR1
    trap 'stop=1; [ -z "$driver" ] || kill -TERM "$driver"' TERM
    for night in "$@"; do
        if [ -n "$stop" ]; then echo "$night 3" >> "$job.codes"; continue; fi
        "${panacea_nb[@]}" reduce --config "$job.$night.yaml" & driver=$!
        wait "$driver"; code=$?
        while [ "$code" -gt 128 ] && kill -0 "$driver" 2>/dev/null; do wait "$driver"; code=$?; done
        # A signal that came in the very moment of the driver's end hides its code; asked again, the shell tells it.
        wait "$driver" 2>/dev/null; again=$?
        [ "$again" -eq 127 ] || code=$again
        driver=
        echo "$night $code" >> "$job.codes"
        echo "night $night ended with code $code"
    done
}
lanes=() cancelled=
trap 'kill -USR1 "${lanes[@]}" 2>/dev/null' USR1
trap 'cancelled=1; kill -TERM "${lanes[@]}" 2>/dev/null' TERM""".splitlines()

_TAIL = '''
for pid in "${lanes[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
done
[ -z "$cancelled" ] || exit 3
# What deserves it is submitted again; the exit code tells whether all is done.
"${panacea_nb[@]}" submit --follow "$job.json"'''.splitlines()


def _title(job: Job) -> str:
    nights = job.nights
    what = f"night {nights[0]}" if len(nights) == 1 else f"{len(nights)} nights, {nights[0]} to {nights[-1]}"
    beside = f", {len(job.lanes)} at a time" if len(job.lanes) > 1 else ""
    return f"Reduces {what}{beside}."


def _installed() -> bool:
    """Whether the program finds this very package without help, as it does unless a checkout is used in place."""
    where = importlib.util.find_spec("panacea_nb")
    package = str(Path(__file__).resolve().parents[2])
    return (
        where is not None
        and package not in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        and Path.cwd() != Path(package)
    )


def write(job: Job, site: Site, definitions: dict[str, RunDefinition]) -> None:
    """Write a job's files.

    Parameters
    ----------
    job : Job
        The job.
    site : Site
        Where it runs.
    definitions : dict
        Night -> what is asked of it.
    """
    folder = Path(job.folder)
    if re.search(r"[^\w./+:@-]", job.folder):
        raise JobError(f"the path of --output must be plain for a batch job (letters, digits, . _ - / only): {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for night, definition in definitions.items():
        made = dataclasses.replace(definition, jobs=job.workers or definition.jobs, nodes=None, pilot=False)
        made.write(job.definition_file(night))
    files.write_text(job.script, script_text(job, site))
    job.script.chmod(0o755)
    job.save()


def send(job: Job) -> str:
    """Submit a job whose files are written; its number."""
    (Path(job.folder) / f"{job.name}.codes").unlink(missing_ok=True)
    job.job = slurm.submit(job.script)
    job.history.append(job.job)
    job.save()
    return job.job


# --- what there is ----------------------------------------------------------------------------------------------------
def all_jobs(output: Path) -> list[Job]:
    """The jobs of all nights and campaigns under an output root."""
    found = []
    for path in sorted([*output.glob("NIGHTS/*/jobs/*.json"), *output.glob("NIGHTS/jobs/*.json")]):
        try:
            found.append(Job.load(path))
        except JobError:
            continue
    return found


def busy(output: Path, tag: str, active: dict[str, str]) -> dict[str, str]:
    """Nights that a job waits or runs for: night -> job and state, in words."""
    found = {}
    for job in all_jobs(output):
        if job.tag == tag and job.job in active:
            # Of a campaign's job, nights that have ended are free again.
            for night in set(job.nights) - set(job.codes()):
                found[night] = f"job {job.job} ({active[job.job].lower()})"
    return found


def locked(layout: Layout) -> str:
    """Who works on a night at this moment, in words; empty when nobody does."""
    owner = lock.read_owner(layout.night_dir)
    if owner is None or not owner.alive():
        return ""
    age = lock.heartbeat_age(layout.night_dir)
    if not owner.local and (age is None or age > _FRESH):
        return ""
    return f"a run works on it: process {owner.pid} on {owner.host}, since {owner.began}"


def free_names(made: list[Job], active: dict[str, str]) -> None:
    """Give jobs names whose files belong to no job that still waits or runs: it reads them until its end."""
    for job in made:
        stem, number = job.name, 1
        while _belongs(job.record, active):
            number += 1
            job.name = f"{stem}.{number}"


def _belongs(record: Path, active: dict[str, str]) -> bool:
    try:
        return Job.load(record).job in active
    except JobError:
        return False


def _succeeded(layout: Layout) -> int:
    return sum(record.state is status.State.SUCCEEDED for record in status.read_all(layout.status_dir).values())


# --- again ------------------------------------------------------------------------------------------------------------
def follow(job: Job, state: str, site: Site | None = None) -> tuple[slurm.Decision, str]:
    """Submit a job again if it deserves it; the decision, and the new number.

    Parameters
    ----------
    job : Job
        The job, which has ended or is about to.
    state : str
        Slurm's word for how; empty while it has none.
    site : Site, optional
        Where it runs; read from its definitions by default.
    """
    codes = job.codes()
    if state == "FAILED":
        codes = {**dict.fromkeys(job.nights, 137), **codes}  # a night without a code: the script itself was killed
    definitions = {night: RunDefinition.from_yaml(job.definition_file(night)) for night in job.nights}
    done = sum(_succeeded(Layout(Path(d.output).absolute(), night, job.tag)) for night, d in definitions.items())
    if done > job.done:
        job.again, job.done = 0, done  # a long campaign may run into its wall time many times
    decision = slurm.decide(state, codes.values(), job.again)
    if not decision.again:
        return decision, ""
    if decision.fewer_workers:
        from . import sites

        site = site or sites.find(next(iter(definitions.values())).site)
        before = job.workers or next(iter(definitions.values())).jobs or site.workers_per_node() * job.nodes
        job.workers = max(1, before // 2)
        for night, definition in definitions.items():
            dataclasses.replace(definition, jobs=job.workers).write(job.definition_file(night))
    job.again += 1
    return decision, send(job)
