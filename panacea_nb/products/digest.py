"""Content digests: two products are identical when their arrays are bit-equal and their headers agree but for volatile cards."""

from __future__ import annotations

import hashlib
from pathlib import Path

from astropy.io import fits

# Cards that may differ between two identical products: when, where and under which name they were written.
VOLATILE_CARDS = frozenset(
    {"CHECKSUM", "DATASUM", "DATE-RED", "NBPATH", "NBHASH", "IMGDIGST", "HOSTNAME", "OUTROOT", "RUNTAG"}
)
_STRUCTURE = frozenset({"COMMENT", "HISTORY", ""})
_CHUNK = 1 << 20


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """sha256 of what a product says: for FITS its arrays and non-volatile cards, for other files their bytes."""
    if Path(path).suffix.lower() not in (".fits", ".fit"):
        return file_digest(path)
    digest = hashlib.sha256()
    with fits.open(path, memmap=False, lazy_load_hdus=False, do_not_scale_image_data=True) as hdus:
        for hdu in hdus:
            digest.update(header_text(hdu.header).encode())
            if hdu.data is not None:
                digest.update(memoryview(hdu.data).cast("B") if hdu.data.flags.c_contiguous else hdu.data.tobytes())
    return digest.hexdigest()


def header_text(header: fits.Header) -> str:
    """The non-volatile cards of a header, one a line, values as they would be written."""
    lines = []
    for card in header.cards:
        if card.keyword in VOLATILE_CARDS or card.keyword in _STRUCTURE:
            continue
        lines.append(f"{card.keyword}={card.value!r}")
    return "\n".join(lines)
