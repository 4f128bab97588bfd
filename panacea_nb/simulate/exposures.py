"""Take one exposure: light of sky, lamps and targets through the channels' optics onto their detectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..instrument import AMP_ROWS, N_COLUMNS, N_FIBERS, Channel, channel
from . import detector, light, truth
from .archive import Member, frame_header, frame_member
from .field import Galaxy, PointSource, gradient
from .optics import ChannelModel, channel_model
from .scenario import ExposurePlan, Scenario, Target
from .spectra import Spectrum
from .streams import stream

ARC_LEVEL = {"uv": 32000.0, "orange": 20000.0, "red": 20000.0, "farred": 20000.0}
"""Electrons per pixel at a fibre's centre in the peak of a line of intensity 1; more for uv's unequal lines."""

SKY_LEVEL = {"dark": 5e-18, "grey": 9e-18, "bright": 2.3e-17}
"""Typical sky continuum [erg/s/cm2/A] of a fibre, against which the targets' brightness is set."""

PEAK_FRACTION = {"point": 0.12, "galaxy": 0.024}
"""Typical part of a target's light in its brightest fibre."""

GALAXY_LINE = {"uv": 5.0}
"""Strength of a galaxy's line against that in the other channels: the photons of an equal one tell its flux to 9 % only."""

TWILIGHT_TILT = 0.005
"""Peak-to-peak tilt of the twilight sky over the field."""

LAMP_UNEVENNESS = 0.03
"""Peak-to-peak unevenness of the internal lamp's light over the field."""


@dataclass(frozen=True)
class Context:
    """What every exposure of a night shares.

    Attributes
    ----------
    seed : int
    date : str
        Night YYYYMMDD.
    scenario : Scenario
    sides : tuple of str
        Channels to be written.
    truth : Path or None
        Folder of the truth files; None for none.
    first_science : str
        Label of the night's first science exposure.
    """

    seed: int
    date: str
    scenario: Scenario
    sides: tuple[str, ...]
    truth: Path | None
    first_science: str = ""


def expose(context: Context, plan: ExposurePlan) -> Iterator[Member]:
    """Take one exposure in all channels and write the truth of a science exposure.

    Yields
    ------
    (name, content)
        The files of its amplifiers.
    """
    scn, seed = context.scenario, context.seed
    for name in context.sides:
        ch = channel(name)
        model = replace(channel_model(seed, name, context.date), reflection=scn.reflection)
        rng = stream(seed, "detector", name, plan.label)
        image = None
        if plan.kind in ("twi", "flt", "cmp"):
            electrons = calibration_light(context, plan, model)
            image, _ = detector.render(model, electrons, model.flexed(plan.flexures[name])[0])
            image = detector.photons(image, rng)
        elif plan.kind == "sci":
            image = _science(context, plan, replace(model, scale=model.scale * (1 + scn.focus)), rng)
        elif plan.kind == "drk":
            image = np.zeros((2 * AMP_ROWS, N_COLUMNS), np.float32)
            row, column, charge = detector.cosmic_rays(plan.exptime, scn.cosmic_rate, rng)
            image[row, column] += charge
        for i, amp_name in enumerate(ch.amps):
            if (plan.kind, plan.exp, amp_name) in scn.lost:
                continue
            amp = detector.amplifier(seed, name, amp_name)
            half = None if image is None else image[i * AMP_ROWS : (i + 1) * AMP_ROWS]
            mirrored = amp_name in scn.mirrored
            data = detector.read_out(half, amp, plan.exptime, rng, scn.binning, mirrored, scn.row_jitter, scn.ramp)
            header = frame_header(
                plan, scn, ch, amp_name, amp.gain, amp.read_noise, plan.label == context.first_science, seed
            )
            yield frame_member(plan, ch, amp_name, data, header)


def calibration_light(context: Context, plan: ExposurePlan, model: ChannelModel) -> np.ndarray:
    """Electrons (N_FIBERS, N_COLUMNS) per fibre and column of a twilight, flat or arc."""
    ch, seed = model.channel, context.seed
    pixels = model.pixels(plan.flexures[ch.name])
    step = float(model.dispersion.mean())
    if plan.kind == "cmp":
        amplitude = ARC_LEVEL[ch.name] * pixels.sample(light.arc_lamp(ch, plan.lamp, step, seed)) * pixels.width / step
        return model.profile_sum * model.throughput * amplitude
    spectrum = light.twilight(ch, step) if plan.kind == "twi" else light.flat_lamp(ch, step)
    amplitude = pixels.sample(spectrum) * pixels.width / model.response(model.wave)
    amplitude *= plan.level / np.median(amplitude)
    if plan.kind == "twi":
        # the twilight's gradient turns a little from frame to frame
        tilt = 0.8 * (gradient(ch, TWILIGHT_TILT, stream(seed, "tilt", context.date, ch.arm), degree=1) - 1)
        tilt += 0.2 * (gradient(ch, TWILIGHT_TILT, stream(seed, "tilt", plan.label, ch.arm), degree=1) - 1)
    else:
        tilt = gradient(ch, LAMP_UNEVENNESS, stream(seed, "lamp", ch.arm)) - 1
    return model.profile_sum * model.throughput * amplitude * (1 + tilt[:, None])


def target_spectrum(seed: int, target: Target, ch: Channel, sky: str, step: float) -> Spectrum:
    """Spectrum [erg/s/cm2/A] of all the light of a target; the same in all its exposures."""
    if target.kind == "standard":
        return light.standard_spectrum(ch, target.name, step)
    shape = stream(seed, "target", target.name)
    level = shape.uniform(*target.brightness) * SKY_LEVEL[sky] / PEAK_FRACTION[target.kind]
    rng = stream(seed, "target lines", target.name, ch.name)
    width = 0.5 * (ch.wave_min + ch.wave_max) / ch.resolving_power
    n = 2 if target.kind == "point" else 1
    strength = SKY_LEVEL[sky] / PEAK_FRACTION[target.kind] * width
    if target.kind == "galaxy":
        strength *= GALAXY_LINE.get(ch.name, 1.0)
    flux = tuple(strength * rng.uniform(3, 6, n))
    return light.smooth_source(ch, step, level, shape, rng, flux)


def target_image(seed: int, plan: ExposurePlan, ch: Channel, refraction: float) -> PointSource | Galaxy:
    """Where the target's light falls in one exposure."""
    target = plan.target
    rng = stream(seed, "place", target.name)
    x, y = target.place or (rng.uniform(-1.5, 1.5), rng.uniform(-0.9, 0.9))
    x0, y0 = _refraction_center(ch.arm)
    x, y = x - x0 + plan.offset[0], y - y0 + plan.offset[1]
    if target.kind != "galaxy":
        return PointSource(plan.seeing, plan.beta, x, y, refraction, plan.shear)
    # a galaxy stands to one side, so that some of the field stays blank
    side = 2.0 * rng.choice([-1, 1])
    x += side if target.place is None else 0.0
    size = rng.uniform(1.8, 2.2), rng.uniform(0.5, 0.8), rng.uniform(0, np.pi)
    return Galaxy(plan.seeing, plan.beta, x, y, *size, refraction, target.index)


@lru_cache(maxsize=2)
def _refraction_center(arm: str) -> tuple[float, float]:
    """Mean of the refraction tables of an arm's channels: with it taken out targets stand near the field's centre."""
    tables = [channel(n).refraction() for n in (("uv", "orange") if arm == "B" else ("red", "farred"))]
    return tuple(float(np.mean([np.mean(t[key]) for t in tables])) for key in ("x", "y"))


def sky_spectrum(seed: int, plan: ExposurePlan, ch: Channel, sky: str, step: float) -> tuple[Spectrum, np.ndarray]:
    """Sky of an exposure [erg/s/cm2/A per fibre] and its brightness (N_FIBERS,) over the field, mean 1."""
    rng = stream(seed, "sky", plan.label)
    continuum, lines = rng.uniform(0.9, 1.15), rng.uniform(0.8, 1.3)
    rng = stream(seed, "sky gradient", plan.label, ch.arm)
    field = gradient(ch, rng.uniform(0.01, 0.03), rng)
    return light.night_sky(ch, sky, step).scaled(continuum, lines), field


def _science(context: Context, plan: ExposurePlan, model: ChannelModel, rng: np.random.Generator) -> np.ndarray:
    """Counted electrons (rows, columns) of a science exposure; its truth is written on the way."""
    ch, scn, seed = model.channel, context.scenario, context.seed
    flexure = plan.flexures[ch.name]
    trace, wave = model.flexed(flexure)
    pixels = model.pixels(flexure)
    step = float(model.dispersion.mean())
    sky, field = sky_spectrum(seed, plan, ch, scn.sky, step)
    flux = pixels.sample(sky) * field[:, None]
    spectrum = shape = None
    if plan.target.arm == ch.arm and plan.target.kind != "blank":
        spectrum = target_spectrum(seed, plan.target, ch, scn.sky, step)
        shape = target_image(seed, plan, ch, scn.refraction)
        flux += pixels.sample(spectrum) * shape.fraction(ch, wave)
    scale = calibration_factor(model, plan, pixels.width, wave)
    image, profiles = detector.render(model, scale * flux, trace, keep=context.truth is not None)
    row, column, charge = detector.cosmic_rays(plan.exptime, scn.cosmic_rate, rng)
    if context.truth is not None:
        dark = detector.DARK_CURRENT * plan.exptime
        noise = [np.sqrt(detector.amplifier(seed, ch.name, a).read_noise ** 2 + dark) for a in ch.amps]
        variance = detector.ideal_variance(model, image, profiles, np.repeat(noise, AMP_ROWS)[:, None], scn.binning)
        cosmics = Table({"row": row.astype(np.int16), "column": column.astype(np.int16), "electrons": charge})
        _write_exposure(context, plan, model, (sky, field), (spectrum, shape), np.sqrt(variance), scale, wave, cosmics)
    counted = detector.photons(image, rng)
    counted[row, column] += charge
    return counted


def calibration_factor(model: ChannelModel, plan: ExposurePlan, width: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """Electrons in a fibre's whole profile per flux density [e-/(erg/s/cm2/A)], for every fibre and column.

    The default response belongs to the amplitude at a fibre's centre, hence the profile's sum over its central value.
    """
    exposure = plan.exptime * plan.area * plan.transparency
    return model.profile_sum * model.throughput * width * exposure / model.response(wave)


def _write_exposure(context: Context, plan: ExposurePlan, model: ChannelModel, sky: tuple[Spectrum, np.ndarray],
                    source: tuple[Spectrum | None, PointSource | Galaxy | None], noise: np.ndarray, scale: np.ndarray,
                    wave: np.ndarray, cosmics: Table) -> None:  # fmt: skip
    ch, scn = model.channel, context.scenario
    flexure = plan.flexures[ch.name]
    grid = ch.wave_grid()
    pixels = model.grid_pixels(flexure)
    n = scn.binning
    with np.errstate(divide="ignore"):
        sigma = noise / scale.reshape(N_FIBERS, -1, n).sum(axis=2)
    sigma[model.dead] = np.nan
    native = wave.reshape(N_FIBERS, -1, n).mean(axis=2)
    on_grid = np.array([np.interp(grid, w, s) for w, s in zip(native, sigma, strict=True)])
    field = sky[1]
    images = {"SKY": pixels.sample(sky[0]) * field[:, None]}
    total, place = np.zeros(grid.size), (np.zeros(grid.size), np.zeros(grid.size))
    lines = np.zeros((0, 3))
    middle = (0.0, 0.0)
    spectrum, shape = source
    if spectrum is not None:
        seen = pixels.sample(spectrum)
        total, lines = seen[~model.dead].mean(axis=0), spectrum.lines
        images["SOURCE"] = seen * shape.fraction(ch, grid)
        place = shape.path(ch, grid)
        middle = shape.path(ch, np.array([grid.mean()]))
    images |= {"SIGMA": sigma, "SIGMA_GRID": on_grid, "GRADIENT": field}
    header = {
        "SEED": context.seed, "NIGHT": plan.night, "OBSID": plan.obsid, "EXP": plan.exp, "CHANNEL": ch.name,
        "TARGET": int(spectrum is not None), "KIND": plan.target.kind, "OBJECT": plan.object_name,
        "EXPTIME": plan.exptime,
        "TRANSPAR": plan.transparency, "AREA": plan.area, "SEEING": plan.seeing, "BETA": plan.beta,
        "SOURCEX": float(middle[0] if spectrum is None else middle[0][0]),
        "SOURCEY": float(middle[1] if spectrum is None else middle[1][0]), "BINNING": scn.binning,
    }  # fmt: skip
    for key, values in (("FLEXROW", flexure.row), ("FLEXCOL", flexure.column)):
        header |= {f"{key}{i}": float(v) for i, v in enumerate(values)}
    tables = {
        "SPECTRUM": Table({"wavelength": grid, "flux": total, "x": place[0], "y": place[1]}),
        "LINES": Table(lines, names=["wavelength", "flux", "sigma"]),
        "SKYLINES": Table(sky[0].lines[:, :2], names=["wavelength", "flux"]),
        "COSMICS": cosmics,
    }
    images = {k: v.astype(np.float32) for k, v in images.items()}
    truth.write(context.truth / truth.exposure_name(plan.obsid, plan.exp, ch.name), header, images, tables)


def write_channel(context: Context, name: str) -> None:
    """Write the truth of a channel."""
    model = channel_model(context.seed, name, context.date)
    amps = [detector.amplifier(context.seed, name, a) for a in model.channel.amps]
    halves = []
    for amp in amps:
        bias = amp.level + amp.structure
        halves.append(bias[::-1, ::-1] if amp.name in detector.ROTATED else bias)
    header = {"SEED": context.seed, "CHANNEL": name, "K": model.profile_sum, "LSFWING": model.lsf_wing}
    for i, amp in enumerate(amps):
        header |= {f"GAIN{i}": amp.gain, f"RN{i}": amp.read_noise}
    images = {
        "TRACE": model.trace, "WAVELENGTH": model.wave, "LSF": model.sigma.astype(np.float32),
        "PROFILE": model.scale.astype(np.float32), "THROUGHPUT": model.throughput.astype(np.float32),
        "DEAD": model.dead.astype(np.uint8), "PIXELFLAT": model.pixel_flat,
        "BIAS": np.concatenate(halves).astype(np.float32),
    }  # fmt: skip
    cumulative = model.profile.cumulative
    offset = np.linspace(-model.profile.reach, model.profile.reach, cumulative.size)
    shape = Table({"offset": offset[::10], "integral": cumulative[::10]})
    truth.write(context.truth / truth.channel_name(name), header, images, {"PROFILESHAPE": shape})
