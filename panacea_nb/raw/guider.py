"""What the guide cameras saw during an exposure: transparency, mirror illumination, seeing.

Two cameras write a frame every few seconds.  Their headers hold what the flux scale needs; the images are not read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decisions import Decision
from .archive import Problem, Window, night_tar, tar_stamp, walk_tar
from .cache import NightCache
from .headers import BLOCK, STRUCTURE, Cards, DamagedHeaderError, data_size, number, parse_cards, read_header_block
from .names import clean_text, leading_time, night_date

if TYPE_CHECKING:
    from astropy.table import Table

CAMERAS = ("gc1", "gc2")
# Of each camera: what their scatter (half a per cent) leaves of a mean is then below what the cameras differ by.
MAX_FRAMES = 20
MARGIN = timedelta(seconds=10)
# Ranges (both ends included) outside which a value is a failed measurement.  Transparency and seeing: those of the
# public LRS2 tools.  Illumination: a fraction, measured to a few per cent.
MANY_DARK = 0.1  # of the looks of the guide cameras, that see next to nothing, is worth a warning
VALID = {"TRANSPAR": (0.1, 1.1), "IQ": (0.8, 4.0), "PUPILLUM": (0.05, 1.05)}
_CHECK = "check them with a standard of the night"
_MISSING = {
    "TRANSPAR": ("NOTRANSP", f"transparency 1 is assumed, so fluxes are too low if there were clouds: {_CHECK}"),
    "PUPILLUM": (
        "NOILLUM",
        f"the whole mirror is assumed, so fluxes are too low where it was lit in part: {_CHECK}",
    ),
    "IQ": ("NOSEEING", "the seeing at the guide cameras is not known: faint sources are expected to be 1.5 arcsec wide"),
}
TRACKER = ("RHO_STRT", "THE_STRT", "PHI_STRT", "X_STRT", "Y_STRT")
_NUMBERS = ("TRANSPAR", "IQ", "PUPILLUM", "MJD", *TRACKER)
_WANTED = frozenset(("GUIDLOOP", *_NUMBERS, *STRUCTURE))
_VERSION = "1"


@dataclass(frozen=True)
class GuideFrame:
    """Where a guide frame lies: its camera, start (UT), file on disk, place and size in it [bytes], and name."""

    camera: str
    start: datetime
    file: str
    offset: int
    size: int
    name: str


@dataclass(frozen=True, eq=False)
class GuiderSummary:
    """Means over the exposure.

    Parameters
    ----------
    transparency : float or None
        Mean of the valid TRANSPAR.
    illumination : float or None
        Mean of the valid PUPILLUM: illuminated fraction of the full mirror.
    seeing : float or None
        Median of the valid IQ: FWHM [arcsec].
    n_frames : int
        Frames with a closed guide loop whose headers were read.
    table : Table
        One row per such frame: camera, start, name, TRANSPAR, IQ, PUPILLUM, MJD and the tracker's values; NaN where
        missing.
    decisions : list of Decision
        Why a value is None: NOGUIDER (no frame), else NOTRANSP, NOILLUM, NOSEEING (no valid value); GUIDERTAR
        (damaged file).
    """

    transparency: float | None
    illumination: float | None
    seeing: float | None
    n_frames: int
    table: Table
    decisions: list[Decision] = field(default_factory=list)


def _camera(name: str) -> str | None:
    """Camera of a member of a whole night's tar, by the folder that it is in."""
    return next((part for part in PurePosixPath(name).parts[:-1] if part in CAMERAS), None)


def _is_frame(name: str) -> bool:
    return name.endswith(".fits") and leading_time(PurePosixPath(name).name) is not None


def _in_tar(path: str, camera: str | None, problems: list[Problem]) -> Iterator[tuple[str, str, int, int]]:
    """Camera, name, offset and size of the guide frames of a tar; without `camera` the tar is a whole night's."""

    def concerns(name: str) -> bool:
        if camera is None and _camera(name) is None:
            return False
        return _is_frame(name) or (camera is None and name.endswith(".tar"))

    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        for info in walk_tar(stream, size, path, concerns, problems):
            of = camera or _camera(info.name)
            if not info.name.endswith(".tar"):
                yield of, info.name, info.offset_data, info.size
                continue
            length = max(min(info.size, size - info.offset_data), 0)
            inner = Window(stream, info.offset_data, length)
            for nested in walk_tar(inner, length, f"{path}:{clean_text(info.name)}", _is_frame, problems):
                yield of, nested.name, info.offset_data + nested.offset_data, nested.size


def _sources(baseraw: str | Path, night: str) -> Iterator[tuple[str, str | None, os.stat_result]]:
    """Files that are guide frames or hold some: path, camera (None for the whole night's tar), status."""
    root = os.path.join(os.path.abspath(baseraw), night)
    for camera in CAMERAS:
        for here, folders, files in os.walk(os.path.join(root, camera)):
            folders.sort()
            for name in sorted(files):
                if not name.endswith(".tar") and not _is_frame(name):
                    continue
                path = os.path.join(here, name)
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield path, camera, status
    whole = night_tar(baseraw, night)
    if whole:
        yield whole[0], None, whole[1]


def _known(path: str, camera: str | None, stamp: str, cache: NightCache) -> tuple[list[Any], list[Problem]]:
    """Entries (camera, name, offset, size) of a tar, from the cache or a walk; only undamaged tars are cached."""
    entries, problems = cache.get(path, stamp), []
    if not _sound(entries):
        try:
            entries = [list(entry) for entry in _in_tar(path, camera, problems)]
        except OSError as error:
            entries = []
            problems.append(Problem(path, f"cannot be read: {clean_text(error)}", "its guide frames are left out"))
    if not problems:
        cache.keep(path, stamp, entries)
    return entries, problems


def list_guide_frames(
    baseraw: str | Path, night: str, cache_dir: str | Path | None = None
) -> tuple[list[GuideFrame], list[Problem]]:
    """All guide frames of a night, by tar headers and file names alone.

    Parameters
    ----------
    baseraw : str or Path
        Root of the raw archive.
    night : str
        YYYYMMDD.
    cache_dir : str, Path or None
        Where the lists of the tars are kept.

    Returns
    -------
    tuple
        Frames by time, and what is damaged.
    """
    cache = NightCache(cache_dir, "guider", baseraw, night, _VERSION)
    frames: dict[tuple[str, str], GuideFrame] = {}
    problems: list[Problem] = []
    for path, camera, status in _sources(baseraw, night):
        if not path.endswith(".tar"):
            entries: list[Any] = [[camera, os.path.basename(path), 0, status.st_size]]
        else:
            entries, found = _known(path, camera, tar_stamp(status), cache)
            problems += found
        for of, name, offset, size in entries:
            short = PurePosixPath(name).name
            frames.setdefault((of, short), GuideFrame(of, leading_time(short), path, offset, size, clean_text(short)))
    cache.save()
    return sorted(frames.values(), key=lambda f: (f.start, f.camera, f.name)), problems


def _sound(entries: Any) -> bool:
    """Whether a cache entry is a list of camera, frame name, offset and size."""
    if not isinstance(entries, list):
        return False
    for entry in entries:
        if not isinstance(entry, list) or [type(value) for value in entry] != [str, str, int, int]:
            return False
        if entry[0] not in CAMERAS or not _is_frame(entry[1]) or min(entry[2:]) < 0:
            return False
    return True


def _guide_cards(frame: GuideFrame) -> Cards:
    """Cards of a guide frame: of the primary header, and of the first extension where the primary lacks them.

    Raises
    ------
    DamagedHeaderError, OSError
        If there is no header to read.
    """
    with open(frame.file, "rb") as stream:
        size = min(frame.size, os.fstat(stream.fileno()).st_size - frame.offset)
        block = read_header_block(stream, frame.offset, size)
        primary = parse_cards(block, _WANTED)
        if "GUIDLOOP" in primary:
            return primary
        used = len(block) + -(-data_size(primary) // BLOCK) * BLOCK
        try:
            extension = parse_cards(read_header_block(stream, frame.offset + used, size - used), _WANTED)
        except DamagedHeaderError:
            return primary
        return extension | {key: value for key, value in primary.items() if key not in STRUCTURE}


def _sample(
    frames: list[GuideFrame], place: float, unread: list[GuideFrame], dark: list[GuideFrame]
) -> list[tuple[GuideFrame, Cards]]:
    """At most `MAX_FRAMES` frames with a closed loop, one of each such part of the exposure.

    Parameters
    ----------
    frames : list of GuideFrame
        Those of one camera within the exposure, by time.
    place : float
        Which one of a part is wanted, from 0 (its beginning) to 1; where that has no closed loop or no valid
        transparency, the nearest one that has.
    unread : list of GuideFrame
        Takes the frames that were looked at and cannot be read.
    dark : list of GuideFrame
        Takes the frames that were looked at first in their part and saw less light than counts as a measurement, but some.
    """
    picked = []
    part_of = np.arange(len(frames)) * min(MAX_FRAMES, len(frames)) // len(frames)
    for part in (np.flatnonzero(part_of == k) for k in range(part_of[-1] + 1)):
        poor = None
        for turn, i in enumerate(sorted(part, key=lambda i: (abs(i - part[0] + 0.5 - place * len(part)), i))):
            try:
                cards = _guide_cards(frames[i])
            except (DamagedHeaderError, OSError):
                unread.append(frames[i])
                continue
            if clean_text(cards.get("GUIDLOOP")).upper() != "ACTIVE":
                continue
            if _valid(cards, "TRANSPAR") is not None:
                picked.append((frames[i], cards))
                break
            poor = poor or (frames[i], cards)
            if turn == 0 and 0 < (number(cards, "TRANSPAR") or 0.0) < VALID["TRANSPAR"][0]:
                dark.append(frames[i])
        else:
            picked += [poor] if poor else []
    return picked


def _valid(cards: Cards, keyword: str) -> float | None:
    value, (low, high) = number(cards, keyword), VALID[keyword]
    return value if value is not None and low <= value <= high else None


def _frame_table(picked: list[tuple[GuideFrame, Cards]]) -> Table:
    from astropy.table import Table  # a second of import that indexing does not need

    rows = [
        (f.camera, f.start.isoformat(timespec="milliseconds"), f.name)
        + tuple(np.nan if number(cards, key) is None else number(cards, key) for key in _NUMBERS)
        for f, cards in picked
    ]
    names = ["camera", "start", "name", *_NUMBERS]
    dtypes = [str, str, str] + [float] * len(_NUMBERS)
    table = Table(rows=rows or None, names=names, dtype=dtypes)
    table["IQ"].unit = "arcsec"
    return table


def guider(
    baseraw: str | Path, start: datetime, exptime: float, night: str, *, cache_dir: str | Path | None = None
) -> GuiderSummary:
    """Transparency, mirror illumination and seeing during an exposure.

    Of each camera at most `MAX_FRAMES` frames with a closed guide loop are used, spread evenly from 10 s before the
    start to 10 s after the end, the second camera's between the first one's.  Transparency and illumination
    multiply the light that arrives, so their means count; seeing, of which single values run away, is a median.

    Parameters
    ----------
    baseraw : str or Path
        Root of the raw archive.
    start : datetime
        Start of the exposure, UT.
    exptime : float
        Exposure time [s].
    night : str
        YYYYMMDD of the folder.
    cache_dir : str, Path or None
        Where the lists of the guiders' tars are kept.

    Returns
    -------
    GuiderSummary
        A value is None where no frame has a valid one, and a decision says so; nothing is replaced here.

    Raises
    ------
    BadNightError
        If `night` is no date.
    """
    night_date(night)
    if start.tzinfo is not None:
        start = start.astimezone(UTC).replace(tzinfo=None)
    frames, problems = list_guide_frames(baseraw, night, cache_dir)
    begin, end = start - MARGIN, start + timedelta(seconds=max(exptime, 0.0)) + MARGIN
    within = [frame for frame in frames if begin <= frame.start <= end]
    by_camera = [[frame for frame in within if frame.camera == camera] for camera in CAMERAS]
    by_camera = [found for found in by_camera if found]
    picked: list[tuple[GuideFrame, Cards]] = []
    unread: list[GuideFrame] = []
    dark: list[GuideFrame] = []
    for k, found in enumerate(by_camera):
        # the cameras look at different moments: together they see changes that one would miss
        picked += _sample(found, (k + 0.5) / len(by_camera), unread, dark)
    decisions = [Decision("GUIDERTAR", str(problem), "warn") for problem in problems]
    values = {key: [v for _, cards in picked if (v := _valid(cards, key)) is not None] for key in VALID}
    when = f"from {begin:%Y-%m-%dT%H:%M:%S} to {end:%Y-%m-%dT%H:%M:%S} UT"
    if not picked:
        lost = f"{len(unread)} cannot be read, {len(within) - len(unread)} have no GUIDLOOP = ACTIVE"
        text = (
            f"none of the {len(within)} guide frames {when} can be used ({lost})"
            if within
            else f"there is no guide frame {when} (among {len(frames)} of night {night})"
        )
        text += (
            ": transparency 1 and the whole mirror are assumed, so fluxes are too low if there were clouds or the mirror was lit "
            f"in part: copy the night's gc1 and gc2 again from the archive, or {_CHECK}"
        )
        decisions.append(Decision("NOGUIDER", text, "warn"))
    else:
        for key, (code, meaning) in _MISSING.items():
            if not values[key]:
                low, high = VALID[key]
                text = f"none of {len(picked)} guide frames {when} has {key} from {low:g} to {high:g}: {meaning}"
                decisions.append(Decision(code, text, "warn"))
    if values["TRANSPAR"] and len(dark) > max(1, MANY_DARK * len(picked)):  # one value may run away
        text = (
            f"in {len(dark)} of {len(picked)} looks {when} the guide cameras saw less than a tenth of the light, which does not "
            "count as a measurement: under such clouds fluxes are too low, by more than the transparency says"
        )
        decisions.append(Decision("THICKCLOUD", text, "warn"))
    return GuiderSummary(
        transparency=float(np.mean(values["TRANSPAR"])) if values["TRANSPAR"] else None,
        illumination=float(np.mean(values["PUPILLUM"])) if values["PUPILLUM"] else None,
        seeing=float(np.median(values["IQ"])) if values["IQ"] else None,
        n_frames=len(picked),
        table=_frame_table(picked),
        decisions=decisions,
    )
