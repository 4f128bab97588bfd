"""Faults of calibration frames and of the guide cameras."""

from __future__ import annotations

import tarfile
from collections.abc import Callable

import numpy as np
from astropy.io import fits

from panacea_nb.simulate.archive import write_tar
from panacea_nb.simulate.damage import RawNight, with_cards

from .fault import CALIBRATION, GUIDER, simple


def _drop(kind: str) -> Callable[[RawNight], None]:
    def do(night: RawNight) -> None:
        for obsid in night.observations(kind):
            night.rewrite(
                obsid, lambda m: {name: c for name, c in m.items() if f"_{kind}.fits" not in name} or {"empty": b""}
            )

    return do


def _of_kind(kind: str, edit: Callable, *, first: bool = False) -> Callable[[RawNight], None]:
    """Edit the frames of all, or of the first, observation of a kind."""

    def do(night: RawNight) -> None:
        for obsid in night.observations(kind)[: 1 if first else None]:
            night.edit_frames(obsid, edit, exp=1 if first else 0)

    return do


def _bias_level(header: fits.Header, image: np.ndarray) -> tuple[fits.Header, np.ndarray]:
    """Every pixel as its row's overscan: no light."""
    level = np.median(image[:, 2066:], axis=1, keepdims=True)
    noise = np.random.default_rng(1).normal(0, 3.5, image.shape)
    return header, np.clip(level + noise, 0, 65535).astype(np.uint16)


CAL = {"until": "04"}
simple("bias-none", CALIBRATION, "no bias frames", _drop("zro"), 2, r"no bias \(zro\) serves", **CAL)
simple(
    "twilight-none",
    CALIBRATION,
    "no twilights",
    _drop("twi"),
    0,
    "flats? (take|serve|stand|are used|instead)|no twilight",
    **CAL,
)
simple("arc-none", CALIBRATION, "no arcs", _drop("cmp"), 2, r"no arc \(cmp\) serves", **CAL)
simple(
    "twilight-and-flat-none",
    CALIBRATION,
    "neither twilights nor flats",
    lambda n: (_drop("twi")(n), _drop("flt")(n)),
    2,
    r"no twilight \(twi\) serves",
    **CAL,
)
simple(
    "arc-lamps-off",
    CALIBRATION,
    "all arc lamps off",
    _of_kind("cmp", _bias_level),
    1,
    "stops here|arc lines|no lines",
    **CAL,
)
simple(
    "arc-saturated",
    CALIBRATION,
    "all arcs saturated",
    _of_kind("cmp", lambda h, d: (h, np.full_like(d, 65535))),
    1,
    r"none of . arc \(cmp\) exposures can be used",
    **CAL,
)
simple(
    "twilight-dark",
    CALIBRATION,
    "twilights without light",
    _of_kind("twi", _bias_level),
    1,
    r"none of 3 twilight \(twi\) exposures is usable",
    **CAL,
)
simple(
    "twilight-saturated",
    CALIBRATION,
    "twilights saturated",
    _of_kind("twi", lambda h, d: (h, np.full_like(d, 65535))),
    1,
    r"none of . twilight \(twi\) exposures can be used",
    **CAL,
)
simple(
    "twilight-one-saturated",
    CALIBRATION,
    "one twilight saturated, the others good",
    _of_kind("twi", lambda h, d: (h, np.full_like(d, 65535)), first=True),
    0,
    "twi left out",
    **CAL,
)
simple(
    "bias-one-with-light",
    CALIBRATION,
    "one bias frame with light in it",
    _of_kind(
        "zro",
        lambda h, d: (
            h,
            np.clip(d.astype(int) + np.pad(np.full((1032, 2064), 400), ((0, 0), (0, 64))), 0, 65535).astype(np.uint16),
        ),
        first=True,
    ),
    0,
    "left out: its level is",
    **CAL,
)
simple(
    "bias-one-zero",
    CALIBRATION,
    "one bias frame all zero",
    _of_kind("zro", lambda h, d: (h, np.zeros_like(d)), first=True),
    0,
    "was not read out",
    **CAL,
)
simple(
    "bias-saturated",
    CALIBRATION,
    "all bias frames saturated",
    _of_kind("zro", lambda h, d: (h, np.full_like(d, 65535))),
    1,
    r"none of . bias \(zro\) exposures can be used",
    **CAL,
)
simple(
    "arc-of-another-channel",
    CALIBRATION,
    "arcs whose lines lie elsewhere: mirrored",
    _of_kind("cmp", lambda h, d: (h, np.ascontiguousarray(np.hstack([d[:, 2063::-1], d[:, 2064:]])))),
    1,
    "stops here|arc lines",
    **CAL,
)
simple(
    "twilight-upside-down",
    CALIBRATION,
    "twilights whose fibres lie elsewhere",
    _of_kind("twi", lambda h, d: (h, np.ascontiguousarray(np.roll(d, 300, axis=0)))),
    1,
    "stops here|pattern",
    **CAL,
)


def _guider(edit: Callable[[bytes], bytes]) -> Callable[[RawNight], None]:
    def do(night: RawNight) -> None:
        for path in night.guider_files():
            with tarfile.open(path) as tar:
                members = {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}
            write_tar(path, {name: edit(content) for name, content in members.items()}.items())

    return do


def _cut_guider(night: RawNight) -> None:
    for path in night.guider_files():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: len(content) // 3])


def _no_guider(night: RawNight) -> None:
    for path in night.guider_files():
        path.unlink()


FLUX = {"until": "07"}
simple("guider-none", GUIDER, "no guide frames: defaults, recorded", _no_guider, 0, "transparency", **FLUX)
simple("guider-cut", GUIDER, "tars of the guide cameras cut short", _cut_guider, 0, "guide|transparency|gc", **FLUX)
simple(
    "guider-absurd",
    GUIDER,
    "TRANSPAR 99, IQ -3, PUPILLUM 7",
    _guider(
        lambda c: with_cards(
            c, "TRANSPAR=                 99.0\nIQ      =                 -3.0\nPUPILLUM=                  7.0"
        )
    ),
    0,
    "transparency",
    **FLUX,
)
simple(
    "guider-no-fits",
    GUIDER,
    "guide frames that are no FITS files",
    _guider(lambda c: b"nothing" * 500),
    0,
    "transparency",
    **FLUX,
)
