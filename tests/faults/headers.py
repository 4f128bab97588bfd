"""Faults of headers: missing, absurd, of wrong type, hostile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from panacea_nb.simulate.damage import RawNight, with_cards

from .fault import FAINT, HEADER, simple


def _cards(**cards: Any) -> Callable[[RawNight], None]:
    return lambda night: night.set_cards(FAINT, **cards)


def _raw(cards: str) -> Callable[[RawNight], None]:
    return lambda night: night.rewrite(FAINT, lambda m: {name: with_cards(c, cards) for name, c in m.items()})


simple(
    "exptime-missing",
    HEADER,
    "no EXPTIME, no REXPTIME",
    _cards(remove=("EXPTIME", "REXPTIME")),
    0,
    "no exposure time",
    until="07",
)
simple("exptime-zero", HEADER, "EXPTIME 0", _cards(EXPTIME=0.0), 0, "no exposure time", until="07")
simple(
    "exptime-negative",
    HEADER,
    "EXPTIME -1: Panacea's rule serves",
    _cards(EXPTIME=-1.0),
    0,
    "EXPTIME -1 s is negative",
    until="07",
)
simple(
    "exptime-both-negative",
    HEADER,
    "EXPTIME and REXPTIME negative",
    _cards(EXPTIME=-1.0, REXPTIME=-1.0),
    0,
    "no exposure time",
    until="07",
)
simple("exptime-text", HEADER, "EXPTIME is text", _cards(EXPTIME="long"), 0, "no exposure time", until="07")
simple(
    "exptime-nan", HEADER, "EXPTIME is NaN", _raw("EXPTIME =                  NaN"), 0, "no exposure time", until="07"
)
simple("exptime-absurd", HEADER, "EXPTIME 1e30", _cards(EXPTIME=1e30), 0, "no exposure time", until="07")
simple("gain-zero", HEADER, "GAIN and RDNOISE 0: defaults, recorded", _cards(GAIN=0.0, RDNOISE=0.0), 0, "GAIN")
simple("gain-negative", HEADER, "GAIN -1: default, recorded", _cards(GAIN=-1.0), 0, "GAIN")
simple("gain-text", HEADER, "GAIN is text: default, recorded", _cards(GAIN="unknown"), 0, "GAIN")
simple("gain-absurd", HEADER, "GAIN 1e6", _cards(GAIN=1e6), 0, "GAIN")
simple("ampname-unknown", HEADER, "AMPNAME names no amplifier", _cards(AMPNAME="ZZ"), 0, "AMPNAME")
simple("ampname-missing", HEADER, "no AMPNAME", _cards(remove=("AMPNAME",)), 0, "AMPNAME")
HOSTILE = {
    "html": "<script>alert(1)</script><b>x</b>",
    "shell": "$(touch /tmp/panacea_nb-evil); `reboot` | rm -rf ~",
    "python": "'''+__import__('os').system('touch /tmp/panacea_nb-evil')+'''",
    "path": "../../../../tmp/panacea_nb-evil_056_W",
    "template": "{{ 7*7 }} {% raw %} %(x)s {0}",
    "quotes": "\"' ; -- \\ \\n \\t",
}
for _name, _text in HOSTILE.items():
    simple(
        f"object-{_name}",
        HEADER,
        f"OBJECT and QOBJECT hold {_name}",
        _cards(OBJECT=_text, QOBJECT=_text),
        0,
        "all done",
        until="10",
    )
simple("object-long", HEADER, "OBJECT of 10 kB", _cards(OBJECT="A" * 10000), 0, "all done", until="10")
simple(
    "object-missing", HEADER, "no OBJECT, no QOBJECT", _cards(remove=("OBJECT", "QOBJECT")), 0, "all done", until="07"
)
simple(
    "object-bytes",
    HEADER,
    "OBJECT of control characters and bytes beyond ASCII",
    _raw("OBJECT  = '\x07\x1b[2J\xe9\xff\x00 star_056_W'"),
    0,
    "all done",
    until="07",
)
simple("object-number", HEADER, "OBJECT is a number", _cards(OBJECT=42), 0, "all done", until="07")
simple(
    "program-path", HEADER, "QPROG leads out of the output", _cards(QPROG="../../../evil"), 0, "all done", until="07"
)
simple(
    "program-cals", HEADER, "QPROG is CALS, the calibrations' folder", _cards(QPROG="CALS"), 0, "all done", until="07"
)
simple(
    "program-html", HEADER, "QPROG holds HTML", _cards(QPROG="<img src=x onerror=alert(1)>"), 0, "all done", until="10"
)
simple(
    "coordinates-missing",
    HEADER,
    "no TRAJRA, TRAJDEC, QRA, QDEC",
    _cards(remove=("TRAJRA", "TRAJDEC", "QRA", "QDEC")),
    0,
    "coordinates|TRAJRA|pointing",
    until="07",
)
simple(
    "coordinates-absurd",
    HEADER,
    "TRAJRA 999, TRAJDEC -200",
    _cards(TRAJRA=999.0, TRAJDEC=-200.0),
    0,
    "TRAJ|coordinates|pointing",
    until="07",
)
simple(
    "coordinates-text",
    HEADER,
    "QRA and TRAJRA are text",
    _cards(QRA="somewhere", TRAJRA="east"),
    0,
    "TRAJ|coordinates|pointing",
    until="07",
)
simple("parangle-missing", HEADER, "no PARANGLE", _cards(remove=("PARANGLE",)), 0, "PARANGLE", until="07")
simple(
    "keyword-doubled",
    HEADER,
    "EXPTIME twice, first one right",
    lambda n: n.rewrite(FAINT, lambda m: {k: with_cards(c, "EXPTIME = 300.0\nEXPTIME = -5.0") for k, c in m.items()}),
    0,
    "all done",
    until="07",
)
