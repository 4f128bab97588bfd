"""What is shipped and what is written about it: the wheel, the lists of dependencies, the commands in the documents."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import panacea_nb

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUN_DEPENDENCIES = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "runs" / "README.md",
    ROOT / "containers" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def shipped(folder: Path) -> set[str]:
    """Files of the package's folder that are not made by running it."""
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("panacea_nb", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    target = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(target.glob("*.whl"))


def test_the_wheel_holds_the_package_its_data_and_the_notebooks(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    notebooks = {f"panacea_nb/_notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks
    assert names == shipped(ROOT / "panacea_nb") | notebooks


def test_an_installed_wheel_finds_its_notebooks_without_a_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import panacea_nb.workflow.notebooks as n; print(n.path('05_extract'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "site" / "panacea_nb" / "_notebooks" / "05_extract.ipynb"


def test_environment_yml_repeats_the_dependencies():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = [entry.replace(" ", "") for entry in listed if isinstance(entry, str) and entry != "pip"]
    python = "python" + PYPROJECT["project"]["requires-python"]
    assert conda == [python, *PYPROJECT["project"]["dependencies"]]
    assert [entry for entry in listed if isinstance(entry, dict)] == [{"pip": ["-e ."]}]


def test_everything_that_is_imported_is_declared():
    owners = packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in RUN_DEPENDENCIES}
    extras = PYPROJECT["project"]["optional-dependencies"]
    optional = {canonicalize_name(Requirement(text).name) for text in extras["lab"]}
    missing = set()
    for path in (ROOT / "panacea_nb").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"panacea_nb"}:
                found = {canonicalize_name(owner) for owner in owners.get(name, [name])}
                if not found & (declared | optional):
                    missing.add((path.name, name))
    assert not missing


def read_lock(name: str) -> dict[str, set[str]]:
    """Pinned versions by package; a package may have one per Python version."""
    pins: dict[str, set[str]] = {}
    text = (ROOT / name).read_text(encoding="utf-8")
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.match(r"([a-zA-Z0-9._-]+)(?:\[[^\]]+\])?==(\S+)", line)
            assert match, line
            assert "--hash=sha256:" in line, line
            pins.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return pins


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-lab.lock"])
def test_lock_files_pin_what_pyproject_asks_for(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "-index" not in text
    pins = read_lock(name)
    extra = name.removesuffix(".lock").partition("-")[2]
    wanted = RUN_DEPENDENCIES + [
        Requirement(line) for line in PYPROJECT["project"]["optional-dependencies"].get(extra, [])
    ]
    for requirement in [*wanted, Requirement(PYPROJECT["build-system"]["requires"][0])]:
        versions = pins[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), requirement
    shared = read_lock("requirements.lock")
    assert {package: pins[package] for package in shared} == shared


def test_lock_file_names_the_extras_that_its_packages_ask_for():
    """With hashes required, pip refuses ``coverage[toml]`` where the lock says ``coverage`` once a newer release is out."""
    text = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    locked = set(read_lock("requirements-dev.lock"))
    missing = set()
    for owner in distributions():
        if canonicalize_name(owner.metadata["Name"]) not in locked:
            continue
        for asked in map(Requirement, owner.requires or []):
            if asked.extras and canonicalize_name(asked.name) in locked and _applies(asked):
                missing |= {
                    f"{asked.name}[{e}]"
                    for e in asked.extras
                    if not re.search(rf"^{asked.name}\[.*\b{e}\b", text, re.M)
                }
    assert not missing


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == panacea_nb.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == panacea_nb.__version__


# --- the documents ----------------------------------------------------------------------------------------------------
def commands(path: Path) -> list[str]:
    """Command lines that a document shows: of its code blocks, and of code within a sentence."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:make|panacea-nb) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [line for block in blocks for line in block.splitlines()] + inline
    return [part.strip() for line in lines for part in line.partition(" #")[0].split("&&")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_in_documents_exist(path):
    for line in commands(path):
        words = line.split()
        if words[:1] == ["make"]:
            named = [word for word in words[1:] if "=" not in word and not word.startswith(("-", "'", '"'))]
            assert set(named[:1]) <= TARGETS, line


@pytest.fixture(scope="module")
def options():
    """Options that each subcommand's help names."""
    known: dict[str, set[str]] = {}

    def of(name: str) -> set[str]:
        if name not in known:
            code = "import sys; from panacea_nb.cli import main; sys.exit(main())"
            done = subprocess.run(
                [sys.executable, "-c", code, name, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
            )
            assert done.returncode == 0, f"panacea-nb {name} --help: {done.stderr[-500:]}"
            known[name] = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout))
        return known[name]

    return of


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "Makefile"], ids=lambda path: path.name)
def test_commands_and_options_in_documents_exist(path, options):
    lines = commands(path)
    if path.name == "Makefile":
        text = re.sub(r"##.*", "", path.read_text(encoding="utf-8")).replace("$(BIN)/", "")
        lines = re.findall(r"(?:\t|\) |[;&] +| {4})(panacea-nb [a-z][^\\\n;|&]*)", text)
        assert len(lines) == 7
    for line in lines:
        match = re.search(r"(?:^|\s)panacea-nb ([a-z]+)(.*)", line)
        if match:
            used = {word.partition("=")[0] for word in re.findall(r"(?<=\s)--?[a-zA-Z][^\s]*", match[2])}
            assert used <= options(match[1]), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", link) and not link.startswith("#"):
            assert (path.parent / link.partition("#")[0]).exists(), link


def test_the_map_of_the_house_is_complete():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = {path.name for path in (ROOT / "panacea_nb").iterdir() if (path / "__init__.py").is_file()}
    assert {room for room in rooms if f"panacea_nb/{room}" not in text} == set()
