"""Atomic writing, digests of content, and the files between stages."""

from __future__ import annotations

import os

import numpy as np
import pytest
from astropy.io import fits
from product_factory import products

from panacea_nb.products import bundle, write
from panacea_nb.products.digest import VOLATILE_CARDS, content_digest, file_digest
from panacea_nb.products.science import spectrum_file


def hdus(value=1.0, **cards):
    primary = fits.PrimaryHDU(np.full((4, 5), value, np.float32))
    for name, card in cards.items():
        primary.header[name.replace("_", "-")] = card
    return fits.HDUList([primary])


def test_bytes_are_whole_and_alone(tmp_path):
    path = write.write_bytes(tmp_path / "new" / "a.txt", b"hello")
    assert path.read_bytes() == b"hello"
    write.write_bytes(path, b"again")
    assert path.read_bytes() == b"again"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = write.write_bytes(tmp_path / "a.txt", b"old")

    def full(*_):
        raise OSError("no space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="no space"):
                write.write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_file_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    """A power cut after the rename must not find an empty file."""
    order = []
    monkeypatch.setattr(os, "fsync", lambda *_: order.append("fsync"))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("rename"), rename(*a)))
    write.write_bytes(tmp_path / "a.txt", b"x")
    assert order == ["fsync", "rename"]


def test_files_can_be_read_by_the_group_as_the_mask_says(tmp_path):
    path = write.write_bytes(tmp_path / "a.txt", b"x")
    mask = os.umask(0o022)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_invalid_fits_is_not_written(tmp_path):
    bad = hdus()
    bad[0].header["EXPTIME"] = 1.0
    card = fits.Card.fromstring("EXPTIME = this is no value of any kind / oops")
    bad[0].header.append(card)
    with pytest.raises(fits.VerifyError):
        write.write_fits(tmp_path / "bad.fits", bad)
    assert list(tmp_path.iterdir()) == []


def test_fits_is_sealed(tmp_path):
    path = write.write_fits(tmp_path / "a.fits", hdus())
    with fits.open(path, checksum=True) as found:
        assert found[0].verify_checksum() == found[0].verify_datasum() == 1


def digest_of(tmp_path, content, name="x.fits"):
    return content_digest(write.write_fits(tmp_path / name, content))


def test_digest_does_not_see_when_and_where(tmp_path):
    one = digest_of(tmp_path, hdus(OBJECT="A", DATE_RED="2025-01-01T00:00:00", NBPATH="a/b", HOSTNAME="here"))
    two = digest_of(tmp_path, hdus(OBJECT="A", DATE_RED="2026-01-01T00:00:00", NBPATH="c", HOSTNAME="there"), "y.fits")
    assert one == two
    assert {"DATE-RED", "NBPATH", "CHECKSUM", "DATASUM"} <= VOLATILE_CARDS


def test_digest_sees_every_value(tmp_path):
    base = digest_of(tmp_path, hdus(OBJECT="A", EXPTIME=1.0))
    assert digest_of(tmp_path, hdus(OBJECT="A", EXPTIME=1.0)) == base
    assert digest_of(tmp_path, hdus(OBJECT="B", EXPTIME=1.0)) != base
    assert digest_of(tmp_path, hdus(OBJECT="A", EXPTIME=1.0000001)) != base
    assert digest_of(tmp_path, hdus(np.nextafter(np.float32(1), np.float32(2)), OBJECT="A", EXPTIME=1.0)) != base
    assert digest_of(tmp_path, hdus(OBJECT="A", EXPTIME=1.0, EXTRA=1)) != base
    longer = hdus(OBJECT="A", EXPTIME=1.0)
    longer.append(fits.ImageHDU(np.zeros(3), name="more"))
    assert digest_of(tmp_path, longer) != base


def test_digest_of_tables_and_text(tmp_path):
    made = products()
    one = digest_of(tmp_path, spectrum_file(made))
    assert digest_of(tmp_path, spectrum_file(products())) == one
    made.spectrum[1, 5] *= 1.0001
    assert digest_of(tmp_path, spectrum_file(made)) != one
    text = write.write_bytes(tmp_path / "a.json", b"{}")
    assert content_digest(text) == file_digest(text)
    assert content_digest(text) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_files_between_stages_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(510)
    arrays = {
        "trace": rng.normal(size=(3, 4)),
        "mask": rng.uniform(size=(3, 4)) > 0.5,
        "image": rng.normal(size=(5, 2)).astype(np.float32),
        "number": np.arange(4, dtype=np.int16),
    }
    meta = {"rms": np.float64(0.02), "n": np.int64(3), "used": True, "list": np.array([1.5, 2.5]), "name": "caf\u00e9"}
    path = write.write_fits(tmp_path / "x.fits", bundle.to_hdus(arrays, meta))
    found = bundle.read(path)
    assert set(found.arrays) == set(arrays)
    for name in ("trace", "image", "number"):
        assert (found[name] == arrays[name]).all()
        assert found[name].dtype == arrays[name].dtype
        assert found[name].dtype.isnative
    assert found["mask"].dtype == np.uint8
    assert (found.flag("mask") == arrays["mask"]).all()
    assert found.meta == {"rms": 0.02, "n": 3, "used": True, "list": [1.5, 2.5], "name": "caf\u00e9"}


def test_only_what_is_asked_for_is_read(tmp_path):
    path = write.write_fits(tmp_path / "x.fits", bundle.to_hdus({"a": np.zeros(2), "b": np.ones(2)}, {"k": 1}))
    found = bundle.read(path, "b")
    assert set(found.arrays) == {"b"}
    assert found.meta == {"k": 1}
    with pytest.raises(KeyError):
        found["a"]


def test_odd_values_are_refused():
    with pytest.raises(TypeError, match="plain value"):
        bundle.to_hdus({}, {"x": object()})


def test_same_content_makes_the_same_file(tmp_path):
    """No time of writing, no order of a dictionary: digests of the files between stages can be compared."""
    one = write.write_fits(tmp_path / "a.fits", bundle.to_hdus({"a": np.arange(3.0)}, {"x": 1, "y": 2}))
    two = write.write_fits(tmp_path / "b.fits", bundle.to_hdus({"a": np.arange(3.0)}, {"y": 2, "x": 1}))
    assert content_digest(one) == content_digest(two)


def test_fingerprint_is_that_of_the_data(tmp_path):
    one = write.write_fits(tmp_path / "a.fits", bundle.to_hdus({"a": np.arange(3.0)}, {"x": 1}))
    two = write.write_fits(tmp_path / "b.fits", bundle.to_hdus({"a": np.arange(3.0)}, {"x": 1}))
    three = write.write_fits(tmp_path / "c.fits", bundle.to_hdus({"a": np.arange(3.0) + 1e-12}, {"x": 1}))
    four = write.write_fits(tmp_path / "d.fits", bundle.to_hdus({"a": np.arange(3.0)}, {"x": 2}))
    assert bundle.fingerprint(one) == bundle.fingerprint(two)
    assert len({bundle.fingerprint(p) for p in (one, three, four)}) == 3
