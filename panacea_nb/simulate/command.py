"""The command ``panacea-nb simulate``: its options, and what it does with them."""

from __future__ import annotations

import argparse
import time

from ..instrument import CHANNELS
from .night import simulate_night
from .scenario import DEMO_SIDES, LAYOUTS, SCENARIOS, scenario

HELP = "simulate a raw night with known truth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simulate`` to a parser."""
    parser.add_argument("out", metavar="OUT", help="root of the raw archive to write into: the night goes to OUT/DATE")
    parser.add_argument("--date", required=True, metavar="YYYYMMDD", help="night to simulate")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="changes every truth of the night (default 1)")
    parser.add_argument(
        "--sides", metavar="CHANNELS",
        help=f"comma-separated channels among {', '.join(CHANNELS)} (default all; for the demo {','.join(DEMO_SIDES)})",
    )  # fmt: skip
    parser.add_argument(
        "--scenario", choices=sorted(SCENARIOS), default="test",
        help="what the night holds: demo (a standard and a faint target on LRS2-B), test (default; for each arm a "
        "standard, a faint target twice and a galaxy), full (three targets and a standard per arm), calibrations "
        "(nothing else), stress-... (nights that are hard in the one respect of their name)",
    )  # fmt: skip
    parser.add_argument(
        "--seeing",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="range of the seeing, FWHM [arcsec] at 5000 A (1.2 2.0)",
    )
    parser.add_argument("--sky", choices=("dark", "grey", "bright"), help="moonlight (default dark)")
    parser.add_argument("--binning", choices=("1x1", "2x1"), help="binning of columns x rows (default 1x1)")
    parser.add_argument(
        "--layout", choices=LAYOUTS, help="how the night lies on disk (default tar: one file per observation)"
    )
    parser.add_argument("--no-guider", action="store_true", help="write no guide-camera frames")
    parser.add_argument(
        "--cosmic-rate", type=float, metavar="R", help="cosmic rays per second and amplifier (default 0.05)"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")


def run(args: argparse.Namespace) -> int:
    """Simulate the night that the options ask for; returns the exit code.

    Raises
    ------
    RequestError
        If the request is invalid.
    """
    changes: dict[str, object] = {}
    if args.seeing:
        changes["seeing"] = tuple(args.seeing)
    if args.binning:
        changes["binning"] = int(args.binning[0])
    if args.no_guider:
        changes["guider"] = False
    changes |= {k: getattr(args, k) for k in ("sky", "layout", "cosmic_rate") if getattr(args, k) is not None}
    sides = args.sides or (DEMO_SIDES if args.scenario == "demo" else tuple(CHANNELS))
    begin = time.monotonic()
    path = simulate_night(args.out, args.date, args.seed, sides, scenario(args.scenario, **changes), args.jobs)
    print(f"Simulated night: {path} ({time.monotonic() - begin:.0f} s), truth in {path / 'truth'}")
    return 0
