"""Headers of products: raw cards with their raw meaning, provenance, coordinates, units."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers

from .. import __version__
from ..decisions import Decision
from ..instrument import ZENITH_DISTANCE
from ..reduce.astrometry import Pointing, image_wcs
from ..reduce.maskbits import DESCRIPTIONS, DQ
from . import image

# Cards of one amplifier's detector frame that say nothing of a channel's product.
_DROPPED = frozenset(
    "SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 EXTEND BSCALE BZERO BLANK CHECKSUM DATASUM XTENSION PCOUNT GCOUNT GROUPS EXTNAME EXTVER "
    "CCDPOS CCDHALF AMPNAME BUNIT CTYPE1 CTYPE2 CRVAL1 CRVAL2 CRPIX1 CRPIX2 CDELT1 CDELT2 LONGSTRN COMMENT HISTORY END INHERIT "
    "WCSAXES CUNIT1 CUNIT2 CD1_1 CD1_2 CD2_1 CD2_2 PC1_1 PC1_2 PC2_1 PC2_2 EQUINOX RADESYS".split()
)
HET = EarthLocation.from_geodetic(
    lon=-104.01472 * u.deg, lat=30.68144 * u.deg, height=2026 * u.m
)  # HET site documentation
FLUX_UNIT = "erg s-1 cm-2 Angstrom-1"
ELECTRONS = "one ct is one electron"


def raw_cards(header: fits.Header) -> list[tuple]:
    """Cards of the raw primary that make sense for a product, values as they were."""
    cards = []
    for card in header.cards:
        name = card.keyword
        if not name or name in _DROPPED or "SEC" in name:
            continue
        value = card.value
        if isinstance(value, fits.card.Undefined) or (isinstance(value, float) and not math.isfinite(value)):
            continue
        cards.append((name, value, card.comment))
    return cards


def put(header: fits.Header, cards: Iterable[tuple]) -> None:
    """Set cards; text that FITS cannot hold is made plain, numbers that are not finite become text."""
    for name, value, *comment in cards:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            value = "undefined"
        if isinstance(value, str):
            value = "".join(c if " " <= c <= "~" else "?" for c in value)[:800]
        text = "".join(c if " " <= c <= "~" else "?" for c in str(comment[0]))[:47] if comment and comment[0] else ""
        if isinstance(value, str):
            # What a card of 80 characters leaves beside the name and the quoted value; longer text has cards of its own.
            room = 65 - max(len(value.replace("'", "''")), 8)
            text = text[: max(room, 0)] if room > -4 else text
        header[name] = (value, text) if text else value


def provenance_cards(
    stage: str, notebook: str, decisions: Iterable[Decision], inputs: dict[str, str], parameters: dict
) -> list[tuple]:
    """Cards that say how a product came about.

    Parameters
    ----------
    notebook : str
        Path of the executed notebook relative to the output root.
    inputs : dict
        Name -> digest of raw frames and calibrations.
    parameters : dict
        Parameters of the stage.
    """
    cards = [
        ("PIPELINE", "panacea_nb", "made by"),
        ("PNBVERS", __version__, "version of panacea_nb"),
        ("PNBSTAGE", stage, "stage that wrote this file"),
        ("NBPATH", notebook, "executed notebook, from the output root"),
        ("NBHASH", os.environ.get("PANACEA_NB_NOTEBOOK_HASH", "by hand")[:16], "source of the notebook, sha256"),
        ("IMGDIGST", image.digest(), "container image, told by the launcher"),
        ("DATE-RED", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "UTC at which this file was written"),
    ]
    for i, (name, digest) in enumerate(sorted(inputs.items()), start=1):
        cards.append((f"INPUT{i}", f"{name} {digest[:32]}", "input and its sha256"))
    for i, (name, value) in enumerate(sorted(parameters.items()), start=1):
        cards.append((f"PARAM{i}", f"{name}={value!r}", "parameter of the reduction"))
    fallbacks = [d for d in decisions if d.severity == "warn"]
    cards.append(("NFALLBK", len(fallbacks), "fallbacks taken, listed in FALLBKn"))
    for i, decision in enumerate(fallbacks[:99], start=1):
        cards.append((f"FALLBK{i}", f"{decision.code}: {decision.text}", "fallback"))
    return cards


def dq_cards() -> list[tuple]:
    """Names of the mask bits."""
    return [(f"DQBIT{int(np.log2(int(bit)))}", f"{bit.name}: {DESCRIPTIONS[bit.name]}"[:68], "") for bit in DQ]


def spectral_axis(grid: np.ndarray) -> list[tuple]:
    """Linear wavelength axis 1 (air)."""
    return [
        ("CTYPE1", "AWAV", "wavelength in air"),
        ("CUNIT1", "Angstrom", ""),
        ("CRPIX1", 1.0, ""),
        ("CRVAL1", float(grid[0]), "first wavelength"),
        ("CDELT1", float(grid[1] - grid[0]), "step"),
        ("SPECSYS", "TOPOCENT", "no barycentric correction applied"),
    ]


def time_and_place(start: datetime, exptime: float, point: Pointing) -> list[tuple]:
    """MJD of mid-exposure, airmass at HET's fixed zenith distance, and the barycentric correction that was not applied."""
    middle = start + timedelta(seconds=exptime / 2)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        time = Time(middle, scale="utc")
        velocity = (
            SkyCoord(point.ra, point.dec, unit="deg")
            .radial_velocity_correction(obstime=time, location=HET)
            .to_value("km/s")
        )
    return [
        ("MJD-MID", round(float(time.mjd), 7), "middle of the exposure (UTC)"),
        ("AIRMASS", round(1 / math.cos(math.radians(ZENITH_DISTANCE)), 4), "at HET's zenith distance of 35 deg"),
        ("BARYCORR", round(float(velocity), 4), "barycentric correction [km/s], NOT applied"),
        ("VELAPPL", False, "velocity correction applied"),
    ]


def warm_up() -> None:
    """Have what these headers need of astropy looked up: units, coordinates, the Earth's orientation (half a second)."""
    point = Pointing(0.0, 0.0, 0.0, "panacea", "none")
    time_and_place(datetime(2025, 1, 1), 1.0, point)
    image_wcs(point, (0.0, 0.0), 0.0, 0.0, 1.0).to_header()
