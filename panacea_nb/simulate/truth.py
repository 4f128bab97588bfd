"""The truth beside a simulated night: what is written, and how to read it.

All lies in ``{night}/truth``:

``manifest.yaml``
    seed, night, sides, scenario, and one entry per exposure (obsid, exp, kind, object, target, transparency, area,
    seeing, flexure ...).

``channel_{channel}.fits``, arrays (fibres, columns) of the unbinned detector in its reference place (no flexure):

======================  ==========================================================================================
HDU                     content
======================  ==========================================================================================
primary                 header: SEED, CHANNEL, K (profile sum over central value), LSFWING (part of a line's light in
                        wings of twice the core's sigma), GAINn, RNn of the bottom (0) and top (1) amplifier
TRACE                   row in the stacked image [px], float64
WAVELENGTH              wavelength of pixel centres [A, air], float64
LSF                     core sigma of the line-spread function [px]
PROFILE                 relative width of the cross-dispersion profile
THROUGHPUT              relative throughput, mean of live fibres 1 per column
DEAD                    (fibres,) 1 for a dead fibre
PIXELFLAT               (rows, columns) response of the pixels in the stacked image
BIAS                    (rows, columns) bias [ADU] in the stacked image, without drifts
PROFILESHAPE            table: cumulative (offset [px at width 1], integral)
======================  ==========================================================================================

``exposure_{obsid:07d}_exp{NN}_{channel}.fits`` for science exposures; GRID is the channel's rectified wavelength grid:

======================  ==========================================================================================
HDU                     content
======================  ==========================================================================================
primary                 header: OBSID, EXP, CHANNEL, TARGET (0/1: on this IFU), KIND, EXPTIME [s], TRANSPAR, AREA [cm2],
                        SEEING [arcsec at 5000 A], BETA, SOURCEX, SOURCEY [IFU arcsec at mid-channel], FLEXROWn,
                        FLEXCOLn [px: middle, slope over x, over y; x, y = -1..1 over the detector], BINNING
SKY                     (fibres, GRID) true sky [erg/s/cm2/A per fibre], each fibre with its own line-spread function
SOURCE                  (fibres, GRID) true source, the same way; missing on a blank field
SIGMA                   (fibres, columns) noise of an ideal extraction on the native pixels [erg/s/cm2/A]; NaN for dead
                        fibres; binned columns where the frame is
SIGMA_GRID              (fibres, GRID) the same at the grid's wavelengths (of one native pixel)
GRADIENT                (fibres,) brightness of the sky, mean 1
SPECTRUM                table on GRID: wavelength, flux (total source light [erg/s/cm2/A] at the mean line-spread
                        function), x, y (place of the source [IFU arcsec])
LINES                   table: wavelength, flux [erg/s/cm2], sigma [A] of the source's emission lines
SKYLINES                table: wavelength, flux [erg/s/cm2] of the sky's lines (per fibre, before the gradient)
COSMICS                 table: row, column (stacked, unbinned image), electrons
======================  ==========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from astropy.io import fits
from astropy.table import Table

from ..errors import RequestError
from ..instrument import N_COLUMNS, channel
from .optics import N_ROWS, Flexure


class TruthError(RequestError):
    """The truth of an exposure or channel was asked for that is not there."""


@dataclass
class ExposureTruth:
    """Truth of one science exposure in one channel; see the module's table for shapes and units."""

    header: fits.Header
    wave: np.ndarray
    sky: np.ndarray
    source: np.ndarray
    sigma: np.ndarray
    sigma_grid: np.ndarray
    gradient: np.ndarray
    spectrum: Table
    lines: Table
    sky_lines: Table
    cosmics: Table

    @property
    def has_source(self) -> bool:
        """Whether the target is on this channel's IFU."""
        return bool(self.header["TARGET"])

    @property
    def flexure(self) -> Flexure:
        """Shift against the reference place."""
        return Flexure(*(tuple(self.header[f"{key}{i}"] for i in range(3)) for key in ("FLEXROW", "FLEXCOL")))

    def cosmic_mask(self, threshold: float = 10.0) -> np.ndarray:
        """Pixels (rows, columns) of the stacked, unbinned image with over ``threshold`` electrons of cosmic rays."""
        mask = np.zeros((N_ROWS, N_COLUMNS), bool)
        hit = np.asarray(self.cosmics["electrons"]) > threshold
        mask[np.asarray(self.cosmics["row"])[hit], np.asarray(self.cosmics["column"])[hit]] = True
        return mask


@dataclass
class ChannelTruth:
    """Truth of a channel; see the module's table for shapes and units."""

    header: fits.Header
    trace: np.ndarray
    wavelength: np.ndarray
    lsf: np.ndarray
    profile: np.ndarray
    throughput: np.ndarray
    dead: np.ndarray
    pixel_flat: np.ndarray
    bias: np.ndarray
    shape: Table

    @property
    def profile_sum(self) -> float:
        """K: sum of a profile over its central value."""
        return self.header["K"]


def exposure_name(obsid: int, exp: int, name: str) -> str:
    """File name of an exposure's truth."""
    return f"exposure_{obsid:07d}_exp{exp:02d}_{name}.fits"


def channel_name(name: str) -> str:
    """File name of a channel's truth."""
    return f"channel_{name}.fits"


def write(path: Path, header: dict[str, object], images: dict[str, np.ndarray], tables: dict[str, Table]) -> None:
    """Write one truth file; images keep their dtype."""
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for key, value in header.items():
        hdus[0].header[key] = value
    hdus += [fits.ImageHDU(np.ascontiguousarray(data), name=name) for name, data in images.items()]
    for name, content in tables.items():
        hdu = fits.table_to_hdu(content)
        hdu.name = name
        hdus.append(hdu)
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus.writeto(path, overwrite=True)


def load_manifest(night_dir: str | Path) -> dict:
    """Read ``truth/manifest.yaml`` of a simulated night."""
    path = Path(night_dir) / "truth" / "manifest.yaml"
    _require(path)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_exposure(night_dir: str | Path, obsid: int, exp: int, name: str) -> ExposureTruth:
    """Read the truth of a science exposure.

    Parameters
    ----------
    night_dir : path
        Folder of the night, which holds ``truth``.
    name : str
        Channel.

    Raises
    ------
    TruthError
        If there is no such truth.
    """
    path = Path(night_dir) / "truth" / exposure_name(obsid, exp, name)
    _require(path)
    with fits.open(path, memmap=False) as hdus:
        images = {h.name: h.data.astype(float) for h in hdus if isinstance(h, fits.ImageHDU)}
        tables = {h.name: Table(h.data) for h in hdus if isinstance(h, fits.BinTableHDU)}
        header = hdus[0].header.copy()
    return ExposureTruth(
        header, channel(name).wave_grid(), images["SKY"], images.get("SOURCE", np.zeros_like(images["SKY"])),
        images["SIGMA"], images["SIGMA_GRID"], images["GRADIENT"], tables["SPECTRUM"], tables["LINES"],
        tables["SKYLINES"], tables["COSMICS"],
    )  # fmt: skip


def load_channel(night_dir: str | Path, name: str) -> ChannelTruth:
    """Read the truth of a channel.

    Raises
    ------
    TruthError
        If there is no such truth.
    """
    path = Path(night_dir) / "truth" / channel_name(name)
    _require(path)
    with fits.open(path, memmap=False) as hdus:
        images = {h.name: h.data for h in hdus if isinstance(h, fits.ImageHDU)}
        return ChannelTruth(
            hdus[0].header.copy(), images["TRACE"], images["WAVELENGTH"], images["LSF"], images["PROFILE"],
            images["THROUGHPUT"], images["DEAD"].astype(bool), images["PIXELFLAT"], images["BIAS"],
            Table(hdus["PROFILESHAPE"].data),
        )  # fmt: skip


def _require(path: Path) -> None:
    if not path.is_file():
        raise TruthError(f"There is no truth at {path}: was this night simulated, with this channel?")
