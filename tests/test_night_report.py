"""The report of a whole night: time, size, programmes apart."""

from __future__ import annotations

import re
import resource
import shutil
import time

import pytest

from panacea_nb.report import build

pytestmark = pytest.mark.slow
CPU_SECONDS = 40.0  # twenty seconds on two cores
FOLDER_BYTES = 150e6
# The defaults of a notebook are those of the demo, whoever runs it.
DEFAULTS = re.compile(r"<summary>parameters and their defaults</summary>.*?</details>", re.DOTALL)


def spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def test_the_report_of_a_full_night_is_quick_and_small(reduced_night):
    layout = reduced_night.layout
    shutil.rmtree(layout.report_dir, ignore_errors=True)
    before, begun = spent(), time.monotonic()
    build(layout)
    print(f"the report took {time.monotonic() - begun:.1f} s, {spent() - before:.1f} s of CPU")
    assert spent() - before < CPU_SECONDS
    assert sum(path.stat().st_size for path in layout.report_dir.rglob("*") if path.is_file()) < FOLDER_BYTES


def test_programmes_see_their_own_only(reduced_night):
    layout = reduced_night.layout
    build(layout)
    reports = {path.parent.name: path for path in layout.output.glob("LRS2/*/report")}
    assert len(reports) >= 2
    for program, folder in reports.items():
        text = "\n".join(DEFAULTS.sub("", path.read_text(encoding="utf-8")) for path in folder.rglob("*.html"))
        assert program in text
        assert str(layout.output) not in text
        for other in reports.keys() - {program, "STANDARDS", "ORPHANS"}:
            assert other not in text, f"the report of {program} names {other}"
