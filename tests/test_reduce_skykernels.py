"""The compiled parts of the sky fit do what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from panacea_nb.reduce.skykernels import SHIFT_TERMS, WIDTH_TERMS, compare, slit_equations, slit_field

NF, NX = 12, 90
RNG = np.random.default_rng(900)


def test_outliers_are_single_samples_and_runs():
    model = RNG.uniform(50, 500, (NF, NX))
    variance = RNG.uniform(20, 80, (NF, NX))
    data = model + np.sqrt(variance) * RNG.normal(size=model.shape)
    data[3, 40] += 100.0  # one sample
    data[5, 0:5] += 2.2 * np.sqrt(variance[5, 0:5])  # a run at the end of the detector
    data[7, 60:65] -= 2.2 * np.sqrt(variance[7, 60:65])  # a hole is no line
    usable = RNG.random((NF, NX)) > 0.05
    z, clipped = np.empty((NF, NX)), np.zeros((NF, NX), bool)
    compare(data, model, variance, usable, 0.01, 4.5, 3.5, z, clipped)
    expected = np.where(usable, (data - model) / np.sqrt(variance + (0.01 * model) ** 2), 0.0)
    assert z == pytest.approx(expected, rel=1e-12)
    run = uniform_filter1d(np.clip(expected, -6, 6), 5, axis=1) * np.sqrt(5)
    assert np.array_equal(clipped, (np.abs(expected) > 4.5) | (run > 3.5))
    assert clipped[3, 40] == usable[3, 40]
    assert not clipped[7, 60:65].any()


def test_equations_of_shift_and_width_are_those_of_the_full_design():
    slope, curve, rest = (RNG.normal(size=(NF, NX)) for _ in range(3))
    px, factor, weight = (RNG.uniform(0.5, 2.0, (NF, NX)) for _ in range(3))
    weight[RNG.random((NF, NX)) < 0.2] = 0.0
    f, x = np.linspace(-1, 1, NF), np.linspace(-1, 1, NX)
    normal, rhs = slit_equations(slope, curve, px, factor, weight, rest, f, x)
    shifts, widths = ([slit_field(np.eye(len(t))[k], t, f, x) for k in range(len(t))] for t in (SHIFT_TERMS, WIDTH_TERMS))
    assert shifts[2] == pytest.approx(np.repeat(1.5 * f[:, None] ** 2 - 0.5, NX, axis=1))
    assert shifts[3] == pytest.approx(f[:, None] * (1.5 * x**2 - 0.5))
    design = np.concatenate(
        [np.stack(shifts) * slope * px * factor, np.stack(widths) * 0.5 * curve * px**2 * factor]
    ).reshape(len(rhs), -1)
    assert normal == pytest.approx((design * weight.ravel()) @ design.T, rel=1e-9)
    assert rhs == pytest.approx((design * weight.ravel()) @ rest.ravel(), rel=1e-9)
