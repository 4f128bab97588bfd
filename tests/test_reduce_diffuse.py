"""Lines of nebulae: neither sky nor a source's."""

import numpy as np
import pytest
from field_factory import ALIVE, LSF, MIDDLE, NF, NX, PATH, POSITIONS, THROUGHPUT, UNIT, WAVE, observe, share_of

from panacea_nb.reduce.fieldmodel import model_field

LINE = np.exp(-0.5 * ((WAVE - 5140.0) / 1.9) ** 2)


def run(data, variance):
    return model_field(
        data, variance, np.zeros((NF, NX), np.uint8), WAVE, LSF, THROUGHPUT, POSITIONS, ALIVE, PATH, MIDDLE
    )


def filament(width: float = 1.2) -> np.ndarray:
    """Brightness (nf, 1) of a filament across the field, with faint outskirts."""
    x, y = POSITIONS.T
    return np.exp(-0.5 * ((0.4 * x + 0.9 * y) / width) ** 2)[:, None]


def line_flux(model, data, weight):
    """Light of the line in the fibres that ``weight`` (nf, 1) picks."""
    rest = data - model.sky.native()
    near = np.abs(WAVE - 5140.0) < 6.0
    return (rest * near * weight)[ALIVE].sum()


def test_a_filament_of_line_emission_is_not_taken_for_sky():
    """Lines of S/N 8 per fibre, no continuum; where all fibres were sky, the sky had a quarter of the light."""
    nebula = 25.0 * filament() * LINE * UNIT
    bright, faint = filament() > 0.5, (filament() > 0.1) & (filament() < 0.5)
    found = []
    for seed in range(4):
        data, variance, _ = observe(np.random.default_rng(seed), nebula / UNIT)
        model = run(data, variance)
        assert [d.code for d in model.decisions].count("DIFFUSE") == 1
        found.append([line_flux(model, data, part) / (nebula * part)[ALIVE].sum() for part in (bright, faint)])
    # A sky of a hundred dark fibres has an error that all fibres share: seven per cent of the outskirts' light.
    mean = np.mean(found, axis=0)
    assert mean[0] == pytest.approx(1.0, abs=0.05)
    assert mean[1] == pytest.approx(1.0, abs=0.15)


def test_a_field_of_sky_has_no_diffuse_lines():
    for seed in range(3):
        data, variance, _ = observe(np.random.default_rng(100 + seed))
        assert "DIFFUSE" not in [d.code for d in run(data, variance).decisions]


def test_sky_lines_that_the_model_misses_along_the_slit_are_no_nebula():
    """Widths of lines along the slit that the model does not have: alike in neighbours on the chip, which are so in the field."""
    data, variance, _ = observe(np.random.default_rng(7), factor=1.0 + 0.01 * np.sin(np.arange(NF) / 9.0)[:, None])
    assert "DIFFUSE" not in [d.code for d in run(data, variance).decisions]


def test_a_star_with_a_line_is_no_nebula():
    light = share_of(0.6, -0.4) * (2000.0 + 8000.0 * LINE)
    data, variance, _ = observe(np.random.default_rng(8), light)
    model = run(data, variance)
    assert "DIFFUSE" not in [d.code for d in model.decisions]
    assert model.source_native.sum() == pytest.approx((light * UNIT * ALIVE[:, None]).sum(), rel=0.02)
