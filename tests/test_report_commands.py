"""The commands that make and share reports, as users type them."""

from __future__ import annotations

import pytest
from report_factory import NIGHT, FakeNight

from panacea_nb.cli import main


@pytest.fixture
def night(tmp_path, monkeypatch):
    made = FakeNight(tmp_path / "runs")
    made.record("01_bias-uv", verdict="pass", metrics=[{"name": "read_noise_top", "value": 3.0}])
    made.asked()
    monkeypatch.chdir(tmp_path)
    return made


def test_the_old_way_and_the_folder_name_the_same_run(night, capsys):
    assert main(["report", "-d", NIGHT, "--output", "runs"]) == 0
    first = capsys.readouterr().out
    assert main(["report", f"runs/NIGHTS/{NIGHT}"]) == 0
    assert capsys.readouterr().out == first == f"{night.layout.report_dir / 'index.html'}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "runs", "-d", NIGHT], "leave out -d"),
        (["report", "runs", "--tag", "x"], "leave out -d"),
        (["report", "runs", "--file", "x.html"], "--file is for one page"),
        (["report", "nowhere"], "no run lies in nowhere"),
        (["report"], "no night was given"),
        (["report", "runs", "--target", "NGC1"], "there are: none at all"),
        (["diff", "runs", "nowhere"], "no run lies in nowhere"),
        (["trends", "nowhere"], "no run lies under"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(night, capsys, arguments, said):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_night_page_as_one_file(night, tmp_path, capsys):
    assert main(["report", "runs", "--single-file"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / f'night_{NIGHT}.html'}\n"
    assert main(["report", "runs", "--single-file", "--file", "sub/page.html"]) == 0
    assert (tmp_path / "sub" / "page.html").is_file()


def test_diff_and_trends_write_pages(night, tmp_path, capsys):
    assert main(["diff", "runs", "runs"]) == 0
    assert (tmp_path / f"diff_{NIGHT}_{NIGHT}.html").is_file()
    assert main(["trends", "runs"]) == 0
    out = capsys.readouterr().out
    assert "1 nights; 0 measures left their band" in out
    assert (tmp_path / "runs" / "trends" / "trends.ecsv").is_file()
