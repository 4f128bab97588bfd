"""Numbers that hold for every LRS2 channel, with their meaning and source."""

from __future__ import annotations

N_AMP_FIBERS = 140
"""Fibres that one amplifier records."""

N_FIBERS = 2 * N_AMP_FIBERS
"""Fibres (lenslets) of a channel: bottom amplifier first, then the top one."""

N_COLUMNS = 2064
"""Columns of an unbinned frame without its overscan; dispersion runs along them."""

AMP_ROWS = 1032
"""Rows of one amplifier; a stacked image has twice as many."""

OVERSCAN = 64
"""Overscan columns of an unbinned frame; half of them at 2x1 binning."""

N_WAVE = 2064
"""Points of a rectified spectrum."""

DEFAULT_GAIN = 0.85
"""Gain [e-/ADU] where the header holds none or nonsense (Panacea's default)."""

DEFAULT_RDNOISE = 3.0
"""Read noise [e-] where the header holds none or nonsense (Panacea's default)."""

DEFAULT_AREA = 51.4e4
"""Area [cm2] of the HET mirror under full illumination (Panacea's default)."""

CONTROLLER_SWAP = "20240722"
"""Night of the detector controllers' exchange: calibrations from one side of it never serve data from the other."""

LENSLET_PITCH = 0.59
"""Distance [arcsec] between lenslets in a row, and between rows, of which every second is shifted by half of it."""

FIBER_AREA = LENSLET_PITCH**2
"""Solid angle [arcsec2] of one lenslet: the lenslets fill the field, so a lenslet covers pitch times row distance."""

ZENITH_DISTANCE = 35.0
"""The nearly fixed zenith distance [deg] at which the HET observes."""
