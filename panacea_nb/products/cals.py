"""The calibration bundle of a channel, as Panacea's users know it: ``LRS2/CALS/cal_{date}_{channel}.fits``."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from ..instrument import channel as find_channel
from ..reduce.extract import Extraction, FiberModel
from ..reduce.flat import PixelFlat, Throughput, reference_variance
from ..reduce.maskbits import DQ
from ..reduce.rectify import rectify
from .bundle import Bundle
from .headers import dq_cards, provenance_cards, put, spectral_axis
from .maps import flat_image, over_rows
from .session import Task


def _on_grid(
    amplitude: np.ndarray, variance: np.ndarray, wavelength: np.ndarray, alive: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """Amplitudes per A on the common grid, (nf, nw) float32."""
    dispersion = np.gradient(wavelength, axis=1)
    usable = np.broadcast_to(alive[:, None], amplitude.shape)
    mask = np.where(usable, 0, np.uint8(DQ.DEADFIBER)).astype(np.uint8)
    return rectify(amplitude / dispersion, variance / dispersion**2, mask, usable, wavelength, grid).value.astype(
        np.float32
    )


def calibration_file(
    task: Task,
    model: FiberModel,
    waves: Bundle,
    throughput: Throughput,
    pixels: PixelFlat,
    scale: float,
    twilight: Extraction,
    lamp: np.ndarray,
    bias: np.ndarray,
) -> fits.HDUList:
    """The bundle: the extensions of Panacea's file in its order, then line widths, throughput and pixel flat.

    Parameters
    ----------
    waves : Bundle of 03_wavelength
    twilight : Extraction of the frame that the throughput was measured on
    lamp : (ny, nx) mean internal flat [e-]
    """
    channel = find_channel(task.channel)
    grid = channel.wave_grid()
    wavelength = waves["wavelength"]
    ny = lamp.shape[0]
    flat = flat_image(model, throughput.relative, pixels.data, scale)
    middle = model.trace[:, model.trace.shape[1] // 2]
    dead = np.column_stack([middle, (~model.alive).astype(float)])
    wave, response = channel.response()
    extra, _ = reference_variance(wavelength, waves["lsf"], model.alive)
    lamp_spectrum = model.alive[:, None] * (lamp_amplitude(lamp, flat, model))
    arrays = {
        "wavelength": (wavelength, "Angstrom"),
        "trace": (model.trace, "pix"),
        "flat": (flat.astype(np.float32), ""),
        "bigW": (over_rows(wavelength, model.trace, ny), "Angstrom"),
        "masterbias": (bias.astype(np.float32), "ct"),
        "xypos": (channel.fiber_positions(), "arcsec"),
        "dead": (dead, ""),
        "arcspec": (_on_grid(waves["arc"], waves["variance"], wavelength, model.alive, grid), "ct Angstrom-1"),
        "fltspec": (
            _on_grid(twilight.amplitude, twilight.variance, wavelength, model.alive, grid),
            "ct Angstrom-1",
        ),
        "Flatspec": (
            _on_grid(lamp_spectrum, np.ones_like(lamp_spectrum), wavelength, model.alive, grid),
            "ct Angstrom-1",
        ),
        "bigF": (over_rows(np.repeat(middle[:, None], model.trace.shape[1], axis=1), model.trace, ny), "pix"),
        "masterarc": (waves["image"].astype(np.float32), "ct"),
        "masterFlat": (lamp.astype(np.float32), "ct"),
        "response": (np.vstack([grid, np.interp(grid, wave, response)]), ""),
        "lsf": (waves["lsf"].astype(np.float32), "pix"),
        "throughput": (throughput.relative.astype(np.float32), ""),
        "pixelflat": (pixels.data, ""),
    }
    hdus = fits.HDUList()
    for i, (name, (data, unit)) in enumerate(arrays.items()):
        data = np.ascontiguousarray(data)
        hdu = fits.PrimaryHDU(data) if i == 0 else fits.ImageHDU(data)
        hdu.header["EXTNAME"] = name
        if unit:
            hdu.header["BUNIT"] = unit
        if name in ("arcspec", "fltspec", "Flatspec"):
            put(hdu.header, spectral_axis(grid))
        hdus.append(hdu)
    put(hdus[-4].header, [("ROW1", "wavelength [Angstrom]", ""), ("ROW2", "response [erg ct-1]", "")])
    put(hdus[6].header, [("COL1", "row at mid-chip [pix]", ""), ("COL2", "1: dead", "")])
    notebook = task.layout.relative(task.notebook)
    cards = [
        ("CHANNEL", task.channel, ""), ("NIGHT", task.layout.night, ""), ("PROFK", round(scale, 5), "profile sum over its centre"),
        ("ARCRMS", round(float(waves.meta["rms"]), 5), "[px] scatter of the arc lines"),
        *provenance_cards(task.stage, notebook, task.decisions, task.inputs, {}), *dq_cards(),
    ]  # fmt: skip
    put(hdus[0].header, cards)
    return hdus


def lamp_amplitude(lamp: np.ndarray, flat: np.ndarray, model: FiberModel) -> np.ndarray:
    """Quick amplitudes (nf, nx) of the lamp: flat-weighted sum of the four central rows."""
    ny = lamp.shape[0]
    columns = np.arange(lamp.shape[1])
    first = np.floor(model.trace).astype(int) - 1
    top = np.zeros(model.trace.shape)
    bottom = np.full(model.trace.shape, 1e-9)
    for k in range(4):
        row = np.clip(first + k, 0, ny - 1)
        top += lamp[row, columns] * flat[row, columns]
        bottom += flat[row, columns] ** 2
    return top / bottom
