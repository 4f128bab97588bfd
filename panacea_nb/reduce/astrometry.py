"""Sky coordinates of the fibres: tangent plane at the tracker's position, turned by the parallactic angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord
from astropy.wcs import WCS

from ..decisions import Decision, shown

ROTATION_OFFSET = 1.07  # deg; between the focal plane's axes and the parallactic angle (HET focal plane convention)
CONVENTIONS = ("lrs2multi", "panacea")
AGREE = 0.5  # deg; TRAJRA and QRA of one exposure lie within the focal plane's 22 arcmin


@dataclass(frozen=True)
class Pointing:
    """Where the focal plane's centre pointed.

    Attributes
    ----------
    ra, dec : float [deg]; rotation : float [deg]
    convention : str, how the IFU is turned in the focal plane
    unit : str, unit in which TRAJRA was found to be (deg or hour), or QRA when the trajectory was of no use
    decisions : tuple of Decision
    """

    ra: float
    dec: float
    rotation: float
    convention: str
    unit: str
    decisions: tuple[Decision, ...] = ()

    def wcs(self) -> WCS:
        """World coordinates of focal-plane arcsec (scales -1 and +1 arcsec per unit)."""
        w = WCS(naxis=2)
        w.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        w.wcs.crval = [self.ra, self.dec]
        w.wcs.crpix = [0.0, 0.0]
        w.wcs.cunit = ["deg", "deg"]
        w.wcs.cdelt = [-1.0 / 3600, 1.0 / 3600]
        c, s = np.cos(np.deg2rad(self.rotation)), np.sin(np.deg2rad(self.rotation))
        w.wcs.pc = [[c, s], [-s, c]]  # clockwise
        w.wcs.set()
        return w


def _angle(value: object, unit: u.Unit) -> float:
    try:
        text = str(value).strip()
        return float(Angle(text, unit=unit).deg) if ":" in text else float(text)
    except (ValueError, TypeError):
        return float("nan")


def _sexagesimal(ra: object, dec: object) -> tuple[float, float]:
    try:
        place = SkyCoord(f"{ra} {dec}", unit=(u.hourangle, u.deg))
    except (ValueError, TypeError):
        return float("nan"), float("nan")
    return float(place.ra.deg), float(place.dec.deg)


def pointing(cards, convention: str = "lrs2multi") -> Pointing:
    """Pointing of an exposure from its header.

    The unit of TRAJRA differs between tools (degrees or hours): the one that agrees better with QRA, QDEC is taken, with a
    warning when it does not agree.  Where the trajectory is missing or no place on the sky, QRA and QDEC stand for the field's
    centre, and a warning says so.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is none of {CONVENTIONS}")
    decisions = []
    q_ra, q_dec = _sexagesimal(cards.get("QRA"), cards.get("QDEC"))
    t_ra, t_dec = _angle(cards.get("TRAJRA"), u.hourangle), _angle(cards.get("TRAJDEC"), u.deg)
    if not (abs(t_ra) <= 360 and abs(t_dec) <= 90):
        t_ra = t_dec = float("nan")  # no place on the sky
    angle = _angle(cards.get("PARANGLE"), u.deg)
    if not np.isfinite(angle):
        angle = 0.0
        found = shown(cards.get("PARANGLE"))
        text = (
            f"PARANGLE is {found} in the header: 0 deg is assumed, so sky coordinates may be off by some arcmin and north lies in "
            "a wrong direction: use the positions in IFU arcsec only"
        )
        decisions.append(Decision("NOPARANG", text, "warn"))
    ra, dec, unit = float("nan"), t_dec, "none"
    if np.isfinite(t_ra) and np.isfinite(t_dec):
        candidates = {"deg": t_ra % 360, "hour": (t_ra * 15) % 360}
        if np.isfinite(q_ra):
            away = {
                k: np.hypot(((v - q_ra + 180) % 360 - 180) * np.cos(np.deg2rad(q_dec)), t_dec - q_dec)
                for k, v in candidates.items()
            }
            unit = min(away, key=away.get)
            ra = candidates[unit]
            if away[unit] > AGREE:
                text = (
                    f"TRAJRA/TRAJDEC lie {away[unit]:.2f} deg from QRA/QDEC: sky coordinates follow TRAJRA/TRAJDEC, and may be "
                    "wrong or not of the target that was asked for: check the pointing in the night log"
                )
                decisions.append(Decision("TRAJFAR", text, "warn"))
        else:
            unit, ra = "deg", candidates["deg"]
            text = (
                f"QRA/QDEC ({shown(cards.get('QRA'), cards.get('QDEC'))}) cannot be read: TRAJRA {shown(cards.get('TRAJRA'))} is "
                f"taken as {ra:.5f} deg; if the telescope wrote hours, the RA is wrong by a factor of 15: check it in the night log"
            )
            decisions.append(Decision("NOQRA", text, "warn"))
    if not np.isfinite(ra) or not np.isfinite(dec):
        ra, dec, unit = q_ra, q_dec, "QRA"
        given = f"TRAJRA/TRAJDEC ({shown(cards.get('TRAJRA'), cards.get('TRAJDEC'))})"
        if np.isfinite(ra) and np.isfinite(dec):
            text = (
                f"{given} are no place on the sky: QRA/QDEC are taken as the centre of the focal plane, so sky coordinates may be "
                "off by some arcmin: check them against a known source"
            )
            decisions.append(Decision("NOTRAJ", text, "warn"))
        else:
            ra, dec, unit = 0.0, 0.0, "none"
            text = (
                f"neither {given} nor QRA/QDEC ({shown(cards.get('QRA'), cards.get('QDEC'))}) are a place on the sky: sky "
                "coordinates are around (0, 0): use the positions in IFU arcsec only"
            )
            decisions.append(Decision("NOCOORD", text, "warn"))
    return Pointing(ra, dec, 360.0 - (90.0 + angle + ROTATION_OFFSET), convention, unit, tuple(decisions))


def focal_plane(ifu: np.ndarray, centre: tuple[float, float], convention: str) -> np.ndarray:
    """Focal-plane position (n, 2) [arcsec] of IFU positions (n, 2), in the axes that are projected on the sky.

    The general VIRUS rule (Panacea) is (fp_y + ifu_x, fp_x + ifu_y), that of LRS2Multi (fp_y - ifu_y, fp_x + ifu_x): a quarter
    turn apart; only on-sky data can tell which holds.
    """
    fp_x, fp_y = centre
    x, y = ifu[:, 0], ifu[:, 1]
    if convention == "panacea":
        return np.column_stack([fp_y + x, fp_x + y])
    return np.column_stack([fp_y - y, fp_x + x])


def sky_positions(ifu: np.ndarray, centre: tuple[float, float], point: Pointing) -> np.ndarray:
    """Table (n, 6) of ifu x, y, focal x, y [arcsec], ra, dec [deg]."""
    plane = focal_plane(ifu, centre, point.convention)
    ra, dec = point.wcs().wcs_pix2world(plane[:, 0], plane[:, 1], 1)  # CRPIX 0 in FITS counting: focal plane (0, 0)
    return np.column_stack([ifu, plane, ra, dec])


def image_wcs(point: Pointing, centre: tuple[float, float], x0: float, y0: float, step: float) -> WCS:
    """Celestial WCS of an image in IFU axes whose first pixel lies at IFU (x0, y0) arcsec, ``step`` arcsec a pixel."""
    # Linear map pixel -> IFU -> focal plane -> tangent plane, put together from three points.
    origin = focal_plane(np.array([[x0, y0]]), centre, point.convention)[0]
    along_x = focal_plane(np.array([[x0 + step, y0]]), centre, point.convention)[0] - origin
    along_y = focal_plane(np.array([[x0, y0 + step]]), centre, point.convention)[0] - origin
    base = point.wcs().wcs
    matrix = base.pc @ np.column_stack([along_x, along_y])
    w = WCS(naxis=2)
    w.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    w.wcs.cunit = ["deg", "deg"]
    w.wcs.crval = [point.ra, point.dec]
    w.wcs.cdelt = [step / 3600, step / 3600]
    cd = np.diag(base.cdelt) @ matrix
    w.wcs.pc = cd / (step / 3600)
    # Pixel (FITS, from 1) of the tangent point: where the focal-plane position is (0, 0).
    pixel = np.linalg.solve(np.column_stack([along_x, along_y]), -origin) + 1
    w.wcs.crpix = pixel
    w.wcs.set()
    return w
