from __future__ import annotations

import io
from datetime import datetime

import pytest
from raw_factory import card, header

from panacea_nb.raw.headers import DamagedHeaderError, data_size, number, parse_cards, read_header_block
from panacea_nb.raw.names import clean_text, parse_frame_path


def test_parse_cards():
    text = b"".join(
        [
            card("NAME", "O'Neill's / star"),
            card("NUMBER", b"=                  -42 / comment"),
            card("REAL", b"=  1.5D+03 / comment"),
            card("YES", True),
            card("EMPTY", b"=  / nothing"),
            card("NAME", "second"),
            card("LONG", b"= 'begins &'"),
            card("CONTINUE", b"  'and ends'"),
            card("UNDER", b"= 1_000"),
            card("COMMENT", b"= 5"),
            card("END", b""),
            card("AFTER", 1),
        ]
    )
    wanted = frozenset("NAME NUMBER REAL YES EMPTY LONG UNDER AFTER".split())
    assert parse_cards(text, wanted) == {
        "NAME": "O'Neill's / star",
        "NUMBER": -42,
        "REAL": 1500.0,
        "YES": True,
        "EMPTY": None,
        "LONG": "begins and ends",
        "UNDER": "1_000",
    }
    assert number({"A": True}, "A") is None
    assert number({"A": " 2.5 "}, "A") == 2.5
    assert number({"A": "nan"}, "A") is None


def test_header_block_limits():
    good = header({"NOTE": "END     of it"} | {f"KEY{i}": i for i in range(40)}) + bytes(2880)
    assert len(read_header_block(io.BytesIO(good), 0, len(good))) == 2 * 2880
    endless = b"SIMPLE  =                    T".ljust(80) + b"COMMENT ".ljust(80) * 35
    with pytest.raises(DamagedHeaderError, match="no END"):
        read_header_block(io.BytesIO(endless * 200), 0, 200 * 2880)
    with pytest.raises(DamagedHeaderError, match="ends within"):
        read_header_block(io.BytesIO(endless[:2000]), 0, 2880)
    for cards in ({"BITPIX": 12, "NAXIS": 2}, {"BITPIX": 16, "NAXIS": 2, "NAXIS1": -1, "NAXIS2": 5}, {"NAXIS": 0}):
        with pytest.raises(DamagedHeaderError):
            data_size(cards)
    assert data_size({"BITPIX": -32, "NAXIS": 2, "NAXIS1": 10, "NAXIS2": 5}) == 200


def test_names():
    name = parse_frame_path("x/y/lrs20000123/exp07/lrs2/20250115T031500.25_066RU_cmp.fits")
    assert (name.obsid, name.exp, name.ifuslot, name.amp, name.kind) == (123, 7, "066", "RU", "cmp")
    assert name.start == datetime(2025, 1, 15, 3, 15, 0, 250000)
    assert clean_text("  a\tb\u20ac ") == "a?b?"
    assert clean_text(None) == ""
    assert len(clean_text("x" * 1000)) == 80
