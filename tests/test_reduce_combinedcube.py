"""The combined cube against the truth: places, fluxes and errors, for both arms, turned and dithered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panacea_nb.instrument import CHANNELS, fplane
from panacea_nb.reduce.astrometry import Pointing, sky_positions
from panacea_nb.reduce.combinedcube import COMMON_WAVE, FiberField, combine_cubes, on_sky, tangent_plane
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction

GRID = np.arange(3650.0, 10500.0, 8.0)
FLUX = 3e-17
TARGET = (57.01, 63.02)  # deg
HOMES = {"B": "orange", "R": "red"}


def table(channel: str) -> Refraction:
    own = CHANNELS[channel].refraction()
    return Refraction(*(np.asarray(own[name], float) for name in ("wavelength", "x", "y")))


def pointing(slot: str, parangle: float, offset=(0.0, 0.0)) -> Pointing:
    """A pointing that puts `TARGET` at ``offset`` [IFU arcsec] of an IFU."""
    point = Pointing(*TARGET, 360.0 - (90.0 + parangle + 1.07), "lrs2multi", "deg")
    for _ in range(3):
        there = sky_positions(np.array([offset]), fplane(slot), point)[0, 4:6]
        point = replace(point, ra=point.ra - (there[0] - TARGET[0]), dec=point.dec - (there[1] - TARGET[1]))
    return point


def field(
    channel, exp=1, *, at=(0.0, 0.0), parangle=30.0, noise=0.0, flux=FLUX, found=True, rng=None, dither=(0.0, 0.0)
):
    """A field with a point source of 1.5 arcsec that stands at ``at`` [IFU arcsec] at `COMMON_WAVE`.

    ``dither`` is the error of the pointing [arcsec] that the sky coordinates do not know of.
    """
    facts = CHANNELS[channel]
    wave = np.linspace(facts.wave_min, facts.wave_max, 300)
    path, home = table(channel), table(HOMES[facts.arm])
    zero = [float(np.interp(COMMON_WAVE, home.wavelength, t)) for t in (home.x, home.y)]
    x, y = (
        a + d + np.interp(wave, path.wavelength, t) - z
        for a, d, t, z in zip(at, dither, (path.x, path.y), zero, strict=True)
    )
    positions = facts.fiber_positions()
    share = lenslet_fractions(positions, x, y, np.full(wave.size, 1.5), 3.5).T
    rng = rng or np.random.default_rng(1)
    value = flux * share + noise * rng.normal(size=share.shape)
    sky = sky_positions(positions, fplane(facts.ifuslot), pointing(facts.ifuslot, parangle, at))
    middle = wave.size // 2
    return FiberField(
        f"20250115_0000007_exp{exp:02d}_{channel}", wave, value, np.full(share.shape, noise or 1e-20), positions, sky[:, 4:6], path,
        (float(x[middle]), float(y[middle]), float(wave[middle])) if found else None, exposure=f"{exp}{facts.arm}",
        home=(zero[0], zero[1]), snr=10.0 + exp,
    )  # fmt: skip


def centroid(made, low: float, high: float) -> tuple[float, float]:
    """Centre of light near the brightest spaxel, of a range of wavelengths."""
    image = made.flux[(made.wave >= low) & (made.wave <= high)].sum(axis=0, dtype=float)
    x, y = np.meshgrid(made.spaxels.x, made.spaxels.y)
    peak = np.unravel_index(np.argmax(image), image.shape)
    near = image * (np.hypot(x - x[peak], y - y[peak]) < 2.0)
    return float((near * x).sum() / near.sum()), float((near * y).sum() / near.sum())


def test_source_of_all_channels_and_both_arms_stands_at_one_place():
    """LRS2-R is another IFU, turned by 40 degrees, with the source elsewhere; refraction moves it by up to an arcsecond."""
    fields = [field(c, 1, at=(0.4, -0.3)) for c in ("uv", "orange")]
    fields += [field(c, 2, at=(-1.1, 0.6), parangle=70.0) for c in ("red", "farred")]
    made = combine_cubes(fields, GRID)
    assert set(made.aligned.values()) == {"source"}
    assert made.first.name.endswith("exp02_red")  # the first of those with most signal
    spans = ((3700, 3900), (4400, 4600), (4700, 5000), (6500, 6900), (7300, 7700), (9000, 10000))
    places = [centroid(made, *span) for span in spans]
    assert np.array(places) == pytest.approx(np.array([made.first.source[:2]] * len(places)), abs=0.05)
    assert max(made.apart.values()) < 0.05  # the sky coordinates say the same


def test_flux_is_kept():
    made = combine_cubes([field(c, at=(0.2, 0.1)) for c in ("uv", "orange")], GRID)
    inside = lenslet_fractions(
        CHANNELS["uv"].fiber_positions(), np.array([0.2]), np.array([0.1]), np.array([1.5]), 3.5
    ).sum()
    for low, high in ((3800, 4500), (4800, 6800)):
        total = made.flux[(made.wave > low) & (made.wave < high)].sum(axis=(1, 2)).mean()
        assert total == pytest.approx(FLUX * inside, rel=0.02)


def test_no_source_in_one_channel_takes_that_of_the_other():
    bright = field("orange", 1, at=(0.9, 0.5), dither=(0.8, -0.4))
    faint = field("uv", 1, at=(0.9, 0.5), dither=(0.8, -0.4), found=False)
    made = combine_cubes([faint, bright], GRID)
    assert made.aligned == {bright.name: "source", faint.name: "channel"}
    assert centroid(made, 3800, 4000) == pytest.approx(made.first.source[:2], abs=0.06)


def test_fields_without_a_source_are_aligned_by_the_sky():
    """What nobody found is there nevertheless: dithered by two arcseconds, turned by 25 degrees, on both arms."""
    one = field("orange", 1, at=(0.5, 0.4), found=False)
    fields = [one, field("orange", 2, at=(-1.4, -0.2), parangle=55.0, found=False)]
    fields += [field("uv", 1, at=(0.5, 0.4), found=False), field("red", 3, at=(1.0, -0.7), parangle=80.0, found=False)]
    made = combine_cubes(fields, GRID)
    assert set(made.aligned.values()) == {"sky"}
    assert made.first.exposure == "3R"  # most signal
    alone = {c: combine_cubes([replace(f, snr=0.0) for f in fields if f.name.endswith(c)][:1], GRID) for c in ("red",)}
    there = centroid(alone["red"], 7000, 7800)
    for low, high in ((3800, 4000), (4700, 6300), (7000, 7800)):
        assert centroid(made, low, high) == pytest.approx(there, abs=0.08)


def test_error_of_spaxels_is_their_scatter_and_sums_scatter_as_said():
    rng = np.random.default_rng(3)
    fields = [field("orange", e, noise=1e-18, flux=0.0, rng=rng, at=(0.3 * e, 0.1)) for e in (1, 2, 3)]
    made = combine_cubes(fields, common := np.arange(4700.0, 6900.0, 11.0))
    assert made.wave.size == common.size
    x, y = np.meshgrid(made.spaxels.x, made.spaxels.y)
    inner = (np.abs(x) < 4.5) & (np.abs(y) < 2.5)
    pull = made.flux[:, inner] / made.error[:, inner]
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)
    assert np.mean(pull) == pytest.approx(0.0, abs=0.05)
    sums = made.flux[:, inner].sum(axis=1) / np.sqrt((made.error[:, inner].astype(float) ** 2).sum(axis=1))
    assert np.std(sums) == pytest.approx(made.sum_factor, rel=0.2)
    alone = combine_cubes(fields[:1], common)
    assert np.median(alone.error[:, inner] / made.error[:, inner]) == pytest.approx(np.sqrt(3), rel=0.1)


def test_errors_know_that_neighbours_along_wavelength_correlate():
    rng = np.random.default_rng(4)
    one = field("orange", 1, noise=1e-18, flux=0.0, rng=rng)
    mixed = (one.skysub[:, 1:] + one.skysub[:, :-1]) / np.sqrt(2)  # correlation of 0.5
    one = replace(one, wave=one.wave[1:], skysub=mixed, error=one.error[:, 1:], correlation=(0.5,))
    made = combine_cubes([one], np.arange(4700.0, 6900.0, 20.0))
    x, y = np.meshgrid(made.spaxels.x, made.spaxels.y)
    inner = (np.abs(x) < 4.5) & (np.abs(y) < 2.5)
    pull = made.flux[:, inner] / made.error[:, inner]
    assert np.std(pull) == pytest.approx(1.0, abs=0.05)
    neighbours = np.mean(pull[1:] * pull[:-1]) / np.var(pull)
    assert neighbours == pytest.approx(made.correlation[one.name], abs=0.06)


def test_noisy_exposure_weighs_less_and_factors_apply():
    good, bad = (
        field("orange", 1, noise=1e-19),
        replace(field("orange", 2, noise=5e-19, rng=np.random.default_rng(9)), scale=2.0),
    )
    made = combine_cubes([good, bad], GRID)
    inner = (np.abs(made.spaxels.y) < 2)[:, None] & (np.abs(made.spaxels.x) < 4)[None, :]
    middle = (made.wave > 5000) & (made.wave < 6500)
    alone = combine_cubes([good], GRID)
    share = (alone.error[middle][:, inner] / made.error[middle][:, inner]) ** 2
    assert np.median(share) == pytest.approx(1 + 1 / 100, rel=0.01)  # weights 1 and 1/100
    total = made.flux[middle].sum(axis=(1, 2)).mean() / alone.flux[middle].sum(axis=(1, 2)).mean()
    assert total == pytest.approx((1 + 2 / 100) / (1 + 1 / 100), rel=0.01)


def test_bad_elements_leave_no_trace():
    one, two = field("orange", 1), field("orange", 2)
    two.skysub[40, 100:140] += 1e-15
    two.error[40, 100:140] = 0.0
    clean = combine_cubes([one, field("orange", 2)], GRID)
    made = combine_cubes([one, two], GRID)
    assert np.abs(made.flux - clean.flux).max() < 0.05 * clean.flux.max()


def test_far_fields_are_left_out_or_told():
    one, far = field("orange", 1), field("orange", 2, found=False)
    far = replace(far, sky=far.sky + [0.0, 0.1])
    made = combine_cubes([one, far], GRID)
    assert list(made.aligned) == [one.name]
    assert [d.code for d in made.decisions] == ["FARAPART"]
    other = replace(field("orange", 2), sky=far.sky)
    made = combine_cubes([one, other], GRID)
    assert len(made.aligned) == 2
    assert "if it is another object" in made.decisions[0].text


def test_lines_of_a_cube_are_as_wide_and_where_the_options_say():
    one = field("orange", 1)
    wave = np.arange(5000.0, 5600.0, 1.0)
    line = np.exp(-0.5 * ((wave - 5300.0) / 1.9) ** 2)
    same = {"wave": wave, "skysub": np.ones((one.positions.shape[0], 1)) * line, "sigma": np.full(wave.size, 1.9)}
    one = replace(one, **same, error=np.full((one.positions.shape[0], wave.size), 0.01), velocity=25.0)
    other = replace(one, name="20250115_0000007_exp02_orange", sigma=np.full(wave.size, 3.0), error=100 * one.error)
    grid = np.arange(4990.0, 5610.0, 0.7)
    made = combine_cubes([one, other], grid, match_resolution=True, barycentric=True)
    spectrum = made.flux[:, 9, 15].astype(float)
    near = np.abs(made.wave - 5300) < 20
    mean = (spectrum * made.wave)[near].sum() / spectrum[near].sum()
    width = np.sqrt((spectrum * (made.wave - mean) ** 2)[near].sum() / spectrum[near].sum())
    assert made.sigma == 3.0
    assert mean == pytest.approx(5300.0 * (1 + 25.0 / 299792.458), abs=0.02)
    assert width == pytest.approx(3.0, abs=0.1)


def test_places_on_the_sky_near_zero_hours():
    positions = CHANNELS["orange"].fiber_positions()
    sky = np.column_stack([(positions[:, 0] / 3600) % 360, 10 + positions[:, 1] / 3600])
    centre, linear = on_sky(replace(field("orange"), sky=sky))
    assert centre[0] % 360 == pytest.approx(positions[:, 0].mean() / 3600 % 360, abs=1e-6)
    assert linear[1, 0] == pytest.approx(np.cos(np.radians(10)), abs=1e-4)
    assert tangent_plane(np.array([[10.0, 1 / 3600]]), (10.0, 0.0))[0] == pytest.approx([0, 1], abs=1e-6)


def test_nothing_to_combine():
    with pytest.raises(ValueError, match="no field"):
        combine_cubes([], GRID)


def test_two_objects_in_the_channels_of_one_exposure_are_told():
    """One place at all wavelengths is silent; 1.5 arcsec apart, after refraction, is not."""
    uv, orange = field("uv"), field("orange")
    assert combine_cubes([uv, orange], GRID).decisions == []
    x, y, wave = uv.source
    made = combine_cubes([replace(uv, source=(x + 1.5, y, wave)), orange], GRID)
    assert [d.code for d in made.decisions] == ["TWOPLACES"]
    assert "1.5 arcsec apart" in made.decisions[0].text
    assert combine_cubes([replace(uv, source=(x + 1.5, y, wave), exposure="2B"), orange], GRID).decisions == []
