"""From raw exposures to channel images: the raw room's records through the first step of the reduction."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import raw
from ..decisions import Decision
from ..errors import PanaceaError
from ..instrument import AMP_ROWS, reference_wavelength
from ..instrument import channel as find_channel
from ..reduce.bias import MasterBias, MasterDark, subtract
from ..reduce.ccd import ChannelImage, FrameShapeError, NoReadoutError, process_amplifier, stack
from ..reduce.maskbits import DQ
from .layout import locate

# Pixels that are known to be bad on the stacked 1x1 image: rows, columns (LRS2 users' experience, LRS2Multi).
KNOWN_DEFECTS = {"uv": ((slice(79, 83), slice(979, 987)),)}


class NoUsableFrameError(PanaceaError):
    """All frames of a kind had to be left out."""


def load_image(exposure: raw.Exposure, channel: str) -> ChannelImage:
    """Read both amplifiers of a channel: overscan subtracted, in electrons, oriented and stacked."""
    amps = find_channel(channel).amps
    missing = exposure.missing(amps)
    if missing:
        raise NoUsableFrameError(
            f"{exposure.label}: no frame of amplifier {' and '.join(missing)}: channel {channel} cannot be reduced"
        )
    parts = []
    for amp in amps:
        record = exposure.amps[amp]
        frame = raw.read_amplifier(record)
        try:
            parts.append(process_amplifier(frame.data, amp, record.cards))
        except (FrameShapeError, NoReadoutError) as error:
            raise type(error)(f"{record.path}: {error}") from error
    image = stack(*parts)
    for rows, columns in KNOWN_DEFECTS.get(channel, ()):
        b = image.binning
        image.mask[rows, columns.start // b : -(-columns.stop // b)] |= np.uint8(DQ.BADPIXEL)
    return image


def dark_time(exposure: raw.Exposure) -> float:
    """Seconds in which dark current was collected: DARKTIME, else the exposure time."""
    value = exposure.value("DARKTIME")
    return float(value if value is not None and value > 0 else exposure.exptime or 0.0)


def load_reduced(exposure: raw.Exposure, channel: str, bias: MasterBias, dark: MasterDark) -> ChannelImage:
    """`load_image`, bias and dark subtracted.

    Raises
    ------
    NoUsableFrameError
        When the exposure is binned otherwise than the bias.
    """
    image = load_image(exposure, channel)
    if image.data.shape != bias.data.shape:
        here, there = (f"{2 * AMP_ROWS} x {shape[1]} pixels" for shape in (image.data.shape, bias.data.shape))
        raise NoUsableFrameError(
            f"{exposure.label} is binned otherwise than the calibrations ({here}, they {there}), whose binning is that of most "
            "science exposures of the night: leave it out (--leave-out), or reduce it from a raw folder without the others"
        )
    return subtract(image, bias, dark, dark_time(exposure))


# What people call the types of frames, and how to do without some.
KIND_NAMES = {"zro": "bias (zro)", "drk": "dark (drk)", "twi": "twilight (twi)", "flt": "internal flat (flt)", "cmp": "arc (cmp)"}
WITHOUT = {"twi": ", or take internal flats with --use_flat", "flt": ", or take twilights"}
MAX_REASONS = 4


def _reasons(decisions: list[Decision]) -> str:
    texts = [decision.text for decision in decisions]
    more = f"; and {len(texts) - MAX_REASONS} more" if len(texts) > MAX_REASONS else ""
    return "; ".join(texts[:MAX_REASONS]) + more


def _some(labels: list[str]) -> str:
    more = f" and {len(labels) - MAX_REASONS} more" if len(labels) > MAX_REASONS else ""
    return ", ".join(labels[:MAX_REASONS]) + more


def load_usable(
    exposures: Iterable[raw.Exposure],
    channel: str,
    bias: MasterBias | None = None,
    dark: MasterDark | None = None,
    *,
    needed: bool = True,
) -> tuple[list[ChannelImage], list[raw.Exposure], list[Decision]]:
    """Images of the exposures that can be read; the others are named in decisions.

    Raises
    ------
    NoUsableFrameError
        When there were exposures, none can be read, and some are ``needed``.
    """
    exposures = list(exposures)
    images, kept, decisions = [], [], []
    told: dict[Decision, list[str]] = {}  # what headers lacked, and in which exposures
    for exposure in exposures:
        try:
            image = load_image(exposure, channel) if bias is None else load_reduced(exposure, channel, bias, dark)
        except PanaceaError as error:
            why = str(error).split(": copy ")[0]  # what to do with a frame that is needed
            decisions.append(Decision("LEFTOUT", f"{exposure.label} left out: {why}", "warn"))
            continue
        for decision in image.decisions:
            told.setdefault(decision, []).append(exposure.label)
        images.append(image)
        kept.append(exposure)
    if exposures and not images and needed:
        kind = exposures[0].kind
        raise NoUsableFrameError(
            f"none of {len(exposures)} {KIND_NAMES.get(kind, kind)} exposures can be used: choose others with --cal-date "
            f"{kind}=YYYYMMDD{WITHOUT.get(kind, '')}. {_reasons(decisions)}"
        )
    decisions += [replace(decision, text=f"{decision.text} ({_some(labels)})") for decision, labels in told.items()]
    return images, kept, decisions


def steady(images: list[ChannelImage], exposures: list[raw.Exposure]) -> tuple[list[ChannelImage], list[Decision]]:
    """The bias frames whose level, amplifier by amplifier, is that of the others: one with light in it is none.

    Left as they are where fewer than three would remain.
    """
    half = images[0].data.shape[0] // 2
    levels = np.array([[np.median(image.data[part, ::7]) for part in np.s_[:half, half:]] for image in images])
    off = np.abs(levels - np.median(levels, axis=0)).max(axis=1)
    good = off <= MAX_DRIFT
    if good.all() or good.sum() < 3:
        return images, []
    why = [
        Decision(
            "BIASLEVEL", f"{exposure.label} left out: its level is {far:.0f} e- off that of the other bias frames", "warn"
        )
        for exposure, far, ok in zip(exposures, off, good, strict=True)
        if not ok
    ]
    return [image for image, ok in zip(images, good, strict=True) if ok], why


def calibration_choice(path: Path, channel: str) -> raw.CalibrationChoice:
    """The choice of calibrations that 00_inventory wrote for a channel."""
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    if channel not in record["channels"]:
        raise NoUsableFrameError(f"{path} holds no calibrations of channel {channel}: run 00_inventory for it")
    return raw.CalibrationChoice.from_dict(record["channels"][channel])


def choices_record(path: Path, night: str, choices: Mapping[str, raw.CalibrationChoice]) -> dict[str, Any]:
    """What `calibration_choice` reads: the choices made now, beside those of the channels that an earlier run of the night had.

    The notebooks of those channels can then still be run by hand, and the report still says what their calibrations are.
    """
    earlier: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        earlier = dict(record["channels"]) if record["night"] == night else {}
    return {"night": night, "channels": earlier | {name: choice.to_dict() for name, choice in choices.items()}}


def brightness(image: ChannelImage) -> float:
    """75th percentile [e-]: how well a twilight is exposed."""
    return float(np.percentile(image.data[::5, ::5], 75))


MAX_DRIFT = 30.0  # e-, by which the level of a bias frame after the overscan may be off
MIN_TWILIGHT = 100.0  # e-, 75th percentile: fainter twilights are left out (Panacea's rule)
MAX_TWILIGHT = 45000.0  # e-, 75th percentile: beyond, fibres saturate
SHORTEST_DARK = 0.5  # of the longest dark's time
MAX_ARC = 3000.0  # e-, median: a saturated lamp (Panacea's rule)
MAX_SATURATED = 0.02  # share of saturated pixels


MAX_BIAS = (
    30  # frames: their mean has a fifth of the read noise before it is smoothed; more cost memory and change nothing
)


def nearest(
    exposures: list[raw.Exposure], night: str, most: int = MAX_BIAS
) -> tuple[list[raw.Exposure], list[Decision]]:
    """At most ``most`` exposures, those of the night itself first, then the latest; and the decision when some were left out."""
    if len(exposures) <= most:
        return list(exposures), []
    ordered = sorted(exposures, key=lambda e: (e.night != night, -e.start.timestamp()))
    text = f"{most} of {len(exposures)} chosen {exposures[0].kind} frames are combined, those nearest to the night"
    return sorted(ordered[:most], key=lambda e: e.start), [Decision("CAPPED", text, "info")]


def long_darks(exposures: list[raw.Exposure]) -> tuple[list[raw.Exposure], list[Decision]]:
    """The darks whose times are comparable, and why the others are not used: short ones hold read noise instead of charge."""
    longest = max((dark_time(e) for e in exposures), default=0.0)
    kept = [e for e in exposures if dark_time(e) > 0 and dark_time(e) >= SHORTEST_DARK * longest]
    why = [
        Decision("SHORTDARK", f"{e.label} left out, too short: {dark_time(e):.0f} s beside darks of {longest:.0f} s", "info")
        for e in exposures
        if e not in kept
    ]
    return kept, why


def exposed_flats(
    images: list[ChannelImage], exposures: list[raw.Exposure], *, needed: bool = True
) -> tuple[list[int], list[Decision]]:
    """Indices of the flats or twilights that are neither too faint nor saturated, and why the others are not used.

    Raises
    ------
    NoUsableFrameError
        When none is left and some are ``needed``.
    """
    keep, decisions = [], []
    kind = exposures[0].kind if exposures else "twi"
    for i, (image, exposure) in enumerate(zip(images, exposures, strict=True)):
        level = brightness(image)
        saturated = float((image.mask & DQ.SATURATED > 0).mean())
        if level < MIN_TWILIGHT:
            decisions.append(
                Decision(
                    "FAINTFLAT",
                    f"{exposure.label} left out, too faint: 75th percentile {level:.0f} e-, {MIN_TWILIGHT:.0f} needed",
                    "info",
                )
            )
        elif level > MAX_TWILIGHT or saturated > MAX_SATURATED:
            decisions.append(
                Decision(
                    "SATFLAT",
                    f"{exposure.label} left out, too bright: 75th percentile {level:.0f} e- (at most {MAX_TWILIGHT:.0f}), "
                    f"{100 * saturated:.1f} % of the pixels saturated (at most {100 * MAX_SATURATED:.0f})",
                    "info",
                )
            )
        else:
            keep.append(i)
    if not keep and needed:
        raise NoUsableFrameError(
            f"none of {len(images)} {KIND_NAMES.get(kind, kind)} exposures is usable: choose others with --cal-date "
            f"{kind}=YYYYMMDD{WITHOUT.get(kind, '')}. {_reasons(decisions)}"
        )
    return keep, decisions


def exposed_arcs(images: list[ChannelImage], exposures: list[raw.Exposure]) -> tuple[list[int], list[Decision]]:
    """Indices of the arc frames that are not saturated, and why the others are not used."""
    keep, decisions = [], []
    for i, (image, exposure) in enumerate(zip(images, exposures, strict=True)):
        level = float(np.median(image.data[::5, ::5]))
        if level > MAX_ARC:
            decisions.append(
                Decision("SATARC", f"{exposure.label} left out, too bright: median {level:.0f} e-, at most {MAX_ARC:.0f}", "warn")
            )
        else:
            keep.append(i)
    if not keep:
        raise NoUsableFrameError(
            f"none of {len(images)} arc exposures is usable: choose others with --cal-date cmp=YYYYMMDD. {_reasons(decisions)}"
        )
    return keep, decisions


def unusable(images: list[ChannelImage]) -> np.ndarray | bool:
    """Pixels (ny, nx) bool that are saturated or defective in any of the frames."""
    bad = False
    for image in images:
        bad = bad | ((image.mask & (DQ.SATURATED | DQ.BADPIXEL)) > 0)
    return bad


def noise_rows(bias: MasterBias) -> np.ndarray:
    """Measured read noise [e-] of every row, (ny, 1) float32."""
    return np.repeat(bias.rdnoise.astype(np.float32), bias.data.shape[0] // 2)[:, None]


def reference_map(channel: str, n_columns: int) -> np.ndarray | None:
    """Packaged wavelength map (nf, n_columns) of the channel, None where there is none (only uv has one)."""
    if channel != "uv":
        return None
    reference = reference_wavelength(channel)
    binning = reference.shape[1] // n_columns
    return reference.reshape(reference.shape[0], n_columns, binning).mean(axis=2)


def input_digests(choice: raw.CalibrationChoice, channel: str) -> dict[str, str]:
    """One digest per kind of calibration frame over the bytes of all that were chosen, for the provenance of the bundle."""
    amps = find_channel(channel).amps
    result = {}
    for kind, exposures in choice.chosen.items():
        parts = sorted(raw.digest(e.amps[amp]) for e in exposures for amp in amps if amp in e.amps)
        if parts:
            result[f"{kind} x{len(exposures)}"] = hashlib.sha256("".join(parts).encode()).hexdigest()
    return result


def find_exposure(task, baseraw: str, kind: str = "sci") -> raw.Exposure:
    """The raw exposure that a task works on, from the night's index.

    Raises
    ------
    NoUsableFrameError
        When the night has no such exposure on the channel's IFU.
    """
    channel = find_channel(task.channel)
    index = raw.index_night(locate(baseraw), task.layout.night, task.layout.work_dir / "index")
    for exposure in index.exposures(kind, ifuslot=channel.ifuslot):
        if (exposure.obsid, exposure.exp) == (task.obsid, task.exposure):
            task.inputs.update(
                {f"raw {amp}": raw.digest(exposure.amps[amp]) for amp in channel.amps if amp in exposure.amps}
            )
            return exposure
    raise NoUsableFrameError(
        f"night {task.layout.night} has no {kind} exposure {task.obsid:07d} exp{task.exposure:02d} "
        f"on IFU {channel.ifuslot} under {baseraw}"
    )


def seeing(task, exposure: raw.Exposure, baseraw: str) -> float | None:
    """FWHM [arcsec] at the guide cameras during an exposure, None where they do not show it (07_flux tells why)."""
    index = task.layout.work_dir / "index"
    return raw.guider(
        locate(baseraw), exposure.start, exposure.exptime or 0.0, task.layout.night, cache_dir=index
    ).seeing
