"""The warm process of a node: it imports once what all notebooks need, and each worker of the node is given a copy of it.

The pool of workers starts it before itself, so that it has done most of its work when the first worker asks.  It ends with the
pool; where it cannot be had, a worker starts a warm process of its own (`panacea_nb.workflow.forked`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from . import processes, scratch

KERNELS = "PANACEA_NB_KERNEL"  # how kernels are started: fork or plain
VARIABLE = "PANACEA_NB_WARM"  # where workers reach the warm process of their node
MODULE = "panacea_nb.workflow.forkserver"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
# glibc gives arrays of more than 32 MB, such as a frame in double precision, back to the system when they are freed, and each new
# one costs its pages again, some per cent of a task's CPU.  A process that lives for one task keeps them for the next array.
# numpy asks for huge pages for its arrays.  Each of them has to be found and cleared: in a process that lives for seconds this
# takes more CPU than ordinary pages do, up to a whole task's own where memory is fragmented or that of a virtual machine.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32), "NUMPY_MADVISE_HUGEPAGE": "0"}
# What belongs to the task that happens to be the first.
_PRIVATE = ("XDG_", "JUPYTER_", "IPYTHON", "PANACEA_NB_STAGING", "PANACEA_NB_TOKEN")
_QUEUE = 256  # workers that may ask while it is still busy with its imports


def wanted() -> bool:
    """Whether kernels are to be forked: on Linux, unless ``PANACEA_NB_KERNEL=plain``."""
    default = "fork" if sys.platform.startswith("linux") else "plain"
    return os.environ.get(KERNELS, default) == "fork"


def shared_environment() -> dict[str, str]:
    """What all kernels of this node, and the process they are forked from, have in their environment."""
    return {
        **os.environ,
        **dict.fromkeys(THREADS, "1"),
        **MEMORY,
        "PYTHONPATH": processes.python_path(),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


def server_environment(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process that kernels are forked from: that of a kernel without what is the task's own."""
    own = {name: value for name, value in environment.items() if not name.startswith(_PRIVATE)}
    own["TMPDIR"] = str(scratch.root())
    fonts = scratch.font_cache()
    if fonts is not None:
        own["MPLCONFIGDIR"] = str(fonts)
    return own


def start(folder: Path) -> subprocess.Popen | None:
    """Start the warm process of this node; workers that this process starts find it by their environment.

    Parameters
    ----------
    folder : Path
        Private folder for its socket.

    Returns
    -------
    Popen or None
        To be kept: it ends when its standard input is closed, or this process has ended.  None where it cannot be had.
    """
    if not wanted():
        return None
    place = folder / f"warm-{os.getpid()}"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen(_QUEUE)
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(listener.fileno())],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env=server_environment(shared_environment()), pass_fds=[listener.fileno()],
            )  # fmt: skip
    except OSError:
        return None
    os.environ[VARIABLE] = str(place)
    return process


def connect() -> socket.socket | None:
    """A connection to a copy of the node's warm process, None where there is none."""
    place = os.environ.get(VARIABLE)
    if not place:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(place)
    except OSError:
        connection.close()
        return None
    return connection
