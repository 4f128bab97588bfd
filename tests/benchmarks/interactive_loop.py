"""How long the interactive panel takes from a change to the redrawn pictures, on a reduced night.

    PYTHONPATH=tests python -m benchmarks.interactive_loop runs/demo 20250115 runs/demo/raw

Goals: 0.5 s for another place of the source, 2 s for another sky region (its first look; the exact one follows).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from panacea_nb.interactive import draw
from panacea_nb.interactive.model import ExposureModel
from panacea_nb.interactive.work import Work

REPEATS = 5


def pictures(model: ExposureModel, work: Work, *, first_look: bool = False, spectrum_only: bool = False) -> None:
    """What the panel does after a change; the spectrum comes first."""
    shown = model.show(work.choices, first_look=first_look)
    draw.spectrum(shown)
    if spectrum_only:
        return
    image, spaxels = model.image(shown)
    draw.field(shown, image, spaxels, {"sky": work.choices.sky_region}, "")
    draw.residual(shown)


def timed(what: str, change: Callable[[int], object], show: Callable[[], None], goal: float | None) -> bool:
    """Print the median of the times; whether the goal is met."""
    wall, cpu = [], []
    for turn in range(REPEATS):
        change(turn)
        start = time.perf_counter(), time.process_time()
        show()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    middle = sorted(wall)[REPEATS // 2]
    aim = f", goal {goal:.1f} s" if goal else ""
    print(f"{what:28} {middle:5.2f} s (best {min(wall):.2f}, CPU {sorted(cpu)[REPEATS // 2]:.2f}){aim}")
    return goal is None or middle <= goal


def main(output: str, night: str, baseraw: str) -> int:
    """Measure; 1 when a goal is missed."""
    work = Work(output, night, baseraw=baseraw, choices="no such file")
    entry = work.of_target()[0]
    model = work.model(entry.channel, entry.name)
    pictures(model, work)
    chosen = work.choices

    def place(turn: int) -> None:
        chosen.set(source_x=0.1 * turn - 1.0, source_y=1.0)

    def region(turn: int) -> None:
        chosen.set_sky("region", sky_region=f"annulus({0.1 * turn - 1.0:.1f},1,2.5,4.5)")

    met = [
        timed("another place, spectrum", place, lambda: pictures(model, work, spectrum_only=True), 0.5),
        timed("another place, all pictures", place, lambda: pictures(model, work), None),
        timed(
            "another window",
            lambda k: chosen.set(central_wave=model.wave_ref + 5 * k),
            lambda: pictures(model, work),
            0.5,
        ),
        timed("another sky, first look", region, lambda: pictures(model, work, first_look=True), 2.0),
        timed("another sky, exact", region, lambda: pictures(model, work), None),
    ]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
