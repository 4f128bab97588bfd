"""Find the notebooks of the stages, and read what they declare about themselves without running them."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import PanaceaError

_PACKAGE = Path(__file__).resolve().parents[1]
_SIMPLE = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "list": (list,), "dict": (dict,)}


class NotebookError(PanaceaError):
    """A notebook is missing, damaged, or does not declare its parameters."""


class ParameterError(PanaceaError):
    """A parameter that would be given to a notebook is not one that the notebook declares."""


def folder() -> Path:
    """The folder of the notebooks: of the checkout, else the copies that a wheel carries."""
    for candidate in (_PACKAGE.parent / "notebooks", _PACKAGE / "_notebooks"):
        if any(candidate.glob("0*_*.ipynb")):
            return candidate
    raise NotebookError(
        f"no notebooks in {_PACKAGE.parent / 'notebooks'} nor inside the package: the installation is incomplete"
    )


def path(stage: str) -> Path:
    """The notebook of a stage, such as ``05_extract``."""
    found = folder() / f"{stage}.ipynb"
    if not found.is_file():
        raise NotebookError(f"the notebook of stage {stage} is missing: {found}")
    return found


def load(notebook: Path) -> dict[str, Any]:
    """The notebook as parsed JSON.

    Raises
    ------
    NotebookError
        If the file cannot be read or is no notebook.
    """
    try:
        content = json.loads(Path(notebook).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise NotebookError(f"notebook {notebook} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise NotebookError(f"{notebook} is not a notebook: it has no cells")
    return content


def cell_source(cell: dict[str, Any]) -> str:
    """Source of a cell; the file format allows a string or a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def source_digest(notebook: Path) -> str:
    """sha256 over the sources of all cells: what the notebook does, without outputs, counters and metadata."""
    digest = hashlib.sha256()
    for cell in load(notebook)["cells"]:
        digest.update(f"{cell.get('cell_type', '')}\n{cell_source(cell)}\0".encode())
    return digest.hexdigest()


def declared_parameters(notebook: Path) -> dict[str, str]:
    """Name -> annotation (empty where none) of the parameters in the cell tagged ``parameters``.

    Raises
    ------
    NotebookError
        If there is no such cell, or it is not plain Python.
    """
    stat = Path(notebook).stat()
    return dict(_declared(str(notebook), stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=64)
def _declared(notebook: str, _mtime: int, _size: int) -> tuple[tuple[str, str], ...]:
    for cell in load(Path(notebook))["cells"]:
        if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", []):
            try:
                tree = ast.parse(cell_source(cell))
            except SyntaxError as error:
                raise NotebookError(f"the parameters cell of {notebook} is not plain Python: {error}") from error
            break
    else:
        raise NotebookError(f"{notebook} has no code cell tagged 'parameters'")
    found: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = ast.unparse(statement.annotation)
        elif isinstance(statement, ast.Assign):
            found.update({target.id: "" for target in statement.targets if isinstance(target, ast.Name)})
    return tuple(found.items())


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Refuse parameters that the notebook does not declare, or of another type than it declares.

    Papermill only logs an unknown name and runs on with the default, so this is done before a kernel is started.

    Raises
    ------
    ParameterError
        With the names that do not fit.
    """
    declared = declared_parameters(notebook)
    unknown = sorted(set(parameters) - set(declared))
    if unknown:
        raise ParameterError(
            f"{Path(notebook).name} does not declare the parameter(s) {', '.join(unknown)}; "
            f"its parameters are {', '.join(declared)}"
        )
    for name, value in parameters.items():
        if not _fits(value, declared[name]):
            raise ParameterError(
                f"{Path(notebook).name} declares {name}: {declared[name]}, "
                f"but was given {value!r} ({type(value).__name__})"
            )


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is of an annotated type; annotations beyond the simple ones are not judged."""
    kinds: list[type] = []
    for part in annotation.split("|"):
        name = part.strip().strip("'\"").split("[")[0]
        if name == "None":
            kinds.append(type(None))
        elif name in _SIMPLE:
            kinds.extend(_SIMPLE[name])
        else:
            return True
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, tuple(kinds))
