"""The raw night archive: find frames in tar files, read them in place, associate calibrations and say why."""

from __future__ import annotations

from .archive import MissingNightError, Problem
from .associate import NightArchive, associate
from .choice import CalibrationChoice, MissingCalibrationError, Rejection
from .frames import Exposure, FrameRecord, RawAmplifier, UnreadableFrameError, digest, read_amplifier
from .guider import GuiderSummary, guider
from .index import NightIndex, index_night
from .inspect import inspect_text
from .names import KINDS, BadNightError, clean_text
from .select import Selection, select_science

__all__ = [
    "KINDS",
    "BadNightError",
    "CalibrationChoice",
    "Exposure",
    "FrameRecord",
    "GuiderSummary",
    "MissingCalibrationError",
    "MissingNightError",
    "NightArchive",
    "NightIndex",
    "Problem",
    "RawAmplifier",
    "Rejection",
    "Selection",
    "UnreadableFrameError",
    "associate",
    "clean_text",
    "digest",
    "guider",
    "index_night",
    "inspect_text",
    "read_amplifier",
    "select_science",
]
