"""Combined spectra against the truth: unbiased faint flux, right errors, scales, wavelengths, cosmic rays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panacea_nb.reduce.combine import Part, combine_spectra, exposure_scales, flux_ratio, on_grid
from panacea_nb.reduce.commongrid import LIGHT_SPEED, air_to_vacuum, common_grid, resampling

WAVES = {"uv": 3640.0 + 0.49 * np.arange(2000), "orange": 4600.0 + 0.97 * np.arange(2450), "red": 6430.0 + 0.8 * np.arange(2500)}
EDGE = 10


def part(channel, exp, rng, flux=1.0, noise=0.3, factor=1.0, **more):
    wave = WAVES[channel]
    truth = (flux(wave) if callable(flux) else np.full(wave.size, flux)) / factor
    values = truth + noise * rng.normal(size=wave.size)
    error = np.full(wave.size, noise)
    one = np.ones(wave.size)
    return Part(channel, 7, exp, wave, values, error, 10 * one, 0.1 * one, one, 1.9 * one, exptime=900.0, **more)


def test_faint_flux_is_not_biased_and_errors_are_its_scatter():
    """A tenth of the noise per sample, 40 times: mean within 3 sigma, scatter over error 1."""
    pulls, means = [], []
    for trial in range(40):
        rng = np.random.default_rng(800 + trial)
        found = combine_spectra([part("orange", e, rng, 0.1, 1.0) for e in (1, 2, 3)])
        use = found.error > 0
        pulls.append(((found.flux - 0.1) / np.where(use, found.error, 1.0))[use])
        means.append(found.flux[use].mean())
    assert np.mean(means) == pytest.approx(0.1, abs=3 * np.std(means) / np.sqrt(40))
    assert np.std(np.concatenate(pulls)) == pytest.approx(1.0, abs=0.02)


def test_flux_is_kept_by_the_resampling():
    wave, grid = WAVES["orange"], common_grid()
    line = np.exp(-0.5 * ((wave - 5321.3) / 2.1) ** 2)
    matrix = resampling(wave, grid)
    assert (matrix @ line).sum() * 0.7 == pytest.approx(line.sum() * 0.97, rel=1e-6)
    centre = ((matrix @ line) * grid).sum() / (matrix @ line).sum()
    assert centre == pytest.approx(5321.3, abs=0.005)
    assert (matrix @ np.ones(wave.size))[(grid > 4602) & (grid < 6970)] == pytest.approx(1.0, abs=1e-12)


def test_a_sample_with_a_bad_neighbour_is_not_used():
    one = part("orange", 1, np.random.default_rng(1))
    one.error[500] = 0.0
    grid = common_grid()
    placed = on_grid(one, grid)
    near = np.abs(grid - one.wave[500]) < 0.4
    assert (placed["error"][near] == 0).all()
    assert ((placed["error"] == 0) & (grid > 4602) & (grid < 6960)).sum() <= 3


def test_neighbours_correlate_as_said():
    rng = np.random.default_rng(5)
    found = [combine_spectra([part("orange", 1, rng, 1.0, 1.0)]) for _ in range(20)]
    inside = slice(1500, 4500)
    rest = np.stack([(f.flux[inside] - 1.0) / f.error[inside] for f in found])
    assert np.mean(rest[:, 1:] * rest[:, :-1]) == pytest.approx(found[0].correlation["orange"], abs=0.02)


def test_channels_are_joined_in_their_overlap():
    rng = np.random.default_rng(2)
    spectrum = lambda wave: 5.0 + wave / 4000.0  # noqa: E731
    found = combine_spectra(
        [part("orange", 1, rng, spectrum, 0.2), part("red", 1, rng, spectrum, 0.2, factor=1.25)], common_grid()
    )
    assert found.scales["0000007_exp01_red"] == pytest.approx(1.25, rel=0.01)
    assert found.scales["0000007_exp01_orange"] == 1.0
    use = found.error > 0
    assert np.median((found.flux / spectrum(found.wave))[use]) == pytest.approx(1.0, abs=0.005)
    assert "SCALED" in [d.code for d in found.decisions]
    assert set(found.count[use]) == {1, 2}


def test_without_signal_in_the_overlap_nothing_is_scaled():
    rng = np.random.default_rng(3)
    found = combine_spectra([part("orange", 1, rng, 0.0, 1.0), part("red", 1, rng, 0.0, 1.0)])
    assert set(found.scales.values()) == {1.0}
    assert "NOOVERLAP" in [d.code for d in found.decisions]


def test_exposures_are_brought_to_their_mean():
    rng = np.random.default_rng(4)
    parts = [part("orange", 1, rng, 4.0, 0.2), part("orange", 2, rng, 4.0, 0.2, factor=2.0)]
    scales, _, _ = exposure_scales(parts)
    first, second = (scales[p.name] for p in parts)
    assert second / first == pytest.approx(2.0, rel=0.01)
    assert 4.0 * first == pytest.approx(3.0, rel=0.01)  # the mean of 4 and 2


def test_ratio_of_noisy_spectra_is_not_pulled_down():
    """Signal to noise of 1 per sample in both."""
    ratios = []
    for trial in range(60):
        rng = np.random.default_rng(900 + trial)
        a, b = 3.0 + 3.0 * rng.normal(size=2000), 2.0 + 2.0 * rng.normal(size=2000)
        ratios.append(flux_ratio(a, np.full(2000, 3.0), b, np.full(2000, 2.0))[0])
    assert np.mean(ratios) == pytest.approx(1.5, abs=0.02)


def test_ratio_is_not_drawn_by_a_cosmic_ray_nor_blind_for_lines():
    rng = np.random.default_rng(25)
    error = np.ones(2000)
    a, b = 0.3 + rng.normal(size=2000), 0.3 + rng.normal(size=2000)
    b[700] += 60
    ratio, spread = flux_ratio(a, error, b, error)
    assert ratio == pytest.approx(1.0, abs=3 * spread)
    lines = np.zeros(2000)
    lines[[300, 800, 1500]] = 100.0
    ratio, spread = flux_ratio(1.6 * lines + rng.normal(size=2000), error, lines + rng.normal(size=2000), error)
    assert ratio == pytest.approx(1.6, abs=3 * spread)
    assert spread < 0.02


def test_cosmic_ray_in_one_exposure_is_rejected_and_a_line_in_both_is_not():
    rng = np.random.default_rng(6)
    line = lambda wave: 2.0 + 50.0 * np.exp(-0.5 * ((wave - 5500.0) / 2.0) ** 2)  # noqa: E731
    parts = [part("orange", e, rng, line, 0.3) for e in (1, 2)]
    parts[0].flux[1200:1203] += 30.0
    found = combine_spectra(parts)
    hit = np.abs(found.wave - parts[0].wave[1201]) < 2.5
    assert 3 <= found.rejected[parts[0].name] <= 8
    assert found.rejected[parts[1].name] <= 1
    assert np.abs((found.flux - 2.0)[hit]).max() < 1.5
    assert found.flux[np.argmin(np.abs(found.wave - 5500))] == pytest.approx(52.0, rel=0.02)


@pytest.mark.parametrize("factor", [3.5, 0.25, 1000.0])
def test_an_exposure_that_shows_something_else_is_left_out(factor):
    """Fainter or brighter than clouds make it: the sum is the exposure with most signal, all of its samples, and says so."""
    rng = np.random.default_rng(21)
    parts = [part("orange", 1, rng, 1.0, 0.02), part("orange", 2, rng, 1.0, 0.02, factor=factor)]
    best, other = parts if factor > 1 else parts[::-1]
    found = combine_spectra(parts)
    use = found.error > 0
    assert found.left_out == (other.name,)
    assert np.median(found.flux[use]) == pytest.approx(np.median(best.flux), rel=2e-3)
    assert [p.name for p in found.parts] == list(found.scales) == [best.name]
    assert set(found.count[use]) == {1}
    told = [d for d in found.decisions if d.severity == "warn"]
    assert [d.code for d in told] == ["APART"]
    assert other.name in told[0].text.split(" as bright as ")[0]


def test_steady_difference_is_no_cosmic_ray():
    """Flux that changes along the spectrum between exposures: no sample is thrown away, the user is told."""
    rng = np.random.default_rng(22)
    blue = lambda wave: np.where(wave < 5200, 2.0, 1.0)  # noqa: E731
    parts = [part("orange", 1, rng, blue, 0.02), part("orange", 2, rng, 1.0, 0.02), part("orange", 3, rng, 1.0, 0.02)]
    found = combine_spectra(parts)
    assert not any(found.rejected.values())
    near = (found.wave > 4700) & (found.wave < 5100)
    assert np.median(found.flux[near]) > 1.25
    assert [d.code for d in found.decisions if d.severity == "warn"] == ["DISAGREE"]


@pytest.mark.parametrize("shift", [30.0, 60.0])
def test_lines_that_move_between_exposures_keep_their_flux(shift):
    """Velocities [km/s] apart, as the Earth's motion or a binary gives: the flanks of a strong line are no cosmic rays."""
    rng = np.random.default_rng(23)

    def line(centre):
        return lambda wave: 1.0 + 60.0 * np.exp(-0.5 * ((wave - centre) / 1.9) ** 2)

    centres = 5500.0 * (1 + np.array([0.0, shift]) / LIGHT_SPEED)
    parts = [part("orange", e, rng, line(c), 0.1) for e, c in enumerate(centres, start=1)]
    found = combine_spectra(parts)
    near = np.abs(found.wave - centres.mean()) < 12
    flux = (found.flux[near] - 1.0).sum() * 0.7
    assert flux == pytest.approx(60 * 1.9 * np.sqrt(2 * np.pi), rel=0.01)


def test_cosmic_rays_are_found_in_exposures_too_faint_to_be_scaled():
    rng = np.random.default_rng(24)
    parts = [part("orange", e, rng, 0.15, 1.0) for e in (1, 2)]
    parts[1].flux[700] += 40.0
    found = combine_spectra(parts)
    assert "NOSCALE" in [d.code for d in found.decisions]
    assert found.rejected[parts[1].name] >= 1
    assert np.abs(found.flux[np.abs(found.wave - parts[1].wave[700]) < 2]).max() < 5


def test_barycentric_and_vacuum_wavelengths():
    """A line at 6562.80 A in air, seen from an Earth that moves towards it: the correction is positive, and so is the shift."""
    line = lambda wave: 1.0 + 100.0 * np.exp(-0.5 * ((wave - 6562.80) / 2.0) ** 2)  # noqa: E731
    one = part("orange", 1, np.random.default_rng(7), line, 0.01, velocity=20.0)

    def centre(**options):
        found = combine_spectra([one], **options)
        near = np.abs(found.wave - 6563.5) < 12
        light = found.flux[near] - 1.0
        return (light * found.wave[near]).sum() / light.sum()

    assert centre() == pytest.approx(6562.80, abs=0.02)
    assert centre(barycentric=True) == pytest.approx(6562.80 * (1 + 20 / LIGHT_SPEED), abs=0.02)
    assert centre(vacuum=True) == pytest.approx(6564.61, abs=0.02)  # H alpha in vacuum (NIST)
    assert air_to_vacuum(np.array([5006.843])) == pytest.approx(5008.240, abs=0.002)  # [O III] (NIST)


def test_resolution_is_matched_to_the_widest():
    line = lambda wave: 100.0 * np.exp(-0.5 * ((wave - 5500.0) / 1.9) ** 2)  # noqa: E731
    rng = np.random.default_rng(8)
    sharp, wide = part("orange", 1, rng, line, 0.001), part("red", 1, rng, 0.0, 0.001)
    wide.sigma[:] = 3.0
    found = combine_spectra([sharp, wide], match_resolution=True)
    near = np.abs(found.wave - 5500.0) < 15
    light = found.flux[near]
    width = np.sqrt((light * (found.wave[near] - 5500.0) ** 2).sum() / light.sum())
    assert width == pytest.approx(3.0, abs=0.06)


def test_nothing_to_combine():
    with pytest.raises(ValueError, match="no spectrum"):
        combine_spectra([])


def test_errors_of_correlated_and_smoothed_samples_are_their_scatter():
    """Samples that share half of their noise with the next, as interpolation leaves them."""
    pulls = {False: [], True: []}
    for trial in range(12):
        rng = np.random.default_rng(700 + trial)
        noise = rng.normal(size=WAVES["orange"].size + 1)
        one = part("orange", 1, rng, 1.0, 0.0, correlation=(0.5,))
        one = replace(one, flux=1.0 + (noise[1:] + noise[:-1]) / np.sqrt(2), error=np.ones(one.wave.size))
        wide = replace(part("red", 1, rng, 0.0, 1.0), sigma=np.full(WAVES["red"].size, 3.0))
        for smooth in pulls:
            found = combine_spectra([one, wide], match_resolution=smooth)
            use = (found.error > 0) & (found.wave > 4650) & (found.wave < 6350)
            pulls[smooth].append(((found.flux - 1.0) / np.where(use, found.error, 1.0))[use])
    for smooth, values in pulls.items():
        values = np.concatenate(values)
        assert np.std(values) == pytest.approx(1.0, abs=0.04), smooth
        assert abs(np.mean(values)) < 0.15


def test_exposure_that_cannot_be_compared_keeps_its_flux():
    rng = np.random.default_rng(14)
    good = [part("orange", 1, rng, 4.0, 0.2), part("orange", 2, rng, 4.0, 0.2, factor=1.5)]
    faint = part("orange", 3, rng, 4.0, 100.0)
    scales, compared, decisions = exposure_scales([faint, *good])
    assert compared == {p.name for p in good}
    assert scales[faint.name] == 1.0
    assert scales[good[1].name] / scales[good[0].name] == pytest.approx(1.5, rel=0.01)
    assert [d.code for d in decisions] == ["NOSCALE"]


def test_error_of_a_scale_knows_that_samples_correlate():
    """Scatter of the factor found over its stated error, for neighbours that share half of their noise."""
    found = []
    for trial in range(200):
        rng = np.random.default_rng(3000 + trial)
        a, b = (rng.normal(size=401) for _ in range(2))
        a, b = (10.0 + (v[1:] + v[:-1]) / np.sqrt(2) for v in (a, b))
        found.append(flux_ratio(a, np.ones(400), b, np.ones(400), 2.0))
    ratios, errors = np.array(found).T
    assert np.std(ratios) / np.mean(errors) == pytest.approx(1.0, abs=0.15)


def test_motion_of_the_earth_and_a_mixture_of_corrections_are_told():
    rng = np.random.default_rng(15)
    parts = [part("orange", e, rng, velocity=v) for e, v in ((1, -12.0), (2, 9.0))]
    assert [d.code for d in combine_spectra(parts).decisions if d.severity == "warn"] == ["VELSPAN"]
    assert [d.code for d in combine_spectra(parts, barycentric=True).decisions if d.severity == "warn"] == []
    parts[0].telluric[:] = 0.9
    assert "TELLMIX" in [d.code for d in combine_spectra(parts).decisions]
    # In uv there is nothing to correct, so a spectrum from there makes no mixture.
    alone = [part("orange", 1, rng, velocity=0.0), part("uv", 1, rng, velocity=0.0)]
    alone[0].telluric[:] = 0.9
    assert "TELLMIX" not in [d.code for d in combine_spectra(alone).decisions]
