"""What the system grants: raised where a user may, refused with one sentence where it is not enough."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from panacea_nb.workflow import limits

REPO = Path(__file__).parents[1]


def under(limit: str, code: str) -> subprocess.CompletedProcess:
    """Python code that runs under limits of the shell."""
    command = f'{limit}; exec "$@"'
    start = f"import sys; sys.path.insert(0, {str(REPO)!r}); from panacea_nb.workflow import limits; "
    words = ["bash", "-c", command, "bash", sys.executable, "-c", start + code]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_soft_limit_is_raised():
    done = under("ulimit -S -n 64", "limits.raise_limits(); import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])")
    assert int(done.stdout) == min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("ulimit -n 64", "only 64 open files are allowed here, 128 are needed"),
        ("ulimit -v 2000000", "only 1.9 GB of address space"),
    ],
)
def test_what_is_not_enough_is_refused(limit, says):
    done = under(limit, "limits.raise_limits()")
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]


def test_a_folder_that_is_not_there_yet_needs_one_above_it(tmp_path):
    limits.check_folder(tmp_path / "a" / "b", "products", 1)
    assert not (tmp_path / "a").exists()
    with pytest.raises(limits.LimitError, match="MB free, at least .* are needed for products: make room there"):
        limits.check_folder(tmp_path / "a", "products", 2**60)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(limits.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(limits.LimitError, match="cannot be written: name another folder for products"):
        limits.check_folder(tmp_path / "a", "products", 1)


def test_semaphores(monkeypatch):
    limits.check_semaphores()

    class Context:
        def Lock(self):  # noqa: N802 - its name there
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(limits.multiprocessing, "get_context", lambda kind: Context())
    with pytest.raises(limits.LimitError, match=r"no semaphores can be made here \(Permission denied\)"):
        limits.check_semaphores()
