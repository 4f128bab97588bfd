"""Sky and source of a field together: each is measured on what the other leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..decisions import Decision
from .companion import companion_decision, expected_one, find_companion, to_dict
from .cosmics import field_neighbours, find_lonely, find_spikes, narrowest, smooth_source
from .diffuse import diffuse_decision, lines_of_object, lit_samples
from .flat import knot_step, reference_variance
from .maskbits import DQ, UNUSABLE
from .refraction import Refraction
from .sky import FLAT_ERROR, SkyModel, fit_sky
from .skytilt import local_scatter
from .source import MIN_BETA, PointSource, find_source, is_wide, misfit, source_shapes, surprise
from .sourceprior import SourcePrior
from .spline import fit_common
from .stray import stray_decision, stray_light

POINT_SHARE = 0.02  # of the sky: a fibre with more light of a point source is not sky (its wings' model errs by a tenth)
DISK_SHARE = 0.06  # the same of an extended object, which leaves few fibres
DISK_ROUNDS = 7  # at most, that sky and an extended object get
SETTLED = 0.0015  # of the sky, by which it may still change then
SURER = 9.0  # by which chi-square must fall where a disk is fitted to what may be a star in bad seeing
STAR_DOUBT, DISK_DOUBT = 0.1, 0.3  # of a source's light, that may differ from its model before it is an outlier
MUCH_LIGHT = 0.025  # of the sky's, that an object may have in the sky fibres without a warning
FAR_TOO_WIDE = 4.0  # sigma beyond the seeing that was expected, from which only what has surely a star's image is one
SURELY_STAR = 1.5  # times its chi-square that of a disk must then be
CLEARLY = 0.85  # of the limits between stars and extended objects
MIN_SKY_FIBERS = 60
SKY_ERROR = 0.03  # of the sky's lines: what their model may be wrong by in a fibre
FTF_SHARE = 0.7  # of the fibres must be sky for a fibre-to-fibre correction from the science frame
FTF_TERMS = 3  # Legendre terms along the channel of that correction


@dataclass(frozen=True)
class FieldModel:
    """Attributes
    ----------
    sky : SkyModel
    source, companion : PointSource or None, the brightest source and a second one
    source_native : (nf, nx) [e- per column], light of both
    search : dict of the last source search (see `find_source`)
    mask : (nf, nx) uint8, with outliers added
    throughput : (nf, nx), corrected where that was asked for
    correction : (nf, nx) or None, factor of the fibre-to-fibre correction
    decisions : list of Decision
    stray : (nf, nx) [e- per column] or None, light that a bright source scatters over the chip, see `stray`
    """

    sky: SkyModel
    source: PointSource | None
    companion: PointSource | None
    source_native: np.ndarray
    search: dict
    mask: np.ndarray
    throughput: np.ndarray
    correction: np.ndarray | None
    decisions: list[Decision] = field(default_factory=list)
    stray: np.ndarray | None = None

    def cleaned(self, amplitude: np.ndarray) -> np.ndarray:
        """Light of the fibres (nf, nx) without what a bright source scatters on them."""
        return amplitude if self.stray is None else amplitude - self.stray

    def profile(self) -> dict:
        """Plain values for other stages and exposures: the sources, and the Moffat exponent of a point source, else NaN."""
        point = self.source is not None and not self.source.extended
        return {
            "beta": self.source.beta if point else float("nan"),
            "beta_error": self.source.error["beta"] if point else float("nan"),
            "source": to_dict(self.source),
            "companion": to_dict(self.companion),
        }


def usable_samples(mask: np.ndarray) -> np.ndarray:
    """(nf, nx) bool: samples whose value may be used.

    A sample touched by a cosmic ray is usable when enough of its profile was not.
    """
    return (mask & UNUSABLE) == 0


def model_field(
    amplitude: np.ndarray,
    variance: np.ndarray,
    mask: np.ndarray,
    wavelength: np.ndarray,
    lsf: np.ndarray,
    throughput: np.ndarray,
    positions: np.ndarray,
    alive: np.ndarray,
    refraction: Refraction,
    wave_ref: float,
    *,
    correct_ftf: bool = False,
    fixed: tuple[float, float] | None = None,
    prior: SourcePrior | None = None,
    rows: np.ndarray | None = None,
    rounds: int = 3,
    sky_fit: Callable[..., SkyModel] = fit_sky,
) -> FieldModel:
    """Fit sky and brightest source in turn, and a second source where there is one.

    The sources' model is subtracted before the sky is fitted, and fibres in which it is bright are left out of the sky, so that
    neither eats the other's light.

    Parameters are those of `fit_sky`; ``fixed`` is a source position given by the user [arcsec at ``wave_ref``];
    ``prior`` is what is expected of the source at ``wave_ref``; ``rows`` (nf,) [px] is where the fibres lie on the chip, for the
    stray light of a bright source, else none is looked for; ``sky_fit`` fits the sky in the way that the user chose, see
    `skychoice.sky_fit`.
    """
    nf, nx = amplitude.shape
    prior = prior or SourcePrior()
    decisions: list[Decision] = []
    good = usable_samples(mask) & (variance > 0)
    mask = mask.copy()
    centre = np.median(wavelength[alive], axis=0)
    neighbours = field_neighbours(positions, alive)
    line = narrowest(lsf, alive)
    source, source_native, exclude, correction = None, np.zeros((nf, nx)), np.zeros(nf, bool), None
    companion, beside = None, np.zeros((nf, nx))
    sky, search, seen, stray = None, {}, amplitude, None
    lit, windows = np.zeros((nf, nx), bool), None
    broad, settled = False, False
    for turn in range(max(rounds + 1, DISK_ROUNDS)):
        # Two sources push each other about, so they get a round more; sky and outskirts of a galaxy settle slowly.
        if turn >= (DISK_ROUNDS if broad and not settled else rounds + (companion is not None)):
            break
        before = sky
        sky = sky_fit(
            seen, variance, good, wavelength, lsf, throughput, positions, alive, source=source_native, exclude=exclude,
            lit=lit, broad=broad, start=sky, rounds=2 if turn else 3,
        )  # fmt: skip
        native = sky.native()
        settled = before is not None and _change(before.native(), native, good) < SETTLED
        rest = seen - native - beside
        unit = sky.factor / sky.gradient[:, None]  # throughput x A per px
        electron = np.where(alive[:, None], 1.0 / np.maximum(unit, 1e-9), 0.0)  # per column
        density = rest * electron
        spread = variance * electron**2
        level = native * electron
        seen_as = (positions, centre, density, spread, level, good, refraction)
        look = partial(find_source, *seen_as, wave_ref=wave_ref, prior=prior, electron=electron)
        source_native = np.zeros((nf, nx))
        settling = broad and turn >= rounds  # it is known what the object is
        if not settling:
            source, search = look(fixed=fixed, systematic=sky.level_scatter)
        if source is None:
            seen, stray = amplitude, None
        disk = None
        if source is not None and fixed is None:
            known = settling or prior.extended or _is_extended(source, broad)
            if known or is_wide(source, prior.point):
                noise = np.sqrt(np.maximum(sky.level_error**2 - FLAT_ERROR**2, 0.0))
                scatter = min(sky.level_scatter, local_scatter(sky.level, noise, sky.fibers, neighbours, FLAT_ERROR))
                disk, found = look(disk=True, systematic=scatter)
                if settling:
                    search = found
                if not known and disk is not None:
                    star, galaxy = (misfit(s, positions, search, refraction) for s in (source, disk))
                    wider = surprise(source, prior.point)
                    far = wider > FAR_TOO_WIDE**2 and galaxy < SURELY_STAR * star
                    disk = disk if far or star + wider > galaxy + SURER else None
        broad = disk is not None
        if broad:
            # The free wings of a Moffat would be taken for sky, or the sky for its wings: galaxies fall off exponentially.
            source = disk
        if source is not None:
            common = (variance, good, sky, lsf, positions, refraction, alive, unit)
            source_native = source_light(source, rest, *common)
            if turn and fixed is None:
                rest = rest + beside
                companion = find_companion(
                    source, source_native * electron, positions, centre, (rest - source_native) * electron, spread, level, good,
                    refraction, systematic=sky.level_scatter, electron=electron,
                )  # fmt: skip
                beside = np.zeros((nf, nx))
                if companion is not None:
                    beside = source_light(companion, rest - source_native, *common)
                    source_native = source_native + beside
            share = _share(source_native, native, good)
            exclude = share > (DISK_SHARE if broad or source.extended else POINT_SHARE)
            if (alive & ~exclude).sum() < MIN_SKY_FIBERS:
                order = np.argsort(np.where(alive, share, np.inf))
                exclude = np.ones(nf, bool)
                exclude[order[:MIN_SKY_FIBERS]] = False
                decisions.append(
                    Decision(
                        "FEWSKY",
                        f"a bright source leaves no clean sky: the {MIN_SKY_FIBERS} fibres with least of it are used",
                        "warn",
                    )
                )
            if rows is not None and turn + 1 < rounds and not source.extended:
                rest = amplitude - native - source_native
                stray = stray_light(rest, variance, good & alive[:, None], source_native, native, rows, positions)
                seen = amplitude if stray is None else amplitude - stray
        # What neither sky nor source explains and no line could be: cosmic rays that the image did not show.
        error = np.sqrt(np.maximum(variance, 1e-9))
        local, _ = smooth_source(seen - native - source_native, error, good, lsf_sigma=line)
        predicted = native + source_native + local
        spikes = find_spikes(seen, variance, good, predicted, lsf_sigma=line)
        sigma = np.sqrt(np.maximum(variance, 1e-6) + (SKY_ERROR * native) ** 2)
        spikes |= find_lonely(seen - native - source_native, sigma, source_native, good, sky.wavelength, neighbours)
        mask[spikes] |= np.uint8(DQ.OUTLIER)
        good = good & ~spikes
        lines = seen - native - source_native
        lit, windows = lit_samples(lines, variance, native, source_native, good, sky.wavelength, neighbours, windows)
        if broad:
            lit |= lines_of_object(source_native, native, good)
        if correct_ftf and turn == 0:
            throughput, correction, decision = correct_throughput(
                seen - source_native, variance, good, sky, throughput, alive
            )
            decisions.append(decision)
    if fixed is None and source is not None:
        source, companion, more = expected_one(source, companion, prior)
        decisions += more
    decisions += sky.decisions + (source.decisions if source is not None else [])
    if broad:
        share = _share(source_native, sky.native(), good)
        decisions.append(_extended_decision(source, float(np.mean(share[sky.fibers]))))
    if companion is not None:
        decisions.append(companion_decision(source, companion))
    if windows is not None:
        decisions += diffuse_decision(lit, windows, sky.wavelength, alive)
    if stray is not None:
        decisions.append(stray_decision(stray, sky.native()))
    decisions = list(dict.fromkeys(decisions))
    return FieldModel(sky, source, companion, source_native, search, mask, throughput, correction, decisions, stray)


def _is_extended(source: PointSource, before: bool) -> bool:
    """Whether a source's image is no star's; what was extended ``before`` must be well within the limits to be one."""
    almost = before and (source.fwhm > CLEARLY * source.widest or source.beta < MIN_BETA / CLEARLY)
    return source.extended or almost


def _extended_decision(source: PointSource, share: float) -> Decision:
    """What is said of an extended object; ``share`` is its light in the sky fibres, of the sky's."""
    text = (
        f"the object is extended (FWHM {source.fwhm:.1f} arcsec): modelled whole, sky from where it is faintest, with "
        f"{100 * share:.1f} % of the sky's light from its outskirts taken out"
    )
    if share < MUCH_LIGHT:
        return Decision("EXTENDED", text, "info")
    text += ", as its model has them: where its shape is another, the sky is off by a part of that: look at what the model leaves, "
    return Decision("EXTENDED", text + "or take the sky from another exposure with --sky_obsid N", "warn")


def _change(before: np.ndarray, now: np.ndarray, good: np.ndarray) -> float:
    """Largest change of the light of a fibre, of two models of the sky (nf, nx)."""
    old, new = (np.where(good, model, 0.0).sum(axis=1) for model in (before, now))
    seen = old > 0
    return float(np.max(np.abs(new[seen] / old[seen] - 1.0))) if seen.any() else 0.0


def _share(source: np.ndarray, sky: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Light of the source over that of the sky in each fibre, summed over the channel."""
    s = np.where(good, source, 0).sum(axis=1)
    return s / np.maximum(np.where(good, sky, 0).sum(axis=1), 1e-9)


def source_light(
    source: PointSource,
    rest: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    sky: SkyModel,
    lsf: np.ndarray,
    positions: np.ndarray,
    refraction: Refraction,
    alive: np.ndarray,
    unit: np.ndarray,
) -> np.ndarray:
    """The source's light in every native sample (nf, nx) [e- per column], lines included.

    Its spectrum is a spline common to all fibres, as the sky's is, seen through the share of its light that each fibre gets.
    """
    shape = source_shapes(source, positions, sky.wavelength, refraction)
    extra, _ = reference_variance(sky.wavelength, lsf, alive)
    near = shape.max(axis=1) > 0.002
    weight = np.where(good & near[:, None] & alive[:, None], 1.0 / np.maximum(variance, 1e-9), 0.0)
    if source.disk:
        # Its core's photons are noisy, but nowhere is the model better: told by the outskirts, the spectrum would run away with the
        # sky's.
        typical = np.median(variance[alive], axis=0)
        weight = np.where(weight > 0, 1.0 / np.maximum(typical, 1e-9), 0.0)
    doubt = DISK_DOUBT if source.disk else STAR_DOUBT
    factor = shape * unit
    step = knot_step(sky.wavelength)
    spectrum = None
    for _ in range(2):
        spectrum = fit_common(
            sky.wavelength, rest, weight, step=step, factor=factor, extra=extra,
            limits=(float(sky.wavelength.min()) - 3, float(sky.wavelength.max()) + 3), stiffness=1e-4,
        )  # fmt: skip
        model = spectrum(sky.wavelength, extra) * factor
        sigma = np.sqrt(np.maximum(variance, 1e-9) + (doubt * model) ** 2)
        weight = np.where(np.abs(rest - model) > 5 * sigma, 0.0, weight)
    return np.where(alive[:, None], model, 0.0)


def correct_throughput(
    data: np.ndarray, variance: np.ndarray, good: np.ndarray, sky: SkyModel, throughput: np.ndarray, alive: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, Decision]:
    """Refine the throughput of the fibres from the sky in the science frame itself (``--correct_ftf``).

    Each fibre's light over the sky model is a low polynomial along the channel, shrunk by its own noise.  Refused where an
    object is so bright that the fibres' levels are not the sky's.
    """
    share = sky.fibers.sum() / alive.sum()
    if share < FTF_SHARE:
        text = f"fibre-to-fibre correction refused: {100 * share:.0f} % of the fibres are sky, {100 * FTF_SHARE:.0f} % needed"
        return throughput, None, Decision("FTFREFUSED", text, "warn")
    model = sky.native()
    nx = data.shape[1]
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, nx), FTF_TERMS - 1)
    weight = np.where(good & alive[:, None], model**2 / np.maximum(variance, 1e-9), 0.0)
    ratio = np.where(weight > 0, data / np.where(np.abs(model) > 1e-9, model, 1.0) - 1.0, 0.0)
    normal = np.einsum("fx,xi,xj->fij", weight, basis, basis) + 1e-9 * np.eye(FTF_TERMS)
    coef = np.linalg.solve(normal, np.einsum("fx,xi->fi", weight * ratio, basis)[..., None])[..., 0]
    noise = np.einsum("fii->fi", np.linalg.inv(normal))
    use = sky.fibers & alive
    real = np.maximum(0.0, (1.4826 * np.median(np.abs(coef[use]), axis=0)) ** 2 - np.median(noise[use], axis=0))
    coef = coef * real / (real + noise + 1e-30)
    coef[~use] = 0.0
    correction = 1.0 + coef @ basis.T
    text = f"throughput refined from the sky of this frame: {100 * np.std(coef[use, 0]):.2f} % RMS over {int(use.sum())} fibres"
    return throughput * correction, correction, Decision("FTFDONE", text, "info")
