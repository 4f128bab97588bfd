"""What is asked of a run: every option with its help, unit and check, to and from YAML."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import checks, files
from .checks import CHANNEL_NAMES
from .config import DefinitionError, read_yaml


def option(
    default: Any,
    check: Callable[[Any], Any],
    text: str,
    *flags: str,
    unit: str = "",
    metavar: str = "",
    repeat: bool = False,
    action_only: bool = False,
) -> Any:
    """A field of `RunDefinition` with all that command line, YAML check and documentation need to know of it."""
    metadata = {
        "check": check,
        "help": text,
        "flags": flags,
        "unit": unit,
        "metavar": metavar,
        "repeat": repeat,
        "action_only": action_only,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class RunDefinition:
    """Everything that a reduction of one night was asked to do; values are checked when it is made.

    Raises
    ------
    DefinitionError
        With one message that names the option, the value and what is allowed.
    """

    night: str = option(
        "", checks.as_optional_date, "night to reduce", "-d", "--date", unit="UT date, YYYYMMDD", metavar="DATE"
    )
    sides: tuple[str, ...] = option(
        CHANNEL_NAMES, checks.as_channels, "channels, comma-separated", "-s", "--sides", metavar="LIST"
    )
    object: str = option(
        "",
        checks.as_text,
        "only exposures whose OBJECT contains NAME (case ignored), and the standards of the same IFU",
        "-o",
        "--object",
        metavar="NAME",
    )
    use_flat: bool = option(
        False, checks.as_flag, "internal flats instead of twilights for trace and flat", "-uf", "--use_flat"
    )
    correct_ftf: bool = option(
        False,
        checks.as_flag,
        "refine the fibre-to-fibre normalisation from the sky of the science frame",
        "-cf",
        "--correct_ftf",
    )
    central_wave: float | None = option(
        None,
        checks.optional(checks.as_positive),
        "centre of the collapse window (default: mid-channel)",
        "-cw",
        "--central_wave",
        unit="A, air",
        metavar="WAVE",
    )
    wavelength_bin: float = option(
        10.0,
        checks.as_positive,
        "half-width of the collapse window",
        "-wb",
        "--wavelength_bin",
        unit="A",
        metavar="WIDTH",
    )
    reduce_eng: bool = option(False, checks.as_flag, "reduce engineering frames as science", "-re", "--reduce_eng")
    reduce_flt: bool = option(False, checks.as_flag, "reduce internal flats as science", "-rf", "--reduce_flt")
    reduce_drk: bool = option(False, checks.as_flag, "reduce darks as science", "-rd", "--reduce_drk")
    baseraw: str = option(
        "", checks.as_text, "folder that holds the raw nights (default: $PANACEA_BASERAW)", "--baseraw", metavar="DIR"
    )
    source_x: float | None = option(
        None,
        checks.optional(checks.as_number),
        "fixed source position along IFU x, with --source_y",
        "--source_x",
        unit="arcsec at the centre of the collapse window",
        metavar="X",
    )
    source_y: float | None = option(
        None,
        checks.optional(checks.as_number),
        "fixed source position along IFU y, with --source_x",
        "--source_y",
        unit="arcsec at the centre of the collapse window",
        metavar="Y",
    )
    sky_mode: str = option(
        "auto",
        checks.one_of(checks.SKY_MODES),
        "where the sky comes from: auto (fibres without an object), region, mask, exposure (another one), none "
        "(is subtracted); implied by --sky_region, --sky_mask, --sky_obsid",
        "--sky_mode",
        metavar="MODE",
    )
    sky_region: str = option(
        "",
        checks.as_region,
        "take the sky from here: circle(x,y,r), annulus(x,y,r_in,r_out), ellipse(x,y,a,b,angle), joined by +; "
        "such as annulus(0.5,-1,2.5,4)",
        "--sky_region",
        unit="IFU arcsec at the centre of the collapse window, deg from x to y",
        metavar="REGION",
    )
    sky_exclude: str = option(
        "",
        checks.as_region,
        "the object's region, never taken as sky, written as for --sky_region",
        "--sky_exclude",
        unit="IFU arcsec at the centre of the collapse window, deg",
        metavar="REGION",
    )
    sky_mask: str = option(
        "",
        checks.as_text,
        "sky fibres by number, 1 to 280 from the bottom of the image (1-20,35,101-140), or a FITS or text file of them",
        "--sky_mask",
        metavar="LIST|FILE",
    )
    sky_obsid: int | None = option(
        None,
        checks.optional(checks.as_count),
        "take the sky from this observation of the night, scaled",
        "--sky_obsid",
        metavar="N",
    )
    sky_exp: int | None = option(
        None, checks.optional(checks.as_count), "exposure of it (default: its first)", "--sky_exp", metavar="N"
    )
    sky_degree: int = option(
        0,
        checks.as_degree,
        "degree (0 to 3) along wavelength of the factor to the other exposure's sky",
        "--sky_degree",
        metavar="N",
    )
    sky_refine: str = option(
        "none",
        checks.one_of(checks.SKY_REFINEMENTS),
        "refine the sky: polynomial (its level by groups of fibres) or pca (residuals on sky lines)",
        "--sky_refine",
        metavar="HOW",
    )
    extraction: str = option(
        "psf",
        checks.one_of(checks.EXTRACTIONS),
        "spectrum of the source: psf (optimal, all of a point source's light), aperture (sum over a circle) or extended "
        "(sum over a region)",
        "--extraction",
        metavar="HOW",
    )
    aperture: float | None = option(
        None,
        checks.optional(checks.as_positive),
        "radius of the aperture (default: the source's FWHM)",
        "--aperture",
        unit="arcsec",
        metavar="RADIUS",
    )
    no_aperture_correction: bool = option(
        False, checks.as_flag, "do not correct the aperture for light outside of it", "--no_aperture_correction"
    )
    extract_region: str = option(
        "",
        checks.as_region,
        "region of --extraction extended, written as for --sky_region (default: fibres brighter than a tenth of the peak)",
        "--extract_region",
        unit="IFU arcsec at the centre of the collapse window, deg",
        metavar="REGION",
    )
    telluric: str = option(
        "none",
        checks.one_of(checks.TELLURIC),
        "correct the spectrum for the air's absorption: mean (a mean curve at the airmass) or standard (of the standard "
        "named by --standard_star_obsid)",
        "--telluric",
        metavar="HOW",
    )
    covariance: bool = option(
        False, checks.as_flag, "append the covariance of neighbouring elements to the multi file", "--covariance"
    )
    barycentric: bool = option(
        False,
        checks.as_flag,
        "combined spectra and cubes in the frame of the solar system's barycentre",
        "--barycentric",
    )
    vacuum: bool = option(
        False, checks.as_flag, "combined spectra and cubes on vacuum wavelengths instead of air", "--vacuum"
    )
    match_resolution: bool = option(
        False, checks.as_flag, "smooth all channels to one resolution before they are combined", "--match_resolution"
    )
    standard_star_date: str = option(
        "",
        checks.as_optional_date,
        "night of the standard whose response replaces the default, with --standard_star_obsid",
        "--standard_star_date",
        unit="YYYYMMDD",
        metavar="DATE",
    )
    standard_star_obsid: int | None = option(
        None, checks.optional(checks.as_count), "observation of that standard", "--standard_star_obsid", metavar="N"
    )
    output: str = option("runs", checks.as_text, "root of everything that is written", "--output", metavar="ROOT")
    tag: str = option("", checks.as_tag, "name of a variation, which gets its own folders", "--tag", metavar="NAME")
    overwrite: bool = option(
        False,
        checks.as_flag,
        "replace products of which this run has no record (of another run definition)",
        "--overwrite",
        action_only=True,
    )
    obsid: int | None = option(None, checks.optional(checks.as_count), "only this observation", "--obsid", metavar="N")
    exp: int | None = option(None, checks.optional(checks.as_count), "only this exposure of it", "--exp", metavar="N")
    first: bool = option(
        False, checks.as_flag, "only the first science exposure of each channel that is asked for", "--first"
    )
    cal_dates: dict[str, str] = option(
        {},
        checks.as_cal_dates,
        "take calibrations of TYPE (zro, drk, twi, flt, cmp) from the night DATE; may be repeated",
        "--cal-date",
        metavar="TYPE=DATE",
        repeat=True,
    )
    exclude: tuple[int | str, ...] = option(
        (),
        checks.as_exclusions,
        "never use these observations (N, or YYYYMMDD:N of one night) as calibration; may be repeated",
        "--exclude",
        metavar="OBSID[,...]",
        repeat=True,
    )
    leave_out: tuple[str, ...] = option(
        (),
        checks.as_exposures,
        "do not reduce these science exposures (N, or N_expNN of one exposure); may be repeated",
        "--leave-out",
        metavar="OBSID[,...]",
        repeat=True,
    )
    dead_fibers: dict[str, str] = option(
        {},
        checks.as_fibers_by_channel,
        "switch these fibres off by hand, by number from 1 (uv=12-14,80); may be repeated",
        "--dead-fibers",
        metavar="CHANNEL=LIST",
        repeat=True,
    )
    drop_lines: dict[str, str] = option(
        {},
        checks.as_lines_by_channel,
        "leave arc lines out of the wavelength solution (uv=3650.2,4046.6); may be repeated",
        "--drop-lines",
        unit="A, air",
        metavar="CHANNEL=LIST",
        repeat=True,
    )
    cosmics_file: str = option(
        "",
        checks.as_text,
        "pixels that are, or are not, hit by cosmic rays, marked by hand (written by notebooks/interactive_checks.ipynb)",
        "--cosmics-file",
        metavar="FILE",
    )
    jobs: int | None = option(
        None,
        checks.optional(checks.as_count),
        "notebooks run at the same time; 0: one by one in this process (default: as many as cores and memory hold)",
        "--jobs",
        metavar="N",
        action_only=True,
    )
    site: str = option(
        "local",
        checks.as_text,
        "where it runs: a site by name (panacea-nb sites) or a file of your own",
        "--site",
        metavar="NAME|FILE.yaml",
        action_only=True,
    )
    nodes: int | None = option(
        None,
        checks.optional(checks.as_count),
        "nodes to use (default: those of the batch job, else the site's), or pilot jobs at most",
        "--nodes",
        metavar="N",
        action_only=True,
    )
    pilot: bool = option(
        False,
        checks.as_flag,
        "drive from here, workers in batch jobs of their own (only where a long process on this machine is allowed)",
        "--pilot",
        action_only=True,
    )
    group: str = option(
        "",
        checks.as_text,
        "group of users that may read the products; a programme's folder may be given another by hand (chgrp)",
        "--group",
        metavar="GROUP",
        action_only=True,
    )
    until: str = option(
        "", checks.as_text, "stop after this stage (04, 04_flat or flat)", "--until", metavar="STAGE", action_only=True
    )
    redo: tuple[str, ...] = option(
        (),
        checks.as_texts,
        "run this stage and what depends on it even if up to date; may be repeated",
        "--redo",
        metavar="STAGE",
        repeat=True,
        action_only=True,
    )
    thorough: bool = option(
        False, checks.as_flag, "read every finished file again before it is trusted", "--thorough", action_only=True
    )
    force: bool = option(
        False,
        checks.as_flag,
        "go on past a quality gate that would stop a branch (recorded in every product)",
        "--force",
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            try:
                setattr(self, item.name, item.metadata["check"](value))
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
                why = error if isinstance(error, ValueError) else "is not a value that it can have"
                raise DefinitionError(f"{flag_of(item)}: {str(shown)!r} {why}") from None
        self._check_together()

    def _check_together(self) -> None:
        if not self.night:
            raise DefinitionError("no night was given: name it with -d YYYYMMDD")
        if (self.source_x is None) != (self.source_y is None):
            missing = "--source_y" if self.source_y is None else "--source_x"
            raise DefinitionError(f"--source_x and --source_y go together: {missing} is missing")
        if bool(self.standard_star_date) != (self.standard_star_obsid is not None):
            missing = "--standard_star_obsid" if self.standard_star_date else "--standard_star_date"
            raise DefinitionError(f"--standard_star_date and --standard_star_obsid go together: {missing} is missing")
        self._check_sky()
        self._check_extraction()
        if self.exp is not None and self.obsid is None:
            raise DefinitionError("--exp names one exposure of an observation: give --obsid with it")
        if self.exp == 0:
            raise DefinitionError("--exp: exposures are counted from 1")
        if self.nodes == 0:
            raise DefinitionError("--nodes: at least one is needed")

    def _check_sky(self) -> None:
        """The mode of the sky and what it needs go together; what is given alone implies the mode."""
        given = {"region": self.sky_region, "mask": self.sky_mask, "exposure": self.sky_obsid is not None}
        flags = {"region": "--sky_region", "mask": "--sky_mask", "exposure": "--sky_obsid"}
        asked = [mode for mode, value in given.items() if value]
        if len(asked) > 1:
            raise DefinitionError(f"{' and '.join(flags[mode] for mode in asked)} exclude each other: give one")
        if asked and self.sky_mode == "auto":
            self.sky_mode = asked[0]
        if asked and self.sky_mode != asked[0]:
            raise DefinitionError(f"{flags[asked[0]]} is for --sky_mode {asked[0]}, not {self.sky_mode}")
        if self.sky_mode in flags and not asked:
            raise DefinitionError(f"--sky_mode {self.sky_mode} needs {flags[self.sky_mode]}")
        if self.sky_exp is not None and self.sky_obsid is None:
            raise DefinitionError("--sky_exp names one exposure of an observation: give --sky_obsid with it")
        if self.sky_exp == 0:
            raise DefinitionError("--sky_exp: exposures are counted from 1")

    def _check_extraction(self) -> None:
        if self.extraction != "aperture" and (self.aperture is not None or self.no_aperture_correction):
            flag = "--no_aperture_correction" if self.aperture is None else "--aperture"
            raise DefinitionError(f"{flag} is for --extraction aperture, not {self.extraction}")
        if self.extraction != "extended" and self.extract_region:
            raise DefinitionError(f"--extract_region is for --extraction extended, not {self.extraction}")
        if self.telluric == "standard" and self.standard_star_obsid is None:
            raise DefinitionError("--telluric standard needs --standard_star_date and --standard_star_obsid")

    @property
    def sky_mask_file(self) -> Path | None:
        """The file that --sky_mask names, when it is no list of fibres."""
        named = bool(self.sky_mask) and not re.fullmatch(r"[\d,\s-]+", self.sky_mask)
        return Path(self.sky_mask).expanduser().absolute() if named else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of the frames that are reduced as science."""
        asked = (("eng", self.reduce_eng), ("flt", self.reduce_flt), ("drk", self.reduce_drk))
        return tuple(kind for kind, wanted in asked if wanted) or ("sci",)

    # --- YAML ---------------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """All options as plain YAML values, defaults included."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def to_yaml(self) -> str:
        """The definition as YAML text that `from_yaml` reads back to an equal definition."""
        head = "# What this run was asked to do. Repeat it with: panacea-nb reduce --config run.yaml\n"
        return head + yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "the run definition") -> RunDefinition:
        """A definition from names and values; unknown names are refused.

        Raises
        ------
        DefinitionError
            If a name is unknown or a value is not allowed.
        """
        return cls(**check_names(values, where))

    @classmethod
    def from_yaml(cls, path: Path) -> RunDefinition:
        """The definition in a YAML file."""
        return cls.from_dict(read_yaml(path), where=str(path))

    def write(self, path: Path) -> None:
        """Write the definition as YAML, in one step."""
        files.write_text(path, self.to_yaml())


def flag_of(item: dataclasses.Field) -> str:
    """The option as users type it, long form."""
    return item.metadata["flags"][-1]


def check_names(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with every name brought to that of a field; a name that is none is refused with the nearest one."""
    by_name = {item.name: item.name for item in dataclasses.fields(RunDefinition)}
    by_name |= {flag_of(item).lstrip("-").replace("-", "_"): item.name for item in dataclasses.fields(RunDefinition)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = by_name.get(str(key).replace("-", "_"))
        if name is None:
            near = difflib.get_close_matches(str(key), by_name, n=1)
            hint = (
                f" (did you mean {near[0]!r}?)" if near else f"; options are {', '.join(sorted(set(by_name.values())))}"
            )
            raise DefinitionError(f"{where}: unknown option {str(key)!r}{hint}")
        if name in checked:
            raise DefinitionError(f"{where}: option {name!r} is given twice")
        checked[name] = value
    return checked
