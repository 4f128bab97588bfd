"""The simulator against itself: what the truth says must be what the frames hold."""

from __future__ import annotations

import argparse
import io
import tarfile
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits

from panacea_nb import simulate
from panacea_nb.errors import RequestError
from panacea_nb.instrument import AMP_ROWS, DEFAULT_AREA, N_COLUMNS, N_FIBERS, N_WAVE, OVERSCAN, channel
from panacea_nb.simulate import detector, exposures, field, light, optics
from panacea_nb.simulate.scenario import Target, plan_night
from panacea_nb.simulate.spectra import Pixels, Spectrum

DATE = "20250115"
SMALL = simulate.Scenario((Target("FEIGE_34", "standard", "B", 120.0),), n_bias=2, n_dark=1, n_twilight=1, n_flat=1)


@pytest.fixture(scope="module")
def model():
    return optics.channel_model(7, "orange", DATE)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    return simulate.simulate_night(root, DATE, 7, "orange", SMALL, jobs=1)


def read(night, obsid, exp=1):
    """Frames of an exposure: {amplifier: (data, header)}."""
    out = {}
    with tarfile.open(night / "lrs2" / f"lrs2{obsid:07d}.tar") as tar:
        for name in tar.getnames():
            if f"/exp{exp:02d}/" in name:
                with fits.open(io.BytesIO(tar.extractfile(name).read())) as hdus:
                    out[name.split("_")[-2][3:]] = hdus[0].data, hdus[0].header
    return out


def stacked(frames, amps):
    """Image [e-] of a channel, by the rules of the raw format."""
    halves = []
    for amp in amps:
        data, header = frames[amp]
        data = data.astype(float)
        image = data[:, :N_COLUMNS] - data[:, N_COLUMNS + 3 :].mean(axis=1, keepdims=True)
        halves.append(header["GAIN"] * (image[::-1, ::-1] if amp in ("LU", "RL") else image))
    return np.concatenate(halves)


def test_profile_conserves_light(model):
    rows = np.arange(80, 121)
    center, scale = np.array([100.0, 100.3, 100.5]), np.array([1.0, 0.97, 1.03])
    weights = model.profile.weights(rows, center, scale)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose((weights * rows[:, None]).sum(axis=0), center, atol=1e-3)
    low = np.floor(center).astype(int) - rows[0]
    k = np.arange(3)
    by_hand = 0.5 * (weights[low, k] + weights[low + 1, k])
    np.testing.assert_allclose(model.profile.central(center[None], scale[None])[0], by_hand)
    # FWHM of about 4 px
    half = weights[:, 0] > 0.5 * weights[:, 0].max()
    assert 3 <= half.sum() <= 5


def test_render_gives_profile_sum_times_amplitude(model):
    amplitude = 1000.0
    light_ = np.zeros((N_FIBERS, N_COLUMNS))
    chosen = [10, 150, 270]
    light_[chosen] = model.profile_sum * amplitude
    image, _ = detector.render(model, light_, model.trace)
    halo = detector.scattered(model, detector.render(model, light_, model.trace)[0])
    assert 0.02 < halo.sum() / light_.sum() < 0.045
    flat = model.pixel_flat
    centrals = []
    for i in chosen:
        rows = int(model.trace[i].min()) - 16, int(model.trace[i].max()) + 17
        clean = image / flat
        clean = clean - detector.scattered(model, clean / (1 + sum(p for p, _ in model.scatter)))
        total = clean[slice(*rows)].sum(axis=0)
        np.testing.assert_allclose(np.median(total), model.profile_sum * amplitude, rtol=2e-3)
        low = np.floor(model.trace[i]).astype(int)
        columns = np.arange(N_COLUMNS)
        centrals.append(0.5 * (clean[low, columns] + clean[low + 1, columns]))
    # single fibres' profiles differ by some per cent from the mean one, of which K speaks
    np.testing.assert_allclose(np.mean(centrals), amplitude, rtol=0.05)


def test_profile_sum_is_that_of_the_mean_fiber(model):
    some = slice(0, None, 64)
    central = model.profile.central(model.trace[~model.dead][:, some], model.scale[~model.dead][:, some])
    np.testing.assert_allclose(1 / central.mean(), model.profile_sum, rtol=1e-3)
    assert 4.2 < model.profile_sum < 5.0


def test_optics_are_near_the_tables(model):
    rows, _ = channel("orange").fiber_locations(DATE)
    assert np.abs(model.trace[:, N_COLUMNS // 2] - rows).max() < 6
    assert np.all(np.diff(model.trace, axis=0) > 5.5)
    assert model.wave[:, 0].max() < channel("orange").wave_min
    assert model.wave[:, -1].min() > channel("orange").wave_max
    fwhm = 2.3548 * model.sigma
    assert fwhm.min() > 3.3
    assert fwhm.max() < 5.6
    np.testing.assert_allclose(model.throughput[~model.dead].mean(axis=0), 1)
    assert 0.04 < model.throughput[~model.dead].mean(axis=1).std() < 0.09
    assert 0.008 < model.pixel_flat.std() < 0.02


def test_uv_wavelengths_follow_the_reference():
    from panacea_nb.instrument import reference_wavelength

    uv = optics.channel_model(7, "uv", DATE)
    shift = (reference_wavelength("uv") - uv.wave) / uv.dispersion
    assert np.abs(shift).max() < 1.2
    assert np.ptp(shift, axis=1).max() < 0.3


def test_lines_land_at_their_wavelength(model):
    pixels = model.pixels()
    wave = 5577.35
    line = Spectrum(4000.0, 1.0, np.zeros(3500), np.array([[wave, 5.0, 0.0]]))
    flux = pixels.sample(line) * pixels.width
    np.testing.assert_allclose(flux.sum(axis=1), 5.0, rtol=1e-4)
    columns = np.arange(N_COLUMNS)
    for i in (0, 100, 279):
        centroid = (flux[i] * columns).sum() / flux[i].sum()
        assert abs(centroid - np.interp(wave, model.wave[i], columns)) < 2e-3
        width = np.sqrt((flux[i] * (columns - centroid) ** 2).sum() / flux[i].sum())
        near = int(centroid)
        wings = 1 + model.lsf_wing * (2.0**2 - 1)
        np.testing.assert_allclose(width**2, model.sigma[i, near] ** 2 * wings + 1 / 12, rtol=0.01)


def test_blurred_continuum_equals_a_direct_convolution():
    wave = np.arange(5000, 5200, 0.05)
    spectrum = Spectrum(5000.0, 0.05, 1 + 0.5 * np.sin(wave / 3.0))
    edges = np.arange(5050, 5150, 0.5)
    sigma = np.linspace(0.8, 1.1, edges.size - 1)
    pixels = Pixels(edges[None, :-1], edges[None, 1:], sigma[None], 0.0)
    k = 1 / 3.0
    damped = 0.5 * np.exp(-0.5 * (k * sigma) ** 2) * np.sinc(k * 0.25 / np.pi)
    expected = 1 + damped * np.sin(k * 0.5 * (edges[1:] + edges[:-1]))
    np.testing.assert_allclose(pixels.sample(spectrum)[0], expected, atol=2e-4)


def test_point_source_light_is_integrated_over_lenslets():
    ch = channel("orange")
    star = field.PointSource(1.5, 3.5, -0.45, 0.1)
    wave = np.linspace(ch.wave_min, ch.wave_max, 50)
    fraction = star.fraction(ch, wave)
    assert fraction.shape == (N_FIBERS, 50)
    x, y = star.path(ch, wave)
    xy = ch.fiber_positions()
    nearest = np.argmin(np.hypot(xy[:, 0] - x[25], xy[:, 1] - y[25]))
    assert nearest == np.argmax(fraction[:, 25])
    # brute force over the same lenslet
    t = (np.arange(400) + 0.5) / 400 - 0.5
    dx, dy = np.meshgrid(xy[nearest, 0] + 0.59 * t - x[25], xy[nearest, 1] + 0.59 * t - y[25])
    alpha2 = (1.5 * (wave[25] / 5000) ** -0.2 / 2) ** 2 / (2 ** (1 / 3.5) - 1)
    brute = np.mean(2.5 / (np.pi * alpha2) * (1 + (dx**2 + dy**2) / alpha2) ** -3.5) * 0.59**2
    np.testing.assert_allclose(fraction[nearest, 25], brute, rtol=1e-4)
    assert fraction.sum(axis=0).min() > 0.97
    assert fraction.sum(axis=0).max() < 1


def test_galaxy_covers_a_third_of_the_field():
    ch = channel("orange")
    galaxy = field.Galaxy(1.5, 3.5, 1.5, 0, 2.0, 0.7, 0.3)
    fraction = galaxy.fraction(ch, ch.wave_grid()[::200])[:, 5]
    assert 0.8 < fraction.sum() < 1
    assert 60 < np.sum(fraction > 0.15 * fraction.max()) < 140


def test_sky_lines_stand_at_the_listed_wavelengths():
    for name in ("orange", "red", "farred"):
        ch = channel(name)
        sky = light.night_sky(ch, "dark", 1.0)
        inside = ch.sky_lines()[(ch.sky_lines() > ch.wave_min) & (ch.sky_lines() < ch.wave_max)]
        known = np.array([np.min(np.abs(sky.lines[:, 0] - w)) for w in inside])
        assert np.mean(known < 1e-3) > 0.8
        assert sky.continuum.min() > 0


def test_gradient():
    even = field.gradient(channel("red"), 0.02, np.random.default_rng(3))
    np.testing.assert_allclose(even.mean(), 1)
    np.testing.assert_allclose(np.ptp(even), 0.02)


def test_photon_noise():
    rng = np.random.default_rng(0)
    for mean in (0.5, 20.0, 500.0):
        drawn = detector.photons(np.full((300, 300), mean, np.float32), rng)
        np.testing.assert_allclose(drawn.mean(), mean, rtol=0.01)
        np.testing.assert_allclose(drawn.var(), mean, rtol=0.03)


def test_cosmic_rays_follow_time():
    row, column, charge = detector.cosmic_rays(900.0, 0.05, np.random.default_rng(5))
    assert row.size > 500
    assert charge.max() > 1000
    assert row.max() < 2 * AMP_ROWS
    assert column.max() < N_COLUMNS
    assert np.unique(row * N_COLUMNS + column).size == row.size
    assert detector.cosmic_rays(0.0, 0.05, np.random.default_rng(5))[0].size == 0


def test_ideal_variance_by_hand(model):
    """With read noise only, the variance is RN^2 / sum(p^2)."""
    image, profiles = detector.render(model, np.zeros((N_FIBERS, N_COLUMNS)), model.trace, keep=True)
    variance = detector.ideal_variance(model, image, profiles, np.full((2 * AMP_ROWS, 1), 3.0))
    first, weights = profiles[42]
    seen = weights[:, 500] * model.pixel_flat[first : first + weights.shape[0], 500]
    np.testing.assert_allclose(variance[42, 500], 9 / np.sum(seen**2), rtol=1e-5)
    binned = detector.ideal_variance(model, image, profiles, np.full((2 * AMP_ROWS, 1), 3.0), binning=2)
    # one read-out for two columns
    np.testing.assert_allclose(binned[42, 250], variance[42, 500], rtol=0.05)


def test_archive_layout(night):
    assert night.name == DATE
    with tarfile.open(night / "lrs2" / "lrs20000001.tar") as tar:
        names = tar.getnames()
    assert len(names) == 2 * 2
    # the first frames were taken before midnight UT: the date in the name is not the folder's
    assert "lrs20000001/exp01/lrs2/20250114T234000.0_056RU_zro.fits" in names
    kinds = {e["obsid"]: e["kind"] for e in simulate.load_manifest(night)["exposures"]}
    assert list(kinds.values()) == ["zro", "drk", "twi", "sci", "flt", "cmp", "cmp", "cmp"]


def test_bias_level_and_noise(night):
    for exp in (1, 2):
        for amp, (data, header) in read(night, 1, exp).items():
            assert data.dtype == np.uint16
            assert data.shape == (AMP_ROWS, N_COLUMNS + OVERSCAN)
            truth = detector.amplifier(7, "orange", amp)
            over = data[:, N_COLUMNS + 3 :].astype(float)
            assert abs(over.mean() - truth.level) < 8
            noise = np.diff(over, axis=1).std() / np.sqrt(2) * header["GAIN"]
            np.testing.assert_allclose(noise, np.hypot(header["RDNOISE"], 0.29 * header["GAIN"]), rtol=0.02)
            # the first overscan column is spoilt
            assert data[:, N_COLUMNS].mean() - over.mean() > 4


def test_header_cards(night):
    data, header = read(night, 4)["RL"]
    assert (header["OBJECT"], header["IFUSLOT"], header["SPECID"], header["IFUID"]) == (
        header["OBJECT"],
        "056",
        "503",
        "7001",
    )
    assert header["OBJECT"][:12] == "FEIGE_34_056"
    assert (header["CCDPOS"], header["CCDHALF"], header["AMPNAME"]) == ("R", "L", "RL")
    assert (header["EXPTIME"], header["REXPTIME"]) == (120, 120)
    assert "QPROG" not in header
    datetime.fromisoformat(header["DATE"])
    for key in (
        "QOBJECT",
        "QRA",
        "QDEC",
        "TRAJRA",
        "TRAJDEC",
        "PARANGLE",
        "DARKTIME",
        "UT",
        "CONTID",
        "AMBTEMP",
        "HUMIDITY",
    ):
        assert key in header


def test_orientation_and_counts_of_a_twilight(night, model):
    image = stacked(read(night, 3), channel("orange").amps)
    plan = next(p for p in plan_night(DATE, 7, SMALL, DEFAULT_AREA) if p.kind == "twi")
    expected = exposures.calibration_light(exposures.Context(7, DATE, SMALL, ("orange",), None), plan, model)
    trace, _ = model.flexed(plan.flexures["orange"])
    columns = np.arange(N_COLUMNS)
    for i in (3, 136, 143, 276):
        rows = np.rint(trace[i]).astype(int)
        ridge, gap = image[rows, columns], image[rows - 3, columns]
        assert np.median(ridge / gap) > 1.8
        # the ridge pixel holds about 1 / K of the fibre's light
        ratio = np.median(ridge[200:1800] * model.profile_sum / expected[i, 200:1800])
        np.testing.assert_allclose(ratio, 1.05, atol=0.15)


def test_standard_counts_agree_with_truth(night, model):
    """An extraction of the raw frame with the true profile gives the true flux, within the ideal noise."""
    truth = simulate.load_exposure(night, 4, 1, "orange")
    assert truth.has_source
    assert truth.source.shape == (N_FIBERS, N_WAVE)
    image = stacked(read(night, 4), channel("orange").amps)
    bias = np.concatenate([
        a.structure * a.gain if a.name == "RU" else a.structure[::-1, ::-1] * a.gain
        for a in (detector.amplifier(7, "orange", n) for n in ("RU", "RL"))
    ])  # fmt: skip
    image = image - bias
    trace, wave = model.flexed(truth.flexure)
    width = model.pixels(truth.flexure).width
    header = truth.header
    exposure = header["EXPTIME"] * header["AREA"] * header["TRANSPAR"]
    factor = model.profile_sum * model.throughput * width * exposure / model.response(wave)
    total = np.array([np.interp(w, truth.wave, s) for w, s in zip(wave, truth.sky + truth.source, strict=True)])
    expected, profiles = detector.render(model, factor * total, trace, keep=True)
    residual = np.where(truth.cosmic_mask(3), 0, image - expected)
    brightest = np.argsort(truth.source.sum(axis=1))[-20:]
    for i in brightest:
        first, weights = profiles[i]
        rows = slice(first, first + weights.shape[0])
        p, v = weights * model.pixel_flat[rows], expected[rows] + 9
        off = (p * residual[rows] / v).sum(axis=0) / (p * p / v).sum(axis=0) / factor[i]
        z = (off / truth.sigma[i])[300:1700]
        assert abs(np.median(z)) < 0.2, i
        np.testing.assert_allclose(1.4826 * np.median(np.abs(z - np.median(z))), 1, atol=0.12)
        assert abs(np.mean(off[300:1700]) / np.mean(truth.source[i])) < 0.01
    flux = light.standard_spectrum(channel("orange"), "FEIGE_34", 1.1)
    smooth = truth.spectrum["flux"]
    np.testing.assert_allclose(
        np.interp(6000, truth.wave, smooth), np.interp(6000, flux.wave, flux.continuum), rtol=1e-3
    )


def test_flexure_within_range(night):
    truth = simulate.load_exposure(night, 4, 1, "orange")
    for middle, *slopes in (truth.flexure.row, truth.flexure.column):
        assert 0.1 <= abs(middle) <= 0.3
        assert np.abs(slopes).max() <= 0.05


def test_guider_means_are_the_truth(night):
    entry = next(e for e in simulate.load_manifest(night)["exposures"] if e["kind"] == "sci")
    transparency, area, iq = [], [], []
    for camera in ("gc1", "gc2"):
        with tarfile.open(night / camera / f"{camera}.tar") as tar:
            for name in tar.getnames():
                assert name.startswith("20250115T0")
                with fits.open(io.BytesIO(tar.extractfile(name).read())) as hdus:
                    h = hdus[0].header
                if h["GUIDLOOP"] == "ACTIVE" and h["TRANSPAR"] > 0:
                    transparency.append(h["TRANSPAR"])
                    area.append(h["PUPILLUM"] * DEFAULT_AREA)
                    iq.append(h["IQ"])
    assert len(transparency) >= 6
    np.testing.assert_allclose(np.mean(transparency), entry["transparency"], rtol=0.015)
    np.testing.assert_allclose(np.mean(area), entry["area"], rtol=0.01)
    np.testing.assert_allclose(np.mean(iq), entry["seeing"], rtol=0.1)


def test_channel_truth_reads_back(night, model):
    truth = simulate.load_channel(night, "orange")
    np.testing.assert_array_equal(truth.trace, model.trace)
    np.testing.assert_array_equal(truth.wavelength, model.wave)
    np.testing.assert_array_equal(truth.dead, model.dead)
    assert truth.profile_sum == model.profile_sum
    assert truth.bias.shape == truth.pixel_flat.shape == (2 * AMP_ROWS, N_COLUMNS)


def test_missing_truth_is_told(night):
    with pytest.raises(simulate.TruthError, match="no truth"):
        simulate.load_exposure(night, 4, 1, "red")


def test_seed_changes_everything_and_jobs_nothing(night, tmp_path):
    few = simulate.Scenario((Target("A", "point", "B", 30.0),), n_bias=1, n_dark=0, n_twilight=0, n_flat=0, n_arc=0)
    one = simulate.simulate_night(tmp_path / "one", DATE, 7, "orange", few, jobs=1)
    two = simulate.simulate_night(tmp_path / "two", DATE, 7, "orange", few, jobs=2)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    other = optics.channel_model(8, "orange", DATE)
    mine = optics.channel_model(7, "orange", DATE)
    for name in ("trace", "wave", "sigma", "throughput", "pixel_flat", "profile_sum"):
        assert not np.any(np.asarray(getattr(other, name)) == np.asarray(getattr(mine, name))) or name == "pixel_flat"
    assert np.mean(other.pixel_flat == mine.pixel_flat) < 0.01
    mine, other = detector.amplifier(7, "orange", "RU"), detector.amplifier(8, "orange", "RU")
    assert mine.level != other.level
    assert mine.gain != other.gain


def test_same_target_in_all_exposures():
    target = Target("A", "point", "B", 900.0, 2)
    plans = [p for p in plan_night(DATE, 3, simulate.Scenario((target,)), DEFAULT_AREA) if p.kind == "sci"]
    assert len(plans) == 2
    assert plans[0].transparency != plans[1].transparency
    ch = channel("uv")
    first = exposures.target_spectrum(3, plans[0].target, ch, "dark", 0.5)
    second = exposures.target_spectrum(3, plans[1].target, ch, "dark", 0.5)
    np.testing.assert_array_equal(first.continuum, second.continuum)
    assert first.lines.shape == (2, 3)
    # uv and orange join
    orange = exposures.target_spectrum(3, target, channel("orange"), "dark", 1.1)
    np.testing.assert_allclose(
        np.interp(4640, first.wave, first.continuum), np.interp(4640, orange.wave, orange.continuum), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("night", f"{DATE}/lrs2/lrs20000001.tar"),
        ("night-files", f"{DATE}/lrs2/lrs20000001/exp01/lrs2/20250114T234000.0_066LL_zro.fits"),
    ],
)
def test_packed_layouts(tmp_path, layout, expected):
    tiny = simulate.Scenario(n_bias=1, n_dark=0, n_twilight=0, n_flat=0, n_arc=0, layout=layout, guider=False)
    path = simulate.simulate_night(tmp_path, DATE, 1, "red", tiny, jobs=1)
    with tarfile.open(tmp_path / f"{DATE}.tar") as tar:
        assert expected in tar.getnames()
    assert not (path / "lrs2").exists()
    assert simulate.load_manifest(path)["seed"] == 1


def test_oddities_of_real_headers(tmp_path):
    odd = simulate.Scenario(
        (Target("A", "point", "R", 30.0),), n_bias=0, n_dark=0, n_twilight=0, n_flat=0, n_arc=0, layout="tree",
        binning=2, trajra_hours=True, negative_exptime=True, mirrored=("LU",), blank_gain=("LL",),
    )  # fmt: skip
    path = simulate.simulate_night(tmp_path, DATE, 1, "red", odd, jobs=1)
    frames = {}
    for file in (path / "lrs2").rglob("*_sci.fits"):
        with fits.open(file) as hdus:
            frames[file.name.split("_")[1][3:]] = hdus[0].data, hdus[0].header
    assert set(frames) == {"LL", "LU"}
    data, header = frames["LU"]
    assert data.shape == (AMP_ROWS, (N_COLUMNS + OVERSCAN) // 2)
    assert header["AMPNAME"] == "UL"
    assert header["GAIN"] > 0
    assert frames["LL"][1]["GAIN"] == 0
    assert header["EXPTIME"] < 0
    assert header["REXPTIME"] + 7 == 30
    hours = [float(p) for p in header["QRA"].split(":")]
    np.testing.assert_allclose(header["TRAJRA"], hours[0] + hours[1] / 60 + hours[2] / 3600, atol=1e-5)
    truth = simulate.load_exposure(path, 1, 1, "red")
    assert truth.sigma.shape == (N_FIBERS, N_COLUMNS // 2)
    assert truth.sigma_grid.shape == (N_FIBERS, N_WAVE)
    # in 30 s read noise rules: two columns in one read, twice as wide, halve the noise of a flux density
    unbinned = simulate.Scenario(odd.targets, 0, 0, 0, 0, 0, layout="tree")
    path = simulate.simulate_night(tmp_path / "1x1", DATE, 1, "red", unbinned, jobs=1)
    single = simulate.load_exposure(path, 1, 1, "red").sigma
    live = ~simulate.load_channel(path, "red").dead
    # (two reads would give 0.71)
    assert 0.5 <= np.median(truth.sigma[live] / single[live][:, ::2]) < 0.56


def test_invalid_requests(tmp_path, night):
    with pytest.raises(simulate.ScenarioError, match="exists already"):
        simulate.simulate_night(night.parent, DATE, 1, "red", SMALL)
    with pytest.raises(simulate.ScenarioError, match="YYYYMMDD"):
        simulate.simulate_night(tmp_path, "2025-01-15", 1, "red", SMALL)
    with pytest.raises(RequestError, match="no channel"):
        simulate.simulate_night(tmp_path, DATE, 1, "blue", SMALL)
    with pytest.raises(simulate.ScenarioError, match="sky"):
        simulate.Scenario(sky="pink")
    with pytest.raises(simulate.ScenarioError, match="choose among"):
        simulate.scenario("nothing")
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    args = parser.parse_args(
        [str(tmp_path), "--date", DATE, "--scenario", "demo", "--sky", "grey", "--binning", "2x1", "--no-guider"]
    )
    assert (args.sky, args.binning, args.no_guider, args.seed) == ("grey", "2x1", True, 1)
    small = simulate.Scenario(n_bias=1, n_dark=0, n_twilight=0, n_flat=0, n_arc=0)
    simulate.SCENARIOS["demo"], kept = small, simulate.SCENARIOS["demo"]
    try:
        args.jobs, args.sides = 1, "uv"
        assert simulate.run(args) == 0
    finally:
        simulate.SCENARIOS["demo"] = kept
    assert "Simulated night" in capsys.readouterr().out
    frames = read(tmp_path / DATE, 1)
    assert {a: d.shape for a, (d, _) in frames.items()} == {"LL": (AMP_ROWS, 1064), "LU": (AMP_ROWS, 1064)}
