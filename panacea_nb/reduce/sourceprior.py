"""What is expected of a source before its light is looked at: from the night's standards, and from the channel beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decisions import Decision
from .refraction import path_scale

if TYPE_CHECKING:
    from .refraction import Refraction
    from .source import PointSource

Known = tuple[float, float]  # value and its 1-sigma error

SEEING_EXPONENT = (-0.2, 0.05)  # FWHM ~ wavelength^q: Kolmogorov's q and its scatter
MOFFAT_BETA = (3.5, 0.6)  # prior of the Moffat exponent
BETA_CHANGES = 0.1  # of the exponent from exposure to exposure of a night: telescope and air change little
BETA_ACROSS = 0.05  # of the exponent between two channels in one exposure
BETA_KNOWN = 0.3  # error of a standard's exponent above which it says nothing
SEEING_PRIOR = (1.5, 0.5)  # arcsec; HET's usual image quality
GUIDE_WAVE = 5500.0  # A, about where the guide cameras see
GUIDE_FWHM = 0.2  # relative, by which a point's image in the spectrograph may differ from the guide cameras'
GUIDE_RATIO = (0.6, 1.7)  # of a standard's width to theirs: beyond, they saw something else
GUIDE_CHANGES = 0.1  # the same where the night's standards show how the two compare
OVAL = 0.05  # prior width of the shear of a star's image, which guiding and optics make oval
ELLIPTICITY = 0.3  # the same of extended objects
DISK_STEEPNESS = (1.5, 1.0)  # of extended objects and its prior width: a disk of a scale near that of the seeing
DISK_FWHM = (3.0, 1.5)  # arcsec
DISK_INDEX = (1.0, 0.5)  # Sersic index of extended objects, and the prior width of its logarithm
PAIR_FWHM = 0.02  # relative, by which images in two channels of an arm differ beside the known change with wavelength
PAIR_RATIO = 0.01  # relative, by which the ratio of their widths changes from star to star of a night
PAIR_OVAL = 0.01  # of the shear between two channels in one exposure
PAIR_PLACE = 0.05  # arcsec, by which a source may move between the channels of an arm, from star to star
PATH_CHANGES = 0.15  # of the path by refraction, in length and direction: what the telescope's zenith distance and sky make of it
DISK_CHANGES = (0.05, 0.2, 0.05, 0.1)  # relative FWHM, steepness, shear and ln n of a galaxy from channel to channel: its colours


@dataclass(frozen=True)
class ShapePrior:
    """Priors of a source's shape.

    Attributes
    ----------
    beta : Moffat exponent, or steepness of a disk
    fwhm : FWHM [arcsec] at the wavelength of the prior
    exponent : of FWHM ~ wavelength^exponent
    shear : both components of the ellipticity, and their error
    index : Sersic index of a disk, and the error of its logarithm
    """

    beta: Known = MOFFAT_BETA
    fwhm: Known = SEEING_PRIOR
    exponent: Known = SEEING_EXPONENT
    shear: tuple[float, float, float] = (0.0, 0.0, OVAL)
    index: Known = DISK_INDEX


@dataclass(frozen=True)
class SourcePrior:
    """Attributes
    ----------
    point : ShapePrior of a point source; disk : of an extended object
    place : (x, y, error) [arcsec] where it should stand, or None
    extended : whether it is known to be extended
    path : how the path by refraction differs from the instrument's table, see `refraction.Refraction.changed`
    """

    point: ShapePrior = ShapePrior()
    disk: ShapePrior = ShapePrior(DISK_STEEPNESS, DISK_FWHM, shear=(0.0, 0.0, ELLIPTICITY))
    place: tuple[float, float, float] | None = None
    extended: bool = False
    path: tuple[float, float] = (0.0, 0.0)

    def moved(self, wave: float, to: float, refraction: Refraction) -> SourcePrior:
        """The same prior, which held at ``wave`` [A], at wavelength ``to``."""

        def scaled(shape: ShapePrior) -> ShapePrior:
            factor = (to / wave) ** shape.exponent[0]
            return replace(shape, fwhm=(factor * shape.fwhm[0], factor * shape.fwhm[1]))

        place = self.place
        if place is not None:
            dx, dy = refraction.changed(*self.path).offset(to, wave)
            place = (place[0] + float(dx), place[1] + float(dy), place[2])
        return replace(self, point=scaled(self.point), disk=scaled(self.disk), place=place)

    def to_dict(self) -> dict[str, Any]:
        """The prior as plain values."""
        return asdict(self)


def prior_from_dict(values: Mapping[str, Any]) -> SourcePrior:
    """A prior from what `SourcePrior.to_dict` has kept."""

    def shape(kept: Mapping[str, Any]) -> ShapePrior:
        return ShapePrior(**{name: tuple(value) for name, value in kept.items()})

    place = values["place"]
    return SourcePrior(
        shape(values["point"]), shape(values["disk"]), None if place is None else tuple(place), bool(values["extended"]),
        tuple(values["path"]),
    )  # fmt: skip


def standards_prior(measured: Iterable[Known]) -> tuple[SourcePrior, Decision]:
    """Prior whose Moffat exponent is that of the night's standards on the same channel.

    A faint source does not show its wings; what telescope and air do to a point of light changes little over a night.  How
    little, several standards show by their differences beyond their errors.

    Parameters
    ----------
    measured : pairs of exponent and error; what is not known well is left out
    """
    known = [(beta, error) for beta, error in measured if np.isfinite(beta) and 0 < error < BETA_KNOWN]
    if not known:
        text = f"no standard of the night shows the shape of a point source: Moffat exponent {MOFFAT_BETA[0]} +- {MOFFAT_BETA[1]}"
        return SourcePrior(), Decision("PSFDEFAULT", text, "info")
    beta, error = np.array(known).T
    seen = max(((beta - beta.mean()) ** 2).sum() - (error**2).mean() * (beta.size - 1), 0.0)
    changes = (BETA_CHANGES**2 + seen) / beta.size  # what is usual counts as one more difference
    weight = 1.0 / (error**2 + changes)
    mean = float((weight * beta).sum() / weight.sum())
    sigma = float(np.sqrt(changes + 1.0 / weight.sum()))
    return SourcePrior(ShapePrior(beta=(mean, sigma))), Decision(
        "PSFSTANDARD", f"Moffat exponent {mean:.2f} +- {sigma:.2f} from {len(known)} standard(s) of the night", "info"
    )


def guided_prior(
    prior: SourcePrior, seeing: float | None, wave: float, standards: Iterable[tuple[float, PointSource]] = ()
) -> tuple[SourcePrior, list[Decision]]:
    """The prior with the width of a point's image that the guide cameras saw during the exposure.

    Parameters
    ----------
    seeing : FWHM [arcsec] at the guide cameras, or None
    wave : float [A], wavelength at which the prior is to hold
    standards : (seeing, source) of the night's standards on this channel
    """
    if seeing is None:
        return prior, []
    q, _ = SEEING_EXPONENT
    fwhm, error = seeing * (wave / GUIDE_WAVE) ** q, GUIDE_FWHM
    ratios = [star.fwhm / (at * (star.wave_ref / GUIDE_WAVE) ** q) for at, star in standards if not star.extended]
    if ratios:
        ratio = float(np.median(ratios))
        if not GUIDE_RATIO[0] < ratio < GUIDE_RATIO[1]:
            text = f"the guide cameras' seeing is not used: a standard of the night was {ratio:.2f} times as wide as they saw it"
            return prior, [Decision("PSFGUIDER", text, "warn")]
        fwhm, error = fwhm * ratio, GUIDE_CHANGES
    shape = replace(prior.point, fwhm=(float(fwhm), float(error * fwhm)))
    text = f"FWHM {fwhm:.2f} +- {error * fwhm:.2f} arcsec expected from the guide cameras' {seeing:.2f}"
    text += f", as {len(ratios)} standard(s) of the night compare with them" if ratios else ""
    return replace(prior, point=shape), [Decision("PSFGUIDER", text, "info")]


def paired_prior(
    prior: SourcePrior,
    pair: PointSource | None,
    wave: float,
    standards: Iterable[tuple[PointSource, PointSource]] = (),
) -> tuple[SourcePrior, list[Decision]]:
    """The prior with what the other channel of the arm shows of the same source in the same exposure.

    Both channels look through the same air at the same time: one seeing, one Moffat exponent and elongation, one place.  How the
    widths of the channels' images compare, and how far apart they lie in IFU coordinates, is what the night's standards show;
    without one, the width changes as air makes it, and nothing is said of the place.

    Parameters
    ----------
    pair : the source there, or None
    wave : float [A], wavelength at which the prior is to hold
    standards : (there, here) of standards seen in both channels, each at its channel's reference wavelength
    """
    if pair is None:
        return prior, []
    prior = replace(prior, path=pair.path)  # one air, one telescope
    step = float(np.log(wave / pair.wave_ref))
    if pair.disk:
        shape, (size, steep, round_, index) = prior.disk, DISK_CHANGES
        fwhm = pair.fwhm * np.exp(pair.exponent * step)
        shape = replace(
            shape,
            beta=(pair.beta, float(np.hypot(pair.error["beta"], steep))),
            fwhm=(float(fwhm), float(np.hypot(pair.error["fwhm"], size * fwhm))),
            shear=(*pair.shear, round_),
            index=(pair.disk, index),
        )
        prior = replace(prior, disk=shape, extended=True)
    elif pair.extended:
        return prior, []
    else:
        q, q_error = SEEING_EXPONENT
        fwhm = pair.fwhm * np.exp(q * step)
        error = np.linalg.norm([pair.error["fwhm"], fwhm * q_error * step, PAIR_FWHM * fwhm])
        ratios = [here.fwhm / there.fwhm for there, here in standards if not (here.extended or there.extended)]
        if ratios:
            fwhm = pair.fwhm * float(np.median(ratios))
            error = np.hypot(pair.error["fwhm"], PAIR_RATIO * fwhm)
        shape = replace(
            prior.point,
            beta=(pair.beta, float(np.hypot(pair.error["beta"], BETA_ACROSS))),
            fwhm=(float(fwhm), float(error)),
            shear=(*pair.shear, float(min(np.hypot(pair.error.get("shear", OVAL), PAIR_OVAL), OVAL))),
        )
        prior = replace(prior, point=shape)
    text = f"expected from the other channel of the arm: FWHM {fwhm:.2f} arcsec, exponent {pair.beta:.2f}"
    if pair.path != (0.0, 0.0):
        text += f", a path by refraction {path_scale(pair.path)[0]:.2f} times as long as the table's"
    between = [(here.x - there.x, here.y - there.y) for there, here in standards]
    if between:
        dx, dy = np.median(between, axis=0)
        error = float(np.hypot(PAIR_PLACE, max(pair.error["x"], pair.error["y"])))
        prior = replace(prior, place=(float(pair.x + dx), float(pair.y + dy), error))
        text += f", place {pair.x + dx:.2f}, {pair.y + dy:.2f}"
    return prior, [Decision("PSFPAIR", text, "info")]
