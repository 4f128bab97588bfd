"""The stage table: which notebooks there are, what each runs once per, what it waits for and what it depends on.

To add a stage: one line here, one notebook, one module of physics, one test.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError

NIGHT = "night"
CHANNEL = "channel"
EXPOSURE = "exposure"
STANDARD = "standard"
TARGET = "target"
SCOPES = (NIGHT, CHANNEL, EXPOSURE, STANDARD, TARGET)

_CALIBRATION = ("01_bias", "02_trace", "03_wavelength", "04_flat")


class UnknownStageError(RequestError):
    """No stage of this name."""


@dataclass(frozen=True)
class Stage:
    """One line of the stage table.

    Parameters
    ----------
    name : str
        Name of stage and notebook, such as ``05_extract``.
    scope : str
        What it runs once per: ``night``, ``channel``, ``exposure`` (x channel), ``standard`` (standard exposure x
        channel) or ``target``.
    title : str
        What it leaves, in a few words.
    needs : tuple of str
        Stages of the same channel (and exposure) whose products it reads: all of them, so that a change of any is seen.
    after : tuple of str
        Stages that must have ended well before, but whose products are not part of what went in.
    hopes : str
        Parameter of the notebook that names what of other exposures it may read: the task waits until those have ended in any
        way, is told of those that succeeded, and is never blocked by the others. One per target needs one of them at least.
    options : tuple of str
        Fields of `RunDefinition` that the notebook takes as parameters, beside those that say what to work on.
    frames : tuple of str
        Types of the calibration frames it reads; ``sci`` stands for the exposure itself.
    guider : bool
        Whether it reads the guide-camera frames of the exposure.
    last : bool
        Runs when everything else has ended, also when some of it failed.
    timeout : float
        Longest time for the whole notebook [s], far above what it takes on a slow machine.
    memory : int
        Largest memory of worker and kernel together [MB], measured; how many workers a node holds is computed from it.
    seconds : float
        How long it usually takes [s], for estimates where no record of an earlier run tells.
    """

    name: str
    scope: str
    title: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    hopes: str = ""
    options: tuple[str, ...] = ("force",)
    frames: tuple[str, ...] = ()
    guider: bool = False
    last: bool = False
    timeout: float = 3600.0
    memory: int = 1000
    seconds: float = 10.0

    @property
    def needs_no_exposure(self) -> bool:
        """Whether it can be run on a night of calibrations only."""
        return self.scope in (NIGHT, CHANNEL) and not self.last


STAGES: tuple[Stage, ...] = (
    Stage(
        "00_inventory",
        NIGHT,
        "frame table, calibration choice with reasons",
        options=("sides", "cal_dates", "exclude", "use_flat", "force"),
        memory=260,
        seconds=3.0,
    ),
    Stage(
        "01_bias",
        CHANNEL,
        "master bias, read noise, bad pixels",
        after=("00_inventory",),
        frames=("zro", "drk"),
        memory=1000,
        seconds=14.0,
    ),
    Stage(
        "02_trace",
        CHANNEL,
        "fibre traces, profiles, dead fibres",
        needs=_CALIBRATION[:1],
        after=("00_inventory",),
        options=("use_flat", "force"),
        frames=("twi", "flt"),
        memory=700,
        seconds=20.0,
    ),
    Stage(
        "03_wavelength",
        CHANNEL,
        "wavelength and line-spread function of every fibre",
        needs=_CALIBRATION[:2],
        after=("00_inventory",),
        options=("drop_lines", "force"),
        frames=("cmp",),
        memory=780,
        seconds=12.0,
    ),
    Stage(
        "04_flat",
        CHANNEL,
        "pixel flat, fibre-to-fibre throughput, calibration bundle",
        needs=_CALIBRATION[:3],
        after=("00_inventory",),
        options=("use_flat", "force"),
        frames=("twi", "flt"),
        memory=1040,
        seconds=26.0,
    ),
    Stage(
        "05_extract",
        EXPOSURE,
        "native-pixel spectra, flexure, cosmic rays",
        needs=_CALIBRATION,
        options=("cosmics_file", "force"),
        frames=("sci",),
        guider=True,
        memory=980,
        seconds=20.0,
    ),
    Stage(
        "06_sky",
        EXPOSURE,
        "sky model, sky-subtracted spectra",
        needs=(*_CALIBRATION, "05_extract"),
        hopes="profile_from",
        options=(
            "correct_ftf",
            "dead_fibers",
            "central_wave",
            "sky_mode",
            "sky_region",
            "sky_exclude",
            "sky_mask",
            "sky_obsid",
            "sky_exp",
            "sky_degree",
            "sky_refine",
            "force",
        ),
        memory=650,
        seconds=16.0,
    ),
    Stage(
        "07_flux",
        EXPOSURE,
        "calibrated spectra, source, cubes: the products",
        needs=(*_CALIBRATION, "05_extract", "06_sky"),
        options=(
            "dead_fibers",
            "central_wave",
            "wavelength_bin",
            "source_x",
            "source_y",
            "extraction",
            "aperture",
            "no_aperture_correction",
            "extract_region",
            "telluric",
            "covariance",
            "standard_star_date",
            "standard_star_obsid",
            "force",
        ),
        guider=True,
        memory=780,
        seconds=10.0,
    ),
    Stage("08_standard", STANDARD, "response curve of a standard", needs=("07_flux",), memory=230, seconds=3.0),
    Stage(
        "09_combine",
        TARGET,
        "one spectrum and one cube of a target",
        hopes="exposures",
        options=("barycentric", "vacuum", "match_resolution", "force"),
        memory=490,
        seconds=10.0,
    ),
    Stage("10_night", NIGHT, "the night at a glance", last=True, memory=230, seconds=4.0),
)


def find(text: str, stages: tuple[Stage, ...] = STAGES) -> Stage:
    """The stage called ``text``: its name (``04_flat``), its number (``04`` or ``4``) or its word (``flat``).

    Raises
    ------
    UnknownStageError
        If there is none.
    """
    asked = str(text).strip().lower()
    for stage in stages:
        number, _, word = stage.name.partition("_")
        if asked in (stage.name, number, word) or (asked.isdigit() and number.isdigit() and int(asked) == int(number)):
            return stage
    raise UnknownStageError(f"there is no stage {text!r}; stages are {', '.join(stage.name for stage in stages)}")
