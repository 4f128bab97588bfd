"""What the choice of sky means for the plan: which exposure gives the sky, what waits for it, and for whom a choice holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from ..errors import RequestError
from .rundef import RunDefinition
from .stages import Stage

# A choice that was made for a target does not hold for its standards, nor for the exposure that gives the sky.
UNCHOSEN: dict[str, Any] = {
    "sky_mode": "auto",
    "sky_region": "",
    "sky_exclude": "",
    "sky_mask": "",
    "sky_obsid": None,
    "sky_exp": None,
    "extraction": "psf",
    "aperture": None,
    "no_aperture_correction": False,
    "extract_region": "",
}


class SkyExposureError(RequestError):
    """The exposure or mask that was named for the sky is not there."""


def exposure(definition: RunDefinition, found: Iterable[Any]) -> Any:
    """The exposure that gives the sky, out of those of ``--sky_obsid`` on a channel; None where none was named.

    Raises
    ------
    SkyExposureError
    """
    if definition.sky_mode != "exposure":
        return None
    exposures = sorted(found, key=lambda e: e.exp)
    asked = definition.sky_exp
    for candidate in exposures:
        if asked in (None, candidate.exp):
            return candidate
    what = f"obsid {definition.sky_obsid}" + (f" exposure {asked}" if asked is not None else "")
    there = f"; it has exposures {', '.join(str(e.exp) for e in exposures)}" if exposures else ""
    raise SkyExposureError(f"night {definition.night} has no science exposure of {what} to take the sky from{there}")


def own_options(stage: Stage, definition: RunDefinition, sky: Any, *, holds: bool) -> dict[str, Any]:
    """Options of a stage as they hold for one exposure; ``holds``: the user's choice of sky and extraction is for it."""
    if stage.name not in ("06_sky", "07_flux"):
        return {}
    own = {} if holds else {name: value for name, value in UNCHOSEN.items() if name in stage.options}
    if stage.name == "06_sky":
        if holds and sky is not None:
            own["sky_exp"] = sky.exp
        if not holds or not (definition.sky_region or definition.sky_exclude):
            own["central_wave"] = None  # only regions depend on it
    return own


def mask_facts(definition: RunDefinition) -> dict[str, str]:
    """Digest of the file with sky fibres, if one was named.

    Raises
    ------
    SkyExposureError
    """
    path = definition.sky_mask_file
    if path is None:
        return {}
    try:
        return {"sky mask": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        raise SkyExposureError(f"--sky_mask {path} cannot be read: {error.strerror}") from error
