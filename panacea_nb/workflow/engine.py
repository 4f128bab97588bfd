"""Where tasks run: Parsl's workers on this machine, or one by one in this process.

Files and states are the workflow's own, so an engine can be exchanged without touching anything else.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ..errors import PanaceaError
from . import files, processes, supervise
from .worker import Order, make_ready, run_task

RETRIES = 2  # of a task whose worker was lost; a task that failed is never tried again
_HEARTBEAT = 2  # s
_HEARTBEAT_LOST = 10  # s


class EngineLostError(PanaceaError):
    """The machinery that runs tasks has died; what it was running must be ordered again."""


class Engine(Protocol):
    """What the driver needs of an engine."""

    slots: int

    def start(self, tasks: int = 0) -> None:
        """Make ready to take tasks; ``tasks`` of them are waiting."""

    def submit(self, order: Order) -> Future:
        """Run a task; the future gives what `panacea_nb.workflow.worker.run_task` returns."""

    def check(self) -> None:
        """Raise `EngineLostError` when no answer can be expected any more."""

    def stop(self, *, now: bool = False) -> None:
        """End everything; with ``now`` also what is running."""


class SerialEngine:
    """One task after the other in a thread of this process: for debugging (``--jobs 0``)."""

    slots = 1

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def start(self, tasks: int = 0) -> None:
        """Start the thread."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="task")

    def submit(self, order: Order) -> Future:
        """Run a task after those before it."""
        assert self._pool is not None
        return self._pool.submit(run_task, asdict(order))

    def check(self) -> None:
        """Nothing can be lost here."""

    def stop(self, *, now: bool = False) -> None:
        """Wait for the task that runs, or kill its kernel."""
        if self._pool is not None:
            if now:
                supervise.kill_current_kernel()
            self._pool.submit(_clean_thread)
            self._pool.shutdown()
            self._pool = None


def _clean_thread() -> None:
    """Close what running notebooks left in this thread: the event loop, and the process that warm kernels come from."""
    from jupyter_core.utils import ensure_event_loop

    from . import forked

    forked.stop()
    ensure_event_loop().close()


class ParslEngine:
    """Parsl's HighThroughputExecutor: one pool of workers on this machine.

    Parameters
    ----------
    slots : int
        Workers.
    token : str
        The run's token; everything started here carries it, so that it can be found and ended.
    run_dir : Path
        Folder for Parsl's own files; its path goes through a shell unquoted, so it must be plain.
    """

    def __init__(self, slots: int, token: str, run_dir: Path) -> None:
        self.slots = slots
        self._token = token
        self._run_dir = run_dir
        self._kernel: Any = None
        self._executor: Any = None
        self._app: Any = None
        self._before: dict[str, str | None] = {}

    def start(self, tasks: int = 0) -> None:
        """Start interchange and workers, and have as many as ``tasks`` made ready; returns before the workers are up."""
        for earlier in self._run_dir.glob("*"):  # Parsl would count 000, 001, ... for ever
            files.remove_tree(earlier)
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._set_environment({**processes.environment(self._token), "PYTHONPATH": processes.python_path()})
        with _interrupts_ignored():
            self._load()
        prepare = self._python_app(make_ready)
        for _ in range(min(tasks, self.slots)):
            prepare()  # a worker that is being made ready takes no other order, so each gets one; if it fails, tasks still run

    def _load(self) -> None:
        # Here, because importing Parsl takes half a second that a run with nothing to do can save.
        from parsl.config import Config
        from parsl.dataflow.dflow import DataFlowKernel
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
        from parsl.jobs.error_handlers import noop_error_handler
        from parsl.providers import LocalProvider

        class Provider(LocalProvider):
            """Looks for lost workers every second instead of every five."""

            status_polling_interval = 1

        python = shlex.quote(sys.executable).replace("{", "{{{{").replace("}", "}}}}")  # formatted twice
        pool = f"{python} -m parsl.executors.high_throughput.process_worker_pool"
        self._executor = HighThroughputExecutor(
            label="htex",
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=self.slots,
            # The driver hands out no more tasks than there are slots; cores are not counted twice.
            cores_per_worker=0.01,
            heartbeat_period=_HEARTBEAT,
            heartbeat_threshold=_HEARTBEAT_LOST,
            # By module, so that the environment's bin folder need not be on PATH.
            launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", pool, 1),
            interchange_launch_cmd=[sys.executable, "-m", "parsl.executors.high_throughput.interchange"],
            # A pool that was killed is started anew (strategy 'simple'), however often that happens.
            block_error_handler=noop_error_handler,
            provider=Provider(init_blocks=1, min_blocks=1, max_blocks=1),
        )
        config = Config(
            executors=[self._executor],
            strategy="simple",
            strategy_period=0.5,
            retries=RETRIES,
            run_dir=str(self._run_dir),
            initialize_logging=False,
            usage_tracking=0,
            max_idletime=86400.0,
        )
        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        self._kernel = DataFlowKernel(config)
        self._app = self._python_app(run_task)

    def _python_app(self, function: Callable) -> Any:
        from parsl import python_app

        return python_app(function, data_flow_kernel=self._kernel, cache=False)

    def submit(self, order: Order) -> Future:
        """Hand a task to a worker."""
        return self._app(asdict(order))

    def check(self) -> None:
        """Parsl survives the loss of workers and of their pool, but not of its interchange."""
        process = self._executor.interchange_proc
        if process is None or process.poll() is not None:
            raise EngineLostError("Parsl's interchange has died")

    def stop(self, *, now: bool = False) -> None:
        """End workers, pool and interchange, and wait until they are gone."""
        if self._kernel is None:
            return
        interchange = self._executor.interchange_proc
        lost = interchange is None or interchange.poll() is not None
        if now or lost:
            # Whatever is running ends here; Parsl's own clean-up would wait for answers of the dead.
            processes.sweep(self._token)
            atexit.unregister(self._kernel.atexit_cleanup)
            self._abandon()
        else:
            self._kernel.cleanup()
            processes.sweep(self._token)
        self._kernel = self._executor = self._app = None
        self._set_environment(self._before)

    def _abandon(self) -> None:
        """Stop Parsl's threads in this process without asking processes that are dead."""
        self._kernel.cleanup_called = True
        self._kernel.job_status_poller._kill_event.set()
        self._executor._result_queue_thread_exit.set()
        self._executor.interchange_proc.wait(timeout=5)
        self._kernel._task_launch_pool.shutdown(wait=False, cancel_futures=True)

    def _set_environment(self, values: dict[str, str | None]) -> None:
        self._before = {name: os.environ.get(name) for name in values}
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def make(jobs: int | None, token: str, run_dir: Path) -> Engine:
    """The engine for ``jobs`` tasks at a time; 0 runs them in this process, None takes all cores."""
    if jobs == 0:
        return SerialEngine()
    return ParslEngine(jobs or available_cores(), token, run_dir)


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


@contextlib.contextmanager
def _interrupts_ignored() -> Any:
    """Ctrl-C reaches every process of a terminal: the driver alone shall hear it, the others begin with it ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
