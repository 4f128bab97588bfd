"""Which calibrations serve a night: the windows, the controller swap, and the user's own word.

Nights are looked through from the nearest outwards, and only as many as are needed: bias from the night and the one
before; dark, twilight, internal flat and arc from up to 7 days before to 7 days after.  Only a window without any is
widened, a day at a time.  A night that is not in the archive is nothing unusual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

from ..decisions import Decision
from ..errors import RequestError
from ..instrument import CONTROLLER_SWAP, Channel
from ..instrument import channel as channel_by_name
from .archive import MissingNightError
from .choice import CalibrationChoice, Rejection, lamp_family, lamp_name
from .frames import Exposure
from .index import NightIndex, index_night
from .names import KINDS, night_date, shift_night


@dataclass(frozen=True)
class Window:
    """Where one kind of calibration is looked for.

    Parameters
    ----------
    before, after : int
        Days before and after the night.
    widest : int
        Days on both sides to which a window without any is widened.
    enough : int
        Exposures after which no farther night is looked through.
    most : int
        Exposures that are taken at most, the nearest in time.
    """

    before: int
    after: int
    widest: int
    enough: int
    most: int


WINDOWS = {
    # A hundred frames bring the noise of the master bias to a tenth of the read noise.  Bias structure drifts within
    # weeks.
    "zro": Window(before=1, after=0, widest=15, enough=100, most=100),
    # Darks are a refinement: never hunted for beyond the window.
    "drk": Window(before=7, after=7, widest=7, enough=10, most=30),
    # Three twilights outvote a cosmic ray; frames of one night are preferred to more of several, because traces move
    # between nights.  Fibre throughput and traces of a month ago are still usable, older ones are the user's to
    # choose.
    "twi": Window(before=7, after=7, widest=30, enough=3, most=15),
    "flt": Window(before=7, after=7, widest=30, enough=3, most=15),
    # `most` counts per lamp; how many are enough is a matter of lamps, not of numbers.
    "cmp": Window(before=7, after=7, widest=30, enough=1, most=8),
}
# Middle of the HET's observing night, for a night without science.
_NIGHT_CENTRE = time(6)


class NightArchive:
    """Indexes of the nights of one archive, each made once; share it between the channels of a night.

    Parameters
    ----------
    baseraw : str or Path
        Root of the raw archive.
    cache_dir : str, Path or None
        Where indexes are kept on disk.
    """

    def __init__(self, baseraw: str | Path, cache_dir: str | Path | None = None) -> None:
        self.baseraw, self.cache_dir = baseraw, cache_dir
        self._indexes: dict[str, NightIndex | None] = {}

    def index(self, night: str) -> NightIndex | None:
        """Index of a night, None when there are no data of it."""
        if night not in self._indexes:
            try:
                self._indexes[night] = index_night(self.baseraw, night, self.cache_dir)
            except MissingNightError:
                self._indexes[night] = None
        return self._indexes[night]


def _after_swap(night: str) -> bool:
    """Whether a night lies after the controllers' exchange; the night of it still has the old ones, as in Panacea."""
    return night > CONTROLLER_SWAP


def _excluded(exclude: Iterable[int | str]) -> set[tuple[str, int]]:
    """Observations to leave out as (night, number), the night empty for any."""
    pairs = set()
    for item in exclude:
        night, _, number = str(item).rpartition(":")
        if not number.isdecimal():
            raise RequestError(f"--exclude {item}: write an observation as a number, or as YYYYMMDD:number")
        if night:
            night_date(night)
        pairs.add((night, int(number)))
    return pairs


class _Search:
    """One association at work."""

    def __init__(
        self,
        archive: NightArchive,
        index: NightIndex,
        chosen_channel: Channel,
        exclude: Iterable[int | str],
        binning: str | None,
    ) -> None:
        self.archive, self.index, self.channel = archive, index, chosen_channel
        self.exclude = _excluded(exclude)
        self.used_exclusions: set[tuple[str, int]] = set()
        science = index.exposures("sci", chosen_channel.ifuslot)
        self.choice = CalibrationChoice(chosen_channel.name, index.night, "", chosen_channel.amps)
        self.choice.binning = binning or self._binning(science)
        middle = datetime.combine(night_date(index.night), _NIGHT_CENTRE)
        self.reference = science[len(science) // 2].start if science else middle
        self._noted: set[str] = set()

    def decide(self, code: str, text: str, severity: str = "warn") -> None:
        self.choice.decisions.append(Decision(code, text, severity))

    def reject(self, exposure: Exposure, reason: str) -> None:
        self.choice.rejected.append(Rejection.of(exposure, reason))

    def _binning(self, science: list[Exposure]) -> str:
        """Binning of most science exposures of the IFU; of most frames where there are none."""
        counts = Counter(e.binning for e in science if e.binning != "mixed")
        if len(counts) > 1:
            text = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
            first = counts.most_common(1)[0][0]
            text = f"science exposures of night {self.index.night} have several binnings ({text})"
            self.decide("MIXEDBIN", f"{text}: calibrations are for {first}, the others get none")
        if not counts:
            counts = Counter(frame.binning for frame in self.index.select(ifuslot=self.channel.ifuslot))
        return counts.most_common(1)[0][0] if counts else "1x1"

    def distance(self, exposure: Exposure) -> timedelta:
        return abs(exposure.start - self.reference)

    def _refusal(self, exposure: Exposure) -> str | None:
        for night in ("", exposure.night):
            if (night, exposure.obsid) in self.exclude:
                self.used_exclusions.add((night, exposure.obsid))
                return "excluded by the user (--exclude)"
        missing = exposure.missing(self.channel.amps)
        if missing:
            return f"no frame of amplifier {' and '.join(missing)}"
        binning = exposure.only(self.channel.amps).binning
        if binning != self.choice.binning:
            return f"binning {binning} instead of {self.choice.binning}"
        if exposure.kind == "cmp" and lamp_name(exposure) not in self.channel.lamps:
            return f"lamp '{lamp_name(exposure)}' does not serve {self.channel.name} ({', '.join(self.channel.lamps)})"
        return None

    def usable(self, kind: str, night: str) -> list[Exposure]:
        """Exposures of a night that could serve; the others are rejected."""
        index = self.index if night == self.index.night else self.archive.index(night)
        if index is None:
            return []
        if index is not self.index and night not in self._noted:
            self._noted.add(night)
            self.choice.problems += [p for p in index.problems if p.severity == "warn"]
        found = []
        for exposure in index.exposures(kind, self.channel.ifuslot):
            reason = self._refusal(exposure)
            if reason:
                self.reject(exposure, reason)
            else:
                found.append(exposure.only(self.channel.amps))
        return found

    def window(self, kind: str, enough: Callable[[list[Exposure]], bool]) -> list[Exposure]:
        """Usable exposures of the nearest nights, until there are enough of them or the window ends."""
        rule, night = WINDOWS[kind], self.index.night
        found: list[Exposure] = []
        seen: list[int] = []
        for radius in range(rule.widest + 1):
            within = [d for d in {-radius, radius} if -rule.before <= d <= rule.after]
            if not within:
                break
            found += self._look(kind, within, seen)
            if enough(found):
                break
        for radius in range(1, rule.widest + 1):
            if found:
                break
            found += self._look(kind, {-radius, radius} - set(seen), seen)
            if found:
                usual = f"{rule.before} days before to {rule.after} after"
                text = f"no {KINDS[kind]} from {usual} night {night}: window widened to {radius} days on both sides"
                self.decide(f"WIDE{kind.upper()}", text)
        self.choice.searched[kind] = shift_night(night, min(seen)), shift_night(night, max(seen))
        return found

    def _look(self, kind: str, days: Iterable[int], seen: list[int]) -> list[Exposure]:
        found = []
        for day in sorted(days):
            night = shift_night(self.index.night, day)
            if _after_swap(night) != _after_swap(self.index.night):
                side = "after" if _after_swap(night) else "before"
                if self.archive.index(night) is not None:
                    reason = f"{side} the exchange of the detector controllers (night {CONTROLLER_SWAP})"
                    self.choice.rejected.append(Rejection(kind, f"night {night}", reason, night))
                continue
            seen.append(day)
            found += self.usable(kind, night)
        return found

    def nearest(self, found: list[Exposure], most: int) -> list[Exposure]:
        """The `most` exposures nearest in time, in order of time; the rest is rejected."""
        ranked = sorted(found, key=lambda e: (self.distance(e), e.start, e.obsid, e.exp))
        for exposure in ranked[most:]:
            self.reject(exposure, f"{most} are enough, and others are nearer in time")
        return sorted(ranked[:most], key=lambda e: (e.start, e.obsid, e.exp))

    def arcs(self, found: list[Exposure]) -> list[Exposure]:
        """All arcs of the nearest night that has every lamp family; else the nearest night of each family.

        One night is preferred to several, because the spectrum moves on the detector between nights.
        """
        families = {lamp_family(lamp) for lamp in self.channel.lamps}
        nights: dict[str, list[Exposure]] = {}
        for exposure in sorted(found, key=self.distance):
            nights.setdefault(exposure.night, []).append(exposure)
        complete = [night for night in nights if families_of(nights[night]) >= families]
        if complete:
            taken = [(e, complete[0]) for e in nights[complete[0]]]
        else:
            home = {family: night for night in reversed(nights) for family in families_of(nights[night])}
            taken = [(e, night) for night in nights for e in nights[night] if home[lamp_family(lamp_name(e))] == night]
            self._explain_arcs(families, home)
        kept = {id(exposure) for exposure, _ in taken}
        for exposure in found:
            if id(exposure) not in kept:
                nights_taken = ", ".join(dict.fromkeys(night for _, night in taken))
                self.reject(exposure, f"arcs of night {nights_taken} are nearer, or have more of the lamps")
        by_lamp: dict[str, list[Exposure]] = {}
        for exposure, _ in taken:
            by_lamp.setdefault(lamp_name(exposure), []).append(exposure)
        chosen = [e for exposures in by_lamp.values() for e in self.nearest(exposures, WINDOWS["cmp"].most)]
        return sorted(chosen, key=lambda e: (e.start, e.obsid, e.exp))

    def _explain_arcs(self, families: set[str], home: dict[str, str]) -> None:
        if home and len(set(home.values())) > 1:
            text = ", ".join(f"{family} of {night}" for family, night in sorted(home.items()))
            self.decide("ARCNIGHTS", f"no night has arcs of all lamps; they are taken from several: {text}")
        if home and families - home.keys():
            first, last = self.choice.searched["cmp"]
            missing = " and ".join(sorted(families - home.keys()))
            self.decide("ARCLAMPS", f"no arc of {missing} from {first} to {last}: the wavelength solution does without")

    def dated(self, kind: str, night: str) -> list[Exposure]:
        """Usable exposures of the night that the user named."""
        self.choice.searched[kind] = (night, night)
        self.decide("CALDATE", f"{KINDS[kind]} of night {night}, as asked for by --cal-date", "info")
        if _after_swap(night) != _after_swap(self.index.night):
            text = f"{KINDS[kind]} of night {night} serves {self.index.night}, as asked for by --cal-date"
            self.decide("CALSWAP", f"{text}, although the detector controllers were exchanged on {CONTROLLER_SWAP}")
        if night != self.index.night and self.archive.index(night) is None:
            self.decide("CALDATE", f"there are no raw data of night {night}, asked for by --cal-date {kind}={night}")
        return self.usable(kind, night)

    def settle_trace(self, use_flat: bool) -> None:
        """Twilight or internal flat for traces and throughput."""
        twilights, flats = bool(self.choice.chosen["twi"]), bool(self.choice.chosen["flt"])
        if use_flat and flats:
            self.choice.trace_kind = "flt"
            self.decide("USEFLAT", "internal flats instead of twilights, as asked for by --use_flat", "info")
        elif use_flat and twilights:
            self.choice.trace_kind = "twi"
            self.decide("NOFLAT", "--use_flat was asked for, but there is no internal flat: twilights are used")
        elif twilights:
            self.choice.trace_kind = "twi"
        elif flats:
            self.choice.trace_kind = "flt"
            text = "there is no twilight: internal flats are used, whose light does not come through the telescope"
            self.decide("NOTWI", text)

    def finish(self) -> CalibrationChoice:
        """The choice, with a word on exclusions that met nothing."""
        for night, obsid in sorted(self.exclude - self.used_exclusions):
            name = f"{night}:{obsid}" if night else f"{obsid}"
            text = (
                f"--exclude {name} had no effect, as it is no calibration that was looked at for {self.channel.name}: "
                f"to leave out a science exposure use --leave-out {obsid}"
            )
            self.decide("EXCLUDE", text, "info")
        return self.choice


def families_of(arcs: Iterable[Exposure]) -> set[str]:
    """Lamp families of these arcs."""
    return {lamp_family(lamp_name(exposure)) for exposure in arcs}


def associate(
    baseraw: str | Path,
    night: str,
    channel: str | Channel,
    *,
    cal_dates: Mapping[str, str] | None = None,
    exclude: Iterable[int | str] = (),
    cache_dir: str | Path | None = None,
    use_flat: bool = False,
    binning: str | None = None,
    archive: NightArchive | None = None,
) -> CalibrationChoice:
    """Choose the calibrations of a channel of a night.

    An exposure serves when it has both amplifiers of the channel, the binning of the night's science, lies on the
    same side of the controllers' exchange, is not excluded, and (arcs) is of a lamp of the channel.  The nearest in
    time are taken, at most as many as `WINDOWS` says.  Arcs come from the nearest night that has every lamp family
    (Hg, Cd, FeAr) of the channel; where no night of the window has, each family comes from the nearest night that has
    it.

    Parameters
    ----------
    baseraw : str or Path
        Root of the raw archive.
    night : str
        YYYYMMDD; must exist.
    channel : str or Channel
        Channel to serve.
    cal_dates : mapping, optional
        Night to take a kind from, by kind: replaces window and controllers' rule.
    exclude : iterable of int or str, optional
        Observations not to use: a number (of whatever night) or ``YYYYMMDD:number``.
    cache_dir : str, Path or None
        Where night indexes are kept.
    use_flat : bool
        Internal flats instead of twilights for traces and throughput.
    binning : str, optional
        ``1x1`` or ``2x1`` instead of the one of most science exposures.
    archive : NightArchive, optional
        Replaces `baseraw` and `cache_dir`; share it to index neighbouring nights once for all channels.

    Returns
    -------
    CalibrationChoice
        Kinds that do not exist are empty there; `CalibrationChoice.require` complains about them.

    Raises
    ------
    MissingNightError
        If there is nothing of the night itself.
    RequestError
        If the channel, a kind or date of `cal_dates`, or an item of `exclude` makes no sense.
    """
    dates = dict(cal_dates or {})
    for kind, date in dates.items():
        if kind not in WINDOWS:
            raise RequestError(f"--cal-date {kind}={date}: the type is one of {', '.join(WINDOWS)}")
        night_date(date)
    chosen_channel = channel_by_name(channel) if isinstance(channel, str) else channel
    archive = archive or NightArchive(baseraw, cache_dir)
    index = archive.index(night)
    if index is None:
        index = index_night(archive.baseraw, night, archive.cache_dir)
    search = _Search(archive, index, chosen_channel, exclude, binning)
    families = {lamp_family(lamp) for lamp in chosen_channel.lamps}
    for kind, rule in WINDOWS.items():

        def enough(found: list[Exposure], kind: str = kind, number: int = rule.enough) -> bool:
            if kind == "cmp":
                nights = {exposure.night for exposure in found}
                return any(families_of(e for e in found if e.night == n) >= families for n in nights)
            return len(found) >= number

        found = search.dated(kind, dates[kind]) if kind in dates else search.window(kind, enough)
        search.choice.chosen[kind] = search.arcs(found) if kind == "cmp" else search.nearest(found, rule.most)
    search.settle_trace(use_flat)
    return search.finish()
