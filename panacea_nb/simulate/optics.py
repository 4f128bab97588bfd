"""One channel of the simulated instrument: where its fibres fall, how they disperse, blur and pass the light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from ..instrument import AMP_ROWS, N_COLUMNS, N_FIBERS, N_WAVE, Channel, channel, reference_wavelength
from .profile import Profile
from .spectra import Pixels
from .streams import stream

N_ROWS = 2 * AMP_ROWS
"""Rows of a stacked image."""

ARC_FIT_DEGREE = 3
"""Degree of the polynomial through the approximate columns of the arc list, which anchors the dispersion."""

DISPERSION_DEGREE = {"orange": 2, "farred": 2}
"""Lower degrees where the list is short."""

DEAD_THROUGHPUT = 0.02
"""Throughput of a broken fibre that still leaks."""


@dataclass(frozen=True)
class Flexure:
    """Shift of the image on the detector against its reference place.

    Attributes
    ----------
    row, column : tuple of float
        Shift [px] at the middle, its slope over x and over y (both -1..1 over the detector).
    """

    row: tuple[float, float, float] = (0.0, 0.0, 0.0)
    column: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def shifts(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shifts [px] in rows and columns at detector places (-1..1)."""
        return tuple(a + b * x + c * y for a, b, c in (self.row, self.column))


@dataclass
class ChannelModel:
    """The truth of one channel, the same for all nights of a seed.

    Arrays are (N_FIBERS, N_COLUMNS) unless said otherwise.

    Attributes
    ----------
    channel : Channel
    trace : ndarray
        Row [px] of each fibre in the stacked image.
    wave, dispersion : ndarray
        Wavelength [A, air] of pixel centres and A per pixel.
    sigma : ndarray
        Core sigma [px] of the line-spread function.
    lsf_wing : float
        Part of a line's light in wings of twice that sigma.
    profile : Profile
    scale : ndarray
        Width of the cross-dispersion profile, relative.
    throughput : ndarray
        Relative throughput; mean of the live fibres 1 in every column.
    dead : ndarray (N_FIBERS,) of bool
    pixel_flat : ndarray (N_ROWS, N_COLUMNS) float32
        Relative response of the pixels.
    scatter : tuple of (part, sigma [px])
        Components of the scattered light.
    reflection : float
        Part of the light in a reflection, turned about the middle of the chip.
    profile_sum : float
        K: sum of a profile over its central value, mean over live fibres and columns.
    """

    channel: Channel
    trace: np.ndarray
    wave: np.ndarray
    dispersion: np.ndarray
    sigma: np.ndarray
    lsf_wing: float
    profile: Profile
    scale: np.ndarray
    throughput: np.ndarray
    dead: np.ndarray
    pixel_flat: np.ndarray
    scatter: tuple[tuple[float, float], ...]
    profile_sum: float = 0.0
    reflection: float = 0.0

    @property
    def x(self) -> np.ndarray:
        """Columns (N_COLUMNS,) as -1..1."""
        return np.linspace(-1, 1, N_COLUMNS)

    @property
    def y(self) -> np.ndarray:
        """Rows of the traces as -1..1."""
        return self.trace / (N_ROWS / 2) - 1

    def flexed(self, flexure: Flexure) -> tuple[np.ndarray, np.ndarray]:
        """Trace and wavelength maps of a frame taken under a flexure."""
        rows, columns = flexure.shifts(self.x, self.y)
        return self.trace + rows, self.wave - columns * self.dispersion

    def pixels(self, flexure: Flexure | None = None) -> Pixels:
        """Wavelength borders and sharpness of the detector pixels under a flexure."""
        wave = self.wave if flexure is None else self.flexed(flexure)[1]
        border = 0.5 * (wave[:, 1:] + wave[:, :-1])
        edges = np.concatenate([2 * wave[:, :1] - border[:, :1], border, 2 * wave[:, -1:] - border[:, -1:]], axis=1)
        return Pixels(edges[:, :-1], edges[:, 1:], self.sigma * self.dispersion, self.lsf_wing)

    def grid_pixels(self, flexure: Flexure) -> Pixels:
        """The rectified grid as an ideal spectrograph would sample it: each fibre's own sharpness and pixels."""
        wave = self.flexed(flexure)[1]
        grid = self.channel.wave_grid()
        width, sigma = np.empty((N_FIBERS, N_WAVE)), np.empty((N_FIBERS, N_WAVE))
        for i in range(N_FIBERS):
            width[i] = np.interp(grid, wave[i], self.dispersion[i])
            sigma[i] = np.interp(grid, wave[i], self.sigma[i] * self.dispersion[i])
        return Pixels(grid - width / 2, grid + width / 2, sigma, self.lsf_wing)

    def response(self, wave: np.ndarray) -> np.ndarray:
        """Default response at any wavelengths [A]: multiplies e-/s/cm2/A to give erg/s/cm2/A."""
        return np.interp(wave, *self.channel.response())


@lru_cache(maxsize=8)
def channel_model(seed: int, name: str, date: str) -> ChannelModel:
    """Build the truth of a channel.

    Parameters
    ----------
    seed : int
        Decides everything.
    name : str
        Channel.
    date : str
        Night YYYYMMDD; only the table of fibre positions that is valid then depends on it.
    """
    ch = channel(name)
    rng = stream(seed, "optics", name)
    x = np.linspace(-1, 1, N_COLUMNS)
    rows, dead = ch.fiber_locations(date)
    trace = _trace(rows, x, rng)
    y = trace / (N_ROWS / 2) - 1
    wave = _wavelength(ch, x, y, rng)
    dispersion = np.gradient(wave, axis=1)
    middle = ch.wave_grid().mean() / ch.resolving_power / dispersion.mean() / np.sqrt(8 * np.log(2))
    shape = _smooth_map(x, y, rng, 2)
    sigma = middle * rng.uniform(0.97, 1.03) * (1 + 0.13 * shape) * (1 + 0.01 * rng.standard_normal((N_FIBERS, 1)))
    profile = Profile(rng.uniform(1.50, 1.58), rng.uniform(0.03, 0.06), rng.uniform(3.4, 3.9))
    scale = 1 + 0.035 * _smooth_map(x, y, rng, 2) + 0.012 * rng.standard_normal((N_FIBERS, 1))
    if name != "farred" and rng.uniform() < 0.4:
        dead[rng.integers(5, N_FIBERS - 5)] = True
    throughput = _throughput(x, dead, rng)
    weight = rng.uniform(0.3, 0.7)
    part = rng.uniform(0.02, 0.04)
    scatter = ((part * weight, rng.uniform(50, 80)), (part * (1 - weight), rng.uniform(180, 300)))
    model = ChannelModel(
        ch, trace, wave, dispersion, sigma, rng.uniform(0.0, 0.02), profile, scale, throughput, dead,
        _pixel_flat(name, rng), scatter,
    )  # fmt: skip
    some = slice(4, None, 16)
    central = profile.central(trace[~dead][:, some], scale[~dead][:, some])
    model.profile_sum = float(1 / central.mean())
    return model


def _trace(rows: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tabulated rows moved, tilted and bent by a few px, smoothly over the detector."""
    y = rows[:, None] / (N_ROWS / 2) - 1
    moved = rows[:, None] + rng.uniform(-3, 3) + rng.uniform(-0.7, 0.7) * y
    moved = moved + rng.uniform(-1.5, 1.5) * x + rng.uniform(-0.5, 0.5) * x * y
    moved = moved + (rng.uniform(-1.5, 1.5) + rng.uniform(-2.0, 2.0) * y) * (x**2 - 0.1)
    return moved + rng.uniform(-0.25, 0.25) * x**3 + 0.05 * rng.standard_normal(y.shape)


def _wavelength(ch: Channel, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if ch.name == "uv":
        wave = reference_wavelength("uv")
        shift = rng.uniform(-0.8, 0.8) + rng.uniform(-0.1, 0.1) * x + rng.uniform(-0.15, 0.15) * y
        return wave - shift * np.gradient(wave, axis=1)
    lines = ch.arc_lines()
    degree = DISPERSION_DEGREE.get(ch.name, ARC_FIT_DEGREE)
    fit = np.polynomial.Polynomial.fit(lines["column"], lines["wavelength"], degree, domain=[0, N_COLUMNS - 1])
    # the slit's image is bent: fibres far from the middle see the same wavelength some px away
    bend = (
        rng.uniform(4, 8) * rng.choice([-1, 1]) * (y**2 - 0.3) + rng.uniform(-2, 2) * y + rng.uniform(-0.7, 0.7) * y**3
    )
    bend = bend + x * (rng.uniform(-0.7, 0.7) * y**2 + rng.uniform(-0.4, 0.4) * y) + rng.uniform(-1.5, 1.5)
    return fit(np.arange(N_COLUMNS) - bend)


def _smooth_map(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, degree: int) -> np.ndarray:
    """A random polynomial over the detector within -1..1, its mean taken out."""
    out = np.zeros(y.shape)
    for i in range(degree + 1):
        for j in range(degree + 1 - i):
            if i + j:
                out += rng.uniform(-1, 1) * x**i * y**j
    out -= out.mean()
    return out / np.abs(out).max()


def _throughput(x: np.ndarray, dead: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level = rng.uniform(0.05, 0.08) * rng.standard_normal((N_FIBERS, 1))
    color = 0.01 * rng.standard_normal((N_FIBERS, 3))
    wiggle = color[:, :1] * x + color[:, 1:2] * (x**2 - 1 / 3) + color[:, 2:] * np.sin(2.5 * np.pi * x)
    out = np.exp(level + wiggle)
    out[dead] = 0.0 if rng.uniform() < 0.5 else DEAD_THROUGHPUT
    return out / out[~dead].mean(axis=0)


def _pixel_flat(name: str, rng: np.random.Generator) -> np.ndarray:
    flat = 1 + 0.01 * rng.standard_normal((N_ROWS, N_COLUMNS), dtype=np.float32)
    coarse = gaussian_filter(rng.standard_normal((N_ROWS // 8, N_COLUMNS // 8)), 20)
    large = np.repeat(np.repeat(coarse / coarse.std(), 8, axis=0), 8, axis=1)
    flat += (0.006 * gaussian_filter(large, 8)).astype(np.float32)
    for _ in range(12):
        r, c, size = rng.integers(20, N_ROWS - 20), rng.integers(20, N_COLUMNS - 20), rng.uniform(1.5, 6)
        reach = int(4 * size)
        rs, cs = (slice(max(i - reach, 0), min(i + reach, n)) for i, n in zip((r, c), flat.shape, strict=True))
        rr, cc = np.ogrid[rs, cs]
        spot = np.exp(-0.5 * ((rr - r) ** 2 + (cc - c) ** 2) / size**2)
        flat[rs, cs] *= (1 - rng.uniform(0.03, 0.2) * spot).astype(np.float32)
    if name == "uv":
        flat[79:83, 979:987] = 0.4
    # each half is normalised by itself, as a mean gain would
    flat[:AMP_ROWS] /= flat[:AMP_ROWS].mean()
    flat[AMP_ROWS:] /= flat[AMP_ROWS:].mean()
    return flat
