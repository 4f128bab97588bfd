"""The frames of a night: every header read once, whatever is wrong recorded, nothing raised for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .archive import Container, Member, Problem, find_containers, iterate_members
from .cache import NightCache
from .frames import BINNINGS, Exposure, FrameRecord
from .headers import STRUCTURE, DamagedHeaderError, data_size, parse_cards, read_header_block
from .names import AMPLIFIERS, IFU_SLOTS, BadNameError, clean_text, parse_frame_path

if TYPE_CHECKING:
    from astropy.table import Table

# Cards that the index keeps of every frame; the complete header comes with the image.
CARDS = (
    "OBJECT",
    "QOBJECT",
    "QPROG",
    "EXPTIME",
    "REXPTIME",
    "DARKTIME",
    "DATE",
    "DATE-OBS",
    "UT",
    "MJD",
    "QRA",
    "QDEC",
    "TRAJRA",
    "TRAJDEC",
    "PARANGLE",
    "AIRMASS",
    "IFUSLOT",
    "SPECID",
    "IFUID",
    "CONTID",
    "CCDPOS",
    "CCDHALF",
    "AMPNAME",
    "GAIN",
    "RDNOISE",
    "AMBTEMP",
    "HUMIDITY",
    "DETTEMP",
    "CCDTEMP",
)
_WANTED = frozenset(CARDS) | frozenset(STRUCTURE)
# Bump the number when an entry of the cache changes its form.
_VERSION = "2 " + " ".join(CARDS)

_AGAIN = ": copy it again from the archive"

Key = tuple[int, int, str, str]


class _MisplacedError(BadNameError):
    """A frame of one observation in the place of another."""


@dataclass(frozen=True)
class NightIndex:
    """What there is of a night.

    Parameters
    ----------
    night : str
        YYYYMMDD of the folder.
    frames : tuple of FrameRecord
        Usable frames, by observation, exposure, IFU and amplifier.
    problems : list of Problem
        What was refused, damaged or doubled.
    """

    night: str
    frames: tuple[FrameRecord, ...]
    problems: list[Problem] = field(hash=False)

    def select(
        self,
        kind: str | None = None,
        ifuslot: str | None = None,
        amp: str | None = None,
        obsid: int | None = None,
        exp: int | None = None,
    ) -> tuple[FrameRecord, ...]:
        """The frames that agree with everything given."""
        asked = {"kind": kind, "ifuslot": ifuslot, "amp": amp, "obsid": obsid, "exp": exp}
        asked = {name: value for name, value in asked.items() if value is not None}
        return tuple(f for f in self.frames if all(getattr(f, name) == value for name, value in asked.items()))

    def exposures(self, kind: str | None = None, ifuslot: str | None = None) -> list[Exposure]:
        """Frames of one IFU that were read out together, by their start."""
        groups: dict[tuple[int, int, str, str], list[FrameRecord]] = {}
        for frame in self.select(kind=kind, ifuslot=ifuslot):
            groups.setdefault((frame.obsid, frame.exp, frame.ifuslot, frame.kind), []).append(frame)
        exposures = [Exposure.of_frames(frames) for frames in groups.values()]
        return sorted(exposures, key=lambda e: (e.start, e.obsid, e.exp, e.ifuslot, e.kind))

    def table(self) -> Table:
        """One row per exposure and IFU, for display: text is printable, an unknown exposure time is NaN."""
        from astropy.table import Table  # a second of import that reading frames does not need

        columns = {
            "obsid": lambda e: e.obsid,
            "exp": lambda e: e.exp,
            "ifuslot": lambda e: e.ifuslot,
            "kind": lambda e: e.kind,
            "start": lambda e: e.start.isoformat(timespec="milliseconds"),
            "object": lambda e: e.object_name,
            "program": lambda e: e.program,
            "exptime": lambda e: float("nan") if e.exptime is None else e.exptime,
            "amps": lambda e: " ".join(e.amps),
            "binning": lambda e: e.binning,
        }
        dtypes = [int, int, str, str, str, str, str, float, str, str]
        exposures = self.exposures()
        table = Table([[value(e) for e in exposures] for value in columns.values()], names=list(columns), dtype=dtypes)
        table["exptime"].unit = "s"
        table["start"].description = "UT, from the file name"
        table.meta["night"] = self.night
        return table


def _entry(member: Member, stream: BinaryIO) -> dict[str, Any]:
    """What the cache keeps of a frame; `DamagedHeaderError` when it is of no use."""
    block = read_header_block(stream, member.offset, member.available)
    cards = parse_cards(block, _WANTED)
    needed = len(block) + data_size(cards)
    if needed > member.available:
        raise DamagedHeaderError(f"cut off: {member.available} of {needed} bytes are there{_AGAIN}")
    shape = (cards.get("NAXIS2"), cards.get("NAXIS1"))
    if cards["NAXIS"] != 2 or shape not in BINNINGS:
        sizes = " or ".join(f"{rows} x {columns}" for rows, columns in BINNINGS)
        axes = " x ".join(str(cards.get(f"NAXIS{n}")) for n in range(int(cards["NAXIS"]), 0, -1)) or "no pixels"
        raise DamagedHeaderError(f"image of {axes} instead of {sizes}{_AGAIN}")
    kept = {key: value for key, value in cards.items() if key not in STRUCTURE}
    size = min(member.size, member.available)
    return {"names": list(member.names), "at": member.offset, "size": size, "shape": list(shape), "cards": kept}


def _stranger(cards: dict[str, Any], ifuslot: str, amp: str) -> str:
    """What a header says of a frame's origin where that is another IFU or amplifier than its name says; nothing when they agree.

    A header that says neither, or something that LRS2 does not have, proves nothing.
    """
    slot = str(cards.get("IFUSLOT", "")).strip().zfill(3)
    if slot in IFU_SLOTS and slot != ifuslot:
        return f"its header is of IFU {slot}, its name of {ifuslot}"
    read = f"{cards.get('CCDPOS', '')}{cards.get('CCDHALF', '')}".replace(" ", "")
    if read in AMPLIFIERS and read != amp:
        return f"its header is of amplifier {read}, its name of {amp}"
    return ""


def _walk(container: Container) -> dict[str, Any]:
    """Frames and problems of a container, in the form that the cache keeps."""
    problems: list[Problem] = []
    frames, members = [], 0
    for member, stream in iterate_members(container, problems):
        members += 1
        where = ":".join([container.path, *(clean_text(name, 200) for name in member.names)])
        try:
            name = parse_frame_path(_full_path(container, member.names))
            if container.obsid not in (None, name.obsid):
                raise _MisplacedError(
                    f"it is of observation {name.obsid} and lies where observation {container.obsid} belongs: rename the tar or "
                    "folder, or copy the right one"
                )
        except _MisplacedError as error:
            problems.append(Problem(where, str(error), "the frame is left out"))
            continue
        except BadNameError as error:
            problems.append(Problem(where, str(error), "ignored", "info"))
            continue
        try:
            entry = _entry(member, stream)
        except (DamagedHeaderError, OSError) as error:
            problems.append(Problem(where, clean_text(error, 200), "the frame is left out"))
            continue
        stranger = _stranger(entry["cards"], name.ifuslot, name.amp)
        if stranger:
            problems.append(Problem(where, stranger, "the frame is left out"))
            continue
        frames.append(entry)
    if not members and not problems:
        problems.append(Problem(container.path, "it holds no files", "its observation is missing", "info"))
    return {"frames": frames, "problems": [[p.where, p.what, p.effect, p.severity] for p in problems]}


def _full_path(container: Container, names: tuple[str, ...]) -> str:
    """Path of a member that shows its observation, whatever holds it."""
    return f"lrs2{container.obsid:07d}/{names[-1]}" if container.form == "tree" else names[-1]


def _records(container: Container, night: str, payload: dict[str, Any]) -> Iterator[FrameRecord]:
    for entry in payload["frames"]:
        names = tuple(entry["names"])
        name = parse_frame_path(_full_path(container, names))
        if container.form == "tree":
            place = (f"{container.path}/{names[0]}",)
        else:
            place = (container.path, *names)
        yield FrameRecord(
            night,
            name.obsid,
            name.exp,
            name.ifuslot,
            name.amp,
            name.kind,
            name.start,
            place,
            int(entry["at"]),
            int(entry["size"]),
            (int(entry["shape"][0]), int(entry["shape"][1])),
            dict(entry["cards"]),
        )


def _known(container: Container, night: str, cache: NightCache) -> tuple[list[FrameRecord], list[Problem]]:
    """Frames and problems of a container: from the cache, or from a walk when it does not know them or is damaged."""
    payload = cache.get(container.path, container.stamp)
    if payload is not None:
        try:
            records = list(_records(container, night, payload))
            problems = [Problem(*map(str, problem)) for problem in payload["problems"]]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            payload = None  # a damaged entry is worth no more than none
    if payload is None:
        payload = _walk(container)
        records = list(_records(container, night, payload))
        problems = [Problem(*problem) for problem in payload["problems"]]
    # a loss may be a passing one (a tar still being written, a disk that hiccups): it is looked at anew each time
    if not any(problem.severity == "warn" for problem in problems):
        cache.keep(container.path, container.stamp, payload)
    return records, problems


def index_night(baseraw: str | Path, night: str, cache_dir: str | Path | None = None) -> NightIndex:
    """Index the raw frames of a night in whichever of the three layouts they lie.

    Only tar and FITS headers are read.  With a cache, a container is walked again only when its size or time of
    change is another; one with losses is looked at anew each time.  Of two copies of a frame the first counts: tars
    of single observations, then unpacked folders, then the tar of the whole night.

    Parameters
    ----------
    baseraw : str or Path
        Root of the raw archive.
    night : str
        YYYYMMDD.
    cache_dir : str, Path or None
        Where the cache lies; None for no cache.

    Returns
    -------
    NightIndex
        Frames and problems.  Damaged tars, members and headers are problems, never exceptions.

    Raises
    ------
    BadNightError
        If `night` is no date.
    MissingNightError
        If there is nothing of that night.
    """
    containers, problems = find_containers(baseraw, night)
    cache = NightCache(cache_dir, "frames", baseraw, night, _VERSION)
    frames: dict[Key, FrameRecord] = {}
    for container in containers:
        records, found = _known(container, night, cache)
        problems += found
        problems += _add(frames, container, records)
    cache.save()
    return NightIndex(night, tuple(frames[key] for key in sorted(frames)), problems)


def _add(frames: dict[Key, FrameRecord], container: Container, records: list[FrameRecord]) -> list[Problem]:
    """Add the frames of a container; one problem, however many of them are there already."""
    doubled = []
    for record in records:
        first = frames.setdefault((record.obsid, record.exp, record.ifuslot, record.amp), record)
        if first is not record:
            doubled.append(first.path)
    if not doubled:
        return []
    what = f"{len(doubled)} frame(s) that are there already, such as {doubled[0]}"
    return [Problem(clean_text(container.path, 400), what, "ignored: the first copy counts", "info")]
