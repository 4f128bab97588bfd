"""Guide-camera frames: small images whose headers tell transparency, illumination and seeing."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
from astropy.io import fits
from astropy.time import Time

from ..instrument import DEFAULT_AREA
from .archive import Member, time_stamp
from .scenario import ExposurePlan
from .streams import stream

CADENCE = 30.0
"""Time [s] between two frames of a camera."""

MARGIN = 60.0
"""Time [s] before and after an exposure that is covered too."""

PERIOD = (180.0, 450.0)
"""Shortest and longest time [s] in which thin clouds come and go."""

CAMERAS = ("gc1", "gc2")
"""Names of the guide cameras."""


def guider_members(plan: ExposurePlan, camera: str, seed: int) -> list[Member]:
    """Frames of one camera around one exposure.

    Transparency and illumination vary by a few per cent about the exposure's means, which are the truth; a few frames
    hold values that are out of the valid range, and guiding is active only within the exposure.
    """
    rng = stream(seed, "guider", camera, plan.label)
    # the sky changes alike for both cameras
    weather = stream(seed, "weather", plan.label)
    phase, period = weather.uniform(0, 2 * np.pi), weather.uniform(*PERIOD)
    turns = 2 * np.pi * plan.exptime / period
    mean = (np.cos(phase) - np.cos(phase + turns)) / turns
    offset = 0.004 * rng.standard_normal()
    members = []
    for t in np.arange(-MARGIN, plan.exptime + MARGIN, CADENCE) + rng.uniform(0, 5):
        part = t / plan.exptime
        inside = 0 <= t <= plan.exptime
        wobble = 0.02 * (np.sin(phase + turns * part) - mean)
        h = fits.Header()
        moment = plan.start + timedelta(seconds=float(t))
        h["GUIDLOOP"] = ("ACTIVE" if inside else "IDLE", "state of guiding")
        h["TRANSPAR"] = (
            round(plan.transparency * (1 + wobble) + offset + 0.005 * rng.standard_normal(), 4),
            "transparency",
        )
        h["IQ"] = (round(plan.seeing * (1 + 0.05 * rng.standard_normal()), 3), "[arcsec] image quality, FWHM")
        illumination = plan.area / DEFAULT_AREA * (1 + 0.01 * (2 * part - 1) + 0.001 * rng.standard_normal())
        h["PUPILLUM"] = (round(illumination, 4), "illuminated part of the mirror")
        if rng.uniform() < 0.04:
            h["TRANSPAR"], h["IQ"] = -1.0, 0.0
        h["MJD"] = (round(Time(moment).mjd, 7), "modified Julian date")
        for name in ("RHO_STRT", "THE_STRT", "PHI_STRT", "X_STRT", "Y_STRT"):
            h[name] = (round(rng.uniform(-1, 1), 5), "tracker at the start")
        buffer = io.BytesIO()
        fits.PrimaryHDU(rng.integers(900, 1100, (16, 16)).astype(np.uint16), h).writeto(buffer)
        members.append((f"{time_stamp(moment)}_{camera}_sci.fits", buffer.getvalue()))
    return members
