"""What a reduction leaves: files, names, shapes, headers, notebooks, log - and that the same notebooks give the same by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from conftest import NIGHT, panacea_nb
from nbclient import NotebookClient
from specutils import Spectrum

from panacea_nb.instrument import CHANNELS, N_FIBERS, N_WAVE
from panacea_nb.instrument import channel as find_channel
from panacea_nb.products import calibration, nightly, session
from panacea_nb.products.digest import content_digest
from panacea_nb.workflow import notebooks

pytestmark = pytest.mark.slow

# EXTNAME and shape of the first 14 extensions, as existing tools read them by position; None where the field decides.
MULTI = (
    ("observed_spectra", (N_FIBERS, N_WAVE)), ("sky_spectra", (N_FIBERS, N_WAVE)), ("skysub_spectra", (N_FIBERS, N_WAVE)),
    ("error_spectra", (N_FIBERS, N_WAVE)), ("collapsed_image", None), ("fiber_positions", (N_FIBERS, 6)),
    ("extracted_spectrum", (6, N_WAVE)), ("adr", None), ("bigw", (2064, 2064)), ("image", (2064, 2064)),
    ("flattened_image", (2064, 2064)), ("trace", (2064, 2064)), ("cosmics", (2064, 2064)),
    ("unrectified_spectra", (N_FIBERS, 2064)),
)  # fmt: skip
CALS = ["wavelength", "trace", "flat", "bigW", "masterbias", "xypos", "dead", "arcspec", "fltspec", "Flatspec", "bigF", "masterarc",
        "masterFlat", "response"]  # fmt: skip
ROWS = ["wavelength", "F_lambda", "Sky_lambda", "e_F_lambda", "e_Sky_lambda", "response"]


@pytest.fixture(scope="module")
def rows(reduced_night):
    return list(nightly.night_table(reduced_night.layout))


@pytest.mark.parametrize("channel", ["orange", "farred"])
def test_what_only_the_extraction_asks_of_the_calibrations_is_handed_on(reduced_night, channel):
    """Arc lines that the wavelengths rest on; what the fibre models leave under the fibres, which is per mille of their light."""
    task = session.open(stage="05_extract", output=reduced_night.layout.output, night=NIGHT, channel=channel)
    known = calibration.load(task)
    assert known.shares.shape == (2, 16)
    assert 0 < np.abs(known.shares).max() < 0.01
    wave, left = known.arcs
    listed = np.asarray(find_channel(channel).arc_lines()["wavelength"], float)
    assert 5 <= wave.size <= listed.size
    assert np.isin(wave, listed).all()
    assert np.abs(left).max() < 0.1


def where(row) -> tuple[str, int, int, str]:
    return str(row["program"]), int(row["obsid"]), int(row["exposure"]), str(row["channel"])


def test_every_promised_file_is_there(reduced_night, rows):
    layout = reduced_night.layout
    assert len(rows) == 16
    for row in rows:
        place = where(row)
        for path in (
            layout.multi(*place),
            layout.spectrum(*place),
            *(layout.cube(*place, k) for k in ("obs", "sky", "skysub")),
        ):
            assert path.is_file(), path
        for stage in ("05_extract", "06_sky", "07_flux"):
            assert layout.notebook(stage, place[3], place[1], place[2], place[0]).is_file()
    for channel in CHANNELS:
        assert layout.calibration(channel).is_file()
        for stage in ("01_bias", "02_trace", "03_wavelength", "04_flat"):
            assert layout.notebook(stage, channel).is_file()
        assert len(list(layout.cals_dir.glob(f"response_{NIGHT}_*_{channel}.fits"))) == 1
    assert layout.night_table.is_file()
    assert (layout.report_dir / "index.html").is_file()
    assert layout.run_file.is_file()


def test_products_are_clean_fits(reduced_night):
    files = sorted((reduced_night.layout.output / "LRS2").rglob("*.fits"))
    assert len(files) == 16 * 5 + 4 + 4 + 6 * 2  # three targets on each arm, each with a combined spectrum and cube
    for path in files:
        with fits.open(
            path, checksum=True, memmap=False
        ) as hdus:  # a wrong checksum is a warning, and so an error here
            hdus.verify("exception")
            for hdu in hdus:
                assert "CHECKSUM" in hdu.header
                assert "DATASUM" in hdu.header
            assert hdus[0].header["PIPELINE"] == "panacea_nb"
            assert not os.path.isabs(hdus[0].header["NBPATH"])


def test_multi_reads_by_position(reduced_night, rows):
    """The way LRS2Multi does: extensions by number, cards from the first."""
    for row in rows:
        with fits.open(reduced_night.layout.multi(*where(row)), memmap=False) as hdus:
            for i, (name, shape) in enumerate(MULTI):
                assert hdus[i].header["EXTNAME"].lower() == name
                if shape is not None:
                    assert hdus[i].data.shape == shape
            header = hdus[0].header
            wave = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
            grid = CHANNELS[where(row)[3]].wave_grid()
            np.testing.assert_allclose(wave, grid, atol=1e-6)
            np.testing.assert_allclose(
                hdus[0].data - hdus[1].data, hdus[2].data, rtol=0, atol=3e-7 * np.abs(hdus[0].data).max()
            )
            np.testing.assert_allclose(hdus[6].data[0], grid)
            assert set(np.unique(hdus[11].data)) <= set(range(N_FIBERS + 1))
            assert np.isfinite(hdus[0].data).all()
            for card in (
                "OBJECT",
                "EXPTIME",
                "QRA",
                "QDEC",
                "PARANGLE",
                "DATE",
                "MILLUM",
                "THROUGHP",
                "MJD-MID",
                "AIRMASS",
                "BARYCORR",
            ):
                assert card in header
            assert header["EXPTIME"] > 0
            with fits.open(reduced_night.layout.spectrum(*where(row)), memmap=False) as spectrum:
                np.testing.assert_array_equal(spectrum[0].data, hdus[6].data)


def test_spectrum_file(reduced_night, rows):
    for row in rows[:4]:
        path = reduced_night.layout.spectrum(*where(row))
        header = fits.getheader(path)
        assert [header[f"ROW{i}"] for i in range(1, 7)] == ROWS
        table = Table.read(path, hdu="SPECTRUM")
        assert table.colnames == ["wavelength", "flux", "uncertainty", "sky", "sky_uncertainty", "response"]
        spectrum = Spectrum.read(path, format="tabular-fits")
        data = fits.getdata(path)
        np.testing.assert_allclose(spectrum.spectral_axis.to_value("Angstrom"), data[0])
        np.testing.assert_allclose(spectrum.flux.value, data[1])
        np.testing.assert_allclose(spectrum.uncertainty.array, data[3])
        assert header["DWAVE"] == pytest.approx(data[0, 1] - data[0, 0])
        assert header["WAVE0"] == data[0, 0]


def test_cube_shows_the_source_where_the_spectrum_was_extracted(reduced_night, rows):
    """The brightest spaxel of the standard lies at SOURCEX, SOURCEY of the alternate WCS, and holds the star's light."""
    for row in (r for r in rows if "FEIGE" in r["target"] or "G191" in r["target"]):
        place = where(row)
        with fits.open(reduced_night.layout.cube(*place, "skysub"), memmap=False) as hdus:
            cube, header = hdus[0].data, hdus[0].header
        middle = slice(cube.shape[0] // 2 - 20, cube.shape[0] // 2 + 20)
        image = cube[middle].mean(axis=0)
        y, x = np.unravel_index(np.argmax(image), image.shape)
        at_x = header["CRVAL1I"] + header["CDELT1I"] * x
        at_y = header["CRVAL2I"] + header["CDELT2I"] * y
        assert np.hypot(at_x - row["source_x"], at_y - row["source_y"]) < 0.4
        flux = fits.getdata(reduced_night.layout.spectrum(*place))[1][middle].mean()
        assert image.sum() == pytest.approx(flux, rel=0.12)
        assert WCS(header).celestial.wcs.ctype[0] == "RA---TAN"


def test_calibration_bundle(reduced_night):
    for channel in CHANNELS:
        with fits.open(reduced_night.layout.calibration(channel)) as hdus:
            assert [h.header["EXTNAME"] for h in hdus][: len(CALS)] == CALS
            assert hdus[0].data.shape == (N_FIBERS, 2064)
            assert hdus["xypos"].data.shape == (N_FIBERS, 2)
            assert hdus["dead"].data.shape == (N_FIBERS, 2)
            assert hdus["response"].data.shape == (2, N_WAVE)


def test_source_lines_can_be_searched_for(reduced_night, rows):
    log = (reduced_night.layout.log_dir / "reduce.log").read_text()
    found = [line for line in log.splitlines() if "source found at s/n:" in line or "No source found" in line]
    for row in rows:
        assert any(f"{row['target']}, {row['channel']}:" in line for line in found), row["target"]


def test_every_verdict_is_shown(reduced_night):
    records = nightly.task_records(reduced_night.layout)
    assert {t["state"] for t in records} == {"succeeded"}
    assert {t["verdict"] for t in records} <= {"pass", "warn"}
    page = (reduced_night.layout.report_dir / "index.html").read_text()
    for record in records:
        if record["obsid"] is not None:
            assert str(record["obsid"]) in page


def copy_of_work(night, tmp_path: Path) -> Path:
    """The run with its calibrations and between-stage files, without the large products."""
    target = tmp_path / "run"
    source = night.layout.night_dir / "work"
    place = target / "NIGHTS" / NIGHT / "work"
    for name in ("orange", "index", "calibrations.json"):
        if (source / name).is_dir():
            shutil.copytree(source / name, place / name)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, place / name)
    shutil.copytree(source / "0000004_exp01_orange", place / "0000004_exp01_orange")
    return target


def test_plain_papermill_and_by_hand_give_the_same(reduced_night, rows, tmp_path):
    """The workflow, the papermill command and a notebook run by hand leave identical files."""
    (row,) = (r for r in rows if r["obsid"] == 4 and r["channel"] == "orange")
    program = str(row["program"])
    run = copy_of_work(reduced_night, tmp_path)
    product = run / "NIGHTS" / NIGHT / "work" / "0000004_exp01_orange" / "06_sky.fits"
    wanted = content_digest(product)
    parameters = {
        "output": str(run),
        "night": NIGHT,
        "channel": "orange",
        "obsid": 4,
        "exposure": 1,
        "program": program,
    }
    product.unlink()
    root = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    options = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebooks.path("06_sky")),
        str(tmp_path / "out.ipynb"),
        "-k",
        "python3",
        *options,
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert content_digest(product) == wanted
    product.unlink()
    # By hand: the cells run one after the other, the parameters' values typed over.
    notebook = nbformat.read(notebooks.path("06_sky"), as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute(env=environment)
    assert content_digest(product) == wanted


def test_changing_a_parameter_reruns_only_what_depends_on_it(reduced_night, raw_night):
    """A new collapse window touches the flux stage and what follows; the sky option also the sky; nothing the calibrations."""

    def would_run(*options: str) -> set[str]:
        done = panacea_nb(
            "reduce", "-d", NIGHT, "-s", "uv,orange", "-o", "_056_", "--baseraw", raw_night,
            "--output", reduced_night.layout.output, "--dry-run", *options,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line[:2].isdigit() and line[2] == "_"]
        return {re.split(r"[-.\s]", line)[0] for line in lines if "up to date" not in line} - {
            "10_night",
            "00_inventory",
        }

    assert would_run() == set()
    assert would_run("--central_wave", "4400") == {"07_flux", "08_standard", "09_combine"}
    assert would_run("--correct_ftf") == {"06_sky", "07_flux", "08_standard", "09_combine"}
    assert would_run("--barycentric") == would_run("--vacuum", "--match_resolution") == {"09_combine"}
    assert would_run("--use_flat") == {
        "02_trace",
        "03_wavelength",
        "04_flat",
        "05_extract",
        "06_sky",
        "07_flux",
        "08_standard",
        "09_combine",
    }


def test_programmes_do_not_see_each_other(reduced_night, rows):
    """No name of another programme's target in a programme's notebooks and tables."""
    by_program: dict[str, set[str]] = {}
    for row in rows:
        by_program.setdefault(str(row["program"]), set()).add(str(row["target"]))
    for program in by_program:
        foreign = set().union(*(names for other, names in by_program.items() if other != program)) - by_program[program]
        for path in reduced_night.layout.program_dir(program).rglob("*.ipynb"):
            text = json.dumps(json.loads(path.read_text()))
            assert not [name for name in foreign if name in text], path
    for path in (reduced_night.layout.cals_dir / "notebooks").rglob("*.ipynb"):
        text = path.read_text()
        assert not [name for names in by_program.values() for name in names if name in text], path
