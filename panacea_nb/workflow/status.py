"""What became of every task: one small JSON record each, replaced in one step, readable from any process."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from . import files

LOST = "RECORDLOST"  # code of the decision that a record could not be read


class State(str, Enum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"
    ABORTED = "aborted"

    @property
    def sentence(self) -> str:
        """What the state means, for people."""
        return _SENTENCES[self]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the task in this run."""
        return self not in (State.PENDING, State.RUNNING)


_SENTENCES = {
    State.PENDING: "It is in the plan and waits for its turn.",
    State.RUNNING: "Its notebook is being executed.",
    State.SUCCEEDED: "Its products and its executed notebook are in place.",
    State.FAILED: "Its notebook stopped with an error or could not be run; no product of this attempt was kept.",
    State.BLOCKED: "A task that it depends on failed, so it was not started.",
    State.ABORTED: "It was stopped from outside (interrupt, kill, end of the job); run again to go on.",
}


@dataclass
class Record:
    """The status record of one task.

    ``products`` maps paths (relative to the output root) to content digests; ``files`` maps the same paths and the
    notebook to size [bytes] and modification time [ns] at the moment they were put in place; ``claims`` are all paths
    that this task ever began to put in place: they are its own, to be replaced at will.  ``inputs`` are the parts of
    the fingerprint.  ``previous`` is the record of the last success of a task that is blocked now: its products are
    still there, and serve again when what blocked it turns out the same as then.
    """

    id: str
    stage: str
    state: State = State.PENDING
    fingerprint: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    notebook: str = ""
    notebook_digest: str = ""
    products: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)
    verdict: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    started: str = ""
    ended: str = ""
    wall: float = 0.0
    cpu: float = 0.0
    peak_memory: int = 0
    attempts: int = 0
    run: str = ""
    pid: int = 0
    host: str = ""
    space: str = ""
    previous: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """A record from JSON; keys of other versions are left out."""
        known = {item.name for item in dataclasses.fields(cls)}
        record = cls(**{key: value for key, value in values.items() if key in known})
        record.state = State(record.state)
        return record

    @property
    def lost(self) -> bool:
        """Whether it takes the place of a record that could not be read, until the task has succeeded again."""
        return self.state is not State.SUCCEEDED and any(item.get("code") == LOST for item in self.decisions)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {**dataclasses.asdict(self), "state": self.state.value}


def blocked(task_id: str, stage: str, notebook: str, by: str, known: Record | None) -> Record:
    """The record of a task that cannot be started because ``by`` did not succeed."""
    previous = None
    if known is not None:
        previous = known.to_dict() if known.state is State.SUCCEEDED else known.previous
        if previous is not None:
            previous = {**previous, "previous": None}
    return Record(
        id=task_id,
        stage=stage,
        notebook=notebook,
        state=State.BLOCKED,
        claims=list(known.claims) if known else [],
        error={"type": "Blocked", "message": f"it needs {by}, which did not succeed", "where": by},
        ended=now(),
        previous=previous,
    )


def last_success(record: Record | None) -> Record | None:
    """The record to compare with: a blocked task's is that of its last success."""
    if record is not None and record.state is State.BLOCKED and record.previous:
        return Record.from_dict(record.previous)
    return record


def now() -> str:
    """This moment, UT, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def record_path(status_dir: Path, task_id: str) -> Path:
    """Where the record of a task lies."""
    return status_dir / f"{task_id}.json"


def read(status_dir: Path, task_id: str) -> Record | None:
    """The record of a task; None where there is none or it is damaged (then the task counts as never run)."""
    return _load(record_path(status_dir, task_id))


def damaged(status_dir: Path, task_id: str) -> bool:
    """Whether there is a record of a task that cannot be read."""
    return record_path(status_dir, task_id).exists() and read(status_dir, task_id) is None


def _load(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record.from_dict(values)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def read_all(status_dir: Path) -> dict[str, Record]:
    """All readable records by task id, sorted by stage and id."""
    records = [record for path in status_dir.glob("*.json") if (record := _load(path)) is not None]
    return {record.id: record for record in sorted(records, key=lambda r: (r.stage, r.id))}


def write(status_dir: Path, record: Record, *, durable: bool = True) -> None:
    """Replace the record of a task in one step."""
    files.write_json(record_path(status_dir, record.id), record.to_dict(), durable=durable)
