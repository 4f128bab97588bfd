"""Overscan, gain, orientation and stacking of raw amplifier frames."""

from __future__ import annotations

import numpy as np
import pytest
from reduce_factory import robust

from panacea_nb.instrument import AMP_ROWS, DEFAULT_GAIN, DEFAULT_RDNOISE, N_COLUMNS, OVERSCAN
from panacea_nb.reduce import ccd
from panacea_nb.reduce.maskbits import DQ

CARDS = {"GAIN": 0.9, "RDNOISE": 2.7, "AMPNAME": "LL"}
ROWS = np.arange(AMP_ROWS)


def overscan_frame(rng, level, noise, columns=OVERSCAN - 1):
    """Integer overscan pixels about a level per row."""
    return np.round(level[:, None] + rng.normal(0, noise, (AMP_ROWS, columns))).astype(np.uint16)


def raw_frame(light, level=1000.0):
    """A noiseless raw frame: light [ADU] beside overscan, both on the same level."""
    nx = light.shape[1]
    over = np.zeros((light.shape[0], OVERSCAN * nx // N_COLUMNS))
    return np.round(np.hstack([light, over]) + np.reshape(level, (-1, 1))).astype(np.uint16)


@pytest.mark.parametrize("noise", [1.2, 3.5, 8.0])
def test_smooth_overscan_is_known_better_than_its_row_means(noise):
    """A drift slower than some 60 rows: averaging over rows leaves a fraction of the noise of a row's mean."""
    rng = np.random.default_rng(1)
    truth = 998.0 + 0.8 * np.sin(ROWS / 90.0) + 0.5 * (ROWS / AMP_ROWS) ** 2
    level, _ = ccd.overscan_level(overscan_frame(rng, truth, noise))
    error = level - truth
    of_a_mean = np.hypot(noise, 0.289) / np.sqrt(OVERSCAN - 1)
    assert abs(error.mean()) < 3 * of_a_mean / np.sqrt(AMP_ROWS)
    assert np.sqrt(np.mean(error**2)) < 0.5 * of_a_mean


@pytest.mark.parametrize("noise", [0.9, 1.2, 2.0, 3.53, 6.0])
def test_read_noise_of_integer_frames_within_two_per_cent(noise):
    rng = np.random.default_rng(2)
    pixels = overscan_frame(rng, np.full(AMP_ROWS, 1000.37), noise)
    _, measured = ccd.overscan_level(pixels)
    # The converter's steps are part of the noise that frames have: 1 / sqrt(12) ADU.
    assert measured == pytest.approx(np.sqrt(noise**2 + 1 / 12), rel=0.02)


def test_real_jumps_from_row_to_row_are_followed():
    rng = np.random.default_rng(3)
    truth = 1000.0 + rng.normal(0, 2.0, AMP_ROWS)
    level, _ = ccd.overscan_level(overscan_frame(rng, truth, 3.5))
    assert np.std(level - truth) < 1.1 * 3.5 / np.sqrt(OVERSCAN - 1)


def test_a_single_row_that_jumps_keeps_its_level():
    rng = np.random.default_rng(4)
    truth = np.full(AMP_ROWS, 1000.0)
    truth[500] += 12.0
    level, _ = ccd.overscan_level(overscan_frame(rng, truth, 3.5))
    of_a_mean = 3.5 / np.sqrt(OVERSCAN - 1)
    assert level[500] == pytest.approx(1012.0, abs=4 * of_a_mean)
    assert np.abs(level[[498, 499, 501, 502]] - 1000.0).max() < 4 * of_a_mean


def test_hits_in_the_overscan_do_not_move_the_level():
    rng = np.random.default_rng(5)
    pixels = overscan_frame(rng, np.full(AMP_ROWS, 1000.0), 3.0)
    clean, _ = ccd.overscan_level(pixels)
    pixels[rng.integers(0, AMP_ROWS, 300), rng.integers(0, OVERSCAN - 1, 300)] += 5000
    level, noise = ccd.overscan_level(pixels)
    assert np.abs(level - clean).max() < 0.5
    assert noise == pytest.approx(np.sqrt(9 + 1 / 12), rel=0.03)


def test_amplifier_in_electrons_without_its_overscan():
    light = np.tile(np.linspace(0, 30000, N_COLUMNS).round(), (AMP_ROWS, 1))
    amp = ccd.process_amplifier(raw_frame(light), "LL", CARDS)
    assert amp.data.shape == (AMP_ROWS, N_COLUMNS)
    assert amp.data.dtype == np.float32
    assert np.abs(amp.data - 0.9 * light).max() < 0.01
    assert amp.decisions == ()
    assert (amp.gain, amp.rdnoise) == (0.9, 2.7)
    assert not amp.mask.any()


def test_level_is_taken_from_the_same_row():
    """A bias that ramps over rows is taken out whatever the orientation of the amplifier."""
    level = 900 + np.round(ROWS / 4.0)
    for amp in ("LL", "LU", "RL", "RU"):
        image = ccd.process_amplifier(raw_frame(np.full((AMP_ROWS, N_COLUMNS), 200.0), level), amp, CARDS)
        # The steps of the ramp are smoothed over some rows: half a step at most.
        assert np.abs(image.data - 0.9 * 200).max() < 0.6
        assert abs(image.data.mean() - 0.9 * 200) < 0.02
        assert np.ptp(image.data, axis=1).max() < 1e-3


def test_first_overscan_column_is_left_out():
    """It still holds light of the last pixel: too little to be an outlier, enough to lift the level."""
    rng = np.random.default_rng(7)
    raw = np.round(1000 + rng.normal(0, 3.3, (AMP_ROWS, N_COLUMNS + OVERSCAN))).astype(np.uint16)
    raw[:, N_COLUMNS] += 8
    amp = ccd.process_amplifier(raw, "LL", CARDS)
    assert abs(amp.data.mean()) < 4 * 0.9 * 3.3 / np.sqrt(AMP_ROWS * OVERSCAN)
    assert 8 * 0.9 * 3.3 / np.sqrt(AMP_ROWS * OVERSCAN) < 0.9 * 8 / OVERSCAN


@pytest.mark.parametrize(
    ("amp", "ampname", "corner"),
    [
        ("LL", "LL", (0, 0)), ("RU", "RU", (0, 0)), ("LU", "LU", (-1, -1)), ("RL", "RL", (-1, -1)),
        ("LL", None, (0, 0)), ("LU", None, (-1, -1)), ("RL", "LR", (-1, 0)), ("LU", "UL", (-1, 0)),
        ("RU", " lr ", (0, -1)),
    ],
)  # fmt: skip
def test_orientation(amp, ampname, corner):
    """LU and RL are stored turned by 180 degrees; AMPNAME LR or UL reverses the columns once more."""
    light = np.zeros((AMP_ROWS, N_COLUMNS))
    light[0, 0] = 64200  # saturated on its level of 1000, so that the mask is seen to turn with the image
    light[0, 1] = 500
    image = ccd.process_amplifier(raw_frame(light), amp, CARDS | {"AMPNAME": ampname})
    rows, columns = corner
    beside = 1 if columns == 0 else -2
    assert image.data[rows, beside] == pytest.approx(450.0, abs=0.1)
    assert image.data[rows, columns] > 50000
    assert image.mask[rows, columns] == DQ.SATURATED
    assert np.count_nonzero(image.mask) == 1


@pytest.mark.parametrize("value", [0, -1.0, None, "many", 99.0, float("nan")])
def test_nonsense_in_the_header_means_a_default_and_says_so(value):
    cards = {"GAIN": value, "RDNOISE": value, "AMPNAME": "LL"}
    amp = ccd.process_amplifier(raw_frame(np.full((AMP_ROWS, N_COLUMNS), 1000.0)), "LL", cards)
    assert (amp.gain, amp.rdnoise) == (DEFAULT_GAIN, DEFAULT_RDNOISE)
    assert amp.data.mean() == pytest.approx(1000 * DEFAULT_GAIN, rel=1e-5)
    assert [(d.code, d.severity) for d in amp.decisions] == [("DEFGAIN", "warn"), ("DEFRDNOI", "warn")]


def test_binned_frame():
    light = np.full((AMP_ROWS, N_COLUMNS // 2), 300.0)
    part = ccd.process_amplifier(raw_frame(light), "LL", CARDS)
    image = ccd.stack(part, part)
    assert image.data.shape == (2 * AMP_ROWS, N_COLUMNS // 2)
    assert image.binning == 2
    assert image.data.mean() == pytest.approx(270.0, abs=0.01)


@pytest.mark.parametrize(
    "shape", [(AMP_ROWS, N_COLUMNS), (AMP_ROWS - 1, N_COLUMNS + OVERSCAN), (516, 1064), (AMP_ROWS,)]
)
def test_other_sizes_are_refused(shape):
    with pytest.raises(ccd.FrameShapeError, match="--leave-out"):
        ccd.process_amplifier(np.zeros(shape, np.uint16), "RU", CARDS)


def test_stack_puts_the_bottom_amplifier_first():
    flat = np.ones((AMP_ROWS, N_COLUMNS))
    bottom = ccd.process_amplifier(raw_frame(100 * flat), "LL", {"GAIN": 1.0, "RDNOISE": 2.5, "AMPNAME": "LL"})
    top = ccd.process_amplifier(raw_frame(200 * flat), "LU", {"GAIN": 0, "RDNOISE": 3.5, "AMPNAME": "UL"})
    image = ccd.stack(bottom, top)
    assert image.data[:AMP_ROWS].mean() == pytest.approx(100, abs=0.01)
    assert image.data[AMP_ROWS:].mean() == pytest.approx(200 * DEFAULT_GAIN, abs=0.01)
    assert image.rdnoise.shape == (2 * AMP_ROWS, 1)
    assert set(np.unique(image.rdnoise[:AMP_ROWS])) == {2.5}
    assert set(np.unique(image.rdnoise[AMP_ROWS:])) == {3.5}
    assert [d.code for d in image.decisions] == ["DEFGAIN"]
    assert image.binning == 1
    assert [d.code for d in ccd.stack(top, top).decisions] == ["DEFGAIN"]


def test_halves_of_different_binning_do_not_stack():
    full = ccd.process_amplifier(raw_frame(np.eye(AMP_ROWS, N_COLUMNS)), "LL", CARDS)
    binned = ccd.process_amplifier(raw_frame(np.eye(AMP_ROWS, N_COLUMNS // 2)), "LU", CARDS)
    with pytest.raises(ccd.FrameShapeError, match="differ in size: 1032 x 2064 and 1032 x 1032 pixels"):
        ccd.stack(full, binned)


def test_an_amplifier_that_was_not_read_out_is_refused():
    with pytest.raises(ccd.NoReadoutError, match="RL was not read out: every pixel holds 1000 ADU"):
        ccd.process_amplifier(np.full((AMP_ROWS, N_COLUMNS + OVERSCAN), 1000, np.uint16), "RL", CARDS)
    with pytest.raises(ccd.NoReadoutError, match="RL is saturated: every pixel holds 65535 ADU: copy its file again"):
        ccd.process_amplifier(np.full((AMP_ROWS, N_COLUMNS + OVERSCAN), 65535, np.uint16), "RL", CARDS)


@pytest.mark.parametrize("cards", [{"AMPNAME": "ZZ"}, {"AMPNAME": 7}, {}])
def test_an_amplifier_of_unknown_name_is_not_mirrored_and_says_so(cards):
    light = raw_frame(np.tile(np.arange(N_COLUMNS), (AMP_ROWS, 1)) // 8)
    facts = {"GAIN": 1.0, "RDNOISE": 3.0}
    known = ccd.process_amplifier(light, "LL", facts | {"AMPNAME": "LL"})
    unknown = ccd.process_amplifier(light, "LL", facts | cards)
    assert known.decisions == ()
    assert [d.code for d in unknown.decisions] == ["DEFAMPN"]
    shown = repr(cards["AMPNAME"]) if cards else "missing"
    assert unknown.decisions[0].text.startswith(f"AMPNAME is {shown} in the header of amplifier LL")
    assert np.array_equal(known.data, unknown.data)


def test_noisy_frame_has_its_read_noise_and_no_offset():
    """The whole step on a dark frame: mean zero, and the scatter that read noise and gain make."""
    rng = np.random.default_rng(6)
    level = 1000 + 2 * np.sin(ROWS / 100)
    raw = np.round(level[:, None] + rng.normal(0, 3.3, (AMP_ROWS, N_COLUMNS + OVERSCAN))).astype(np.uint16)
    amp = ccd.process_amplifier(raw, "RL", CARDS)
    assert abs(amp.data.mean()) < 3 * 0.9 * 3.3 / np.sqrt(AMP_ROWS * OVERSCAN)
    assert robust(amp.data.mean(axis=1)) < 0.9 * 3.3 * 0.5 / np.sqrt(OVERSCAN)
    assert np.std(amp.data) == pytest.approx(0.9 * np.sqrt(3.3**2 + 1 / 12), rel=0.01)
    assert amp.overscan_noise * amp.gain == pytest.approx(np.std(amp.data), rel=0.02)
