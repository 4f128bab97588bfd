"""The end of a run: the report, made in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import PanaceaError
from ..products.layout import Layout
from . import processes, warm


class ReportError(PanaceaError):
    """The report could not be built."""


def build_report(layout: Layout, token: str, stopped: Callable[[], bool]) -> Path | None:
    """Build the report in a process of its own: it may need much memory, and cannot take the run down with it.

    Parameters
    ----------
    layout : Layout
        Paths of the night.
    token : str
        The run's token, carried by the process.
    stopped : callable
        Asked again and again whether the run is to end; then the process is killed.

    Returns
    -------
    Path or None
        The report's page; None where this installation has no report.

    Raises
    ------
    ReportError
        If it could not be built.
    """
    if importlib.util.find_spec("panacea_nb.report") is None:
        return None
    command = [sys.executable, "-m", "panacea_nb", "report", "-d", layout.night, "--output", str(layout.output)]
    command += ["--tag", layout.tag] if layout.tag else []
    single = dict.fromkeys(warm.THREADS, "1")  # so that it may fork its helpers
    environment = {**os.environ, **single, **processes.environment(token), "PYTHONPATH": processes.python_path()}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while True:
            try:
                _, problem = process.communicate(timeout=0.3)
                break
            except subprocess.TimeoutExpired:
                if stopped():
                    process.kill()
    page = layout.report_dir / "index.html"
    if process.returncode == 0 and page.is_file():
        return page
    last = problem.strip().splitlines()[-1:] or ["no reason given"]
    raise ReportError(
        f"the report could not be built ({last[0]}); the products are not affected: try again with panacea-nb report "
        f"-d {layout.night} --output {layout.output}"
    )
