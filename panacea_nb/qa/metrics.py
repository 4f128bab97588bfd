"""Numbers by which a stage is judged, from the results of the physics."""

from __future__ import annotations

import numpy as np

from ..instrument import channel as find_channel


def bias(master, dark) -> dict[str, float]:
    """Metrics of 01_bias."""
    drift = float(np.abs(master.drift).max()) if master.drift.size else 0.0
    return {
        "bias_frames": master.n_frames,
        "read_noise_bottom": float(master.rdnoise[0]),
        "read_noise_top": float(master.rdnoise[1]),
        "bias_drift": drift,
        "row_wander": float(np.hypot(*master.wander[:, :2].T).max()),
        "bad_pixels": 100 * float((master.bad | dark.hot).mean()),
    }


def trace(result, expected_dead: np.ndarray, n_frames: int) -> dict[str, float]:
    """Metrics of 02_trace."""
    alive = result.model.alive
    light = float(np.sum(result.extraction.amplitude[alive]))
    return {
        "flat_frames": n_frames,
        "pattern_match": result.match,
        "pattern_margin": result.match / max(result.runner_up, 1e-6),
        "trace_rms": float(np.nanmedian(result.residual[alive])),
        "new_dead_fibers": float((result.dead & ~expected_dead).sum()),
        "flat_signal": float(np.median(result.extraction.amplitude[alive])),
        "scattered_light": 100 * float(result.background.sum()) / max(light, 1.0),
    }


def wavelength(solution, channel: str, alive: np.ndarray) -> dict[str, float]:
    """Metrics of 03_wavelength."""
    facts = find_channel(channel)
    first = float(np.median(solution.wavelength[alive, 0]))
    last = float(np.median(solution.wavelength[alive, -1]))
    missing = max(0.0, first - facts.wave_min) + max(0.0, facts.wave_max - last)
    scale = 2.3548 * (2064 / solution.wavelength.shape[1])
    return {
        "arc_rms": solution.rms,
        "arc_lines": float((solution.used.sum(axis=1) > solution.used.shape[1] // 4).sum()),
        "lsf_fwhm": scale * float(np.median(solution.lsf[alive])),
        "range_missing": missing,
    }


def flat(throughput, pixels, scale: float, alive: np.ndarray) -> dict[str, float]:
    """Metrics of 04_flat."""
    level = throughput.relative[alive].mean(axis=1)
    return {
        "profile_scale": scale,
        "throughput_rms": 100 * float(np.std(level)),
        "flat_residual": 100 * 1.4826 * float(np.median(np.abs(throughput.residual[alive]))),
        "pixel_scatter": 100 * pixels.scatter,
    }


def extract(result, wavelength: np.ndarray) -> dict[str, float]:
    """Metrics of 05_extract; ``wavelength`` is the map of the calibrations."""
    flexure = result.flexure
    weight = flexure.weight.sum()
    left = float((flexure.measured * flexure.weight).sum() / weight) if weight > 0 else float("nan")
    moved = (result.wavelength - wavelength) / np.gradient(wavelength, axis=1)
    alive = result.model.alive
    return {
        "row_shift": abs(float(flexure.coef[0])),
        "row_shift_left": abs(left),
        "wave_shift": abs(float(np.median(moved[alive]))),
        "cosmic_pixels": 100 * float(result.cosmics.mean()),
        "saturated_pixels": 100 * float(((result.mask & 4) > 0)[alive].mean()),
        "fit_chi": result.chi,
    }


def sky(
    model, amplitude: np.ndarray, variance: np.ndarray, good: np.ndarray, lines: np.ndarray, lsf_sigma: float = 2.0
) -> dict[str, float]:
    """Metrics of 06_sky from a FieldModel and the samples it was fitted to."""
    sky_model = model.sky
    native = sky_model.native()
    sigma = np.sqrt(np.maximum(variance, 1e-9))
    pull = np.where(good & sky_model.fibers[:, None], (amplitude - native - model.source_native) / sigma, np.nan)
    inner = pull[sky_model.fibers]
    width = inner.shape[1] // 16 * 16
    blocks = inner[:, :width].reshape(inner.shape[0], -1, 16)
    count = np.isfinite(blocks).sum(axis=2)
    total = np.where(np.isfinite(blocks), blocks, 0.0).sum(axis=2)
    binned = np.where(count > 8, total / np.sqrt(np.maximum(count, 1)), np.nan)
    near = np.zeros(inner.shape, bool)
    wave = sky_model.wavelength[sky_model.fibers]
    step = np.median(np.diff(wave, axis=1))
    for line in lines:
        near |= np.abs(wave - line) < lsf_sigma * step
    on_lines = robust(inner[near]) if near.any() else 1.0
    level = sky_model.gradient
    return {
        "sky_chi": robust(inner),
        "sky_binned": robust(binned),
        "sky_fibers": float(sky_model.fibers.sum()),
        "sky_lines_chi": on_lines,
        "gradient": 100 * float(level.max() - level.min()),
    }


def sky_of_mode(values: dict[str, float], mode: str, sky_model) -> dict[str, float]:
    """Metrics of 06_sky that hold for the user's choice of sky.

    A region or a mask has as many fibres as the user named; the sky of another exposure has none of its own, and its factor.
    """
    dropped = {"region": ("sky_fibers",), "mask": ("sky_fibers",), "exposure": ("sky_fibers", "gradient")}.get(mode, ())
    values = {name: value for name, value in values.items() if name not in dropped}
    if mode == "exposure":
        values["sky_scale_error"] = 100 * float(sky_model.scale_error[0] / sky_model.scale[0])
    return values


def robust(values: np.ndarray) -> float:
    """1.4826 x median absolute value of what is finite; NaN without any."""
    finite = values[np.isfinite(values)]
    return 1.4826 * float(np.median(np.abs(finite))) if finite.size else float("nan")


def response(result) -> dict[str, float]:
    """Metrics of 08_standard."""
    return {
        "response_ratio": float(np.median(result.ratio)),
        "response_shape": 100 * float((result.ratio.max() - result.ratio.min()) / np.median(result.ratio)),
        "compared": 100 * float(result.fitted.mean()),
    }


def flexure_values(result) -> dict[str, float | bool]:
    """Flexure of a science frame as plain values, for headers."""
    zero = result.zero
    values = {"row_shift": round(float(result.flexure.coef[0]), 4), "zero_used": bool(zero is not None and zero.used)}
    dispersion = float(np.median(np.gradient(result.wavelength, axis=1)))
    values["wave_shift"] = round(-zero.shift / dispersion, 4) if values["zero_used"] else 0.0
    values["wave_shift_error"] = (
        round(zero.error / dispersion, 4) if zero is not None and np.isfinite(zero.error) else -1.0
    )
    return values


def flexure_facts(result, wavelength: np.ndarray) -> dict[str, object]:
    """What an observer wants to know of the extraction, for a table."""
    values = flexure_values(result)
    return {
        "shift across dispersion [px]": values["row_shift"],
        "its slopes (column, fibre, both) [px]": np.round(result.flexure.coef[1:], 4),
        "shift along dispersion [px]": values["wave_shift"],
        "error of that shift [px]": values["wave_shift_error"],
        "wavelength zero from the sky": values["zero_used"],
        "pixels hit by cosmic rays": int(result.cosmics.sum()),
        "robust RMS of pixels over noise": result.chi,
    }


def flux(result, scale, decisions) -> dict[str, float]:
    """Metrics of 07_flux."""
    alive = result.alive
    values = {
        "transparency": scale.transparency,
        "source_snr": float(result.search["best"]),
        "bad_elements": 100 * float((result.error[alive] <= 0).mean()),
        "fallbacks": float(sum(d.severity == "warn" for d in decisions)),
    }
    if result.source is not None:
        if not result.source.extended:
            values["seeing"] = result.source.fwhm
        values["psf_chi"] = result.source.chi
        values["disk_rest" if result.source.extended else "psf_rest"] = 100 * result.source.unexplained
    return values


def night_row(task, exposure, result, scale, judged) -> dict[str, object]:
    """One row of the night table."""
    source = result.source
    sky_level = float(np.median(result.sky[result.alive])) if result.alive.any() else float("nan")
    return {
        "obsid": exposure.obsid,
        "exposure": exposure.exp,
        "channel": task.channel,
        "target": exposure.object_name,
        "program": task.program,
        "kind": exposure.kind,
        "start": exposure.start.isoformat(timespec="seconds"),
        "exptime": scale.exptime,
        "snr": float(result.search["best"]),
        "source_x": source.x if source else None,
        "source_y": source.y if source else None,
        "fwhm": source.fwhm if source else None,
        "transparency": scale.transparency,
        "area": scale.area,
        "sky": sky_level,
        "fallbacks": " ".join(d.code for d in task.decisions if d.severity == "warn"),
        "sky_mode": result.choices["sky_mode"],
        "extraction": result.choices["extraction"],
        "telluric": result.choices["telluric"],
        "verdict": judged.overall,
    }


def combined(result, cube, missing: int) -> dict[str, float]:
    """Metrics of 09_combine; ``result`` is None where no source was found."""
    apart = [value for value in cube.apart.values() if np.isfinite(value)]
    values = {
        "missing": float(missing),
        "aligned": 100 * float(np.mean([how != "sky" for how in cube.aligned.values()])),
        "pointing": max(apart, default=0.0),
    }
    if result is None:
        return values | {"exposures": 0.0}
    factors = np.array(list(result.scales.values()))
    samples = sum(int((part.error > 0).sum()) for part in result.parts)
    good = result.error > 0
    return values | {
        "exposures": float(len(result.parts)),
        "scale_spread": 100 * float(factors.max() / factors.min() - 1),
        "rejected": 100 * sum(result.rejected.values()) / max(samples, 1),
        "snr": float(np.median(result.flux[good] / result.error[good])) if good.any() else 0.0,
    }
