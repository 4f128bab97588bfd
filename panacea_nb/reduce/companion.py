"""A second point source in the field: found in what the first one leaves, and told from it in the extraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from ..decisions import Decision
from .optimal import extract_fluxes
from .refraction import Refraction
from .source import SAME_SOURCE, PointSource, find_source, source_shapes
from .sourceprior import ShapePrior, SourcePrior

DETECTION = 8.0  # S/N: what the first source's model leaves is not pure noise
MODEL_ERROR = 0.05  # of the first source's local light: its model may be wrong by that
MIN_RATIO = 0.01  # of the first one's light: less beside a bright star may be what no model of it explains
PARTS = 4  # of the channel, in each of which the two are compared
MIN_SEPARATION = 1.2  # FWHM; closer ones are one source
SAME_SEEING = 0.1  # arcsec: both are seen through the same air
SAME_BETA = 0.1
SAME_OVAL = 0.02  # of the shear


def find_companion(
    first: PointSource,
    light: np.ndarray,
    positions: np.ndarray,
    wave: np.ndarray,
    rest: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    refraction: Refraction,
    *,
    systematic: float,
    electron: np.ndarray | None = None,
) -> PointSource | None:
    """The second source of a field, of the same profile as the first; None when there is none.

    Parameters
    ----------
    first : PointSource; light : (nf, nw), its light
    positions : (nf, 2) [arcsec]; wave : (nw,) [A]
    rest, variance, sky : (nf, nw), what first source and sky leave, its variance, the sky, as in `find_source`
    good : (nf, nw) bool
    systematic, electron : see `chunks.level_shapes`
    """
    if first.extended:
        return None  # its clumps are no sources of their own
    second, search = find_source(
        positions, wave, rest, variance + (MODEL_ERROR * light) ** 2, sky, good, refraction, wave_ref=first.wave_ref,
        prior=same_air(first), systematic=systematic, electron=electron, lines=False,
    )  # fmt: skip
    if second is None or search["best"] < DETECTION:
        return None
    apart = np.hypot(second.x - first.x, second.y - first.y)
    inside = np.min(np.hypot(positions[:, 0] - second.x, positions[:, 1] - second.y)) < 1.0
    bright = _brightest_share(first, second) > MIN_RATIO
    return second if apart > MIN_SEPARATION * first.fwhm and inside and bright else None


def same_air(first: PointSource) -> SourcePrior:
    """What is expected of any other point of light in the field, at the wavelength of the first one's width."""
    shape = ShapePrior((first.beta, SAME_BETA), (first.fwhm, SAME_SEEING), shear=(*first.shear, SAME_OVAL))
    return SourcePrior(shape, path=first.path)


def _brightest_share(first: PointSource, second: PointSource) -> float:
    """Light of the second source over the first one's in that part of the channel where it is highest: colours differ."""
    shares = []
    for part in np.array_split(np.arange(second.chunk_flux.size), min(PARTS, second.chunk_flux.size)):
        weight = 1.0 / np.maximum(second.chunk_error[part], 1e-300) ** 2
        if (weight * second.chunk_flux[part]).sum() > DETECTION / np.sqrt(PARTS) * np.sqrt(weight.sum()):
            shares.append(np.median(second.chunk_flux[part]) / max(float(np.median(first.chunk_flux[part])), 1e-300))
    return float(max(shares, default=0.0))


def expected_one(
    source: PointSource, companion: PointSource | None, prior: SourcePrior
) -> tuple[PointSource, PointSource | None, list[Decision]]:
    """Which of two sources is the one that the arm's other channel shows, where it is known where that stands here.

    Stars of different colours change places as the brightest one: the channels' spectra must be of one of them.

    Returns
    -------
    source, companion, decisions
    """
    if prior.place is None or prior.extended or source.extended:
        return source, companion, []
    x, y, _ = prior.place

    def away(one: PointSource) -> float:
        return float(np.hypot(one.x - x, one.y - y))

    if away(source) < SAME_SOURCE:
        return source, companion, []
    if companion is not None and away(companion) < SAME_SOURCE:
        text = (
            f"the arm's other channel found its source where here the fainter of two stands, {away(source):.1f} arcsec from the "
            "brighter: the spectrum is of the fainter one. --source_x and --source_y choose another"
        )
        return companion, source, [Decision("SAMEPLACE", text, "warn")]
    text = (
        f"the brightest source stands {away(source):.1f} arcsec from where the arm's other channel found its own, where nothing is "
        "seen here: the two spectra may be of two objects. --source_x and --source_y give the place of one"
    )
    return source, companion, [Decision("OTHERPLACE", text, "warn")]


def companion_decision(first: PointSource, second: PointSource) -> Decision:
    """What is said of a second source."""
    apart = np.hypot(second.x - first.x, second.y - first.y)
    return Decision(
        "COMPANION",
        f"another source at s/n {second.snr:.1f}, {apart:.1f} arcsec beside, is modelled too",
        "info",
    )


def to_dict(source: PointSource | None) -> dict | None:
    """A source's place and profile as plain values, with their errors."""
    if source is None:
        return None
    names = ("x", "y", "wave_ref", "fwhm", "exponent", "beta", "snr", "error", "shear", "disk", "path", "widest")
    return {name: value for name, value in asdict(source).items() if name in names}


def at_wavelength(source: PointSource, wave: float, refraction: Refraction) -> PointSource:
    """The same source with its place and width given at another wavelength [A]."""
    dx, dy = source.refracted(refraction).offset(wave, source.wave_ref)
    wider = float((wave / source.wave_ref) ** source.exponent)
    place = {"x": source.x + float(dx), "y": source.y + float(dy), "wave_ref": wave}
    return replace(source, **place, fwhm=wider * source.fwhm, widest=wider * source.widest)


def from_dict(values: dict | None) -> PointSource | None:
    """A source from what `to_dict` has kept."""
    if values is None:
        return None
    nothing = np.zeros(1)
    return PointSource(
        **{**values, "shear": tuple(values["shear"]), "path": tuple(values["path"])},
        fixed=False,
        chi=float("nan"),
        chunk_wave=nothing,
        chunk_flux=nothing,
        chunk_error=nothing,
    )


def light_beside(
    target: PointSource,
    others: Sequence[PointSource],
    positions: np.ndarray,
    wave: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    refraction: Refraction,
) -> np.ndarray:
    """Light (nf, nw) of the sources beside the one that is to be measured, where the profiles of all are known."""
    if not others:
        return np.zeros_like(value)
    shapes = [source_shapes(source, positions, wave, refraction) for source in (target, *others)]
    fluxes = extract_fluxes(shapes, value, variance, good)
    return sum(flux * shape for flux, shape in zip(fluxes[1:], shapes[1:], strict=True))


def told_apart(
    first: PointSource | None, second: PointSource | None, fixed: tuple[float, float] | None
) -> tuple[PointSource | None, list[PointSource], SourcePrior | None]:
    """Which of the known sources is the one to be measured, and which stand beside it.

    Parameters
    ----------
    first, second : what the sky stage found, both given at one wavelength
    fixed : place that the user gave [arcsec], if any

    Returns
    -------
    target : the source to be measured, None where nothing is known of it
    others : sources beside it
    prior : of a target at a place where no known source stands, seen through the same air as those; else None
    """
    if fixed is None or first is None or first.extended:
        return first, [second] if second is not None and fixed is None else [], None
    known = [source for source in (first, second) if source is not None]
    apart = [float(np.hypot(fixed[0] - source.x, fixed[1] - source.y)) for source in known]
    nearest = int(np.argmin(apart))
    if apart[nearest] < MIN_SEPARATION * known[nearest].fwhm:
        return known[nearest], [source for source in known if source is not known[nearest]], None
    return replace(first, x=fixed[0], y=fixed[1], fixed=True), known, same_air(first)
