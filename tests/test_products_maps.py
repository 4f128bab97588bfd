"""Maps on the detector, the calibration bundle, and the choice among frames."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from reduce_factory import fiber_model, paint, traces, wavelengths

from panacea_nb.instrument import AMP_ROWS, N_FIBERS, N_WAVE, channel, reference_wavelength
from panacea_nb.products import frames, session
from panacea_nb.products.bundle import Bundle
from panacea_nb.products.cals import calibration_file, lamp_amplitude
from panacea_nb.products.maps import divided, fiber_map, flat_image, over_rows
from panacea_nb.products.write import write_fits
from panacea_nb.reduce.bias import MasterBias
from panacea_nb.reduce.ccd import ChannelImage
from panacea_nb.reduce.extract import Extraction, flux_scale
from panacea_nb.reduce.flat import PixelFlat
from panacea_nb.reduce.maskbits import DQ


def test_map_of_a_linear_quantity_is_exact_everywhere():
    trace = traces(20, 30)
    values = 5000 + 2.0 * trace + np.arange(30)
    rows = over_rows(values, trace, 170)
    exact = 5000 + 2.0 * np.arange(170)[:, None] + np.arange(30)
    assert rows.dtype == np.float32
    assert np.abs(rows - exact).max() < 2e-3


def test_four_rows_of_each_fibre():
    trace = np.array([[10.2, 10.8], [17.0, 17.4]])
    numbers = fiber_map(trace, 30)
    assert numbers.dtype == np.int16
    assert np.flatnonzero(numbers[:, 0] == 1).tolist() == [9, 10, 11, 12]
    assert np.flatnonzero(numbers[:, 1] == 1).tolist() == [9, 10, 11, 12]
    assert np.flatnonzero(numbers[:, 0] == 2).tolist() == [16, 17, 18, 19]
    assert (numbers > 0).sum() == 16
    edge = fiber_map(np.array([[0.5], [28.9]]), 30)
    assert np.flatnonzero(edge[:, 0] == 1).tolist() == [0, 1, 2]
    assert np.flatnonzero(edge[:, 0] == 2).tolist() == [27, 28, 29]


def test_flat_is_one_at_the_centre_of_the_average_fibre():
    """The scale of the response curves: image / flat has the value of the fibre's centre."""
    trace = traces(20, 320)
    model = fiber_model(trace)
    scale = flux_scale(model)
    flat = flat_image(model, np.ones(trace.shape), np.ones((170, 320), np.float32), scale)
    columns = np.arange(320)
    low = np.floor(trace).astype(int)
    centre = 0.5 * (flat[low, columns] + flat[low + 1, columns])
    assert centre.mean() == pytest.approx(1.0, abs=0.02)  # the neighbours' wings lie under it
    pixel = np.ones((170, 320), np.float32)
    pixel[50:60] = 0.9
    dimmed = flat_image(model, 0.5 * np.ones(trace.shape), pixel, scale)
    assert np.allclose(dimmed[50:60], 0.45 * flat[50:60], rtol=1e-5)
    alive = np.ones(20, bool)
    alive[3] = False
    dark = flat_image(fiber_model(trace, alive), np.ones(trace.shape), np.ones((170, 320), np.float32), scale)
    assert dark[int(trace[3, 0]), 0] < 0.2


def test_image_over_its_flat():
    flat = np.array([[1.0, 0.5, 0.05]])
    assert divided(np.array([[2.0, 2.0, 2.0]]), flat).tolist() == [[2.0, 4.0, 0.0]]


def test_quick_amplitude_of_a_lamp():
    trace = traces(20, 320)
    model = fiber_model(trace)
    flat = flat_image(model, np.ones(trace.shape), np.ones((170, 320), np.float32), flux_scale(model))
    lamp = 700.0 * flat
    assert lamp_amplitude(lamp, flat, model) == pytest.approx(700.0, rel=1e-6)


@pytest.fixture(scope="module")
def bundle_file(tmp_path_factory):
    """The calibration bundle of a made-up channel, read back."""
    root = tmp_path_factory.mktemp("cals")
    nx, ny = 48, 2 * AMP_ROWS
    trace = np.linspace(30, ny - 30, N_FIBERS)[:, None] + np.zeros(nx)
    alive = np.ones(N_FIBERS, bool)
    alive[9] = False
    model = fiber_model(trace, alive)
    wavelength = wavelengths(N_FIBERS, nx, 5000.0, 1.5)
    rng = np.random.default_rng(520)
    light = paint(trace, 1000.0, ny).astype(np.float32)
    amplitude = np.full(trace.shape, 3000.0)
    extraction = Extraction(amplitude, amplitude, np.ones_like(amplitude), light, np.zeros((N_FIBERS, 3)))
    arc = Bundle(
        {
            "wavelength": wavelength, "lsf": np.full(trace.shape, 1.9), "arc": 100 + rng.normal(size=trace.shape),
            "variance": np.full(trace.shape, 110.0), "image": light,
        },
        {"rms": 0.0213},
    )  # fmt: skip
    throughput = SimpleNamespace(relative=np.ones(trace.shape))
    pixels = PixelFlat(np.ones((ny, nx), np.float32), np.zeros((ny, nx), bool), 0.01, np.zeros(nx))
    task = session.open(stage="04_flat", output=str(root), night="20250115", channel="orange")
    hdus = calibration_file(task, model, arc, throughput, pixels, 4.6, extraction, light, np.zeros((ny, nx)))
    with fits.open(write_fits(root / "cal.fits", hdus), memmap=False, lazy_load_hdus=False) as found:
        yield found, wavelength, trace


def test_calibration_bundle_in_the_order_that_users_know(bundle_file):
    found, wavelength, trace = bundle_file
    names = [hdu.header["EXTNAME"] for hdu in found]
    assert names[:14] == [
        "wavelength", "trace", "flat", "bigW", "masterbias", "xypos", "dead", "arcspec", "fltspec", "Flatspec", "bigF",
        "masterarc", "masterFlat", "response",
    ]  # fmt: skip
    shapes = {hdu.header["EXTNAME"]: hdu.data.shape for hdu in found}
    assert shapes["wavelength"] == shapes["trace"] == trace.shape
    assert shapes["xypos"] == shapes["dead"] == (N_FIBERS, 2)
    assert shapes["response"] == (2, N_WAVE)
    assert shapes["arcspec"] == shapes["fltspec"] == shapes["Flatspec"] == (N_FIBERS, N_WAVE)
    assert shapes["bigW"] == shapes["masterbias"] == (2 * AMP_ROWS, trace.shape[1])
    found.verify("exception")
    assert np.array_equal(found[0].data, wavelength)


def test_contents_of_the_calibration_bundle(bundle_file):
    found, wavelength, trace = bundle_file
    facts = channel("orange")
    assert np.flatnonzero(found["dead"].data[:, 1]).tolist() == [9]
    assert np.allclose(found["dead"].data[:, 0], trace[:, 24])
    assert np.array_equal(found["xypos"].data, facts.fiber_positions())
    assert np.allclose(found["response"].data[0], facts.wave_grid())
    assert np.allclose(found["response"].data[1], np.interp(facts.wave_grid(), *facts.response()), atol=0)
    middle = np.round(trace[100]).astype(int)
    assert np.allclose(found["bigW"].data[middle, np.arange(48)], wavelength[100], atol=0.01)
    grid = WCS(found["fltspec"].header).pixel_to_world_values(np.arange(N_WAVE), 0)[0] * 1e10
    assert np.allclose(grid, facts.wave_grid(), atol=1e-5)
    inside = (grid > wavelength[100, 3]) & (grid < wavelength[100, -4])
    assert np.allclose(found["fltspec"].data[100, inside], 3000 / 1.5, rtol=0.01)
    assert not found["fltspec"].data[9].any()
    assert not found["fltspec"].data[100, grid < wavelength[100, 0] - 2].any()
    header = found[0].header
    assert (header["CHANNEL"], header["NIGHT"], header["PROFK"], header["ARCRMS"]) == (
        "orange",
        "20250115",
        4.6,
        0.0213,
    )


# --- frames ---------------------------------------------------------------------------------------------------------------------


def image_of(level, saturated=0.0):
    data = np.full((200, 100), float(level), np.float32)
    mask = np.zeros(data.shape, np.uint8)
    mask[: int(200 * saturated)] = DQ.SATURATED
    return ChannelImage(data, mask, np.full((200, 1), 3.0, np.float32))


def label(name):
    return SimpleNamespace(label=name, kind="twi")


def test_flats_neither_faint_nor_saturated():
    images = [image_of(5000), image_of(50), image_of(50000), image_of(8000, 0.05), image_of(101)]
    keep, decisions = frames.exposed_flats(images, [label(n) for n in "abcde"])
    assert keep == [0, 4]
    assert [(d.code, d.text[0]) for d in decisions] == [("FAINTFLAT", "b"), ("SATFLAT", "c"), ("SATFLAT", "d")]
    with pytest.raises(frames.NoUsableFrameError, match="--use_flat"):
        frames.exposed_flats(images[1:2], [label("b")])
    keep, decisions = frames.exposed_flats(images[1:2], [label("b")], needed=False)
    assert (keep, [d.code for d in decisions]) == ([], ["FAINTFLAT"])
    assert frames.exposed_flats([], [], needed=False) == ([], [])


def test_darks_of_comparable_times(monkeypatch):
    monkeypatch.setattr(frames, "dark_time", lambda exposure: exposure.time)
    darks = [SimpleNamespace(label=f"{t} s", time=float(t)) for t in (600, 1, 0, 900, 500)]
    kept, why = frames.long_darks(darks)
    assert [e.time for e in kept] == [600, 900, 500]
    assert [d.text.split(" left")[0] for d in why] == ["1 s", "0 s"]
    assert frames.long_darks([]) == ([], [])


def test_arcs_that_are_not_saturated():
    keep, decisions = frames.exposed_arcs([image_of(10), image_of(3500)], [label("a"), label("b")])
    assert keep == [0]
    assert [d.code for d in decisions] == ["SATARC"]
    with pytest.raises(frames.NoUsableFrameError, match="--cal-date cmp"):
        frames.exposed_arcs([image_of(3500)], [label("b")])


def test_brightness_is_the_75th_percentile():
    image = image_of(0)
    image.data[:, :] = np.linspace(0, 100, 200)[:, None]
    assert frames.brightness(image) == pytest.approx(75, abs=2.5)


def test_pixels_that_cannot_be_used_in_any_frame():
    first, second = image_of(1), image_of(1)
    first.mask[3, 4] = DQ.SATURATED
    second.mask[5, 6] = DQ.BADPIXEL
    second.mask[7, 8] = DQ.COSMIC
    bad = frames.unusable([first, second])
    assert set(zip(*np.nonzero(bad), strict=True)) == {(3, 4), (5, 6)}


def test_read_noise_of_the_rows():
    zeros = np.zeros((2 * AMP_ROWS, 4), np.float32)
    wander = np.array([[0.1, 0.1, 8.0], [0.2, 0.1, 16.0]])
    bias = MasterBias(zeros, zeros, np.array([2.5, 3.5]), zeros > 0, 5, np.zeros((5, 2)), wander)
    noise = frames.noise_rows(bias)
    assert noise.shape == (2 * AMP_ROWS, 1)
    assert (noise[:AMP_ROWS] == 2.5).all()
    assert (noise[AMP_ROWS:] == 3.5).all()


def test_reference_map_of_binned_frames():
    full = reference_wavelength("uv")
    assert np.array_equal(frames.reference_map("uv", full.shape[1]), full)
    half = frames.reference_map("uv", full.shape[1] // 2)
    assert np.allclose(half, 0.5 * (full[:, ::2] + full[:, 1::2]))
    assert frames.reference_map("orange", 2064) is None


def test_image_of_an_exposure(monkeypatch):
    """Both amplifiers in their places, the known defect of uv marked, at either binning."""
    rng = np.random.default_rng(530)

    def read(binning):
        def amplifier(record):
            shape = (AMP_ROWS, (2064 + 64) // binning)
            return SimpleNamespace(data=(1000 + rng.integers(-3, 4, shape)).astype(np.uint16))

        return amplifier

    cards = {"GAIN": 1.0, "RDNOISE": 3.0, "AMPNAME": None}
    exposure = SimpleNamespace(
        label="x", amps={amp: SimpleNamespace(cards=cards) for amp in ("LL", "LU")}, missing=lambda amps: []
    )
    for binning in (1, 2):
        monkeypatch.setattr(frames.raw, "read_amplifier", read(binning))
        image = frames.load_image(exposure, "uv")
        assert image.data.shape == (2 * AMP_ROWS, 2064 // binning)
        marked = np.argwhere(image.mask & DQ.BADPIXEL)
        assert marked.min(axis=0).tolist() == [79, 979 // binning]
        assert marked.max(axis=0).tolist() == [82, 986 // binning]
    missing = SimpleNamespace(label="x", amps={}, missing=lambda amps: ["LU"])
    with pytest.raises(frames.NoUsableFrameError, match="LU"):
        frames.load_image(missing, "uv")


def test_a_bias_frame_with_light_in_it_is_left_out():
    rng = np.random.default_rng(7)

    def frame(light):
        data = rng.normal(0, 3, (2 * AMP_ROWS, 64)).astype(np.float32)
        data[AMP_ROWS:] += light
        return SimpleNamespace(data=data)

    names = [SimpleNamespace(label=name) for name in "abcd"]
    images = [frame(light) for light in (0, 201, 0, 0)]
    kept, decisions = frames.steady(images, names)
    assert [image is images[i] for image, i in zip(kept, (0, 2, 3), strict=True)] == [True] * 3
    assert [d.text for d in decisions] == ["b left out: its level is 201 e- off that of the other bias frames"]
    assert frames.steady(images[:3], names[:3]) == (images[:3], [])  # two alone make no master


def test_when_no_exposure_can_be_used_all_reasons_are_told(monkeypatch):
    def refuse(exposure, channel):
        raise frames.NoUsableFrameError(f"{exposure.label} is broken")

    monkeypatch.setattr(frames, "load_image", refuse)
    broken = [SimpleNamespace(label=name, kind="cmp") for name in "ab"]
    told = r"none of 2 arc \(cmp\) exposures.*--cal-date cmp.*a is broken.*b is broken"
    with pytest.raises(frames.NoUsableFrameError, match=told):
        frames.load_usable(broken, "uv")
    assert frames.load_usable([], "uv") == ([], [], [])
    monkeypatch.setattr(frames, "load_image", lambda exposure, channel: refuse(exposure, channel))
    images, _, decisions = frames.load_usable(broken, "uv", needed=False)
    assert images == []
    assert [d.code for d in decisions] == ["LEFTOUT", "LEFTOUT"]


def test_what_headers_lack_is_told_once_and_with_the_exposures_that_lack_it(monkeypatch):
    lacking = frames.Decision("DEFGAIN", "GAIN is missing", "warn")

    def load(exposure, channel):
        return SimpleNamespace(decisions=[lacking] if exposure.label in "acdefg" else [])

    monkeypatch.setattr(frames, "load_image", load)
    decisions = frames.load_usable([SimpleNamespace(label=name, kind="cmp") for name in "abcdefg"], "uv")[2]
    assert [d.text for d in decisions] == ["GAIN is missing (a, c, d, e and 2 more)"]


def test_a_frame_that_was_not_read_out_is_named(monkeypatch):
    monkeypatch.setattr(frames.raw, "read_amplifier", lambda record: SimpleNamespace(data=np.full((1032, 1064), 7, np.uint16)))
    record = SimpleNamespace(cards={}, path="/raw/lrs20000001.tar:056LL_sci.fits")
    exposure = SimpleNamespace(label="x", amps={"LL": record, "LU": record}, missing=lambda amps: [])
    with pytest.raises(frames.NoReadoutError, match=r"^/raw/lrs20000001\.tar:056LL_sci\.fits: amplifier LL was not read out"):
        frames.load_image(exposure, "uv")


def test_an_exposure_of_another_binning_than_the_bias_is_refused(monkeypatch):
    monkeypatch.setattr(frames, "load_image", lambda exposure, channel: image_of(5))
    bias = SimpleNamespace(data=np.zeros((200, 50), np.float32))
    with pytest.raises(frames.NoUsableFrameError, match=r"x is binned otherwise.*100 pixels, they.*50 pixels.*--leave-out"):
        frames.load_reduced(label("x"), "uv", bias, None)
