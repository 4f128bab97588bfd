"""One function per thing worth seeing: each draws one figure and shows it with an alt text that states the finding.

Every function shows a PNG through `panacea_nb.qa.show` and returns None.  Data that are missing (no source, no sky,
dead fibres, nothing but masked samples) leave an empty panel that says so; they never raise.
"""

from __future__ import annotations

from .arcs import arc_spectrum, lsf_map, wavelength_residuals
from .bias import bias_overview, read_noise
from .combine import combined_image, combined_parts, combined_spectrum
from .extraction import cosmic_rays, fiber_spectra, flexure, frame_and_residual
from .flats import flat_residual, pixel_flat, throughput
from .night import night_overview, night_timeline, verdict_matrix
from .sky import sky_fibers, sky_pulls, sky_spectrum, sky_subtracted
from .source import collapsed_image, extracted_spectrum, source_model
from .standard import response
from .traces import profile_fit, scattered_light, traces_on_image

__all__ = [
    "arc_spectrum",
    "bias_overview",
    "collapsed_image",
    "combined_image",
    "combined_parts",
    "combined_spectrum",
    "cosmic_rays",
    "extracted_spectrum",
    "fiber_spectra",
    "flat_residual",
    "flexure",
    "frame_and_residual",
    "lsf_map",
    "night_overview",
    "night_timeline",
    "pixel_flat",
    "profile_fit",
    "read_noise",
    "response",
    "scattered_light",
    "sky_fibers",
    "sky_pulls",
    "sky_spectrum",
    "sky_subtracted",
    "source_model",
    "throughput",
    "traces_on_image",
    "verdict_matrix",
    "wavelength_residuals",
]
