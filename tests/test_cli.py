"""The command line: its options, its refusals in one line, its exit codes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_workflow as toy

from panacea_nb.cli import commands, main, parser
from panacea_nb.errors import PanaceaError, RequestError
from panacea_nb.products import image
from panacea_nb.workflow import runs
from panacea_nb.workflow.driver import Outcome
from panacea_nb.workflow.rundef import RunDefinition

NIGHT = "20250115"
CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def asked(monkeypatch):
    """The run definitions that ``reduce`` was called with."""
    found: list[RunDefinition] = []

    def reduce(definition, settings=None):
        found.append(definition)
        return Outcome(0)

    monkeypatch.setattr(runs, "reduce", reduce)
    monkeypatch.delenv("PANACEA_BASERAW", raising=False)
    return found


def refused(capsys, *arguments: str) -> str:
    """The one line with which a command line is refused."""
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse's own way
        code = end.code
    printed = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in printed.err
    lines = [line for line in printed.err.splitlines() if not line.startswith(("usage:", "  "))]
    assert len(lines) == 1, printed.err
    return lines[0]


def test_every_option_of_the_old_pipeline_is_understood(asked, tmp_path):
    line = (
        f"reduce -d {NIGHT} -s uv,red -o HD_19445 -uf -cf -cw 4000.5 -wb 20 -re -rf -rd --baseraw {tmp_path} "
        f"--source_x -1.5 --source_y 2 --standard_star_date 20250101 --standard_star_obsid 0000012"
    )
    assert main(line.split()) == 0
    expected = RunDefinition(
        night=NIGHT,
        sides=("uv", "red"),
        object="HD_19445",
        use_flat=True,
        correct_ftf=True,
        central_wave=4000.5,
        wavelength_bin=20.0,
        reduce_eng=True,
        reduce_flt=True,
        reduce_drk=True,
        baseraw=str(tmp_path),
        source_x=-1.5,
        source_y=2.0,
        standard_star_date="20250101",
        standard_star_obsid=12,
        output=str(Path.cwd() / "runs"),
    )
    assert asked == [expected]


def test_long_names_and_the_new_options(asked, tmp_path):
    line = (
        f"reduce --date {NIGHT} --sides orange --object M31 --use_flat --correct_ftf --central_wave 5000 "
        f"--wavelength_bin 5 --reduce_eng --baseraw {tmp_path} --output {tmp_path}/out --tag v2 --overwrite --obsid 12 "
        "--exp 1 --first --cal-date twi=20250110 --cal-date zro=20250111 --exclude 1,2 --exclude 20250110:3 --jobs 3 "
        "--until 06 --redo sky --redo 07_flux --force"
    )
    assert main(line.split()) == 0
    (made,) = asked
    assert made.cal_dates == {"twi": "20250110", "zro": "20250111"}
    assert made.exclude == (1, 2, "20250110:3")
    assert made.redo == ("sky", "07_flux")
    assert (made.jobs, made.until, made.tag, made.obsid, made.exp) == (3, "06", "v2", 12, 1)
    assert made.overwrite
    assert made.first
    assert made.force


def test_command_line_overrides_the_file_and_the_environment_supplies_the_archive(asked, tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text(f"night: {NIGHT}\nsides: [uv]\ncentral_wave: 4000\nuse_flat: true\n")
    monkeypatch.setenv("PANACEA_BASERAW", str(tmp_path))
    assert main(["reduce", "--config", str(tmp_path / "c.yaml"), "-s", "red", "-cw", "7000"]) == 0
    (made,) = asked
    assert (made.night, made.sides, made.central_wave, made.use_flat) == (NIGHT, ("red",), 7000.0, True)
    assert made.baseraw == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("reduce", "no night was given"),
        (f"reduce -d {NIGHT}", "give --baseraw DIR .* or set PANACEA_BASERAW"),
        (f"reduce -d {NIGHT} --baseraw /no/such/folder", "/no/such/folder is not a folder"),
        ("reduce -d 2025-01-15 --baseraw .", "'2025-01-15' is not a date YYYYMMDD"),
        (f"reduce -d {NIGHT} -s violet --baseraw .", "'violet', which is no channel of LRS2"),
        (f"reduce -d {NIGHT} --baseraw . --source_x 1", "--source_y is missing"),
        (f"reduce -d {NIGHT} --baseraw . --until polish", "there is no stage 'polish'"),
        (f"reduce -d {NIGHT} --baseraw . --redo polish", "there is no stage 'polish'"),
        (f"reduce -d {NIGHT} --baseraw . --config none.yaml", "none.yaml cannot be read"),
        (f"reduce -d {NIGHT} --objct M31", "unrecognized arguments: --objct M31"),
        (f"reduce -d {NIGHT} --baseraw . -cw", "argument -cw/--central_wave: expected one argument"),
        ("polish", "invalid choice: 'polish'"),
        (f"status -d {NIGHT} --output /no/such/folder", f"no run of night {NIGHT} lies in /no/such/folder/NIGHTS"),
        ("status --output /no/such/folder", "there is no run under /no/such/folder"),
        (f"report -d {NIGHT} --output /no/such/folder", "no run of night"),
        ("inspect -d 20250115", "give --baseraw"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(asked, capsys, arguments, message):
    import re

    assert re.search(message, refused(capsys, *arguments.split()))
    assert not asked


def test_missing_night_is_refused_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    line = f"reduce -d {NIGHT} --baseraw {tmp_path}/raw --output {tmp_path}/out"
    assert NIGHT in refused(capsys, *line.split())
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RequestError("not like this"), 2, "panacea-nb: not like this\n"),
        (PanaceaError("it broke"), 1, "panacea-nb: it broke\n"),
        (KeyboardInterrupt(), 3, "panacea-nb: interrupted; run again to go on\n"),
        (OSError(13, "Permission denied", "/a/b"), 1, "panacea-nb: Permission denied: /a/b\n"),
        (
            OSError(28, "No space left on device", "/a/b"), 1,
            "panacea-nb: No space left on device: /a/b: make room, then run the same command again: it goes on where it stopped\n",
        ),
    ],
)
def test_errors_become_exit_codes_and_debugging_shows_them(monkeypatch, capsys, tmp_path, error, code, message):
    def reduce(definition, settings=None):
        raise error

    monkeypatch.setattr(runs, "reduce", reduce)
    line = ["reduce", "-d", NIGHT, "--baseraw", str(tmp_path)]
    assert main(line) == code
    assert capsys.readouterr().err == message
    monkeypatch.setenv("PANACEA_NB_DEBUG", "1")
    with pytest.raises(type(error)):
        main(line)


def test_dry_run_prints_the_plan(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(runs, "dry_run", lambda definition: f"plan of {definition.night}")
    assert main(["reduce", "-d", NIGHT, "--baseraw", str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"plan of {NIGHT}\n"


def test_status_shows_tasks_and_nights(tmp_path, capsys):
    out = tmp_path / "out"
    toy.reduce(out, options={"until": "00"})
    toy.reduce(out, options={"until": "00", "tag": "v2", "trouble.00_start": "exit"})
    capsys.readouterr()
    assert main(["status", "-d", toy.TOY_NIGHT, "--output", str(out)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]][0][:2] == ["00_start", "succeeded"]
    assert main(["status", "-d", toy.TOY_NIGHT, "--tag", "v2", "--output", str(out)]) == 0
    assert "EndedEarly: the notebook ended before it stated its verdict" in capsys.readouterr().out
    assert main(["status", "--output", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert lines == [[toy.TOY_NIGHT, "1", "1", "succeeded"], [toy.TOY_NIGHT, "v2", "1", "1", "failed"]]


def test_lab_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'panacea-nb[lab]'" in refused(capsys, "lab")


def test_lab_listens_on_this_machine_only(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(commands.os, "execv", lambda program, command: called.append(command))
    monkeypatch.setenv("PYTHONPATH", "/before")
    main(["lab", "--folder", str(tmp_path), "--", "--no-browser"])
    assert called == [
        [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--ServerApp.root_dir={tmp_path}", "--no-browser"]
    ]
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(CHECKOUT), "/before"]


def test_lab_listens_to_its_container_only_in_one(monkeypatch, tmp_path, capsys):
    called = []
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(commands.os, "execv", lambda program, command: called.append(command))
    monkeypatch.setattr(image, "MARKER", tmp_path / "marker")
    assert "open JupyterLab to the whole network" in refused(capsys, "lab", "--container")
    (tmp_path / "marker").touch()
    main(["lab", "--container", "--folder", str(tmp_path)])
    assert called[0][3:] == ["--ip=0.0.0.0", "--no-browser", f"--ServerApp.root_dir={tmp_path}"]


@pytest.mark.parametrize("command", ["", "simulate", "inspect", "reduce", "status", "report", "lab"])
def test_help_has_examples_units_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"] if command else ["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert "exit codes: 0 all done" in text
    if command == "reduce":
        assert "[A, air]" in text
        assert "(default: 10)" in text
        assert "$PANACEA_BASERAW" in text


def test_help_loads_nothing_heavy():
    code = "import sys; from panacea_nb.cli import parser; parser.make_parser(['reduce']); print(*sys.modules)"
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    loaded = set(found.stdout.split())
    assert not loaded & {"numpy", "astropy", "scipy", "matplotlib", "papermill", "parsl", "zmq"}


def test_module_and_command_are_the_same():
    begun = time.monotonic()
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-m", "panacea_nb", "--version"], env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert found.stdout.startswith("panacea_nb ")
    assert time.monotonic() - begun < 10


def test_a_closed_pipe_is_no_error(monkeypatch, tmp_path):
    def dry_run(definition):
        raise BrokenPipeError

    monkeypatch.setattr(runs, "dry_run", dry_run)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(open(tmp_path / "pipe", "wb")))  # noqa: SIM115
    assert main(["reduce", "-d", NIGHT, "--baseraw", str(tmp_path), "--dry-run"]) == 0
    sys.stdout.close()


def test_every_field_of_the_definition_has_its_option():
    made = parser.make_parser(["reduce"]).parse_args(["reduce"])
    assert not commands._given(made)  # what is not given stays away, for the file to supply
