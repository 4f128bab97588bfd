"""The four channels of LRS2 and everything that is tabulated for them.

Image fibre order, used everywhere in the package: fibre 0 is the lowest of the stacked image, whose bottom amplifier
(LL or RU) holds rows 0..1031 and whose top amplifier (LU or RL) holds rows 1032..2063.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.interpolate import CubicSpline

from ..errors import RequestError
from .constants import N_AMP_FIBERS, N_COLUMNS, N_WAVE
from .tables import channel_facts, table


class UnknownChannelError(RequestError):
    """A channel was named that LRS2 does not have."""


@dataclass(frozen=True)
class Channel:
    """One of the four channels of LRS2; wavelengths in air, in Angstrom.

    Attributes
    ----------
    name : str
        ``uv``, ``orange``, ``red`` or ``farred``.
    arm : str
        ``B`` (uv and orange) or ``R`` (red and farred).
    tag : str
        The two letters of the channel's tables: BL, BR, RL, RR.
    ifuslot, specid, ifuid : str
        Names of the IFU and the spectrograph as raw headers and file names hold them.
    amps : tuple of str
        Bottom and top amplifier of the stacked image.
    wave_min, wave_max : float
        First and last wavelength of the rectified spectra.
    continuum : tuple of float
        A window with a clean sky continuum.
    resolving_power : float
        Nominal resolving power in mid-channel.
    lamps : tuple of str
        Lower-case values of OBJECT of the arc frames that serve this channel.
    """

    name: str
    arm: str
    tag: str
    ifuslot: str
    specid: str
    ifuid: str
    amps: tuple[str, str]
    wave_min: float
    wave_max: float
    continuum: tuple[float, float]
    resolving_power: float
    lamps: tuple[str, ...]

    def wave_grid(self) -> np.ndarray:
        """Wavelengths (N_WAVE,) of the rectified spectra, even, both ends included."""
        return np.linspace(self.wave_min, self.wave_max, N_WAVE)

    def fiber_positions(self) -> np.ndarray:
        """Lenslet centres (N_FIBERS, 2) in IFU arcsec (x, y), in image fibre order."""
        t = table("lenslets")
        xy = np.column_stack([t["x"], t["y"]]).astype(float)
        # amplifiers LL and RU hold the second half of the mapping table upside down, LU and RL the first half
        return np.concatenate([xy[N_AMP_FIBERS:][::-1], xy[:N_AMP_FIBERS][::-1]])

    def arc_lines(self) -> Table:
        """Arc lines: ``wavelength`` [A, air], ``column`` (approximate), ``intensity`` (relative), ``element``."""
        return self._own("arc_lines")

    def sky_lines(self, doubtful: bool = False) -> np.ndarray:
        """Wavelengths (n,) of night-sky lines [A, air]; none are known in uv.

        Parameters
        ----------
        doubtful : bool
            Take also the lines that the source marks as not to be used.
        """
        t = self._own("sky_lines")
        keep = np.ones(len(t), bool) if doubtful else np.asarray(t["use"]) == 1
        return np.asarray(t["wavelength"], float)[keep]

    def refraction(self) -> Table:
        """Place of a star in the IFU: ``wavelength`` [A], ``x``, ``y`` [arcsec]; only differences carry meaning."""
        return self._own("refraction")

    def response(self) -> tuple[np.ndarray, np.ndarray]:
        """Wavelengths (n,) and the default response (n,), which multiplies e-/s/cm2/A to give erg/s/cm2/A.

        The points are uneven; straight lines between them hold the original curve to 0.06 %.
        """
        t = self._own("response")
        return np.asarray(t["wavelength"], float), np.asarray(t["response"], float)

    def fiber_locations(self, date: str) -> tuple[np.ndarray, np.ndarray]:
        """Reference fibre rows of the last entry not later than a night; the first entry for nights before it.

        Parameters
        ----------
        date : str
            Night, YYYYMMDD.

        Returns
        -------
        row : ndarray (N_FIBERS,)
            Row [px] at mid-chip in the stacked image.
        dead : ndarray (N_FIBERS,) of bool
            Fibres that are known to be dead.
        """
        t = table("fiber_locations")
        dates = sorted(c.rpartition("_")[2] for c in t.colnames if c.rpartition("_")[0] == self.name)
        key = f"{self.name}_{max((d for d in dates if d <= date), default=dates[0])}"
        row = np.array(t[key], dtype=float)
        dead = np.zeros(row.size, bool)
        dead[t.meta["dead"][key]] = True
        return row, dead

    def _own(self, name: str) -> Table:
        """Rows of a table that belong to this channel, without the channel column."""
        t = table(name)
        t = t[np.asarray(t["channel"]) == self.name]
        t.remove_column("channel")
        t.meta.clear()
        return t


def _build() -> dict[str, Channel]:
    channels = {}
    for name, facts in channel_facts().items():
        facts = dict(facts)
        amps = facts.pop("amplifiers")
        sequences = {key: tuple(facts.pop(key)) for key in ("continuum", "lamps")}
        channels[name] = Channel(name=name, amps=tuple(amps), **sequences, **facts)
    return channels


CHANNELS: dict[str, Channel] = _build()
"""All channels by name, in order of wavelength."""


def channel(name: str) -> Channel:
    """Look up a channel.

    Raises
    ------
    UnknownChannelError
        If LRS2 has no channel of this name.
    """
    try:
        return CHANNELS[name]
    except KeyError:
        raise UnknownChannelError(f"LRS2 has no channel {name!r}: choose among {', '.join(CHANNELS)}.") from None


def reference_wavelength(name: str) -> np.ndarray:
    """Packaged wavelength map (N_FIBERS, N_COLUMNS) [A, air] of a channel; there is one for uv only.

    Raises
    ------
    UnknownChannelError
        If no map is packaged for this channel.
    """
    if name != "uv":
        raise UnknownChannelError(f"There is no packaged wavelength map for channel {name!r}, only for uv.")
    t = table("reference_wavelength_uv")
    knots = np.array([int(c[1:]) for c in t.colnames], dtype=float)
    values = np.column_stack([np.asarray(t[c], float) for c in t.colnames])
    return CubicSpline(knots, values, axis=1)(np.arange(N_COLUMNS))


_LEADING = {"uv": "orange", "farred": "red"}


def leading_channel(name: str) -> str | None:
    """The other channel of the arm, where that one usually shows a source with more signal; else None."""
    return _LEADING.get(name)


FPLANE: dict[str, tuple[float, float]] = {"056": (-50.0, -150.0), "066": (50.0, -150.0)}
"""Focal-plane position (x, y) [arcsec] of both IFUs. Source: fplane.txt of the LRS2 tools."""


def fplane(ifuslot: str) -> tuple[float, float]:
    """Focal-plane position (x, y) [arcsec] of an IFU.

    Raises
    ------
    UnknownChannelError
        If the slot holds no LRS2 IFU.
    """
    try:
        return FPLANE[ifuslot]
    except KeyError:
        raise UnknownChannelError(f"IFU slot {ifuslot!r} is not one of LRS2's: {', '.join(FPLANE)}.") from None
