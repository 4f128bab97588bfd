"""Spectra, images and header values of products, read for the pages; what is missing or damaged is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from ..instrument import FIBER_AREA, UnknownChannelError, channel

_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, VerifyError)
_C = 2.99792458e18  # speed of light [A/s]


@dataclass(frozen=True)
class Spectrum:
    """A spectrum as the pages show it: arrays of one length, samples that were not measured are NaN."""

    name: str
    wave: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    sky: np.ndarray
    channel: str = ""

    @property
    def measured(self) -> np.ndarray:
        """Which samples there are."""
        return np.isfinite(self.flux) & (self.error > 0)

    @property
    def snr(self) -> float:
        """Median signal to noise of a sample."""
        good = self.measured
        return float(np.median(self.flux[good] / self.error[good])) if good.any() else float("nan")


@dataclass(frozen=True)
class Field:
    """The collapsed image of one exposure and channel on IFU axes [arcsec], and the source found in it.

    ``source`` is its x, y and FWHM; ``sky_axes`` are the directions of east and north.
    """

    name: str
    image: np.ndarray
    first: tuple[float, float]
    step: float
    source: tuple[float, float, float] | None
    wave: float
    sky_axes: tuple[tuple[float, float], tuple[float, float]] | None

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges as matplotlib wants them."""
        ny, nx = self.image.shape
        x, y, half = *self.first, self.step / 2
        return (x - half, x + (nx - 0.5) * self.step, y - half, y + (ny - 0.5) * self.step)


@dataclass(frozen=True)
class Observed:
    """What the products of one exposure and channel say."""

    header: dict[str, Any] = field(default_factory=dict)
    spectrum: Spectrum | None = None
    field: Field | None = None

    def value(self, name: str) -> float | None:
        """A number of the header; None where there is none."""
        value = self.header.get(name)
        return float(value) if isinstance(value, int | float) and np.isfinite(value) else None

    @property
    def shift(self) -> float | None:
        """Shift of the wavelengths against the arcs [px]; None where the sky could not tell."""
        return self.value("WAVSHIFT") if self.header.get("WAVZERO") is True else None


def observed(files: list[Path]) -> Observed:
    """The facts of one exposure and channel from its products (``multi`` and ``spectrum``)."""
    multi = next((path for path in files if path.name.startswith("multi_")), None)
    single = next((path for path in files if path.name.startswith("spectrum_")), None)
    header, image, spectrum = {}, None, None
    if multi is not None:
        try:
            with fits.open(multi, memmap=True, lazy_load_hdus=True) as hdus:
                header = _values(hdus[0].header)
                image = _field(hdus["collapsed_image"], header, multi.stem.removeprefix("multi_"))
        except _DAMAGE:
            image = None
    if single is not None:
        name = short_name(single.stem.removeprefix("spectrum_"))
        spectrum = read_spectrum(single, name, str(header.get("CHANNEL", "")))
    return Observed(header, spectrum, image)


def read_spectrum(path: Path, name: str, channel_name: str = "") -> Spectrum | None:
    """The spectrum in a product; None where it cannot be read."""
    try:
        with fits.open(path, memmap=False) as hdus:
            table = hdus["SPECTRUM"].data
            columns = [np.array(table[key], float) for key in ("wavelength", "flux", "uncertainty", "sky")]
    except _DAMAGE:
        return None
    wave, flux, error, sky = columns
    lost = ~(error > 0)
    flux, error, sky = (np.where(lost, np.nan, values) for values in (flux, error, sky))
    return Spectrum(name, wave, flux, error, sky, channel_name)


def read_header(path: Path) -> dict[str, Any]:
    """The values of a product's first header; empty where it cannot be read."""
    try:
        with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
            return _values(hdus[0].header)
    except _DAMAGE:
        return {}


def sky_magnitude(level: float | None, name: str) -> float | None:
    """AB magnitude per square arcsec of a sky of ``level`` [erg/s/cm2/A per fibre] at the middle of a channel."""
    try:
        facts = channel(name)
    except UnknownChannelError:
        return None
    if level is None or not np.isfinite(level) or level <= 0:
        return None
    middle = (facts.wave_min + facts.wave_max) / 2
    return float(-2.5 * np.log10(level / FIBER_AREA * middle**2 / _C) - 48.6)


def binned(values: np.ndarray, bins: int) -> np.ndarray:
    """Means of ``bins`` equal pieces, so that lines are seen; NaN where a piece has nothing."""
    pieces = np.array_split(np.asarray(values, float), min(bins, len(values)))
    return np.array([np.mean(p[np.isfinite(p)]) if np.isfinite(p).any() else np.nan for p in pieces])


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running median of three: lines stay, what is one sample wide (a cosmic ray, a bad pixel) goes."""
    values = np.asarray(values, float)
    if values.size < 3:
        return values
    return np.concatenate([values[:1], np.median([values[:-2], values[1:-1], values[2:]], axis=0), values[-1:]])


def short_name(name: str) -> str:
    """``20250115_0000005_exp01_uv`` as ``uv, 5 exp01``; other names as they are."""
    parts = name.split("_")
    return f"{parts[3]}, {int(parts[1])} {parts[2]}" if len(parts) == 4 and parts[1].isdigit() else name


def limits(values: np.ndarray, share: float = 0.2) -> tuple[float, float]:
    """A range that shows the values: from ``share`` to 100 - ``share`` per cent of them, with room, and zero if it is near."""
    good = values[np.isfinite(values)]
    if not good.size:
        return (0.0, 1.0)
    low, high = np.percentile(good, [share, 100 - share])
    low = min(low, 0.0) if low < 0.5 * high else low
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (float(low - room), float(high + room))


def _values(header: fits.Header) -> dict[str, Any]:
    return {key: header[key] for key in header if key and key not in ("COMMENT", "HISTORY", "SIMPLE")}


def _field(hdu: Any, header: dict[str, Any], name: str) -> Field | None:
    card = hdu.header
    source = tuple(header[key] for key in ("SOURCEX", "SOURCEY")) if "SOURCEX" in header else None
    if source is not None:
        source = (float(source[0]), float(source[1]), float(header.get("SEEING", 1.0)))
    axes = None
    if "PC1_1" in card and "PC2_1" in card:
        east, north = ((card[f"PC{i}_1"], card[f"PC{i}_2"]) for i in (1, 2))
        axes = tuple(tuple(float(np.sign(card[f"CDELT{i}"]) * v) for v in axis) for i, axis in ((1, east), (2, north)))
    first = (float(card["CRVAL1I"]), float(card["CRVAL2I"]))
    image = np.array(hdu.data, float)
    return Field(name, image, first, float(card["CDELT1I"]), source, float(header.get("COLLWAVE", 0.0)), axes)
