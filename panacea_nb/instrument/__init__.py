"""What LRS2 is: channels, amplifiers, fibre maps, lines, refraction, response, standards.

Only facts and small readers live here; every table lies in ``data`` and names its source.
"""

from __future__ import annotations

from .atmosphere import extinction, mean_telluric, sky_templates
from .channels import (
    CHANNELS,
    FPLANE,
    Channel,
    UnknownChannelError,
    channel,
    fplane,
    leading_channel,
    reference_wavelength,
)
from .constants import (
    AMP_ROWS,
    CONTROLLER_SWAP,
    DEFAULT_AREA,
    DEFAULT_GAIN,
    DEFAULT_RDNOISE,
    FIBER_AREA,
    LENSLET_PITCH,
    N_AMP_FIBERS,
    N_COLUMNS,
    N_FIBERS,
    N_WAVE,
    OVERSCAN,
    ZENITH_DISTANCE,
)
from .standards import Standard, find_standard, standard_names

__all__ = [
    "AMP_ROWS",
    "CHANNELS",
    "CONTROLLER_SWAP",
    "DEFAULT_AREA",
    "DEFAULT_GAIN",
    "DEFAULT_RDNOISE",
    "FIBER_AREA",
    "FPLANE",
    "LENSLET_PITCH",
    "N_AMP_FIBERS",
    "N_COLUMNS",
    "N_FIBERS",
    "N_WAVE",
    "OVERSCAN",
    "ZENITH_DISTANCE",
    "Channel",
    "Standard",
    "UnknownChannelError",
    "channel",
    "extinction",
    "find_standard",
    "fplane",
    "leading_channel",
    "mean_telluric",
    "reference_wavelength",
    "sky_templates",
    "standard_names",
]
