"""The commands around batch systems: which sites there are, and jobs for one night or many."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

from ..errors import RequestError
from ..products.layout import Layout
from ..workflow import sites as places
from ..workflow.rundef import DefinitionError, RunDefinition


class SubmitError(RequestError):
    """A submission that cannot be meant, or that is not possible now."""


def sites(options: argparse.Namespace) -> int:
    """``panacea-nb sites``: list the sites, or explain one."""
    print(places.explain(places.find(options.site)) if options.site else places.listing())
    return 0


def submit(options: argparse.Namespace) -> int:
    """``panacea-nb submit``: a batch job for a night, or as few as possible for many."""
    if options.follow:
        return _follow(Path(options.follow))
    if options.resume:
        return _resume(options)
    first, last = options.first_night, options.last_night
    if (first or last) and "night" in vars(options):
        raise SubmitError("-d names one night, --from and --to a range: give one or the other")
    if not (first or last):
        return _submit_night(options)
    from ..workflow import campaign

    first, last = (_date(text, flag) for text, flag in ((first or last, "--from"), (last or first, "--to")))
    asked, site, wall = _request(options, first)
    found = campaign.plan(asked, campaign.dates(first, last), site, wall=wall, keep=not options.dry_run)
    print(found.text())
    if options.dry_run:
        return 0
    campaign.write(found, site)
    return _send(found.jobs)


def _submit_night(options: argparse.Namespace) -> int:
    from ..workflow import campaign, jobs, runs, slurm

    asked, site, wall = _request(options, "")
    layout = Layout(Path(asked.output), asked.night, asked.tag)
    active: dict[str, str] = {}
    if not options.dry_run:
        slurm.run(["sbatch", "--version"])
        active = slurm.active()
        busy = jobs.busy(layout.output, asked.tag, active).get(asked.night) or jobs.locked(layout)
        if busy:
            raise SubmitError(
                f"night {asked.night} is being reduced already ({busy}): wait, or cancel that job (scancel)"
            )
    nodes = asked.nodes or site.nodes
    workers = asked.jobs
    if not wall and site.cores:
        # As for a campaign of one night: what it needs, not all that the queue would give.
        seen = runs.forecast(asked)
        if not seen.due:
            print(
                f"night {asked.night} is up to date as far as it can be: nothing to submit (reduce --dry-run says why)"
            )
            return 0
        work, chain = campaign.measure(seen.plan, seen.due, campaign.stage_seconds(layout.output))
        night = campaign.Night(asked.night, "", len(seen.due), work, chain)
        made = campaign.pack([night], site, layout.night_dir / "jobs", nodes=nodes, workers=workers, tag=asked.tag)[0]
        made.workers = workers
    else:
        name = f"pnb-{asked.night}{f'-{asked.tag}' if asked.tag else ''}"
        clock = jobs.clock(wall or site.seconds)
        made = jobs.Job(name, str(layout.night_dir / "jobs"), [[asked.night]], clock, nodes, workers, asked.tag)
    if options.dry_run:
        print(jobs.script_text(made, site), end="")
        print(f"# dry run: nothing was written or submitted; the script would be {made.script}")
        return 0
    jobs.free_names([made], active)
    jobs.write(made, site, {asked.night: asked})
    return _send([made])


def _request(options: argparse.Namespace, night: str) -> tuple[RunDefinition, places.Site, int]:
    """What is asked, where, and its wall time [s] (0: the site's)."""
    from ..workflow import jobs
    from .commands import definition

    if night:
        options.night = night
    asked = definition(options)
    if asked.pilot:
        raise SubmitError("--pilot is for reduce, which then drives from here; submit runs the driver in the job")
    site = places.find(asked.site)
    if site.scheduler != "slurm":
        raise SubmitError(
            f"site {site.name} has no batch system (scheduler: {site.scheduler}): name one that has with --site "
            "(panacea-nb sites lists them), or use reduce"
        )
    if asked.nodes and asked.nodes > 1 and site.launcher == "none":
        raise SubmitError(f"site {site.name} has no launcher for several nodes: give --nodes 1, or set launcher: srun")
    if not options.dry_run:
        site.account_name()
    elif site.account:
        try:
            site.account_name()
        except RequestError as error:
            print(f"note: {error}")
            site = site.changed(account="ACCOUNT")
    if site.name not in places.names() or asked.site.endswith((".yaml", ".yml")):
        asked = dataclasses.replace(asked, site=str(Path(asked.site).expanduser().absolute()))
    wall = 0
    if options.time:
        if not re.fullmatch(r"(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d", options.time):
            raise DefinitionError(f"--time: {options.time!r} is not a time HH:MM:SS")
        wall = jobs.wall_seconds(options.time)
        if wall < 60:
            raise DefinitionError(f"--time: {options.time!r} is too short for anything")
    return asked, site, wall


def _send(made: list) -> int:
    from ..workflow import jobs

    for job in made:
        number = jobs.send(job)
        print(f"submitted job {number}: {', '.join(job.nights)}; script {job.script}")
    return 0


def _follow(record: Path) -> int:
    """The last line of a batch script: submit the job again if it deserves it; the exit code tells how it ended."""
    from ..workflow import jobs, slurm

    job = jobs.Job.load(record.absolute())
    codes = job.codes().values()
    worst = 3 if any(code == 3 or code > 128 for code in codes) else max(codes, default=3)
    try:
        decision, number = jobs.follow(job, "")
    except slurm.SlurmError as error:
        print(f"not submitted again: {error}; do so by hand: sbatch {job.script}, or panacea-nb submit --resume")
        return worst
    print(f"submitted again as job {number}: {decision.why}" if number else f"not submitted again: {decision.why}")
    return worst


def _resume(options: argparse.Namespace) -> int:
    """Look after all jobs under an output root: those that ended undeservedly are submitted again."""
    from ..workflow import jobs, slurm

    output = Path(getattr(options, "output", "runs")).expanduser().absolute()
    wanted = getattr(options, "night", "")
    active = slurm.active()
    for job in jobs.all_jobs(output):
        if wanted and wanted not in job.nights:
            continue
        if not job.job:
            continue
        if job.job in active:
            print(f"{job.name}: job {job.job} is {active[job.job].lower()}")
            continue
        state = slurm.final_state(job.job)
        if options.dry_run:
            decision, number = slurm.decide(state, job.codes().values(), job.again), "(dry run)"
        else:
            decision, number = jobs.follow(job, state)
        what = f"submitted again as job {number}" if decision.again else "left"
        print(f"{job.name}: {what}: {decision.why}")
    return 0


def _date(text: str, flag: str) -> str:
    from ..workflow import checks

    try:
        return checks.as_optional_date(text)
    except ValueError as error:
        raise DefinitionError(f"{flag}: {text!r} {error}") from None
