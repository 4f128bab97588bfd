"""Slurm's commands: submit a script, see what became of a job, decide whether it deserves to be submitted again."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError

_PATIENCE = 60.0  # s for an answer of the controller
_TRIES = 3
RESUBMISSIONS = 5  # at most, of a job that gets no further
# States that say nothing against the work itself; each with what is done differently.
DESERVING = {
    "TIMEOUT": "its wall time was over",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not start",
    "PREEMPTED": "it had to make room for another job",
    "OUT_OF_MEMORY": "a node ran out of memory; with half as many workers",
    "RESUME": "it ended itself before its wall time",
    "KILLED": "its driver was killed; with half as many workers, in case it was for memory",
}
_LESS = ("OUT_OF_MEMORY", "KILLED")
_GONE = ("COMPLETED", "FAILED", "CANCELLED", "DEADLINE", "REVOKED", *DESERVING)


class SlurmError(RequestError):
    """Slurm is not here, does not answer, or refused a job."""


@dataclass(frozen=True)
class Decision:
    """Whether a job is to be submitted again, why (not), and whether with fewer workers, so more memory for each."""

    again: bool
    why: str
    fewer_workers: bool = False


def decide(state: str, codes: Iterable[int], times: int, limit: int = RESUBMISSIONS) -> Decision:
    """Whether a job that has ended deserves to be submitted again.

    Parameters
    ----------
    state : str
        Slurm's word for how it ended; empty where it is not known any more.
    codes : iterable of int
        Exit codes of its nights: 3 says "resume me", 128 and more that the driver was killed; empty when it left none.
    times : int
        How often it has been submitted again already without getting further.
    limit : int
        How often it may be.
    """
    codes = list(codes)
    if state == "CANCELLED":
        return Decision(False, "it was cancelled: somebody wanted it to end")
    cause = state if state in DESERVING else ""
    if not cause and 3 in codes:
        cause = "RESUME"
    if not cause and any(code > 128 for code in codes):
        cause = "KILLED"
    if not cause:
        if any(code == 1 for code in codes):
            return Decision(
                False, "something of it failed by itself: trying again would not help; the reports say what"
            )
        if any(code == 2 for code in codes):
            return Decision(False, "its request cannot be carried out: its output says why")
        if codes and not any(codes):
            return Decision(False, "it is done")
        return Decision(False, f"it ended as {state or 'unknown'} and left no exit code: see its output")
    if times >= limit:
        return Decision(False, f"{DESERVING[cause]}, but it has been submitted again {times} times already and got no further")
    return Decision(True, DESERVING[cause], cause in _LESS)


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Output of one of Slurm's commands, which may need a second try when the controller is busy.

    Raises
    ------
    SlurmError
        If the command is not here, does not answer or fails.
    """
    said = ""
    for _ in range(_TRIES):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE, check=False, env=environment
            )
        except FileNotFoundError:
            raise SlurmError(
                f"there is no {command[0]} here: this needs a machine with Slurm (a login node), or a site with scheduler: none"
            ) from None
        except subprocess.TimeoutExpired:
            said = f"no answer within {_PATIENCE:.0f} s"
            continue
        if done.returncode == 0:
            return done.stdout
        said = " ".join((done.stderr or done.stdout).split())[-500:]
        if not re.search(r"timed? ?out|Socket|Unable to contact|temporarily", said):
            break
    raise SlurmError(
        f"Slurm's {command[0]} failed; is this a machine where its commands work (a login node, or inside a job)? It said: {said}"
    )


def submit(script: Path) -> str:
    """Hand a batch script to Slurm; the job's number.

    Raises
    ------
    SlurmError
        If Slurm refuses it.
    """
    # Inside a job the variables of that job would be taken for options of the new one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    kept |= {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    said = run(["sbatch", "--parsable", str(script)], kept)
    found = re.findall(r"^(?:Submitted batch job )?(\d+)(?:;\S+)?\s*$", said, re.MULTILINE)
    if not found:
        raise SlurmError(f"sbatch did not tell a job's number: {' '.join(said.split())[-300:]}")
    return found[-1]


def active() -> dict[str, str]:
    """This user's jobs that wait or run: number -> state."""
    lines = run(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %T"]).splitlines()
    found = dict(line.split(maxsplit=1) for line in lines if line.strip())
    return {name: state for name, state in found.items() if state not in _GONE}


def final_state(job: str) -> str:
    """How a job that is over ended, in Slurm's word; empty when nobody knows any more."""
    try:
        found = re.search(r"JobState=(\w+)", run(["scontrol", "show", "job", job]))
        if found:
            return found[1]
    except SlurmError:
        pass  # forgotten after some minutes; the accounts know longer, where they are kept
    try:
        words = run(["sacct", "--noheader", "--allocations", "--format=State%20", f"--jobs={job}"]).split()
    except SlurmError:
        return ""
    return words[0].rstrip("+") if words else ""
