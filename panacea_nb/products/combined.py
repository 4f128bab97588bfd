"""Products of a target over exposures, channels and nights: what is read, and the combined spectrum and cube."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..decisions import Decision
from ..errors import PanaceaError
from ..instrument import channel as find_channel
from ..reduce.combine import Combined, Part
from ..reduce.combinedcube import FiberField
from ..reduce.source import Refraction
from .digest import content_digest
from .headers import FLUX_UNIT, provenance_cards, put, spectral_axis
from .layout import Layout
from .session import Task

ROWS = ("wavelength", "F_lambda", "e_F_lambda", "Sky_lambda", "telluric")
_NAME = re.compile(r"(?:(?P<night>\d{8}):)?(?P<channel>[a-z]+)/(?P<obsid>\d+)_exp(?P<exp>\d+)")
_KEPT = ("OBJECT", "QOBJECT", "QPROG", "QRA", "QDEC", "DATE")
_CELESTIAL = re.compile(r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CNAME)[12]I?|PC[12]_[12]I?|RADESYS|EQUINOX|CONVENTN")


class NothingToCombineError(PanaceaError):
    """None of the exposures has products that could be combined."""


def _places(task: Task, names: Iterable[str]):
    """(layout, channel, obsid, exposure) of what was named."""
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise NothingToCombineError(
                f"{name!r} names no exposure: write channel/obsid_expNN as in orange/0000012_exp01, of another night "
                "20250116:orange/0000012_exp01"
            )
        layout = task.layout
        if match["night"]:
            layout = Layout(layout.output, match["night"], layout.tag)
        yield layout, match["channel"], int(match["obsid"]), int(match["exp"])


def read(task: Task, names: Iterable[str]) -> tuple[list[Part], list[FiberField], fits.Header]:
    """Spectra and fibres of the named exposures, and the primary header of the first.

    Parameters
    ----------
    names : ``channel/obsid_expNN``, those of another night with ``YYYYMMDD:`` before

    Raises
    ------
    NothingToCombineError, MissingInputError
    """
    parts, fields, header = [], [], None
    for layout, channel, obsid, exp in _places(task, names):
        path = task.input(layout.multi(task.program or "", obsid, exp, channel))
        with fits.open(path, memmap=False) as hdus:
            head = hdus[0].header
            header = head.copy() if header is None else header
            skysub, error, places = (hdus[i].data.astype(float) for i in (2, 3, 5))
            lsf = hdus["lsf"].data
        table = Table.read(task.input(layout.spectrum(task.program or "", obsid, exp, channel)), hdu="SPECTRUM")
        task.inputs[path.name] = content_digest(path)
        living = (error > 0).any(axis=1)
        wave = np.asarray(table["wavelength"], float)
        column = {name: np.asarray(table[name], float) for name in ("flux", "uncertainty", "sky", "sky_uncertainty")}
        telluric = np.asarray(table["telluric"], float) if "telluric" in table.colnames else np.ones(wave.size)
        parts.append(
            Part(
                channel, obsid, exp, wave, column["flux"], column["uncertainty"], column["sky"], column["sky_uncertainty"],
                telluric, np.median(lsf[living], axis=0).astype(float) if living.any() else np.full(wave.size, 2.0),
                float(head.get("BARYCORR", 0.0)), float(head.get("EXPTIME", 0.0)),
            )
        )  # fmt: skip
        path_of_light = find_channel(channel).refraction()
        refraction = Refraction(*(np.asarray(path_of_light[n], float) for n in ("wavelength", "x", "y")))
        source = (head["SOURCEX"], head["SOURCEY"], head["SOURCEW"]) if "SOURCEX" in head else None
        fields.append(
            FiberField(
                parts[-1].name,
                wave,
                skysub,
                error,
                places[:, :2],
                places[:, 4:6],
                refraction,
                source,
                velocity=parts[-1].velocity,
            )
        )
    if not parts:
        raise NothingToCombineError("no exposure of this target was reduced, so there is nothing to combine")
    return parts, fields, header


def with_source(parts: list[Part]) -> tuple[list[Part], list[Decision]]:
    """The parts in which a source was extracted, and a decision that names the others."""
    kept = [part for part in parts if (part.error > 0).any()]
    without = [part.name for part in parts if part not in kept]
    text = f"no source was found in {', '.join(without)}: not part of the combined spectrum"
    return kept, [Decision("NOSOURCE", text, "warn")] if without else []


def scaled_fields(fields: list[FiberField], result: Combined | None) -> list[FiberField]:
    """The fields with the factors of their spectra; the one with most signal first, for it gives the axes."""
    factors = result.scales if result is not None else {}
    made = [replace(field, scale=factors.get(field.name, 1.0)) for field in fields]
    return sorted(made, key=lambda field: field.source is None)


def frame_cards(result: Combined | None, *, barycentric: bool, vacuum: bool, matched: bool) -> list[tuple]:
    """What was done to the wavelengths and to the resolution, truly."""
    velocities = [part.velocity for part in result.parts] if result is not None else [0.0]
    return [
        ("SPECSYS", "BARYCENT" if barycentric else "TOPOCENT", "frame of the wavelengths"),
        ("VELAPPL", barycentric, "velocity correction applied"),
        ("BARYCORR", float(np.mean(velocities)), "[km/s] mean barycentric correction"),
        ("BARYSPAN", float(np.ptp(velocities)), "[km/s] its range over the exposures"),
        ("AIRORVAC", "vacuum" if vacuum else "air", "medium of the wavelengths"),
        ("RESMATCH", matched, "smoothed to one resolution"),
    ]


def cards(
    task: Task, result: Combined | None, header: fits.Header, frame: list[tuple], parameters: dict
) -> list[tuple]:
    """Cards that all combined products share."""
    made = [(name, header[name], "of the first exposure") for name in _KEPT if name in header]
    made += [("TARGET", task.target or "", "")]
    for i, (name, factor) in enumerate((result.scales if result is not None else {}).items(), start=1):
        made += [(f"PART{i}", name, ""), (f"SCALE{i}", round(float(factor), 5), "factor of its flux")]
    made += frame
    relative = task.layout.relative(task.notebook)
    return made + provenance_cards(task.stage, relative, task.decisions, task.inputs, parameters)


def _axis(wave: np.ndarray, vacuum: bool) -> list[tuple]:
    own = {"CTYPE1": ("WAVE", "wavelength in vacuum")} if vacuum else {}
    kept = [card for card in spectral_axis(wave) if card[0] != "SPECSYS"]
    return [(name, *own[name]) if name in own else (name, *rest) for name, *rest in kept]


def spectrum_file(result: Combined, common: list[tuple], *, vacuum: bool) -> fits.HDUList:
    """Rows wavelength, flux, error, sky, telluric in the primary array; and all of it as a table with units."""
    rows = [result.wave, result.flux, result.error, result.sky, result.telluric]
    primary = fits.PrimaryHDU(np.vstack(rows))
    put(primary.header, _axis(result.wave, vacuum))
    put(primary.header, [(f"ROW{i}", name, "") for i, name in enumerate(ROWS, start=1)])
    put(primary.header, [("CORR1", round(result.correlation, 4), "correlation of neighbouring errors"), *common])
    columns = [
        ("wavelength", result.wave, "Angstrom"), ("flux", result.flux, FLUX_UNIT), ("uncertainty", result.error, FLUX_UNIT),
        ("sky", result.sky, FLUX_UNIT), ("sky_uncertainty", result.sky_error, FLUX_UNIT), ("telluric", result.telluric, None),
    ]  # fmt: skip
    made = [fits.Column(name=n, format="D", unit=u, array=np.asarray(a, float)) for n, a, u in columns]
    made.append(fits.Column(name="count", format="I", array=result.count))
    table = fits.BinTableHDU.from_columns(made, name="SPECTRUM")
    put(table.header, [card for card in common if card[0] in ("SPECSYS", "AIRORVAC", "VELAPPL")])
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


def cube_file(
    task: Task,
    first: FiberField,
    cube: np.ndarray,
    error: np.ndarray,
    wave: np.ndarray,
    common: list[tuple],
    *,
    vacuum: bool,
) -> fits.HDUList:
    """The combined cube (wave, y, x) on the spaxels of the first field, and its error."""
    obsid, exp, channel = re.fullmatch(r"(\d+)_exp(\d+)_(\w+)", first.name).groups()  # type: ignore[union-attr]
    path = task.layout.cube(task.program or "", int(obsid), int(exp), channel, "skysub")
    sky = fits.getheader(path) if path.is_file() else fits.Header()
    axes = [(c.keyword, c.value, c.comment) for c in sky.cards if _CELESTIAL.fullmatch(c.keyword)]
    spectral = [(name.replace("1", "3"), *rest) for name, *rest in _axis(wave, vacuum)]
    primary, second = fits.PrimaryHDU(cube), fits.ImageHDU(error)
    for hdu, kind in ((primary, "flux"), (second, "error")):
        put(
            hdu.header,
            [("WCSAXES", 3, ""), *axes, *spectral, ("BUNIT", FLUX_UNIT, "per spaxel"), ("CUBEKIND", kind, "")],
        )
    put(second.header, [card for card in common if card[0] in ("SPECSYS", "AIRORVAC", "VELAPPL")])
    put(primary.header, common)
    second.header["EXTNAME"] = "ERROR"
    return fits.HDUList([primary, second])
