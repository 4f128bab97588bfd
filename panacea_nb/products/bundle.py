"""Files between stages: named arrays and plain values in one FITS file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from .checked import open_checked

META = "META"


@dataclass(frozen=True)
class Bundle:
    """What one stage left for the next: ``bundle["name"]`` is an array, ``bundle.meta`` plain values."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def flag(self, name: str) -> np.ndarray:
        """A mask as bool."""
        return self.arrays[name].astype(bool)


def to_hdus(arrays: dict[str, np.ndarray], meta: dict[str, Any] | None = None) -> fits.HDUList:
    """One image extension per array (bool as uint8), and the plain values as JSON text in the extension META."""
    text = json.dumps(meta or {}, sort_keys=True, default=_plain).encode("utf-8")
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.frombuffer(text, np.uint8).copy(), name=META)])
    for name, array in arrays.items():
        array = np.asarray(array)
        hdus.append(fits.ImageHDU(array.astype(np.uint8) if array.dtype == bool else array, name=name))
    return hdus


def as_read(arrays: dict[str, np.ndarray], meta: dict[str, Any] | None = None) -> Bundle:
    """What `read` would give of `to_hdus`, without a file between them."""
    kept = {name.lower(): np.asarray(array) for name, array in arrays.items()}
    kept = {name: array.astype(np.uint8) if array.dtype == bool else array for name, array in kept.items()}
    return Bundle(kept, json.loads(json.dumps(meta or {}, sort_keys=True, default=_plain)))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept as a plain value")


def fingerprint(path: Path) -> str:
    """sha256 over the data sums of a file's extensions: its content, without reading the data."""
    digest = hashlib.sha256()
    with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
        for hdu in hdus:
            digest.update(f"{hdu.name} {hdu.header.get('DATASUM', '')}\n".encode())
    return digest.hexdigest()


def read(path: Path, *names: str) -> Bundle:
    """Read a file between stages, only the arrays ``names`` when given.

    Raises
    ------
    DamagedInputError
        If it is not as the earlier stage left it.
    """
    wanted = {n.upper() for n in names}
    arrays: dict[str, np.ndarray] = {}
    meta: dict[str, Any] = {}
    with open_checked(path) as hdus:
        for hdu in hdus[1:]:
            if hdu.name == META:
                meta = json.loads(hdu.data.tobytes().decode("utf-8"))
            elif not wanted or hdu.name in wanted:
                data = hdu.data
                arrays[hdu.name.lower()] = data.astype(data.dtype.newbyteorder("="))
    return Bundle(arrays, meta)
