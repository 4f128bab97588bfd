"""What is there to work on: the nights of a root, the exposures of a night, and how far each has come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import instrument, raw
from ..products.layout import Layout, locate, program_name

READY = "05_extract"  # what has come this far can be worked on


@dataclass(frozen=True)
class Entry:
    """A science exposure on a channel.

    Attributes
    ----------
    channel, object_name, program : str; obsid, exposure : int
    on_target : bool, whether the light of the target fell on this channel's IFU
    is_standard : bool; exptime : float [s], 0 when the header does not tell
    stages : stages that have left their file
    """

    channel: str
    obsid: int
    exposure: int
    object_name: str
    program: str
    on_target: bool
    is_standard: bool
    exptime: float
    stages: tuple[str, ...]

    @property
    def name(self) -> str:
        """``0000012_exp01``, as exposures are named in choices."""
        return f"{self.obsid:07d}_exp{self.exposure:02d}"

    @property
    def ready(self) -> bool:
        return READY in self.stages

    @property
    def label(self) -> str:
        """The exposure in a few words."""
        return f"{self.obsid} exp {self.exposure}, {self.exptime:.0f} s" + (
            "" if self.ready else " (not extracted yet)"
        )


def entries(layout: Layout, baseraw: str | Path) -> list[Entry]:
    """Science exposures of a night on all channels of which something was reduced, in the order of time.

    Raises
    ------
    MissingNightError
        If the raw night is not there: exposures are chosen by their headers.
    """
    index = raw.index_night(locate(baseraw), layout.night, layout.work_dir / "index")
    found = []
    for channel in instrument.CHANNELS:
        if not layout.work("04_flat", channel).is_file():
            continue
        for exposure in raw.select_science(index, channel, kind="sci"):
            at = (channel, exposure.obsid, exposure.exp)
            stages = tuple(s for s in ("05_extract", "06_sky", "07_flux") if _left(layout, s, *at))
            program = program_name(exposure.program, is_standard=exposure.is_standard)
            about = (exposure.on_target, exposure.is_standard, float(exposure.exptime or 0.0), stages)
            found.append(Entry(*at, exposure.object_name, program, *about))
    return found


def _left(layout: Layout, stage: str, channel: str, obsid: int, exp: int) -> bool:
    path = layout.work(stage, channel, obsid, exp)
    return path.is_file() or path.with_suffix(".json").is_file()


def targets(found: list[Entry]) -> list[str]:
    """OBJECT of the exposures that can be worked on, targets before standards."""
    ready = [entry for entry in found if entry.ready]
    ordered = sorted(ready, key=lambda e: (e.is_standard, not e.on_target))
    return list(dict.fromkeys(entry.object_name for entry in ordered))
