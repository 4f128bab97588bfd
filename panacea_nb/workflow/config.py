"""Configuration files: YAML without its traps, read with messages that say what is wrong where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import RequestError


class DefinitionError(RequestError):
    """A run definition (command line or YAML) holds something that cannot be meant."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, without two of its traps: leading zeros are no octal numbers, and no key comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_plain_int(self, node: yaml.ScalarNode) -> Any:
        text = self.construct_scalar(node)
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_plain_int)


def read_yaml(path: Path) -> dict[str, Any]:
    """Names and values in a YAML file.

    Raises
    ------
    DefinitionError
        If the file cannot be read or is no mapping of options.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DefinitionError(f"the configuration {path} cannot be read: {reason}") from error
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DefinitionError(f"the configuration {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise DefinitionError(f"the configuration {path} must be a list of lines 'option: value'")
    return values
