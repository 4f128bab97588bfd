"""The scores themselves: truth with ideal noise must score what a perfect reduction scores, and what is spoilt must show."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
from astropy.io import fits
from benchmarks import __main__ as benchmark
from benchmarks import load, rows, timing
from benchmarks.rows import Goal, Value
from nbformat import v4 as nbf
from scoring import score_exposure, unknown_scale

from panacea_nb import simulate
from panacea_nb.instrument import CHANNELS, channel
from panacea_nb.products.assemble import FLUX_UNCERTAINTY, FLUX_UNCERTAINTY_DEFAULT
from panacea_nb.products.layout import Layout
from panacea_nb.simulate import truth
from panacea_nb.simulate.scenario import Target

NIGHT = "20250115"
CHANNEL = "orange"
TARGETS = (
    Target("FEIGE_34", "standard", "B", 120.0),
    Target("A", "point", "B", 900.0, 2, "P"),
    Target("G", "galaxy", "B", 900.0, 1, "P"),
    Target("E", "blank", "B", 900.0, 1, "P"),
)
EXPOSURES = ((1, 1, "STANDARDS"), (2, 1, "P"), (2, 2, "P"), (3, 1, "P"), (4, 1, "P"))


@pytest.fixture(scope="module")
def night_dir(tmp_path_factory):
    few = simulate.Scenario(TARGETS, 0, 0, 0, 0, 0, guider=False)
    return simulate.simulate_night(tmp_path_factory.mktemp("raw"), NIGHT, 5, CHANNEL, few, jobs=1)


def reduce_perfectly(night_dir, layout, obsid, exp, program, spoil=lambda **_: None):
    """Write a multi file that holds the truth plus ideal noise, and an extraction with the true shares of light."""
    true = truth.load_exposure(night_dir, obsid, exp, CHANNEL)
    rng = np.random.default_rng([obsid, exp])
    live = np.isfinite(true.sigma_grid)
    error = np.where(live, true.sigma_grid, 0)
    source = np.where(live, true.source, 0)
    skysub = source + error * rng.normal(size=error.shape)
    sky = true.sky.copy()
    spectrum = np.zeros((11, true.wave.size))
    spectrum[0] = true.wave
    header = fits.Header()
    spoil(skysub=skysub, sky=sky, error=error, wave=true.wave, truth=true)
    if true.has_source:
        flux = np.asarray(true.spectrum["flux"], float)
        share = source / flux
        weight = np.where(error > 0, share / np.where(error > 0, error, 1) ** 2, 0)
        norm = (weight * share).sum(axis=0)
        seen = norm > 0
        spectrum[1, seen] = (weight * skysub).sum(axis=0)[seen] / norm[seen]
        spectrum[3, seen] = 1 / np.sqrt(norm[seen])
        middle = true.wave.size // 2
        header["SOURCEW"] = true.wave[middle]
        header["SOURCEX"], header["SOURCEY"] = (float(true.spectrum[n][middle]) for n in ("x", "y"))
    positions = np.zeros((280, 4))
    positions[:, :2] = channel(CHANNEL).fiber_positions()
    refraction = channel(CHANNEL).refraction()
    adr = np.vstack([refraction[n] for n in ("wavelength", "x", "y")])
    planes = {0: sky + skysub, 1: sky, 2: skysub, 3: error, 5: positions, 6: spectrum, 7: adr}
    hdus = [fits.ImageHDU(planes.get(i, np.zeros((2, 2)))) for i in range(1, 13)]
    path = layout.multi(program, obsid, exp, CHANNEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(planes[0], header), *hdus]).writeto(path)


def scored(night_dir, folder, spoil=lambda **_: None):
    layout = Layout(folder, NIGHT)
    for obsid, exp, program in EXPOSURES:
        reduce_perfectly(night_dir, layout, obsid, exp, program, spoil)
    return [score_exposure(layout, night_dir, obsid, exp, CHANNEL, program) for obsid, exp, program in EXPOSURES]


@pytest.fixture(scope="module")
def perfect(night_dir, tmp_path_factory):
    return scored(night_dir, tmp_path_factory.mktemp("perfect"))


def test_perfect_reduction_meets_every_goal(perfect):
    assert [s.kind for s in perfect] == ["standard", "point", "point", "galaxy", "blank"]
    table = {CHANNEL: rows.measure(perfect)}
    assert set(table[CHANNEL]) == set(rows.definitions())
    assert rows.missed(table) == []


@pytest.mark.parametrize(
    ("row", "expected", "within"),
    [
        ("wave_bias", 0, 0.004), ("wave_rms", 0, 0.01), ("sky_binned", 1, 0.02), ("sky_lines", 1, 0.02), ("sky_bias", 0, 0.1),
        ("sky_ratio", 1, 0.002), ("pull", 1, 0.01), ("correlation", 0, 0.01), ("star_flux", 1, 0.001), ("faint_flux", 1, 0.01),
        ("star_trend", 0, 0.1), ("pair", 1, 0.6), ("noise", 1, 0.05), ("noise_error", 1, 0.05), ("position_mid", 0, 1e-5),
        ("position_path", 0, 1e-5), ("cosmics_left", 0, 0), ("flagged_clean", 0, 0), ("flat_all", 0, 0.15),
        ("levels", 0, 0.25),
    ],
)  # fmt: skip
def test_perfect_reduction_scores_what_is_known(perfect, row, expected, within):
    for value in rows.measure(perfect)[row]:
        assert value.value == pytest.approx(expected, abs=within)


def test_a_scale_that_nobody_can_know_is_taken_out_only_where_the_reduction_says_so():
    true = fits.Header([("TRANSPAR", 0.7), ("AREA", 5.0e5)])
    said = fits.Header([("ABSFERR", FLUX_UNCERTAINTY_DEFAULT), ("THROUGHP", 1.0), ("MILLUM", 5.14e5)])
    assert unknown_scale(said, true) == pytest.approx(0.7 * 5.0 / 5.14)
    said["ABSFERR"] = FLUX_UNCERTAINTY
    assert unknown_scale(said, true) == 1.0


@pytest.mark.parametrize("row", ["noise", "noise_error"])
def test_a_spread_is_allowed_what_its_samples_tell_of_it(perfect, row):
    """2.5 sigma of the robust spread of 2064 independent samples: 1.17 / sqrt(2064) each."""
    for value in rows.measure(perfect)[row]:
        assert value.allowance == pytest.approx(2.5 * 1.17 / np.sqrt(2064), rel=0.2)


def test_lines_stay_within_their_noise(perfect):
    lines = rows.measure(perfect)["lines"]
    assert len(lines) == 4
    for line in lines:
        assert abs(line.value - 1) < 1.5 * line.allowance
        assert 0.005 < line.allowance < 0.15


def test_what_is_spoilt_shows(night_dir, tmp_path):
    """Known errors, one per row, come back at their size."""
    x, y = channel(CHANNEL).fiber_positions().T
    uneven = 0.01 * np.random.default_rng(9).normal(size=280)

    def spoil(skysub, sky, error, wave, truth):
        step = wave[1] - wave[0]
        total = truth.sky + np.where(np.isfinite(truth.sigma_grid), truth.source, 0)
        for fiber in range(280):
            moved = np.interp(wave - 0.1 * step, wave, total[fiber]) - total[fiber]
            skysub[fiber] += moved + uneven[fiber] * truth.sky[fiber]
        skysub += 0.01 * truth.sky
        # 40 samples of a blank corner that a cosmic ray has hit
        corner = np.argmax(x + y - 100 * (error.max(axis=1) == 0))
        skysub[corner, 400:440] += 30 * error[corner, 400:440]
        error[:, 1000:1010] = 0
        error *= 1.5

    spoilt = scored(night_dir, tmp_path, spoil)
    table = rows.measure(spoilt)
    assert table["wave_bias"][0].value == pytest.approx(0.1, abs=0.01)
    assert table["sky_bias"][0].value == pytest.approx(1.0, abs=0.3)  # unevenness and cosmic ray add a little
    assert table["flat_all"][0].value == pytest.approx(1.0, abs=0.15)
    for value in table["levels"]:
        assert value.value == pytest.approx(1.0, abs=0.3)
    assert {v.value for v in table["cosmics_left"]} == {40.0}
    assert table["flagged_clean"][0].value == pytest.approx(100 * 10 / 2064, abs=0.05)
    for value in table["pull"]:
        assert value.value == pytest.approx(1 / 1.5, abs=0.05)
    missed = {line.split()[0] for line in rows.missed({CHANNEL: table})}
    assert {"wave_bias", "sky_bias", "flat_all", "flat_bins", "cosmics_left", "flagged_clean", "pull"} <= missed


def test_goals_are_complete():
    for name, facts in rows.definitions().items():
        assert {"title", "panacea", "digits", "how"} <= set(facts), name
        assert len(facts["panacea"]) == len(CHANNELS), name
    assert rows.goal("wave_rms", "uv") == Goal(high=0.03)
    assert rows.goal("wave_rms", "red") == Goal(high=0.012)
    assert rows.goal("faint_flux", "uv") == Goal(0.96, 1.04)
    assert rows.goal("correlation", "uv") is None


def test_goal_and_allowance():
    wanted = Goal(0.97, 1.03)
    assert wanted.excess(Value(1.0)) == pytest.approx(-0.03)
    assert wanted.excess(Value(0.90, allowance=0.08)) == pytest.approx(-0.01)
    assert wanted.excess(Value(1.10, allowance=0.05)) == pytest.approx(0.02)
    assert wanted.excess(Value(float("nan"))) == float("inf")
    found, met = rows.worst("faint_flux", "red", [Value(1.01), Value(0.9), Value(1.05)])
    assert (found.value, met) == (0.9, False)


def test_table_marks_what_is_missed():
    nights = [
        {"uv": {"faint_flux": [Value(1.0)]}},
        {"uv": {"faint_flux": [Value(1.1)]}, "red": {"faint_flux": [Value(1.02)]}},
    ]
    text = rows.markdown(rows.merge(nights))
    assert text.splitlines()[-1] == (
        "| flux of the faint source / truth | .62-.79 | 0.96 to 1.04; red 0.97 to 1.03 | **1.100** | 1.020 |"
    )


def test_times_of_cells(tmp_path):
    def cell(busy, idle, *tags):
        times = {f"iopub.status.{k}": f"2025-01-15T00:00:{s:09.6f}Z" for k, s in (("busy", busy), ("idle", idle))}
        return nbf.new_code_cell("1", metadata={"execution": times, "tags": list(tags)})

    path = tmp_path / "a.ipynb"
    book = nbf.new_notebook(cells=[cell(1, 3), cell(3.5, 4, "figure"), nbf.new_markdown_cell("x"), cell(5, 5.25)])
    nbformat.write(book, path)
    assert timing.cells(path) == pytest.approx((2.25, 0.5))


def test_cost_is_of_calibrations_and_three_exposures():
    def task(stage, exposure, cpu):
        return timing.Task(stage, "uv", exposure, 1.0, 0.2, 0.3, 1.5, cpu, 10**9)

    tasks = [task("02_trace", "None-None", 8.0), task("05_extract", "1-1", 3.0), task("06_sky", "1-1", 1.0),
             task("05_extract", "2-1", 6.0)]  # fmt: skip
    night = timing.Night(tasks, driver=4.0, wall=9.0, load=0.5, jobs=1)
    # one second of the driver per task: 9 for calibrations, (4 + 2 + 7) / 2 for a mean exposure
    assert night.per_channel() == {"uv": pytest.approx((9 + 3 * 6.5) / 0.5)}
    text = timing.markdown([night], ratio=0.6)
    assert "| wall time, 2 workers / 1 | | <= 0.55 | **0.60** |" in text
    assert "| 1.00 |" in text
    assert "| memory of worker and kernel [GB] | 2.7 | <= 1.5 | none |" in timing.markdown([timing.Night([], 4.0, 9.0, 0.5, 1)])


def test_reference_load_takes_time():
    assert 0.01 < load.reference_load() < 60


def test_readme_block(tmp_path):
    begin, end = benchmark.README_MARKS
    path = tmp_path / "README.md"
    path.write_text(f"a\n{begin}\nold\n{end}\nb\n")
    benchmark.write_readme(path, "new\n")
    assert path.read_text() == f"a\n{begin}\nnew\n{end}\nb\n"
    path.write_text("nothing")
    with pytest.raises(SystemExit):
        benchmark.write_readme(path, "new\n")
    readme = (benchmark.ROOT / "README.md").read_text()
    assert readme.count(begin) == readme.count(end) == 1
