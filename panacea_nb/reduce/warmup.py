"""Everything that is compiled, compiled or loaded at once.

``python -m panacea_nb.reduce.warmup`` compiles for exactly the types, dimensions and memory layouts that a reduction uses, by
running it on a detector of a few pixels, and leaves the code in numba's cache; the installation does so, and the cache is not
written to afterwards.  In a process that has called `warm_up` nothing is compiled or loaded any more, nor in its forks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import arrays, bias, flat, kernels, psf, rectify, rowlevel, shiftkernels, skykernels, spline, tridiagonal
from .cosmics import find_tracks
from .extract import FiberModel, extract, trace_offsets
from .kernels import N_COEF
from .psf import lenslet_fractions
from .rowlevel import row_levels
from .spline import fit_common
from .trace import fit_profile

MODULES = (arrays, bias, flat, kernels, psf, rectify, rowlevel, shiftkernels, skykernels, spline, tridiagonal)


def warm_up() -> None:
    """Call everything compiled as a reduction does."""
    ny, nx, nf, block = 40, 32, 3, 16
    image = np.ones((ny, nx), np.float32)
    bad = np.zeros((ny, nx), bool)
    trace = np.repeat(np.array([12.0, 19.0, 26.0])[:, None], nx, axis=1)
    coef = np.repeat(np.hanning(N_COEF)[None, None], nf, axis=0).repeat(nx // block, axis=1) / 5.0
    model = FiberModel(trace, coef, block, np.ones(nf, bool))
    for noise in (np.ones((ny, 1), np.float32), np.ones((ny, nx), np.float32)):
        result = extract(image, noise, bad, model, background=0 * image, start=image)
        trace_offsets(image, noise, bad, model, result, block)
        row_levels(image, noise, bad, model, image, np.full((2, 3), 0.1))
    find_tracks(image, np.ones((ny, 1), np.float32), bad, model)
    model.image(result.amplitude, ny)
    fit_profile(image, image, result.amplitude, trace, np.ones(nf), model.alive, 2, block)
    wave = np.repeat(np.linspace(0.0, 100.0, 200)[None], nf, axis=0)
    common = fit_common(wave, np.ones(wave.shape), np.ones(wave.shape), step=1.0, extra=0.1)
    common(wave, 0.1)
    common.derivatives(wave)
    common.variance(wave[0])
    skykernels.compare(wave, wave, wave, wave > 0, 0.01, 4.5, 3.5, wave.copy(), wave > 0)
    skykernels.slit_sums(wave, wave, wave, wave, wave, wave, wave[0])
    arrays.lines_between(trace, trace, image.copy())
    bias.average_row(image, np.float32(1.0), image[0].copy(), image[0].copy())
    flat.convolved_rows(image, flat.gaussian_kernel(1.0))
    rectify.interpolated(wave, *rectify.lanczos_weights(wave, 200))
    one = np.ones(1)
    for disk in (False, True):
        lenslet_fractions(np.zeros((nf, 2)), one, one, one, 3.0, disk=disk)


def compiled() -> dict[str, int]:
    """Number of signatures that each compiled function has in this process."""
    return {name: len(function.signatures) for name, function in functions()}


def compiled_here() -> list[str]:
    """Functions of which this process had to compile something because it was in no cache."""
    return [name for name, function in functions() if sum(function.stats.cache_misses.values())]


def functions() -> Iterator[tuple[str, Any]]:
    """Every compiled function with its full name."""
    for module in MODULES:
        for name, value in vars(module).items():
            if hasattr(value, "signatures") and value.py_func.__module__ == module.__name__:
                yield f"{module.__name__}.{name}", value


if __name__ == "__main__":
    warm_up()
