"""Which exposures of a night are to be reduced."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import RequestError
from ..instrument import Channel
from ..instrument import channel as channel_by_name
from .archive import Problem
from .frames import Exposure
from .index import NightIndex

REDUCIBLE = ("sci", "drk", "flt", "eng")


class Selection(list[Exposure]):
    """Exposures in order of their start, with the problems of those that had to be left out.

    Parameters
    ----------
    exposures : iterable of Exposure
        Each holds the two amplifiers of the channel alone.
    problems : iterable of Problem
        One per exposure that was asked for and cannot be reduced on this channel.
    """

    def __init__(self, exposures: Iterable[Exposure] = (), problems: Iterable[Problem] = ()) -> None:
        super().__init__(exposures)
        self.problems = list(problems)


def select_science(
    index: NightIndex,
    channel: str | Channel,
    *,
    object_name: str | None = None,
    obsid: int | None = None,
    exp: int | None = None,
    kind: str = "sci",
) -> Selection:
    """Exposures of a night to reduce on a channel.

    Without a name: all exposures of the kind on the channel's IFU, also where that IFU was on blank sky.  With a
    name: those whose OBJECT contains it, without case, and, so that a response can be made, the night's standards
    whose OBJECT puts them on this IFU (science only, and only when neither `obsid` nor `exp` narrows the choice).  A
    name that nothing on this channel has selects nothing, no standard either.

    Parameters
    ----------
    index : NightIndex
        The night.
    channel : str or Channel
        Channel.
    object_name : str, optional
        Part of OBJECT.
    obsid, exp : int, optional
        A single observation, exposure.
    kind : str
        ``sci``; or ``drk``, ``flt``, ``eng`` to reduce those as science.

    Returns
    -------
    Selection
        A list of exposures; its ``problems`` name those left out because an amplifier is missing or the binnings of
        the two amplifiers differ.

    Raises
    ------
    RequestError
        If the channel or the kind is unknown.
    """
    if kind not in REDUCIBLE:
        raise RequestError(f"frames of type {kind!r} are not reduced as science: {', '.join(REDUCIBLE)}")
    of = channel_by_name(channel) if isinstance(channel, str) else channel
    candidates = [
        exposure
        for exposure in index.exposures(kind, of.ifuslot)
        if obsid in (None, exposure.obsid) and exp in (None, exposure.exp)
    ]
    name = (object_name or "").strip().lower()
    if name:
        named = [name in exposure.object_name.lower() for exposure in candidates]
        standards = kind == "sci" and obsid is None and exp is None and any(named)
        candidates = [
            exposure
            for exposure, matches in zip(candidates, named, strict=True)
            if matches or (standards and exposure.is_standard and exposure.on_target)
        ]
    selection = Selection()
    for exposure in candidates:
        missing = exposure.missing(of.amps)
        effect = f"the exposure is not reduced on {of.name}"
        where = f"{exposure.label} {exposure.object_name}".strip()
        if missing:
            what = f"no frame of amplifier {' and '.join(missing)}, which {of.name} needs: see that the night was copied whole"
            selection.problems.append(Problem(where, what, effect))
        elif exposure.only(of.amps).binning == "mixed":
            selection.problems.append(Problem(where, "its amplifiers have different binnings", effect))
        else:
            selection.append(exposure.only(of.amps))
    return selection
