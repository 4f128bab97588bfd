"""The flux scale, and responses from made-up standard stars."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import Standard, channel, find_standard, mean_telluric, standards
from panacea_nb.reduce.flux import FluxScale, ResponseError, masked_bands, standard_response


def test_factor_is_one_over_everything_that_collects_light():
    scale = FluxScale(exptime=100.0, area=5e5, transparency=0.8, profile_scale=4.5)
    assert scale.factor * (100 * 5e5 * 0.8 * 4.5) == pytest.approx(1.0, rel=1e-12)


def test_photons_come_back_as_flux():
    """A star of known flux through area, time, transparency and response; its electrons give the flux again."""
    rng = np.random.default_rng(101)
    flux = 2e-15  # erg/s/cm2/A
    response = 3.1e-11  # erg per electron
    scale = FluxScale(300.0, 45e4, 0.7, 4.7)
    electrons = flux / response * scale.exptime * scale.area * scale.transparency * scale.profile_scale
    measured = rng.poisson(electrons, 4000) * scale.factor * response
    assert measured.mean() / flux == pytest.approx(1.0, abs=4 / np.sqrt(electrons * 4000))


@pytest.mark.parametrize(
    ("wave", "masked"),
    [(7630.0, True), (6900.0, True), (6562.8, True), (9270.0, True), (6700.0, False), (5100.0, False)],
)
def test_bands_that_hide_the_response(wave, masked):
    assert masked_bands(np.array([wave]))[0] == masked


@pytest.mark.parametrize("name", ["orange", "red", "farred"])
def test_no_strong_absorption_of_the_air_is_left_open(name):
    """Whatever takes more than 10 % of the light in the mean telluric curve lies in a band."""
    grid = channel(name).wave_grid()
    open_to_the_fit = ~masked_bands(grid)
    assert mean_telluric(grid)[open_to_the_fit].min() > 0.9


def fake_standard(name, rng, level=1.0, snr=150.0):
    """Counts of HZ 44 through a response that differs smoothly from the default, with telluric bands."""
    facts = channel(name)
    grid = facts.wave_grid()
    default = np.interp(grid, *facts.response())
    z = np.linspace(-1, 1, grid.size)
    truth = level * default * (1 + 0.06 * z - 0.05 * z**2 + 0.02 * np.sin(4 * z))
    published = find_standard("HZ_44").flux(grid)
    clean = published / truth
    counts = clean * mean_telluric(grid)
    error = np.maximum(clean, 0.05 * np.median(clean)) / snr
    return grid, counts + error * rng.normal(size=grid.size), error, published, default, truth


@pytest.mark.parametrize("name", ["uv", "orange", "red", "farred"])
def test_response_is_recovered(name):
    """Within some 0.4 % RMS over the channel, the masked bands bridged to 4 times that."""
    rng = np.random.default_rng(102)
    grid, counts, error, published, default, truth = fake_standard(name, rng)
    found = standard_response(grid, counts, error, published, default)
    ratio = found.response / truth
    inner = slice(40, -40)
    # Water vapour hides farred from 8920 to 9850 A; in red, weak lines between the listed bands stay in the response.
    limit = {"uv": 0.004, "orange": 0.004, "red": 0.005, "farred": 0.018}[name]
    assert np.sqrt(np.mean((ratio[inner] - 1) ** 2)) < limit
    assert np.abs(ratio[inner] - 1).max() < 4 * limit
    assert found.ratio == pytest.approx(found.response / default, rel=1e-12)
    assert not found.fitted[masked_bands(grid)].any()
    assert (found.error > 0).all()


def test_error_of_the_response():
    """Pulls over many noise realisations, outside the bands."""
    pulls = []
    for seed in range(12):
        grid, counts, error, published, default, truth = fake_standard("orange", np.random.default_rng(seed), snr=60)
        found = standard_response(grid, counts, error, published, default)
        pulls.append(((found.response - truth) / found.error)[100:1500:40])
    # The floor of 0.5 % per sample, which stands for the published table, makes errors larger than this noise.
    assert 0.2 < np.std(pulls) < 1.0
    assert abs(np.mean(pulls)) < 0.5


def test_wings_of_lines_that_the_table_does_not_follow_do_not_bend_the_response():
    """A white dwarf with Balmer lines 60 A wide (sigma 25 A), published every 50 A."""
    facts = channel("uv")
    grid = facts.wave_grid()
    default = np.interp(grid, *facts.response())
    star = lambda wave: 1e-14 * (1 - sum(  # noqa: E731
        d * np.exp(-0.5 * ((wave - line) / 25.0) ** 2) for line, d in ((4340.5, 0.5), (4101.7, 0.45), (3970.1, 0.4))
    ))  # fmt: skip
    nodes = np.arange(3600.0, 4701.0, 50.0)
    magnitudes = -2.5 * np.log10(star(nodes))
    made = Standard("X", "X")
    wrong = {}
    for told in (True, False):
        published = 10 ** (-0.4 * np.interp(grid, nodes, magnitudes))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(standards, "_magnitudes", lambda star: (nodes, magnitudes))
            doubt = made.interpolation_error(grid) if told else 0.0
        counts = star(grid) / default
        found = standard_response(grid, counts, counts / 200, published, default, doubt)
        wrong[told] = np.sqrt(np.mean((found.ratio - 1) ** 2))
    assert wrong[True] < 0.01
    assert wrong[False] > 1.5 * wrong[True]


def test_grey_change_is_the_ratio():
    rng = np.random.default_rng(103)
    grid, counts, error, published, default, _ = fake_standard("orange", rng, level=1.3)
    found = standard_response(grid, counts, error, published, default)
    assert np.median(found.ratio) == pytest.approx(1.3 * 0.985, rel=0.02)


def test_cosmic_rays_in_the_standard_do_not_bend_its_response():
    rng = np.random.default_rng(104)
    grid, counts, error, published, default, truth = fake_standard("orange", rng)
    counts[[300, 301, 900, 1500]] *= [1.5, 2.0, 0.3, 4.0]
    found = standard_response(grid, counts, error, published, default)
    assert not found.fitted[[300, 301, 900, 1500]].any()
    assert np.abs(found.response / truth - 1)[40:-40].max() < 0.012


def test_short_table_still_gives_a_response():
    rng = np.random.default_rng(105)
    grid, counts, error, published, default, truth = fake_standard("red", rng)
    published = np.where(grid > 8000, np.nan, published)
    found = standard_response(grid, counts, error, published, default)
    known = (grid > 6500) & (grid < 7950)
    assert np.abs(found.response / truth - 1)[known].max() < 0.02
    assert not found.fitted[grid > 8000].any()
    # Beyond, the default's shape goes on, with an error that says so.
    far = grid > 8050
    assert np.ptp(found.ratio[far]) < 0.02
    assert np.abs((found.response - truth) / found.error)[far].max() < 1.0
    assert (found.error / found.response)[far].min() > 0.09


@pytest.mark.parametrize("what", ["no star", "no table", "no error"])
def test_nothing_to_compare(what):
    rng = np.random.default_rng(106)
    grid, counts, error, published, default, _ = fake_standard("orange", rng)
    if what == "no star":
        counts = error * rng.normal(size=grid.size)
    elif what == "no table":
        published = np.full(grid.size, np.nan)
    else:
        error = np.zeros(grid.size)
    with pytest.raises(ResponseError, match="can be compared"):
        standard_response(grid, counts, error, published, default)
