"""Anything may come in: raw archives, headers, run definitions and command lines made by chance are read or refused, in words."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_factory import Obs, card, header, write_night

from panacea_nb.cli import main
from panacea_nb.errors import PanaceaError
from panacea_nb.raw import index_night
from panacea_nb.raw.headers import DamagedHeaderError, data_size, number, parse_cards, read_header_block
from panacea_nb.workflow import runs
from panacea_nb.workflow.config import DefinitionError, read_yaml
from panacea_nb.workflow.driver import Outcome
from panacea_nb.workflow.rundef import RunDefinition

NIGHT = "20250115"
FIELDS = {item.name: item for item in dataclasses.fields(RunDefinition)}
KEYWORDS = frozenset(("BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "EXPTIME", "OBJECT", "GAIN"))

fuzz = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


# --- raw data ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tar(tmp_path_factory) -> bytes:
    """The beginning of an observation's tar: one frame's headers; its pixels, and what comes after, are zeros."""
    root = tmp_path_factory.mktemp("fuzz")
    write_night(root, NIGHT, [Obs(1, "sci", "X", slots=("056",), amps=("LL",))])
    (path,) = (root / NIGHT / "lrs2").glob("*.tar")
    content = path.read_bytes()
    assert len(index_night(root, NIGHT).frames) == 1
    return content


changes = st.lists(
    st.tuples(st.sampled_from(("flip", "write", "cut", "insert")), st.floats(0, 1), st.binary(max_size=40)),
    min_size=1, max_size=4,
)  # fmt: skip


def damaged(content: bytes, steps, head: int = 4500) -> bytes:
    """``content`` with bytes changed, taken away or put in near its beginning, where the headers are."""
    data = bytearray(content)
    for what, share, more in steps:
        at = int(share * min(head, max(len(data) - 1, 0)))
        if what == "flip" and data:
            data[at] ^= 1 << (len(more) % 8)
        elif what == "write":
            data[at : at + len(more)] = more
        elif what == "cut":
            del data[at : at + 1 + 37 * len(more)]
        else:
            data[at:at] = more
    return bytes(data)


@fuzz
@given(changes)
def test_a_damaged_tar_is_a_problem_and_no_failure(tar, steps):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "raw" / NIGHT / "lrs2" / "lrs20000001.tar"
        place.parent.mkdir(parents=True)
        place.write_bytes(damaged(tar, steps))
        index = index_night(Path(folder) / "raw", NIGHT)
        # A frame is either as it was, or told of; harmless changes (a comment, a time) leave it.
        assert index.frames or index.problems
        for frame in index.frames:
            assert frame.shape in {(1032, 2128), (1032, 1064)}
            assert frame.kind.isalpha()
        assert all(problem.what.isprintable() for problem in index.problems)
        assert [path.name for path in Path(folder).iterdir()] == ["raw"]  # nothing is unpacked anywhere


@fuzz
@given(st.text(min_size=1, max_size=60), st.sampled_from((b"0", b"1", b"2", b"5", b"L", b"x", b"S")))
def test_members_of_any_name_and_kind_are_left_alone(tar, name, kind):
    block = bytearray(tar[:512])
    encoded = name.encode("utf-8", "surrogateescape" if name.isascii() else "replace")[:99]
    block[:100] = encoded.ljust(100, b"\0")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "raw" / NIGHT / "lrs2" / "lrs20000001.tar"
        place.parent.mkdir(parents=True)
        place.write_bytes(bytes(block) + tar[512:])
        assert index_night(Path(folder) / "raw", NIGHT).frames == ()
        assert [path.name for path in Path(folder).iterdir()] == ["raw"]


@fuzz
@given(st.binary(max_size=400), st.integers(0, 2880))
def test_headers_of_any_bytes(content, at):
    block = bytearray(header({"OBJECT": "star", "EXPTIME": 900.0}))
    block[at : at + len(content)] = content
    stream = io.BytesIO(bytes(block))
    with contextlib.suppress(DamagedHeaderError):
        read_header_block(stream, 0, len(block))
    cards = parse_cards(bytes(block), KEYWORDS)
    assert all(isinstance(value, str | int | float | bool | None) for value in cards.values())
    for keyword in cards:
        value = number(cards, keyword)
        assert value is None or abs(value) < float("inf")
    with contextlib.suppress(DamagedHeaderError):
        assert data_size(cards) >= 0


@fuzz
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=68))
def test_a_text_comes_out_of_a_header_as_it_was_put_in(text):
    if len(text) + text.count("'") > 68:
        return
    found = parse_cards(card("OBJECT", text) + b"END".ljust(80), frozenset(["OBJECT"]))["OBJECT"]
    assert found == text.rstrip()


# --- run definitions --------------------------------------------------------------------------------------------------
options = st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=12), anything, max_size=5)


@fuzz
@given(options)
def test_a_run_definition_is_made_or_refused_in_one_line(values):
    try:
        made = RunDefinition.from_dict({"night": NIGHT, **values})
    except DefinitionError:
        return
    # What was accepted can be written down and read again: a resumed run is asked for the same.
    again = RunDefinition.from_dict(yaml.safe_load(made.to_yaml()))
    assert again == made


@fuzz
@given(st.text(max_size=200) | st.binary(max_size=200) | st.builds(yaml.safe_dump, options))
def test_any_file_is_a_configuration_or_is_none(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        with contextlib.suppress(DefinitionError):
            assert isinstance(read_yaml(path), dict)


# --- the command line -------------------------------------------------------------------------------------------------
FLAGS = sorted({flag for item in FIELDS.values() for flag in item.metadata["flags"]})
words = st.sampled_from(("reduce", "status", "verify", "report", "diff", "trends", "inspect", NIGHT, "uv,red", "")) | (
    st.sampled_from(FLAGS) | st.text(max_size=15) | st.integers().map(str)
)


@fuzz
@given(st.lists(words, max_size=8))
def test_a_command_line_of_chance_ends_with_a_code_and_a_sentence(monkeypatch, line):
    monkeypatch.setattr(runs, "reduce", lambda definition, settings=None: Outcome(0))
    said, printed = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            try:
                code = main(line)
            except SystemExit as end:
                code = end.code
            except PanaceaError as error:
                pytest.fail(f"{line}: {error!r} was not caught")
        assert code in (0, 1, 2, None), line
        if code in (1, 2):
            assert said.getvalue().strip() or printed.getvalue().strip(), line
        assert "Traceback" not in said.getvalue()
