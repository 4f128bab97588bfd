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
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from . import warm
from .forkserver import EXIT_NAME
from .lock import process_start

_WARM_UP = 120.0  # s: imports from a cold network disk
_ANSWER = 10.0  # s in which a fork must have happened
_LOOK = 0.004  # s between two looks at a kernel that is about to end


class ForkServer:
    """The warm process of this worker, started by it.

    Parameters
    ----------
    environment : dict
        Of the process; kernels get their own.
    """

    ahead = False  # whether it was started so long before it is asked that to wait for it is quicker than a plain kernel

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", warm.MODULE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/",
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._begin(self.process.stdin.fileno(), self.process.stdout.fileno())

    def _begin(self, requests: int, replies: int) -> None:
        self.pid = 0  # known when it is ready
        self._requests, self._replies = requests, replies
        self._pending = b""
        self._ready = False
        self._deadline = time.monotonic() + _WARM_UP

    def alive(self) -> bool:
        """Whether it can still answer."""
        return self.process.poll() is None

    def ready(self, *, wait: bool = False) -> bool:
        """Whether it has imported everything and can fork; ``wait`` waits for that."""
        if not self._ready:
            answer = self._answer(max(0.0, self._deadline - time.monotonic()) if wait else 0.0)
            if answer is not None:
                self._ready, self.pid = bool(answer.get("ready")), int(answer.get("pid", 0))
                if not self._ready:
                    self.stop()
        return self._ready and self.alive()

    def fork(self, folder: Path, arguments: list[str], environment: dict[str, str], cwd: str) -> ForkedKernel:
        """A kernel forked from the warm process.

        Raises
        ------
        OSError
            If the server does not answer any more.
        """
        order = {"folder": str(folder), "arguments": arguments, "env": environment, "cwd": cwd}
        message = json.dumps(order).encode() + b"\n"
        while message:
            message = message[os.write(self._requests, message) :]
        answer = self._answer(_ANSWER)
        if answer is None or "pid" not in answer:
            self.stop()
            raise OSError("the warm kernel process does not answer")
        return ForkedKernel(int(answer["pid"]), folder)

    def stop(self) -> None:
        """End the server; a kernel that it forked ends with it."""
        self.process.kill()
        self.process.wait()
        self._requests = self._replies = -1
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """The next line that the server sends; None when it sends none in time or is dead."""
        if self._replies < 0:
            return None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._replies], [], [], left)[0]:
                return None
            block = os.read(self._replies, 1 << 16)
            if not block:
                return None
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)


class NodeServer(ForkServer):
    """A copy of the node's warm process, for this worker alone; it ends when the connection does.

    Parameters
    ----------
    connection : socket
        From `panacea_nb.workflow.warm.connect`.
    """

    ahead = True

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._begin(connection.fileno(), connection.fileno())

    def alive(self) -> bool:
        """Whether it can still answer."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def stop(self) -> None:
        """End the connection, and with it the server and its kernel."""
        self._requests = self._replies = -1
        self._connection.close()


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


def server(environment: dict[str, str], *, wait: bool = False) -> ForkServer | None:
    """The warm process of this worker when it is ready; the first call starts it, and ``wait`` waits for it in any case."""
    global _server
    if not warm.wanted():
        return None
    if _server is not None and not _server.alive():
        stop()
    if _server is None:
        connection = warm.connect()
        own = ForkServer(warm.server_environment(environment)) if connection is None else None
        _server = own or NodeServer(connection)
    return _server if _server.ready(wait=wait or _server.ahead or os.environ.get(warm.KERNELS) == "fork") else None


def stop() -> None:
    """End the warm process of this worker, if there is one."""
    global _server
    if _server is not None:
        _server.stop()
        _server = None
