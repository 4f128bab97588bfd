"""Files between stages that were damaged after they were made are not read."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from panacea_nb.products import bundle
from panacea_nb.products.checked import DamagedInputError, open_checked
from panacea_nb.products.write import write_fits


@pytest.fixture
def path(tmp_path):
    arrays = {"amplitude": np.arange(4000.0).reshape(40, 100), "mask": np.ones((40, 100), bool)}
    return write_fits(tmp_path / "05_extract.fits", bundle.to_hdus(arrays, {"exptime": 900.0}))


def test_what_is_whole_is_read(path):
    found = bundle.read(path)
    assert found["amplitude"][39, 99] == 3999
    assert found.meta == {"exptime": 900.0}


def test_without_a_file_between_it_is_the_same(tmp_path):
    arrays = {
        "Amplitude": np.arange(6.0).reshape(2, 3) / 7,
        "mask": np.eye(2, dtype=bool),
        "small": np.ones(3, np.float32) / 3,
    }
    meta = {"prior": {"point": (1.0, 0.1)}, "none": None, "a": np.float64(0.1), "nan": float("nan")}
    read = bundle.read(write_fits(tmp_path / "a.fits", bundle.to_hdus(arrays, meta)))
    kept = bundle.as_read(arrays, meta)
    assert repr(kept.meta) == repr(read.meta)
    assert list(kept.arrays) == list(read.arrays)
    for name, array in read.arrays.items():
        assert kept[name].dtype == array.dtype
        assert np.array_equal(kept[name], array)


def test_one_changed_byte_of_the_data_is_seen(path):
    with fits.open(path) as hdus:
        place = hdus["AMPLITUDE"].fileinfo()["datLoc"]
    content = bytearray(path.read_bytes())
    content[place + 801] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedInputError, match=r"05_extract\.fits.*verification failed.*panacea-nb verify"):
        bundle.read(path)


def test_one_changed_card_is_seen(path):
    content = path.read_bytes().replace(b"NAXIS1  =                  100", b"NAXIS1  =                   50", 1)
    path.write_bytes(content)
    with pytest.raises(DamagedInputError):
        bundle.read(path)


@pytest.mark.parametrize("length", [0, 1000, 20000])
def test_a_file_that_ends_too_early_is_seen(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedInputError, match="verify"):
        bundle.read(path)


def test_a_file_without_sums_is_read(tmp_path):
    fits.HDUList([fits.PrimaryHDU(np.ones((3, 4)))]).writeto(tmp_path / "response.fits")
    with open_checked(tmp_path / "response.fits") as hdus:
        assert hdus[0].data.sum() == 12
