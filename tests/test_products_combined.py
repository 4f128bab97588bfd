"""Combined products: what is read, what is refused, and headers that say truly what was done."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from specutils import Spectrum

from panacea_nb.instrument import CHANNELS, fplane
from panacea_nb.products import combined, session
from panacea_nb.products.session import MissingInputError
from panacea_nb.reduce.astrometry import Pointing, sky_positions
from panacea_nb.reduce.combine import combine_spectra
from panacea_nb.reduce.combinedcube import combine_cubes
from panacea_nb.reduce.commongrid import LIGHT_SPEED, air_to_vacuum, common_grid

NIGHT, OTHER = "20250115", "20250117"
LINE = 5600.0


def write(task, channel, exp, *, night=NIGHT, flux=2e-17, found=True, telluric=None, velocity=12.0):
    """Multi, spectrum and cube files of an exposure, with as much in them as 09_combine reads; a line at `LINE`."""
    layout = task.layout if night == NIGHT else type(task.layout)(task.layout.output, night, task.layout.tag)
    wave = CHANNELS[channel].wave_grid()
    rng = np.random.default_rng([exp, int(night), len(channel)])
    spectrum = flux * (1 + 20 * np.exp(-0.5 * ((wave - LINE) / 2.0) ** 2))
    error = 0.05 * flux * np.ones(wave.size)
    positions = CHANNELS[channel].fiber_positions()
    table = sky_positions(positions, fplane(CHANNELS[channel].ifuslot), Pointing(100.0, 20.0, 33.0, "lrs2multi", "deg"))
    shape = (positions.shape[0], wave.size)
    header = fits.Header()
    header["OBJECT"], header["QOBJECT"], header["QPROG"] = "M31*_056_E", "M31*", "P"
    header["EXPTIME"], header["BARYCORR"], header["SNR"] = 900.0, velocity, 50.0 - exp
    header["CORR1"], header["CORR2"], header["CORR3"] = 0.2, -0.05, 0.01
    if found:
        header["SOURCEX"], header["SOURCEY"], header["SOURCEW"] = 0.5, -0.5, float(wave[1032])
    share = np.exp(-0.5 * ((positions - [0.5, -0.5]) ** 2).sum(axis=1) / 0.8**2)
    hdus = [fits.PrimaryHDU(np.zeros(shape, np.float32), header), fits.ImageHDU(np.zeros((1, 1)))]
    hdus += [
        fits.ImageHDU(share[:, None] * spectrum),
        fits.ImageHDU(np.ones(shape) * error),
        fits.ImageHDU(np.zeros((1, 1))),
    ]
    hdus += [fits.ImageHDU(table), fits.ImageHDU(np.full(shape, 1.9, np.float32), name="lsf")]
    path = layout.multi("P", 7, exp, channel)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path)
    measured = found * (spectrum + error * rng.normal(size=wave.size))
    columns = [wave, measured, found * error, found * spectrum, found * error]
    made = Table(columns, names=("wavelength", "flux", "uncertainty", "sky", "sky_uncertainty"))
    if telluric is not None:
        made["telluric"] = telluric
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(made, name="SPECTRUM")]).writeto(
        layout.spectrum("P", 7, exp, channel)
    )
    cube = fits.PrimaryHDU(np.zeros((1, 2, 2), np.float32))
    for i, (kind, value) in enumerate((("RA---TAN", 100.0), ("DEC--TAN", 20.0)), start=1):
        cube.header[f"CTYPE{i}"], cube.header[f"CRVAL{i}"], cube.header[f"CDELT{i}"] = kind, value, 1e-4
        cube.header[f"CTYPE{i}I"], cube.header[f"CRVAL{i}I"], cube.header[f"CDELT{i}I"] = (
            f"IFU-{'XY'[i - 1]}",
            -6.2,
            0.4,
        )
    cube.writeto(layout.cube("P", 7, exp, channel, "skysub"))
    return f"{'' if night == NIGHT else night + ':'}{channel}/0000007_exp{exp:02d}"


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.delenv(session.STAGING_VARIABLE, raising=False)
    return session.open(stage="09_combine", output=str(tmp_path), night=NIGHT, program="P", target="M31")


def make(task, names, **options):
    """What the notebook does: the files of a combination."""
    parts, fields, headers = combined.read(task, names)
    kept, decisions = combined.with_source(parts)
    result = combine_spectra(kept, common_grid(), **options) if kept else None
    cube = combine_cubes(combined.scaled_fields(fields, result), common_grid(), **options)
    task.record([*decisions, *(result.decisions if result else []), *cube.decisions])
    frame = {k: options.get(k, False) for k in ("barycentric", "vacuum")}
    factors = result.scales if result else {}
    made = {}
    within = [part for part in parts if part.name in cube.aligned]
    cards = combined.cards(task, within, factors, headers[0], combined.frame_cards(parts, cube.sigma, **frame), options)
    path = combined.path(task, parts, "combined_cube.fits")
    made["cube"] = task.save(path, combined.cube_file(task, cube, cards, vacuum=frame["vacuum"]))
    if result:
        lines = combined.frame_cards(result.parts, result.sigma, **frame)
        cards = combined.cards(task, result.parts, factors, headers[0], lines, options)
        path = combined.path(task, parts, "combined_spectrum.fits")
        made["spectrum"] = task.save(path, combined.spectrum_file(result, cards, vacuum=frame["vacuum"]))
        made["text"] = task.save_text(path.with_suffix(".dat"), combined.spectrum_text(result, lines))
    return result, made


def test_a_field_follows_the_path_by_refraction_that_its_exposure_showed(task):
    """A path a fifth longer and turned by 90 degrees; without the cards it is the table's."""
    names = [write(task, "orange", exp) for exp in (1, 2)]
    with fits.open(task.layout.multi("P", 7, 1, "orange"), mode="update") as hdus:
        hdus[0].header["ADRSCALE"], hdus[0].header["ADRTURN"] = 1.2, 90.0
    _, (turned, usual), _ = combined.read(task, names)
    assert turned.refraction.x == pytest.approx(-1.2 * usual.refraction.y)
    assert turned.refraction.y == pytest.approx(1.2 * usual.refraction.x)
    assert usual.refraction.x == pytest.approx(np.asarray(CHANNELS["orange"].refraction()["x"]))


def test_exposures_are_read_once_in_order(task):
    names = [write(task, "red", 1), write(task, "orange", 2), write(task, "orange", 1)]
    parts, fields, _ = combined.read(task, [*names, names[0]])
    assert [p.name for p in parts] == [
        f"{NIGHT}_0000007_exp01_orange", f"{NIGHT}_0000007_exp02_orange", f"{NIGHT}_0000007_exp01_red",
    ]  # fmt: skip
    assert [f.name for f in fields] == [p.name for p in parts]
    assert parts[0].correlation == (0.2, -0.05, 0.01)
    assert parts[0].sigma == pytest.approx(1.9)
    assert (fields[0].exposure, fields[2].exposure) == (f"{NIGHT}-7-1-B", f"{NIGHT}-7-1-R")
    assert len(task.inputs) == 6


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["orange/7_1"], combined.NothingToCombineError, "write channel/obsid_expNN as in orange/0000012_exp01"),
        (["green/0000007_exp01"], combined.NothingToCombineError, "names no exposure"),
        ([], combined.NothingToCombineError, "no exposure of this target was reduced"),
        (["orange/0000008_exp01"], MissingInputError, "multi_20250115_0000008_exp01_orange.fits"),
    ],
)
def test_what_cannot_be_read_is_refused(task, names, error, message):
    with pytest.raises(error, match=message):
        combined.read(task, names)


@pytest.mark.parametrize(("barycentric", "vacuum"), [(False, False), (True, False), (False, True), (True, True)])
def test_headers_say_what_was_done_to_the_wavelengths(task, barycentric, vacuum):
    names = [write(task, "orange", 1, velocity=20.0), write(task, "orange", 2, velocity=20.2)]
    result, made = make(task, names, barycentric=barycentric, vacuum=vacuum)
    factor = (1 + 20.1 / LIGHT_SPEED) if barycentric else 1.0
    expected = float(air_to_vacuum(np.array(LINE)) if vacuum else LINE) * factor
    near = np.abs(result.wave - expected) < 8
    light = result.flux[near] - 2e-17
    assert (light * result.wave[near]).sum() / light.sum() == pytest.approx(expected, abs=0.08)
    for kind, axis in (("spectrum", 1), ("cube", 3)):
        with fits.open(made[kind], checksum=True) as hdus:
            hdus.verify("exception")
            for hdu in hdus:
                assert hdu.header["SPECSYS"] == ("BARYCENT" if barycentric else "TOPOCENT")
                assert hdu.header["VELAPPL"] is barycentric
                assert hdu.header["AIRORVAC"] == ("vacuum" if vacuum else "air")
            header = hdus[0].header
            assert header[f"CTYPE{axis}"] == ("WAVE" if vacuum else "AWAV")
            assert header["BARYCORR"] == pytest.approx(20.1)
            assert header["BARYSPAN"] == pytest.approx(0.2)
            assert header["RESMATCH"] is False
            assert (header["NCOMBINE"], header["EXPT2"], header["BARYC2"]) == (2, 900.0, 20.2)
            assert header["PART1"] == f"{NIGHT}_0000007_exp01_orange"
            assert header["SCALE1"] * header["SCALE2"] == pytest.approx(1.0, abs=0.01)
            assert header["QOBJECT"] == "M31*"
            assert header["PIPELINE"] == "panacea_nb"
    text = made["text"].read_text()
    assert f"# SPECSYS = {'BARYCENT' if barycentric else 'TOPOCENT'}" in text
    assert f"# AIRORVAC = {'vacuum' if vacuum else 'air'}" in text


def test_other_programs_read_the_spectrum(task):
    result, made = make(task, [write(task, "uv", 1), write(task, "orange", 1)])
    assert made["spectrum"].name == f"M31_{NIGHT}_combined_spectrum.fits"
    spectrum = Spectrum.read(made["spectrum"], format="tabular-fits")
    good = result.error > 0
    np.testing.assert_allclose(spectrum.spectral_axis.to_value("Angstrom"), common_grid()[good])
    np.testing.assert_allclose(spectrum.flux.value, result.flux[good])
    np.testing.assert_allclose(spectrum.uncertainty.array, result.error[good])
    table = Table.read(made["spectrum"], hdu="SPECTRUM")
    assert table.colnames == ["wavelength", "flux", "uncertainty", "sky", "sky_uncertainty", "telluric", "count"]
    assert str(table["flux"].unit) == "erg / (Angstrom s cm2)"
    rows = fits.getdata(made["spectrum"])
    assert rows.shape == (5, common_grid().size)
    np.testing.assert_array_equal(rows[2][good], table["uncertainty"])
    assert (rows[2][~good] == 0).all()
    header = fits.getheader(made["spectrum"])
    assert [header[f"ROW{i}"] for i in range(1, 6)] == list(combined.ROWS)
    assert 0 < header["CORR-UV"] < header["CORR-ORA"] < 1
    plain = Table.read(made["text"], format="ascii.commented_header", header_start=-1)
    np.testing.assert_allclose(plain["wavelength"], rows[0], atol=0.005)
    np.testing.assert_allclose(plain["flux"], rows[1], rtol=1e-6, atol=1e-24)


def test_cube_has_its_axes_its_error_and_how_it_was_aligned(task):
    _, made = make(task, [write(task, "orange", 1), write(task, "orange", 2, found=False)])
    with fits.open(made["cube"]) as hdus:
        cube, error, header = hdus[0].data, hdus["ERROR"].data, hdus[0].header
    wave = header["CRVAL3"] + header["CDELT3"] * np.arange(cube.shape[0])
    assert 4635 <= wave[0] < 4636  # only what was measured
    assert 6949 < wave[-1] <= 6950
    assert cube.shape == error.shape
    assert cube.dtype == error.dtype == np.dtype(">f4")
    assert ((error > 0) == (cube != 0)).mean() > 0.999
    assert header["AXESFROM"] == f"{NIGHT}_0000007_exp01_orange"
    assert (header["SOURCEX"], header["SOURCEY"]) == (0.5, -0.5)
    assert [header[f"ALIGN{i}"] for i in (1, 2)] == ["its source", "sky coordinates"]
    assert 1.5 < header["SUMFACT"] < 3
    assert list(WCS(header).wcs.ctype) == ["RA---TAN", "DEC--TAN", "AWAV"]
    assert list(WCS(header, key="I").wcs.ctype) == ["IFU-X", "IFU-Y", "AWAV"]
    assert header["FALLBK1"].startswith("NOSOURCE: no source was found in 20250115_0000007_exp02_orange")


def test_nothing_with_a_source_leaves_the_cube(task):
    result, made = make(task, [write(task, "orange", 1, found=False)])
    assert result is None
    assert list(made) == ["cube"]
    assert fits.getheader(made["cube"])["BARYCORR"] == 12.0


def test_exposures_of_several_nights_have_a_name_of_their_own(task):
    names = [write(task, "orange", 1), write(task, "orange", 1, night=OTHER, velocity=-30.0)]
    result, made = make(task, names)
    assert made["spectrum"].name == f"M31_{NIGHT}-{OTHER}_combined_spectrum.fits"
    assert len(result.scales) == 2  # the same observation and exposure number, but of another night
    codes = [d.code for d in task.decisions]
    assert "VELSPAN" in codes  # 42 km/s, and not corrected
    assert "VELSPAN" not in [d.code for d in combine_spectra(combined.read(task, names)[0], barycentric=True).decisions]


def test_an_exposure_of_another_object_is_in_neither_product(task):
    write(task, "orange", 1)
    write(task, "orange", 2, flux=2e-18)
    result, files = make(task, ["orange/0000007_exp01", "orange/0000007_exp02"])
    assert len(result.left_out) == 1
    for path in (files["cube"], files["spectrum"]):
        head = fits.getheader(path)
        assert (head["NCOMBINE"], head["PART1"], head["SCALE1"]) == (1, result.parts[0].name, 1.0)
        assert any(str(head[f"FALLBK{i + 1}"]).startswith("APART") for i in range(head["NFALLBK"]))


def test_missing_exposures_are_recorded(task):
    parts, _, _ = combined.read(task, [write(task, "orange", 1)])
    count, decisions = combined.missing(3, parts)
    assert count == 2
    assert [(d.code, d.severity) for d in decisions] == [("MISSING", "warn")]
    assert (
        f"without 2 of 3 exposures x channels of the target, which were not reduced: panacea-nb status -d {NIGHT}"
        in decisions[0].text
    )
    assert combined.missing(1, parts) == (0, [])


def test_telluric_correction_is_handed_on_and_a_mixture_told(task):
    air = np.full(2064, 0.8)
    names = [write(task, "orange", 1, telluric=air), write(task, "orange", 2)]
    result, _ = make(task, names[:1])
    assert result.telluric[result.error > 0] == pytest.approx(0.8)
    assert "TELLMIX" not in [d.code for d in task.decisions]
    make(task, names)
    assert "TELLMIX" in [d.code for d in task.decisions]


def test_one_resolution_for_all_is_written(task):
    _, made = make(task, [write(task, "orange", 1), write(task, "red", 1)], match_resolution=True)
    for kind in ("spectrum", "cube"):
        header = fits.getheader(made[kind])
        assert header["RESMATCH"] is True
        assert header["LSFSIGMA"] == pytest.approx(1.9)
