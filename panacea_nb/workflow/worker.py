"""Run one task: execute its notebook, believe it only if it said how it ended, and put what it made into place."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import unneeded  # noqa: F401 - before anything imports nbformat
from ..errors import PanaceaError
from ..products import image
from . import files, fingerprint, notebooks, staging, status, supervise
from .lock import Owner, OwnerGoneError, passage, process_space
from .processes import VARIABLE
from .status import Record, State

# Shared with panacea_nb.products.session, which is not imported here: it would bring astropy into every worker.
STAGING_VARIABLE = "PANACEA_NB_STAGING"
TOKEN_VARIABLE = "PANACEA_NB_TOKEN"
HASH_VARIABLE = "PANACEA_NB_NOTEBOOK_HASH"
RESULT_NAME = ".result.json"
VERDICTS = ("pass", "warn", "fail")
INTERRUPTED = "Interrupted"
_NO_ROOM = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)
_OWN_FAULTS = (
    "ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "LinAlgError", "NameError", "RuntimeError",
    "TypeError", "UnboundLocalError", "ValueError", "ZeroDivisionError",
)  # fmt: skip


class ForeignProductError(PanaceaError):
    """A file would be replaced of which this run has no record."""


class OtherCodeError(PanaceaError):
    """This worker's package is not the one that the driver planned with."""


class ResultError(PanaceaError):
    """The notebook did not leave a valid account of its end, so it does not count as having succeeded."""


@dataclass
class Order:
    """All that a worker needs to know to run a task; plain values, so that it can be sent anywhere."""

    id: str
    stage: str
    source: str
    notebook: str
    parameters: dict[str, Any]
    fingerprint: str
    inputs: dict[str, Any]
    output: str
    night_dir: str
    owner: dict[str, Any]
    scratch: str
    timeout: float = 3600.0
    overwrite: bool = False
    raw: list[str] = field(default_factory=list)
    node_local: bool = False
    code: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def notebook_file(self) -> Path:
        """The notebook to run: as the driver has it, or this installation's own copy where that cannot be seen (in an image)."""
        source = Path(self.source)
        return source if source.is_file() else notebooks.path(self.stage)

    @property
    def status_dir(self) -> Path:
        """Where the status records lie."""
        return Path(self.night_dir) / "status"

    @property
    def staging_root(self) -> Path:
        """Where attempts stage what they make: on the same file system as the products, so that a rename suffices, or on
        the node's own, from which finished files are copied in one go."""
        return Path(self.scratch) / "staging" if self.node_local else staging_root(Path(self.night_dir))


@dataclass
class Attempt:
    """One attempt at a task, while it runs."""

    order: Order
    owner: Owner
    token: str
    staging: Path
    folder: Path
    record: Record
    result: dict[str, Any] = field(default_factory=dict)
    notebook: Any = None
    notes: list[tuple[str, str]] = field(default_factory=list)


def staging_root(night_dir: Path) -> Path:
    """Where attempts stage what they make."""
    return night_dir / "work" / ".staging"


def make_ready() -> None:
    """Have loaded in this process what every task needs, and its warm process ready: before its first task, which would wait."""
    from . import forked, kernel, warm  # noqa: F401 - the kernel's imports, while the warm process is at its own

    forked.server(warm.shared_environment(), wait=True)


def run_task(order_values: dict[str, Any]) -> dict[str, Any]:
    """Run a task in this process; the one function that an engine calls.

    Parameters
    ----------
    order_values : dict
        An `Order` as plain values.

    Returns
    -------
    dict
        ``record``: the status record as written; ``log``: lines that the notebook wants in the log of the run.

    Raises
    ------
    OwnerGoneError
        If the driver is dead or has lost its lock (in a worker process of its own, that process ends instead).
    """
    order = Order(**order_values)
    owner = Owner(**order.owner)
    supervisor = supervise.for_owner(owner, Path(order.night_dir))
    try:
        return _run(order, owner, supervisor)
    except OwnerGoneError:
        supervise.end_if_orphan(owner)
        raise


def _run(order: Order, owner: Owner, supervisor: supervise.Supervisor) -> dict[str, Any]:
    began = time.monotonic()
    token = uuid.uuid4().hex[:8]
    with passage(Path(order.night_dir), owner):
        known = status.read(order.status_dir, order.id)
        done_before = State.SUCCEEDED, owner.token, order.fingerprint
        if known is not None and (known.state, known.run, known.fingerprint) == done_before:
            # Its worker was lost with the answer.
            return {"record": known.to_dict(), "log": []}
        if known is not None and known.lost:
            order.overwrite = True  # the task has run here: what lies where its files belong is its own
        record = _running(order, owner, known)
        status.write(order.status_dir, record)
    # On another node it is not there yet; whatever lies below is nobody else's business.
    Path(order.scratch).mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in order.staging_root.glob(f"{order.id}-????????"):
        files.remove_tree(leftover)
    attempt = Attempt(
        order, owner, token, order.staging_root / f"{order.id}-{token}", Path(order.scratch) / token, record
    )
    if known is not None and known.lost:
        attempt.notes.append((status.LOST, "the record of an earlier run could not be read: what lay in its place was replaced"))
    try:
        attempt.staging.mkdir(parents=True)
        attempt.folder.mkdir(parents=True, mode=0o700)
        problem = _attempt(attempt, supervisor)
        record.wall = round(time.monotonic() - began, 3)
        record.ended = status.now()
        if problem is None:
            try:
                _succeed(attempt)
            except (ForeignProductError, OSError) as error:
                problem = _problem(error)
        if problem is not None:
            _fail(attempt, problem)
    finally:
        files.remove_tree(attempt.staging)
        files.remove_tree(attempt.folder)
    return {"record": record.to_dict(), "log": [str(line) for line in attempt.result.get("log", [])]}


def _running(order: Order, owner: Owner, known: Record | None) -> Record:
    same_run = known is not None and known.run == owner.token
    return Record(
        id=order.id,
        stage=order.stage,
        state=State.RUNNING,
        fingerprint=order.fingerprint,
        inputs=order.inputs,
        parameters=order.parameters,
        notebook=order.notebook,
        claims=list(known.claims) if known else [],
        started=status.now(),
        attempts=(known.attempts if same_run and known else 0) + 1,
        decisions=list(known.decisions) if known is not None and known.lost else [],
        run=owner.token,
        pid=os.getpid(),
        host=socket.gethostname(),
        space=process_space(),
    )


def _problem(error: BaseException, **more: Any) -> dict[str, Any]:
    return {"type": type(error).__name__, "message": str(error) or type(error).__name__, "where": "", **more}


def check_code(order: Order) -> None:
    """Refuse to work with another version of the package than the driver's: records would name what was not run.

    Raises
    ------
    OtherCodeError
        If the code or the notebook differs.
    """
    if not order.code:
        return
    differs = order.code != _own_code()
    if differs or order.inputs.get("notebook") not in (None, notebooks.source_digest(order.notebook_file)):
        what = "package" if differs else f"notebook {order.stage}"
        raise OtherCodeError(
            f"the {what} that this worker has (in its image) is not that of the driver: build the image from the version "
            "that is installed where the driver runs, or install the image's version there"
        )


@lru_cache(maxsize=1)
def _own_code() -> str:
    return fingerprint.code_digest()


# --- the notebook -----------------------------------------------------------------------------------------------------
def _attempt(attempt: Attempt, supervisor: supervise.Supervisor) -> dict[str, Any] | None:
    """Execute the notebook and read its account; returns what went wrong, None when nothing did."""
    order = attempt.order
    try:
        source = order.notebook_file
        check_code(order)
        notebooks.check_parameters(source, order.parameters)
        _refuse_foreign(attempt, [order.notebook])
    except PanaceaError as error:
        return _problem(error)
    problem = _execute(attempt, supervisor, source)
    if problem is None:
        try:
            attempt.result = read_result(attempt.staging, attempt.token, order.stage)
        except ResultError as error:
            problem = _problem(error)
    return problem


def _execute(attempt: Attempt, supervisor: supervise.Supervisor, source: Path) -> dict[str, Any] | None:
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException, PapermillExecutionError

    from . import kernel, mend

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    order = attempt.order
    copies = staging.folder_of(Path(order.scratch)) if order.raw else None
    if copies is not None:
        attempt.notes += [("RAW-IN-PLACE", note) for note in staging.stage(order.raw, copies)]
    session = kernel.Session(
        attempt.folder,
        variables={
            **({staging.VARIABLE: str(copies)} if copies is not None else {}),
            STAGING_VARIABLE: str(attempt.staging),
            TOKEN_VARIABLE: attempt.token,
            HASH_VARIABLE: notebooks.source_digest(source),
            VARIABLE: attempt.owner.token,
            "SPT_NOENV": "1",
            **order.environment,
        },
        on_start=lambda pid: supervisor.watch(pid, order.timeout),
        on_end=lambda _: supervisor.measure(),
    )
    problem: dict[str, Any] | None = None
    try:
        execute_notebook(
            str(source).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            None,
            parameters=order.parameters,
            engine_name=kernel.ENGINE,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            request_save_on_cell_execute=False,
            session=session,
        )
    except PapermillExecutionError as error:
        message = _explained(error.ename, _one_line(error.evalue))
        problem = {"type": error.ename, "message": message, "traceback": error.traceback[-1:]}
    except (DeadKernelError, CellTimeoutError, TimeoutError) as error:
        problem = _death(session, supervisor, error)
    except (PapermillException, kernel.KernelStartError, RuntimeError, OSError) as error:
        problem = _problem(error)
    usage = supervisor.end()
    attempt.record.cpu, attempt.record.peak_memory = usage.cpu, usage.peak_memory
    if session.notebook is not None:
        attempt.notebook = session.notebook
        mend.remove_markers(session.notebook)
        if problem is not None:
            problem["where"] = _where(session)
            problem.pop("traceback", None)
        attempt.notebook.metadata.setdefault("papermill", {}).update(input_path=source.name, output_path=order.notebook)
        ended = problem or _unfinished(attempt, session)
        if ended is not None:
            state = State.ABORTED if ended["type"] == INTERRUPTED else State.FAILED
            mend.mend(attempt.notebook, session, state.value, f"{ended['type']}: {ended['message']}")
            return ended
    return problem


def _unfinished(attempt: Attempt, session: Any) -> dict[str, Any] | None:
    """A run that raised nothing but did not reach its end (``sys.exit(0)`` in a cell does that)."""
    if len(session.finished) == len(session.notebook.cells) and (attempt.staging / RESULT_NAME).is_file():
        return None
    message = "the notebook ended before it stated its verdict (task.finish), so it does not count as done"
    return {"type": "EndedEarly", "message": message, "where": _where(session)}


def _death(session: Any, supervisor: supervise.Supervisor, error: BaseException) -> dict[str, Any]:
    """Why the kernel is gone."""
    if supervisor.stopping:
        return {"type": INTERRUPTED, "message": "the run was interrupted; run again to go on"}
    if supervisor.timed_out:
        message = (
            f"the notebook took longer than {supervisor.timeout:.0f} s, the limit of its stage, and was stopped: is the machine "
            "overloaded, or its disk slow? Run again with fewer at a time (--jobs)"
        )
        return {"type": "TimeOut", "message": message}
    code = session.exit_code
    if code is None:
        return {
            "type": type(error).__name__,
            "message": f"the notebook's process does not answer any more ({_one_line(str(error))}): run again",
        }
    how = f"was killed by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"
    hint = ", as a machine does that is short of memory: run again with fewer at a time (--jobs)" if code == -9 else ": run again"
    return {"type": "KernelDied", "message": f"the notebook's process (kernel) {how} in the middle of a cell{hint}"}


def _where(session: Any) -> str:
    """The cell that was running, by number and first line of code."""
    if not session.place:
        return ""
    lines = [line for line in session.notebook.cells[session.current].source.splitlines() if line.strip()]
    return f"{session.place}: {lines[0][:100]}" if lines else session.place


def _explained(kind: str, text: str) -> str:
    """What an error of a notebook means, where it is none of the package's own, which explain themselves."""
    if kind == "OSError" and any(f"[Errno {number}]" in text for number in _NO_ROOM):
        return f"{text}: the disk or a quota is full, or a limit on file sizes was reached: make room or raise it, and run again"
    if kind in _OWN_FAULTS:
        return f"{text}: an error that the program did not foresee, not one of your request: please report it with the notebook"
    return text


def _one_line(text: str) -> str:
    return " ".join(str(text).split())[:2000]


def read_result(staging: Path, token: str, stage: str) -> dict[str, Any]:
    """The account that a notebook left of its own end, checked.

    Raises
    ------
    ResultError
        If there is none, or it is of another attempt, or names files that it did not make.
    """
    path = staging / RESULT_NAME
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError("the notebook ended without stating its verdict (task.finish)") from None
    except (OSError, ValueError) as error:
        raise ResultError(f"the notebook's account of its end cannot be read: {error}") from error
    if not isinstance(result, dict) or result.get("token") != token or result.get("stage") != stage:
        raise ResultError("the notebook's account of its end belongs to another attempt or stage")
    if result.get("verdict") not in VERDICTS:
        raise ResultError(f"the verdict {result.get('verdict')!r} is none of {', '.join(VERDICTS)}")
    for product in result.get("products", []):
        relative = Path(str(product.get("path", "")))
        staged = staging / relative
        if relative.is_absolute() or ".." in relative.parts or staged.is_symlink() or not staged.is_file():
            raise ResultError(f"the product {str(relative)!r} was announced but not made")
        if not product.get("digest"):
            raise ResultError(f"the product {str(relative)!r} has no digest")
    return result


# --- the end ----------------------------------------------------------------------------------------------------------
def _refuse_foreign(attempt: Attempt, paths: list[str]) -> None:
    """Refuse to replace files that no run of this folder made."""
    order = attempt.order
    foreign = [p for p in paths if p not in attempt.record.claims and (Path(order.output) / p).exists()]
    if foreign and not order.overwrite:
        raise ForeignProductError(
            f"{foreign[0]} exists and this run has no record of having made it (another run definition did, or the "
            "status folder was removed): use --overwrite to replace it, or --tag NAME for a folder of its own"
        )


def _write_notebook(attempt: Attempt, state: State) -> Path | None:
    """The executed notebook in the staging folder; None where the run never came to one."""
    if attempt.notebook is None:
        return None
    import nbformat

    order = attempt.order
    attempt.notebook.metadata["panacea_nb"] = {
        "task": order.id,
        "state": state.value,
        "fingerprint": order.fingerprint,
        "run": attempt.owner.token,
        "image": image.digest(),
    }
    staged = attempt.staging / ".notebook.ipynb"
    staged.write_text(nbformat.writes(attempt.notebook) + "\n", encoding="utf-8")
    files.sync_file(staged)
    return staged


def _succeed(attempt: Attempt) -> None:
    """Put products and notebook into place and write the record: only then is the task done."""
    order, record, result = attempt.order, attempt.record, attempt.result
    products = {str(item["path"]): str(item["digest"]) for item in result.get("products", [])}
    _refuse_foreign(attempt, [*products, order.notebook])
    staged = {relative: attempt.staging / relative for relative in products}
    notebook = _write_notebook(attempt, State.SUCCEEDED)
    assert notebook is not None  # a verdict was read, so cells have run
    for path in staged.values():
        files.sync_file(path)
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
    _place(attempt, {**staged, order.notebook: notebook})
    record.products = products
    record.notebook_digest = digest
    record.files = {name: _stat(Path(order.output) / name) for name in (*products, order.notebook)}
    record.verdict, record.decisions = result["verdict"], []
    for name in ("metrics", "decisions", "versions", "timing"):
        value = result.get(name)
        if isinstance(value, type(getattr(record, name))):
            setattr(record, name, value)
    record.decisions += [{"code": code, "text": note, "severity": "info"} for code, note in attempt.notes]
    record.error = None
    record.state = State.SUCCEEDED
    _finish(attempt)


def _fail(attempt: Attempt, problem: dict[str, Any]) -> None:
    """Write down a failure; of what the attempt made only the mended notebook is kept."""
    order, record = attempt.order, attempt.record
    record.state = State.ABORTED if problem["type"] == INTERRUPTED else State.FAILED
    record.error = problem
    record.ended = record.ended or status.now()
    attempt.result = {}
    try:
        if attempt.notebook is not None and problem["type"] != ForeignProductError.__name__:
            _refuse_foreign(attempt, [order.notebook])
            staged = _write_notebook(attempt, record.state)
            if staged is not None:
                _place(attempt, {order.notebook: staged})
    except (ForeignProductError, OSError) as error:
        problem["message"] += f" (and its notebook could not be kept: {error})"
    _finish(attempt)


def _place(attempt: Attempt, staged: dict[str, Path]) -> None:
    """Rename staged files to where they belong, the claim on them written down before."""
    record, output = attempt.record, Path(attempt.order.output)
    with passage(Path(attempt.order.night_dir), attempt.owner):
        claims = sorted({*record.claims, *staged})
        if claims != record.claims:
            record.claims = claims
            # Were we killed between here and the record of success, the next run would know these files for its own.
            status.write(attempt.order.status_dir, dataclasses.replace(record, state=State.RUNNING, error=None))
        for relative, path in staged.items():
            files.move(path, output / relative)
        for folder in {(output / relative).parent for relative in staged}:
            files.sync_folder(folder)


def _finish(attempt: Attempt) -> None:
    with passage(Path(attempt.order.night_dir), attempt.owner):
        status.write(attempt.order.status_dir, attempt.record)


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
