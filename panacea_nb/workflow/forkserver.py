"""A process that has imported what every notebook imports, and forks a kernel from it on request.

Run as ``python -m panacea_nb.workflow.forkserver`` by `panacea_nb.workflow.forked`, for one worker, or with the number of a
listening socket by `panacea_nb.workflow.warm`, for all workers of a node: each that connects is served by a copy.  It stays
single-threaded, ends when its worker does (or the pool of workers), and writes the exit code of every kernel where the worker
looks for it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

# In the order of their cost; the package's own rooms bring the rest. pyplot loads no backend before its first figure.
PRELOAD = (
    "ipykernel.kernelapp",
    "numpy",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.interpolate",
    "astropy.io.fits",
    "astropy.table",
    "astropy.coordinates",
    "matplotlib.pyplot",
)
ROOMS = ("instrument", "raw", "reduce", "products", "qa")  # what notebooks call: all modules of them
# Rooms whose ``warm_up`` loads more: compiled code, fonts, coordinates, tables.
WARM = (
    "panacea_nb.reduce.warmup",
    "panacea_nb.qa.figures.canvas",
    "panacea_nb.products.headers",
    "panacea_nb.instrument.tables",
)
# What a kernel would import before its first cell.
KERNEL = (
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "tornado.platform.asyncio",
)
EXIT_NAME = "exit-code"


def main() -> None:
    """Serve until standard input is closed."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # nothing that an import prints gets between the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nobody debugs these kernels, and debugpy takes each of them longer than all the rest of its start.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in (*PRELOAD, *_rooms(), *KERNEL):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    del sys.modules["debugpy"]
    for name in WARM:
        with contextlib.suppress(
            Exception
        ):  # what fails here fails in the notebook that needs it, and is reported there
            importlib.import_module(name).warm_up()
    threads = _threads()
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that all kernels share
    if len(sys.argv) > 1:
        if threads == 1:
            _serve_node(socket.socket(fileno=int(sys.argv[1])), requests)
        return
    _reply(replies, {"ready": threads == 1, "threads": threads, "pid": os.getpid()})
    if threads == 1:
        _serve(requests, replies, requests)


def _rooms() -> Iterator[str]:
    """The package's modules that notebooks may import."""
    for room in ROOMS:
        package = f"{__package__.partition('.')[0]}.{room}"
        yield package
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            yield module.name


def _serve_node(listener: socket.socket, lifeline: int) -> None:
    """Give every worker that connects a copy of this process, until ``lifeline``, on which nobody writes, is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a copy ended
    while lifeline not in select.select([listener, lifeline], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            worker = connection.detach()
            _reply(worker, {"ready": True, "threads": 1, "pid": os.getpid()})
            _serve(worker, worker, lifeline)
            os._exit(0)
        connection.close()


def _serve(requests: int, replies: int, lifeline: int) -> None:
    """Fork kernels for one worker, until it is gone or ``lifeline`` is closed."""
    kernels: dict[int, str] = {}
    pending = b""
    ended, told = os.pipe()
    os.set_blocking(told, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # so that nobody waits for a look at the children
    while True:
        heard = select.select([requests, ended, lifeline], [], [])[0]
        if ended in heard:
            os.read(ended, 1 << 10)
        if lifeline in heard and lifeline != requests:
            break
        if requests in heard:
            block = os.read(requests, 1 << 16)
            if not block:
                break  # the worker is gone; kernels notice that their parent is
            pending += block
            *lines, pending = pending.split(b"\n")
            for line in lines:
                order = {**json.loads(line), "parent": os.getpid()}
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for handle in {requests, replies, lifeline, ended, told}:
                        os.close(handle)
                    _become_kernel(order)
                with contextlib.suppress(OSError):
                    os.setpgid(pid, pid)
                kernels[pid] = order["folder"]
                _reply(replies, {"pid": pid})
        _collect(kernels)


def _collect(kernels: dict[int, str]) -> None:
    """Write down how kernels ended."""
    for pid in list(kernels):
        ended, state = os.waitpid(pid, os.WNOHANG)
        if ended:
            place = Path(kernels.pop(pid), EXIT_NAME)
            part = place.with_name(f"{EXIT_NAME}.part")
            with contextlib.suppress(OSError):  # the folder of an attempt may be gone by now
                part.write_text(str(os.waitstatus_to_exitcode(state)))
                os.replace(part, place)


def _become_kernel(order: dict) -> None:
    """In the forked child: take on the environment of the task and run the kernel; never returns."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        gc.set_threshold(20_000, 20, 20)  # a task lives for seconds; what it shares with its sisters stays frozen
        _start_afresh()
        # The kernel's own watch on its parent, which is this server; its default was read when ipykernel was imported.
        arguments = [*order["arguments"], f"--IPKernelApp.parent_handle={order['parent']}"]
        os.environ["JPY_PARENT_PID"] = str(order["parent"])
        sys.argv = ["ipykernel_launcher", *arguments]
        sys.path[:] = [entry for entry in sys.path if entry]
        from ipykernel.kernelapp import IPKernelApp

        IPKernelApp.launch_instance(argv=arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        os._exit(code)  # neither the server's exit handlers nor its loop are the child's


def _start_afresh() -> None:
    """Undo what a fork shares with its sisters and a new process would not: random numbers, the temporary folder."""
    import random
    import tempfile

    tempfile.tempdir = None
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # noqa: NPY002 - the old global generator, in case a notebook uses it


def _threads() -> int:
    """Threads of this process: a fork copies one of them only, so there must be no other."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0  # cannot be known: not to be used


def _reply(handle: int, value: dict) -> None:
    os.write(handle, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main()
