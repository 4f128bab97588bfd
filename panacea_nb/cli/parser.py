"""The options of every command; those of ``reduce`` are made from the fields of the run definition."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from .. import __version__
from ..workflow.rundef import RunDefinition
from . import commands

_ABOUT = "Reduce data of the LRS2 spectrograph (HET): raw nights become calibrated spectra through executed notebooks."

_EXIT_CODES = """\
exit codes: 0 all done; 1 something failed or is blocked, the rest is done; 2 the request is invalid or nothing can be
reduced; 3 interrupted, run again to go on. PANACEA_NB_DEBUG=1 shows tracebacks."""

_EXAMPLES = {
    "": """\
examples:
  panacea-nb simulate raw --date 20250115 --seed 1
  panacea-nb reduce -d 20250115 --baseraw raw
  panacea-nb status -d 20250115""",
    "reduce": """\
examples:
  panacea-nb reduce -d 20260115 -s orange --baseraw /data/LRS2
  panacea-nb reduce -d 20260115 -s uv,orange -o HD_19445 --output /data/reduced
  panacea-nb reduce -d 20260115 -cw 5007 -wb 20 --source_x 1.2 --source_y -0.4 --tag fixed
  panacea-nb reduce -d 20260115 --cal-date twi=20260113 --exclude 12,20260114:13
  panacea-nb reduce -d 20260115 --dry-run
  panacea-nb reduce -d 20260115 --redo sky
  panacea-nb reduce --config run.yaml --jobs 8
  panacea-nb reduce -d 20260115 --site tacc-lonestar6      on a compute node (idev)

A stage is named by its number, its word or both: 06, sky, 06_sky.""",
    "submit": """\
examples:
  panacea-nb submit -d 20260115 --site tacc-lonestar6 --output $SCRATCH/lrs2
  panacea-nb submit -d 20260115 -o HD_19445 --site my-cluster.yaml --nodes 2 --dry-run
  panacea-nb submit --from 20260101 --to 20260131 --site tacc-lonestar6 --dry-run
  panacea-nb submit --resume           look after all jobs here: submit again what was cut short

A range skips nights that are up to date, without data, or in a job already; the same command again goes on.""",
    "sites": """\
examples:
  panacea-nb sites                     all sites
  panacea-nb sites tacc-lonestar6      what it says and what follows""",
    "inspect": """\
example:
  panacea-nb inspect -d 20260115 -s orange --baseraw /data/LRS2""",
    "status": """\
examples:
  panacea-nb status                    all nights under runs/
  panacea-nb status -d 20260115        every task of a night, also while it runs""",
    "verify": """\
examples:
  panacea-nb verify                    all runs under runs/
  panacea-nb verify -d 20260115 --output /data/reduced

exit code 1: something is missing, altered, damaged, stale or foreign; the last lines say what to do.""",
    "report": """\
examples:
  panacea-nb report -d 20260115 --output /data/reduced
  panacea-nb report runs/NIGHTS/20260115 --target NGC4151 --single-file     one HTML file, for mail
  panacea-nb report runs/NIGHTS/20260115 --target NGC4151 --pdf""",
    "diff": """\
examples:
  panacea-nb diff runs/NIGHTS/20260115 runs/NIGHTS/20260115_offnucleus
  panacea-nb diff old/NIGHTS/20260115 new/NIGHTS/20260115 --target NGC4151 --file compared.html""",
    "trends": """\
example:
  panacea-nb trends runs""",
    "lab": """\
examples:
  panacea-nb lab                       opens the notebooks in the browser
  panacea-nb lab -- --no-browser --port 9999
  panacea-nb lab --container           in docker or podman, the port published on 127.0.0.1 only""",
    "simulate": """\
example:
  panacea-nb simulate raw --date 20250115 --seed 1 --sides uv,orange""",
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Room for the long names of the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=112)


def make_parser(asked: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Parameters
    ----------
    asked : sequence of str
        The command line: options that need a heavy import are made only for the command that has them.
    """
    parser = argparse.ArgumentParser(
        prog="panacea-nb",
        description=_ABOUT,
        epilog=f"{_EXAMPLES['']}\n\n{_EXIT_CODES}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"panacea_nb {__version__}")
    sub = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text, add in (
        ("simulate", "make a raw night with known truth", _simulate_options),
        ("inspect", "list a raw night and the calibrations that serve it", _inspect_options),
        ("reduce", "reduce a night", _reduce_options),
        ("submit", "submit batch jobs that reduce a night or many", _submit_options),
        ("sites", "list where reductions can run, or explain one", _sites_options),
        ("status", "show what became of every task of a night", _status_options),
        ("verify", "check every file of a run against its record", _verify_options),
        ("report", "build the report of a night, or one page of it as one file", _report_options),
        ("diff", "compare two reductions of the same data", _diff_options),
        ("trends", "follow read noise, throughput, shifts and residuals over nights", _trends_options),
        ("lab", "open JupyterLab on the notebooks", _lab_options),
    ):
        command = sub.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"{_EXAMPLES[name]}\n\n{_EXIT_CODES}",
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=getattr(commands, name))
        if name != "simulate" or name in asked[:1]:
            add(command)
    return parser


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    from .. import simulate

    simulate.add_arguments(parser)


def _definition_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Options of the run definition; what is not given stays away, so that a configuration file can supply it."""
    for item in dataclasses.fields(RunDefinition):
        if item.name not in names:
            continue
        about = item.metadata
        unit = f" [{about['unit']}]" if about["unit"] else ""
        text = f"{about['help']}{unit}{_default(item)}".replace("%", "%%")
        how: dict = {"dest": item.name, "help": text, "default": argparse.SUPPRESS}
        if item.type == "bool":
            how["action"] = "store_true"
        else:
            how["metavar"] = about["metavar"]
            how["action"] = "append" if about["repeat"] else "store"
        parser.add_argument(*about["flags"], **how)


def _default(item: dataclasses.Field) -> str:
    if (
        item.type == "bool"
        or item.default in ("", None, (), dataclasses.MISSING)
        or "(default" in item.metadata["help"]
    ):
        return ""
    value = ",".join(item.default) if isinstance(item.default, tuple) else item.default
    return f" (default: {value:g})" if isinstance(value, float) else f" (default: {value})"


def _reduce_options(parser: argparse.ArgumentParser) -> None:
    everything = [item.name for item in dataclasses.fields(RunDefinition)]
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="take options from this file (such as a run.yaml); the command line overrides it",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the plan and why each task would run")
    _definition_options(parser, everything)


def _submit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="first_night", metavar="DATE", help="first night of a range, YYYYMMDD")
    parser.add_argument("--to", dest="last_night", metavar="DATE", help="last night of a range, YYYYMMDD")
    parser.add_argument(
        "--time", metavar="HH:MM:SS", help="wall time of a job, at most (default: as estimated, up to the site's)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="submit again the jobs under --output that deserve it (a time limit, a lost node)",
    )
    parser.add_argument("--follow", metavar="JOB.json", help=argparse.SUPPRESS)  # the last line of a batch script
    _reduce_options(parser)


def _sites_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", metavar="NAME|FILE.yaml", help="explain this site")


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    _definition_options(parser, ["night", "sides", "baseraw", "use_flat", "cal_dates", "exclude"])


def _night_options(parser: argparse.ArgumentParser) -> None:
    _definition_options(parser, ["night", "output", "tag"])


def _status_options(parser: argparse.ArgumentParser) -> None:
    _night_options(parser)


def _verify_options(parser: argparse.ArgumentParser) -> None:
    _night_options(parser)


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "night_folder", nargs="?", metavar="RUN", help="folder of the run, ROOT/NIGHTS/DATE[_TAG]; or give -d"
    )
    _night_options(parser)
    _target_option(parser, "write the page of this target as one file (PROGRAM/NAME where two have the same name)")
    parser.add_argument("--single-file", action="store_true", help="one HTML file that needs no other, at most 10 MB")
    parser.add_argument("--pdf", action="store_true", help="a PDF instead, printed by an installed Chromium or Chrome")
    _file_option(parser, "(default: in the current folder, named after target and night)")


def _diff_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_a", metavar="RUN_A", help="folder of a run, ROOT/NIGHTS/DATE[_TAG]")
    parser.add_argument("run_b", metavar="RUN_B", help="the one that is compared with it")
    _target_option(parser, "compare this target only")
    _file_option(parser, "(default: diff_A_B.html in the current folder)")


def _trends_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root", nargs="?", default="runs", metavar="ROOT", help="output root of the nights (default: runs)"
    )


def _target_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--target", default="", metavar="NAME", help=text)


def _file_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--file", default="", metavar="FILE", help=f"where to write it {text}")


def _lab_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="folder to open (default: notebooks/ of the checkout; without one, copies of them in ./notebooks)",
    )
    parser.add_argument(
        "--container",
        action="store_true",
        help="in a container with a network of its own: listen on all addresses of it, with a token; publish the port on "
        "127.0.0.1 only, as containers/README.md shows",
    )
    parser.add_argument("extra", nargs="*", metavar="OPTION", help="further options for JupyterLab, after --")
