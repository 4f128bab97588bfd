"""Small results with known answers for the tests of the figures, and a catcher of what they show."""

from __future__ import annotations

import datetime as dt
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from astropy.table import MaskedColumn, Table
from PIL import Image as Picture

from panacea_nb.instrument import AMP_ROWS, N_FIBERS, channel
from panacea_nb.qa import figures
from panacea_nb.reduce.arclines import LineFits
from panacea_nb.reduce.bias import MasterBias, MasterDark
from panacea_nb.reduce.calibrated import Calibrated
from panacea_nb.reduce.ccd import ChannelImage
from panacea_nb.reduce.combine import Part, combine_spectra
from panacea_nb.reduce.combinedcube import FiberField, combine_cubes
from panacea_nb.reduce.cube import spaxel_grid
from panacea_nb.reduce.exposure import ScienceExtraction
from panacea_nb.reduce.extract import Extraction, FiberModel
from panacea_nb.reduce.fieldmodel import FieldModel
from panacea_nb.reduce.flexure import RowFlexure
from panacea_nb.reduce.maskbits import DQ
from panacea_nb.reduce.optimal import ExtractedSpectrum
from panacea_nb.reduce.psf import lenslet_fractions
from panacea_nb.reduce.refraction import Refraction
from panacea_nb.reduce.scatter import ScatterModel
from panacea_nb.reduce.sky import SkyModel
from panacea_nb.reduce.source import PointSource
from panacea_nb.reduce.trace import TraceResult, gaussian_coef
from panacea_nb.reduce.wavelength import WavelengthSolution
from panacea_nb.reduce.wavezero import WavelengthZero

NF, NX, NY = 12, 160, 120  # a small chip: fibres 8 rows apart
SMALLEST = 1500  # bytes of a PNG with something on it
LARGEST = 250_000


class Shown:
    """What the figures displayed: the pictures and their alt texts."""

    def __init__(self):
        self.pictures: list[Picture.Image] = []
        self.alts: list[str] = []

    def __call__(self, shown) -> None:
        data = shown.data
        assert data.startswith(b"\x89PNG")
        assert SMALLEST < len(data) < LARGEST
        self.pictures.append(Picture.open(io.BytesIO(data)))
        self.alts.append(shown.alt)

    @property
    def alt(self) -> str:
        """The alt text of the one figure that was shown."""
        assert len(self.alts) == 1, "exactly one figure is shown by each function"
        return self.alts.pop()

    def numbers(self) -> list[float]:
        """All numbers of the alt text."""
        return [float(v) for v in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", self.alt)]


def draw(name: str, *args) -> None:
    assert getattr(figures, name)(*args) is None


# --- small data ---


def fiber_model(nf: int = NF, nx: int = NX, dead: tuple[int, ...] = ()) -> FiberModel:
    trace = 12.0 + 8.0 * np.arange(nf)[:, None] + np.linspace(0, 0.6, nx)[None, :]
    alive = np.ones(nf, bool)
    alive[list(dead)] = False
    return FiberModel(trace, gaussian_coef(nf, nx, 4.0), 16, alive)


def extraction(model: FiberModel, level: float = 400.0, ny: int = NY, seed: int = 1) -> Extraction:
    rng = np.random.default_rng(seed)
    amplitude = np.full(model.trace.shape, level) * (1 + 0.5 * np.sin(np.arange(model.trace.shape[1]) / 7.0))
    amplitude = np.where(model.alive[:, None], amplitude, 0.0).astype(np.float32)
    variance = np.maximum(amplitude, 9.0)
    noisy = (amplitude + rng.normal(size=amplitude.shape) * np.sqrt(variance)).astype(np.float32)
    coupling = np.zeros(model.coef.shape[:2], np.float32)
    return Extraction(noisy, variance, np.ones_like(amplitude), model.image(np.maximum(noisy, 0), ny), coupling)


def traced(dead: tuple[int, ...] = (), offset: float = 0.0) -> tuple[np.ndarray, TraceResult]:
    """A flat made of its own model (4000 e- a column, 20 e- scattered), and a result with traces ``offset`` px off."""
    model = fiber_model(dead=dead)
    found = extraction(model, 4000.0)
    background = np.full((NY, NX), 20.0, np.float32)
    flat = found.model + background
    model = model.shifted(offset)
    residual = np.full(NF, 0.004)
    weights = ScatterModel(np.array([50.0]), np.array([0.01]))
    result = TraceResult(model, ~model.alive, found, weights, background, 0.9, 0.5, np.zeros(2), residual, np.ones(NF))
    return flat, result


def wave_map(nf: int = NF, nx: int = NX, first: float = 6500.0, step: float = 1.0) -> np.ndarray:
    return first + step * np.arange(nx)[None, :] + 0.1 * np.arange(nf)[:, None]


def solution(nf: int = 40, nx: int = 300, used: bool = True) -> WavelengthSolution:
    rng = np.random.default_rng(2)
    lines = 6500.0 + np.array([30.0, 90.0, 160.0, 230.0, 280.0])
    residual = rng.normal(size=(lines.size, nf)) * 0.02
    residual[3] = np.nan
    flags = np.full((lines.size, nf), used)
    flags[3] = False
    centre = np.repeat((lines - 6500.0)[:, None], nf, axis=1)
    ones = np.ones((lines.size, nf))
    fits = LineFits(lines, centre, 1.9 * ones, 1e4 * ones, 0.01 * ones, flags)
    return WavelengthSolution(wave_map(nf, nx), np.full((nf, nx), 1.9, np.float32), fits, flags, residual, 0.0213, 3)


def science(nf: int = NF, nx: int = NX, dead: tuple[int, ...] = (2,), zero: WavelengthZero | None = None) -> tuple:
    """Frame, read noise and a `ScienceExtraction` of it, with 30 pixels hit by cosmic rays."""
    rng = np.random.default_rng(3)
    model = fiber_model(nf, nx, dead)
    found = extraction(model, 400.0)
    image = found.model + rng.normal(size=(NY, nx)).astype(np.float32) * np.sqrt(9 + found.model)
    cosmics = np.zeros((NY, nx), bool)
    cosmics[40:45, 20:26] = True
    image[cosmics] += 3000
    mask = np.where(model.alive[:, None], 0, np.uint8(DQ.DEADFIBER)) * np.ones((1, nx), np.uint8)
    mask[4, 20:26] |= np.uint8(DQ.LOSTWEIGHT)
    blocks = -(-nx // 43)
    measured = rng.normal(size=(nf, blocks)) * 0.01
    flex = RowFlexure(np.array([-0.217, 0, 0, 0]), np.full(4, 0.001), measured, np.ones((nf, blocks)), 3, True)
    wave = wave_map(nf, nx) - 0.15
    background = np.zeros((NY, nx), np.float32)
    result = ScienceExtraction(found, mask.astype(np.uint8), model, flex, background, cosmics, wave, None, zero, 0.987)
    return image, np.full((NY, 1), 3.0, np.float32), result


def wavelength_zero(n_lines: int = 5, used: bool = True) -> WavelengthZero:
    grid = np.linspace(6500, 6660, 320)
    light = 100 + 50 * np.exp(-0.5 * ((grid - 6580) / 2) ** 2)
    return WavelengthZero(0.15, 0.0, 0.01, used, n_lines, grid, light, light + 1)


class Spectrum:
    """A sky of 100 e-/A with one line, as a function."""

    def __call__(self, wavelength, extra=0.0):
        return 100 + 300 * np.exp(-0.5 * ((np.asarray(wavelength) - 6560) / 2) ** 2)


def field_model(noise: float = 1.0, source: PointSource | None = None, n_sky: int = 200, seed: int = 4) -> tuple:
    """A field with one dead fibre, whose residuals have ``noise`` times the noise that is claimed."""
    nx = 128
    rng = np.random.default_rng(seed)
    alive = np.ones(N_FIBERS, bool)
    alive[7] = False
    fibers = alive & (np.arange(N_FIBERS) < n_sky)
    native = np.ones((N_FIBERS, nx))
    sky = SkyModel(
        spectrum=Spectrum(),
        factor=native.copy(),
        extra=0 * native,
        wavelength=wave_map(N_FIBERS, nx),
        gradient=np.ones(N_FIBERS),
        terms={},
        fibers=fibers,
        level=1 + 0.01 * rng.normal(size=N_FIBERS),
        level_error=np.full(N_FIBERS, 0.01),
        level_scatter=0.01,
        chi=1.0,
    )
    native = sky.native()
    amplitude = native + noise * rng.normal(size=native.shape) * np.sqrt(native)
    amplitude[50, 10:20] = np.nan
    good = np.isfinite(amplitude) & alive[:, None]
    search = {"best": 12.3}
    mask = np.zeros(native.shape, np.uint8)
    field = FieldModel(sky, source, None, np.zeros_like(native), search, mask, np.ones_like(native), None)
    return field, amplitude, native.copy(), good, alive


def point_source(**changes) -> PointSource:
    wave = np.linspace(6500, 8300, 24)
    star = PointSource(
        0.5, -0.7, 7400.0, 1.62, -0.2, 3.5, 88.0, {}, False, 1.234, wave, np.full(24, 3e-16), np.full(24, 1e-18)
    )  # fmt: skip
    return replace(star, **changes)


def calibrated(source: PointSource | None = None, dead: tuple[int, ...] = (7,), chunks: int = 24) -> Calibrated:
    """A calibrated field with a point source of 3e-16 erg/s/cm2/A, or with noise alone."""
    rng = np.random.default_rng(5)
    positions = channel("red").fiber_positions()
    grid = np.linspace(6450, 8400, 200)
    alive = np.ones(N_FIBERS, bool)
    alive[list(dead)] = False
    table = Refraction(np.linspace(6400, 8500, 5), np.linspace(-0.2, 0.2, 5), np.zeros(5))
    wave = np.linspace(6500, 8300, chunks)
    means = 1e-18 * rng.normal(size=(chunks, N_FIBERS))
    if source is not None:
        dx, dy = table.offset(wave, source.wave_ref)
        width = source.fwhm * (wave / source.wave_ref) ** source.exponent
        place = (positions, source.x + dx, source.y + dy, width, source.beta)
        means += 3e-16 * lenslet_fractions(*place, shear=source.shear, disk=source.disk)
    variances = np.where(alive[None, :], 1e-36, np.inf) * np.ones((chunks, 1))
    means[:, ~alive] = 0
    spaxels = spaxel_grid(positions)
    shape = (spaxels.y.size, spaxels.x.size)
    x, y = np.arange(-6.8, 6.9, 0.3), np.arange(-4.1, 4.2, 0.3)
    best = 88.0 if source is not None else 3.21
    search = {
        "x": x, "y": y, "snr": rng.normal(size=(y.size, x.size)), "best": best, "wave": wave, "means": means,
        "variances": variances, "line": np.nan,
    }  # fmt: skip
    flux = np.where(grid < 6500, 0.0, 3e-16 if source is not None else 0.0)
    error = np.where(flux > 0, 1e-17, 0.0)
    spectrum = ExtractedSpectrum(flux, error, 5e-16 * np.sign(error), error, np.ones(grid.size))
    errors = np.where(alive[:, None], 1e-18, 0.0) * np.ones((1, grid.size))
    sky = np.full((N_FIBERS, grid.size), 4e-18)
    dq = np.zeros(sky.shape, np.uint8)
    collapsed = 1e-18 * rng.normal(size=shape)
    return Calibrated(
        grid, np.full(grid.size, 5e-11), np.zeros_like(sky), sky, errors, dq, np.zeros(3), source, None, search, spectrum,
        4.5e-17, table, 7425.0, 10.0, positions, alive, {}, spaxels, collapsed, np.ones_like(sky), None,
    )  # fmt: skip


def index(*exposures) -> SimpleNamespace:
    return SimpleNamespace(night="20250115", exposures=lambda: list(exposures))


def exposure(obsid: int, kind: str, hour: float, name: str = "", exptime: float | None = 300.0, exp: int = 1):
    start = dt.datetime(2025, 1, 15) + dt.timedelta(hours=hour)
    return SimpleNamespace(
        obsid=obsid, exp=exp, kind=kind, start=start, object_name=name, exptime=exptime, ifuslot="056"
    )


def night_table(n: int) -> Table:
    table = Table()
    table["obsid"] = np.arange(n) + 4
    table["exposure"] = np.ones(n, int)
    table["channel"] = np.array(["uv", "orange", "red", "farred"] * n)[:n].astype("U8")
    table["target"] = np.array([f"a$b_{i}" for i in range(n)], dtype="U8")
    table["start"] = np.array([f"2025-01-15T0{i}:10:00" for i in range(n)], dtype="U20")
    table["snr"] = MaskedColumn(np.full(n, 50.0), mask=np.zeros(n, bool))
    table["fwhm"] = MaskedColumn(np.full(n, 1.75), mask=[i == 0 for i in range(n)])
    table["transparency"] = MaskedColumn(np.full(n, 0.85), mask=np.zeros(n, bool))
    table["verdict"] = np.array(["pass", "warn", "fail"] * n)[:n].astype("U8")
    return table


def tasks(n_exposures: int) -> list[dict]:
    made = [{"id": "01_bias-uv", "stage": "01_bias", "state": "succeeded", "verdict": "warn", "channel": "uv"}]
    for k in range(n_exposures):
        made.append(
            {
                "id": f"05_extract-{k}",
                "stage": "05_extract",
                "state": "succeeded",
                "verdict": "pass",
                "channel": "uv",
                "obsid": k,
                "exp": 1,
            }
        )
    made.append(
        {
            "id": "06_sky-x",
            "stage": "06_sky",
            "state": "failed",
            "verdict": "",
            "channel": "red",
            "obsid": 99999,
            "exp": 1,
        }
    )
    return made


# --- what the figures say ---


def bias_frames(noise: float = 3.1, n: int = 5) -> tuple[ChannelImage, MasterBias, MasterDark]:
    rng = np.random.default_rng(6)
    shape = (2 * AMP_ROWS, 32)
    data = np.zeros(shape, np.float32)
    drift = np.array([[0.1, -0.2]] * (n - 1) + [[0.4, 0.0]])
    master = MasterBias(data, data, np.array([2.87, 3.14]), np.zeros(shape, bool), n, drift, np.zeros((2, 3)))
    frame = ChannelImage(
        rng.normal(size=shape).astype(np.float32) * noise, np.zeros(shape, np.uint8), np.full((shape[0], 1), 3.0)
    )
    return frame, master, MasterDark(np.full(shape, 1e-3, np.float32), np.zeros(shape, bool), 900.0)


def combination(channels=("uv", "orange", "red", "farred"), exposures=2, flux=3e-17, found=True):
    """A combined spectrum and cube of a point source; factors of 1.2 between the exposures."""
    grid = np.arange(3650.0, 10500.0, 3.5)
    rng = np.random.default_rng(12)
    parts, fields = [], []
    for name in channels:
        facts = channel(name)
        wave = np.linspace(facts.wave_min, facts.wave_max, 600)
        positions = facts.fiber_positions()
        path = Refraction(wave[[0, -1]], np.zeros(2), np.zeros(2))
        share = lenslet_fractions(positions, *(np.full(wave.size, v) for v in (0.5, -0.5, 1.5)), 3.5).T
        sky = np.column_stack([150 + positions[:, 0] / 3600, positions[:, 1] / 3600])
        for exp in range(1, exposures + 1):
            true = flux / 1.2 ** (exp - 1) * np.ones(wave.size)
            error = 0.05 * flux * np.ones(wave.size)
            seen = true + error * rng.normal(size=wave.size)
            one = np.ones(wave.size)
            parts.append(
                Part(name, 7, exp, wave, seen, error, seen, error, one, 1.9 * one, exptime=900.0, night="20250115")
            )
            noise = 1e-18 * rng.normal(size=share.shape)
            fields.append(
                FiberField(
                    parts[-1].name, wave, true * share + noise, np.full(share.shape, 1e-18), positions, sky, path,
                    (0.5, -0.5, float(wave[300])) if found else None, exposure=f"{exp}{facts.arm}", snr=20.0,
                )
            )  # fmt: skip
    return combine_spectra(parts, grid), combine_cubes(fields, grid)
