"""Read the few header cards that an index needs, from a header that nobody has checked.

A night has thousands of headers of a hundred cards each, and one card that breaks the standard must not cost the
frame, so cards are read here one by one: a value that cannot be understood stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import BinaryIO

BLOCK = 2880
CARD = 80
# LRS2 headers have 4 to 6 blocks; a file without END must not be read to its end.
MAX_BLOCKS = 64

CardValue = str | int | float | bool | None
Cards = dict[str, CardValue]

_STRING = re.compile(r" *'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?\d{1,30}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[EDed][+-]?\d+)?", re.ASCII)
# Cards that say what the data are.
STRUCTURE = ("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "BZERO", "BSCALE", "PCOUNT")


class DamagedHeaderError(ValueError):
    """There is no complete FITS header where one should be."""


def read_header_block(stream: BinaryIO, offset: int, limit: int) -> bytes:
    """Bytes of the FITS header that begins at `offset`, whole blocks of 2880 bytes up to the one with END.

    Parameters
    ----------
    stream : BinaryIO
        The outermost file.
    offset : int
        Where the header begins [bytes].
    limit : int
        Bytes that belong to this FITS file from `offset` on; nothing beyond is read.

    Raises
    ------
    DamagedHeaderError
        If the header does not begin as FITS does or has no END.
    """
    stream.seek(offset)
    blocks = bytearray()
    if limit < BLOCK:
        raise DamagedHeaderError("the file is empty" if limit == 0 else f"the file ends within its header ({limit} bytes)")
    for number in range(min(limit // BLOCK, MAX_BLOCKS)):
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise DamagedHeaderError("the file ends within its header")
        if number == 0 and not block.startswith((b"SIMPLE  =", b"XTENSION=")):
            raise DamagedHeaderError("does not begin like a FITS file")
        blocks += block
        place = block.find(b"END     ")
        while place >= 0:
            if place % CARD == 0:
                return bytes(blocks)
            place = block.find(b"END     ", place + 1)
    raise DamagedHeaderError("its FITS header has no END card")


def _value(field: str) -> CardValue:
    """Value of the text after ``=``: string, logical, integer, real; text when none of them; None when empty."""
    match = _STRING.match(field)
    if match:
        return match.group(1).replace("''", "'").rstrip()
    text = field.split("/", 1)[0].strip()
    if not text:
        return None
    if text in ("T", "F"):
        return text == "T"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.upper().replace("D", "E"))
    return text


def parse_cards(block: bytes, wanted: frozenset[str]) -> Cards:
    """Values of the wanted cards; of a keyword that occurs twice the first counts, as in astropy.

    Parameters
    ----------
    block : bytes
        What `read_header_block` gave.  Bytes beyond ASCII are kept as Latin-1 characters.
    wanted : frozenset of str
        Keywords to keep.
    """
    text = block.decode("latin-1")
    cards: Cards = {}
    previous = ""
    for start in range(0, len(text), CARD):
        keyword = text[start : start + 8].rstrip()
        if keyword == "END":
            break
        if keyword == "CONTINUE":
            so_far = cards.get(previous)
            more = _STRING.match(text[start + 8 : start + CARD])
            if isinstance(so_far, str) and so_far.endswith("&") and more:
                cards[previous] = so_far[:-1] + more.group(1).replace("''", "'").rstrip()
            continue
        previous = ""
        if keyword in wanted and keyword not in cards and text[start + 8 : start + 10] == "= ":
            cards[keyword] = _value(text[start + 10 : start + CARD])
            previous = keyword
    return cards


def number(cards: Mapping[str, object], keyword: str) -> float | None:
    """A card as a finite number; None when it is missing or is something else."""
    value = cards.get(keyword)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def data_size(cards: Mapping[str, object]) -> int:
    """Bytes of the data unit that a header announces, without its padding.

    Raises
    ------
    DamagedHeaderError
        If the header does not say what its data are.
    """
    bitpix, naxis = cards.get("BITPIX"), cards.get("NAXIS")
    if not isinstance(bitpix, int) or not isinstance(naxis, int) or abs(bitpix) not in (8, 16, 32, 64):
        raise DamagedHeaderError("its header does not say what its data are (BITPIX, NAXIS)")
    if naxis == 0:
        return 0
    axes = [cards.get(f"NAXIS{i}") for i in range(1, naxis + 1)] if 0 < naxis <= 3 else [None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in axes):
        raise DamagedHeaderError("its header does not say the shape of its data (NAXIS1, NAXIS2)")
    extra = cards.get("PCOUNT") or 0
    if not isinstance(extra, int) or extra < 0:
        raise DamagedHeaderError("its header does not say the size of its data (PCOUNT)")
    return abs(bitpix) // 8 * (math.prod(axes) + extra)
