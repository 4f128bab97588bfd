"""After warming up nothing is compiled any more, whatever a reduction does."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from reduce_factory import expose, fiber_model, nothing, paint, read_noise, rows_of, traces

PROGRAM = """
import numpy as np, test_reduce_warmup
from panacea_nb.reduce.warmup import compiled, warm_up
warm_up()
before = compiled()
test_reduce_warmup.reduce_something()
after = compiled()
assert sum(before.values()) >= 8, before
assert after == before, {name: (before[name], n) for name, n in after.items() if n != before[name]}
"""


def reduce_something() -> None:
    """The steps of a reduction that run compiled code, on arrays as they come: read-only, turned, of other types."""
    from panacea_nb.reduce.cosmics import find_tracks
    from panacea_nb.reduce.extract import extract, trace_offsets
    from panacea_nb.reduce.flexure import row_flexure
    from panacea_nb.reduce.psf import lenslet_fractions
    from panacea_nb.reduce.rowlevel import row_levels
    from panacea_nb.reduce.spline import fit_common

    trace = traces(20, 200)
    light = np.full(trace.shape, 500.0)
    image = expose(np.random.default_rng(1), paint(trace, light, rows_of(trace)))
    model = fiber_model(np.asfortranarray(trace))
    model.alive.flags.writeable = False
    turned = np.asfortranarray(image).astype(float)
    turned.flags.writeable = False
    bad = nothing(image)
    bad.flags.writeable = False
    result = extract(turned, np.float64(3.0), bad.T.copy().T, model, start=turned)
    trace_offsets(turned, read_noise(image).astype(float), bad, model, result, 40)
    wander = np.full((2, 3), 0.1)
    row_levels(turned, read_noise(image), bad, model, result.model.astype(float), wander)
    tracks = find_tracks(turned, read_noise(image), bad, model, 0 * turned)
    row_flexure(turned, read_noise(image), bad, model, light=tracks.extraction.amplitude.astype(float))
    wave = np.broadcast_to(np.linspace(0, 100, 200, dtype=np.float32), (3, 200))
    spectrum = fit_common(wave, np.ones((3, 200), np.float32), np.ones(200), step=1.0)
    spectrum(wave[:, ::2], np.float32(0.1))
    spectrum.derivatives(wave[0])
    position = np.stack([np.zeros(3), np.ones(3)], axis=1, dtype=np.float32)
    lenslet_fractions(
        position, position[:, 0], position[:, 1], np.float64(1.5), np.float64(3.0), shear=(np.float64(0.1), 0)
    )


def test_nothing_is_compiled_after_warming_up():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=__file__.rpartition("/")[0], check=False
    )
    assert done.returncode == 0, done.stderr
