from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from raw_factory import Blob, Obs, header, write_blob, write_night, write_tar

from panacea_nb.raw import guider
from panacea_nb.raw.guider import MAX_FRAMES, list_guide_frames

NIGHT = "20250115"
START = datetime(2025, 1, 15, 3, 0, 0)


def frame(seconds, cards=None, camera="gc1", start=START, extension=False):
    """Name and file of a guide frame so many seconds after the start of the exposure."""
    when = start + timedelta(seconds=seconds)
    values = {"GUIDLOOP": "ACTIVE", "TRANSPAR": 0.8, "IQ": 1.5, "PUPILLUM": 0.9, "MJD": 60690.125, "X_STRT": 1.5}
    values |= cards or {}
    values = {key: value for key, value in values.items() if value is not None}
    if extension:
        head = header({}, (4, 5), unsigned=False).ljust(5760, b"\0")
        head += header(values, (), unsigned=False).replace(b"SIMPLE  =", b"XTENSION=")
    else:
        head = header(values, (4, 5), unsigned=False)
    name = when.strftime("%Y%m%dT%H%M%S") + f".{when.microsecond // 100000}_{camera}_sci.fits"
    return name, Blob(head, len(head) + 2880)


def cadence(first=-30, last=330, step=10, camera="gc1", **cards):
    times = range(first, last, step)
    return [frame(s, {k: v(s) if callable(v) else v for k, v in cards.items()}, camera) for s in times]


def place(root, layout, cameras):
    """Write guide frames: tars beside the night, plain files, or within the whole night's tar (as tars or as files)."""
    folder = root / NIGHT
    if layout == "tar":
        for camera, members in cameras.items():
            write_tar(folder / camera / f"{camera}.tar", [(f"{camera}/{name}", blob) for name, blob in members])
    elif layout == "files":
        for camera, members in cameras.items():
            for name, blob in members:
                write_blob(folder / camera / name, blob)
    elif layout == "night of tars":
        members = [(f"{NIGHT}/{camera}/{camera}.tar", found) for camera, found in cameras.items()]
        write_tar(root / f"{NIGHT}.tar", [("20250115/lrs2/lrs20000001.tar", []), *members])
    else:
        members = [(f"{NIGHT}/{camera}/{name}", blob) for camera, found in cameras.items() for name, blob in found]
        write_tar(root / f"{NIGHT}.tar", members)


@pytest.mark.parametrize("layout", ["tar", "files", "night of tars", "night of files"])
def test_means_over_both_cameras_in_every_layout(tmp_path, layout):
    one = cadence(TRANSPAR=lambda s: 0.7 + s / 1000, IQ=1.2, PUPILLUM=0.95)
    two = cadence(camera="gc2", TRANSPAR=0.6, IQ=1.8, PUPILLUM=0.85)
    place(tmp_path, layout, {"gc1": one, "gc2": two})
    found = guider(tmp_path, START, 300.0, NIGHT, cache_dir=tmp_path / "cache")
    assert found.n_frames == 2 * MAX_FRAMES
    assert found.transparency == pytest.approx((0.85 + 0.6) / 2, abs=0.004)
    assert found.illumination == pytest.approx(0.9)
    assert found.seeing == pytest.approx(1.5)
    assert found.decisions == []
    assert len(found.table) == 2 * MAX_FRAMES
    assert list(found.table["camera"]) == ["gc1"] * MAX_FRAMES + ["gc2"] * MAX_FRAMES
    assert np.all(found.table["X_STRT"] == 1.5)
    assert np.all(np.isnan(found.table["RHO_STRT"]))
    again = guider(tmp_path, START, 300.0, NIGHT, cache_dir=tmp_path / "cache")
    assert (again.transparency, again.n_frames) == (found.transparency, 2 * MAX_FRAMES)


def test_window_is_ten_seconds_on_both_sides(tmp_path):
    seconds = (-10.1, -10, 0, 60, 70, 70.1)
    place(tmp_path, "tar", {"gc1": [frame(s, {"TRANSPAR": 0.5 if abs(s - 30) < 40.05 else 0.9}) for s in seconds]})
    found = guider(tmp_path, START, 60.0, NIGHT)
    assert (found.n_frames, found.transparency) == (4, 0.5)


def test_cameras_take_turns(tmp_path):
    def wave(s):
        return round(0.8 + 0.1 * np.cos(2 * np.pi * MAX_FRAMES * (s + 10) / 1000), 4)

    place(tmp_path, "tar", {camera: cadence(-10, 990, 5, camera, TRANSPAR=wave) for camera in ("gc1", "gc2")})
    assert guider(tmp_path, START, 980.0, NIGHT).transparency == pytest.approx(0.8, abs=0.005)


def test_one_camera_alone_is_sampled_at_the_middles(tmp_path):
    place(tmp_path, "tar", {"gc2": cadence(camera="gc2", step=3, TRANSPAR=lambda s: 0.7 + s / 1000)})
    found = guider(tmp_path, START, 300.0, NIGHT)
    assert (found.n_frames, found.transparency) == (MAX_FRAMES, pytest.approx(0.85, abs=0.001))


def test_scatter_of_single_frames_does_not_reach_the_mean(tmp_path):
    rng = np.random.default_rng(4)
    place(
        tmp_path,
        "tar",
        {c: cadence(-10, 910, 5, c, TRANSPAR=lambda s: 0.8 + 0.01 * rng.standard_normal()) for c in ("gc1", "gc2")},
    )
    # five of each camera would leave .3 per cent
    assert guider(tmp_path, START, 900.0, NIGHT).transparency == pytest.approx(0.8, abs=2.5 * 0.01 / 40**0.5)


def test_a_frame_with_a_valid_transparency_is_preferred(tmp_path):
    bad = cadence(step=2, TRANSPAR=lambda s: -1.0 if s % 16 else 0.8, IQ=lambda s: 0.0 if s % 16 else 2.0)
    place(tmp_path, "tar", {"gc1": bad})
    found = guider(tmp_path, START, 300.0, NIGHT)
    assert (found.n_frames, list(found.table["TRANSPAR"])) == (MAX_FRAMES, [0.8] * MAX_FRAMES)


@pytest.mark.parametrize(("cloud", "told"), [(0.05, True), (-1.0, False), (0.3, False)])
def test_thick_clouds_are_told(tmp_path, cloud, told):
    """Half of the exposure with less light than counts as a measurement; a value that says that there was none is not that."""
    frames = cadence(step=2, TRANSPAR=lambda s: 0.9 if s < 150 else cloud)
    place(tmp_path, "tar", {"gc1": frames})
    found = guider(tmp_path, START, 300.0, NIGHT)
    assert [d.code for d in found.decisions if d.code == "THICKCLOUD"] == (["THICKCLOUD"] if told else [])


def test_start_with_a_time_zone_is_understood(tmp_path):
    place(tmp_path, "tar", {"gc1": [frame(5)]})
    aware = START.replace(tzinfo=UTC)
    for start in (START, aware, aware.astimezone(timezone(timedelta(hours=-6)))):
        assert guider(tmp_path, start, 60.0, NIGHT).n_frames == 1


def test_only_a_closed_loop_counts_and_neighbours_stand_in(tmp_path):
    loop = cadence(
        step=2,
        GUIDLOOP=lambda s: "ACTIVE" if s % 16 == 0 else "IDLE",
        TRANSPAR=lambda s: 0.8 if s % 16 == 0 else 0.2,
    )
    place(tmp_path, "tar", {"gc1": loop})
    found = guider(tmp_path, START, 300.0, NIGHT)
    assert (found.n_frames, found.transparency) == (MAX_FRAMES, pytest.approx(0.8))


@pytest.mark.parametrize("cards", [{"GUIDLOOP": "IDLE"}, {"GUIDLOOP": None}, {"GUIDLOOP": 1}])
def test_no_closed_loop(tmp_path, cards):
    place(tmp_path, "tar", {"gc1": cadence(**cards)})
    found = guider(tmp_path, START, 300.0, NIGHT)
    assert (found.transparency, found.illumination, found.seeing, found.n_frames) == (None, None, None, 0)
    assert [(d.code, d.severity) for d in found.decisions] == [("NOGUIDER", "warn")]
    assert "none of the 33 guide frames" in found.decisions[0].text
    assert "0 cannot be read, 33 have no GUIDLOOP = ACTIVE" in found.decisions[0].text
    assert len(found.table) == 0
    assert found.table.colnames[:4] == ["camera", "start", "name", "TRANSPAR"]


def test_no_guider_at_all(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X")])
    found = guider(tmp_path, START, 300.0, NIGHT)
    assert [d.code for d in found.decisions] == ["NOGUIDER"]
    assert "there is no guide frame from" in found.decisions[0].text
    assert found.transparency is None


def test_guide_frames_that_cannot_be_read_are_counted(tmp_path):
    place(
        tmp_path,
        "tar",
        {
            "gc1": [(frame(s)[0], Blob(b"junk", 3000)) for s in (10, 20)],
            "gc2": [frame(30, {"GUIDLOOP": "IDLE"}, "gc2")],
        },
    )
    found = guider(tmp_path, START, 60.0, NIGHT)
    assert [d.code for d in found.decisions] == ["NOGUIDER"]
    assert "2 cannot be read, 1 have no GUIDLOOP = ACTIVE" in found.decisions[0].text


@pytest.mark.parametrize(
    ("keyword", "values", "code"),
    [
        ("TRANSPAR", (0.09, 1.11, "bad"), "NOTRANSP"),
        ("IQ", (0.79, 4.01, -1), "NOSEEING"),
        ("PUPILLUM", (0.0, 1.06, None), "NOILLUM"),
    ],
)
def test_values_out_of_range_are_left_out(tmp_path, keyword, values, code):
    names = {"TRANSPAR": "transparency", "IQ": "seeing", "PUPILLUM": "illumination"}
    bad = [frame(20 * i, {keyword: value}) for i, value in enumerate(values)]
    place(tmp_path, "tar", {"gc1": bad})
    found = guider(tmp_path, START, 60.0, NIGHT)
    assert getattr(found, names[keyword]) is None
    assert [d.code for d in found.decisions] == [code]
    place(tmp_path, "tar", {"gc1": [*bad, frame(60, {keyword: 1.0})]})
    found = guider(tmp_path, START, 60.0, NIGHT)
    assert getattr(found, names[keyword]) == 1.0
    assert found.decisions == []


def test_headers_of_the_first_extension(tmp_path):
    place(tmp_path, "tar", {"gc2": [frame(10, {"TRANSPAR": 0.77}, "gc2", extension=True)]})
    assert guider(tmp_path, START, 60.0, NIGHT).transparency == 0.77


def test_damaged_frames_and_tars(tmp_path):
    name, _ = frame(10)
    members = [(name, Blob(b"junk", 3000)), frame(20, {"TRANSPAR": 0.9}), frame(30, {"TRANSPAR": 0.9})]
    place(tmp_path, "tar", {"gc1": members, "gc2": cadence(camera="gc2")})
    path = tmp_path / NIGHT / "gc2" / "gc2.tar"
    path.write_bytes(path.read_bytes()[:1000])
    found = guider(tmp_path, START, 60.0, NIGHT, cache_dir=tmp_path / "cache")
    assert (found.n_frames, found.transparency) == (2, 0.9)
    assert [d.code for d in found.decisions] == ["GUIDERTAR"]
    assert str(path) in found.decisions[0].text


def test_damaged_cache_is_rebuilt_and_two_copies_count_once(tmp_path):
    place(tmp_path, "tar", {"gc1": cadence()})
    place(tmp_path, "files", {"gc1": cadence()})
    cache = tmp_path / "cache"
    frames, problems = list_guide_frames(tmp_path, NIGHT, cache)
    assert (len(frames), problems) == (36, [])
    (file,) = cache.iterdir()
    good = file.read_text()
    for text in (good[:50], good.replace("gc1_sci.fits", "nothing"), good.replace('"gc1",', "5,")):
        file.write_text(text)
        assert list_guide_frames(tmp_path, NIGHT, cache)[0] == frames
        assert file.read_text() == good
