"""The accuracy of a reduction against the truth of a simulated night, row by row as the project defines it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import median_filter

from panacea_nb.products.assemble import FLUX_UNCERTAINTY_DEFAULT
from panacea_nb.products.layout import Layout
from panacea_nb.simulate import truth

WINDOWS = 12
SKY_LINE = 1.3  # pixels with the sky above this multiple of its running median count as lines
BRIGHT = 20.0  # a point source with more than this many times the sky in its brightest fibre counts as a bright star
FLAT_BINS = 8
BINS = 10


@dataclass
class Score:
    """Numbers of one exposure in one channel; a metric that does not apply is absent."""

    obsid: int
    exp: int
    channel: str
    kind: str
    values: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def robust(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def wavelength_shift(observed, error, true, wave, good) -> dict[str, float]:
    """Weighted mean shift [px] of spectra against the truth, and its scatter over fibres and windows, measuring error taken out.

    Beside them the measuring error of the mean, and what a scatter that is one sigma more than nothing looks like.

    Where single fibres are too faint for a shift, neighbours are summed first, up to 35 of them.
    """
    for group in (1, 7, 35):
        n = observed.shape[0] // group * group
        g = good[:n] & (error[:n] > 0)
        stack = [
            np.where(g, part[:n], 0).reshape(-1, group, wave.size).sum(axis=1) for part in (observed, true, error**2)
        ]
        full = g.reshape(-1, group, wave.size).mean(axis=1) > 0.8
        shifts, weights = window_shifts(stack[0], np.sqrt(stack[2]), stack[1], wave, full)
        if np.median(weights) > 16 or group == 35:  # error below a quarter of a pixel
            break
    keep = weights > 4.0
    if keep.sum() < 6:
        return {"wave_bias": float("nan"), "wave_rms": float("nan")}
    s, w = shifts[keep], weights[keep]
    clip = np.abs(s - np.median(s)) < 5 * np.hypot(robust(s), 1 / np.sqrt(w))
    s, w = s[clip], w[clip]
    mean = float((s * w).sum() / w.sum())
    variance = float((w * ((s - mean) ** 2 - 1.0 / w)).sum() / w.sum())
    return {
        "wave_bias": mean,
        "wave_bias_sigma": float(w.sum() ** -0.5),
        "wave_rms": float(np.sqrt(max(variance, 0.0))),
        # of the variance: (s - mean)^2 scatters by sqrt(2) times its expectation, 1 / w
        "wave_rms_sigma": float(np.sqrt(np.sqrt(2.0 * w.size) / w.sum())),
    }


def window_shifts(observed, error, true, wave, good) -> tuple[np.ndarray, np.ndarray]:
    """Shift [px] and weight of every spectrum in every window; level, amplitude and tilt are free."""
    slope = np.gradient(true, axis=1)
    edges = np.linspace(0, wave.size, WINDOWS + 1).astype(int)
    shifts, weights = [], []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        z = np.linspace(-1, 1, b - a)
        for f in np.flatnonzero(good[:, a:b].mean(axis=1) > 0.8):
            g = good[f, a:b] & (error[f, a:b] > 0)
            w = 1.0 / error[f, a:b][g] ** 2
            design = np.stack([true[f, a:b][g], np.ones(g.sum()), z[g], -slope[f, a:b][g]])
            scale = np.sqrt((design**2 * w).sum(axis=1)) + 1e-300
            cov = np.linalg.pinv((design * w) @ design.T / np.outer(scale, scale), rcond=1e-10)
            solution = cov @ ((design * w) @ observed[f, a:b][g] / scale) / scale
            shifts.append(solution[3])
            weights.append(scale[3] ** 2 / max(cov[3, 3], 1e-12))
    return np.array(shifts), np.array(weights)


def correlation_of(pull: np.ndarray, good: np.ndarray, lag: int) -> float:
    """Correlation of samples (nf, nw) that lie ``lag`` apart along wavelength."""
    both = good[:, lag:] & good[:, :-lag]
    product = float(np.mean(np.clip(pull[:, lag:] * pull[:, :-lag], -9, 9)[both]))
    return product / max(robust(pull[good]), 1e-9) ** 2


def bins_of(size: int, count: int) -> list[slice]:
    edges = np.linspace(0, size, count + 1).astype(int)
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def fiber_flat(observed, sky, sigma, good, positions) -> tuple[np.ndarray, np.ndarray]:
    """Observed / true sky [%] of every fibre beside a degree-2 tilt of the field, and its ideal noise.

    Both have shape (1 + FLAT_BINS, fibres): the whole channel first, then its bins; NaN for fibres that are not blank.
    """
    x, y = positions[:, 0] / 6, positions[:, 1] / 3.5
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    parts = [slice(None), *bins_of(sky.shape[1], FLAT_BINS)]
    rest, noise = np.full((2, len(parts), sky.shape[0]), np.nan)
    for k, part in enumerate(parts):
        ok = good[:, part]
        top, bottom = (np.where(ok, image[:, part], 0).sum(axis=1) for image in (observed, sky))
        variance = np.where(ok, sigma[:, part], 0) ** 2
        take = (ok.mean(axis=1) > 0.8) & (bottom > 0)
        if take.sum() < 40:
            continue
        ratio = top[take] / bottom[take]
        rest[k, take] = 100 * (ratio - basis[take] @ np.linalg.lstsq(basis[take], ratio, rcond=None)[0])
        noise[k, take] = 100 * np.sqrt(variance.sum(axis=1)[take]) / bottom[take]
    return rest, noise


def flat_spread(scores: list[Score]) -> list[tuple[float, float]]:
    """Spread [%] of the fibres' evenness: whole channel; root of the weighted mean square of its bins.  Each with its lowest value.

    An error of the flat is the same in all exposures of a night, so it is what two exposures have in common: the mean
    covariance of pairs, which no noise biases.  It has a scatter, though, of which the lowest value is 2.5 sigma off.
    """
    rest = np.array([s.arrays["flat"] for s in scores])
    pairs = [(i, j) for i in range(len(scores)) for j in range(i)]
    found = np.array([[_covariance(*both) for both in zip(rest[i], rest[j], strict=True)] for i, j in pairs])
    common, sigma = found[..., 0].mean(axis=0), np.sqrt((found[..., 1] ** 2).sum(axis=0)) / len(pairs)
    noise = np.array([np.nanmedian(s.arrays["flat_noise"], axis=1) ** 2 for s in scores])
    sure = 1 / noise.mean(axis=0)[1:] ** 2  # the scatter of a squared spread goes with the square of the noise
    sure /= sure.sum()
    both = (common[0], sigma[0]), (sure @ common[1:], np.sqrt(sure**2 @ sigma[1:] ** 2))
    return [(_root(square), _root(square - 2.5 * error)) for square, error in both]


def _root(square: float) -> float:
    return float(np.sqrt(max(square, 0.0)))


def _covariance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Covariance of two sets of values, and the error that it has if they have none."""
    keep = np.isfinite(first) & np.isfinite(second)
    for values in (first, second):
        keep &= np.abs(values) < 5 * robust(values)
    one, two = first[keep], second[keep]
    return float(np.mean(one * two)), float(np.sqrt(np.mean(one**2) * np.mean(two**2) / one.size))


def level_scatter(score: Score) -> float:
    """Scatter [%] of the fibres' levels in one exposure beyond the ideal noise: flat, row levels and the like together."""
    whole, noise = score.arrays["flat"][0], np.nanmedian(score.arrays["flat_noise"][0])
    return _root(robust(whole) ** 2 - noise**2)


def pair_difference(first: Score, second: Score) -> float:
    """RMS over ten bins of the difference between two exposures of a source, in units of the ideal noise of a bin."""
    use = first.arrays["use"] & second.arrays["use"]
    weight = np.where(use, 1 / (first.arrays["ideal"] ** 2 + second.arrays["ideal"] ** 2), 0)
    difference = np.where(use, first.arrays["flux"] - second.arrays["flux"], 0)
    difference -= np.where(use, first.arrays["model"] - second.arrays["model"], 0)
    independent = np.sqrt(first.values["binning"])
    parts = [p for p in bins_of(use.size, BINS) if weight[p].sum() > 0]
    pulls = [(weight * difference)[p].sum() / np.sqrt(weight[p].sum()) / independent for p in parts]
    return float(np.sqrt(np.mean(np.square(pulls))))


def unknown_scale(header: fits.Header, true: fits.Header) -> float:
    """Measured over true scale where the reduction says that it assumed transparency and mirror area, else 1.

    Without guide frames nobody can know them; all else that is measured then is judged on the true scale.
    """
    if header.get("ABSFERR") != FLUX_UNCERTAINTY_DEFAULT:
        return 1.0
    return float(true["TRANSPAR"]) * float(true["AREA"]) / (float(header["THROUGHP"]) * float(header["MILLUM"]))


def score_exposure(layout: Layout, night_dir: Path, obsid: int, exp: int, channel: str, program: str) -> Score:
    """Compare the multi file of an exposure with its truth."""
    true = truth.load_exposure(night_dir, obsid, exp, channel)
    with fits.open(layout.multi(program, obsid, exp, channel), memmap=False) as hdus:
        observed, sky, skysub, error = (hdus[i].data.astype(float) for i in range(4))
        positions, spectrum, path, header = hdus[5].data, hdus[6].data, hdus[7].data, hdus[0].header.copy()
        cosmics = hdus[12].data.astype(bool)
    known = unknown_scale(header, true.header)
    observed, sky, skysub, error = (image / known for image in (observed, sky, skysub, error))
    spectrum = np.concatenate([spectrum[:1], spectrum[1:] / known])
    score = Score(obsid, exp, channel, str(true.header["KIND"]) if true.has_source else "blank")
    wave = true.wave
    good = (error > 0) & np.isfinite(true.sigma_grid) & (true.sky != 0)
    source = np.where(np.isfinite(true.source), true.source, 0.0)
    share = source.sum(axis=1) / np.maximum(true.sky.sum(axis=1), 1e-300)
    if score.kind == "point" and share.max() > BRIGHT:
        score.kind = "bright"
    alive = good.mean(axis=1) > 0.3
    blank = alive & (
        share <= max(0.01, np.sort(share[alive])[39])
    )  # a bright star leaves no fibre quite without its light
    b = good & blank[:, None]
    rest = np.where(b, (skysub - source) / np.where(b, true.sigma_grid, 1), np.nan)
    v = score.values
    v["exptime"] = float(true.header["EXPTIME"])
    v["binning"] = float(true.header["BINNING"])  # neighbouring samples of the grid that share one read-out pixel
    n = wave.size // 16 * 16
    blocks = rest[blank][:, :n].reshape(int(blank.sum()), -1, 16)
    count = np.isfinite(blocks).sum(axis=2)
    binned = np.where(
        count > 8, np.where(np.isfinite(blocks), blocks, 0).sum(axis=2) / np.sqrt(np.maximum(count, 1)), np.nan
    )
    v["sky_binned"] = robust(binned) / np.sqrt(v["binning"])
    typical = np.median(true.sky[blank], axis=0)
    lines = typical > SKY_LINE * median_filter(typical, 101)
    on = rest[:, lines][np.isfinite(rest[:, lines])]
    v["sky_lines"] = float(np.sqrt(np.mean(np.clip(on, -8, 8) ** 2))) if on.size > 100 else float("nan")
    pull = (skysub - source) / np.where(b, error, 1)
    v["pull"] = robust(pull[b])
    v["correlation"] = correlation_of(pull, b, 1)
    # What a weighted sum over some samples is noisier by than single samples say.
    correlated = 1 + 2 * sum(correlation_of(pull, b, lag) for lag in (1, 2, 3))
    wide = error * np.sqrt(max(correlated, 1.0))
    v.update(wavelength_shift(observed, wide, true.sky + source, wave, good))
    residual = np.where(b, skysub - source, 0.0)
    for name, part in (("sky_bias", ~lines), ("sky_bias_lines", lines)):
        total = np.where(b, true.sky, 0)[:, part].sum()
        v[name] = 100 * float(residual[:, part].sum() / total) if total > 0 else float("nan")
        noise = np.sqrt(v["binning"] * np.square(np.where(b, true.sigma_grid, 0)[:, part]).sum())
        v[f"{name}_sigma"] = 100 * float(noise / total) if total > 0 else float("nan")
    v["sky_ratio"] = float(np.median((observed - source)[b] / true.sky[b]))
    flat = fiber_flat(observed - source, true.sky, np.sqrt(v["binning"]) * true.sigma_grid, b, positions[:, :2])
    score.arrays["flat"], score.arrays["flat_noise"] = flat
    v["levels"] = level_scatter(score)
    # cosmic rays: samples that are off the truth and not flagged; clean samples that are flagged
    far = good & ((observed - true.sky - source) > 8 * np.hypot(true.sigma_grid, 0.05 * source + 0.02 * true.sky))
    v["cosmics_left"] = float(far.sum())
    v["flagged_clean"] = 100 * float(flagged_clean(true, error, layout, channel, night_dir))
    v["cosmic_pixels"] = float(cosmics.sum())
    if true.has_source and score.kind != "galaxy":
        point_source(score, true, spectrum, path, header, source)
    elif score.kind == "galaxy":
        galaxy(score, true, skysub, source, good)
    return score


def flagged_clean(true, error, layout, channel, night_dir) -> float:
    """Share of the elements without a cosmic ray near that are flagged, fibres' ends and dead fibres left out."""
    calibration = truth.load_channel(night_dir, channel)
    hit = true.cosmic_mask(5.0)
    near = np.zeros(calibration.trace.shape, bool)
    columns = np.arange(hit.shape[1])
    centre = np.round(calibration.trace).astype(int)
    for k in range(-6, 7):
        near |= hit[np.clip(centre + k, 0, hit.shape[0] - 1), columns]
    for _ in range(6):
        near[:, 1:] |= near[:, :-1]
        near[:, :-1] |= near[:, 1:]
    wave, grid = calibration.wavelength, true.wave
    inside = np.zeros(error.shape, bool)
    near_grid = np.zeros(error.shape, bool)
    for f in np.flatnonzero(~calibration.dead):
        x = np.interp(grid, wave[f], columns)
        near_grid[f] = near[f, np.round(x).astype(int)]
        inside[f] = (grid > wave[f, 4]) & (grid < wave[f, -5])
    clean = inside & ~near_grid
    return float((error[clean] <= 0).mean())


def point_source(score: Score, true, spectrum, path, header, source) -> None:
    """Flux, trend, noise, position and emission lines of a point source."""
    v = score.values
    wave, flux, error = spectrum[0], spectrum[1], spectrum[3]
    model = np.asarray(true.spectrum["flux"], float)
    # Ideal noise of an extraction with the true PSF, from the true shares of light
    share = source / np.where(model > 0, model, np.inf)
    ok = np.isfinite(true.sigma_grid) & (true.sigma_grid > 0)
    ideal = 1 / np.sqrt(np.where(ok, share**2 / np.where(ok, true.sigma_grid, 1) ** 2, 0).sum(axis=0))
    use = (error > 0) & np.isfinite(ideal) & (model > 0)
    v["flux"] = float(np.median(flux[use] / model[use]))
    total = float(np.sqrt(((model[use] / ideal[use]) ** 2).sum() / v["binning"]))  # S/N of an ideal extraction
    v["flux_sigma"] = 1.25 / total  # of a median
    means, noise = [], []
    for part in bins_of(wave.size, BINS):
        g = np.zeros(wave.size, bool)
        g[part] = use[part]
        if not g.any():
            continue
        w = 1 / ideal[g] ** 2
        means.append((w * flux[g] * model[g]).sum() / (w * model[g] ** 2).sum())
        noise.append(1 / np.sqrt((w * model[g] ** 2).sum()))
    means, noise = np.array(means), np.array(noise)
    noise *= np.sqrt(v["binning"])
    rng = np.random.default_rng(0)
    ranges = np.ptp(rng.normal(size=(400, means.size)) * noise, axis=1)
    expected = np.mean(ranges)
    v["trend"] = 100 * float(np.sqrt(max(0.0, np.ptp(means) ** 2 - expected**2)))
    # what a range that is one sigma wider than expected gives, per sigma at 2.5 of them
    v["trend_sigma"] = 100 * float(np.sqrt((expected + 2.5 * np.std(ranges)) ** 2 - expected**2)) / 2.5
    smooth = median_filter(flux - model, 101)
    rest = flux - model - smooth
    v["noise"] = robust((rest / ideal)[use])
    pull = (rest / np.where(error > 0, error, 1))[use]
    v["noise_error"] = robust(pull)
    # A robust spread of n samples is known to 1.17 / sqrt(n) of itself, less well where neighbours go together.
    unit = pull / max(v["noise_error"], 1e-9)
    together = 1 + 2 * sum(np.mean(np.clip(unit[k:] * unit[:-k], -9, 9)) ** 2 for k in (1, 2, 3))
    v["noise_sigma"] = v["noise"] * 1.17 * float(np.sqrt(together / max(pull.size, 1)))
    v["noise_error_sigma"] = v["noise_error"] * v["noise_sigma"] / max(v["noise"], 1e-9)
    if "SOURCEX" in header:
        (w, x, y), at = path, header["SOURCEW"]
        tx, ty = (np.interp(at, wave, np.asarray(true.spectrum[n], float)) for n in ("x", "y"))
        v["position_mid"] = float(np.hypot(header["SOURCEX"] - tx, header["SOURCEY"] - ty))
        v["position_mid_sigma"] = 0.6 * float(true.header["SEEING"]) / total  # of a centroid over the sky, each coordinate
        px = header["SOURCEX"] + np.interp(wave, w, x) - np.interp(at, w, x)
        py = header["SOURCEY"] + np.interp(wave, w, y) - np.interp(at, w, y)
        off = px - np.asarray(true.spectrum["x"], float), py - np.asarray(true.spectrum["y"], float)
        v["position_path"] = float(np.hypot(np.std(off[0]), np.std(off[1])))
    for k, line in enumerate(true.lines):
        half = 3 * float(line["sigma"]) if float(line["sigma"]) > 0 else 6.0
        lsf = 2.0 * (wave[1] - wave[0])
        half = max(half, 3 * lsf)
        inside = (np.abs(wave - line["wavelength"]) < half) & use
        beside = (np.abs(wave - line["wavelength"]) < 4 * half) & (np.abs(wave - line["wavelength"]) > 1.3 * half) & use
        if inside.sum() < 4 or beside.sum() < 8:
            continue
        step = wave[1] - wave[0]
        # the line above a straight continuum is a weighted sum of the samples, so its noise follows from theirs
        z = np.stack([np.ones_like(wave), (wave - line["wavelength"]) / half])
        weight = np.where(inside, step, 0.0)
        fit = np.linalg.solve(z[:, beside] @ z[:, beside].T, z @ weight)
        weight[beside] -= fit @ z[:, beside]
        got, want = (float((weight * np.where(use, s, 0)).sum()) for s in (flux, model))
        v[f"line{k}"] = got / want
        v[f"line{k}_sigma"] = float(np.sqrt(v["binning"] * ((weight * np.where(use, ideal, 0)) ** 2).sum())) / want
    score.arrays.update(flux=flux, ideal=ideal, model=model, use=use)


def galaxy(score: Score, true, skysub, source, good) -> None:
    """Line flux of an extended object over all its fibres."""
    v = score.values
    wave = true.wave
    bright = source.sum(axis=1) > 0.1 * source.sum(axis=1).max()
    for k, line in enumerate(true.lines):
        half = max(3 * float(line["sigma"]), 6 * (wave[1] - wave[0]))
        inside = np.abs(wave - line["wavelength"]) < half
        beside = (np.abs(wave - line["wavelength"]) < 4 * half) & ~(np.abs(wave - line["wavelength"]) < 1.3 * half)
        if inside.sum() < 4 or beside.sum() < 8:
            continue

        def measure(s, inside=inside, beside=beside):
            total = np.where(good, s, 0)[bright].sum(axis=0)
            fit = np.polyfit(wave[beside], total[beside], 1)
            return float((total - np.polyval(fit, wave))[inside].sum())

        want = measure(np.where(good, source, 0))
        v[f"galaxy_line{k}"] = measure(skysub) / want
        noise = np.where(good & bright[:, None], true.sigma_grid, 0)[:, inside]
        v[f"galaxy_line{k}_sigma"] = float(np.sqrt(v["binning"] * np.square(noise).sum())) / want
    v["galaxy_flux"] = float(np.where(good, skysub, 0)[bright].sum() / np.where(good, source, 0)[bright].sum())
