"""Many nights in as few batch jobs as wall time allows: which night is due, how long it takes, what goes together."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import RequestError
from ..products.layout import Layout
from . import jobs, progress, runs, slurm, status
from .graph import Plan
from .jobs import Job
from .plan import NothingToReduceError
from .rundef import RunDefinition
from .sites import Site
from .stages import STAGES
from .status import State

_START = 45.0  # s that a night takes beside its tasks: plan, workers, report
_MARGIN = 1.3  # on estimates
_LANE = 8  # workers that one night keeps busy: its calibrations are few, its exposures some
_SAMPLE = 5  # nights whose records tell how long a stage takes here
_LONGEST = 4000  # nights in one request


class CampaignError(RequestError):
    """The range of dates cannot be meant."""


@dataclass
class Night:
    """One night of a campaign: ``due`` tasks that would run, ``why`` it is (not) submitted, ``seconds`` per workers."""

    night: str
    why: str
    due: int = 0
    work: float = 0.0
    chain: float = 0.0
    definition: RunDefinition | None = None

    def seconds(self, workers: int) -> float:
        """How long the night takes with so many workers [s]."""
        spread = max(0.0, self.work - self.chain) / max(1, workers)
        return _MARGIN * (self.chain + spread) + _START


@dataclass
class Campaign:
    """What a campaign would submit, and what it leaves and why."""

    jobs: list[Job] = field(default_factory=list)
    nights: list[Night] = field(default_factory=list)

    @property
    def left(self) -> list[Night]:
        """Nights that are not submitted."""
        return [night for night in self.nights if not night.due]

    def text(self) -> str:
        """Which night goes where and why."""
        place = {night: job.name for job in self.jobs for night in job.nights}
        rows = [(n.night, place.get(n.night, "-"), str(n.due or ""), n.why) for n in self.nights]
        lines = [progress.table(("night", "job", "tasks", "why"), rows)]
        for job in self.jobs:
            lanes = f"{len(job.lanes)} at a time, " if len(job.lanes) > 1 else ""
            hours = jobs.wall_seconds(job.walltime) * job.nodes / 3600
            lines.append(
                f"{job.name}: {len(job.nights)} night(s), {lanes}{job.walltime} at most, {hours:.2g} node hours"
            )
        due = sum(len(job.nights) for job in self.jobs)
        lines.append(
            f"{len(self.nights)} night(s): {due} to be submitted in {len(self.jobs)} job(s), {len(self.left)} left"
        )
        return "\n".join(lines)


def dates(first: str, last: str) -> list[str]:
    """All dates from first to last, both included.

    Raises
    ------
    CampaignError
        If they are in the wrong order or too many.
    """
    start, end = (dt.datetime.strptime(text, "%Y%m%d").date() for text in (first, last))
    number = (end - start).days + 1
    if number < 1:
        raise CampaignError(f"--from {first} is later than --to {last}")
    if number > _LONGEST:
        raise CampaignError(f"--from {first} --to {last} are {number} nights: at most {_LONGEST} in one request")
    return [(start + dt.timedelta(days=day)).strftime("%Y%m%d") for day in range(number)]


def stage_seconds(output: Path) -> dict[str, float]:
    """How long a task of each stage takes: as the records of the latest nights here say, else as measured once."""
    expected = {stage.name: stage.seconds for stage in STAGES}
    found: dict[str, list[float]] = {}
    for folder in sorted(output.glob("NIGHTS/[0-9]*/status"), reverse=True)[:_SAMPLE]:
        for record in status.read_all(folder).values():
            if record.state is State.SUCCEEDED and record.wall > 0:
                found.setdefault(record.stage, []).append(record.wall)
    return expected | {name: sum(times) / len(times) for name, times in found.items()}


def measure(plan: Plan, due: Iterable[str], seconds: dict[str, float]) -> tuple[float, float]:
    """The time of all tasks that are due one after the other, and of the longest chain of them [s]."""
    wanted = set(due)
    work = 0.0
    ends: dict[str, float] = {}
    for name, task in plan.tasks.items():
        own = seconds.get(task.stage.name, task.stage.seconds) if name in wanted else 0.0
        work += own
        before = list(ends.values()) if task.stage.last else [ends.get(need, 0.0) for need in task.comes_after]
        ends[name] = max(before, default=0.0) + own
    return work, max(ends.values(), default=0.0)


def look(
    definition: RunDefinition,
    nights: Iterable[str],
    *,
    active: dict[str, str] | None = None,
    keep: bool = True,
    forecast: Callable = runs.forecast,
) -> list[Night]:
    """Which of the nights are due, and why; derived from products and records alone, so that it can be asked at any time.

    ``active`` are the user's jobs that wait or run (number -> state); Slurm is asked by default.
    ``keep`` allows to keep the index of raw frames that was made for nights without one.
    """
    output = Path(definition.output)
    seconds = stage_seconds(output)
    index = output / "NIGHTS" / "jobs" / "index" if keep else None
    taken = jobs.busy(output, definition.tag, _active() if active is None else active)
    found = []
    for night in nights:
        asked = replace(definition, night=night)
        layout = Layout(output, night, definition.tag)
        if night in taken:
            found.append(Night(night, f"{taken[night]} is at it"))
            continue
        worker = jobs.locked(layout)
        if worker:
            found.append(Night(night, worker))
            continue
        try:
            seen = forecast(asked, retry_failed=False, cache_dir=index)
        except NothingToReduceError as error:
            found.append(Night(night, f"nothing to reduce: {_short(error)}"))
            continue
        except RequestError as error:
            missing = type(error).__name__ == "MissingNightError"
            found.append(Night(night, "no data" if missing else f"not possible: {_short(error)}"))
            continue
        due = seen.due
        if not due:
            stuck = sum(reason != runs.UP_TO_DATE for reason in seen.reasons.values())
            failed = f"; {stuck} task(s) failed before and would again (reduce tries them)" if stuck else ""
            found.append(Night(night, f"up to date{failed}"))
            continue
        work, chain = measure(seen.plan, due, seconds)
        first = next((name for name in due if seen.reasons[name] not in (runs.NEW, "closes the run")), due[0])
        found.append(Night(night, f"{first}: {seen.reasons[first]}"[:160], len(due), work, chain, asked))
    return found


def _active() -> dict[str, str]:
    try:
        return slurm.active()
    except slurm.SlurmError:
        return {}  # a dry run on a machine without Slurm; submitting says so


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def lanes_of(site: Site, nodes: int, workers: int | None, nights: int) -> tuple[int, int | None]:
    """How many nights a job reduces beside each other, and the workers of each (None: all that the node holds)."""
    if nodes > 1 or not (site.cores or site.workers):
        return 1, workers  # pools of several nodes serve one night; an unknown node is filled on the node itself
    room = workers or site.workers_per_node()
    lanes = max(1, min(room // _LANE, nights))
    return lanes, max(1, room // lanes) if lanes > 1 else workers


def pack(
    nights: list[Night],
    site: Site,
    folder: Path,
    *,
    nodes: int = 1,
    workers: int | None = None,
    wall: int = 0,
    tag: str = "",
) -> list[Job]:
    """Put nights into as few jobs as their wall time allows: the longest first, each into the first place with room.

    Parameters
    ----------
    nights : list of Night
        Those that are due.
    site : Site
        Where they run.
    folder : Path
        Where the jobs' files go.
    nodes, workers, wall : int
        Nodes of a job, notebooks at the same time (None: as many as the site holds), wall time [s] (0: the site's).
    tag : str
        Of the nights.
    """
    wall = wall or site.seconds
    room = wall - site.grace - jobs.TAIL
    number, per_lane = lanes_of(site, nodes, workers, len(nights))
    power = per_lane or (site.workers_per_node() if site.cores or site.workers else 1) * nodes
    lanes: list[list[Night]] = []
    for night in sorted(nights, key=lambda n: (-n.seconds(power), n.night)):
        for lane in lanes:
            if sum(n.seconds(power) for n in lane) + night.seconds(power) <= room:
                lane.append(night)
                break
        else:
            lanes.append([night])  # also one that is longer than a job: it goes on in the next
    lanes.sort(key=lambda lane: min(n.night for n in lane))
    made = []
    for begin in range(0, len(lanes), number):
        chosen = lanes[begin : begin + number]
        longest = max(sum(n.seconds(power) for n in lane) for lane in chosen)
        # Half as much again as estimated, in units of what is charged: a shorter job starts earlier.
        asked = math.ceil((1.5 * longest + site.grace + jobs.TAIL) / jobs.CHARGED) * jobs.CHARGED
        names = [sorted(n.night for n in lane) for lane in chosen]
        every = sorted(night for lane in names for night in lane)
        stem = every[0] if len(every) == 1 else f"{every[0]}-{every[-1]}"
        name = f"pnb-{stem}{f'-{tag}' if tag else ''}"
        taken = sum(job.name.startswith(name) for job in made)
        name = f"{name}-{taken + 1}" if taken else name
        made.append(Job(name, str(folder), names, jobs.clock(min(wall, asked)), nodes, per_lane, tag))
    return made


def plan(definition: RunDefinition, nights: list[str], site: Site, *, wall: int = 0, keep: bool = True) -> Campaign:
    """What a campaign over these nights would submit now; ``keep`` as for `look`."""
    active = _active()
    seen = look(definition, nights, active=active, keep=keep)
    due = [night for night in seen if night.due]
    folder = Path(definition.output) / "NIGHTS" / "jobs"
    nodes = definition.nodes or site.nodes
    made = pack(due, site, folder, nodes=nodes, workers=definition.jobs, wall=wall, tag=definition.tag) if due else []
    jobs.free_names(made, active)
    return Campaign(made, seen)


def write(campaign: Campaign, site: Site) -> None:
    """Write the jobs' files."""
    asked = {night.night: night.definition for night in campaign.nights if night.definition is not None}
    for job in campaign.jobs:
        jobs.write(job, site, {night: asked[night] for night in job.nights})
