"""Atomic writing: a product is either whole and in place, or not there."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from astropy.io import fits

_UMASK = os.umask(0o022)  # can only be read by setting it: once, before there are threads
os.umask(_UMASK)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> Path:
    """Write ``content`` to a file beside ``path`` and rename it into place, flushed to the disk first where it is ``durable``.

    What can be made again in seconds, as the hundreds of files of a report, need not wait for the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~_UMASK)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def write_fits(path: Path, hdus: fits.HDUList) -> Path:
    """Write FITS with CHECKSUM and DATASUM in every HDU, after astropy has verified it."""
    hdus.verify("exception")
    buffer = io.BytesIO()
    hdus.writeto(buffer, checksum=True, output_verify="ignore")  # once is enough
    return write_bytes(path, buffer.getbuffer())
