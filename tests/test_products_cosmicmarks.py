"""Cosmic rays marked by hand: the file, its boxes, and what the extraction makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from panacea_nb.products import cosmicmarks
from panacea_nb.products.cosmicmarks import CosmicMarksError, Mark
from panacea_nb.products.session import Task
from panacea_nb.reduce.exposure import with_marks

NAME = "uv/0000012_exp01"


def test_marks_come_back_from_their_file(tmp_path):
    marks = [Mark(NAME, "hit", 3, 2, 3, 2), Mark("red/0000001_exp02", "clean", 1, 1, 4, 5)]
    cosmicmarks.save(tmp_path / "m.txt", marks)
    assert (tmp_path / "m.txt").read_text().splitlines()[1:] == [
        "uv/0000012_exp01 hit 3 2", "red/0000001_exp02 clean 1 1 4 5",
    ]  # fmt: skip
    assert cosmicmarks.load(tmp_path / "m.txt") == marks


def test_columns_and_rows_count_from_one_and_the_last_mark_holds():
    marks = [Mark(NAME, "hit", 2, 1, 4, 3), Mark(NAME, "clean", 3, 2, 3, 2)]
    hit, clean = cosmicmarks.masks(marks, (5, 6))
    assert np.argwhere(clean).tolist() == [[1, 2]]
    assert hit.sum() == 8
    assert hit[0, 1]
    assert not hit[1, 2]
    found = np.zeros((5, 6), bool)
    found[1, 2] = found[4, 5] = True
    result = with_marks(found, (hit, clean))
    assert result.sum() == 9
    assert not result[1, 2]
    assert with_marks(found, None) is found


@pytest.mark.parametrize(
    "line",
    ["uv/0000012_exp01 hit 1", "uv/12_exp1 hit 1 2", "uv/0000012_exp01 maybe 1 2", "uv/0000012_exp01 hit 0 2", "x"],
)
def test_a_line_that_is_no_mark_is_named(line):
    with pytest.raises(CosmicMarksError, match=r"m\.txt, line 2: .* is no mark such as"):
        cosmicmarks.parse(f"# comment\n{line}\n", "m.txt")


def test_a_mark_outside_of_the_image_is_refused():
    with pytest.raises(CosmicMarksError, match="lies outside of the image of 6 x 5 pixels"):
        cosmicmarks.masks([Mark(NAME, "hit", 7, 1, 7, 1)], (5, 6))


def test_only_the_marks_of_the_exposure_count_and_are_recorded(tmp_path):
    cosmicmarks.save(tmp_path / "m.txt", [Mark(NAME, "hit", 1, 1, 2, 1), Mark("uv/0000013_exp01", "hit", 3, 3, 3, 3)])
    task = Task("05_extract", None, "uv", 12, 1)
    hit, clean = cosmicmarks.read(task, str(tmp_path / "m.txt"), (4, 4))
    assert (hit.sum(), clean.sum()) == (2, 0)
    assert [d.code for d in task.decisions] == ["HANDCOSMICS"]
    assert cosmicmarks.read(Task("05_extract", None, "uv", 14, 1), str(tmp_path / "m.txt"), (4, 4)) is None
    assert cosmicmarks.read(task, "", (4, 4)) is None
