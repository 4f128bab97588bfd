"""The response of a standard star, as a product."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from ..decisions import Decision
from ..errors import PanaceaError
from ..instrument import Standard, find_standard, mean_telluric
from ..instrument import channel as find_channel
from ..reduce.flux import BEYOND_ERROR, Response, standard_response
from ..reduce.telluric import Transmission, measured_transmission
from .checked import open_checked
from .headers import provenance_cards, put, spectral_axis
from .session import Task

MUCH_MISSING = 0.2  # of a channel, that a table does not reach


class NoStandardError(PanaceaError):
    """The exposure is no standard with published magnitudes, or shows no star."""


def read(task: Task) -> tuple[Standard, fits.HDUList]:
    """The standard that an exposure observed, and its spectrum file in memory.

    Raises
    ------
    NoStandardError
    """
    path = task.input(task.layout.spectrum(task.program, task.obsid, task.exposure, task.channel))
    with open_checked(path) as hdus:
        copy = fits.HDUList([hdu.copy() for hdu in hdus])
    star = find_standard(str(copy[0].header.get("OBJECT", "")))
    if star is None or not star.has_table:
        raise NoStandardError(
            f"{path.name}: OBJECT {copy[0].header.get('OBJECT')!r} is no standard with published magnitudes"
        )
    if "SOURCEX" not in copy[0].header:
        obsid, exp = int(task.obsid or 0), int(task.exposure or 1)
        raise NoStandardError(
            f"{path.name}: no source was found, so there is nothing to compare with {star.name} and no response is made from it: "
            f"give the star's place with --obsid {obsid} --exp {exp} --source_x X --source_y Y, or leave it out with "
            f"--leave-out {obsid}_exp{exp:02d}; other spectra are not affected"
        )
    return star, copy


def response(star: Standard, hdus: fits.HDUList) -> tuple[Response, Transmission]:
    """Response from the published flux and the extracted spectrum, and what the air let through in the telluric bands."""
    wave, flux, _, error, _, applied = hdus[0].data
    if "telluric" in hdus["SPECTRUM"].columns.names:  # corrected by a mean curve: back to what was seen
        seen = hdus["SPECTRUM"].data["telluric"]
        flux, error = flux * seen, error * seen
    facts = find_channel(str(hdus[0].header["CHANNEL"]))
    default = np.interp(wave, *facts.response())
    counts, sigma, published = flux / applied, error / applied, star.flux(wave, extrapolate=False)
    result = standard_response(wave, counts, sigma, published, default, star.interpolation_error(wave))
    return result, measured_transmission(wave, counts, sigma, published, result, mean_telluric(wave))


def table_end(star: Standard, wave: np.ndarray) -> list[Decision]:
    """What is said where the published magnitudes do not reach over the whole channel."""
    low, high = star.coverage
    missing = float(np.mean((wave < low) | (wave > high)))
    text = (
        f"the published magnitudes of {star.name} reach from {low:.0f} to {high:.0f} A: beyond ({100 * missing:.0f} % of the "
        f"channel) the response has the default's shape, uncertain by {100 * BEYOND_ERROR:.0f} %"
    )
    return [Decision("TABLEEND", text, "warn" if missing > MUCH_MISSING else "info")] if missing > 0 else []


def response_file(task: Task, star: Standard, result: Response, air: Transmission, airmass: float) -> fits.HDUList:
    """Rows: wavelength, response, error, ratio to the default; and an extension with the transmission of the air."""
    primary = fits.PrimaryHDU(np.vstack([result.wavelength, result.response, result.error, result.ratio]))
    rows = ("wavelength [Angstrom]", "response [erg ct-1]", "error [erg ct-1]", "ratio to the default")
    put(primary.header, spectral_axis(result.wavelength))
    put(primary.header, [(f"ROW{i}", text, "") for i, text in enumerate(rows, start=1)])
    cards = [
        ("CHANNEL", task.channel, ""), ("NIGHT", task.layout.night, ""), ("OBSID", task.obsid, ""), ("EXPNUM", task.exposure, ""),
        ("STANDARD", star.name, "standard star"), ("REFERENC", star.reference, ""), ("MAGTABLE", star.source, ""),
    ]  # fmt: skip
    put(primary.header, cards)
    put(
        primary.header,
        provenance_cards(task.stage, task.layout.relative(task.notebook), task.decisions, task.inputs, {}),
    )
    primary.header["EXTNAME"] = "response"
    telluric = fits.ImageHDU(np.vstack([result.wavelength, air.value, air.error]))
    rows = ("wavelength [Angstrom]", "transmission of the air", "its error")
    put(telluric.header, spectral_axis(result.wavelength))
    put(telluric.header, [(f"ROW{i}", text, "") for i, text in enumerate(rows, start=1)])
    put(telluric.header, [("AIRMASS", airmass, "at which it holds")])
    telluric.header["EXTNAME"] = "telluric"
    return fits.HDUList([primary, telluric])
