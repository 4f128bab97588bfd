"""The user's choices of sky against a known one: fibres named, an object's region, another exposure, refinements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from field_factory import (
    ALIVE,
    CENTERS,
    EXTRA,
    FAINT_LINES,
    LSF,
    MIDDLE,
    NF,
    NX,
    PATH,
    POSITIONS,
    RANGE,
    SKY,
    THROUGHPUT,
    UNIT,
    WAVE,
    F,
    arrays,
    observe,
    share_of,
)

from panacea_nb.reduce.fieldmodel import model_field
from panacea_nb.reduce.sky import SkyError, fit_sky
from panacea_nb.reduce.skychoice import OtherSky, SkyChoice, sky_fit
from panacea_nb.reduce.skyrefine import refined
from panacea_nb.reduce.skyregion import fiber_list, parse_region

INNER = slice(8, -8)
# An object that fills the field, with a line of its own: its light nowhere falls below 40 % of the sky's continuum.
BRIGHT = 16.0 + 60.0 * np.exp(-0.5 * (np.hypot(POSITIONS[:, :1], 1.5 * POSITIONS[:, 1:]) / 3.0) ** 2)
OWN_LINE = 6.0 * BRIGHT * np.exp(-0.5 * ((WAVE - 5075.0) / 2.5) ** 2)
GALAXY = BRIGHT * (1 + 0.1 * (WAVE - MIDDLE) / 160) + OWN_LINE


def choose(**asked):
    return sky_fit(SkyChoice(**asked), POSITIONS, PATH, RANGE, MIDDLE)


def field_of(data, variance, rounds=2, **asked):
    mask = np.where(ALIVE[:, None], 0, 32).astype(np.uint8) * np.ones(data.shape, np.uint8)
    return model_field(
        data,
        variance,
        mask,
        WAVE,
        LSF,
        THROUGHPUT,
        POSITIONS,
        ALIVE,
        PATH,
        MIDDLE,
        rounds=rounds,
        sky_fit=choose(**asked),
    )


def bias(sky, truth):
    """Mean error of the model over the mean sky."""
    error = (sky.native() - truth)[ALIVE][:, INNER]
    return float(error.mean() / truth[ALIVE][:, INNER].mean())


@pytest.fixture(scope="module")
def other():
    """The sky that an exposure of blank sky left."""
    data, variance, _ = observe(np.random.default_rng(810))
    sky = fit_sky(*arrays(data, variance))
    nodes = np.linspace(*RANGE, sky.spectrum.coef.size)
    return OtherSky(
        "0000009_exp01", replace(sky.spectrum, matrix=np.zeros((1, 1))), nodes, sky.spectrum.variance(nodes), 900.0
    )


def test_automatic_choice_is_the_usual_fit():
    assert choose() is fit_sky


def test_sky_of_a_region_is_that_of_its_fibres():
    """Half of the field is lit by an object as bright as the sky; the other half was named."""
    light = np.where(POSITIONS[:, :1] > 0, 40.0, 0.0)
    data, variance, truth = observe(np.random.default_rng(811), light)
    sky = choose(mode="region", region=parse_region("circle(-4,0,2.5)"))(*arrays(data, variance))
    assert abs(bias(sky, truth)) < 0.003
    distance = np.hypot(POSITIONS[:, 0] + 4, POSITIONS[:, 1])
    assert sky.fibers[(distance < 2.1) & ALIVE].all()
    assert not sky.fibers[distance > 3].any()
    assert not sky.fibers[~ALIVE].any()


def test_fibres_by_number_are_taken_and_no_others():
    data, variance, truth = observe(np.random.default_rng(812))
    fibers = fiber_list("1-40,200-220", NF)
    sky = choose(mode="mask", fibers=fibers)(*arrays(data, variance), exclude=np.ones(NF, bool))
    assert (sky.fibers == (fibers & ALIVE)).all()
    assert abs(bias(sky, truth)) < 0.003


def test_too_few_fibres_are_refused():
    data, variance, _ = observe(np.random.default_rng(813))
    with pytest.raises(SkyError, match="3 living fibres were named as sky, 5 are needed"):
        choose(mode="mask", fibers=fiber_list("16-19", NF))(*arrays(data, variance))


def test_the_objects_region_is_never_sky():
    """A faint patch (3 % of the sky), which the automatic choice cannot tell from sky."""
    patch = np.hypot(POSITIONS[:, 0] - 2, POSITIONS[:, 1]) < 2.5
    data, variance, truth = observe(np.random.default_rng(814), np.where(patch[:, None], 1.2, 0.0))
    sky = choose(exclude=parse_region("circle(2,0,3)"))(*arrays(data, variance))
    assert not sky.fibers[patch].any()
    assert sky.fibers.sum() > 120
    assert abs(bias(sky, truth)) < 0.003


@pytest.mark.parametrize("times", [0.6, 1.0, 1.7])
def test_sky_of_another_exposure_under_an_object_that_fills_the_field(other, times):
    """Within 1 % of the sky, where the automatic choice takes much of the object for sky; its error says so."""
    data, variance, truth = observe(np.random.default_rng(815), GALAXY, times=times)
    sky = choose(mode="exposure", other=other, exptime=900.0)(*arrays(data, variance), source=None, exclude=None)
    assert abs(bias(sky, truth)) < 0.01
    assert abs(sky.scale[0] / times - 1) < 4 * sky.scale_error[0] / times + 0.002
    assert sky.scale_error[0] / times < 0.01
    assert bias(fit_sky(*arrays(data, variance)), truth) > 0.1
    assert (sky.gradient == 1).all()
    # What is left is the object and noise: its own line is still there.
    rest = (data - sky.native()) / UNIT
    line = np.abs(WAVE - 5075.0) < 6
    assert rest[ALIVE][line[ALIVE]].sum() / GALAXY[ALIVE][line[ALIVE]].sum() == pytest.approx(1.0, abs=0.02)
    on_lines = np.abs(WAVE[..., None] - CENTERS).min(axis=-1) < 3
    pull = ((data - sky.native() - GALAXY * UNIT) / np.sqrt(np.maximum(variance + sky.native_variance(), 1)))[ALIVE]
    assert np.std(pull[on_lines[ALIVE]]) == pytest.approx(1.0, abs=0.03)


def test_wavelengths_of_the_other_sky_are_brought_to_ours(other):
    """Our lines are .25 A away from where the other exposure's wavelengths have them."""
    night = SKY(WAVE - 0.25, EXTRA) * UNIT
    rng = np.random.default_rng(816)
    variance = np.where(ALIVE[:, None], night + 16.0 + GALAXY * UNIT, 0.0)
    data = (night + GALAXY * UNIT) * ALIVE[:, None] + np.sqrt(variance) * rng.normal(size=night.shape)
    sky = choose(mode="exposure", other=other, exptime=900.0)(*arrays(data, variance))
    assert sky.spectrum.start - other.spectrum.start == pytest.approx(0.25, abs=0.01)
    assert abs(bias(sky, night)) < 0.01


def test_factor_that_changes_along_the_channel(other):
    slope = 1.2 + 0.15 * (2 * (WAVE - RANGE[0]) / (RANGE[1] - RANGE[0]) - 1)
    data, variance, truth = observe(np.random.default_rng(817), GALAXY, factor=slope)
    sky = choose(mode="exposure", other=other, exptime=900.0, degree=1)(*arrays(data, variance))
    assert sky.scale == pytest.approx([1.2, 0.15], abs=0.02)
    assert abs(bias(sky, truth)) < 0.01


def test_without_lines_the_exposure_times_give_the_factor():
    data, variance, _ = observe(np.random.default_rng(818), sky=FAINT_LINES)
    blank = fit_sky(*arrays(data, variance))
    nodes = np.linspace(*RANGE, 200)
    other = OtherSky("0000009_exp01", blank.spectrum, nodes, np.full(200, 0.01), 600.0)
    data, variance, truth = observe(np.random.default_rng(819), GALAXY, sky=FAINT_LINES, times=1.5)
    sky = choose(mode="exposure", other=other, exptime=900.0)(*arrays(data, variance))
    assert sky.scale[0] == 1.5
    assert sky.scale_error[0] == pytest.approx(0.075)
    assert [d.severity for d in sky.decisions if d.code == "SKYSCALE"] == ["warn"]
    assert abs(bias(sky, truth)) < 0.01
    assert np.median(np.sqrt(sky.native_variance())[ALIVE] / truth[ALIVE]) == pytest.approx(0.05, rel=0.05)


def test_field_with_the_sky_of_another_exposure(other):
    """A star on blank sky: sky and star come out as with the own sky."""
    star = 6000.0 * share_of(0.6, -0.4)
    data, variance, truth = observe(np.random.default_rng(820), star)
    field = field_of(data, variance, mode="exposure", other=other, exptime=900.0)
    assert abs(bias(field.sky, truth)) < 0.01
    assert (field.source.x, field.source.y) == pytest.approx((0.6, -0.4), abs=0.03)
    assert "SKYEXPOSURE" in [d.code for d in field.decisions]


def test_choice_in_words_and_values(other):
    choice = SkyChoice("region", parse_region("circle(0,0,1)"), parse_region("circle(3,0,1)"))
    assert choice.decision(12).text == "sky: 12 fibres in circle(0,0,1), without the object's circle(3,0,1)"
    assert choice.facts()["sky_exclude"] == "circle(3,0,1)"
    assert SkyChoice("exposure", other=other).facts()["sky_other"] == "0000009_exp01"
    assert "as asked for" in SkyChoice("none").decision(200).text


def robust(values):
    return 1.4826 * float(np.median(np.abs(values)))


@pytest.fixture(scope="module")
def uneven():
    """Levels off by a per cent or two from group to group of fibres, with a slope along the channel."""
    rng = np.random.default_rng(821)
    off = np.repeat(rng.normal(0, 0.015, (14, 2)), 20, axis=0)
    factor = 1 + off[:, :1] + off[:, 1:] * np.linspace(-1, 1, NX)
    star = 6000.0 * share_of(0.6, -0.4)
    data, variance, truth = observe(rng, star, factor=factor)
    return field_of(data, variance, rounds=2), data, variance, truth, star * UNIT


def test_level_by_groups_of_fibres(uneven):
    field, data, variance, truth, star = uneven
    good = np.broadcast_to(ALIVE[:, None], data.shape)
    better = refined(field, "polynomial", data, variance, good)
    before = ((field.sky.native() - truth) / truth)[ALIVE][:, INNER].mean(axis=1)
    after = ((better.sky.native() - truth) / truth)[ALIVE][:, INNER].mean(axis=1)
    assert np.std(before) > 0.008
    assert np.std(after) < 0.4 * np.std(before)
    assert abs(bias(better.sky, truth)) < 0.004
    lit = star.max(axis=1) > 500
    # The star is left alone: what the correction takes from its fibres is a per mille of its light.
    taken = (better.sky.native() - field.sky.native() - (truth - field.sky.native()))[lit]
    assert abs(taken.sum()) < 0.003 * star[lit].sum()
    assert (better.sky.native_variance() > field.sky.native_variance())[ALIVE].all()
    assert refined(field, "none", data, variance, good) is field


def test_residuals_of_lines_by_components():
    """Lines that are wider than the calibrations say, by an amount that scatters from fibre to fibre."""
    rng = np.random.default_rng(822)
    wide = EXTRA + rng.normal(0, 0.5, (NF, 1))
    night = SKY(WAVE, wide) * UNIT
    star_line = 1 + 4 * np.exp(-0.5 * ((WAVE - CENTERS[3]) / 2.0) ** 2)  # an object's line upon a line of the sky
    star = 4000.0 * share_of(0.6, -0.4) * star_line * UNIT
    variance = np.where(ALIVE[:, None], night + star + 16.0, 0.0)
    data = np.where(ALIVE[:, None], night + star + np.sqrt(variance) * rng.normal(size=night.shape), 0.0)
    field = field_of(data, variance, rounds=2)
    good = np.broadcast_to(ALIVE[:, None], data.shape)
    better = refined(field, "pca", data, variance, good)
    blank = (star.max(axis=1) < 5) & ALIVE
    on_lines = (np.abs(WAVE[..., None] - CENTERS[[3, 6]]).min(axis=-1) < 4) & blank[:, None]

    def width(sky):
        return np.std(((sky.native() - night) / np.sqrt(np.maximum(variance, 1)))[on_lines])

    assert width(field.sky) > 0.5
    assert width(better.sky) < 0.6 * width(field.sky)
    lit = star.max(axis=1) > 300
    line = np.abs(WAVE - CENTERS[3]) < 6
    lost = (better.sky.native() - night)[lit][line[lit]].sum() / star[lit][line[lit]].sum()
    assert abs(lost) < 0.01
    assert [d.code for d in better.decisions if d.code == "SKYPCA"] == ["SKYPCA"]


def test_components_of_nothing_but_noise_are_none():
    data, variance, _ = observe(np.random.default_rng(823))
    field = field_of(data, variance)
    good = np.broadcast_to(ALIVE[:, None], data.shape)
    better = refined(field, "pca", data, variance, good)
    assert not better.sky.correction.any()
    assert np.array_equal(better.sky.native(), field.sky.native())


def test_shift_across_the_slit_stays_with_the_fit():
    """The named fibres carry the same small terms as the automatic choice."""
    data, variance, truth = observe(np.random.default_rng(824), wave=WAVE - 0.08 * F)
    named = choose(mode="mask", fibers=np.ones(NF, bool))(*arrays(data, variance))
    assert named.terms["shift"][0] == pytest.approx(-0.08, abs=0.02)
    assert abs(bias(named, truth)) < 0.002
