"""Kernels that cannot get in each other's way: private folders, private sockets, one per notebook run.

Over TCP, and over IPC with a shared path, parallel kernel starts were seen to fail; with a short private path per
kernel they do not.  Only the start is retried: a notebook that has begun may have done something.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from ..errors import PanaceaError
from . import forked, scratch, warm

ENGINE = "panacea_nb"
START_ATTEMPTS = 3
START_TIMEOUT = 120.0  # s: importing ipykernel from a cold network disk
_RECONNECT = 10  # ms between two tries to reach sockets that the kernel has not opened yet; ZeroMQ's own are 100
_OUTPUTS = 0.02  # s: without an answer on the channel of outputs it was not connected when the kernel was asked
_END = 5.0  # s that a killed kernel may take to give back its memory


class KernelStartError(PanaceaError):
    """No kernel could be started; nothing of the notebook has run."""


def private_environment(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """The environment of a kernel whose caches, settings and runtime files all lie in ``folder``."""
    places = {
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTER_CONFIG_DIR": "config",
        "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "mpl",
        "XDG_CACHE_HOME": "cache",
        "XDG_CONFIG_HOME": "cache",
        "TMPDIR": "tmp",
    }
    for name in {*places.values(), "cache/astropy"}:
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    fonts = scratch.font_cache()
    if fonts is not None:
        for known in fonts.glob("fontlist*.json"):
            shutil.copy(known, folder / "mpl" / known.name)
    environment = {
        **warm.shared_environment(),
        **{name: str(folder / place) for name, place in places.items()},
        **variables,
    }
    return {name: value for name, value in environment.items() if value != "" or name in variables}


class ReadyClient(AsyncKernelClient):
    """A client that takes the kernel for ready as soon as it is."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel answers, and what it tells arrives on the channel of outputs too.

        Jupyter's own then listens to that channel until nothing has come for 0.2 s; what is left there belongs to
        requests made here, and nbclient passes over it.

        Raises
        ------
        RuntimeError
            If the kernel has died or does not answer in time.
        """
        end = time.monotonic() + (START_TIMEOUT if timeout is None else timeout)
        while True:
            self.kernel_info()
            with contextlib.suppress(queue.Empty):
                await self.get_shell_msg(timeout=1)
                await self.get_iopub_msg(timeout=_OUTPUTS)
                return
            if not await self._async_is_alive():
                raise RuntimeError("the kernel died before it was ready")
            if time.monotonic() > end:
                raise RuntimeError("the kernel did not answer in time")


class PrivateKernelManager(AsyncKernelManager):
    """A kernel of this very Python, over IPC in a folder of its own; no kernelspec needs to be installed."""

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        super().__init__(
            transport="ipc",
            ip=str(folder / "s"),
            connection_file=str(folder / "kernel.json"),
            kernel_name="python3",
            client_factory=ReadyClient,
            **kwargs,
        )
        self.context.setsockopt(zmq.RECONNECT_IVL, _RECONNECT)

    def fork_from(self, server: forked.ForkServer) -> None:
        """Get the kernel by a fork of a warm process instead of a start."""
        self.kernel_id = str(uuid.uuid4())
        self.provisioner = forked.ForkProvisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)
        self.provisioner.server = server
        self.provisioner.folder = Path(self.connection_file).parent

    @property
    def kernel_spec(self) -> KernelSpec:
        """How the kernel is started."""
        return KernelSpec(
            argv=[sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )


@dataclass
class Session:
    """One notebook run: what it is given, and what became of it, also when papermill raised.

    ``finished`` are the numbers of the cells that ended well, ``current`` the cell that was running last; papermill
    itself marks cells that never ran as completed when a kernel dies, so this is the only account to be trusted.
    ``exit_code`` is that of a kernel that ended by itself or was killed (then it is minus the signal), None of one
    that lived to the end; ``warm`` says whether it was forked.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    on_start: Callable[[int], None] | None = None
    on_end: Callable[[int], None] | None = None
    notebook: Any = None
    finished: set[int] = field(default_factory=set)
    current: int | None = None
    pid: int = 0
    exit_code: int | None = None
    warm: bool = False

    @property
    def place(self) -> str:
        """The cell that was running last, as Jupyter numbers it: ``In [7]``; empty when none was."""
        if self.notebook is None or self.current is None:
            return ""
        cells = self.notebook.cells[: self.current + 1]
        return f"In [{sum(cell.cell_type == 'code' for cell in cells)}]"


class _Client(PapermillNotebookClient):
    """Papermill's client with an honest account of the cells."""

    def __init__(self, nb_man: Any, session: Session, **kwargs: Any) -> None:
        super().__init__(nb_man, **kwargs)
        self.session = session

    def papermill_execute_cells(self) -> None:
        for index, cell in enumerate(self.nb.cells):
            self.session.current = index
            self.nb_man.cell_start(cell, index)
            try:
                self.execute_cell(cell, index)
            except CellExecutionError as error:
                self.nb_man.cell_exception(self.nb.cells[index], cell_index=index, exception=error)
                self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
                return
            self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
            self.session.finished.add(index)
        self.session.current = None


class PrivateKernelEngine(Engine):
    """The papermill engine that runs a notebook in a private kernel."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        session: Session | None = None,
        execution_timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Run the cells; ``session`` takes the account."""
        assert session is not None, "this engine is used by the workflow's worker only"
        session.notebook = nb_man.nb
        client = _Client(
            nb_man, session, kernel_name="python3", timeout=execution_timeout, startup_timeout=START_TIMEOUT,
            extra_arguments=["--HistoryManager.enabled=False"],  # nobody will look for these inputs in a history
        )  # fmt: skip
        start_kernel(client, session)
        try:
            client.execute(cleanup_kc=False)
        finally:
            process = getattr(client.km.provisioner, "process", None) if client.km is not None else None
            session.exit_code = process.poll() if process is not None else None
            if session.on_end is not None:
                session.on_end(session.pid)
            stop_kernel(client)


def start_kernel(client: PapermillNotebookClient, session: Session) -> None:
    """Give ``client`` a kernel that has answered; failed starts are tried again in a fresh folder.

    Raises
    ------
    KernelStartError
        If no attempt succeeded.
    """
    problem: BaseException | None = None
    for attempt in range(START_ATTEMPTS):
        folder = session.folder / f"k{attempt}"
        folder.mkdir(mode=0o700, parents=True)
        client.km = PrivateKernelManager(folder)
        environment = private_environment(folder, session.variables)
        server = forked.server(environment) if attempt == 0 else None
        if server is not None:
            client.km.fork_from(server)
        session.warm = server is not None
        try:
            client.start_new_kernel(env=environment, cwd=str(folder / "tmp"))
            session.pid = getattr(client.km.provisioner, "pid", 0) or 0
            if session.on_start is not None:
                session.on_start(session.pid)
            client.start_new_kernel_client()
        except (RuntimeError, OSError, TimeoutError) as error:
            problem = error
            stop_kernel(client)
        else:
            return
    raise KernelStartError(
        f"the notebook's process (kernel) could not be started in {START_ATTEMPTS} attempts ({problem}): is the machine "
        "overloaded? Run again with fewer at a time (--jobs)"
    )


def stop_kernel(client: PapermillNotebookClient) -> None:
    """End the kernel at once (its products are staged or worthless) and close what it used."""
    manager = client.km
    if manager is None:
        return
    pid = getattr(manager.provisioner, "pid", None)
    if pid:
        kill_kernel(pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            manager.provisioner.process.wait(_END)  # here, because Jupyter looks every 0.1 s only
    client.shutdown_kernel = "immediate"
    with contextlib.suppress(RuntimeError, OSError):
        client._cleanup_kernel()


def kill_kernel(pid: int) -> None:
    """Kill a kernel and its children: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


papermill_engines.register(ENGINE, PrivateKernelEngine)
