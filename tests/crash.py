"""``make crash-test``: kill -9 at random moments, hundreds of times, of all kinds of processes of small nights.

After each kill whatever claims success must be right, after the end of a killed driver nobody of its run may live, and each night
must at last, run again as often as needed, have the products of an undisturbed one and nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import toy_workflow as toy
from test_kill import check_finished, check_records, gone, of_kind, start, token_of, worker_of

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import lock

KINDS = ("driver", "worker", "kernel", "pool", "interchange")
PAUSE = 2.0  # s at most between two kills


def one_night(out: Path, chance: random.Random, struck: Counter, wanted: int) -> int:
    """Kill and run again until the night is done; returns how often it was started."""
    for starts in range(1, 1000):
        driver = start(out, 2, kernels=chance.choice(("plain", "fork")))
        token = token_of(out, driver)
        scratch = lock.read_owner(Layout(out, toy.TOY_NIGHT).night_dir).scratch
        for _ in range(chance.randint(2, 8)):
            time.sleep(chance.uniform(0.0, PAUSE))
            if struck.total() >= wanted or driver.poll() is not None:
                break
            kind = chance.choice(KINDS)
            pids = [driver.pid] if kind == "driver" else worker_of(out) if kind == "worker" else of_kind(token, kind)
            for pid in pids[:1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                struck[kind] += 1
            check_records(out)
            if kind == "driver":
                break
        driver.communicate(timeout=180)
        check_records(out)
        gone(token, scratch)
        if driver.returncode == 0:
            check_finished(out)
            return starts
    raise AssertionError("the night does not come to an end")


def main() -> int:
    """Kill as often as asked; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="make crash-test", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the moments and choices (default: drawn and shown)")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    chance, struck, nights, starts = random.Random(seed), Counter(), 0, 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="panacea_nb-crash-") as folder:
        while struck.total() < asked.kills:
            out = Path(folder) / f"night{nights}"
            starts += one_night(out, chance, struck, asked.kills)
            nights += 1
            shutil.rmtree(out)
            told = ", ".join(f"{struck[kind]} {kind}" for kind in KINDS)
            print(f"{struck.total()} kills ({told}), {nights} nights in {starts} starts, nothing lost", flush=True)
    print(f"{struck.total()} kills survived, 0 lost, in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
