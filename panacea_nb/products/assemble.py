"""Put the products of an exposure together from the results of its stages."""

from __future__ import annotations

import numpy as np

from .. import raw
from ..instrument import channel as find_channel
from ..instrument import fplane
from ..reduce.astrometry import pointing, sky_positions
from ..reduce.calibrated import FLUX_UNCERTAINTY, FLUX_UNCERTAINTY_DEFAULT, Calibrated, fiber_light
from ..reduce.extract import FiberModel
from ..reduce.flux import FluxScale
from ..reduce.refraction import path_scale
from .bundle import Bundle
from .calibration import ScienceCalibration, airmass
from .headers import provenance_cards, raw_cards, time_and_place
from .maps import divided, fiber_map, flat_image, over_rows
from .science import ExposureProducts
from .session import Task

DEFAULT_CODES = ("NOGUIDER", "NOTRANSP", "NOILLUM")


def assemble(
    task: Task,
    exposure: raw.Exposure,
    cal: ScienceCalibration,
    spectra: Bundle,
    sky: Bundle,
    result: Calibrated,
    scale: FluxScale,
) -> tuple[ExposureProducts, dict[str, np.ndarray]]:
    """The exposure's `ExposureProducts` and its cubes by kind."""
    channel = find_channel(task.channel)
    header = raw.read_amplifier(exposure.amps[channel.amps[0]]).header
    point = pointing(header)
    task.record(point.decisions)
    centre = fplane(channel.ifuslot)
    model = FiberModel(spectra["trace"], cal.model.coef, cal.model.block, cal.model.alive)
    flat = flat_image(model, sky["throughput"], cal.flat, cal.profile_scale)
    ny = spectra["image"].shape[0]
    unit = np.where(cal.alive[:, None], sky["factor"] / sky["gradient"][:, None] * cal.profile_scale, 1.0)
    spectrum = result.spectrum
    rows = np.vstack([result.grid, spectrum.flux, spectrum.sky, spectrum.error, spectrum.sky_error, result.response])
    adr = np.vstack([result.refraction.wavelength, result.refraction.x, result.refraction.y])
    products = ExposureProducts(
        grid=result.grid,
        observed=result.skysub + result.sky,
        sky=result.sky,
        skysub=result.skysub,
        error=result.error,
        dq=result.dq,
        positions=sky_positions(result.positions, centre, point),
        spectrum=rows,
        adr=adr,
        bigw=over_rows(sky["wavelength"], spectra["trace"], ny),
        image=spectra["image"],
        flattened=divided(spectra["image"], flat),
        trace=fiber_map(spectra["trace"], ny),
        cosmics=spectra["cosmics"],
        unrectified=np.where(cal.alive[:, None], fiber_light(spectra, sky) / unit, 0.0),
        collapsed=result.collapsed,
        spaxels=result.spaxels,
        lsf=result.lsf,
        correlation=result.correlation,
        pointing=point,
        ifu_centre=centre,
        raw=raw_cards(header),
        neighbours=result.neighbours,
        telluric=None if result.air is None else result.air.value,
    )
    products.cards = own_cards(task, exposure, result, scale, spectra, sky) + time_and_place(
        exposure.start, scale.exptime, point
    )
    products.cards.append(("AIRMASS", round(airmass(exposure), 4), "of the raw header, else at HET's zenith distance"))
    together = float(np.median(spectra["coupling"][:-1][cal.alive[:-1] & cal.alive[1:]]))
    products.cards.append(("CORRFIB", round(together, 4), "correlation of errors of neighbouring fibres"))
    parameters = {"central_wave": result.centre, "wavelength_bin": result.half_width}
    products.cards += provenance_cards(
        task.stage, task.layout.relative(task.notebook), task.decisions, task.inputs, parameters
    )
    return products, result.cubes


def own_cards(
    task: Task, exposure: raw.Exposure, result: Calibrated, scale: FluxScale, spectra: Bundle, sky: Bundle
) -> list[tuple]:
    """Cards that the reduction adds: source, flux scale, quality."""
    assumed = any(d.code in DEFAULT_CODES for d in task.decisions)
    cards = [
        ("CHANNEL", task.channel, "uv, orange, red or farred"),
        ("NIGHT", task.layout.night, "date of the night"),
        ("OBSID", exposure.obsid, ""),
        ("EXPNUM", exposure.exp, ""),
        ("FRAMETYP", exposure.kind, "type of the raw frame"),
        ("EXPTIME", scale.exptime, "[s] used"),
        ("MILLUM", scale.area, "[cm2] illuminated mirror area"),
        ("THROUGHP", scale.transparency, "transparency"),
        ("PROFK", round(scale.profile_scale, 5), "profile sum over its centre"),
        ("ABSFERR", FLUX_UNCERTAINTY_DEFAULT if assumed else FLUX_UNCERTAINTY, "relative error of the absolute flux"),
        ("SKYFIB", int(sky["fibers"].sum()), "fibres taken as sky"),
        ("SKYCHI", round(float(sky.meta["chi"]), 4), "robust RMS of sky fibres over noise"),
        ("ROWSHIFT", spectra.meta["row_shift"], "[pix] shift of traces against calibrations"),
        ("WAVSHIFT", spectra.meta["wave_shift"], "[pix] shift of wavelengths"),
        ("WAVZERO", bool(spectra.meta["zero_used"]), "wavelength zero measured on the sky"),
        ("COLLWAVE", result.centre, "[A] centre of the collapse window"),
        ("COLLHALF", result.half_width, "[A] its half-width"),
        ("SNR", float(result.search["best"]), "of the best source candidate"),
        ("LIMIT5S", float(result.limit), "[erg/s/cm2/A] 5 sigma of a point source"),
    ]
    cards += choice_cards(result, sky)
    source = result.source
    if source is not None:
        cards += [
            ("SOURCEX", source.x, "[arcsec] IFU x of the source at SOURCEW"),
            ("SOURCEY", source.y, "[arcsec] IFU y of the source at SOURCEW"),
            ("SOURCEW", source.wave_ref, "[A] wavelength at which they hold"),
            ("SEEING", source.fwhm, "[arcsec] FWHM at SOURCEW"),
            ("MOFBETA", source.beta, "Moffat exponent"),
            ("SEEEXP", source.exponent, "FWHM ~ wavelength**SEEEXP"),
            ("SRCELL", float(np.hypot(*source.shear)), "(a^2 - b^2) / (a^2 + b^2) of the image's axes"),
            ("SRCANG", 0.5 * float(np.degrees(np.arctan2(*source.shear[::-1]))), "[deg] of its long axis, IFU x to y"),
            ("ADRSCALE", path_scale(source.path)[0], "path by refraction, length over the table's"),
            ("ADRTURN", path_scale(source.path)[1], "[deg] its turn, IFU x to y"),
            ("SRCCHI", source.chi, "reduced chi-square of the source model"),
            ("SRCREST", 100 * source.unexplained, "[%] what it leaves in the fibres beyond noise"),
            ("SRCFERR", source.flux_error, "relative flux error that all wavelengths share"),
            ("SRCFIXED", source.fixed, "position given by the user"),
        ]
    second = result.companion
    if second is not None:
        cards += [
            ("SOURCX2", second.x, "[arcsec] IFU x of a second source at SOURCEW"),
            ("SOURCY2", second.y, "[arcsec] IFU y of a second source at SOURCEW"),
            ("SNR2", second.snr, "of the second source"),
        ]
    return cards


def choice_cards(result: Calibrated, sky: Bundle) -> list[tuple]:
    """Cards of what the user chose for sky, extraction and telluric correction."""
    meta = sky.meta
    cards = [
        ("SKYMODE", str(meta.get("sky_mode", "auto")), "auto, region, mask, exposure or none"),
        ("SKYREFIN", str(meta.get("sky_refine", "none")), "none, polynomial or pca"),
    ]
    names = (("SKYREG", "sky_region", "[arcsec] sky from here"), ("SKYEXCL", "sky_exclude", "[arcsec] not sky"))
    cards += [(card, str(meta[name]), text) for card, name, text in names if meta.get(name)]
    if meta.get("sky_other"):
        cards.append(("SKYEXP", str(meta["sky_other"]), "observation and exposure of the sky"))
        cards.append(("SKYSCALE", float(meta["sky_scale"]), "factor to its sky"))
        cards.append(("SKYSCERR", float(meta["sky_scale_error"]), "error of it"))
    taken = result.extraction
    cards.append(("EXTRACT", taken.how, "psf, aperture or extended"))
    if taken.radius is not None:
        cards.append(("APERTURE", float(taken.radius), "[arcsec] radius"))
        corrected = taken.correction is not None
        cards.append(("APERCORR", float(taken.correction) if corrected else 1.0, "factor for light outside; 1 none"))
    if taken.region:
        cards.append(("EXTRREG", taken.region, "[arcsec] region of the sum"))
    cards.append(("TELLCORR", result.choices.get("telluric", "none"), "telluric correction: none, mean, standard"))
    return cards
