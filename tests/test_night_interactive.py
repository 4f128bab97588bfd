"""Interactive reduction of a whole simulated night: what is seen is what `reduce --config choices.yaml` gives, bit by bit.

It runs in processes of its own: sums must be made in one thread, which numpy is told when it is first imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from conftest import panacea_nb

from panacea_nb.interactive.model import spectrum_digest
from panacea_nb.products import bundle
from panacea_nb.products.layout import Layout

pytestmark = [pytest.mark.slow, pytest.mark.long]

LOOK = """
import json, sys
from panacea_nb.interactive import single_threaded, there
from panacea_nb.interactive.choices import Choices
from panacea_nb.interactive.work import Work
output, night, raw, path, what = sys.argv[1:]
assert single_threaded()
work = Work(output, night, baseraw=raw, choices=path)
target = next(e for e in work.entries if e.ready and not e.is_standard and e.on_target and e.channel == "uv")
work.choices.set(object=target.object_name, sides="uv,orange", **json.loads(what).get("set", {}))
for name, options in json.loads(what).get("sky", {}).items():
    work.choices.set_sky(name, **options)
for name, options in json.loads(what).get("extract", {}).items():
    work.choices.set_extraction(name, **options)
seen = {}
for entry in work.of_target():
    if entry.on_target:
        shown = work.model(entry.channel, entry.name).show(work.choices)
        seen[f"{entry.channel}/{entry.name}"] = shown.digest()
work.save(seen)
json.dump(seen, sys.stdout)
"""
CHOICES = {
    "set": {
        "source_x": -0.6, "source_y": 0.8, "wavelength_bin": 25.0, "telluric": "mean", "sky_refine": "polynomial",
        "sky_exclude": "circle(3,-2,0.8)", "dead_fibers": {"uv": "12-14", "orange": "200"},
    },
    "sky": {"region": {"sky_region": "annulus(-1,1,2.4,4.5)"}},
    "extract": {"aperture": {"aperture": 1.8}},
}  # fmt: skip


def look(night, output: Path, path: Path, what: dict) -> dict[str, str]:
    """Make choices in a process of its own; digests of the spectra that it has seen."""
    root = str(Path(__file__).parents[1])
    command = [
        sys.executable,
        "-c",
        LOOK,
        str(output),
        night.layout.night,
        str(night.baseraw),
        str(path),
        json.dumps(what),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_what_is_seen_is_what_a_reduction_gives(reduced_night, tmp_path):
    output = tmp_path / "runs"
    shutil.copytree(reduced_night.layout.output, output, copy_function=os.link)
    path = tmp_path / "choices.yaml"
    seen = look(reduced_night, output, path, CHOICES)
    assert {label.partition("/")[0] for label in seen} == {"uv", "orange"}
    panacea_nb("reduce", "--config", path, "--jobs", 2, "--overwrite")
    made = {}
    for label in seen:
        channel, _, exposure = label.partition("/")
        (product,) = (output / "LRS2").rglob(f"spectrum_*_{exposure}_{channel}.fits")
        made[label] = spectrum_digest(fits.getdata(product))
    assert made == seen


def test_arc_lines_left_out_give_the_wavelengths_that_were_seen(reduced_night, tmp_path):
    from panacea_nb.interactive.checks import Arcs

    output = tmp_path / "runs"
    shutil.copytree(reduced_night.layout.output, output, copy_function=os.link)
    layout = Layout(output, reduced_night.layout.night)
    before = bundle.read(layout.work("03_wavelength", "uv"), "wavelength")["wavelength"]
    arcs = Arcs(layout, "uv")
    line = f"{arcs.lines['wavelength'][0]:.3f}"
    seen = arcs.solve(line).wavelength
    command = ["reduce", "-d", layout.night, "-s", "uv", "--baseraw", reduced_night.baseraw, "--output", output]
    panacea_nb(*command, "--until", "03", "--drop-lines", f"uv={line}", "--overwrite", "--first")
    made = bundle.read(layout.work("03_wavelength", "uv"), "wavelength")["wavelength"]
    assert np.abs(made - before).max() > 0
    assert np.abs(made - seen).max() < 1e-6  # bit by bit in one thread
