"""Every figure is drawn from small data with known answers, and from what can go wrong; its alt text says which."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from figure_factory import (
    NF,
    NX,
    NY,
    Shown,
    Spectrum,
    bias_frames,
    calibrated,
    draw,
    exposure,
    field_model,
    index,
    night_table,
    point_source,
    science,
    solution,
    tasks,
    traced,
    wave_map,
    wavelength_zero,
)

from panacea_nb.instrument import N_FIBERS, channel
from panacea_nb.qa import figures
from panacea_nb.qa.figures import canvas
from panacea_nb.qa.figures.extraction import _lost_pixels
from panacea_nb.qa.figures.flats import _marked_region
from panacea_nb.qa.figures.traces import crest_offset, profile_samples
from panacea_nb.reduce.flat import PixelFlat, Throughput
from panacea_nb.reduce.flux import Response
from panacea_nb.reduce.wavezero import WavelengthZero


@pytest.fixture
def shown(monkeypatch) -> Shown:
    found = Shown()
    monkeypatch.setattr("IPython.display.display", found)
    return found


def test_bias_says_read_noise_and_dark(shown):
    _, master, dark = bias_frames()
    draw("bias_overview", master, dark)
    alt = shown.alt
    assert "2.87 / 3.14 e-" in alt
    assert "within 0.4 e-" in alt
    assert "dark current 1.8 e-" in alt  # 1e-3 e-/s in 1800 s


def test_bias_without_dark_or_drift(shown):
    _, master, dark = bias_frames()
    draw("bias_overview", replace(master, drift=np.zeros((0, 2))), replace(dark, exposure=0.0))
    assert "unknown" in shown.alt


def test_read_noise_says_scatter_of_the_frame(shown):
    frame, master, _ = bias_frames(noise=6.0)
    draw("read_noise", frame, master)
    text = shown.alt
    scatter = [float(v) for v in re.search(r"scatter of this frame (\S+) / (\S+) e-", text).groups()]
    assert "2.87 / 3.14 e-" in text
    assert scatter == pytest.approx([6.0, 6.0], rel=0.03)


def test_traces_say_how_far_off_they_are(shown):
    flat, result = traced(dead=(3,), offset=0.5)
    draw("traces_on_image", flat, result.model)
    text = shown.alt
    assert "11 of 12 fibres" in text
    assert float(re.search(r"lie (\S+) px from the traces", text).group(1)) == pytest.approx(0.5, abs=0.08)


def test_crest_offset_is_zero_on_the_crest():
    flat, result = traced()
    assert np.abs(np.median(crest_offset(flat, result.model))) < 0.03


def test_profile_says_residual(shown):
    flat, result = traced()
    draw("profile_fit", flat, result)
    perfect = float(re.search(r"leaves (\S+) %", shown.alt).group(1))
    draw("profile_fit", flat + 0.03 * result.extraction.model * (-1) ** np.arange(NX // 16 + 1).repeat(16)[:NX], result)
    assert perfect < 0.01
    assert float(re.search(r"leaves (\S+) %", shown.alt).group(1)) > 0.5


def test_profile_samples_lie_on_the_profile():
    flat, result = traced()
    distance, value, error = profile_samples(flat, result)
    assert np.abs(distance).max() < 10
    assert np.median(value[np.abs(distance) < 0.3]) == pytest.approx(2.3548 / 4 / np.sqrt(2 * np.pi), rel=0.05)
    assert (error > 0).all()


def test_scattered_light_says_share(shown):
    flat, result = traced()
    draw("scattered_light", flat, result)
    share = 100 * result.background.sum() / result.extraction.amplitude.sum()
    assert f"Scattered light is {share:.2g} %" in shown.alt


def test_arcs_say_lines_and_scatter(shown):
    sol = solution()
    draw("arc_spectrum", np.full(sol.wavelength.shape, 100.0), sol)
    text = shown.alt
    assert "4 of 5 listed lines" in text
    assert "0.021 px" in text
    assert "not used: 6730.0" in text
    draw("wavelength_residuals", sol)
    assert "0.021 px RMS over 160 measurements of 4 lines" in shown.alt
    draw("lsf_map", sol)
    text = shown.alt
    assert "FWHM 4.47 px" in text
    assert int(re.search(r"power of (\d+)", text).group(1)) == pytest.approx(6650 / 4.474, rel=0.02)


def test_arcs_without_light_or_lines(shown):
    sol = solution(used=False)
    draw("arc_spectrum", np.zeros(sol.wavelength.shape), sol)
    assert "0 of 5" in shown.alt
    draw("wavelength_residuals", replace(sol, rms=float("nan")))
    assert "unknown px RMS over 0 measurements" in shown.alt
    draw("lsf_map", sol)
    assert "0 lines" in shown.alt


def pixel_response() -> PixelFlat:
    rng = np.random.default_rng(7)
    data = (1 + 0.01 * rng.normal(size=(300, 400))).astype(np.float32)
    data[200:220, 300:330] = 0.9
    defects = np.zeros(data.shape, bool)
    defects[10, 10:15] = True
    return PixelFlat(data, defects, 0.0098, np.full(data.shape[1], 0.006, np.float32))


def test_pixel_flat_says_scatter_and_finds_the_dust(shown):
    pixels = pixel_response()
    draw("pixel_flat", pixels)
    text = shown.alt
    assert "0.98 %" in text
    assert "5 pixels are defective" in text
    y0, x0, height, width = _marked_region(100 * (pixels.data - 1), pixels.defects)
    assert y0 <= 200 < 220 <= y0 + height
    assert x0 <= 300 < 330 <= x0 + width


def fiber_throughput(nf: int = N_FIBERS, nx: int = 96) -> tuple[Throughput, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    relative = np.repeat(1 + 0.06 * rng.normal(size=(nf, 1)), nx, axis=1)
    alive = np.ones(nf, bool)
    alive[5] = False
    residual = (0.004 * rng.normal(size=(nf, nx))).astype(np.float32)
    return Throughput(relative, Spectrum(), residual, np.full(nf, 1.1)), wave_map(nf, nx), alive


@pytest.mark.parametrize("nf", [N_FIBERS, 20])
def test_throughput_and_residual_say_rms(shown, nf):
    result, wave, alive = fiber_throughput(nf)
    draw("throughput", result, wave, alive)
    spread = 100 * result.relative[alive, 0].std()
    assert f"of {nf - 1} fibres: {spread:.2g} % RMS" in shown.alt
    draw("flat_residual", result, alive)
    assert float(re.search(r"model: (\S+) %", shown.alt).group(1)) == pytest.approx(0.4, rel=0.1)


def test_frame_says_chi_and_cosmics(shown):
    image, noise, result = science()
    draw("frame_and_residual", image, noise, result)
    text = shown.alt
    assert "0.987 times" in text
    assert "30 pixels" in text
    assert float(re.search(r"robust RMS is (\d+\.?\d*)", text).group(1)) == pytest.approx(1.0, abs=0.1)
    draw("cosmic_rays", image, result)
    text = shown.alt
    assert "30 pixels" in text
    assert "6 samples lost" in text


def test_lost_samples_are_grey_on_the_chip():
    _, _, result = science()
    lost = _lost_pixels(result, 0, 0, NY, NX)
    assert lost[44, 22]
    assert not lost[44, 40]
    assert lost.sum() == pytest.approx(6 * 7, abs=6)


def test_flexure_says_both_shifts(shown):
    _, _, result = science(zero=wavelength_zero())
    draw("flexure", result, wave_map())
    text = shown.alt
    assert "-0.217 px across" in text
    assert "-0.15 px along" in text
    assert "measured on the sky" in text


@pytest.mark.parametrize(
    "zero", [None, wavelength_zero(0, False), WavelengthZero(0.0, 0.0, np.inf, False, 0, *np.zeros((3, 0)))]
)
def test_flexure_without_wavelength_zero(shown, zero):
    _, _, result = science(zero=zero)
    draw("flexure", result, wave_map())
    assert "no wavelength zero" in shown.alt


def test_fiber_spectra_say_level_and_losses(shown):
    _, _, result = science()
    draw("fiber_spectra", result)
    text = shown.alt
    assert "11 living fibres" in text
    assert float(re.search(r"fibres: (\S+) e- per column", text).group(1)) == pytest.approx(400, rel=0.1)
    assert f"{100 * 6 / (11 * NX):.2g} % of their samples masked" in text


def test_sky_fibers_say_count_and_source(shown):
    field, _, _, _, alive = field_model(source=point_source())
    draw("sky_fibers", field, channel("red").fiber_positions(), alive)
    text = shown.alt
    assert "199 of 279 living fibres" in text
    assert "source at 0.5″, -0.7″" in text
    assert float(re.search(r"with (\S+) % scatter", text).group(1)) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_sky_residuals_say_their_width(shown, noise):
    field, amplitude, variance, good, _ = field_model(noise)
    draw("sky_spectrum", field, amplitude, variance, good)
    assert float(re.search(r"scatter by (\S+) times", shown.alt).group(1)) == pytest.approx(noise, rel=0.03)
    draw("sky_subtracted", field, amplitude, variance, good)
    assert float(re.search(r"scatter by ([\d.]+);", shown.alt).group(1)) == pytest.approx(noise, rel=0.03)
    draw("sky_pulls", field, amplitude, variance, good)
    single, means = (float(v) for v in re.search(r"width (\S+) in single .* (\S+) in means", shown.alt).groups())
    assert single == pytest.approx(noise, rel=0.03)
    assert means == pytest.approx(noise, rel=0.1)


def test_a_new_field_is_not_mistaken_for_the_last(shown):
    """The sky model is kept from figure to figure, but only for the same field."""
    widths = []
    for level in (1.0, 3.0):
        field, amplitude, variance, good, _ = field_model()
        field.sky.factor[:] *= level
        draw("sky_pulls", field, amplitude * level, variance * level**2, good)
        widths.append(float(re.search(r"width (\S+) in single", shown.alt).group(1)))
    assert widths[0] == pytest.approx(widths[1], rel=1e-6)


def test_source_is_named_and_fits(shown):
    result = calibrated(point_source())
    draw("collapsed_image", result)
    text = shown.alt
    assert "0.5 arcsec, -0.7 arcsec" in text
    assert "S/N 88" in text
    assert "FWHM 1.62 arcsec" in text
    draw("source_model", result)
    text = shown.alt
    assert "chi-square 1.2" in text
    assert left_over(text) == pytest.approx([1, 1, 1], abs=0.15)  # the model is the truth, so noise is left
    draw("extracted_spectrum", result)
    text = shown.alt
    assert "S/N 30 per element" in text
    assert "3e-16 erg" in text
    assert f"{100 * float((result.grid < 6500).mean()):.2g} % of the elements are masked" in text


def left_over(alt):
    """Residual of the fibres in units of their noise, by part of the channel, as a source model's text tells it."""
    return [float(v) for v in re.search(r"fibres is (\S+) / (\S+) / (\S+) times", alt).groups()]


@pytest.mark.parametrize("disk", [0.0, 1.3])
def test_an_oval_source_is_drawn_and_named_as_such(shown, disk):
    draw("source_model", calibrated(point_source(fwhm=5.0, shear=(0.3, -0.4), flux_error=0.0312, disk=disk)))
    text = shown.alt
    assert ("Sérsic of 5 arcsec FWHM, n 1.3" if disk else "Moffat of 5 arcsec FWHM, beta 3.5") in text
    assert "oval by 50 %: place and shape tell its flux to 3.1 %" in text
    assert left_over(text) == pytest.approx([1, 1, 1], abs=0.15)


def test_without_source(shown):
    result = calibrated(None)
    for name in ("collapsed_image", "source_model"):
        draw(name, result)
        text = shown.alt.lower()
        assert "no source" in text
        assert "3.21" in text
    draw("extracted_spectrum", result)
    assert "4.5e-17" in shown.alt


def test_source_found_by_its_line(shown):
    result = calibrated(point_source(chunk_wave=np.array([7100.0]), chunk_flux=np.array([3e-16])), chunks=1)
    result.search["line"] = 7100.0
    draw("collapsed_image", result)
    assert "by its line at 7100" in shown.alt
    draw("source_model", result)
    assert "in the line part" in shown.alt


def test_response_says_ratio(shown):
    wave = np.linspace(6450, 8400, 300)
    used = wave < 8000
    curve = np.full(300, 5e-11)
    measured = np.where(used, curve, np.nan)
    result = Response(wave, curve, 0.01 * curve, np.linspace(1.05, 1.07, 300), measured, used)
    draw("response", result, SimpleNamespace(name="G191B2B"))
    text = shown.alt
    assert "1.06 times" in text
    assert f"{100 * used.mean():.3g} %" in text
    draw("response", replace(result, fitted=used & False, measured=measured * np.nan), SimpleNamespace(name="$x^"))
    assert "0 % of the channel" in shown.alt


def test_timeline_counts_exposures(shown):
    night = [exposure(1, "zro", 0, exptime=0.0, exp=k) for k in (1, 2, 3)]
    night += [exposure(4, "sci", 3, r"$\frac{1}"), exposure(5, "sci", 4.5, "星 <b>", None), exposure(5, "odd", 5)]
    draw("night_timeline", index(*night))
    text = shown.alt
    assert "3 bias" in text
    assert "2 science" in text
    assert "00:00" in text
    draw("night_timeline", index())
    assert "no exposure" in shown.alt
    draw("night_timeline", index(exposure(1, "zro", 0, exptime=0.0)))
    assert "1 bias" in shown.alt


@pytest.mark.parametrize("n", [0, 1, 6])
def test_overview_of_the_night(shown, n):
    draw("night_overview", night_table(n))
    text = shown.alt
    assert (f"{n} exposures" in text) if n else ("No exposure" in text)
    assert n < 2 or "1.75 arcsec, transparency 0.85" in text


@pytest.mark.parametrize("n", [2, 90])
def test_verdicts_are_counted_and_failures_named(shown, n):
    draw("verdict_matrix", tasks(n))
    text = shown.alt
    assert f"{n} pass, 1 warn, 1 failed" in text
    assert "06_sky-x" in text
    assert shown.pictures[-1].height < 1700


def test_no_task(shown):
    draw("verdict_matrix", [])
    assert "0 tasks" in shown.alt


# --- what can go wrong ---


def test_dead_fibers_only(shown):
    everyone = tuple(range(NF))
    flat, result = traced(dead=everyone)
    image, noise, frame = science(dead=everyone)
    for name, args in (
        ("traces_on_image", (flat, result.model)),
        ("profile_fit", (flat, result)),
        ("scattered_light", (flat, result)),
        ("frame_and_residual", (image, noise, frame)),
        ("cosmic_rays", (image, frame)),
        ("flexure", (frame, wave_map())),
        ("fiber_spectra", (frame,)),
    ):
        draw(name, *args)
        assert shown.alt
    through, wave, alive = fiber_throughput()
    draw("throughput", through, wave, alive & False)
    assert "of 0 fibres" in shown.alt
    draw("flat_residual", through, alive & False)
    assert "unknown" in shown.alt


def test_nothing_but_nan(shown):
    image, noise, frame = science()
    empty = np.full_like(frame.extraction.amplitude, np.nan)
    blank = replace(frame, extraction=replace(frame.extraction, amplitude=empty, variance=empty), chi=float("nan"))
    draw("frame_and_residual", image * np.nan, noise, blank)
    assert "unknown" in shown.alt
    draw("cosmic_rays", image * np.nan, blank)
    draw_alt = shown.alt
    assert "30 pixels" in draw_alt
    draw("fiber_spectra", blank)
    assert "unknown e- per column" in shown.alt
    pixels = pixel_response()
    draw("pixel_flat", replace(pixels, data=np.ones_like(pixels.data), scatter=float("nan")))
    assert "unknown %" in shown.alt


def test_everything_masked(shown):
    field, amplitude, variance, good, alive = field_model()
    for name in ("sky_spectrum", "sky_subtracted", "sky_pulls"):
        draw(name, field, amplitude, variance, good & False)
        assert "unknown" in shown.alt
    none = replace(field, sky=replace(field.sky, fibers=field.sky.fibers & False, level=field.sky.level * np.nan))
    for name in ("sky_spectrum", "sky_subtracted", "sky_pulls"):
        draw(name, none, amplitude, variance, good)
        assert "0 " in shown.alt
    draw("sky_fibers", none, channel("red").fiber_positions(), alive & False)
    assert "0 of 0" in shown.alt
    blank = calibrated(point_source(chunk_flux=np.zeros(24)), dead=tuple(range(N_FIBERS)))
    for name in ("collapsed_image", "source_model", "extracted_spectrum"):
        draw(name, replace(blank, collapsed=blank.collapsed * 0))
        assert shown.alt


def test_binned_columns(shown):
    """At 2x1 binning the frames have 1032 columns."""
    image, noise, result = science(nx=1032)
    draw("frame_and_residual", image, noise, result)
    draw("flexure", result, wave_map(NF, 1032))
    draw("fiber_spectra", result)
    assert len(shown.alts) == 3


def test_every_figure_has_its_test():
    """No figure function goes without being drawn in one of these modules."""
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_figures*.py"))
    assert [name for name in figures.__all__ if f'"{name}"' not in source] == []


# --- the common tools ---


def test_block_mean_leaves_out_what_is_not_good():
    image = np.arange(24.0).reshape(4, 6)
    image[0, 0] = np.nan
    mean, count = canvas.block_mean(image, 2, 3)
    assert mean == pytest.approx(
        np.array([[np.nanmean(image[:2, :3]), image[:2, 3:].mean()], [image[2:, :3].mean(), image[2:, 3:].mean()]])
    )
    assert count.tolist() == [[5, 6], [6, 6]]
    assert np.isnan(canvas.block_mean(image, 2, 3, np.zeros(image.shape, bool))[0]).all()


def test_percentiles_with_gaps_are_those_of_numpy():
    rng = np.random.default_rng(10)
    values = rng.normal(size=(50, 7))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, 3] = np.nan
    filled = np.delete(values, 3, axis=1)
    found = canvas.nan_percentile(values, [16, 50, 99], axis=0)
    assert np.delete(found, 3, axis=1) == pytest.approx(np.nanpercentile(filled, [16, 50, 99], axis=0))
    assert np.isnan(found[:, 3]).all()


def test_limits_never_collapse():
    for values in (np.zeros(0), np.full(3, np.nan), np.zeros(5), np.full(4, 7.0)):
        low, high = canvas.limits(values)
        assert low < high
    assert canvas.limits(np.arange(101.0), 1, 99) == pytest.approx((1, 99))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (1234.5, "1234"),
        (2.3e-17, "2.3e-17"),
        (np.nan, "unknown"),
        (None, "unknown"),
        (1e9, "1000000000"),
    ],
)
def test_numbers_for_people(value, text):
    assert canvas.number(value) == text


def test_text_from_headers_is_made_harmless():
    assert canvas.printable("a\x00星$b") == "a??$b"
    assert len(canvas.printable("x" * 99, 20)) == 20


def test_narrow_features_survive_the_way_to_the_screen():
    """A bad column of one pixel is still seen when 2064 columns are shown on 200 pixels of the screen."""
    fig = canvas.canvas("test")
    ax = fig.add_subplot(canvas.grid(fig, (1, 1, 1))[0])
    image = np.zeros((500, 2064))
    image[:, 777] = 100.0
    small, extent = canvas.shrunk(ax, image)
    rows, columns = canvas.panel_pixels(ax)
    assert small.shape[0] <= rows
    assert small.shape[1] <= columns
    assert small.max() >= 100 / 12
    where = extent[0] + (np.argmax(small[0]) + 0.5) * (extent[1] - extent[0]) / small.shape[1]
    assert where == pytest.approx(777, abs=12)
