"""One science frame: row flexure, scattered light, cosmic rays, extraction, wavelength zero."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..decisions import Decision
from .arrays import fill_gaps
from .cosmics import find_spikes, find_tracks, mask_spikes, narrowest, smooth_source, still_above
from .extract import MIN_USED, Extraction, FiberModel, extract
from .flexure import RowFlexure, row_flexure
from .focus import focused_levels
from .maskbits import DQ
from .ramp import amplifier_ramps, ramp_decision
from .scatter import ScatterModel, held, scattered_light
from .sky import SkyError, SkyModel, fit_sky
from .wavezero import WavelengthZero, corrected_wavelength, zero_from_lines, zero_from_template

CHI_STRIDE = 4  # columns: a million pixels give a robust RMS to a part in a thousand
FAR_SHIFT = 0.5  # px across dispersion, from which cosmic rays are looked for anew
TOLD_FOCUS = 0.003  # relative change of the profiles' width that is worth a word


@dataclass(frozen=True)
class ScienceExtraction:
    """Attributes
    ----------
    extraction : Extraction
    mask : (nf, nx) uint8, `DQ` bits of the samples
    model : FiberModel, traces moved by the row flexure
    flexure : RowFlexure
    background : (ny, nx) float32, scattered light and pedestal [e-]
    cosmics : (ny, nx) bool
    wavelength : (nf, nx) [A], corrected for column flexure
    sky : SkyModel of the last round (None when no sky could be fitted)
    zero : WavelengthZero (None likewise)
    chi : float, robust RMS of lit pixels about the model in units of their noise
    decisions : list of Decision
    """

    extraction: Extraction
    mask: np.ndarray
    model: FiberModel
    flexure: RowFlexure
    background: np.ndarray
    cosmics: np.ndarray
    wavelength: np.ndarray
    sky: SkyModel | None
    zero: WavelengthZero | None
    chi: float
    decisions: list[Decision] = field(default_factory=list)


def zero_of(sky: SkyModel, lines: np.ndarray, lsf_sigma, templates=None, response=None, arcs=None) -> WavelengthZero:
    """Wavelength zero from sky lines, or from templates where the channel has none.

    ``templates`` is (wavelength, spectra) for `zero_from_template`; ``arcs`` see `zero_from_lines`.
    """
    if lines.size >= 3:
        return zero_from_lines(sky, lines, lsf_sigma, response, arcs)
    if templates is None:
        return WavelengthZero(0.0, 0.0, np.inf, False, 0, np.zeros(0), np.zeros(0), np.zeros(0))
    return zero_from_template(sky, *templates)


def reference_sigma(wavelength: np.ndarray, lsf: np.ndarray, alive: np.ndarray):
    """Function of wavelength: Gaussian sigma [A] of the reference line width of sky models."""
    centre = np.median(wavelength[alive], axis=0)
    low = np.percentile((lsf * np.gradient(wavelength, axis=1))[alive], 20, axis=0)
    fit = np.polynomial.Polynomial.fit(centre, low, 3)
    return lambda wave: fit(np.clip(wave, centre[0], centre[-1]))


def extract_exposure(
    image: np.ndarray,
    mask: np.ndarray,
    noise: np.ndarray,
    bad: np.ndarray,
    model: FiberModel,
    scatter: ScatterModel,
    wavelength: np.ndarray,
    lsf: np.ndarray,
    throughput: np.ndarray,
    positions: np.ndarray,
    *,
    sky_lines: np.ndarray,
    wander: np.ndarray,
    flat_error: np.ndarray,
    shares: np.ndarray | None = None,
    templates=None,
    response=None,
    arcs: np.ndarray | None = None,
    marked: tuple[np.ndarray, np.ndarray] | None = None,
    rounds: int = 2,
) -> ScienceExtraction:
    """Extract a science frame.

    Parameters
    ----------
    image : (ny, nx) float32 [e-], bias and dark subtracted, divided by the pixel flat
    mask : (ny, nx) uint8 `DQ` bits of the frame; bad : (ny, nx) bool of the calibrations
    noise : (ny, 1) [e-]
    wavelength, lsf, throughput : (nf, nx) of the calibrations
    positions : (nf, 2) [arcsec]
    wander : (2, 3), see `rowlevel.row_levels`
    flat_error : (nx,), relative error of the pixel flat: it limits bright stars, and counts in weights and variances
    shares : see `ramp.level_shares`
    sky_lines : (n,) [A]; templates : see `zero_of`; response, arcs : see `zero_from_lines`
    marked : (ny, nx) bool twice, optional
        Pixels that are hit by cosmic rays, and pixels that are not, by hand.
    rounds : int
        Rounds of sky prediction and cosmic rays.
    """
    decisions: list[Decision] = []
    bad = bad | ((mask & (DQ.SATURATED | DQ.BADPIXEL)) > 0)
    first = find_tracks(image, noise, bad, model, None, rounds=2)
    flexure, moved, rough = row_flexure(image, noise, bad | first.mask, model, light=first.extraction.amplitude)
    if abs(flexure.coef[0]) > FAR_SHIFT:
        # So far from where they were, one flank of the fibres was taken for cosmic rays.
        first = find_tracks(image, noise, bad, moved, None, rounds=2)
        flexure, moved, rough = row_flexure(image, noise, bad | first.mask, model, light=first.extraction.amplitude)
    if not flexure.converged:
        text = (
            "how far the fibres have moved on the chip since the twilights or flats could not be measured surely, so some of their "
            "light may be lost: look at Flexure in the notebook of 05_extract"
        )
        decisions.append(Decision("ROWFLEX", text, "warn"))
    # A sample of which nearly all is masked can have any value, and would scatter light over the whole frame.
    light = fill_gaps(rough.amplitude, (rough.used > MIN_USED) & model.alive[:, None])
    background = scattered_light(scatter, moved.image(light, image.shape[0]), held(model, image.shape[0]))
    # The first look knew of no scattered light, and took it for cosmic rays where no fibre is: between groups of fibres.
    hit = still_above(first.mask, image, noise, np.maximum(rough.model, background))
    found = focused_levels(image - background, noise, bad | hit, moved, light, rough.model, wander)
    levels, moved, change, sure = found
    if abs(change) > max(TOLD_FOCUS, 3 * sure):
        how = "wider" if change > 0 else "narrower"
        text = f"the fibres' profiles are {100 * abs(change):.1f} % {how} than in the flats, as the focus makes them: fitted so"
        decisions.append(Decision("FOCUS", text, "info"))
    background = background + levels
    tracks = find_tracks(image, noise, bad, moved, background)
    cosmics, result = with_marks(tracks.mask, marked), tracks.extraction
    ramps = amplifier_ramps(image - background, noise, bad | cosmics, moved, result.model, shares)
    if ramps is not None:
        background = background + np.repeat(ramps, image.shape[0] // 2, axis=0)
        decisions += ramp_decision(ramps)
    if marked is not None or ramps is not None:
        result = extract(image, noise, bad | cosmics, moved, background=background, light=result.amplitude)
    floor = np.broadcast_to(np.asarray(noise, np.float32) ** 2, image.shape)
    sky, zero, waves = None, None, wavelength
    line = narrowest(lsf, model.alive)
    for turn in range(rounds):
        good = (result.used > MIN_USED) & model.alive[:, None]
        try:
            sky = fit_sky(
                result.amplitude,
                result.variance,
                good,
                wavelength,
                lsf,
                throughput,
                positions,
                model.alive,
                start=sky,
                rounds=2 if turn else 3,
            )
        except (SkyError, np.linalg.LinAlgError) as error:
            why = str(error) if isinstance(error, SkyError) else "its equations have no solution"
            text = (
                f"the sky could not be fitted ({why}): cosmic rays are found less well, and wavelengths may be those of the arcs, "
                "off by the flexure since (0.1-0.3 px)"
            )
            decisions.append(Decision("NOSKYFIT", text, "warn"))
            break
        native = sky.native()
        error = np.sqrt(np.maximum(result.variance, 0))
        likely, sure = smooth_source(result.amplitude - native, error, good, lsf_sigma=line)
        predicted = np.where(model.alive[:, None], np.maximum(native + likely, 0), 0)
        expected = moved.image(predicted, image.shape[0])
        spikes = find_spikes(result.amplitude, result.variance, good, predicted, lsf_sigma=line)
        cosmics = with_marks(cosmics | mask_spikes(spikes, image, expected, floor, background, moved), marked)
        # Weights from the prediction, not from the noisy samples themselves: a weight that knows the noise biases the mean.
        light = np.where(model.alive[:, None], np.maximum(native + sure, 0), 0)
        uncertain = np.sqrt(floor + (np.asarray(flat_error, np.float32) * expected) ** 2)
        result = extract(image, uncertain, bad | cosmics, moved, background=background, light=light)
    if sky is not None:
        zero = zero_of(sky, sky_lines, reference_sigma(wavelength, lsf, model.alive), templates, response, arcs)
        waves = corrected_wavelength(sky, zero)
        if zero.used and zero.bend.size:
            decisions.append(bend_decision(zero, float(np.median(np.gradient(wavelength, axis=1)))))
        if not zero.used:
            known = f"error {zero.error:.3f} A" if np.isfinite(zero.error) else "no line to measure it on"
            text = (
                f"the sky of this exposure gives no sure zero point of the wavelengths ({known}): that of the arcs is kept, which "
                "may be off by the flexure since (0.1-0.3 px): compare with the other exposures of the night"
            )
            decisions.append(Decision("NOWAVEZERO", text, "warn"))
    samples = np.zeros(result.amplitude.shape, np.uint8)
    samples[~model.alive] |= np.uint8(DQ.DEADFIBER)
    samples[(result.used <= MIN_USED) & model.alive[:, None]] |= np.uint8(DQ.LOSTWEIGHT)
    samples |= hit_samples(cosmics, moved, np.uint8(DQ.COSMIC))
    samples |= hit_samples((mask & DQ.SATURATED) > 0, moved, np.uint8(DQ.SATURATED))
    model_image = result.model + background
    some = (slice(None), slice(None, None, CHI_STRIDE))
    expected, variance = model_image[some], floor[some]
    lit = (result.model[some] > np.sqrt(0.09 * variance)) & ~bad[some] & ~cosmics[some]
    pull = (image[some] - expected)[lit] / np.sqrt(variance[lit] + np.maximum(expected[lit], 0))
    chi = 1.4826 * float(np.median(np.abs(pull))) if pull.size else float("nan")
    return ScienceExtraction(
        result, samples, moved, flexure, background.astype(np.float32), cosmics, waves, sky, zero, chi, decisions
    )


def bend_decision(zero: WavelengthZero, pixel: float) -> Decision:
    """What is said of a bend of the wavelengths that the sky's lines show; ``pixel`` [A]."""
    bend = zero.offset(zero.grid) - zero.shift - zero.slope * np.linspace(-1, 1, zero.grid.size)
    worst = int(np.argmax(np.abs(bend)))
    text = (
        f"between and beyond the arc lines the wavelengths were off by up to {abs(bend[worst]) / pixel:.2f} px (at "
        f"{zero.grid[worst]:.0f} A), as the sky's lines show: corrected in this exposure, to a tenth or two, as well as the lines "
        "are known; exposures with too little sky keep the arcs'"
    )
    return Decision("WAVEBEND", text, "warn")


def with_marks(cosmics: np.ndarray, marked: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Cosmic rays (ny, nx) bool as found, with what was marked by hand as hit and as not hit."""
    return cosmics if marked is None else (cosmics | marked[0]) & ~marked[1]


def hit_samples(pixels: np.ndarray, model: FiberModel, bit: np.uint8) -> np.ndarray:
    """Samples (nf, nx) uint8 that have one of the marked pixels within two rows of their centre."""
    ny = pixels.shape[0]
    columns = np.arange(pixels.shape[1])
    hit = np.zeros(model.trace.shape, bool)
    centre = np.round(model.trace).astype(int)
    for k in range(-2, 3):
        row = np.clip(centre + k, 0, ny - 1)
        hit |= pixels[row, columns]
    return np.where(hit & model.alive[:, None], bit, np.uint8(0))
