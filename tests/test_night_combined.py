"""Stage 09 on a whole reduced night: its files, whether others can read them, and the truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scoring import robust
from specutils import Spectrum

from panacea_nb.products import combined, nightly
from panacea_nb.products.layout import safe_name
from panacea_nb.reduce.commongrid import common_grid, resampling
from panacea_nb.simulate import truth

pytestmark = pytest.mark.slow

ARMS = {"B": ("uv", "orange"), "R": ("red", "farred")}


@pytest.fixture(scope="module")
def targets(reduced_night) -> dict[tuple[str, str], list]:
    """Programme and target -> its rows of the night table."""
    found: dict[tuple[str, str], list] = {}
    for row in nightly.night_table(reduced_night.layout):
        name = safe_name(str(row["target"]).rpartition("_0")[0])
        found.setdefault((str(row["program"]), name), []).append(row)
    return found


def true_spectrum(night, row, grid: np.ndarray) -> np.ndarray:
    """The source's spectrum on the common grid, NaN outside of the channel."""
    true = truth.load_exposure(night.night_dir, int(row["obsid"]), int(row["exposure"]), str(row["channel"]))
    matrix = resampling(true.wave, grid)
    return np.where(np.diff(matrix.indptr) > 0, matrix @ np.asarray(true.spectrum["flux"], float), np.nan)


def test_every_target_has_its_files(reduced_night, targets):
    layout = reduced_night.layout
    assert len(targets) == 6
    for (program, name), rows in targets.items():
        spectrum, cube, text = (
            layout.combined(program, name, f"combined_{end}") for end in ("spectrum.fits", "cube.fits", "spectrum.dat")
        )
        assert text.is_file()
        assert layout.notebook("09_combine", program=program, target=name).is_file()
        for path in (spectrum, cube):
            with fits.open(
                path, checksum=True, memmap=False
            ) as hdus:  # a wrong checksum is a warning, and so an error here
                hdus.verify("exception")
                header = hdus[0].header
                assert header["NCOMBINE"] == len(rows)
                assert (header["SPECSYS"], header["VELAPPL"], header["AIRORVAC"]) == ("TOPOCENT", False, "air")
                assert header["PNBSTAGE"] == "09_combine"
        assert list(WCS(fits.getheader(cube)).wcs.ctype) == ["RA---TAN", "DEC--TAN", "AWAV"]


def test_report_shows_targets(reduced_night, targets):
    page = (reduced_night.layout.report_dir / "index.html").read_text()
    assert 'id="targets"' in page
    for program, name in targets:
        assert f"notebooks/{program}.{name}/09_combine.html" in page
        assert f"{name}_{reduced_night.layout.night}_combined_spectrum.fits" in page
        assert (reduced_night.layout.report_dir / "notebooks" / f"{program}.{name}" / "09_combine.html").is_file()


def test_others_read_the_spectrum(reduced_night, targets):
    for program, name in targets:
        path = reduced_night.layout.combined(program, name, "combined_spectrum.fits")
        rows = fits.getdata(path)
        assert rows.shape == (len(combined.ROWS), common_grid().size)
        good = rows[2] > 0
        table = Table.read(path, hdu="SPECTRUM")
        np.testing.assert_array_equal(table["flux"], rows[1][good])
        spectrum = Spectrum.read(path, format="tabular-fits")
        np.testing.assert_allclose(spectrum.spectral_axis.to_value("Angstrom"), rows[0][good])
        np.testing.assert_allclose(spectrum.uncertainty.array, rows[2][good])


@pytest.mark.parametrize("arm", list(ARMS))
def test_faint_flux_and_its_error(reduced_night, targets, arm):
    """Two exposures together, by channel: flux within 8 % (one exposure: 10 %), error as its scatter about a local mean."""
    (key,) = (key for key in targets if key[1].startswith(f"SIMFAINT{arm}"))
    data = fits.getdata(reduced_night.layout.combined(*key, "combined_spectrum.fits"))
    wave, flux, error = data[:3]
    ratios = []
    for channel in ARMS[arm]:
        row = next(r for r in targets[key] if r["channel"] == channel)
        model = true_spectrum(reduced_night, row, wave)
        use = np.flatnonzero((error > 0) & np.isfinite(model))
        weight = 1 / error[use] ** 2
        ratios.append((weight * flux[use] * model[use]).sum() / (weight * model[use] ** 2).sum())
        assert ratios[-1] == pytest.approx(1.0, abs=0.08), channel
        pulls = []
        for part in np.array_split(use, use.size // 60):
            level = (flux[part] * model[part] / error[part] ** 2).sum() / (model[part] ** 2 / error[part] ** 2).sum()
            pulls.append((flux[part] - level * model[part]) / error[part])
        assert robust(np.concatenate(pulls)) == pytest.approx(1.0, abs=0.12), channel
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("arm", list(ARMS))
def test_cube_shows_the_source_at_one_place_with_errors_that_are_right(reduced_night, targets, arm):
    (key,) = (key for key in targets if key[1].startswith(f"SIMFAINT{arm}"))
    with fits.open(reduced_night.layout.combined(*key, "combined_cube.fits"), memmap=False) as hdus:
        header, cube, error = hdus[0].header, hdus[0].data.astype(float), hdus["ERROR"].data.astype(float)
    wave = header["CRVAL3"] + header["CDELT3"] * np.arange(cube.shape[0])
    x, y = (header[f"CRVAL{i}I"] + header[f"CDELT{i}I"] * np.arange(cube.shape[3 - i]) for i in (1, 2))
    x, y = np.meshgrid(x, y)
    away = np.hypot(x - header["SOURCEX"], y - header["SOURCEY"])
    blank = (away > 4.5) & (np.abs(x) < 5.5) & (np.abs(y) < 3)
    for channel in ARMS[arm]:
        grid = next(r for r in targets[key] if r["channel"] == channel)
        inside = np.isfinite(true_spectrum(reduced_night, grid, wave))
        flux, noise = cube[inside], error[inside]
        measured = noise[:, blank] > 0
        pull = flux[:, blank][measured] / noise[:, blank][measured]
        assert robust(pull) == pytest.approx(1.0, abs=0.1), channel
        image = np.clip(flux.mean(axis=0), 0, None) * (away < 1.6)
        place = [(image * axis).sum() / image.sum() for axis in (x, y)]
        assert place == pytest.approx([header["SOURCEX"], header["SOURCEY"]], abs=0.15), channel
