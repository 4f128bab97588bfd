"""From raw amplifier frames to a channel's image in electrons: overscan, gain, orientation, stacking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..decisions import Decision, shown
from ..errors import PanaceaError
from ..instrument import AMP_ROWS, DEFAULT_GAIN, DEFAULT_RDNOISE, N_COLUMNS, OVERSCAN
from .maskbits import DQ

SATURATION_ADU = 65000  # the 16-bit converter ends at 65535; the last per cent is not linear
ROTATED = ("LU", "RL")  # amplifiers stored turned by 180 degrees
AMPLIFIER_NAMES = ("LL", "LU", "RL", "RU")
MIRRORED = ("LR", "UL")  # values of AMPNAME for which the column order is reversed once more
OVERSCAN_WIDTHS = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 25.0, 60.0, 150.0, 400.0)  # rows; Gaussian sigmas tried
PLAUSIBLE_GAIN = (0.3, 5.0)  # e-/ADU
PLAUSIBLE_RDNOISE = (0.5, 20.0)  # e-
_UNITS = {"GAIN": "e-/ADU", "RDNOISE": "e-"}
_DEFAULT_MEANS = {
    "GAIN": "so electrons and fluxes may be off: compare with GAIN of other exposures, or leave this one out with --leave-out "
    "N_expNN (a calibration with --exclude YYYYMMDD:N)",
    "RDNOISE": "without effect, as the noise is measured on the bias frames",
}
_RESTORE = "copy its file again from the archive, or leave a science exposure out with --leave-out N_expNN"


class FrameShapeError(PanaceaError):
    """An amplifier frame does not have the size of an LRS2 frame."""


class NoReadoutError(PanaceaError):
    """A frame holds one value: the amplifier was not read out."""


@dataclass(frozen=True)
class AmplifierImage:
    """One amplifier, oriented as on the stacked image.

    Attributes
    ----------
    data : (AMP_ROWS, nx) float32, electrons
    mask : (AMP_ROWS, nx) uint8, `DQ` bits
    overscan : (AMP_ROWS,) float64, level subtracted from each raw row [ADU], in raw row order
    gain, rdnoise : float, e-/ADU and e-
    overscan_noise : float, scatter of single overscan pixels [ADU]
    decisions : defaults that had to be used
    """

    data: np.ndarray
    mask: np.ndarray
    overscan: np.ndarray
    gain: float
    rdnoise: float
    overscan_noise: float
    decisions: tuple[Decision, ...] = ()


@dataclass
class ChannelImage:
    """A channel: bottom amplifier stacked under the top one.

    Attributes
    ----------
    data : (2 * AMP_ROWS, nx) float32, electrons
    mask : same shape, uint8 `DQ` bits
    rdnoise : (2 * AMP_ROWS, 1) float32, read noise of each row's amplifier [e-]
    """

    data: np.ndarray
    mask: np.ndarray
    rdnoise: np.ndarray
    decisions: list[Decision] = field(default_factory=list)

    @property
    def binning(self) -> int:
        """Columns of the chip per column of the image."""
        return N_COLUMNS // self.data.shape[1]


def overscan_level(overscan: np.ndarray) -> tuple[np.ndarray, float]:
    """Bias level of each row from its overscan pixels, smoothed over rows as far as noise dominates.

    How far is found by cross-validation: the row means of every second overscan column, smoothed over rows by Gaussians of
    different widths, predict those of the other columns; the width that predicts best is taken.  Of what the smooth level leaves,
    as much is kept as exceeds what the noise of the means explains (Wiener shrinkage), so that real row-to-row jumps survive and
    noise is not printed into every row.

    Parameters
    ----------
    overscan : (rows, n) array [ADU], without the first overscan column

    Returns
    -------
    level : (rows,) float64 [ADU]
    noise : float, scatter of a single overscan pixel [ADU]
    """
    values = np.asarray(overscan, dtype=np.float64)
    deviation = values - np.median(values, axis=1, keepdims=True)
    # Integers have a coarse median deviation: the clipped standard deviation is the better measure.
    noise = max(1.4826 * float(np.median(np.abs(deviation))), 0.3)
    for _ in range(3):
        noise = max(float(np.std(deviation[np.abs(deviation) < 4.0 * noise])), 0.3)
    good = np.abs(deviation) <= 4.0 * noise
    row = _row_means(values, good)
    # About the means: a row's median is an integer and lies up to half a step off.
    rest = (values - row[:, None])[good]
    noise = max(float(np.sqrt((rest**2).sum() / max(1, rest.size - row.size))), 0.3)
    first, second = _row_means(values[:, ::2], good[:, ::2]), _row_means(values[:, 1::2], good[:, 1::2])
    smoothed = {
        w: (gaussian_filter1d(first, w, mode="nearest"), gaussian_filter1d(second, w, mode="nearest"))
        for w in OVERSCAN_WIDTHS
    }
    miss = {w: np.mean(_clip(a - second) ** 2) + np.mean(_clip(b - first) ** 2) for w, (a, b) in smoothed.items()}
    smooth = gaussian_filter1d(row, min(miss, key=miss.get), mode="nearest")
    rest = row - smooth
    expected = noise**2 / values.shape[1]
    measured = float(np.var(_clip(rest)))
    keep = max(0.0, 1.0 - expected / measured) if measured > 0 else 0.0
    # A single row far off its neighbours is a jump of the electronics whatever the average says.
    kept = np.where(np.abs(rest) > 5.0 * np.sqrt(expected), rest, keep * rest)
    return smooth + kept, noise


def _row_means(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Mean of the good pixels of each row, the median where there is none."""
    count = good.sum(axis=1)
    return np.where(
        count > 0, np.where(good, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.median(values, axis=1)
    )


def _clip(values: np.ndarray) -> np.ndarray:
    """Values limited to five robust sigma about their median."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle)) + 1e-9
    return np.clip(values, middle - 5 * spread, middle + 5 * spread)


def orient(image: np.ndarray, amp: str, ampname: str | None) -> np.ndarray:
    """Turn an amplifier's image into its place on the stacked image (see the raw data format)."""
    if amp in ROTATED:
        image = image[::-1, ::-1]
    if ampname is not None and str(ampname).strip().upper() in MIRRORED:
        image = image[:, ::-1]
    return image


def positive_number(
    cards: Mapping[str, object], name: str, default: float, limits: tuple[float, float], amp: str
) -> tuple[float, Decision | None]:
    """A header value that must lie within ``limits``; otherwise the default and the decision that says so."""
    value = cards.get(name)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and limits[0] <= number <= limits[1]:
        return number, None
    text = (
        f"amplifier {amp}: {name} is {shown(value)} in the header, not within {limits[0]:g}-{limits[1]:g} {_UNITS[name]}: "
        f"{default:g} is used, {_DEFAULT_MEANS[name]}"
    )
    return default, Decision(f"DEF{name[:5]}", text, "warn")


def process_amplifier(raw: np.ndarray, amp: str, cards: Mapping[str, object]) -> AmplifierImage:
    """Subtract the overscan by row, cut it off, convert to electrons, orient.

    Parameters
    ----------
    raw : (AMP_ROWS, nx + overscan) uint16 [ADU]
        1x1 binning: 64 overscan columns; 2x1: 32.
    amp : str
        LL, LU, RL or RU.
    cards : mapping
        Header values; GAIN, RDNOISE and AMPNAME are looked at.

    Raises
    ------
    FrameShapeError
        When the frame has another size.
    NoReadoutError
        When all its pixels are alike.
    """
    shapes = {(AMP_ROWS, (N_COLUMNS + OVERSCAN) // b): b for b in (1, 2)}
    if raw.ndim != 2 or raw.shape not in shapes:
        raise FrameShapeError(
            f"amplifier {amp} has {' x '.join(map(str, raw.shape))} pixels; "
            f"LRS2 frames have {' or '.join(f'{a} x {b}' for a, b in shapes)} (rows x columns): "
            f"{_RESTORE}"
        )
    if raw.min() == raw.max():
        value = int(raw.flat[0])
        what = "is saturated" if value >= SATURATION_ADU else "was not read out"
        raise NoReadoutError(f"amplifier {amp} {what}: every pixel holds {value} ADU: {_RESTORE}")
    n_over = OVERSCAN // shapes[raw.shape]
    level, noise = overscan_level(raw[:, -n_over + 1 :])
    gain, why_gain = positive_number(cards, "GAIN", DEFAULT_GAIN, PLAUSIBLE_GAIN, amp)
    rdnoise, why_rdnoise = positive_number(cards, "RDNOISE", DEFAULT_RDNOISE, PLAUSIBLE_RDNOISE, amp)
    light = raw[:, :-n_over]
    data = ((light - level[:, None]) * gain).astype(np.float32)
    mask = np.where(light >= SATURATION_ADU, np.uint8(DQ.SATURATED), np.uint8(0))
    ampname = cards.get("AMPNAME")
    why_side = None
    if str(ampname).strip().upper() not in (*AMPLIFIER_NAMES, *MIRRORED):
        text = (
            f"AMPNAME is {shown(ampname)} in the header of amplifier {amp}: its columns are taken in their usual order; if the "
            "spectra run the wrong way along it, correct the header, or leave the exposure out with --leave-out N_expNN "
            "(a calibration with --exclude YYYYMMDD:N)"
        )
        why_side = Decision("DEFAMPN", text, "warn")
    return AmplifierImage(
        data=np.ascontiguousarray(orient(data, amp, ampname)),
        mask=np.ascontiguousarray(orient(mask, amp, ampname)),
        overscan=level,
        gain=gain,
        rdnoise=rdnoise,
        overscan_noise=noise,
        decisions=tuple(d for d in (why_gain, why_rdnoise, why_side) if d is not None),
    )


def stack(bottom: AmplifierImage, top: AmplifierImage) -> ChannelImage:
    """Put the top amplifier on the bottom one."""
    if bottom.data.shape != top.data.shape:
        sizes = [" x ".join(map(str, part.data.shape)) for part in (bottom, top)]
        raise FrameShapeError(
            f"the two amplifiers of the channel differ in size: {' and '.join(sizes)} pixels (rows x columns): "
            "copy their files again from the archive, or leave a science exposure out with --leave-out N_expNN"
        )
    noise = np.repeat(np.float32([bottom.rdnoise, top.rdnoise]), AMP_ROWS)[:, None]
    decisions = list(dict.fromkeys(bottom.decisions + top.decisions))
    return ChannelImage(np.vstack([bottom.data, top.data]), np.vstack([bottom.mask, top.mask]), noise, decisions)
