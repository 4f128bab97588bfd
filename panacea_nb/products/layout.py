"""Where a run leaves things: every path of a reduction is made here and nowhere else.

One output root holds all nights.  Products of a programme lie under ``LRS2/{PROGRAM}``, calibrations under ``LRS2/CALS``,
and what belongs to the operators of a night (status, logs, report, files between stages) under ``NIGHTS/{date}[_{tag}]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
RUN_NAME = re.compile(r"(\d{8})(?:_([A-Za-z0-9._+-]+))?")  # of a run's folder: night and tag
NIGHT_STAGES = ("00_inventory", "10_night")
TARGET_STAGES = ("09_combine",)
CHANNEL_STAGES = ("01_bias", "02_trace", "03_wavelength", "04_flat")


class LayoutError(RequestError):
    """A path of the run cannot be made from what was given."""


def safe_name(text: str, *, fallback: str = "UNNAMED") -> str:
    """A header text as one component of a path: letters, digits, ``. _ + -`` only, never hidden, at most 64 characters."""
    name = _UNSAFE.sub("_", str(text).strip()).strip("._")[:64]
    return name or fallback


def program_name(qprog: str, *, is_standard: bool) -> str:
    """Directory of an exposure under ``LRS2/``: its programme, else STANDARDS or ORPHANS."""
    text = str(qprog or "").strip()
    if not text or text.lower() in ("none", "unknown"):
        return "STANDARDS" if is_standard else "ORPHANS"
    name = safe_name(text, fallback="ORPHANS")
    return f"{name}_" if name.upper() == "CALS" else name


def locate(path: str | Path) -> Path:
    """``path`` made absolute; a relative one is looked for from the current folder upwards, so that a notebook opened in
    ``notebooks/`` finds the run of its checkout."""
    path = Path(path).expanduser()
    if path.is_absolute():
        return path
    here = Path.cwd()
    for base in (here, *here.parents):
        if (base / path).is_dir():
            return base / path
    return path.absolute()


@dataclass(frozen=True)
class Layout:
    """Paths of one night of one run.

    Parameters
    ----------
    output : Path
        Root of all products (``--output``).
    night : str
        Date of the night, YYYYMMDD.
    tag : str
        Name of a variation of the reduction; empty for the standard one.
    """

    output: Path
    night: str
    tag: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output))
        if not re.fullmatch(r"\d{8}", str(self.night)):
            raise LayoutError(f"night {self.night!r} is not a date YYYYMMDD")
        if self.tag and safe_name(self.tag) != self.tag:
            raise LayoutError(f"tag {self.tag!r} may hold only letters, digits and . _ + -")

    @classmethod
    def locate(cls, output: str | Path, night: str, tag: str = "") -> Layout:
        """The layout of ``output``, found as `locate` finds it."""
        return cls(locate(output), str(night), tag)

    @classmethod
    def runs(cls, root: Path) -> list[Layout]:
        """All runs under an output root: nights, and variations of them, in order of their names."""
        found = []
        for folder in sorted((root / "NIGHTS").glob("*/status")):
            match = RUN_NAME.fullmatch(folder.parent.name)
            if match and folder.is_dir():
                found.append(cls(root, match[1], match[2] or ""))
        return found

    # --- the night -----------------------------------------------------------------------------------------------------------
    @property
    def night_dir(self) -> Path:
        return self.output / "NIGHTS" / (f"{self.night}_{self.tag}" if self.tag else self.night)

    @property
    def status_dir(self) -> Path:
        return self.night_dir / "status"

    @property
    def log_dir(self) -> Path:
        return self.night_dir / "logs"

    @property
    def work_dir(self) -> Path:
        return self.night_dir / "work"

    @property
    def report_dir(self) -> Path:
        return self.night_dir / "report"

    def program_report_dir(self, program: str) -> Path:
        """The report of a programme's own exposures of this night: beside its products, and nobody else's in it."""
        return self.program_dir(program) / "report" / self.night

    @property
    def run_file(self) -> Path:
        return self.night_dir / "run.yaml"

    @property
    def calibrations_file(self) -> Path:
        return self.work_dir / "calibrations.json"

    @property
    def frames_file(self) -> Path:
        return self.night_dir / "inventory.ecsv"

    @property
    def night_table(self) -> Path:
        return self.night_dir / "night.ecsv"

    # --- products ------------------------------------------------------------------------------------------------------------
    @property
    def cals_dir(self) -> Path:
        return self._tagged(self.output / "LRS2" / "CALS")

    def program_dir(self, program: str) -> Path:
        return self._tagged(self.output / "LRS2" / safe_name(program, fallback="ORPHANS"))

    def _tagged(self, path: Path) -> Path:
        return path / self.tag if self.tag else path

    def exposure_name(self, obsid: int, exp: int, channel: str) -> str:
        """``{date}_{obsid}_exp{NN}_{channel}``, the part that the names of an exposure's products share."""
        return f"{self.night}_{int(obsid):07d}_exp{int(exp):02d}_{channel}"

    def multi(self, program: str, obsid: int, exp: int, channel: str) -> Path:
        return self.program_dir(program) / f"multi_{self.exposure_name(obsid, exp, channel)}.fits"

    def spectrum(self, program: str, obsid: int, exp: int, channel: str) -> Path:
        return self.program_dir(program) / f"spectrum_{self.exposure_name(obsid, exp, channel)}.fits"

    def cube(self, program: str, obsid: int, exp: int, channel: str, kind: str) -> Path:
        return self.program_dir(program) / f"{self.exposure_name(obsid, exp, channel)}_{kind}_cube.fits"

    def combined(self, program: str, target: str, ending: str, nights: str = "") -> Path:
        """A product of all exposures of a target: ``ending`` as in ``combined_spectrum.fits``; of several ``nights`` if named."""
        return self.program_dir(program) / f"{safe_name(target)}_{nights or self.night}_{ending}"

    def calibration(self, channel: str) -> Path:
        return self.cals_dir / f"cal_{self.night}_{channel}.fits"

    def response(self, obsid: int, exp: int, channel: str) -> Path:
        return self.cals_dir / f"response_{self.exposure_name(obsid, exp, channel)}.fits"

    # --- between stages ------------------------------------------------------------------------------------------------------
    def work(self, stage: str, channel: str, obsid: int | None = None, exp: int | None = None) -> Path:
        if obsid is None:
            return self.work_dir / channel / f"{stage}.fits"
        return self.work_dir / f"{int(obsid):07d}_exp{int(exp or 1):02d}_{channel}" / f"{stage}.fits"

    def notebook(
        self,
        stage: str,
        channel: str | None = None,
        obsid: int | None = None,
        exp: int | None = None,
        program: str | None = None,
        target: str | None = None,
    ) -> Path:
        """Where the executed notebook of a task lies: beside the products it made."""
        if stage in TARGET_STAGES:
            if program is None or target is None:
                raise LayoutError(f"stage {stage} runs once per target: program and target are needed")
            folder = f"{self.night}_{safe_name(target)}"
            return self.program_dir(program) / "notebooks" / folder / f"{stage}.ipynb"
        if stage in NIGHT_STAGES:
            return self.night_dir / "notebooks" / f"{stage}.ipynb"
        if channel is None:
            raise LayoutError(f"stage {stage} runs once per channel: no channel was given")
        if stage in CHANNEL_STAGES:
            return self.cals_dir / "notebooks" / f"{self.night}_{channel}" / f"{stage}.ipynb"
        if obsid is None or program is None:
            raise LayoutError(f"stage {stage} runs once per exposure: obsid and program are needed")
        folder = self.exposure_name(obsid, exp or 1, channel)
        return self.program_dir(program) / "notebooks" / folder / f"{stage}.ipynb"

    def relative(self, path: Path) -> str:
        """``path`` relative to the output root, with forward slashes: the form in which paths are recorded."""
        return Path(path).relative_to(self.output).as_posix()
