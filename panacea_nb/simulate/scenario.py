"""What a simulated night is to hold: scenarios, and the plan of observations that follows from one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from ..errors import RequestError
from ..instrument import CHANNELS, channel
from .optics import Flexure
from .streams import stream

BRIGHT_STANDARDS = ("FEIGE_34", "FEIGE_67", "HZ_44", "G191B2B", "FEIGE_110", "GD140")
"""Standards whose tables cover all channels and which do not saturate in 120 s."""

LAMPS = (("Hg", "hg", 30.0), ("Cd", "cd", 30.0), ("FeAr", "fear", 60.0))
"""OBJECT, lamp and exposure time [s] of the arcs."""

LAYOUTS = ("tar", "night", "night-files", "tree")
"""Ways in which a raw night can lie on disk."""

KINDS = ("standard", "point", "galaxy", "blank")
"""What a target can be."""

OVERHEAD = 70.0
"""Time [s] between two exposures of an observation."""


class ScenarioError(RequestError):
    """A simulated night was asked for that cannot be."""


@dataclass(frozen=True)
class Target:
    """What an IFU looks at.

    Attributes
    ----------
    name : str
        First part of OBJECT.
    kind : str
        ``standard``, ``point``, ``galaxy`` or ``blank`` (nothing but sky).
    arm : str
        ``B`` or ``R``: the IFU it is on; the other one sees blank sky.
    exptime : float
        Seconds per exposure.
    n_exposures : int
    program : str
        Programme, empty for none.
    brightness : tuple of float
        Points and galaxies: range of the continuum in the brightest fibre, in units of the sky's.
    place : tuple of float, optional
        Where it stands on the IFU [arcsec], the pointing error apart; by default anywhere near the middle.
    index : float
        Sersic index of a galaxy.
    """

    name: str
    kind: str
    arm: str
    exptime: float
    n_exposures: int = 1
    program: str = ""
    brightness: tuple[float, float] = (0.5, 1.0)
    place: tuple[float, float] | None = None
    index: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ScenarioError(f"Target {self.name}: kind is {self.kind!r}, but must be one of {', '.join(KINDS)}.")


@dataclass(frozen=True)
class Scenario:
    """What a night holds.

    Attributes
    ----------
    targets : tuple of Target
        Names of standards may be empty: the seed then picks one.
    n_bias, n_dark, n_twilight, n_flat, n_arc : int
        Frames of each kind; arcs per lamp.
    previous_bias : int
        Bias frames of the night before.
    sky : str
        ``dark``, ``grey`` or ``bright``.
    seeing : tuple of float
        Range of the FWHM [arcsec] at 5000 A.
    flexure : tuple of float
        Range of the shifts [px] between calibrations and science, along rows and columns.
    cosmic_rate : float
        Cosmic rays per second and amplifier.
    row_jitter : float
        Scatter [ADU] of the detector rows' levels from row to row.  Panacea takes one level per frame and gets on with it, so it is
        small.
    ramp : float
        Scatter [ADU] from frame to frame of how much an amplifier's level rises along its rows.
    binning : int
        1, or 2 for 2x1 (pairs of columns).
    guider : bool
        Whether guide-camera frames exist.
    refraction : float
        Factor on the tabulated differential refraction.
    oval : float
        Largest ellipticity (a^2 - b^2) / (a^2 + b^2) that guiding and optics give to the image of a point source.
    reflection : float
        Part of the light in a reflection that stands turned about the middle of the chip.
    focus : float
        Relative change of the fibres' profile width from calibrations to science.
    layout : str
        ``tar`` (a tar file per observation), ``night`` (these in one tar file), ``night-files`` (one tar file of all
        frames) or ``tree`` (no tar files).
    trajra_hours : bool
        Write TRAJRA in hours instead of degrees.
    negative_exptime : bool
        Write a negative EXPTIME into the first science exposure, as some real headers have.
    mirrored : tuple of str
        Amplifiers stored with their columns in reverse order and an AMPNAME that says so.
    blank_gain : tuple of str
        Amplifiers whose headers hold 0 for GAIN and RDNOISE.
    lost : tuple of (str, int, str)
        Files that never reached the disk: kind of the frame, exposure, amplifier.
    """

    targets: tuple[Target, ...] = ()
    n_bias: int = 8
    n_dark: int = 2
    n_twilight: int = 3
    n_flat: int = 3
    n_arc: int = 1
    previous_bias: int = 0
    sky: str = "dark"
    seeing: tuple[float, float] = (1.2, 2.0)
    flexure: tuple[float, float] = (0.1, 0.3)
    cosmic_rate: float = 0.05
    row_jitter: float = 0.05
    ramp: float = 0.0
    binning: int = 1
    guider: bool = True
    refraction: float = 1.0
    oval: float = 0.0
    reflection: float = 0.0
    focus: float = 0.0
    layout: str = "tar"
    trajra_hours: bool = False
    negative_exptime: bool = False
    mirrored: tuple[str, ...] = ()
    blank_gain: tuple[str, ...] = ()
    lost: tuple[tuple[str, int, str], ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "sky": (self.sky in ("dark", "grey", "bright"), "dark, grey or bright"),
            "binning": (self.binning in (1, 2), "1 or 2"),
            "layout": (self.layout in LAYOUTS, ", ".join(LAYOUTS)),
            "seeing": (
                0.5 <= self.seeing[0] <= self.seeing[1] <= 5,
                "two values of 0.5 to 5 arcsec, the smaller first",
            ),
        }
        for name, (good, allowed) in checks.items():
            if not good:
                raise ScenarioError(f"Scenario: {name} is {getattr(self, name)!r}, but must be {allowed}.")


def _standard(arm: str, name: str = "") -> Target:
    return Target(name, "standard", arm, 120.0)


def _faint(arm: str, n: int, number: int = 1) -> Target:
    return Target(f"SIMFAINT{arm}{number}", "point", arm, 900.0, n, f"HET25-1-{100 + number:03d}")


def _galaxy(arm: str) -> Target:
    return Target(f"SIMGALAXY{arm}", "galaxy", arm, 900.0, 1, "HET25-1-201")


def _stress(*kinds: str, **changes: object) -> Scenario:
    """Per arm a standard and the targets named, on a night that is hard in one respect."""
    makers = {
        "faint": lambda arm: _faint(arm, 2),
        "galaxy": _galaxy,
        "bright": lambda arm: replace(_faint(arm, 1, 3), name=f"SIMBRIGHT{arm}", brightness=(100.0, 100.0)),
        # the outermost fibres stand at 6.2, 3.5 arcsec
        "edge": lambda arm: replace(_faint(arm, 2, 4), name=f"SIMEDGE{arm}", brightness=(1.0, 2.0), place=(5.8, 1.0)),
        # in the middle of the field, a Gaussian, a steep one with wide wings
        "middle": lambda arm: replace(_galaxy(arm), name=f"SIMMIDDLE{arm}", place=(0.3, 0.0)),
        "soft": lambda arm: replace(_galaxy(arm), name=f"SIMSOFT{arm}", index=0.5),
        "steep": lambda arm: replace(_galaxy(arm), name=f"SIMSTEEP{arm}", index=2.0),
        "blank": lambda arm: Target(f"SIMBLANK{arm}", "blank", arm, 900.0, 1, "HET25-1-105"),
    }
    return Scenario(tuple(t for arm in "BR" for t in (_standard(arm), *(makers[k](arm) for k in kinds))), **changes)


SCENARIOS: dict[str, Scenario] = {
    "demo": Scenario((_standard("B"), _faint("B", 1))),
    "test": Scenario(tuple(t for arm in "BR" for t in (_standard(arm), _faint(arm, 2), _galaxy(arm)))),
    "full": Scenario(
        tuple(t for arm in "BR" for t in (_standard(arm), _faint(arm, 2), _galaxy(arm), _faint(arm, 1, 2))),
        n_bias=10, n_twilight=4, n_arc=2, previous_bias=7,
    ),
    "calibrations": Scenario(),
    "stress-seeing-1.0": _stress("faint", seeing=(1.0, 1.0)),
    "stress-seeing-2.5": _stress("faint", seeing=(2.5, 2.5)),
    "stress-bright": _stress("bright"),
    "stress-moon": _stress("faint", "galaxy", sky="bright"),
    "stress-edge": _stress("edge"),
    "stress-blank": _stress("blank"),
    "stress-amplifier": _stress("faint", lost=(("twi", 2, "LU"), ("twi", 2, "RL"))),
    "stress-guider": _stress("faint", guider=False),
    "stress-rows": _stress("faint", "galaxy", row_jitter=0.2),
    "stress-ramps": _stress("faint", "galaxy", ramp=0.25),
    "stress-galaxies": _stress("middle", "soft", "steep"),
    "stress-binning": _stress("faint", "galaxy", binning=2),
    "stress-optics": _stress("faint", oval=0.1, reflection=0.003),
    "stress-refraction": _stress("faint", refraction=1.2),
    "stress-focus": _stress("faint", "galaxy", focus=0.015),
}  # fmt: skip
"""Ready-made nights; those named ``stress-`` have one difficulty each, on a reduced set of targets."""

DEMO_SIDES = ("uv", "orange")
"""Channels of the demo, which stays with LRS2-B."""


def scenario(name: str, **changes: object) -> Scenario:
    """A ready-made scenario, with some of its fields changed.

    Raises
    ------
    ScenarioError
        If there is none of this name, or a change does not fit.
    """
    if name not in SCENARIOS:
        raise ScenarioError(f"There is no scenario {name!r}: choose among {', '.join(SCENARIOS)}.")
    return replace(SCENARIOS[name], **changes)


@dataclass(frozen=True)
class ExposurePlan:
    """One exposure, all that is decided before it is taken.

    Attributes
    ----------
    night : str
    obsid, exp : int
    kind : str
        zro, drk, twi, flt, cmp or sci.
    start : datetime
        UT.
    exptime : float
        Seconds; 0 for a bias.
    object_name : str
    lamp : str
        Lamp of an arc.
    target : Target or None
    level : float
        Twilights and flats: electrons per pixel at a fibre's centre, median.
    transparency, area : float
        Mean over the exposure; area in cm2.
    seeing, beta : float
        FWHM [arcsec] at 5000 A and exponent of the Moffat.
    shear : tuple of float
        Ellipticity of a point source's image along x, and along the diagonal.
    offset : tuple of float
        Pointing error [arcsec].
    ra, dec, parangle : float
        Degrees.
    """

    night: str
    obsid: int
    exp: int
    kind: str
    start: datetime
    exptime: float
    object_name: str = ""
    lamp: str = ""
    target: Target | None = None
    level: float = 0.0
    transparency: float = 1.0
    area: float = 0.0
    seeing: float = 0.0
    beta: float = 0.0
    shear: tuple[float, float] = (0.0, 0.0)
    offset: tuple[float, float] = (0.0, 0.0)
    ra: float = 0.0
    dec: float = 0.0
    parangle: float = 0.0
    flexures: dict[str, Flexure] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of the exposure in random streams and messages."""
        return f"{self.night}-{self.obsid:07d}-{self.exp:02d}"


def plan_night(date: str, seed: int, scn: Scenario, area: float) -> list[ExposurePlan]:
    """All exposures of a night in the order in which they are taken.

    Parameters
    ----------
    date : str
        Night YYYYMMDD.
    area : float
        Area [cm2] of the fully illuminated mirror.
    """
    try:
        midnight = datetime.strptime(date, "%Y%m%d")
    except ValueError:
        raise ScenarioError(f"{date!r} is not a night: write YYYYMMDD.") from None
    rng = stream(seed, "plan", date)
    exposures: list[ExposurePlan] = []
    # observation numbers start afresh every night; the clock starts before midnight UT, as on real nights
    clock = midnight - timedelta(minutes=20)
    obsid = 1
    for kind, n, exptime in (("zro", scn.n_bias, 0.0), ("drk", scn.n_dark, 360.0)):
        for exp in range(1, n + 1):
            exposures.append(ExposurePlan(date, obsid, exp, kind, clock, exptime, {"zro": "bias", "drk": "dark"}[kind]))
            clock += timedelta(seconds=exptime + (12 if kind == "zro" else OVERHEAD))
        obsid += bool(n)
    clock = midnight + timedelta(minutes=45)
    for exp in range(1, scn.n_twilight + 1):
        exposures.append(
            ExposurePlan(date, obsid, exp, "twi", clock, 15.0, "twilight", level=rng.uniform(4e3, 1.2e4),
                         flexures=_flexures(rng, (0.02, 0.05)))
        )  # fmt: skip
        clock += timedelta(seconds=15 + OVERHEAD)
    obsid += bool(scn.n_twilight)
    clock = midnight + timedelta(hours=2)
    for plan in _science(date, obsid, scn, area, clock, seed, rng):
        exposures.append(plan)
        obsid = plan.obsid + 1
    clock = midnight + timedelta(hours=12)
    for exp in range(1, scn.n_flat + 1):
        exposures.append(
            ExposurePlan(date, obsid, exp, "flt", clock, 30.0, "ldls_long", level=rng.uniform(1e4, 1.4e4),
                         flexures=_flexures(rng, (0.02, 0.05)))
        )  # fmt: skip
        clock += timedelta(seconds=30 + OVERHEAD)
    obsid += bool(scn.n_flat)
    shift = _flexures(rng, (0.02, 0.05))
    for name, lamp, exptime in LAMPS:
        for exp in range(1, scn.n_arc + 1):
            exposures.append(ExposurePlan(date, obsid, exp, "cmp", clock, exptime, name, lamp, flexures=shift))
            clock += timedelta(seconds=exptime + OVERHEAD)
        obsid += bool(scn.n_arc)
    return exposures


def plan_previous(date: str, scn: Scenario) -> list[ExposurePlan]:
    """Bias frames of the night before."""
    before = datetime.strptime(date, "%Y%m%d") - timedelta(days=1)
    night = before.strftime("%Y%m%d")
    return [
        ExposurePlan(night, 1, exp, "zro", before + timedelta(minutes=5, seconds=12 * exp), 0.0, "bias")
        for exp in range(1, scn.previous_bias + 1)
    ]


def _flexures(rng: np.random.Generator, size: tuple[float, float]) -> dict[str, Flexure]:
    """A shift of given size for every channel, with a gentle slope over the detector."""
    out = {}
    for name in CHANNELS:
        values = []
        for _ in range(2):
            shift = rng.choice([-1, 1]) * rng.uniform(*size)
            values.append((shift, *(0.15 * size[1] * rng.uniform(-1, 1, 2))))
        out[name] = Flexure(*values)
    return out


def _science(date: str, obsid: int, scn: Scenario, area: float, clock: datetime, seed: int,
             rng: np.random.Generator) -> Iterator[ExposurePlan]:  # fmt: skip
    taken = []
    # Telescope and dome shape the wings: they differ more from night to night than from exposure to exposure.
    beta = stream(seed, "profile", date).uniform(3.0, 4.4)
    for number, target in enumerate(scn.targets):
        if target.kind == "standard" and not target.name:
            free = [s for s in BRIGHT_STANDARDS if s not in taken]
            target = replace(target, name=str(rng.choice(free or BRIGHT_STANDARDS)))
            taken.append(target.name)
        slot = next(c.ifuslot for c in CHANNELS.values() if c.arm == target.arm)
        ra, dec, parangle = rng.uniform(0, 360), rng.uniform(-5, 65), rng.uniform(0, 360)
        track = rng.choice(["E", "W"])
        for exp in range(1, target.n_exposures + 1):
            guiding = stream(seed, "guiding", date, str(obsid + number), str(exp))
            size, angle = scn.oval * guiding.uniform(0.5, 1.0), guiding.uniform(0, 2 * np.pi)
            yield ExposurePlan(
                date, obsid + number, exp, "sci", clock, target.exptime, f"{target.name}_{slot}_{track}", "", target,
                transparency=rng.uniform(0.75, 0.98), area=area * rng.uniform(0.70, 0.95),
                seeing=rng.uniform(*scn.seeing), beta=beta + rng.uniform(-0.15, 0.15),
                shear=(float(size * np.cos(angle)), float(size * np.sin(angle))), offset=tuple(rng.normal(0, 0.15, 2)),
                ra=ra, dec=dec, parangle=(parangle + 3.5 * exp) % 360, flexures=_flexures(rng, scn.flexure),
            )  # fmt: skip
            clock += timedelta(seconds=target.exptime + OVERHEAD)
        clock += timedelta(seconds=300)


def parse_sides(sides: str | tuple[str, ...]) -> tuple[str, ...]:
    """Channel names from ``uv,orange`` or a sequence.

    Raises
    ------
    UnknownChannelError
        If one of them is no channel.
    """
    names = sides.split(",") if isinstance(sides, str) else sides
    wanted = {channel(n.strip()).name for n in names}
    return tuple(n for n in CHANNELS if n in wanted)
