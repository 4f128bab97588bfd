"""Warm kernels: forked from a process that has imported everything, instead of started from nothing.

A notebook's imports take some seconds; in a fork they are there already.  Where forking is not to be trusted (other
systems than Linux, a server with threads) or fails in any way, the ordinary kernel takes its place; what notebooks
compute is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from . import scratch
from .forkserver import EXIT_NAME
from .lock import process_start

VARIABLE = "PANACEA_NB_KERNEL"  # fork or plain
_WARM_UP = 120.0  # s: imports from a cold network disk
_ANSWER = 10.0  # s in which a fork must have happened
_LOOK = 0.004  # s between two looks at a kernel that is about to end


class ForkServer:
    """The warm process of this worker.

    Parameters
    ----------
    environment : dict
        Of the process; kernels get their own.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._pending = b""
        self._ready = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "panacea_nb.workflow.forkserver"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/",
        )  # fmt: skip
        self._deadline = time.monotonic() + _WARM_UP

    def ready(self, *, wait: bool = False) -> bool:
        """Whether it has imported everything and can fork; ``wait`` waits for that."""
        if not self._ready:
            answer = self._answer(max(0.0, self._deadline - time.monotonic()) if wait else 0.0)
            if answer is not None:
                self._ready = bool(answer.get("ready"))
                if not self._ready:
                    self.stop()
        return self._ready and self.process.poll() is None

    def fork(self, folder: Path, arguments: list[str], environment: dict[str, str], cwd: str) -> ForkedKernel:
        """A kernel forked from the warm process.

        Raises
        ------
        OSError
            If the server does not answer any more.
        """
        order = {"folder": str(folder), "arguments": arguments, "env": environment, "cwd": cwd}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        answer = self._answer(_ANSWER)
        if answer is None or "pid" not in answer:
            self.stop()
            raise OSError("the warm kernel process does not answer")
        return ForkedKernel(int(answer["pid"]), folder)

    def stop(self) -> None:
        """End the server; a kernel that it forked ends with it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """The next line that the server sends; None when it sends none in time or is dead."""
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return None
        handle = self.process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([handle], [], [], left)[0]:
                return None
            block = os.read(handle, 1 << 16)
            if not block:
                return None
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)


class ForkedKernel:
    """A forked kernel with the face of a `subprocess.Popen`, as the provisioner expects it, with its real exit code."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._start = process_start(pid)
        self._note = folder / EXIT_NAME

    def poll(self) -> int | None:
        """Exit code of a kernel that has ended (minus the signal that killed it), None while it runs."""
        if self.returncode is None and (self._start is None or process_start(self.pid) != self._start):
            deadline = time.monotonic() + 2.0
            while not self._note.exists() and time.monotonic() < deadline:
                time.sleep(_LOOK)  # its parent, the server, is about to write it down
            try:
                self.returncode = int(self._note.read_text())
            except (OSError, ValueError):
                self.returncode = -signal.SIGKILL  # the server is dead too: whatever happened, it was no good end
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
            time.sleep(_LOOK)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the kernel and its children."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)


class ForkProvisioner(LocalProvisioner):
    """Gives a kernel manager its kernel by a fork."""

    server: ForkServer
    folder: Path

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork instead of starting a process; ``cmd`` is the ordinary kernel's command line."""
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        self.process = self.server.fork(self.folder, arguments, kwargs["env"], kwargs["cwd"])
        self.pid = self.pgid = self.process.pid
        self.cwd = kwargs["cwd"]
        return self.connection_info


_server: ForkServer | None = None


def wanted() -> bool:
    """Whether kernels are to be forked: on Linux, unless ``PANACEA_NB_KERNEL=plain``."""
    default = "fork" if sys.platform.startswith("linux") else "plain"
    return os.environ.get(VARIABLE, default) == "fork"


def server(environment: dict[str, str], *, wait: bool = False) -> ForkServer | None:
    """The warm process of this worker when it is ready; the first call starts it, and only ``wait`` waits for it."""
    global _server
    if not wanted():
        return None
    if _server is not None and _server.process.poll() is not None:
        stop()
    if _server is None:
        fonts = scratch.font_cache()
        # Without what belongs to the task that happens to be the first.
        private = ("XDG_", "JUPYTER_", "IPYTHON", "PANACEA_NB_STAGING", "PANACEA_NB_TOKEN")
        own = {name: value for name, value in environment.items() if not name.startswith(private)}
        own["TMPDIR"] = str(scratch.root())
        if fonts is not None:
            own["MPLCONFIGDIR"] = str(fonts)
        _server = ForkServer(own)
    return _server if _server.ready(wait=wait or os.environ.get(VARIABLE) == "fork") else None


def stop() -> None:
    """End the warm process of this worker, if there is one."""
    global _server
    if _server is not None:
        _server.stop()
        _server = None
