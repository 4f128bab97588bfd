"""The plan: a graph of tasks, each one run of one notebook, made from the night's frames and the run definition."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..products.layout import Layout, program_name
from . import handplan, notebooks, skyplan, stages, targets
from .graph import Plan, PlanError, Task, task_id, text_digest
from .rundef import RunDefinition
from .stages import CHANNEL, EXPOSURE, NIGHT, STANDARD, TARGET, Stage

__all__ = ["NothingToReduceError", "Plan", "PlanError", "StandardStarError", "Task", "build", "task_id", "text_digest"]


class NothingToReduceError(RequestError):
    """The night holds nothing that fits the request."""


class StandardStarError(RequestError):
    """The standard star that was named cannot give a response."""


def build(definition: RunDefinition, layout: Layout, *, cache_dir: Path | None = None) -> Plan:
    """The plan of a night.

    Parameters
    ----------
    definition : RunDefinition
        What was asked; ``baseraw`` must be set.
    layout : Layout
        Where everything goes.
    cache_dir : Path, optional
        Where the frame index may be kept.

    Raises
    ------
    RequestError
        If the night is missing or nothing of it can be reduced as asked.
    """
    return _Builder(definition, layout, cache_dir).build()


class _Builder:
    """Makes the tasks of one plan, stage by stage."""

    def __init__(self, definition: RunDefinition, layout: Layout, cache_dir: Path | None) -> None:
        from .. import instrument, raw  # here, so that help and status need not wait for astropy

        self.instrument, self.raw = instrument, raw
        self.definition, self.layout, self.cache_dir = definition, layout, cache_dir
        self.archive = raw.NightArchive(definition.baseraw, cache_dir)
        # Asked for by itself first: the archive gives None for a missing night, this one says where it looked.
        self.index = self.archive.index(definition.night) or raw.index_night(definition.baseraw, definition.night)
        self.tasks: dict[str, Task] = {}
        self.notes: list[str] = []
        self.marks = handplan.Marks(definition)
        self.problems: list[str] = []
        self._note_problems(self.index.problems)

    def build(self) -> Plan:
        definition = self.definition
        sides = {name: self.instrument.channel(name) for name in definition.sides}
        self._check_central_wave(sides)
        choices = {name: self._associate(name) for name in sides}
        self._night_task("00_inventory", {"frames": self._frames_digest(choices)})
        broken: dict[str, str] = {}
        for name, channel in sides.items():
            broken[name] = self._calibration_tasks(channel, choices[name])
        exposures = {name: self._select(channel) for name, channel in sides.items()}
        self.notes += handplan.unmet(definition, self.index.exposures()) + self._unmet_marks()
        calibrations_only = bool(definition.until) and stages.find(definition.until).needs_no_exposure
        if not calibrations_only and not any(exposures.values()):
            raise NothingToReduceError(self._nothing_text())
        if all(broken.values()):
            raise NothingToReduceError("nothing can be reduced. " + " ".join(broken.values()))
        # A channel that reads what the other one of its arm shows comes after it.
        for channel in sorted(sides.values(), key=lambda c: self.instrument.leading_channel(c.name) in sides):
            self._exposure_tasks(channel, exposures)
        self._target_tasks(exposures)
        self._night_task("10_night", {})
        return Plan(self.tasks, self.notes, self.problems, definition.baseraw)

    # --- what there is ------------------------------------------------------------------------------------------------
    def _note_problems(self, problems: Iterable[Any]) -> None:
        """Keep damage in the raw data: what costs data of the night is a failure of the run, the rest a note."""
        for problem in problems:
            kept = self.problems if problem.severity == "warn" else self.notes
            if str(problem) not in kept:
                kept.append(str(problem))

    def _associate(self, channel: str) -> Any:
        definition = self.definition
        return self.raw.associate(
            definition.baseraw,
            definition.night,
            channel,
            cal_dates=definition.cal_dates,
            exclude=definition.exclude,
            use_flat=definition.use_flat,
            archive=self.archive,
        )

    def _frames_digest(self, choices: dict[str, Any]) -> str:
        """Digest of what the inventory leaves: the frames and where they lie, for later stages read them there."""
        frames = [record.to_dict() for record in self.index.frames]
        return text_digest([frames, {name: choice.to_dict() for name, choice in choices.items()}, self.problems])

    def _select(self, channel: Any) -> list[Any]:
        """Exposures to reduce on a channel, each once, in the order of time."""
        definition = self.definition
        found: dict[tuple[int, int], Any] = {}
        for kind in definition.kinds:
            selection = self.raw.select_science(
                self.index,
                channel.name,
                object_name=definition.object or None,
                obsid=definition.obsid,
                exp=definition.exp,
                kind=kind,
            )
            self._note_problems(selection.problems)
            for exposure in selection:
                if not handplan.left_out(definition, exposure):
                    found.setdefault((exposure.obsid, exposure.exp), exposure)
        chosen = sorted(found.values(), key=lambda e: (e.start, e.obsid, e.exp))
        chosen = chosen[:1] if definition.first else chosen
        sky = self._sky_exposure(channel)
        for exposure in (*self._named_standard(channel), *([sky] if sky else [])):
            if exposure not in chosen:
                chosen.append(exposure)
        return chosen

    def _sky_exposure(self, channel: Any) -> Any:
        """The exposure of this night that was named to give the sky."""
        obsid = self.definition.sky_obsid
        found = [] if obsid is None else self.raw.select_science(self.index, channel.name, obsid=obsid, kind="sci")
        return skyplan.exposure(self.definition, found)

    def _named_standard(self, channel: Any) -> list[Any]:
        """Exposures of the standard of this night that was named for the response."""
        definition = self.definition
        if definition.standard_star_date != definition.night:
            return []
        found = self.raw.select_science(self.index, channel.name, obsid=definition.standard_star_obsid, kind="sci")
        return [exposure for exposure in found if self._makes_response(exposure, channel)]

    def _makes_response(self, exposure: Any, channel: Any) -> bool:
        """Whether a response can be made from an exposure: a standard whose table reaches the channel, its light on this IFU."""
        standard = self.instrument.find_standard(exposure.object_name)
        return (
            exposure.kind == "sci" and exposure.on_target and standard is not None
            and standard.reaches(channel.wave_min, channel.wave_max)
        )  # fmt: skip

    def _nothing_text(self) -> str:
        definition = self.definition
        science = self.index.exposures("sci")
        names = sorted({exposure.object_name for exposure in science})
        asked = [f"OBJECT containing {definition.object!r}"] if definition.object else []
        asked += [f"obsid {definition.obsid}"] if definition.obsid is not None else []
        asked += [f"exposure {definition.exp}"] if definition.exp is not None else []
        what = " and ".join(asked) or f"a {' or '.join(definition.kinds)} exposure of {', '.join(definition.sides)}"
        there = f"its science exposures are of: {', '.join(names[:20])}" if names else "it has no science exposures"
        sides = ", ".join(definition.sides)
        text = f"nothing of night {definition.night} can be reduced on {sides} for the request ({what}); {there}"
        if self.problems:
            text += f"; raw data of the night that cannot be used: {'; '.join(self.problems[:5])}"
            text += f" and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
        return f"{text}: choose another -o, --obsid or -s (or fewer --leave-out), or copy damaged files again"

    def _check_central_wave(self, sides: dict[str, Any]) -> None:
        wave = self.definition.central_wave
        if wave is None:
            return
        outside = [name for name, channel in sides.items() if not channel.wave_min <= wave <= channel.wave_max]
        if len(outside) == len(sides):
            ranges = ", ".join(f"{name} {c.wave_min:.0f}-{c.wave_max:.0f} A" for name, c in sides.items())
            raise NothingToReduceError(f"--central_wave {wave:g} A lies in none of the channels asked for ({ranges})")
        if outside:
            self.notes.append(f"{wave:g} A lies outside {', '.join(outside)}: mid-channel is the window's centre there")

    # --- tasks --------------------------------------------------------------------------------------------------------
    def _night_task(self, stage_name: str, facts: dict[str, str]) -> None:
        stage = stages.find(stage_name)
        self._add(stage, {}, {}, self.layout.notebook(stage_name), facts=facts)

    def _calibration_tasks(self, channel: Any, choice: Any) -> str:
        """The tasks of a channel's calibrations; returns why the channel cannot be reduced, or nothing."""
        definition, broken = self.definition, ""
        for stage in (item for item in stages.STAGES if item.scope == CHANNEL):
            frames = [
                record
                for kind in stage.frames
                for exposure in choice.chosen.get(kind, ())
                for amp, record in sorted(exposure.amps.items())
                if amp in channel.amps
            ]
            problem = self._missing(stage, choice)
            broken = broken or problem
            self._add(
                stage,
                {"channel": channel.name},
                handplan.channel_options(definition, channel.name),
                self.layout.notebook(stage.name, channel.name),
                frames=tuple(frames),
                problem=problem,
            )
        return broken

    def _unmet_marks(self) -> list[str]:
        channels = self.instrument.CHANNELS.values()
        there = {handplan.marked_name(c.name, e) for c in channels for e in self.index.exposures(ifuslot=c.ifuslot)}
        return self.marks.unmet(there)

    def _missing(self, stage: Stage, choice: Any) -> str:
        """Why the calibration frames of a stage do not suffice; nothing when they do."""
        try:
            if "zro" in stage.frames:
                choice.require("zro")
            if "cmp" in stage.frames:
                choice.require("cmp")
            if "twi" in stage.frames:
                choice.illuminated()
        except self.raw.MissingCalibrationError as error:
            return str(error)
        return ""

    def _exposure_tasks(self, channel: Any, selected: dict[str, list[Any]]) -> None:
        exposures = selected[channel.name]
        standards = self._named_standard(channel)
        response = self._response(channel, standards)
        # Standards go first: their profiles help all others, and where a response was asked for, everything else waits for it.
        profiles = [e for e in exposures if self._shows_profile(e)]
        sky, mask = self._sky_exposure(channel), skyplan.mask_facts(self.definition)
        borrowers = [e for e in exposures if sky and self._choice_holds(e, sky, standards)]
        profiles = [e for e in profiles if e not in borrowers]
        first = [e for e in exposures if e in standards or e in profiles]
        first += [sky] if sky and sky not in first else []
        for exposure in first + [e for e in exposures if e not in first]:
            program = program_name(exposure.program, is_standard=exposure.is_standard)
            where = {"channel": channel.name, "obsid": exposure.obsid, "exposure": exposure.exp, "program": program}
            own = handplan.channel_options(self.definition, channel.name)
            own |= self._own_options(exposure, channel, is_response=exposure in standards)
            for stage in (item for item in stages.STAGES if item.scope in (EXPOSURE, STANDARD)):
                if stage.scope == STANDARD and not self._makes_response(exposure, channel):
                    continue
                uses_response = stage.name == "07_flux" and exposure not in standards
                more: dict[str, Any] = dict(response) if uses_response else {}
                chosen = self._choice_holds(exposure, sky, standards)
                if stage.name == "06_sky" and chosen:
                    more["facts"] = mask
                    if sky:
                        more["more_needs"] = (task_id("06_sky", channel.name, sky.obsid, sky.exp),)
                by_hand, facts = self.marks.of(stage, channel.name, exposure)
                if facts:
                    more["facts"] = facts
                self._add(
                    stage,
                    where,
                    own | by_hand | skyplan.own_options(stage, self.definition, sky, holds=chosen),
                    self.layout.notebook(stage.name, channel.name, exposure.obsid, exposure.exp, program),
                    frames=self._own_frames(stage, exposure, channel),
                    guider=exposure if stage.guider else None,
                    kind=exposure.kind,
                    hopes={} if exposure in profiles else self._hopes(stage, channel, exposure, profiles, selected),
                    **more,
                )

    @staticmethod
    def _shows_profile(exposure: Any) -> bool:
        """Whether an exposure shows the shape of a point source well: a standard on this IFU."""
        return exposure.kind == "sci" and exposure.on_target and exposure.is_standard

    def _hopes(
        self, stage: Stage, channel: Any, exposure: Any, profiles: list[Any], selected: dict[str, list[Any]]
    ) -> dict[str, str]:
        """What a stage may read of the night's standards, and of the arm's other channel: id of the task -> exposure."""
        if stage.hopes != "profile_from":
            return {}
        made = {task_id(stage.name, channel.name, e.obsid, e.exp): f"{e.obsid:07d}_exp{e.exp:02d}" for e in profiles}
        leader = self.instrument.leading_channel(channel.name)
        here = [(e.obsid, e.exp) for e in (exposure, *profiles)]
        for other in selected.get(leader or "", ()):
            if (other.obsid, other.exp) in here:
                name = task_id(stage.name, leader, other.obsid, other.exp)
                made[name] = f"{leader}/{other.obsid:07d}_exp{other.exp:02d}"
        return made

    def _target_tasks(self, exposures: dict[str, list[Any]]) -> None:
        """One task per target of a programme, over all channels and exposures that had their light on it."""
        known = targets.Earlier(self.layout, self._everywhere) if targets.reduced_before(self.layout) else None
        for stage in (item for item in stages.STAGES if item.scope == TARGET):
            for target in targets.find(exposures):
                earlier = known.of(target) if known else {}
                where = {"program": target.program, "target": target.name, "expected": len(target.hopes) + len(earlier)}
                notebook = self.layout.notebook(stage.name, program=target.program, target=target.name)
                self._add(stage, where, {}, notebook, hopes=target.hopes, earlier=earlier)

    def _everywhere(self) -> dict[str, list[Any]]:
        """All science exposures of the night by channel, asked for or not, but for those left out by hand."""
        found = {name: self.raw.select_science(self.index, name, kind="sci") for name in self.instrument.CHANNELS}
        return {name: [e for e in some if not handplan.left_out(self.definition, e)] for name, some in found.items()}

    def _own_frames(self, stage: Stage, exposure: Any, channel: Any) -> tuple[Any, ...]:
        if "sci" not in stage.frames:
            return ()
        return tuple(record for amp, record in sorted(exposure.amps.items()) if amp in channel.amps)

    def _own_options(self, exposure: Any, channel: Any, *, is_response: bool) -> dict[str, Any]:
        """Options as they hold for one exposure, where they differ from what was asked for the night."""
        definition = self.definition
        own: dict[str, Any] = {}
        if definition.central_wave is not None:
            inside = channel.wave_min <= definition.central_wave <= channel.wave_max
            own["central_wave"] = definition.central_wave if inside else None
        if self._is_mere_standard(exposure):
            own |= {"source_x": None, "source_y": None}  # the position was given for the target, not for its standards
        if is_response or not self._response_serves(channel):
            own |= {"standard_star_date": "", "standard_star_obsid": None}
            if definition.telluric == "standard":
                own["telluric"] = "none"
        return own

    def _is_mere_standard(self, exposure: Any) -> bool:
        """Whether an exposure is a standard that goes with the targets: what was asked for them does not hold for it."""
        return exposure.is_standard and self.definition.obsid is None and not self._is_asked_for(exposure)

    def _choice_holds(self, exposure: Any, sky: Any, standards: list[Any]) -> bool:
        """Whether the user's choice of sky and extraction is meant for an exposure."""
        return exposure != sky and exposure not in standards and not self._is_mere_standard(exposure)

    def _is_asked_for(self, exposure: Any) -> bool:
        name = self.definition.object.strip().lower()
        return bool(name) and name in exposure.object_name.lower()

    def _response_serves(self, channel: Any) -> bool:
        """Whether the standard that was named gives this channel a response."""
        definition = self.definition
        if not definition.standard_star_date:
            return False
        return definition.standard_star_date != definition.night or bool(self._named_standard(channel))

    def _response(self, channel: Any, standards: list[Any]) -> dict[str, Any]:
        """What the flux stage waits for or reads when a standard was named."""
        definition = self.definition
        date, obsid = definition.standard_star_date, definition.standard_star_obsid
        if not date:
            return {}
        if date == definition.night:
            if standards:
                return {"more_needs": tuple(task_id("08_standard", channel.name, e.obsid, e.exp) for e in standards)}
            everywhere = [e for e in self.index.exposures("sci") if e.obsid == obsid]
            if not everywhere:
                raise StandardStarError(
                    f"night {date} has no science exposure of obsid {obsid} (--standard_star_obsid)"
                )
            serving = [e for e in everywhere if self._has_table(e)]
            if not serving:
                raise StandardStarError(
                    f"obsid {obsid} of {date} is {everywhere[0].object_name!r}: no standard star with a published table"
                )
            self.notes.append(
                f"{channel.name}: standard {obsid} was on the other IFU, or its published magnitudes end before this channel, "
                "which keeps the default response"
            )
            return {}
        pattern = f"response_{date}_{obsid:07d}_exp*_{channel.name}.fits"
        found = sorted(self.layout.cals_dir.glob(pattern))
        if not found:
            return {
                "problem": f"{channel.name}: no response of standard {obsid} of {date} in {self.layout.cals_dir} "
                f"({pattern}): reduce that night first (panacea-nb reduce -d {date} -s {channel.name} --obsid {obsid})"
            }
        from ..products.digest import content_digest

        return {"facts": {f"response {path.name}": content_digest(path) for path in found}}

    def _has_table(self, exposure: Any) -> bool:
        standard = self.instrument.find_standard(exposure.object_name)
        return standard is not None and standard.has_table

    def _add(
        self,
        stage: Stage,
        where: dict[str, Any],
        own: dict[str, Any],
        notebook: Path,
        *,
        kind: str = "",
        more_needs: tuple[str, ...] = (),
        **parts: Any,
    ) -> None:
        channel, obsid, exp = where.get("channel", ""), where.get("obsid"), where.get("exposure")

        def name_of(other: str) -> str:
            scope = stages.find(other).scope
            if scope == NIGHT:
                return task_id(other)
            return task_id(other, channel) if scope == CHANNEL else task_id(other, channel, obsid, exp)

        values = {**{name: getattr(self.definition, name) for name in stage.options}, **own}
        options = {name: _plain(name, values[name]) for name in stage.options}
        source = notebooks.path(stage.name)
        declared = notebooks.declared_parameters(source)
        place = {"output": str(self.layout.output), "night": self.layout.night, "tag": self.layout.tag}
        if "baseraw" in declared:  # not every stage looks at the raw data
            place["baseraw"] = self.definition.baseraw
        if kind and "frame_kind" in declared:
            where = {**where, "frame_kind": kind}
        task = Task(
            id=task_id(stage.name, channel, obsid, exp, where["program"], where["target"])
            if stage.scope == TARGET
            else task_id(stage.name, channel, obsid, exp),
            stage=stage,
            source=source,
            notebook=notebook,
            parameters={**place, **where, **options},
            depends={"night": self.layout.night, **where, **options},
            needs=tuple(name_of(other) for other in stage.needs) + more_needs,
            after=tuple(name_of(other) for other in stage.after),
            **parts,
        )
        self.tasks[task.id] = task


def _plain(name: str, value: Any) -> Any:
    """The value of an option as a notebook takes it."""
    if name == "sides":
        return ",".join(value)
    if name == "standard_star_date":
        return value or None
    return list(value) if isinstance(value, tuple) else value
