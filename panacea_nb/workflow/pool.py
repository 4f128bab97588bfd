"""Parsl's pools of workers: on this machine, on the nodes of an allocation, or in pilot jobs of their own."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PanaceaError, RequestError
from . import containers, files, node, processes, warm
from .sites import Site
from .worker import Order, make_ready, run_task

RETRIES = 2  # of a task whose worker was lost; a task that failed is never tried again
_HEARTBEAT = 2  # s
_HEARTBEAT_LOST = 10  # s
_POLL = 100  # ms between two looks of an idle engine at its clock; messages wake it at once, and every look costs
_START_WITHIN = 180.0  # s in which a task must be taken up by a worker of this machine
_START_ELSEWHERE = 600.0  # s for workers on other nodes or from an image that no node has read yet
_GIVE_UP = 4.0  # s after which workers elsewhere have seen that their pool is out of service


class EngineLostError(PanaceaError):
    """The machinery that runs tasks has died; what it was running must be ordered again."""


class PoolError(PanaceaError):
    """Workers cannot be started as the site has it; trying again would not help."""


class PlaceError(RequestError):
    """The site cannot be used for this run."""


@dataclass
class Place:
    """Where the workers of a run are started.

    Parameters
    ----------
    site : Site
        The machine.
    night_dir : Path or None
        Folder of the night, whose lock workers elsewhere watch.
    scratch : Path or None
        Node-local folder of the run, the same path on all nodes.
    nodes : int
        Nodes of the allocation, or pilot jobs at most.
    pilot : bool
        Whether workers come in batch jobs of their own.
    binds : tuple of str
        What a container needs to see beside what the site binds.
    """

    site: Site = field(default_factory=lambda: Site("local"))
    night_dir: Path | None = None
    scratch: Path | None = None
    nodes: int = 1
    pilot: bool = False
    binds: tuple[str, ...] = ()

    @property
    def spread(self) -> bool:
        """Whether workers run on other nodes than the driver."""
        return self.pilot or self.nodes > 1

    @property
    def apart(self) -> bool:
        """Whether workers run on other nodes or behind a container's walls, so that a watcher goes with them."""
        return self.spread or self.site.container.engine != "none"

    def check(self, run_dir: Path) -> None:
        """See that workers can be started.

        Raises
        ------
        RequestError
            If they cannot, with what to do.
        """
        site = self.site
        if self.pilot and site.scheduler != "slurm":
            raise PlaceError(f"--pilot needs a site with a batch system; {site.name} has scheduler: {site.scheduler}")
        if self.pilot:
            site.account_name()
        elif self.nodes > 1 and site.launcher == "none":
            raise PlaceError(
                f"site {site.name} has no launcher, so it uses one node, not {self.nodes}: set launcher: srun"
            )
        if self.spread and not re.fullmatch(r"[\w./+:@-]+", str(run_dir)):
            raise PlaceError(
                f"for workers on other nodes the path of --output must be plain (letters, digits, . _ - / only): {run_dir}"
            )
        if not self.pilot:  # else engine and image are where the jobs run
            containers.check(site.container, self.binds)


class Launcher:
    """Starts one pool per node of an allocation; Parsl calls it with the command of one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:
        """The command that starts ``command`` on every node."""
        if self.kind == "srun":
            # All of each node, whatever the batch script itself occupies; the loss of one node does not end the others.
            options = "--ntasks-per-node=1 --cpu-bind=none --mem=0 --overlap --kill-on-bad-exit=0 --wait=0"
            return f"exec srun --nodes={nodes_per_block} --ntasks={nodes_per_block} {options} {command}"
        return f"exec ibrun -n {nodes_per_block} {command}"


class ParslEngine:
    """Parsl's HighThroughputExecutor: pools of workers, one per node.

    Parameters
    ----------
    slots : int or None
        Workers in all; None takes as many as the site's nodes hold.
    token : str
        The run's token; everything started here carries it, so that it can be found and ended.
    run_dir : Path
        Folder for Parsl's own files; its path goes through a shell unquoted, so it must be plain.
    place : Place
        Where workers are started; this machine by default.
    """

    def __init__(self, slots: int | None, token: str, run_dir: Path, place: Place | None = None) -> None:
        self.place = place or Place()
        self.per_node = math.ceil(slots / self.place.nodes) if slots else self.place.site.workers_per_node()
        self.slots = slots or self.per_node * self.place.nodes
        self.start_within = (
            math.inf if self.place.pilot else _START_ELSEWHERE if self.place.apart else _START_WITHIN
        )  # s in which a task must be taken up
        self._token = token
        self._run_dir = run_dir
        self._generation = 0
        self._kernel: Any = None
        self._executor: Any = None
        self._app: Any = None
        self._before: dict[str, str | None] = {}

    def start(self, tasks: int = 0) -> None:
        """Start interchange and workers, and have as many as ``tasks`` made ready; returns before the workers are up."""
        self.place.check(self._run_dir)
        for earlier in self._run_dir.glob("*"):  # Parsl would count 000, 001, ... for ever
            files.remove_tree(earlier)
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._generation += 1
        if self.place.apart:
            assert self.place.night_dir is not None
            files.write_text(node.pool_file(self.place.night_dir), self._service())
        self._set_environment({**processes.environment(self._token), "PYTHONPATH": processes.python_path()})
        with _interrupts_ignored():
            self._load()
        prepare = self._python_app(make_ready)
        for _ in range(min(tasks, self.slots)):
            prepare()  # a worker that is being made ready takes no other order, so each gets one; if it fails, tasks still run

    def _service(self) -> str:
        """The name of this generation of pools."""
        return f"{self._token}-{self._generation}"

    def _launch_command(self, rest: str) -> str:
        """The command of one node's pool, for Parsl, which formats it twice; ``rest`` are Parsl's own options."""
        place = self.place
        inside = place.site.container.engine != "none"
        python = "python3" if inside else sys.executable
        words = [python, "-m", "parsl.executors.high_throughput.process_worker_pool"]
        if place.scratch is not None:
            words = [python, "-m", "panacea_nb.workflow.process_worker_pool", str(place.scratch)]
        if place.apart:
            words = self._watched(python, words)
            environment = {**processes.environment(self._token)}
            if place.scratch is not None:
                environment["TMPDIR"] = str(place.scratch.parent)
            for name in (warm.KERNELS,) if inside else (warm.KERNELS, "PYTHONPATH"):
                if os.environ.get(name):
                    environment[name] = os.environ[name]
            words = containers.command(
                place.site.container, words, binds=place.binds, environment=environment, network=True
            )
        return shlex.join(words).replace("{", "{{{{").replace("}", "}}}}") + rest

    def _watched(self, python: str, words: list[str]) -> list[str]:
        """A command with a watcher that ends it when this driver is gone."""
        place = self.place
        watcher = [str(place.night_dir), self._token, self._service(), str(place.scratch)]
        return [python, "-m", "panacea_nb.workflow.node", *watcher, *words]

    def _interchange(self) -> list[str]:
        words = [sys.executable, "-m", "parsl.executors.high_throughput.interchange"]
        return self._watched(sys.executable, words) if self.place.apart else words

    def _provider(self) -> Any:
        from parsl.launchers.base import Launcher as Base
        from parsl.providers import LocalProvider, SlurmProvider

        place, site = self.place, self.place.site

        class NodeLauncher(Launcher, Base):
            """Parsl wants its own kind."""

        if place.pilot:
            options = "".join(f"#SBATCH {word}\n" for word in site.sbatch if word != "--exclusive")
            return SlurmProvider(
                partition=site.partition or None,
                account=site.account_name() or None,
                nodes_per_block=1,
                init_blocks=place.nodes,
                min_blocks=0,
                max_blocks=place.nodes,
                walltime=_hours(site.seconds),
                scheduler_options=options,
                exclusive="--exclusive" in site.sbatch,
                worker_init="\n".join(setup_lines(site)),
                cmd_timeout=60,
            )

        class Provider(LocalProvider):
            """Looks for lost workers every second instead of every five."""

            status_polling_interval = 1

        if place.nodes > 1:
            launcher = NodeLauncher(site.launcher)
            return Provider(nodes_per_block=place.nodes, launcher=launcher, init_blocks=1, min_blocks=1, max_blocks=1)
        return Provider(init_blocks=1, min_blocks=1, max_blocks=1)

    def _load(self) -> None:
        # Here, because importing Parsl takes half a second that a run with nothing to do can save.
        from parsl.config import Config
        from parsl.dataflow.dflow import DataFlowKernel
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
        from parsl.jobs.error_handlers import noop_error_handler

        self._executor = HighThroughputExecutor(
            label="htex",
            address=driver_address(self.place.site) if self.place.spread else "127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=self.per_node,
            # The driver hands out no more tasks than there are slots; cores are not counted twice.
            cores_per_worker=0.01,
            heartbeat_period=_HEARTBEAT,
            heartbeat_threshold=_HEARTBEAT_LOST,
            poll_period=_POLL,
            # By module, so that the environment's bin folder need not be on PATH.
            launch_cmd=self._launch_command(DEFAULT_LAUNCH_CMD.removeprefix("process_worker_pool.py")),
            interchange_launch_cmd=self._interchange(),
            # A pool that was killed is started anew (strategy 'simple'), however often that happens.
            block_error_handler=noop_error_handler,
            provider=self._provider(),
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
        """Parsl survives the loss of workers and of their pool, but not of its interchange.

        Raises
        ------
        EngineLostError
            If the interchange is gone.
        PoolError
            If workers and driver do not fit together.
        """
        problem = self._executor.executor_exception if self._executor.bad_state_is_set else None
        if type(problem).__name__ == "VersionMismatch":
            said = " ".join(str(problem).split())
            raise PoolError(
                f"the workers have another version of Python or Parsl than this driver ({said}): build the image from the "
                "same lock file and minor version of Python as the environment of the driver (containers/README.md)"
            )
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
            self._out_of_service()  # what cannot be reached sees this and ends
            # Whatever is running ends here; Parsl's own clean-up would wait for answers of the dead.
            if self.place.pilot:
                self._cancel_pilots()
            processes.sweep(self._token)
            atexit.unregister(self._kernel.atexit_cleanup)
            self._abandon()
            if self.place.spread:
                time.sleep(_GIVE_UP)
        else:
            self._kernel.cleanup()
            processes.sweep(self._token)
            self._out_of_service()
        self._kernel = self._executor = self._app = None
        self._set_environment(self._before)

    def _out_of_service(self) -> None:
        if self.place.apart and self.place.night_dir is not None:
            node.pool_file(self.place.night_dir).unlink(missing_ok=True)

    def _cancel_pilots(self) -> None:
        provider = self._executor.provider
        jobs = [name for name, job in provider.resources.items() if not job["status"].terminal]
        if jobs:
            provider.cancel(jobs)

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


def setup_lines(site: Site) -> list[str]:
    """Lines of a shell script that make a node of the site ready."""
    return [*(f"module load {name}" for name in site.modules), *site.setup]


def _hours(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def driver_address(site: Site) -> str:
    """The address under which other nodes reach this one.

    Raises
    ------
    PlaceError
        If the site names one that is none.
    """
    if site.address:
        try:
            return socket.gethostbyname(site.address)
        except OSError as error:
            raise PlaceError(f"site {site.name}: address: {site.address!r} is not known here ({error})") from error
    with contextlib.suppress(OSError):
        found = socket.gethostbyname(socket.gethostname())
        if not found.startswith("127."):
            return found
    # The host's name may stand for the loopback only (Debian): the address of whatever leads out then.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        return probe.getsockname()[0]
    return "127.0.0.1"


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
