"""Master bias, dark and averages of frames against frames whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.instrument import AMP_ROWS
from panacea_nb.reduce.bias import (
    TooFewFramesError,
    average_images,
    average_row,
    clipped_mean,
    denoise,
    master_bias,
    master_dark,
    smooth_structure,
    subtract,
)
from panacea_nb.reduce.ccd import ChannelImage
from panacea_nb.reduce.maskbits import DQ

NY, NX = 2 * AMP_ROWS, 160
GAIN = 0.85
NOISE = np.repeat([2.6, 3.4], AMP_ROWS)[:, None]  # e-, bottom and top amplifier
N = 8
HOT = (300, 41)
NOISY = (1500, 77)


def channel_image(data):
    return ChannelImage(data.astype(np.float32), np.zeros(data.shape, np.uint8), np.float32(NOISE))


@pytest.fixture(scope="module")
def truth():
    """Structure of rows and columns, a slow wave, and one hot pixel [e-]."""
    y, x = np.arange(NY)[:, None], np.arange(NX)[None, :]
    row = np.where(np.arange(NY) % 97 == 0, 1.5, 0.0)[:, None]
    column = np.where(np.arange(NX) % 31 == 0, -1.2, 0.0)[None, :]
    bias = 1.0 * np.sin(y / 150.0) * np.cos(x / 60.0) + row + column
    bias[HOT] += 200.0
    return bias


@pytest.fixture(scope="module")
def frames(truth):
    """Frames of whole ADU with drifting levels, cosmic rays, and one pixel of excess noise."""
    rng = np.random.default_rng(11)
    result = []
    for i in range(N):
        data = truth + NOISE * rng.normal(size=(NY, NX))
        data[NOISY] += 40 * rng.normal()
        data[rng.integers(0, NY, 5), rng.integers(0, NX, 5)] += 3000
        drift = np.repeat([0.0, 2.0 * (i == 3)], AMP_ROWS)[:, None]
        level = rng.uniform(0, 1, (NY, 1))  # of the overscan [ADU]: no integer
        result.append(channel_image(GAIN * (np.round((data + drift) / GAIN + level) - level)))
    return result


@pytest.fixture(scope="module")
def master(frames):
    return master_bias(frames)


def test_read_noise_of_integer_frames_within_two_per_cent(master):
    expected = np.sqrt(np.array([2.6, 3.4]) ** 2 + GAIN**2 / 12)
    assert master.rdnoise == pytest.approx(expected, rel=0.02)
    assert master.n_frames == N


def test_wandering_of_rows_is_measured(master, frames):
    assert np.hypot(*master.wander[:, :2].T) == pytest.approx(0.0, abs=0.1)  # the noise of 160 columns alone is 0.2 to 0.3 e-
    rng = np.random.default_rng(12)
    white = np.repeat([0.4, 0.0], AMP_ROWS)[:, None]
    moved = []
    for frame in frames:
        slow = np.zeros(NY)
        for y in range(1, NY):
            slow[y] = slow[y - 1] * np.exp(-1 / 16) + 0.5 * np.sqrt(1 - np.exp(-2 / 16)) * rng.standard_normal()
        moved.append(channel_image(frame.data + white * rng.standard_normal((NY, 1)) + slow[:, None]))
    bottom, top = master_bias(moved).wander
    assert bottom[:2] == pytest.approx([0.4, 0.5], rel=0.15)
    assert top[1] == pytest.approx(0.5, rel=0.15)
    assert {bottom[2], top[2]} <= {8.0, 16.0, 32.0}
    assert top[0] < 0.15


def test_denoised_bias_has_a_fraction_of_the_averages_noise(master, truth):
    clean = np.ones(truth.shape, bool)
    clean[HOT] = clean[NOISY] = False
    error, plain = (master.data - truth)[clean], (master.average - truth)[clean]
    assert np.std(plain) == pytest.approx(np.sqrt(np.mean(NOISE**2) / N), rel=0.05)
    assert np.std(error) < 0.30 * np.std(plain)
    assert abs(error.mean()) < 0.015


def test_structure_of_rows_and_columns_is_kept(master, truth):
    rows = np.arange(97, NY, 97)
    height = master.data[rows].mean(axis=1) - master.data[rows + 1].mean(axis=1)
    assert height == pytest.approx(1.5, abs=5 * 3.4 * np.sqrt(2 / (N * NX)))
    columns = np.arange(31, NX, 31)
    depth = master.data[:, columns].mean(axis=0) - master.data[:, columns + 1].mean(axis=0)
    assert depth == pytest.approx(-1.2, abs=5 * 3.4 * np.sqrt(2 / (N * AMP_ROWS)))


def test_hot_pixel_stays_and_noisy_pixel_is_bad(master, truth):
    assert master.data[HOT] == pytest.approx(truth[HOT], abs=5 * 2.6 / np.sqrt(N))
    assert master.bad[NOISY]
    assert not master.bad[HOT]
    # Each of the 40 pixels that a cosmic ray hit is bad for its scatter; beyond these nothing is.
    assert master.bad.sum() <= 1 + 5 * N


def test_cosmic_rays_are_not_in_the_average(master, truth):
    assert np.abs(master.average - truth)[~master.bad].max() < 6 * 3.4 / np.sqrt(N - 1)


def test_drift_of_single_frames(master):
    assert master.drift[3, 1] == pytest.approx(2.0, abs=0.1)
    others = np.delete(master.drift[:, 1], 3)
    assert np.abs(others).max() < 0.1
    assert np.abs(master.drift[:, 0]).max() < 0.1


def test_drifts_do_not_enter_read_noise(frames):
    moved = [channel_image(f.data + 5.0 * i) for i, f in enumerate(frames)]
    assert master_bias(moved).rdnoise == pytest.approx(np.sqrt(np.array([2.6, 3.4]) ** 2 + GAIN**2 / 12), rel=0.02)


def test_two_frames_are_too_few(frames):
    with pytest.raises(TooFewFramesError, match="only 2 bias frames .*--cal-date zro"):
        master_bias(frames[:2])


def test_three_frames_are_enough(frames, truth):
    made = master_bias(frames[:3])
    assert made.rdnoise == pytest.approx([2.6, 3.4], rel=0.03)
    clean = ~made.bad & (np.abs(made.data - truth) < 10)
    assert np.std((made.data - truth)[clean]) < 0.6 * 3.0 / np.sqrt(3)


def test_clipped_mean_is_the_mean_without_an_outlier():
    frames = np.array([[10.0], [11.0], [9.0], [10.0], [500.0]])
    assert clipped_mean(frames, 1.0)[0] == pytest.approx(10.0)
    assert clipped_mean(frames[:4], 1.0)[0] == pytest.approx(10.0)


def test_smooth_structure_passes_slow_waves_and_stops_noise():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:512, :320]
    wave = np.sin(2 * np.pi * y / 400) * np.cos(2 * np.pi * x / 500)
    assert np.std(smooth_structure(wave, 10.0) - wave) < 0.15
    assert np.std(smooth_structure(rng.normal(0, 1, y.shape), 1.0)) < 0.03


def test_denoise_without_noise_returns_the_image(truth):
    """Every pixel of a perfect image stands out of the smooth model, or lies on it."""
    assert np.abs(denoise(truth.astype(np.float32), np.array([1e-6, 1e-6])) - truth).max() < 1e-4


def test_dark_rate_and_hot_pixels(master, truth):
    rng = np.random.default_rng(12)
    y, x = np.mgrid[:NY, :NX]
    glow = 0.004 * (1 + y / NY)  # e-/s
    times = [600.0, 900.0, 600.0, 900.0]
    hot = (1700, 20)
    frames = []
    for t in times:
        light = glow * t
        light[hot] += 0.5 * t
        data = truth + rng.poisson(light) + NOISE * rng.normal(size=(NY, NX))
        frames.append(channel_image(data))
    dark = master_dark(frames, times, master)
    assert dark.exposure == 3000.0
    cold = ~dark.hot & ~master.bad
    ratio = dark.rate[cold] / glow[cold]
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)
    assert np.std(ratio) < 0.15
    assert dark.hot[hot]
    assert dark.hot.sum() <= 3
    science = channel_image(truth + glow * 1200.0)
    science.mask[4, 5] = DQ.SATURATED
    left = subtract(science, master, dark, 1200.0)
    assert abs(left.data[cold].mean()) < 0.1
    assert left.mask[4, 5] == DQ.SATURATED
    undarkened = subtract(science, master, dark, 0.0)
    assert undarkened.data[cold].mean() == pytest.approx(1200 * glow[cold].mean(), abs=0.1)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_level_of_a_uniform_dark_is_unbiased_for_any_number_of_frames(master, truth, n):
    """The lower of two values, which cosmic rays ask for, lies below the mean: that is made good."""
    rng = np.random.default_rng(20 + n)
    times = [1000.0] * n
    frames = []
    for _ in times:
        data = truth + 5.0 + NOISE * rng.normal(size=(NY, NX))
        if n > 1:
            data[rng.integers(0, NY, 60), rng.integers(0, NX, 60)] += 2000
        frames.append(channel_image(data))
    dark = master_dark(frames, times, master)
    assert dark.rate[~master.bad].mean() == pytest.approx(0.005, rel=0.04)
    assert dark.hot.sum() <= (3 if n > 1 else 0)


@pytest.mark.parametrize("levels", [(150.0, 30000.0), (150.0, 150.0, 30000.0)])
def test_faint_frames_do_not_spoil_a_bright_one(levels):
    """In the wings of profiles, a fiftieth of the light, the mean is as good as the bright frame, without its cosmic ray."""
    rng = np.random.default_rng(31)
    shape = np.where(np.arange(200)[:, None] % 10 < 6, 1.0, 0.02) * np.ones((200, 300))
    frames = [rng.poisson(level * shape) + 3.0 * rng.normal(size=shape.shape) for level in levels]
    frames[-1][15, 20] += 20000
    mean = average_images(frames, gain_noise=3.0) / np.mean(levels)
    wings = shape < 1
    wings[15, 20] = False
    ideal = np.sqrt(0.02 * 30000 + 9.0) / (0.02 * 30000)
    assert np.std(mean[wings] / 0.02) < 1.15 * ideal
    assert mean[wings].mean() / 0.02 == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("peak", [0.012, 0.08])
def test_glow_is_kept_however_bright(master, truth, peak):
    """The corner of an amplifier that glows: far above the noise of the mean, and no part of it is hot."""
    rng = np.random.default_rng(33)
    y, x = np.mgrid[:NY, :NX]
    glow = 0.0005 + peak * np.exp(-0.5 * (x**2 + y**2) / 250.0**2)
    frames = [channel_image(truth + rng.poisson(600 * glow) + NOISE * rng.normal(size=(NY, NX))) for _ in range(10)]
    dark = master_dark(frames, [600.0] * 10, master)
    corner = np.s_[:100, : min(100, NX)]
    assert dark.rate[corner].mean() == pytest.approx(glow[corner].mean(), rel=0.06)
    assert not dark.hot[corner].any()


def test_no_dark_means_no_correction(master, truth):
    dark = master_dark([], [], master)
    assert dark.exposure == 0
    assert not dark.hot.any()
    image = channel_image(truth)
    assert (subtract(image, master, dark, 900.0).data == image.data - master.data).all()


def test_average_of_frames_of_different_brightness():
    """Twilights fade: the average has the mean level, the shape, photon noise, and no cosmic rays."""
    rng = np.random.default_rng(13)
    shape = 1000 * (1 + 0.5 * np.sin(np.arange(400) / 20.0))[None, :] * np.ones((300, 1))
    levels = np.array([0.3, 1.0, 1.7, 2.0])
    images = [rng.poisson(v * shape) + rng.normal(0, 3, shape.shape) for v in levels]
    hits = [(50, 60), (200, 300)]
    images[1][hits[0]] += 20000
    images[2][hits[1]] += 20000
    mean = average_images(images)
    truth = levels.mean() * shape
    assert (mean / truth).mean() == pytest.approx(1.0, abs=2e-3)
    pull = (mean - truth) / np.sqrt(levels.sum() * shape + 4 * 9) * 4
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)
    assert all(abs(pull[hit]) < 5 for hit in hits)


def test_average_of_two_frames_and_of_one():
    rng = np.random.default_rng(14)
    truth = np.full((200, 200), 2000.0)
    first, second = (rng.poisson(truth).astype(float) for _ in range(2))
    second[10, 10] += 30000
    mean = average_images([first, second])
    assert mean[10, 10] == pytest.approx(2000, abs=300)
    assert mean.mean() == pytest.approx(2000, rel=2e-3)
    assert (average_images([first]) == first.astype(np.float32)).all()


def test_the_nearest_frames_are_taken_when_there_are_too_many():
    """Frames of the night itself come before those of the night before, later ones before earlier ones."""
    from datetime import datetime, timedelta
    from types import SimpleNamespace

    from panacea_nb.products.frames import nearest

    start = datetime(2025, 1, 14, 20)
    frames = [
        SimpleNamespace(night=night, start=start + timedelta(hours=24 * k, minutes=m), kind="zro")
        for k, night in enumerate(("20250114", "20250115"))
        for m in range(4)
    ]
    kept, decisions = nearest(frames, "20250115", most=6)
    assert [(e.night, e.start.minute) for e in kept] == [
        ("20250114", 2),
        ("20250114", 3),
        *(("20250115", m) for m in range(4)),
    ]
    assert [d.code for d in decisions] == ["CAPPED"]
    assert nearest(frames, "20250115", most=8) == (frames, [])


def test_row_of_frames_is_averaged_as_the_plain_clipped_mean():
    rng = np.random.default_rng(61)
    frames = rng.normal(5, 3, (9, 200)).astype(np.float32)
    frames[2, 7], frames[5, 30] = 900.0, -400.0
    average, scatter = np.empty(200, np.float32), np.empty(200, np.float32)
    average_row(frames, np.float32(15.0), average, scatter)
    assert average == pytest.approx(clipped_mean(frames, 3.0), abs=1e-5)
    assert scatter == pytest.approx(np.sqrt(((frames - average) ** 2).sum(axis=0) / 8), rel=1e-5)
