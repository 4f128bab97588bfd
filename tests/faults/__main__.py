"""``make fault-test``: every fault of the catalog, one line each, and the table for the documentation."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from . import FAULTS
from .runner import Result, make_base, try_fault

MEANING = {0: "reduced", 1: "fails alone", 2: "refused"}
HEAD = """# Faults

What becomes of damaged nights. Written by `make fault-test DOCS=1`, which damages a simulated night in each of these ways, reduces
it, and checks how that ends: *refused* at once (exit code 2), *fails alone* (1: this exposure, or what the calibration serves;
everything else is done), or *reduced* (0; what was assumed is recorded in headers, verdict and report). In all cases the night's
other exposure comes out as without the fault, nothing is written outside of the output, and no task claims a success that it did
not have.

| damaged | how | ends | what is said |
|---|---|---|---|
"""


def main() -> int:
    """Run the faults that were asked for; 0 when all ended as they must."""
    parser = argparse.ArgumentParser(prog="make fault-test", description=__doc__)
    parser.add_argument("names", nargs="*", help="regular expressions of names (default all)")
    parser.add_argument("--base", help="folder for the undamaged night, used again (default: a temporary one)")
    parser.add_argument("--docs", help="write the table of outcomes into this file")
    asked = parser.parse_args()
    chosen = [f for f in FAULTS if not asked.names or any(re.search(name, f.name) for name in asked.names)]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="panacea_nb-faults-") as folder:
        base = make_base(Path(asked.base) if asked.base else Path(folder) / "base")
        for number, fault in enumerate(chosen):
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
    if asked.docs and not failed:
        write_table(Path(asked.docs), results, str(base.folder))
    print(f"{len(results) - failed} passed, {failed} failed")
    return int(failed > 0)


def write_table(path: Path, results: list[Result], base: str) -> None:
    """The outcomes as a page of the documentation."""
    rows = []
    for result in results:
        said = re.sub(r"/\S*/night/", "", result.said.replace(base, "")).replace("|", "\\|").replace("<", "&lt;")
        rows.append(
            f"| {result.fault.group} | {result.fault.what.replace('<', '&lt;')} | {MEANING[result.code]} | {said} |"
        )
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
