from __future__ import annotations

import builtins
import io
import json
import os
import tarfile
import time
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits
from raw_factory import SHAPE, Blob, Obs, calibrations, fits_blob, header, write_night, write_tar

from panacea_nb.errors import RequestError
from panacea_nb.raw import (
    BadNightError,
    MissingNightError,
    UnreadableFrameError,
    digest,
    index_night,
    inspect_text,
    read_amplifier,
)
from panacea_nb.raw.frames import Exposure, FrameRecord

NIGHT = "20250115"
LAYOUTS = (1, 2, 2.5, 3)


def pixels(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


def small_night(data=None) -> list[Obs]:
    return [
        Obs(1, "zro", "zero", 2, datetime(2025, 1, 15, 0, 5), 0.0),
        Obs(12, "sci", "HD_19445_056_E", 2, datetime(2025, 1, 15, 3, 0, 0, 500000), 120.0, data=data or {}),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_and_records_are_the_same_in_every_layout(tmp_path, layout):
    data = {(1, "056", "LL"): pixels(1), (2, "066", "RU"): pixels(2)}
    write_night(tmp_path, NIGHT, small_night(data), layout)
    index = index_night(tmp_path, NIGHT)
    assert index.problems == []
    assert len(index.frames) == 2 * 2 * 8
    for (exp, slot, amp), truth in data.items():
        (record,) = index.select(kind="sci", exp=exp, ifuslot=slot, amp=amp)
        raw = read_amplifier(record)
        assert raw.data.dtype == np.uint16
        assert np.array_equal(raw.data, truth)
        assert raw.header["OBJECT"] == "HD_19445_056_E"
        assert (raw.header["NAXIS1"], raw.header["NAXIS2"]) == (2128, 1032)
        assert FrameRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    first = index.exposures("sci", "056")[0]
    assert (first.obsid, first.exp, first.exptime, first.binning) == (12, 1, 120.0, "1x1")
    assert first.start == datetime(2025, 1, 15, 3, 0, 0, 500000)
    assert list(first.amps) == ["LL", "LU", "RL", "RU"]


def test_digest_depends_on_the_bytes_and_not_on_the_layout(tmp_path):
    seen = set()
    for layout in LAYOUTS:
        root = tmp_path / str(layout)
        write_night(root, NIGHT, small_night({(1, "056", "LL"): pixels(1)}), layout)
        (record,) = index_night(root, NIGHT).select(kind="sci", exp=1, ifuslot="056", amp="LL")
        seen.add(digest(record))
        other = index_night(root, NIGHT).select(kind="sci", exp=1, ifuslot="056", amp="LU")[0]
        assert digest(other) not in seen
    assert len(seen) == 1


def test_only_headers_are_read(tmp_path, monkeypatch):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X_056_E")])
    size = os.path.getsize(tmp_path / NIGHT / "lrs2" / "lrs20000001.tar")
    taken = []

    class Counting(io.FileIO):
        def readinto(self, buffer):
            taken.append(super().readinto(buffer))
            return taken[-1]

    real = builtins.open

    def counting_open(file, mode="r", **keywords):
        if str(file).endswith(".tar"):
            return io.BufferedReader(Counting(file), keywords.get("buffering", 8192))
        return real(file, mode, **keywords)

    monkeypatch.setattr("builtins.open", counting_open)
    assert len(index_night(tmp_path, NIGHT).frames) == 8
    assert size > 35e6
    assert sum(taken) < 0.04 * size


def test_2x1_binning(tmp_path):
    truth = pixels(3, (1032, 1064))
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X", shape=(1032, 1064), data={(1, "056", "LL"): truth})])
    record = index_night(tmp_path, NIGHT).select(ifuslot="056", amp="LL")[0]
    assert record.binning == "2x1"
    assert np.array_equal(read_amplifier(record).data, truth)


def test_other_number_formats_are_read_and_nonsense_is_refused(tmp_path):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 60000
    size = len(header()) + 4 * values.size
    name = "lrs20000001/exp01/lrs2/20250115T030000.0_056{}_sci.fits"
    good = Blob(header({}, SHAPE, -32, unsigned=False) + values.astype(">f4").tobytes(), size)
    bad = Blob(header({}, SHAPE, -32, unsigned=False) + (values + 0.5).astype(">f4").tobytes(), size)
    write_tar(tmp_path / NIGHT / "lrs2" / "lrs20000001.tar", [(name.format("LL"), good), (name.format("LU"), bad)])
    low, high = index_night(tmp_path, NIGHT).frames
    assert np.array_equal(read_amplifier(low).data, values)
    with pytest.raises(UnreadableFrameError, match="numbers that no raw frame has"):
        read_amplifier(high)


def test_date_in_the_name_may_differ_from_the_night(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X", start=datetime(2025, 1, 14, 23, 59, 59, 900000))])
    (exposure, _) = index_night(tmp_path, NIGHT).exposures("sci")
    assert exposure.night == NIGHT
    assert exposure.start == datetime(2025, 1, 14, 23, 59, 59, 900000)


def test_refused_members_are_problems_and_the_rest_is_used(tmp_path):
    members = list(Obs(1, "sci", "X").members())

    def special(kind, target=""):
        info = tarfile.TarInfo()
        info.type, info.linkname = kind, target
        return info

    frame = "lrs20000001/exp02/lrs2/20250115T040000.0_056LL_sci.fits"
    blob = fits_blob({})
    members += [
        (frame, special(tarfile.SYMTYPE, "/etc/passwd")),
        (frame.replace("LL", "LU"), special(tarfile.LNKTYPE, members[0][0])),
        (frame.replace("LL", "RL"), special(tarfile.CHRTYPE)),
        (frame.replace("LL", "RU"), special(tarfile.GNUTYPE_SPARSE)),
        ("../" + frame, blob),
        ("/" + frame, blob),
        ("lrs20000001/exp02/lrs2", special(tarfile.DIRTYPE)),
        (frame.replace("056", "013"), blob),
        (frame.replace("T04", "T44"), blob),
        (frame.replace("LL", "XL"), blob),
        (frame.replace("sci", "foo"), blob),
        (frame.replace("lrs20000001", "lrs20000002"), blob),
        ("lrs20000001/notes\x1b[31m.txt", Blob(b"hello", 5)),
    ]
    write_tar(tmp_path / NIGHT / "lrs2" / "lrs20000001.tar", members)
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 8
    assert {frame.exp for frame in index.frames} == {1}
    texts = [str(problem) for problem in index.problems]
    assert len(texts) == 12
    words = {"is a link": 2, "not a regular": 2, "out of the archive": 2, "IFU slot 013": 1, "no time": 1}
    for word, count in words.items():
        assert sum(word in text for text in texts) == count, word
    for word in ("amplifier XL", "type foo", "of observation 2 and lies where observation 1 belongs"):
        assert any(word in text for text in texts), word
    assert [p.severity for p in index.problems].count("warn") == 7
    assert "\x1b" not in inspect_text(index)


def test_first_of_two_copies_counts_across_layouts(tmp_path):
    one, other = pixels(1), pixels(2)
    write_night(tmp_path, NIGHT, small_night({(1, "056", "LL"): one}), 1)
    write_night(tmp_path, NIGHT, small_night({(1, "056", "LL"): other}), 3)
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 32
    assert np.array_equal(read_amplifier(index.select(kind="sci", exp=1, ifuslot="056", amp="LL")[0]).data, one)
    assert [p.severity for p in index.problems] == ["info", "info"]
    assert all("16 frame(s) that are there already" in p.what for p in index.problems)


@pytest.mark.parametrize("cut", [0.3, 0.55, 0.9])
def test_truncated_tar_gives_what_is_complete(tmp_path, cut):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X"), Obs(2, "sci", "Y")])
    path = tmp_path / NIGHT / "lrs2" / "lrs20000001.tar"
    size = os.path.getsize(path)
    os.truncate(path, int(cut * size))
    index = index_night(tmp_path, NIGHT)
    assert len(index.select(obsid=1)) == int(cut * size / ((size - 1024) / 8))
    assert len(index.select(obsid=2)) == 8
    assert any("cut off" in problem.what for problem in index.problems)
    assert all(problem.severity == "warn" for problem in index.problems)


def test_truncated_night_tar_gives_what_is_complete(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(i, "sci", "X") for i in (1, 2, 3)], 2)
    path = tmp_path / f"{NIGHT}.tar"
    os.truncate(path, os.path.getsize(path) // 2)
    index = index_night(tmp_path, NIGHT)
    assert len(index.select(obsid=1)) == 8
    assert len(index.select(obsid=2)) == 4
    assert index.select(obsid=3) == ()
    assert any("cut off" in problem.what for problem in index.problems)


def test_damage_in_the_middle_and_a_missing_end_mark_are_noticed(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X")])
    path = tmp_path / NIGHT / "lrs2" / "lrs20000001.tar"
    step = (os.path.getsize(path) - 1024) // 8
    with open(path, "r+b") as stream:
        stream.seek(3 * step)
        stream.write(b"garbage" * 73)
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 3
    assert f"damaged at byte {3 * step}" in index.problems[0].what
    write_tar(path, list(Obs(1, "sci", "X").members()), end=False)
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 8
    assert "no end mark" in index.problems[0].what


@pytest.mark.parametrize("content", [b"", b"not a tar at all" * 100, bytes(512 * 40)])
def test_a_file_that_is_no_tar_is_a_problem_not_an_exception(tmp_path, content):
    write_night(tmp_path, NIGHT, [Obs(2, "sci", "X")])
    (tmp_path / NIGHT / "lrs2" / "lrs20000001.tar").write_bytes(content)
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 8
    assert len(index.problems) == 1


def test_damaged_headers_and_wrong_shapes_leave_only_their_frame_out(tmp_path):
    members = dict(Obs(1, "sci", "X", slots=("056",)).members())
    names = list(members)
    members[names[0]] = Blob(b"junk", members[names[0]].size)
    members[names[1]] = fits_blob({}, shape=(100, 100))
    members[names[2]] = Blob(header({"BITPIX": b"= 'sixteen'"}), members[names[2]].size)
    write_tar(tmp_path / NIGHT / "lrs2" / "lrs20000001.tar", list(members.items()))
    index = index_night(tmp_path, NIGHT)
    assert [frame.amp for frame in index.frames] == ["RU"]
    assert "does not begin like a FITS file" in index.problems[0].what
    assert "100 x 100 instead of 1032 x 2128 or 1032 x 1064" in index.problems[1].what
    assert "does not say what its data are" in index.problems[2].what


def test_header_values_of_wrong_type_do_not_hurt(tmp_path):
    cards = {
        "OBJECT": 12345,
        "EXPTIME": "long",
        "QPROG": True,
        "GAIN": b"= 1.0E999",
        "RDNOISE": b"=            / nothing",
        "QRA": b"= 'unclosed",
        "OBJECT2": b"  no value",
        "bad key": 5,
        "A B": b"= \xff\xfe 'x",
        "HISTORY": b"  \x07 bell",
        "DATE": "2025-01-15T03:00:00.5",
    }
    write_night(tmp_path, NIGHT, [Obs(1, "sci", cards=cards)])
    index = index_night(tmp_path, NIGHT)
    exposure = index.exposures("sci", "056")[0]
    assert index.problems == []
    assert (exposure.object_name, exposure.exptime, exposure.program) == ("12345", None, "True")
    assert exposure.card("QRA") == "'unclosed"
    assert (exposure.value("GAIN"), exposure.value("RDNOISE"), exposure.value("NOTHERE")) == (None, None, None)
    assert [d.code for d in exposure.decisions] == ["NOEXPTIME"]
    assert np.isnan(index.table()["exptime"][0])
    raw = read_amplifier(exposure.amps["LL"])
    assert raw.header["OBJECT"] == 12345
    assert raw.header["DATE"] == "2025-01-15T03:00:00.5"
    fits.PrimaryHDU(np.zeros(SHAPE, np.int16), raw.header).writeto(tmp_path / "x.fits", output_verify="exception")


def test_text_of_headers_is_cleaned_for_display_and_kept_raw(tmp_path):
    nasty = "A\x1b[31m\nB\xe9_056_E"
    write_night(tmp_path, NIGHT, [Obs(1, "sci", nasty)])
    exposure = index_night(tmp_path, NIGHT).exposures("sci", "056")[0]
    assert exposure.object_name == "A?[31m?B?_056_E"
    assert exposure.card("OBJECT") == nasty
    assert exposure.target_ifuslot == "056"
    assert read_amplifier(exposure.amps["LL"]).header["OBJECT"] == "A?[31m?B?_056_E"


@pytest.mark.parametrize(
    ("cards", "expected", "codes"),
    [
        ({"EXPTIME": 300.0}, 300.0, []),
        ({"EXPTIME": 0}, 0.0, []),
        ({"EXPTIME": -1.0, "REXPTIME": 900.0}, 907.0, ["EXPTIME"]),
        ({"EXPTIME": -1.0}, None, ["NOEXPTIME"]),
        ({"EXPTIME": None}, None, ["NOEXPTIME"]),
        ({"EXPTIME": "120.5"}, 120.5, []),
        ({"EXPTIME": 1e30}, None, ["NOEXPTIME"]),
        ({"EXPTIME": -1.0, "REXPTIME": 1e9}, None, ["NOEXPTIME"]),
    ],
)
def test_exposure_time(tmp_path, cards, expected, codes):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X", cards=cards)])
    exposure = index_night(tmp_path, NIGHT).exposures("sci")[0]
    assert exposure.exptime == expected
    assert [d.code for d in exposure.decisions] == codes


@pytest.mark.parametrize(
    ("name", "slot", "standard"),
    [
        ("HD_19445_056_E", "056", True),
        ("hd_84937_066_W", "066", True),
        ("NGC_056", "056", False),
        ("src_056_b_066_E", "066", False),
        ("J0566_E", None, False),
        ("", None, False),
    ],
)
def test_what_object_says(tmp_path, name, slot, standard):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", name)])
    exposure = index_night(tmp_path, NIGHT).exposures("sci", "056")[0]
    assert exposure.target_ifuslot == slot
    assert exposure.is_standard is standard
    assert exposure.on_target is (slot in (None, "056"))


def test_cache_serves_until_a_tar_changes(tmp_path, monkeypatch):
    write_night(tmp_path, NIGHT, small_night())
    cache = tmp_path / "cache"
    first = index_night(tmp_path, NIGHT, cache)
    (file,) = cache.iterdir()
    walked = []
    from panacea_nb.raw import index as module

    real = module._walk
    monkeypatch.setattr(module, "_walk", lambda container: walked.append(container.obsid) or real(container))
    assert index_night(tmp_path, NIGHT, cache) == first
    assert walked == []
    write_night(tmp_path, NIGHT, [Obs(12, "sci", "OTHER"), Obs(13, "sci", "NEW")])
    second = index_night(tmp_path, NIGHT, cache)
    assert walked == [12, 13]
    assert {e.object_name for e in second.exposures("sci")} == {"OTHER", "NEW"}
    os.unlink(tmp_path / NIGHT / "lrs2" / "lrs20000013.tar")
    index_night(tmp_path, NIGHT, cache)
    assert len(json.loads(file.read_text())["containers"]) == 2
    assert os.listdir(cache) == [file.name]


@pytest.mark.parametrize("layout", [2, 3])
def test_cache_of_the_other_layouts(tmp_path, monkeypatch, layout):
    write_night(tmp_path, NIGHT, small_night(), layout)
    first = index_night(tmp_path, NIGHT, tmp_path / "cache")
    monkeypatch.setattr("panacea_nb.raw.index._walk", None)
    assert index_night(tmp_path, NIGHT, tmp_path / "cache") == first


@pytest.mark.parametrize("damage", ["truncate", "type", "entry", "names"])
def test_damaged_cache_is_rebuilt(tmp_path, damage, caplog):
    write_night(tmp_path, NIGHT, small_night())
    cache = tmp_path / "cache"
    first = index_night(tmp_path, NIGHT, cache)
    (file,) = cache.iterdir()
    good = file.read_text()
    content = json.loads(good)
    entry = next(iter(content["containers"].values()))
    if damage == "truncate":
        file.write_text(good[:1000])
    elif damage == "type":
        file.write_text("[1, 2]")
    elif damage == "entry":
        entry["payload"] = {"frames": [{"names": 5}]}
        file.write_text(json.dumps(content))
    else:
        entry["payload"]["frames"][0]["names"] = ["../../etc/passwd"]
        file.write_text(json.dumps(content))
    assert index_night(tmp_path, NIGHT, cache) == first
    assert file.read_text() == good
    assert ("not readable" in caplog.text) is (damage == "truncate")


def test_unwritable_cache_is_no_failure(tmp_path, caplog):
    write_night(tmp_path, NIGHT, small_night())
    (tmp_path / "file").write_text("")
    assert len(index_night(tmp_path, NIGHT, tmp_path / "file").frames) == 32
    assert "cannot be written" in caplog.text


def test_losses_are_looked_at_anew(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X")])
    path = tmp_path / NIGHT / "lrs2" / "lrs20000001.tar"
    os.truncate(path, os.path.getsize(path) // 2)
    assert len(index_night(tmp_path, NIGHT, tmp_path / "cache").problems) == 2
    (file,) = (tmp_path / "cache").glob("*") if (tmp_path / "cache").exists() else (None,)
    assert file is None or json.loads(file.read_text())["containers"] == {}


def test_a_frame_that_changed_after_indexing_is_refused(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X", data={(1, "056", "LL"): pixels(1)})])
    record = index_night(tmp_path, NIGHT).frames[0]
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "Y")])
    with pytest.raises(UnreadableFrameError, match="not the frame that was indexed"):
        read_amplifier(record)
    path = tmp_path / NIGHT / "lrs2" / "lrs20000001.tar"
    os.truncate(path, 10000)
    with pytest.raises(UnreadableFrameError, match="bytes early"):
        read_amplifier(record)
    os.unlink(path)
    with pytest.raises(UnreadableFrameError, match="cannot be read"):
        digest(record)


def test_requests_that_cannot_be_met(tmp_path):
    with pytest.raises(MissingNightError, match="not a folder"):
        index_night(tmp_path / "nowhere", NIGHT)
    with pytest.raises(MissingNightError, match="no raw LRS2 data of night 20250115"):
        index_night(tmp_path, NIGHT)
    for night in ("2025011", "20251301", "abc", "２０２５０１１５", "20250115/.."):
        with pytest.raises(BadNightError, match="YYYYMMDD"):
            index_night(tmp_path, night)
    assert issubclass(MissingNightError, RequestError)


def test_odd_things_in_the_folder(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(1, "sci", "X")])
    folder = tmp_path / NIGHT / "lrs2"
    (folder / "readme.txt").write_text("hello")
    (folder / ".hidden").write_text("")
    os.mkfifo(folder / "lrs20000002.tar")
    os.symlink(tmp_path / "gone", folder / "lrs20000003.tar")
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 8
    assert [(os.path.basename(p.where), p.severity) for p in index.problems] == [
        ("lrs20000002.tar", "warn"),
        ("lrs20000003.tar", "warn"),
        ("readme.txt", "info"),
    ]


def test_night_tar_may_hold_other_instruments(tmp_path):
    others = [("20250115/virus/virus0000001.tar", Blob(b"x", 5000)), ("20250115/gc1/gc1.tar", Blob(b"x", 5000))]
    inner = [("20250115/lrs2/lrs20000001.tar", list(Obs(1, "sci", "X").members()))]
    write_tar(tmp_path / f"{NIGHT}.tar", others + inner + [("20250115/lrs2/extra.tar", Blob(b"x", 512))])
    index = index_night(tmp_path, NIGHT)
    assert len(index.frames) == 8
    assert [(p.what, p.severity) for p in index.problems] == [("name is not lrs2NNNNNNN.tar", "info")]
    assert index.frames[0].container[1] == "20250115/lrs2/lrs20000001.tar"


def test_a_hundred_tars_are_indexed_in_two_seconds(tmp_path):
    write_night(tmp_path, NIGHT, [Obs(i, "sci", f"target{i}") for i in range(1, 101)])
    start = time.process_time()
    index = index_night(tmp_path, NIGHT, tmp_path / "cache")
    assert time.process_time() - start < 2.0
    assert len(index.frames) == 800
    start = time.process_time()
    index_night(tmp_path, NIGHT, tmp_path / "cache")
    assert time.process_time() - start < 0.5


def test_table_and_text_of_a_night(tmp_path):
    night = [*calibrations(NIGHT), Obs(20, "sci", "HD_19445_056_E", 3, cards={"QPROG": "HET25-1-999"})]
    night.append(Obs(21, "sci", "M31", amps=("LL", "LU", "RL"), slots=("066",), start=datetime(2025, 1, 15, 5)))
    write_night(tmp_path, NIGHT, night)
    index = index_night(tmp_path, NIGHT)
    table = index.table()
    assert len(table) == len(index.exposures()) == 2 * (5 + 3 + 2 + 6 + 3) + 1
    assert set(table["program"]) == {"", "HET25-1-999"}
    assert table["start"][0] == "2025-01-15T00:05:00.000"
    lines = inspect_text(index).splitlines()
    (line,) = (line for line in lines if line.startswith("0000020"))
    assert line.split() == [
        *("0000020", "1-3", "sci", "2025-01-15", "03:00:00", "60", "4", "4", "1x1"),
        *("HD_19445_056_E", "HET25-1-999", "standard"),
    ]
    (line,) = (line for line in lines if line.startswith("0000021"))
    assert "no RU" in line
    assert [line[:7] for line in lines if line[:3] == "000"] == sorted(
        (f"{o.obsid:07d}" for o in night), key=lambda text: {o.obsid: o.start for o in night}[int(text)]
    )


def test_exposures_of_different_amplifier_times_begin_with_the_first(tmp_path):
    early = list(Obs(1, "sci", "X", amps=("LU",), slots=("056",)).members())
    late = Obs(1, "sci", "X", amps=("LL",), slots=("056",), start=datetime(2025, 1, 15, 3, 0, 2))
    write_tar(tmp_path / NIGHT / "lrs2" / "lrs20000001.tar", [*late.members(), *early])
    (exposure,) = index_night(tmp_path, NIGHT).exposures()
    assert exposure.start == datetime(2025, 1, 15, 3, 0, 0, 500000)
    assert exposure.missing(("LL", "LU", "RL")) == ("RL",)
    assert Exposure.from_dict(json.loads(json.dumps(exposure.to_dict()))) == exposure
