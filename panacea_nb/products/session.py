"""One run of one notebook: where it reads, where it writes, and the verdict it leaves.

The workflow gives a notebook a staging folder through the environment; products are written there and moved into place only
when the notebook has ended well.  Without it (plain papermill, or by hand) each product goes straight into place, atomically.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .. import __version__
from ..decisions import Decision
from ..errors import PanaceaError
from . import image
from .digest import content_digest
from .layout import Layout
from .write import write_bytes, write_fits

RESULT_NAME = ".result.json"
STAGING_VARIABLE = "PANACEA_NB_STAGING"
TOKEN_VARIABLE = "PANACEA_NB_TOKEN"


class MissingInputError(PanaceaError):
    """A file that this stage reads is not there: an earlier stage has not run."""


@dataclass
class Task:
    """A stage at work on one channel or exposure; made by `open`."""

    stage: str
    layout: Layout
    channel: str | None = None
    obsid: int | None = None
    exposure: int | None = None
    program: str | None = None
    target: str | None = None
    decisions: list[Decision] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def staging(self) -> Path | None:
        text = os.environ.get(STAGING_VARIABLE, "")
        return Path(text) if text else None

    @property
    def notebook(self) -> Path:
        return self.layout.notebook(self.stage, self.channel, self.obsid, self.exposure, self.program, self.target)

    # --- reading -------------------------------------------------------------------------------------------------------------
    def input(self, path: Path) -> Path:
        """The path of a file of an earlier stage, checked to be there."""
        if not path.is_file():
            raise MissingInputError(
                f"{self.stage} needs {self.layout.relative(path)}, which does not exist under {self.layout.output}: "
                "run the earlier stage first (panacea-nb reduce does so)"
            )
        return path

    def work(self, stage: str, *, per_channel: bool = False) -> Path:
        """The file that another stage left for this channel (``per_channel``) or this exposure."""
        if per_channel or self.obsid is None:
            return self.layout.work(stage, self.channel or "")
        return self.layout.work(stage, self.channel or "", self.obsid, self.exposure)

    def other(self, stage: str, name: str) -> Path:
        """The file that a stage left for another exposure, ``name`` as in ``0000012_exp01`` or, of another channel,
        ``orange/0000012_exp01``."""
        channel, _, rest = name.rpartition("/")
        obsid, _, exposure = rest.partition("_exp")
        if not (obsid.isdigit() and exposure.isdigit()):
            raise MissingInputError(f"{name!r} names no exposure: write observation and exposure as in 0000012_exp01")
        return self.layout.work(stage, channel or self.channel or "", int(obsid), int(exposure))

    # --- deciding ------------------------------------------------------------------------------------------------------------
    def record(self, decisions: Iterable[Decision]) -> None:
        """Keep decisions (fallbacks above all) for the verdict, the headers and the report; each is kept once."""
        for decision in decisions:
            if decision not in self.decisions:
                self.decisions.append(decision)

    def say(self, line: str) -> None:
        """A line for the log of the run; it is printed too."""
        print(line)
        self.log_lines.append(line)

    @contextlib.contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Count the seconds of a block under ``what`` (``compute`` or ``figures``)."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timing[what] = self.timing.get(what, 0.0) + time.perf_counter() - start

    # --- writing -------------------------------------------------------------------------------------------------------------
    def _place(self, path: Path) -> Path:
        staging = self.staging
        return path if staging is None else staging / self.layout.relative(path)

    def save(self, path: Path, hdus: fits.HDUList) -> Path:
        """Write a FITS product (or hand it to the staging folder) and note its content digest."""
        place = self._place(path)
        write_fits(place, hdus)
        self.written[self.layout.relative(path)] = content_digest(place)
        return path

    def save_text(self, path: Path, text: str) -> Path:
        """Write a text product (table, JSON)."""
        place = self._place(path)
        write_bytes(place, text.encode("utf-8"))
        self.written[self.layout.relative(path)] = content_digest(place)
        return path

    def save_table(self, path: Path, table: Table) -> Path:
        """Write a table as ECSV."""
        buffer = io.StringIO()
        table.write(buffer, format="ascii.ecsv")
        return self.save_text(path, buffer.getvalue())

    def save_summary(self, row: dict) -> Path:
        """Keep this task's row of the night table beside the files between stages."""
        path = self.work(f"{self.stage}").with_suffix(".json")
        return self.save_text(path, json.dumps(row))

    def overrule(self, texts: Iterable[str]) -> None:
        """Record gates that ``--force`` went past."""
        self.record(Decision("FORCED", f"went on against: {text}", "warn") for text in texts)

    def finish(self, verdict) -> None:
        """State how the task ended.  The workflow takes a run for done only when this was reached.

        Parameters
        ----------
        verdict : panacea_nb.qa.verdict.Verdict
            Metrics judged against their thresholds.
        """
        result = {
            "token": os.environ.get(TOKEN_VARIABLE, ""),
            "stage": self.stage,
            "verdict": verdict.overall,
            "metrics": verdict.rows(),
            "decisions": [d.to_dict() for d in self.decisions],
            "products": [{"path": path, "digest": digest} for path, digest in sorted(self.written.items())],
            "log": self.log_lines,
            "versions": versions(),
            "timing": {key: round(value, 3) for key, value in self.timing.items()},
        }
        staging = self.staging
        if staging is not None:
            write_bytes(staging / RESULT_NAME, json.dumps(result, indent=1).encode())
        print(f"{self.stage}: {verdict.overall}; {len(self.written)} file(s) written")


def versions() -> dict[str, str]:
    """Versions of what computes here, and the image it runs in, for the provenance of a result."""
    import astropy
    import scipy

    return {
        "panacea_nb": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "astropy": astropy.__version__,
        "image": image.digest(),
    }


def open(  # the notebooks read ``session.open(...)``
    *,
    stage: str,
    output: str,
    night: str,
    tag: str = "",
    channel: str | None = None,
    obsid: int | None = None,
    exposure: int | None = None,
    program: str | None = None,
    target: str | None = None,
) -> Task:
    """Begin a stage; see `Task`."""
    return Task(stage, Layout.locate(output, night, tag), channel, obsid, exposure, program, target)
