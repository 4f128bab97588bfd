"""The accuracy of a whole reduction, row by row and channel by channel, against the truth of a simulated night.

Limits are the looser of what the public pipeline v1.0.1 reaches at its worst and the project's goal, as the issue of first light
asks; `make benchmark` holds the goals themselves.
"""

from __future__ import annotations

import numpy as np
import pytest
from scoring import Score, score_exposure

from panacea_nb.instrument import CHANNELS
from panacea_nb.products import nightly
from panacea_nb.simulate import truth

pytestmark = pytest.mark.slow

# channel: limit.  Panacea's worst of two nights, or the goal where that is looser.
WAVE_BIAS = {"uv": 0.15, "orange": 0.18, "red": 0.16, "farred": 0.18}
WAVE_RMS = {"uv": 0.085, "orange": 0.04, "red": 0.022, "farred": 0.025}
SKY_BINNED = {"uv": 1.25, "orange": 1.33, "red": 1.5, "farred": 1.36}
SKY_LINES = {"uv": 1.03, "orange": 1.03, "red": 1.17, "farred": 1.15}
SKY_BIAS = 0.9
SKY_BIAS_LINES = 1.1
STAR_TREND = {"uv": 18.0, "orange": 18.0, "red": 18.0, "farred": 18.0}
FAINT_TREND = {"uv": 79.0, "orange": 79.0, "red": 79.0, "farred": 79.0}
PAIR = {"uv": 7.0, "orange": 15.0, "red": 10.0, "farred": 3.0}
COSMICS_LEFT = {"uv": 11, "orange": 45, "red": 62, "farred": 24}
FLAGGED_CLEAN = 0.23
FLAT_ALL = {"uv": 1.7, "orange": 1.7, "red": 1.7, "farred": 1.7}


@pytest.fixture(scope="module")
def scores(reduced_night) -> dict[str, list[Score]]:
    """Scores of every exposure on its target's IFU, by channel."""
    result: dict[str, list[Score]] = {name: [] for name in CHANNELS}
    for row in nightly.night_table(reduced_night.layout):
        where = (int(row["obsid"]), int(row["exposure"]), str(row["channel"]), str(row["program"]))
        result[where[2]].append(score_exposure(reduced_night.layout, reduced_night.night_dir, *where))
    return result


def of(scores, channel: str, *kinds: str, long: bool = False) -> list[Score]:
    found = [s for s in scores[channel] if s.kind in kinds and (not long or s.values["exptime"] >= 300)]
    assert found, f"no exposure of kind {kinds} in {channel}"
    return found


def mean_abs(items: list[Score], name: str) -> float:
    return float(np.mean([abs(s.values[name]) for s in items]))


each_channel = pytest.mark.parametrize("channel", list(CHANNELS))


@each_channel
def test_every_exposure_is_there(scores, channel):
    assert sorted(s.kind for s in scores[channel]) == ["galaxy", "point", "point", "standard"]


@each_channel
def test_wavelengths(scores, channel):
    """Science wavelengths against the truth, flexure included."""
    exposures = of(scores, channel, "point", "galaxy", long=True)
    assert mean_abs(exposures, "wave_bias") <= WAVE_BIAS[channel]
    assert np.median([s.values["wave_rms"] for s in exposures]) <= WAVE_RMS[channel]


@each_channel
def test_sky_residuals(scores, channel):
    """Blank fibres in 16-px bins and on sky lines, in units of the ideal noise."""
    exposures = of(scores, channel, "point", "galaxy")
    assert np.mean([s.values["sky_binned"] for s in exposures]) <= SKY_BINNED[channel]
    assert np.mean([s.values["sky_lines"] for s in exposures]) <= SKY_LINES[channel]


@each_channel
def test_sky_bias(scores, channel):
    exposures = of(scores, channel, "point", "galaxy")
    assert mean_abs(exposures, "sky_bias") <= SKY_BIAS
    assert mean_abs(exposures, "sky_bias_lines") <= SKY_BIAS_LINES
    assert np.mean([s.values["sky_ratio"] for s in exposures]) == pytest.approx(1.0, abs=0.03)


@each_channel
def test_errors_are_right(scores, channel):
    """Residual over reported error of blank fibres."""
    for score in of(scores, channel, "point", "galaxy"):
        assert 0.85 <= score.values["pull"] <= 1.15


@each_channel
def test_star(scores, channel):
    (star,) = of(scores, channel, "standard")
    assert star.values["flux"] == pytest.approx(1.0, abs=0.10)
    assert star.values["trend"] <= STAR_TREND[channel]
    assert star.values["noise"] <= 1.4
    assert 0.85 <= star.values["noise_error"] <= 1.15


@each_channel
def test_faint_source(scores, channel):
    faint = of(scores, channel, "point")
    for score in faint:
        assert score.values["flux"] == pytest.approx(1.0, abs=0.10)
        assert score.values["trend"] <= FAINT_TREND[channel]
        assert score.values["noise"] <= 1.4
        assert 0.85 <= score.values["noise_error"] <= 1.15


@each_channel
def test_two_exposures_agree(scores, channel):
    """Two exposures of the same source agree in ten bins of the channel, in units of the ideal noise of a bin."""
    first, second = of(scores, channel, "point")
    use = first.arrays["use"] & second.arrays["use"]
    weight = np.where(use, 1 / (first.arrays["ideal"] ** 2 + second.arrays["ideal"] ** 2), 0)
    difference = np.where(use, first.arrays["flux"] - second.arrays["flux"], 0)
    edges = np.linspace(0, use.size, 11).astype(int)
    parts = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    pulls = [(weight * difference)[p].sum() / np.sqrt(weight[p].sum()) for p in parts]
    assert np.sqrt(np.mean(np.square(pulls))) <= PAIR[channel]


@each_channel
def test_emission_lines(scores, channel):
    """Line fluxes within 3 % + 2.5 sigma of the goal, or Panacea's .57-.82: the looser is .43 low."""
    for score in of(scores, channel, "point"):
        for name in [n for n in score.values if n.startswith("line") and not n.endswith("sigma")]:
            assert abs(score.values[name] - 1) <= max(0.43, 0.03 + 2.5 * score.values[f"{name}_sigma"])


@each_channel
def test_galaxy_keeps_its_line(scores, channel):
    (galaxy,) = of(scores, channel, "galaxy")
    names = [n for n in galaxy.values if n.startswith("galaxy_line") and not n.endswith("sigma")]
    assert names
    for name in names:
        assert galaxy.values[name] == pytest.approx(1.0, abs=0.05)


@each_channel
def test_positions(scores, channel):
    """Panacea misses by .03-.13 arcsec along the path and .04-.24 in the middle."""
    for score in of(scores, channel, "point", "standard"):
        assert score.values["position_path"] <= 0.13
        assert score.values["position_mid"] <= 0.24


@each_channel
def test_cosmic_rays(scores, channel):
    exposures = scores[channel]
    assert max(s.values["cosmics_left"] for s in exposures) <= COSMICS_LEFT[channel]
    assert max(s.values["flagged_clean"] for s in exposures) <= FLAGGED_CLEAN


@each_channel
def test_fibre_flat(reduced_night, channel):
    """Throughput against the truth beside a degree-2 tilt of the field, which a twilight cannot tell from the sky's."""
    from panacea_nb.products import bundle

    true = truth.load_channel(reduced_night.night_dir, channel)
    alive = ~true.dead
    got = bundle.read(reduced_night.layout.work("04_flat", channel), "throughput")["throughput"]
    positions = CHANNELS[channel].fiber_positions()[alive]
    x, y = positions[:, 0] / 6, positions[:, 1] / 3.5
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    ratio = (got[alive] / true.throughput[alive]).mean(axis=1)
    rest = ratio - basis @ np.linalg.lstsq(basis, ratio, rcond=None)[0]
    assert 100 * np.std(rest) <= FLAT_ALL[channel]
