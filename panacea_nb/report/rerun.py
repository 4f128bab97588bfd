"""How to do it again and how to cite it: the exact command of a target's reduction, the versions, the references."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .. import __version__

# What a run does by itself, so that the command need not say it; tests compare it with the options of `reduce`.
DEFAULTS: dict[str, Any] = {
    "wavelength_bin": 10.0, "sky_mode": "auto", "sky_degree": 0, "sky_refine": "none", "extraction": "psf", "telluric": "none",
}  # fmt: skip
# Where a run reads and writes is the reader's; how it is carried out changes no result.
LEFT_OUT = (
    "output",
    "baseraw",
    "overwrite",
    "jobs",
    "until",
    "redo",
    "night",
    "sides",
    "object",
    "obsid",
    "exp",
    "first",
    "site",
    "nodes",
    "pilot",
    "group",
    "thorough",
)
FLAGS = {  # where the option is not called as the value
    "cal_dates": "--cal-date", "leave_out": "--leave-out", "dead_fibers": "--dead-fibers", "drop_lines": "--drop-lines",
    "cosmics_file": "--cosmics-file",
}  # fmt: skip
_IMPLIED = {"sky_mode": ("sky_region", "sky_mask", "sky_obsid")}
PLACE = (
    "Run it in the folder that holds LRS2 and NIGHTS, or name another --output; PANACEA_BASERAW is the folder with the raw "
    "nights. What is up to date is not done again."
)


def command(asked: Mapping[str, Any], night: str, *, name: str = "", obsid: int | None = None) -> str:
    """The command that reduces a target as it was reduced.

    Parameters
    ----------
    asked : mapping
        What ``run.yaml`` of the night holds.
    night : str
        YYYYMMDD.
    name : str
        Part of OBJECT by which the target is selected; ``obsid`` selects where it has no such name.
    """
    words = ["panacea-nb", "reduce", "-d", night]
    sides = asked.get("sides")
    if isinstance(sides, list) and sides:
        words += ["-s", ",".join(map(str, sides))]
    if name:
        words += ["-o", name]
    elif obsid is not None:
        words += ["--obsid", str(obsid)]
    for key, value in asked.items():
        if key not in LEFT_OUT:
            words += _option(key, value, asked)
    return f'{shlex.join(words)} --baseraw "$PANACEA_BASERAW" --output .'


def _option(key: str, value: Any, asked: Mapping[str, Any]) -> list[str]:
    if value in (None, "", False, [], {}) and value != 0.0 or value is False:
        return []
    if key in DEFAULTS and value == DEFAULTS[key]:
        return []
    if any(asked.get(other) for other in _IMPLIED.get(key, ())):
        return []
    flag = FLAGS.get(key, f"--{key}")
    if isinstance(value, Mapping):
        return [word for name, item in value.items() for word in (flag, f"{name}={item}")]
    if isinstance(value, list | tuple):
        return [flag, ",".join(map(str, value))]
    if value is True:
        return [flag]
    if isinstance(value, float):
        value = repr(value)
    # joined by "=", so that a negative number is no option of its own
    return [f"{flag}={value}"]


def citation() -> str:
    """How to cite, in words."""
    return (
        f"Reduced with panacea_nb {__version__} (LRS2 data reduction as executed notebooks), whose products and methods follow "
        "Panacea (G. Zeimann, https://github.com/grzeimann/Panacea). The Low Resolution Spectrograph 2 is described in "
        "Chonis et al. 2016, Proc. SPIE 9908, 99084C."
    )


def bibtex() -> str:
    """The same as BibTeX."""
    return f"""@software{{panacea_nb, title = {{panacea_nb: LRS2 data reduction as executed notebooks}},
  author = {{{{The panacea_nb developers}}}}, version = {{{__version__}}}}}
@software{{panacea, title = {{Panacea: the automatic LRS2 pipeline}}, author = {{Zeimann, Greg}},
  url = {{https://github.com/grzeimann/Panacea}}}}
@inproceedings{{lrs2, author = {{Chonis, Taylor S. and others}}, title = {{LRS2: design, assembly, testing, and commissioning of
  the second-generation low-resolution spectrograph for the Hobby-Eberly Telescope}},
  booktitle = {{Proc. SPIE}}, volume = {{9908}}, pages = {{99084C}}, year = {{2016}}}}"""
