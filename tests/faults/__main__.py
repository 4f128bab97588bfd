"""``make fault-test``: every fault of the table, one line each; ``--docs`` writes the table for the documentation."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from . import FAULTS
from .runner import make_base, try_fault

MEANING = {0: "reduced", 1: "fails alone", 2: "refused"}
HEAD = """# Faults

What becomes of damaged nights. `make fault-test` damages a simulated night in each of these ways, reduces it, and checks how that
ends: *refused* at once (exit code 2), *fails alone* (1: this exposure, or what the calibration serves; everything else is done), or
*reduced* (0; what was assumed or left out is recorded in headers, verdict and report). In all cases the night's other exposure
comes out as without the fault, nothing is written outside of the output, a sentence says what is wrong, and no task claims a
success that it did not have. `make fault-test DOCS=1` writes this table.

| damaged | how | ends |
|---|---|---|
"""


def main() -> int:
    """Run the faults that were asked for; 0 when all ended as they must."""
    parser = argparse.ArgumentParser(prog="make fault-test", description=__doc__)
    parser.add_argument("names", nargs="*", help="regular expressions of names (default all)")
    parser.add_argument("--base", help="folder for the undamaged night, used again (default: a temporary one)")
    parser.add_argument("--docs", help="only write the table into this file")
    asked = parser.parse_args()
    if asked.docs:
        Path(asked.docs).write_text(table(), encoding="utf-8")
        return 0
    chosen = [f for f in FAULTS if not asked.names or any(re.search(name, f.name) for name in asked.names)]
    results = []
    with tempfile.TemporaryDirectory(prefix="panacea_nb-faults-") as folder:
        base = make_base(Path(asked.base) if asked.base else Path(folder) / "base")
        for number, fault in enumerate(chosen):
            if fault.root and os.geteuid() != 0:
                print(f"SKIP {fault.name}: only root can make such surroundings")
                continue
            place = Path(folder) / f"{number:03d}"  # not its name: words of the table must not be found in paths
            place.mkdir()
            result = try_fault(base, place, fault)
            results.append(result)
            word = "FAIL" if result.problems else "PASS"
            print(f"{word} {fault.name} ({result.seconds:.0f} s), exit code {result.code}: {result.said}")
            for problem in result.problems:
                print(f"     {problem}")
            sys.stdout.flush()
    failed = sum(bool(result.problems) for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return int(failed > 0)


def table() -> str:
    """The faults and how they end, as a page of the documentation."""
    rows = []
    for fault in FAULTS:
        what = fault.what.replace("|", "\\|").replace("<", "&lt;")
        rows.append(f"| {fault.group} | {what} | {MEANING[fault.ends]} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
