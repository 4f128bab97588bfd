"""Faults of what is around a reduction: environment, disk, limits; and of what an earlier run left."""

from __future__ import annotations

import re

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import status

from .fault import FAINT, RESULTS, STAR, SURROUNDINGS, fault, simple

DONE = "all done"


def nothing(_: object) -> None:
    """The night itself is good."""


def limited(limits: str) -> tuple[str, ...]:
    return "bash", "-c", f'{limits}; exec "$@"', "bash"


def mounted(script: str) -> tuple[str, ...]:
    """In a mount namespace of its own, after a script."""
    return "unshare", "-m", "bash", "-c", f'{script} && exec "$@"', "bash"


def around(name: str, what: str, ends: int, says: str, **more) -> None:
    simple(name, SURROUNDINGS, what, nothing, ends, says, **more)


around("no-home", "no HOME", 0, DONE, within=("env", "-u", "HOME"))
around("home-is-nowhere", "HOME is a folder that does not exist", 0, DONE, within=("env", "HOME=/nonexistent/home"))
around("locale-c", "the C locale", 0, DONE, within=("env", "LC_ALL=C", "LANG=C", "PYTHONCOERCECLOCALE=0", "PYTHONUTF8=0"))
around("umask-nobody", "a umask that takes all rights from others", 0, DONE, within=limited("umask 077"))
around("few-files", "64 open files at most", 2, "only 64 open files", within=limited("ulimit -n 64"))
around("few-files-at-first", "64 open files, which may be raised", 0, DONE, within=limited("ulimit -S -n 64"))
around("little-memory", "1 GB of address space", 2, "address space", within=limited("ulimit -v 1000000"))
around("quota", "no file may be larger than 5 MB", 1, "File too large|quota", within=limited("ulimit -f 5000; trap '' XFSZ"))
around("time-zone", "a time zone that does not exist", 0, DONE, within=("env", "TZ=Mars/Olympus_Mons"))
around("strange-path", "spaces, umlauts and quotes in all paths", 0, DONE, place="N\u00e4chte mit 'Leerzeichen' & mehr")
around("tmpdir-nowhere", "TMPDIR is a folder that does not exist", 0, DONE, within=("env", "TMPDIR=/nonexistent/tmp"))
around(
    "tmpdir-full", "TMPDIR on a full file system", 2, "MB free",
    within=mounted('mkdir -p {folder}/t && mount -t tmpfs -o size=64k none {folder}/t && export TMPDIR={folder}/t'), root=True,
)  # fmt: skip
around(
    "disk-full", "the output on a full file system", 2, "MB free",
    within=mounted('mount -t tmpfs -o size=64k none {out}'), root=True,
)  # fmt: skip
around(
    "read-only", "the output on a file system that is read-only", 2, "cannot be written: name another",
    within=mounted("mount --bind {out} {out} && mount -o remount,ro,bind {out}"), root=True,
)  # fmt: skip
around(
    "memory-disk-gone", "shared memory that cannot be written", 2, "no semaphores",
    within=mounted("mount -t tmpfs -o ro none /dev/shm"), root=True,
)  # fmt: skip

around("run-moved", "the folder of an earlier run copied elsewhere and gone on with", 0, DONE)
around(
    "two-runs", "a second run on a folder where one is at work", 2, "another run works on",
    within=("bash", "-c", '"$@" >/dev/null 2>&1 & sleep 4; "$@"; code=$?; wait $! || exit 9; exit $code', "bash"),
)  # fmt: skip
around(
    "output-is-a-file", "a file where the output should be", 2, "name another|not a (folder|directory)",
    within=("bash", "-c", 'mv {out} {out}.kept; touch {out}; "$@"; code=$?; rm {out}; mv {out}.kept {out}; exit $code', "bash"),
)  # fmt: skip


def of_star(layout: Layout, stage: str) -> status.Record:
    record = status.read(layout.status_dir, f"{stage}-{STAR:07d}-exp01-uv")
    assert record is not None
    return record


def rewrite(layout: Layout, stage: str, change) -> None:
    """Change the contents of a product: in a new file, as the old one is shared with the undamaged night."""
    path = layout.output / next(p for p in of_star(layout, stage).products if p.endswith(".fits"))
    content = bytearray(path.read_bytes())
    path.unlink()
    path.write_bytes(bytes(change(content)))


def flipped(content: bytearray) -> bytearray:
    content[len(content) // 2] ^= 0x55
    return content


def result(name: str, what: str, ends: int, says: str, do) -> None:
    simple(name, RESULTS, what, do, ends, says)


result("product-cut", "a product cut short", 0, DONE, lambda n: rewrite(n, "05_extract", lambda c: c[: len(c) // 2]))
result("product-empty", "a product of no bytes", 0, DONE, lambda n: rewrite(n, "05_extract", lambda c: b""))
result("product-changed", "one bit pattern of a product changed", 0, DONE, lambda n: rewrite(n, "05_extract", flipped))


@fault("product-exchanged", RESULTS, "a product in place of another", 0, DONE)
def _(layout: Layout) -> None:
    paths = [layout.work("05_extract", "uv", STAR, 1), layout.work("06_sky", "uv", STAR, 1)]
    content = paths[1].read_bytes()
    paths[0].unlink()
    paths[0].write_bytes(content)


@fault("record-garbled", RESULTS, "the record of a task is no JSON", 0, "RECORDLOST")
def _(layout: Layout) -> None:
    path = status.record_path(layout.status_dir, f"05_extract-{STAR:07d}-exp01-uv")
    path.write_text(path.read_text()[:100])


@fault("record-of-the-future", RESULTS, "records from a clock that was a day ahead", 0, DONE)
def _(layout: Layout) -> None:
    for path in layout.status_dir.glob("*.json"):
        path.write_text(re.sub(r'"2(\d{3})-', '"3\\1-', path.read_text()))


@fault("notebook-edited", RESULTS, "an executed notebook changed by hand", 0, DONE)
def _(layout: Layout) -> None:
    path = layout.output / of_star(layout, "05_extract").notebook
    content = path.read_text().replace("Verdict", "Forged")
    path.unlink()
    path.write_text(content)


@fault("foreign-file", RESULTS, "a file of somebody else where the products lie", 1, "no record of having made it.*--overwrite")
def _(layout: Layout) -> None:
    layout.work("05_extract", "uv", FAINT, 1).parent.mkdir(parents=True, exist_ok=True)
    layout.work("05_extract", "uv", FAINT, 1).write_bytes(b"not mine")
