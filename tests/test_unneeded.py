"""What is kept out of workers and reports because it costs seconds and serves nothing."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("room", ["workflow.worker", "report"])
def test_grammars_of_the_format_iri_are_not_compiled(room, tmp_path):
    (tmp_path / "rfc3987_syntax.py").write_text("raise SystemExit('compiled')\n")
    code = f"import panacea_nb.{room}, nbformat, nbformat.validator"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
