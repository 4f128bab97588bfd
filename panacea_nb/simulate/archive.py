"""Write frames as LRS2's raw archive holds them: FITS members in tar files, by night and observation."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
from astropy.coordinates import Angle
from astropy.io import fits

from ..instrument import Channel
from .scenario import ExposurePlan, Scenario
from .streams import stream

Member = tuple[str, bytes]
"""Name in the archive and content of a file."""

WITH_INNER_TAR = ("tar", "night")
"""Layouts in which every observation is a tar file of its own."""

NEGATIVE_EXPTIME_OFFSET = 7.0
"""Real headers with a negative EXPTIME hold the true one less these seconds in REXPTIME."""


def frame_header(plan: ExposurePlan, scn: Scenario, ch: Channel, amp: str, gain: float, read_noise: float, first: bool,
                 seed: int) -> fits.Header:  # fmt: skip
    """Header cards of an amplifier's file, as raw-format facts have them.

    Parameters
    ----------
    first : bool
        Whether this is the night's first science exposure (some oddities of real headers are put there).
    """
    h = fits.Header()
    ra, dec = Angle(plan.ra, "deg"), Angle(plan.dec, "deg")
    rng = stream(seed, "header", plan.label)
    mirrored = amp in scn.mirrored
    blank = amp in scn.blank_gain
    h["OBJECT"] = (plan.object_name, "object name")
    if plan.kind == "sci":
        target = plan.target
        h["QOBJECT"] = (target.name, "target of the queue")
        if target.program:
            h["QPROG"] = (target.program, "programme")
        h["QRA"] = (ra.to_string(unit="hour", sep=":", precision=2, pad=True), "right ascension of the target")
        h["QDEC"] = (
            dec.to_string(unit="deg", sep=":", precision=1, pad=True, alwayssign=True),
            "declination of the target",
        )
        h["TRAJRA"] = (round(plan.ra / (15 if scn.trajra_hours else 1), 6), "right ascension of the trajectory")
        h["TRAJDEC"] = (round(plan.dec, 6), "declination of the trajectory")
        h["PARANGLE"] = (round(plan.parangle, 3), "[deg] parallactic angle")
    negative = first and scn.negative_exptime
    h["EXPTIME"] = (-1.0 if negative else plan.exptime, "[s] exposure time")
    h["REXPTIME"] = (plan.exptime - (NEGATIVE_EXPTIME_OFFSET if negative else 0), "[s] requested exposure time")
    h["DARKTIME"] = (plan.exptime + 3.0 if plan.exptime else 0.0, "[s] dark time")
    h["DATE"] = (plan.start.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3], "start of the exposure, UT")
    h["UT"] = (plan.start.strftime("%H:%M:%S.%f")[:-3], "start of the exposure, UT")
    h["IFUSLOT"] = (ch.ifuslot, "IFU slot")
    h["SPECID"] = (ch.specid, "spectrograph")
    h["IFUID"] = (ch.ifuid, "IFU")
    h["CONTID"] = (f"{ch.specid}{amp[0]}", "controller")
    h["CCDPOS"] = (amp[0], "side of the spectrograph")
    h["CCDHALF"] = (amp[1], "half of the detector")
    h["AMPNAME"] = ({"L": "LR", "U": "UL"}[amp[1]] if mirrored else amp, "read-out amplifier")
    h["CCDSUM"] = (f"{scn.binning} 1", "binning of columns, rows")
    h["GAIN"] = (0.0 if blank else gain, "[e-/ADU] gain")
    h["RDNOISE"] = (0.0 if blank else read_noise, "[e-] read noise")
    h["AMBTEMP"] = (round(rng.uniform(2, 15), 1), "[deg C] air temperature")
    h["HUMIDITY"] = (round(rng.uniform(20, 80), 1), "[%] humidity")
    return h


def frame_member(plan: ExposurePlan, ch: Channel, amp: str, data: np.ndarray, header: fits.Header) -> Member:
    """One amplifier's file: its name inside the observation's tar, and its bytes."""
    buffer = io.BytesIO()
    fits.PrimaryHDU(data, header).writeto(buffer)
    stem = f"{time_stamp(plan.start)}_{ch.ifuslot}{amp}_{plan.kind}.fits"
    return f"lrs2{plan.obsid:07d}/exp{plan.exp:02d}/lrs2/{stem}", buffer.getvalue()


def time_stamp(moment: datetime) -> str:
    """Time as file names hold it, such as 20250115T020000.0."""
    return moment.strftime("%Y%m%dT%H%M%S") + f".{moment.microsecond // 100000}"


def write_tar(path: Path, members: Iterable[Member]) -> None:
    """Write a tar file that appears under its name only when it is complete; equal members give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(content))
    os.replace(part, path)


def write_members(folder: Path, tar_name: str, members: Iterable[Member], layout: str) -> None:
    """Write members into ``folder/tar_name``, or as plain files below ``folder`` in layouts without inner tars."""
    if layout in WITH_INNER_TAR:
        write_tar(folder / tar_name, members)
        return
    for name, content in members:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pack_night(root: Path, night: str) -> Path:
    """Move all raw files of ``root/night`` into ``root/night.tar``; truth stays where it is.

    Members keep the night in their names, as archived nights do.
    """
    path = root / f"{night}.tar"
    part = path.with_name(path.name + ".part")
    folders = [f for f in sorted((root / night).iterdir()) if f.name != "truth"]
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(f for folder in folders for f in folder.rglob("*") if f.is_file()):
            info = tarfile.TarInfo(str(file.relative_to(root)))
            info.size = file.stat().st_size
            info.mode = 0o644
            with file.open("rb") as content:
                tar.addfile(info, content)
    os.replace(part, path)
    for folder in folders:
        shutil.rmtree(folder)
    return path
