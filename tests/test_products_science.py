"""The files of an exposure: exact in order, name, shape and kind, valid, with coordinates that hold."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from product_factory import NF, NW, NX, NY, START, products

from panacea_nb.products.headers import dq_cards, provenance_cards, put, raw_cards, spectral_axis, time_and_place
from panacea_nb.products.science import SPECTRUM_ROWS, cube_file, multi_file, spectrum_file
from panacea_nb.products.write import write_fits
from panacea_nb.reduce.astrometry import CONVENTIONS, Pointing, pointing
from panacea_nb.reduce.maskbits import DQ

MULTI = [
    ("observed_spectra", (NF, NW), "f4"), ("sky_spectra", (NF, NW), "f4"), ("skysub_spectra", (NF, NW), "f4"),
    ("error_spectra", (NF, NW), "f4"), ("collapsed_image", None, "f4"), ("fiber_positions", (NF, 6), "f8"),
    ("extracted_spectrum", (6, NW), "f8"), ("adr", (3, 11), "f8"), ("bigw", (NY, NX), "f4"), ("image", (NY, NX), "f4"),
    ("flattened_image", (NY, NX), "f4"), ("trace", (NY, NX), "i2"), ("cosmics", (NY, NX), "u1"),
    ("unrectified_spectra", (NF, NX), "f4"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return products()


@pytest.fixture(scope="module")
def multi(made, tmp_path_factory):
    """The multi file as read back from the disk."""
    path = write_fits(tmp_path_factory.mktemp("products") / "multi.fits", multi_file(made))
    with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
        yield hdus


def test_the_first_fourteen_extensions(multi, made):
    for i, (name, shape, kind) in enumerate(MULTI):
        hdu = multi[i]
        assert hdu.header["EXTNAME"] == name, i
        assert hdu.data.shape == (made.collapsed.shape if shape is None else shape), name
        assert hdu.data.dtype == np.dtype(f">{kind}"), name


def test_each_extension_holds_its_own_array(multi, made):
    expected = (
        made.observed, made.sky, made.skysub, made.error, made.collapsed, made.positions, made.spectrum, made.adr, made.bigw,
        made.image, made.flattened, made.trace, made.cosmics, made.unrectified, made.lsf, made.dq,
    )  # fmt: skip
    for hdu, array in zip(multi, expected, strict=True):
        assert np.allclose(hdu.data, array, rtol=1e-6, atol=0), hdu.name
    assert [hdu.name.lower() for hdu in multi[14:]] == ["lsf", "dq"]
    assert multi["dq"].data.dtype == np.uint8
    assert not multi[3].data[7].any()


def test_multi_file_is_valid_and_sealed(multi):
    multi.verify("exception")
    for hdu in multi:
        assert hdu.verify_checksum() == 1, hdu.name
        assert hdu.verify_datasum() == 1, hdu.name


def test_units_are_units(multi):
    flux = u.Unit("erg / (s cm2 Angstrom)")
    for name in ("observed_spectra", "sky_spectra", "skysub_spectra", "error_spectra", "collapsed_image"):
        assert u.Unit(multi[name].header["BUNIT"], format="fits") == flux
    assert u.Unit(multi["bigw"].header["BUNIT"], format="fits") == u.AA
    for name in ("image", "flattened_image", "unrectified_spectra"):
        assert u.Unit(multi[name].header["BUNIT"], format="fits").decompose().bases
    assert [multi["adr"].header[f"ROW{i}"].split()[0] for i in (1, 2, 3)] == ["wavelength", "x_adr", "y_adr"]
    assert [multi["fiber_positions"].header[f"COL{i}"].split()[0] for i in range(1, 7)] == [
        "ifu_x", "ifu_y", "focal_x", "focal_y", "ra", "dec",
    ]  # fmt: skip


def test_primary_keeps_the_raw_cards_with_their_meaning(multi):
    header = multi[0].header
    assert header["DATE"] == "2025-01-15T06:00:00"
    assert (header["OBJECT"], header["QOBJECT"]) == ("HZ_44_056_E", "HZ_44")
    assert (header["QRA"], header["QDEC"], header["PARANGLE"]) == ("13:23:35.3", "+36:07:59", 70.0)
    assert header["EXPTIME"] == 300.0
    assert header["SOURCEX"] == 0.25
    assert header["DATE-RED"] != header["DATE"]
    assert [header[f"CORR{k}"] for k in (1, 2, 3)] == [0.18, -0.11, 0.02]
    assert header["DQBIT3"].startswith("COSMIC")


def test_wavelength_axis_as_clients_read_it(multi, made):
    """CRVAL1 and CDELT1 of every rectified extension, by hand and by astropy."""
    for i in (0, 1, 2, 3, 14):
        header = multi[i].header
        by_hand = header["CRVAL1"] + header["CDELT1"] * np.arange(NW)
        assert by_hand == pytest.approx(made.grid, abs=1e-6)
        wcs = WCS(header)
        assert wcs.axis_type_names[0] == "AWAV"
        wave = wcs.pixel_to_world_values(np.arange(NW), np.zeros(NW))[0]
        assert wave * u.Unit(wcs.world_axis_units[0]).to("Angstrom") == pytest.approx(made.grid, abs=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sky_coordinates_of_images_and_cubes(convention):
    """A fibre's right ascension and declination lead to the spaxel at its place in the IFU, and back."""
    made = products(convention)
    grid = made.spaxels
    cube = np.zeros((NW, grid.y.size, grid.x.size))
    image = multi_file(made)["collapsed_image"]
    header = cube_file(made, cube, "obs")[0].header
    two, three = WCS(image.header), WCS(header)
    assert image.header["CONVENTN"] == header["CONVENTN"] == convention
    x, y, ra, dec = made.positions[:, [0, 1, 4, 5]].T
    column, row = (x - grid.x[0]) / 0.4, (y - grid.y[0]) / 0.4
    assert two.wcs_world2pix(ra, dec, 0) == [pytest.approx(column, abs=1e-3), pytest.approx(row, abs=1e-3)]
    place = SkyCoord(ra, dec, unit="deg")
    back = three.celestial.pixel_to_world(column, row)
    assert place.separation(back).arcsec.max() < 1e-4
    wave = three.spectral.pixel_to_world_values(np.arange(NW)) * u.Unit(three.spectral.world_axis_units[0])
    assert wave.to_value("Angstrom") == pytest.approx(made.grid, abs=1e-6)
    assert three.world_axis_physical_types[:2] == ["pos.eq.ra", "pos.eq.dec"]


def test_ifu_coordinates_are_the_alternate_wcs(made):
    grid = made.spaxels
    header = cube_file(made, np.zeros((NW, grid.y.size, grid.x.size)), "obs")[0].header
    ifu = WCS(header, key="I").sub([1, 2])
    x, y = ifu.wcs_pix2world([0, grid.x.size - 1], [0, grid.y.size - 1], 0)
    to_arcsec = u.Unit(ifu.world_axis_units[0]).to("arcsec")
    assert np.asarray(x) * to_arcsec == pytest.approx([grid.x[0], grid.x[-1]])
    assert np.asarray(y) * to_arcsec == pytest.approx([grid.y[0], grid.y[-1]])


def test_wcsaxes_comes_before_what_it_counts(made):
    """The standard asks for it, in the main WCS and in the alternate one."""
    grid = made.spaxels
    names = list(cube_file(made, np.zeros((NW, grid.y.size, grid.x.size)), "obs")[0].header)
    assert names.index("WCSAXES") < min(names.index(k) for k in ("CTYPE1", "CRVAL1", "CRPIX1", "CTYPE3"))
    assert names.index("WCSAXESI") < min(names.index(k) for k in ("CTYPE1I", "CRVAL1I", "CRPIX1I", "CTYPE3I"))


def test_cube_file(made, tmp_path):
    rng = np.random.default_rng(501)
    cube = rng.normal(size=(NW, made.spaxels.y.size, made.spaxels.x.size))
    path = write_fits(tmp_path / "cube.fits", cube_file(made, cube, "skysub"))
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert hdus[0].data.dtype == np.dtype(">f4")
        assert np.allclose(hdus[0].data, cube, rtol=1e-6, atol=0)
        assert hdus[0].header["CUBEKIND"] == "skysub"
        assert u.Unit(hdus[0].header["BUNIT"], format="fits").is_equivalent("erg / (s cm2 Angstrom)")
        assert hdus[0].header["OBJECT"] == "HZ_44_056_E"


@pytest.fixture(scope="module")
def spectrum_path(made, tmp_path_factory):
    return write_fits(tmp_path_factory.mktemp("spectrum") / "spectrum.fits", spectrum_file(made))


def test_rows_of_the_spectrum(spectrum_path, made):
    with fits.open(spectrum_path) as hdus:
        hdus.verify("exception")
        header = hdus[0].header
        assert hdus[0].data.shape == (6, NW)
        assert (hdus[0].data == made.spectrum).all()
        rows = tuple(header[f"ROW{i}"] for i in range(1, 7))
    assert rows == SPECTRUM_ROWS == ("wavelength", "F_lambda", "Sky_lambda", "e_F_lambda", "e_Sky_lambda", "response")
    assert header["WAVE0"] + header["DWAVE"] * np.arange(NW) == pytest.approx(made.grid, abs=1e-6)
    assert (header["WAVEUNIT"], header["FLUXUNIT"]) == ("A", "ergs/s/cm2/A")
    assert header["SOURCEX"] == 0.25


def test_table_of_the_spectrum(spectrum_path, made):
    """Columns with units; sky and error are not mixed up, though the rows have the sky before the error."""
    table = QTable.read(spectrum_path, hdu="SPECTRUM")
    assert table.colnames == ["wavelength", "flux", "uncertainty", "sky", "sky_uncertainty", "response"]
    for name, row in zip(table.colnames, (0, 1, 3, 2, 4, 5), strict=True):
        assert (table[name].value == made.spectrum[row]).all(), name
    assert table["wavelength"].unit == u.AA
    assert table["flux"].unit == table["uncertainty"].unit == table["sky"].unit == u.Unit("erg / (s cm2 Angstrom)")


def test_specutils_reads_the_spectrum(spectrum_path, made):
    from specutils import Spectrum

    spectrum = Spectrum.read(spectrum_path)
    assert spectrum.spectral_axis.to_value("Angstrom") == pytest.approx(made.grid)
    assert np.allclose(spectrum.flux.to_value("erg / (s cm2 Angstrom)"), made.spectrum[1], rtol=1e-12, atol=0)
    assert np.allclose(spectrum.uncertainty.array, made.spectrum[3], rtol=1e-12, atol=0)


# --- headers --------------------------------------------------------------------------------------------------------------------


def test_raw_cards_leave_out_what_describes_the_amplifier():
    header = fits.Header()
    for name, value in (
        ("OBJECT", "X_056_E"), ("CCDPOS", "L"), ("BIASSEC", "[1:2]"), ("TRIMSEC", "x"), ("AMPNAME", "LL"), ("BZERO", 32768),
        ("AMBTEMP", 12.5), ("CRVAL1", 3.0), ("EXPTIME", -1.0), ("EMPTY", None), ("QPROG", "HET19-1-999"),
    ):  # fmt: skip
        header[name] = value
    header["COMMENT"] = "words"
    cards = {name: value for name, value, _ in raw_cards(header)}
    assert cards == {"OBJECT": "X_056_E", "AMBTEMP": 12.5, "EXPTIME": -1.0, "QPROG": "HET19-1-999"}


def test_cards_that_fits_cannot_hold_are_made_plain():
    header = fits.Header()
    put(
        header,
        [
            ("A", float("nan"), "not finite"), ("B", np.float32(1.5), ""), ("C", "d\u00e9j\u00e0 vu\n", "\u00b5m"),
            ("D", np.int64(3)), ("E", True, ""), ("LONG", "x" * 3000, "c" * 200),
        ],
    )  # fmt: skip
    assert header["A"] == "undefined"
    assert (header["B"], header["D"], header["E"]) == (1.5, 3, True)
    assert header["C"] == "d?j? vu?"
    assert header.comments["C"] == "?m"
    assert len(header["LONG"]) == 800
    fits.PrimaryHDU(np.zeros(2), header).verify("exception")
    assert fits.Header.fromstring(header.tostring())["LONG"] == "x" * 800


def test_long_values_leave_their_comments_out_quietly():
    """Values of any length make cards without a warning, and come back whole; comments fill what is left."""
    for length in (5, 30, 50, 60, 66, 67, 68, 69, 70, 100):
        header = fits.Header()
        put(header, [("NBPATH", "v" * length, "a comment of some length for this card, cut")])
        back = fits.Header.fromstring(header.tostring())
        assert back["NBPATH"] == "v" * length
        assert "a comment of some length for this card, cut".startswith(back.comments["NBPATH"])
    quoted = fits.Header()
    put(quoted, [("PARAM1", "name='" + "v" * 40 + "'", "parameter of the reduction")])
    assert fits.Header.fromstring(quoted.tostring())["PARAM1"] == "name='" + "v" * 40 + "'"


def test_provenance_says_what_went_in():
    from panacea_nb.decisions import Decision

    decisions = [Decision("NOGUIDER", "no guider", "warn"), Decision("DEFRESP", "default", "info")]
    cards = {
        n: v for n, v, _ in provenance_cards("05", "nb.ipynb", decisions, {"b": "0" * 64, "a": "1" * 64}, {"p": 2})
    }
    assert cards["PNBSTAGE"] == "05"
    assert cards["NBPATH"] == "nb.ipynb"
    assert cards["INPUT1"] == "a " + "1" * 32
    assert cards["INPUT2"] == "b " + "0" * 32
    assert cards["PARAM1"] == "p=2"
    assert cards["NFALLBK"] == 1
    assert cards["FALLBK1"] == "NOGUIDER: no guider"
    assert "FALLBK2" not in cards


def test_image_digest_is_told_by_the_launcher(monkeypatch, tmp_path):
    from panacea_nb.products import image

    def digest():
        return {n: v for n, v, _ in provenance_cards("05", "", [], {}, {})}["IMGDIGST"]

    monkeypatch.delenv("PANACEA_NB_IMAGE_DIGEST", raising=False)
    monkeypatch.setattr(image, "MARKER", tmp_path / "marker")
    assert digest() == "none"
    (tmp_path / "marker").touch()
    assert digest() == "unknown"
    monkeypatch.setenv("PANACEA_NB_IMAGE_DIGEST", "sha256:abc")
    assert digest() == "sha256:abc"


def test_every_mask_bit_is_named():
    cards = dq_cards()
    assert [name for name, *_ in cards] == [f"DQBIT{k}" for k in range(8)]
    assert [value.split(":")[0] for _, value, _ in cards] == [bit.name for bit in DQ]


def test_spectral_axis_is_linear_in_air():
    cards = {n: v for n, v, _ in spectral_axis(np.linspace(4635.0, 6950.0, 2064))}
    assert (cards["CTYPE1"], cards["CUNIT1"], cards["CRPIX1"], cards["CRVAL1"]) == ("AWAV", "Angstrom", 1.0, 4635.0)
    assert cards["CDELT1"] == pytest.approx(2315 / 2063)


def test_time_of_mid_exposure_and_place():
    cards = {n: v for n, v, _ in time_and_place(START, 600.0, products().pointing)}
    assert cards["MJD-MID"] == pytest.approx(60690.25 + 300 / 86400, abs=2e-7)
    assert cards["AIRMASS"] == pytest.approx(1.2208, abs=1e-4)
    assert cards["VELAPPL"] is False


def test_barycentric_correction_has_its_sign_and_size():
    """At the March equinox the Earth moves towards ecliptic longitude 270: a star there is corrected by +29.8 km/s."""
    march = START.replace(month=3, day=20)

    def correction(ra, dec):
        point = pointing({"QRA": ra, "QDEC": dec, "PARANGLE": 0.0})
        assert isinstance(point, Pointing)
        return {n: v for n, v, _ in time_and_place(march, 0.0, point)}["BARYCORR"]

    assert correction("18:00:00", "-23:26:00") == pytest.approx(29.8, abs=0.8)
    assert correction("06:00:00", "+23:26:00") == pytest.approx(-29.8, abs=0.8)
    assert abs(correction("00:00:00", "+00:00:00")) < 1.5
