"""FITS files of earlier stages, opened with their checksums compared: what was damaged or altered is not read."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from ..errors import PanaceaError

_MEND = (
    "it was damaged or changed after it was made. `panacea-nb verify` names all such files, `panacea-nb reduce ... --thorough` "
    "makes them again"
)


class DamagedInputError(PanaceaError):
    """A file of an earlier stage is not as that stage left it."""


@contextlib.contextmanager
def open_checked(path: Path) -> Iterator[fits.HDUList]:
    """A FITS file for reading, as `astropy.io.fits.open` gives it; each extension is compared with its sums.

    Raises
    ------
    DamagedInputError
        If a sum (CHECKSUM, DATASUM) does not fit, or the file ends too early.
    """
    with path.open("rb") as stream, warnings.catch_warnings():  # astropy would leave a file of its own open
        warnings.filterwarnings("error", "(Checksum|Datasum) verification failed", AstropyUserWarning)
        warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
        try:
            with fits.open(stream, memmap=False, lazy_load_hdus=True, checksum=True) as hdus:
                yield hdus
        except AstropyUserWarning as error:
            raise DamagedInputError(f"{path}: {str(error).split(chr(10))[0]}: {_MEND}") from error
        except (OSError, ValueError, TypeError) as error:
            raise DamagedInputError(f"{path} cannot be read as FITS ({str(error).splitlines()[0]}): {_MEND}") from error
