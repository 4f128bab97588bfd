"""The comparison of two runs (tests/hpc/compare.py) sees what differs and lets pass what may."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

SCRIPT = Path(__file__).parent / "hpc" / "compare.py"
CHECKOUT = Path(__file__).parents[1]


def make(root: Path, *, shift: float = 0.0, mask: int = 0, verdict: str = "pass", card: str = "a", extra: bool = False):
    """A run with one product: a flux of 100 with errors of 2, a mask, a header."""
    flux = np.full((3, 50), 100.0, np.float32) + np.arange(50, dtype=np.float32)
    flux[1, 7] += shift
    bits = np.zeros((3, 50), np.uint8)
    bits[0, 0] = mask
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(flux),
            fits.ImageHDU(np.full((3, 50), 2.0, np.float32), name="error_spectra"),
            fits.ImageHDU(bits, name="DQ"),
        ]
    )
    hdus[0].header["EXTNAME"] = "observed_spectra"
    hdus[0].header["TARGET"] = card
    hdus[0].header["IMGDIGST"] = str(root)
    (root / "LRS2/P").mkdir(parents=True)
    hdus.writeto(root / "LRS2/P/multi.fits")
    (root / "LRS2/P/spectrum.dat").write_text(f"1.0 {100 + shift:.9f}\n")
    if extra:
        (root / "LRS2/P/more.dat").write_text("1\n")
    status = root / "NIGHTS/20250115/status"
    status.mkdir(parents=True)
    (status / "t.json").write_text(json.dumps({"id": "t", "state": "succeeded", "verdict": verdict}))
    return root


def compare(one: Path, two: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(one), str(two)],
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout


def test_the_same_products_pass_whatever_image_made_them(tmp_path):
    code, said = compare(make(tmp_path / "a"), make(tmp_path / "b"))
    assert (code, said) == (0, "2 products and 1 verdicts: 2 identical to the bit, the others to 0 sigma, 0 differ\n")


def test_last_bits_pass_and_are_counted(tmp_path):
    # Two steps of single precision at 100 are 8e-6 sigma, which it may not hold closer.
    code, said = compare(make(tmp_path / "a"), make(tmp_path / "b", shift=1.6e-5))
    assert code == 0, said
    assert "0 identical to the bit" in said


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"shift": 1e-3}, "observed_spectra: up to 0.00049 sigma, 1 of 150"),
        ({"mask": 4}, "DQ: 1 of 150 values differ"),
        ({"verdict": "warn"}, "t: ('succeeded', 'pass') and ('succeeded', 'warn')"),
        ({"card": "b"}, "TARGET is 'a' and 'b'"),
        ({"extra": True}, "LRS2/P/more.dat: is in one run only"),
        ({"shift": np.nan}, "other values are undefined"),
    ],
)
def test_what_differs_is_named(tmp_path, changed, says):
    code, said = compare(make(tmp_path / "a"), make(tmp_path / "b", **changed))
    assert code == 1
    assert says in said


def test_nothing_is_not_the_same_as_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    assert compare(tmp_path / "a", tmp_path / "a")[0] == 1
