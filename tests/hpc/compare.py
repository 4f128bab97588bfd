"""Are the products of two runs the same?  ``compare.py RUNS OTHER [--tolerance 1e-5]``; exit code 1 when they are not.

The same files must be there, with the same verdicts.  A product is identical when its content digest is (docs/products.md).
Between images and processors the last bits may differ: then no number may differ by more than the tolerance times its
error; of an array without errors, times the scatter between neighbours.  Masks and texts must be equal in any case.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits

from panacea_nb.products.digest import VOLATILE_CARDS, content_digest

# Digests of what went in, and where it lay: they follow the last bits of the calibrations, and the folders' names.
DERIVED = re.compile(r"INPUT\d+|COMMENT|HISTORY|")
NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
HEADER_TOLERANCE = 1e-5  # relative: values of headers have no error of their own
# Extensions of a multi file whose error is in another.
SPECTRA = ("OBSERVED_SPECTRA", "SKY_SPECTRA", "SKYSUB_SPECTRA", "ERROR_SPECTRA")


class Differ(Exception):
    """Two products are not the same; the message says where."""


def products(root: Path) -> dict[str, Path]:
    """Products of a run by their path from its root; what only serves between stages is left out."""
    found = (path for kind in ("*.fits", "*.dat") for path in (root / "LRS2").rglob(kind))
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def verdicts(root: Path) -> dict[str, tuple[str, str]]:
    """State and verdict of every task."""
    records = (json.loads(path.read_text()) for path in root.glob("NIGHTS/*/status/*.json"))
    return {record["id"]: (record["state"], record["verdict"]) for record in records}


def scatter(values: np.ndarray) -> float:
    """Typical difference between neighbours: a scale for numbers without errors."""
    steps = np.abs(np.diff(values, axis=-1)) if values.ndim and values.shape[-1] > 1 else np.abs(values)
    steps = steps[np.isfinite(steps) & (steps > 0)]
    return float(np.median(steps)) if steps.size else 1.0


def errors(hdu, hdus: fits.HDUList, values: np.ndarray) -> np.ndarray | float:
    """The error of every number of an extension."""
    name = hdu.name.upper()
    if name in SPECTRA and "ERROR_SPECTRA" in hdus:
        return hdus["ERROR_SPECTRA"].data.astype(float)
    if values.shape[:1] == (6,) and values.ndim == 2 and "ROW1" in hdus[0].header | hdu.header:
        rows = np.array([np.full(values.shape[1], scatter(row)) for row in values])
        rows[1], rows[2], rows[3], rows[4] = values[3], values[4], values[3], values[4]
        return rows
    return scatter(values)


def arrays(hdu) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of an extension; a table's columns one by one."""
    if hdu.data is None:
        return
    if hdu.data.dtype.names:
        for column in hdu.data.dtype.names:
            yield f"{hdu.name}.{column}", np.asarray(hdu.data[column])
    else:
        yield hdu.name or "PRIMARY", hdu.data


def compare_fits(one: Path, two: Path, tolerance: float) -> float:
    """The largest difference in units of the error."""
    worst = 0.0
    with fits.open(one, memmap=False) as first, fits.open(two, memmap=False) as second:
        if [hdu.name for hdu in first] != [hdu.name for hdu in second]:
            raise Differ("extensions differ")
        for hdu, other in zip(first, second, strict=True):
            compare_headers(hdu.header, other.header, hdu.name)
            for (name, a), (_, b) in zip(arrays(hdu), arrays(other), strict=True):
                if a.shape != b.shape or a.dtype != b.dtype:
                    raise Differ(f"{name}: shape or type differ")
                if a.dtype.kind != "f":
                    if not np.array_equal(a, b):
                        raise Differ(f"{name}: {np.sum(a != b)} of {a.size} values differ")
                    continue
                if not np.array_equal(np.isfinite(a), np.isfinite(b)):
                    raise Differ(f"{name}: other values are undefined")
                apart = np.abs(np.nan_to_num(a.astype(float)) - np.nan_to_num(b.astype(float)))
                if not apart.any():
                    continue
                sigma = errors(hdu, first, a.astype(float))
                # Single precision itself is coarser where a value is a hundred times its error.
                apart = np.maximum(apart - 2 * np.spacing(np.abs(np.nan_to_num(a))), 0.0)
                ratio = np.where(apart > 0, apart / np.maximum(sigma, np.finfo(float).tiny), 0.0)
                worst = max(worst, float(ratio.max()))
                if worst > tolerance:
                    raise Differ(
                        f"{name}: up to {ratio.max():.2g} sigma, {np.sum(ratio > tolerance)} of {a.size} values"
                    )
    return worst


def compare_headers(one: fits.Header, two: fits.Header, name: str) -> None:
    """The cards that tell what a product is are the same."""
    for card in set(one) | set(two):
        if card in VOLATILE_CARDS or DERIVED.fullmatch(card):
            continue
        a, b = one.get(card), two.get(card)
        if isinstance(a, str) and isinstance(b, str):
            same = same_text(a, b)
        elif isinstance(a, int | float) and isinstance(b, int | float):
            same = close(float(a), float(b))
        else:
            same = a == b
        if not same:
            raise Differ(f"{name or 'PRIMARY'}: {card} is {a!r} and {b!r}")


def close(a: float, b: float) -> bool:
    """Equal, or almost."""
    return a == b or abs(a - b) <= HEADER_TOLERANCE * max(abs(a), abs(b))


def same_text(a: str, b: str) -> bool:
    """Equal texts, their numbers almost."""
    if a == b:
        return True
    numbers = zip(NUMBER.findall(a), NUMBER.findall(b), strict=False)
    return NUMBER.sub("#", a) == NUMBER.sub("#", b) and all(close(float(x), float(y)) for x, y in numbers)


def main() -> int:
    """Compare and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    options = parser.parse_args()
    first, second = products(options.runs), products(options.other)
    problems = [f"{name}: is in one run only" for name in sorted(first.keys() ^ second.keys())]
    if not first:
        problems.append(f"no products under {options.runs}")
    ended, other = verdicts(options.runs), verdicts(options.other)
    problems += [
        f"{k}: {ended.get(k)} and {other.get(k)}" for k in sorted(ended | other) if ended.get(k) != other.get(k)
    ]
    identical, worst = 0, 0.0
    for name in sorted(first.keys() & second.keys()):
        if content_digest(first[name]) == content_digest(second[name]):
            identical += 1
            continue
        try:
            if name.endswith(".fits"):
                worst = max(worst, compare_fits(first[name], second[name], options.tolerance))
            elif not same_text(first[name].read_text(), second[name].read_text()):
                raise Differ("texts differ")
        except Differ as error:
            problems.append(f"{name}: {error}")
    for problem in problems:
        print(f"DIFFERS {problem}")
    print(
        f"{len(first)} products and {len(ended)} verdicts: {identical} identical to the bit, the others to "
        f"{worst:.1g} sigma, {len(problems)} differ"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
