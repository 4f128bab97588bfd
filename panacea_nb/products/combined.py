"""Products of a target over exposures, channels and nights: what is read, and the combined spectrum and cube."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..decisions import Decision
from ..errors import PanaceaError
from ..instrument import CHANNELS
from ..instrument import channel as find_channel
from ..reduce.combine import Combined, Part
from ..reduce.combinedcube import COMMON_WAVE, CombinedCube, FiberField
from ..reduce.refraction import Refraction, scaled_path
from .checked import open_checked
from .digest import content_digest
from .headers import FLUX_UNIT, provenance_cards, put, spectral_axis
from .layout import Layout
from .session import Task

ROWS = ("wavelength", "F_lambda", "e_F_lambda", "Sky_lambda", "telluric")
_NAME = re.compile(r"(?:(?P<night>\d{8}):)?(?P<channel>[a-z]+)/(?P<obsid>\d+)_exp(?P<exp>\d+)")
_PRODUCT = re.compile(r"(?P<night>\d{8})_(?P<obsid>\d+)_exp(?P<exp>\d+)_(?P<channel>[a-z]+)")
_KEPT = ("OBJECT", "QOBJECT", "QPROG", "QRA", "QDEC", "DATE")
_CELESTIAL = re.compile(r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CNAME)[12]I?|PC[12]_[12]I?|RADESYS|EQUINOX|CONVENTN")
_ARM = {"B": "orange", "R": "red"}  # the channel of each arm that measures at COMMON_WAVE
ALIGNED = {"source": "its source", "channel": "the source in the other channel", "sky": "sky coordinates"}


class NothingToCombineError(PanaceaError):
    """None of the exposures has products that could be combined."""


def _places(task: Task, names: Iterable[str]):
    """(layout, channel, obsid, exposure) of what was named; each once, from the blue to the red and in the order of time."""
    found = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None or match["channel"] not in CHANNELS:
            raise NothingToCombineError(
                f"{name!r} names no exposure: write channel/obsid_expNN as in orange/0000012_exp01, of another night "
                "20250116:orange/0000012_exp01"
            )
        key = (
            list(CHANNELS).index(match["channel"]),
            match["night"] or task.layout.night,
            int(match["obsid"]),
            int(match["exp"]),
        )
        found.append((key, match["channel"]))
    for (_, night, obsid, exp), channel in sorted(set(found)):
        layout = task.layout if night == task.layout.night else Layout(task.layout.output, night, task.layout.tag)
        yield layout, channel, obsid, exp


def read(task: Task, names: Iterable[str]) -> tuple[list[Part], list[FiberField], list[fits.Header]]:
    """Spectra and fibres of the named exposures, and their primary headers.

    Parameters
    ----------
    names : ``channel/obsid_expNN``, those of another night with ``YYYYMMDD:`` before

    Raises
    ------
    NothingToCombineError, MissingInputError
    """
    parts, fields, headers = [], [], []
    for layout, channel, obsid, exp in _places(task, names):
        path = task.input(layout.multi(task.program or "", obsid, exp, channel))
        with open_checked(path) as hdus:
            head = hdus[0].header.copy()
            skysub, error, places = (hdus[i].data.astype(float) for i in (2, 3, 5))
            lsf = hdus["lsf"].data
        spectrum = task.input(layout.spectrum(task.program or "", obsid, exp, channel))
        for one in (path, spectrum):
            task.inputs[one.name] = content_digest(one)
        part = _part(
            Table.read(spectrum, hdu="SPECTRUM"),
            head,
            lsf[(error > 0).any(axis=1)],
            (layout.night, channel, obsid, exp),
        )
        parts.append(part)
        fields.append(_field(part, head, skysub, error, places))
        headers.append(head)
    if not parts:
        raise NothingToCombineError(
            "no exposure of this target was reduced, so there is nothing to combine: "
            f"panacea-nb status -d {task.layout.night} says why"
        )
    return parts, fields, headers


def _part(table: Table, head: fits.Header, lsf: np.ndarray, which: tuple[str, str, int, int]) -> Part:
    night, channel, obsid, exp = which
    names = ("wavelength", "flux", "uncertainty", "sky", "sky_uncertainty")
    columns = [np.asarray(table[name], float) for name in names]
    size = columns[0].size
    telluric = np.asarray(table["telluric"], float) if "telluric" in table.colnames else np.ones(size)
    sigma = np.median(lsf, axis=0).astype(float) if lsf.size else np.full(size, 1e-3)
    return Part(
        channel, obsid, exp, *columns, telluric, sigma, float(head.get("BARYCORR", 0.0)), float(head.get("EXPTIME", 0.0)), night,
        tuple(float(head.get(f"CORR{k}", 0.0)) for k in (1, 2, 3)),
    )  # fmt: skip


def _refraction(channel: str) -> Refraction:
    table = find_channel(channel).refraction()
    return Refraction(*(np.asarray(table[name], float) for name in ("wavelength", "x", "y")))


def _field(part: Part, head: fits.Header, skysub: np.ndarray, error: np.ndarray, places: np.ndarray) -> FiberField:
    home = _refraction(_ARM[find_channel(part.channel).arm])
    source = (head["SOURCEX"], head["SOURCEY"], head["SOURCEW"]) if "SOURCEX" in head else None
    snr = head.get("SNR", 0.0)
    seen = scaled_path(float(head.get("ADRSCALE", 1.0)), float(head.get("ADRTURN", 0.0)))
    path = _refraction(part.channel).changed(*seen)
    return FiberField(
        part.name, part.wave, skysub, error, places[:, :2], places[:, 4:6], path, source,
        exposure=f"{part.night}-{part.obsid}-{part.exp}-{find_channel(part.channel).arm}",
        home=tuple(float(np.interp(COMMON_WAVE, home.wavelength, t)) for t in (home.x, home.y)),
        snr=float(snr) if not isinstance(snr, str) else 0.0, velocity=part.velocity, sigma=part.sigma,
        correlation=part.correlation,
    )  # fmt: skip


def with_source(parts: list[Part]) -> tuple[list[Part], list[Decision]]:
    """The parts in which a source was extracted, and a decision that names the others."""
    found = [(part.error > 0).any() for part in parts]
    without = [part.name for part, there in zip(parts, found, strict=True) if not there]
    text = f"no source was found in {', '.join(without)}: not part of the combined spectrum"
    kept = [part for part, there in zip(parts, found, strict=True) if there]
    return kept, [Decision("NOSOURCE", text, "warn")] if without else []


def missing(expected: int, parts: list[Part]) -> tuple[int, list[Decision]]:
    """How many exposures x channels of the target could not be reduced, and the decision to go on without them."""
    count = max(expected - len(parts), 0)
    nights = " and ".join(f"-d {night}" for night in sorted({part.night for part in parts}))
    text = (
        f"combined without {count} of {expected} exposures x channels of the target, which were not reduced: "
        f"panacea-nb status {nights} says which and why"
    )
    return count, [Decision("MISSING", text, "warn")] if count else []


def scaled_fields(fields: list[FiberField], result: Combined | None) -> list[FiberField]:
    """The fields with the factors of their spectra, without those whose spectrum shows another object."""
    if result is None:
        return fields
    kept = [field for field in fields if field.name not in result.left_out]
    return [replace(field, scale=result.scales.get(field.name, 1.0)) for field in kept]


def frame_cards(parts: list[Part], sigma: float, *, barycentric: bool, vacuum: bool) -> list[tuple]:
    """What was done to the wavelengths and to the resolution, truly."""
    velocities = [part.velocity for part in parts]
    cards = [
        ("SPECSYS", "BARYCENT" if barycentric else "TOPOCENT", "frame of the wavelengths"),
        ("VELAPPL", barycentric, "velocity correction applied"),
        ("BARYCORR", round(float(np.mean(velocities)), 4), "[km/s] mean barycentric correction"),
        ("BARYSPAN", round(float(np.ptp(velocities)), 4), "[km/s] its range over the exposures"),
        ("AIRORVAC", "vacuum" if vacuum else "air", "medium of the wavelengths"),
        ("RESMATCH", sigma > 0, "smoothed to one resolution"),
    ]
    return cards + ([("LSFSIGMA", round(sigma, 4), "[A] sigma of a line")] if sigma > 0 else [])


def cards(
    task: Task, parts: list[Part], factors: dict[str, float], header: fits.Header, frame: list[tuple], parameters: dict
):
    """Cards that all combined products share; ``parts`` and ``factors`` of the product they are for."""
    made = [(name, header[name], "of the first exposure") for name in _KEPT if name in header]
    made += [
        ("TARGET", task.target or "", "name of the target in file names"),
        ("NCOMBINE", len(parts), "exposures x channels"),
    ]
    for i, part in enumerate(parts, start=1):
        made += [
            (f"PART{i}", part.name, "night, observation, exposure, channel"),
            (f"SCALE{i}", round(float(factors.get(part.name, 1.0)), 5), "factor of its flux"),
            (f"EXPT{i}", part.exptime, "[s] exposure time"),
            (f"BARYC{i}", part.velocity, "[km/s] barycentric correction"),
        ]
    relative = task.layout.relative(task.notebook)
    return made + frame + provenance_cards(task.stage, relative, task.decisions, task.inputs, parameters)


def path(task: Task, parts: list[Part], ending: str) -> Path:
    """Where a combined product goes; its name has the nights that it is made of."""
    nights = sorted({part.night for part in parts})
    dates = nights[0] if len(nights) == 1 else f"{nights[0]}-{nights[-1]}"
    return task.layout.combined(task.program or "", task.target or "", ending, dates)


def _axis(wave: np.ndarray, vacuum: bool) -> list[tuple]:
    own = {"CTYPE1": ("WAVE", "wavelength in vacuum")} if vacuum else {}
    kept = [card for card in spectral_axis(wave) if card[0] != "SPECSYS"]
    return [(name, *own[name]) if name in own else (name, *rest) for name, *rest in kept]


def _frame_of(common: list[tuple]) -> list[tuple]:
    return [card for card in common if card[0] in ("SPECSYS", "AIRORVAC", "VELAPPL")]


def _correlation(by_name: dict[str, float]) -> list[tuple]:
    """Correlation of the errors of neighbours along wavelength, by channel."""
    found = {name.rpartition("_")[2]: value for name, value in by_name.items()}
    return [
        (f"CORR-{name[:3].upper()}", round(value, 4), f"correlation of neighbours, {name}")
        for name, value in found.items()
    ]


def spectrum_file(result: Combined, common: list[tuple], *, vacuum: bool) -> fits.HDUList:
    """Rows wavelength, flux, error, sky, telluric in the primary array; what was measured, as a table with units."""
    rows = [result.wave, result.flux, result.error, result.sky, result.telluric]
    primary = fits.PrimaryHDU(np.vstack(rows))
    put(primary.header, _axis(result.wave, vacuum))
    put(primary.header, [(f"ROW{i}", name, "") for i, name in enumerate(ROWS, start=1)])
    put(
        primary.header, [*_correlation({part.name: result.correlation[part.channel] for part in result.parts}), *common]
    )
    columns = [
        ("wavelength", result.wave, "Angstrom"), ("flux", result.flux, FLUX_UNIT), ("uncertainty", result.error, FLUX_UNIT),
        ("sky", result.sky, FLUX_UNIT), ("sky_uncertainty", result.sky_error, FLUX_UNIT), ("telluric", result.telluric, None),
    ]  # fmt: skip
    good = result.error > 0  # no gaps in the table: programs take an error of 0 for a perfect measurement
    made = [fits.Column(name=n, format="D", unit=u, array=np.asarray(a, float)[good]) for n, a, u in columns]
    made.append(fits.Column(name="count", format="I", array=result.count[good]))
    table = fits.BinTableHDU.from_columns(made, name="SPECTRUM")
    put(table.header, _frame_of(common))
    return fits.HDUList([primary, table])


def spectrum_text(result: Combined, frame: list[tuple]) -> str:
    """The combined spectrum as plain columns, for other programs."""
    table = Table(
        [result.wave, result.flux, result.error, result.sky, result.telluric],
        names=("wavelength", "flux", "uncertainty", "sky", "telluric"),
    )
    for name, form in zip(table.colnames, (".2f", ".6e", ".6e", ".6e", ".5f"), strict=True):
        table[name].format = form
    buffer = io.StringIO()
    buffer.write("".join(f"# {name} = {value}\n" for name, value, *_ in frame))
    buffer.write(f"# wavelength [Angstrom]; flux, uncertainty, sky [{FLUX_UNIT}]; uncertainty 0: not measured\n")
    table.write(buffer, format="ascii.commented_header")
    return buffer.getvalue()


def cube_file(task: Task, made: CombinedCube, common: list[tuple], *, vacuum: bool) -> fits.HDUList:
    """The combined cube (wave, y, x) on the spaxels of the first field, and its error."""
    sky = fits.getheader(task.input(_skysub_cube(task, made.first.name)))
    axes = [(c.keyword, c.value, c.comment) for c in sky.cards if _CELESTIAL.fullmatch(c.keyword)]
    spectral = [(name.replace("1", "3"), *rest) for name, *rest in _axis(made.wave, vacuum)]
    spectral += [(f"{name}I", *rest) for name, *rest in spectral]
    primary, second = fits.PrimaryHDU(made.flux), fits.ImageHDU(made.error)
    for hdu, kind in ((primary, "flux"), (second, "error")):
        put(hdu.header, [("WCSAXES", 3, ""), ("WCSAXESI", 3, ""), *axes, *spectral])
        put(hdu.header, [("BUNIT", FLUX_UNIT, "per spaxel"), ("CUBEKIND", kind, "flux or error"), *_frame_of(common)])
    source = made.first.source
    facts = [("AXESFROM", made.first.name, "its IFU axes are those of the cube")]
    if source is not None:
        facts += [
            ("SOURCEX", source[0], "[arcsec] IFU x of the source, all wavelengths"),
            ("SOURCEY", source[1], "[arcsec] IFU y"),
        ]
    for i, (name, how) in enumerate(made.aligned.items(), start=1):
        facts += [(f"FIELD{i}", name, ""), (f"ALIGN{i}", ALIGNED[how], "what aligned it")]
    facts += [("SUMFACT", round(made.sum_factor, 3), "error of a large sum over root sum of squares")]
    facts += _correlation(made.correlation)
    put(primary.header, facts + common)
    second.header["EXTNAME"] = "ERROR"
    return fits.HDUList([primary, second])


def _skysub_cube(task: Task, name: str) -> Path:
    match = _PRODUCT.fullmatch(name)
    assert match is not None
    layout = Layout(task.layout.output, match["night"], task.layout.tag)
    return layout.cube(task.program or "", int(match["obsid"]), int(match["exp"]), match["channel"], "skysub")
