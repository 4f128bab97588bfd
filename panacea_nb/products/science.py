"""The products of an exposure: multi, spectrum and cube files, exact in order, name and shape."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ..reduce.astrometry import Pointing, image_wcs
from ..reduce.cube import SPAXEL, Grid
from .headers import ELECTRONS, FLUX_UNIT, dq_cards, put, spectral_axis

SPECTRUM_ROWS = ("wavelength", "F_lambda", "Sky_lambda", "e_F_lambda", "e_Sky_lambda", "response")


@dataclass
class ExposureProducts:
    """Everything that the products of one exposure and channel hold.

    Attributes
    ----------
    grid : (nw,) [A, air]
    observed, sky, skysub, error : (nf, nw) [erg/s/cm2/A]; error 0 marks a bad element
    dq : (nf, nw) uint8
    positions : (nf, 6) ifu x, y, focal x, y [arcsec], ra, dec [deg]
    spectrum : (6, nw), rows `SPECTRUM_ROWS`
    adr : (3, n) wavelength, x, y
    bigw, image, flattened : (ny, nx); trace : (ny, nx) fibre number of each pixel; cosmics : (ny, nx)
    unrectified : (nf, nx) [e-/A]
    collapsed : (ny, nx) image; spaxels : its Grid
    lsf : (nf, nw) Gaussian sigma [A]
    correlation : (3,) of neighbouring rectified elements
    neighbours : (3, nf, nw) float32, the same element by element, or None; telluric : (nw,) transmission, or None
    raw : cards of the raw primary; cards : ours
    """

    grid: np.ndarray
    observed: np.ndarray
    sky: np.ndarray
    skysub: np.ndarray
    error: np.ndarray
    dq: np.ndarray
    positions: np.ndarray
    spectrum: np.ndarray
    adr: np.ndarray
    bigw: np.ndarray
    image: np.ndarray
    flattened: np.ndarray
    trace: np.ndarray
    cosmics: np.ndarray
    unrectified: np.ndarray
    collapsed: np.ndarray
    spaxels: Grid
    lsf: np.ndarray
    correlation: np.ndarray
    pointing: Pointing
    ifu_centre: tuple[float, float]
    raw: list[tuple] = field(default_factory=list)
    cards: list[tuple] = field(default_factory=list)
    neighbours: np.ndarray | None = None
    telluric: np.ndarray | None = None


def _image(data: np.ndarray, name: str, unit: str = "", comment: str = "") -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.ascontiguousarray(data))
    hdu.header["EXTNAME"] = name  # as it is: the argument of ImageHDU would be put in capitals
    if unit:
        hdu.header["BUNIT"] = (unit, ELECTRONS) if unit.startswith("ct") else unit
    if comment:
        hdu.header["CONTENT"] = comment
    return hdu


def _spectra(data: np.ndarray, name: str, products: ExposureProducts, unit: str = FLUX_UNIT) -> fits.ImageHDU:
    hdu = _image(data.astype(np.float32, copy=False), name, unit)
    put(hdu.header, spectral_axis(products.grid))
    put(
        hdu.header,
        [
            ("CTYPE2", "FIBER", "fibre, counted from the bottom of the image"),
            ("CRPIX2", 1.0, ""),
            ("CRVAL2", 1.0, ""),
            ("CDELT2", 1.0, ""),
        ],
    )
    return hdu


def celestial_cards(products: ExposureProducts) -> list[tuple]:
    """Celestial WCS of an image on the spaxel grid, and the IFU axes as alternate WCS ``I``."""
    x0, y0 = float(products.spaxels.x[0]), float(products.spaxels.y[0])
    wcs: WCS = image_wcs(products.pointing, products.ifu_centre, x0, y0, SPAXEL)
    cards = [
        (c.keyword, c.value, c.comment)
        for c in wcs.to_header().cards
        if c.keyword not in ("MJDREF", "LATPOLE", "LONPOLE")
    ]
    cards += [(f"CTYPE{i}I", f"IFU-{a}", "") for i, a in ((1, "X"), (2, "Y"))]
    cards += [(f"CUNIT{i}I", "arcsec", "") for i in (1, 2)]
    cards += [(f"CRPIX{i}I", 1.0, "") for i in (1, 2)]
    cards += [("CRVAL1I", x0, "IFU x of the first spaxel"), ("CRVAL2I", y0, "IFU y of the first spaxel")]
    cards += [(f"CDELT{i}I", SPAXEL, "") for i in (1, 2)]
    cards.append(("CONVENTN", products.pointing.convention, "turn of the IFU in the focal plane"))
    return cards


def multi_file(products: ExposureProducts) -> fits.HDUList:
    """The multi file: 14 extensions in the order that existing tools read by position, then ours."""
    p = products
    primary = fits.PrimaryHDU(p.observed.astype(np.float32, copy=False))
    put(primary.header, p.raw)
    spectra = _spectra(p.observed, "observed_spectra", p)
    for card in spectra.header.cards:
        if card.keyword.startswith(("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "BUNIT", "SPECSYS")):
            primary.header[card.keyword] = (card.value, card.comment)
    put(primary.header, p.cards)
    put(primary.header, dq_cards())
    put(
        primary.header,
        [
            (f"CORR{k + 1}", round(float(v), 4), f"correlation of errors at lag {k + 1}")
            for k, v in enumerate(p.correlation)
        ],
    )
    primary.header["EXTNAME"] = "observed_spectra"
    collapsed = _image(p.collapsed.astype(np.float32, copy=False), "collapsed_image", FLUX_UNIT)
    put(collapsed.header, celestial_cards(p))
    positions = _image(p.positions.astype(np.float64, copy=False), "fiber_positions")
    names = ("ifu_x [arcsec]", "ifu_y [arcsec]", "focal_x [arcsec]", "focal_y [arcsec]", "ra [deg]", "dec [deg]")
    put(positions.header, [(f"COL{i + 1}", n, "") for i, n in enumerate(names)])
    spectrum = _image(p.spectrum.astype(np.float64, copy=False), "extracted_spectrum")
    put(spectrum.header, row_cards())
    adr = _image(p.adr.astype(np.float64, copy=False), "adr")
    put(
        adr.header,
        [("ROW1", "wavelength [Angstrom]", ""), ("ROW2", "x_adr [arcsec]", ""), ("ROW3", "y_adr [arcsec]", "")],
    )
    hdus = [
        primary,
        _spectra(p.sky, "sky_spectra", p),
        _spectra(p.skysub, "skysub_spectra", p),
        _spectra(p.error, "error_spectra", p),
        collapsed,
        positions,
        spectrum,
        adr,
        _image(p.bigw.astype(np.float32, copy=False), "bigw", "Angstrom"),
        _image(p.image.astype(np.float32, copy=False), "image", "ct"),
        _image(p.flattened.astype(np.float32, copy=False), "flattened_image", "ct"),
        _image(p.trace.astype(np.int16, copy=False), "trace", "", "fibre number of each pixel, 1 to the last; 0 none"),
        _image(p.cosmics.astype(np.uint8, copy=False), "cosmics", "", "1: hit by a cosmic ray"),
        _image(p.unrectified.astype(np.float32, copy=False), "unrectified_spectra", "ct Angstrom-1"),
        _spectra(p.lsf, "lsf", p, "Angstrom"),
        _image(p.dq.astype(np.uint8, copy=False), "dq", "", "bits named in DQBITn of the primary header"),
    ]
    if p.neighbours is not None:
        hdus.append(_spectra(p.neighbours, "correlation", p, ""))
        put(
            hdus[-1].header,
            [("CTYPE3", "LAG", "elements apart"), ("CRPIX3", 1.0, ""), ("CRVAL3", 1.0, ""), ("CDELT3", 1.0, "")],
        )
    return fits.HDUList(hdus)


def row_cards() -> list[tuple]:
    """ROW1..ROW6 of a spectrum, bare names as clients compare them."""
    return [(f"ROW{i + 1}", name, "") for i, name in enumerate(SPECTRUM_ROWS)]


def spectrum_file(products: ExposureProducts) -> fits.HDUList:
    """The spectrum file: rows in the primary array, and the same as a table with units."""
    p = products
    primary = fits.PrimaryHDU(p.spectrum.astype(np.float64, copy=False))
    put(primary.header, p.raw)
    put(
        primary.header,
        [
            ("DWAVE", float(p.grid[1] - p.grid[0]), "step [A]"),
            ("WAVE0", float(p.grid[0]), "first wavelength [A]"),
            ("WAVESOL", "WAVE0 + DWAVE * linspace(0, NAXIS1)", ""),
            ("WAVEUNIT", "A", "air"),
            ("FLUXUNIT", "ergs/s/cm2/A", ""),
            *row_cards(),
            *p.cards,
        ],
    )
    units = {"wavelength": "Angstrom", "response": "erg ct-1"}
    names = ("wavelength", "flux", "sky", "uncertainty", "sky_uncertainty", "response")
    columns = [
        fits.Column(
            name=n, format="D", unit=units.get(n, FLUX_UNIT), array=p.spectrum[i].astype(np.float64, copy=False)
        )
        for n, i in (
            (n, names.index(n)) for n in ("wavelength", "flux", "uncertainty", "sky", "sky_uncertainty", "response")
        )
    ]
    if p.telluric is not None:
        columns.append(fits.Column(name="telluric", format="D", array=p.telluric.astype(np.float64, copy=False)))
    table = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
    put(table.header, [("SPECSYS", "TOPOCENT", "no barycentric correction applied"), ("AIRORVAC", "air", "")])
    return fits.HDUList([primary, table])


def cube_file(products: ExposureProducts, cube: np.ndarray, kind: str) -> fits.HDUList:
    """A data cube (wave, y, x) [erg/s/cm2/A per spaxel]."""
    p = products
    primary = fits.PrimaryHDU(cube.astype(np.float32, copy=False))
    put(primary.header, p.raw)
    put(primary.header, [("WCSAXES", 3, ""), ("WCSAXESI", 3, "")])  # before all that they count
    put(primary.header, [card for card in celestial_cards(p) if card[0] != "WCSAXES"])
    put(
        primary.header,
        [
            ("CTYPE3", "AWAV", "wavelength in air"), ("CUNIT3", "Angstrom", ""), ("CRPIX3", 1.0, ""),
            ("CRVAL3", float(p.grid[0]), ""), ("CDELT3", float(p.grid[1] - p.grid[0]), ""), ("SPECSYS", "TOPOCENT", ""),
            ("CTYPE3I", "AWAV", ""), ("CUNIT3I", "Angstrom", ""), ("CRPIX3I", 1.0, ""),
            ("CRVAL3I", float(p.grid[0]), ""), ("CDELT3I", float(p.grid[1] - p.grid[0]), ""),
            ("BUNIT", FLUX_UNIT, "per spaxel"), ("CUBEKIND", kind, "obs, sky or skysub"), *p.cards,
        ],
    )  # fmt: skip
    return fits.HDUList([primary])
