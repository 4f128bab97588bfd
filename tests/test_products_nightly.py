"""The night's table, each programme's share of it, and the response of a standard as files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from product_factory import products

from panacea_nb.instrument import channel, find_standard
from panacea_nb.products import nightly, session, standard
from panacea_nb.products.calibration import bundle_response, extinction_between
from panacea_nb.products.layout import Layout
from panacea_nb.products.science import spectrum_file
from panacea_nb.products.write import write_fits


def row(obsid, name, program, start, **more):
    return {
        "obsid": obsid, "exposure": 1, "channel": name, "target": f"T{obsid}", "program": program, "kind": "sci",
        "start": start, "exptime": 300.0, "snr": 12.3, "source_x": 0.1, "source_y": -0.2, "fwhm": 1.5, "transparency": 0.9,
        "area": 5e5, "sky": 1e-17, "fallbacks": "", "verdict": "pass",
    } | more  # fmt: skip


@pytest.fixture
def layout(tmp_path):
    """A night of three rows, one of them without a source, and a damaged file."""
    layout = Layout(tmp_path, "20250115")
    rows = (
        row(3, "uv", "HET19-1-999", "2025-01-15T08:00:00"), row(1, "uv", "HET19-1-998", "2025-01-15T06:00:00"),
        row(1, "orange", "HET19-1-998", "2025-01-15T06:00:00", source_x=None, source_y=None, fwhm=None, verdict="fail"),
    )  # fmt: skip
    for r in rows:
        path = layout.work("07_flux", r["channel"], r["obsid"], 1).with_suffix(".json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(r))
    broken = layout.work_dir / "broken"
    broken.mkdir()
    (broken / "07_flux.json").write_text("{")
    return layout


def test_one_row_per_exposure_in_order_of_time(layout):
    table = nightly.night_table(layout)
    assert list(zip(table["obsid"], table["channel"], strict=True)) == [(1, "orange"), (1, "uv"), (3, "uv")]
    assert table.colnames == list(nightly.COLUMNS)
    assert table["exptime"].unit == u.s
    assert table["area"].unit == u.cm**2
    assert table.meta == {"night": "20250115", "tag": ""}
    assert table["source_x"].mask.tolist() == [True, False, False]
    assert nightly.rows(table)[0][table.colnames.index("fwhm")] == ""
    assert nightly.rows(table)[1][table.colnames.index("fwhm")] == 1.5


def test_table_survives_its_file(layout, tmp_path):
    task = session.open(stage="10_night", output=str(tmp_path), night="20250115")
    task.save_table(layout.night_table, nightly.night_table(layout))
    found = Table.read(layout.night_table, format="ascii.ecsv")
    assert found["source_x"].mask.tolist() == [True, False, False]
    assert found["snr"].tolist() == [12.3] * 3
    assert found["verdict"].tolist() == ["fail", "pass", "pass"]


def test_a_programme_sees_its_own_rows_only(layout):
    parts = dict(nightly.by_program(layout, nightly.night_table(layout)))
    assert {p.relative_to(layout.output).as_posix(): list(t["obsid"]) for p, t in parts.items()} == {
        "LRS2/HET19-1-998/night_20250115.ecsv": [1, 1],
        "LRS2/HET19-1-999/night_20250115.ecsv": [3],
    }


def test_empty_night(tmp_path):
    layout = Layout(tmp_path, "20250116")
    table = nightly.night_table(layout)
    assert len(table) == 0
    assert table.colnames == list(nightly.COLUMNS)
    assert list(nightly.by_program(layout, table)) == []
    assert nightly.task_records(layout) == []


def test_states_of_all_tasks(tmp_path):
    layout = Layout(tmp_path, "20250115")
    layout.status_dir.mkdir(parents=True)
    records = [
        {"id": "05-1", "stage": "05_extract", "state": "succeeded", "verdict": "fail", "parameters": {"channel": "uv", "obsid": 1}},
        {"id": "06-1", "stage": "06_sky", "state": "failed", "error": {"message": "no sky"}},
        {"id": "07-1", "stage": "07_flux", "state": "blocked"},
        {"id": "06-2", "stage": "06_sky", "state": "aborted"},
        {"id": "10", "stage": "10_night", "state": "running"},
    ]  # fmt: skip
    for i, record in enumerate(records):
        (layout.status_dir / f"{i}.json").write_text(json.dumps(record))
    (layout.status_dir / "x.json").write_text("nonsense")
    tasks = nightly.task_records(layout)
    assert [t["id"] for t in tasks] == ["05-1", "06-1", "07-1", "06-2"]
    assert (tasks[0]["channel"], tasks[0]["obsid"], tasks[1]["why"]) == ("uv", 1, "no sky")
    assert nightly.metrics(tasks) == {"failed": 2.0, "blocked": 1.0, "failing_verdicts": 1.0}


# --- the response of a standard ---------------------------------------------------------------------------------------------------


@pytest.fixture
def star_task(tmp_path):
    """The spectrum file of a standard whose true response is 1.1 times the applied one."""
    facts = channel("orange")
    grid = facts.wave_grid()
    applied = np.interp(grid, *facts.response())
    published = find_standard("HZ_44").flux(grid)
    made = products()
    made.grid = grid
    flux = published / 1.1
    made.spectrum = np.vstack([grid, flux, 0 * flux, 0.01 * flux, 0 * flux, applied])
    task = session.open(
        stage="08_standard",
        output=str(tmp_path),
        night="20250115",
        channel="orange",
        obsid=4,
        exposure=1,
        program="STANDARDS",
    )
    write_fits(task.layout.spectrum("STANDARDS", 4, 1, "orange"), spectrum_file(made))
    return task, made


def test_a_response_is_brought_to_the_airmass_of_the_target():
    """A star that a tenth of an airmass more makes fainter by a tenth of the extinction [mag] keeps its flux."""
    wave = np.array([3700.0, 5500.0, 8000.0])
    loss = 10 ** (-0.4 * np.array([0.486, 0.15, 0.052]) * 0.1)  # Kitt Peak's mean extinction
    factor, said = extinction_between(wave, 1.30, 1.20)
    assert factor * loss == pytest.approx(1.0, abs=1e-4)
    assert "1.200 to 1.300" in said
    factor, said = extinction_between(wave, 1.2208, 1.2207746)
    assert (factor == 1).all()
    assert said == ""


def test_response_of_a_standard_star(star_task):
    task, made = star_task
    star, hdus = standard.read(task)
    assert star.name == "HZ_44"
    result, air = standard.response(star, hdus)
    assert np.median(result.ratio) == pytest.approx(1.1, rel=1e-3)
    path = task.layout.response(4, 1, "orange")
    task.save(path, standard.response_file(task, star, result, air, 1.22))
    response, there = bundle_response(path)
    assert np.allclose(response, result.response, rtol=1e-12, atol=0)
    assert there == 1.22
    with fits.open(path) as found:
        found.verify("exception")
        header = found[0].header
        assert found[0].data.shape == (4, made.grid.size)
        assert np.allclose(found[0].data[0], made.grid)
        assert np.allclose(found[0].data[3], result.ratio)
        assert [header[f"ROW{i}"].split()[0] for i in range(1, 5)] == ["wavelength", "response", "error", "ratio"]
        assert (header["STANDARD"], header["OBSID"], header["CRVAL1"]) == ("HZ_44", 4, 4635.0)
        assert header["REFERENC"]


@pytest.mark.parametrize(("change", "message"), [("OBJECT", "no standard"), ("SOURCEX", "no source")])
def test_what_makes_no_response(star_task, change, message):
    task, made = star_task
    made.raw = [(n, "NGC_4565_056_E" if n == change else v, c) for n, v, c in made.raw]
    made.cards = [card for card in made.cards if card[0] != change]
    write_fits(task.layout.spectrum("STANDARDS", 4, 1, "orange"), spectrum_file(made))
    with pytest.raises(standard.NoStandardError, match=message):
        standard.read(task)
