"""Nights with one difficulty each: what their targets are, oval images, a reflection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panacea_nb import simulate
from panacea_nb.instrument import DEFAULT_AREA, N_COLUMNS, N_FIBERS, channel
from panacea_nb.simulate import detector
from panacea_nb.simulate.field import Galaxy, PointSource
from panacea_nb.simulate.optics import N_ROWS, channel_model
from panacea_nb.simulate.scenario import Target, plan_night

DATE = "20250115"


def test_an_oval_image_is_long_where_it_should_be_and_keeps_its_light():
    """Second moments of a narrow-winged image in the middle of the field: axes squared go as (1 + e) / (1 - e)."""
    ch = channel("orange")
    wave = np.full((N_FIBERS, 30), np.linspace(5700, 5900, 30))
    x, y = ch.fiber_positions().T
    # with the mean of the refraction table taken out the star stands in the field's middle
    path = PointSource(1.2, 30.0, 0.0, 0.0, 0.0).path(ch, np.array([5800.0]))
    place = (-float(path[0][0]), -float(path[1][0]))

    def moments(shear):
        share = PointSource(1.2, 30.0, *place, 0.0, shear).fraction(ch, wave)[:, 15]
        return share.sum(), (share * x**2).sum() / share.sum(), (share * y**2).sum() / share.sum()

    total, xx, yy = moments((0.0, 0.0))
    long_total, long_xx, long_yy = moments((0.1, 0.0))
    assert long_total == pytest.approx(total, rel=1e-3)
    lenslet = 0.59**2 / 12  # a lenslet's own width
    assert (long_xx - lenslet) / (long_yy - lenslet) == pytest.approx(1.1 / 0.9 * (xx - lenslet) / (yy - lenslet), rel=0.03)
    assert moments((-0.1, 0.0))[2] > moments((0.1, 0.0))[2]


def test_reflection_is_turned_about_the_middle_of_the_chip():
    model = channel_model(5, "orange", DATE)
    bright = replace(model, reflection=0.01, scatter=())
    image = np.zeros((N_ROWS, N_COLUMNS), np.float32)
    image[600:608, 1500:1508] = 1000.0
    halo = detector.scattered(bright, image)
    row, column = np.unravel_index(np.argmax(halo), halo.shape)
    down, right = detector.REFLECTION_SHIFT
    assert row == pytest.approx(N_ROWS - 604 + down, abs=16)
    assert column == pytest.approx(N_COLUMNS - 1504 + right, abs=16)
    assert halo.sum() == pytest.approx(0.01 * image.sum(), rel=0.02)


def test_only_nights_with_that_difficulty_have_it():
    scn = simulate.scenario("stress-optics")
    plans = [p for p in plan_night(DATE, 3, scn, DEFAULT_AREA) if p.kind == "sci"]
    sizes = [np.hypot(*p.shear) for p in plans]
    assert 0.5 * scn.oval <= min(sizes) < max(sizes) <= scn.oval
    plain = [p for p in plan_night(DATE, 3, replace(scn, oval=0.0), DEFAULT_AREA) if p.kind == "sci"]
    assert {p.shear for p in plain} == {(0.0, 0.0)}
    assert [p.seeing for p in plain] == [p.seeing for p in plans]  # the rest of the night stays what it is


def test_stress_scenarios_by_their_truth(tmp_path):
    """A bright star, a source on the edge and a blank field are what their scenarios promise; lost files are not there."""
    made = {t.kind if t.place is None else "edge": t for name in ("bright", "edge", "blank")
            for t in simulate.SCENARIOS[f"stress-{name}"].targets if t.arm == "B" and t.kind != "standard"}  # fmt: skip
    lost = (("sci", 1, "RL"), ("twi", 2, "RU"))
    scn = simulate.Scenario(
        tuple(replace(t, n_exposures=1) for t in made.values()), 0, 0, 2, 0, 0, layout="tree", guider=False, lost=lost
    )
    path = simulate.simulate_night(tmp_path, DATE, 4, "orange", scn, jobs=1)
    files = sorted("_".join(f.stem.split("_")[1:]) for f in (path / "lrs2").rglob("*.fits"))
    assert files == ["056RL_twi", "056RL_twi", *["056RU_sci"] * 3, "056RU_twi"]
    bright, edge, blank = (simulate.load_exposure(path, 2 + n, 1, "orange") for n in range(3))
    middle = slice(900, 1100)
    contrast = bright.source[:, middle].mean(axis=1).max() / bright.sky[:, middle].mean()
    assert 40 < contrast < 250
    assert np.hypot(edge.header["SOURCEX"] - 5.8, edge.header["SOURCEY"] - 1.0) < 1.0
    # much of the light misses the outermost fibres
    assert 0.4 < edge.source[:, 1000].sum() / edge.spectrum["flux"][1000] < 0.9
    assert not blank.has_source
    assert blank.header["KIND"] == "blank"
    with pytest.raises(simulate.ScenarioError, match="kind"):
        Target("A", "comet", "B", 30.0)


def test_focus_widens_the_fibres_of_science_frames_alone(tmp_path):
    """Second moment across dispersion of a lone group's light in twilight and science, over its own fibres."""
    from astropy.io import fits

    target = next(t for t in simulate.SCENARIOS["stress-blank"].targets if t.arm == "B" and t.kind == "blank")
    valleys = {}
    for focus in (0.0, 0.05):
        scn = simulate.Scenario((target,), 0, 0, 1, 0, 0, layout="tree", focus=focus)
        path = simulate.simulate_night(tmp_path / str(focus), DATE, 4, "orange", scn, jobs=1)
        for kind in ("twi", "sci"):
            frame = next((path / "lrs2").rglob(f"*_056RL_{kind}.fits"))
            part = np.median(fits.getdata(frame)[:1032, 900:1100].astype(float), axis=1)[400:600]
            light = part - part.min()
            valleys[kind, focus] = np.percentile(light, 25) / np.percentile(light, 95)
    assert valleys["twi", 0.05] == pytest.approx(valleys["twi", 0.0], rel=0.01)
    assert valleys["sci", 0.05] > 1.02 * valleys["sci", 0.0]


def test_half_of_a_galaxys_light_is_within_its_radius():
    """Of a round one in perfect seeing, whatever its Sersic index; and it stands where it should."""
    ch = channel("orange")
    wave = np.full((N_FIBERS, 2), [5799.0, 5801.0])
    x, y = ch.fiber_positions().T
    for index in (0.5, 1.0, 2.0):
        path = Galaxy(0.3, 5.0, 0.0, 0.0, 1.5, 1.0, 0.0, index=index).path(ch, np.array([5800.0]))
        place = (-float(path[0][0]), -float(path[1][0]))
        share = Galaxy(0.3, 5.0, *place, 1.5, 1.0, 0.0, index=index).fraction(ch, wave)[:, 0]
        assert share[np.hypot(x, y) < 1.5].sum() == pytest.approx(0.5, abs=0.06)
        assert (share * x).sum() == pytest.approx(0.0, abs=0.05)


def test_ramps_change_from_frame_to_frame_and_mean_nothing():
    amp = detector.amplifier(3, "orange", "RL")
    frames = [detector.read_out(None, amp, 0.0, np.random.default_rng(k), ramp=2.0).astype(float) for k in range(40)]
    plain = [detector.read_out(None, amp, 0.0, np.random.default_rng(k)).astype(float) for k in range(4)]
    rise = [f[:, 1800:2000].mean() - f[:, 64:264].mean() for f in frames]
    usual = np.mean([f[:, 1800:2000].mean() - f[:, 64:264].mean() for f in plain])
    assert np.std(rise) == pytest.approx(2.0 * 1736 / 1031.5, rel=0.3)
    assert np.mean(rise) == pytest.approx(usual, abs=1.6)


def test_every_stress_night_can_be_planned():
    names = [n for n in simulate.SCENARIOS if n.startswith("stress-")]
    assert len(names) == 15
    for name in names:
        plans = plan_night(DATE, 2, simulate.scenario(name), DEFAULT_AREA)
        kinds = [p.target.kind for p in plans if p.kind == "sci" and p.target.arm == "B"]
        assert kinds[0] == "standard"
        assert len(kinds) > 1
        assert {(p.kind, p.exp) for p in plans} >= {lost[:2] for lost in simulate.scenario(name).lost}
