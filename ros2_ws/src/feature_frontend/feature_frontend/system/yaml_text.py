"""Reads small YAML files of other programs as plain data: limited in size, with scalars as ROS reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from feature_frontend.system.files import open_regular_file
from feature_frontend.system.text import quoted, short_text

__all__ = ["MAX_BYTES", "YamlTextError", "parse_yaml", "read_small_text"]

MAX_BYTES = 1 << 20

_PLAIN = "tag:feature_frontend:plain"
_BOOLS = {text: True for word in ("y", "yes", "true", "on") for text in (word, word.capitalize(), word.upper())}
_BOOLS |= {text: False for word in ("n", "no", "false", "off") for text in (word, word.capitalize(), word.upper())}
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_MOST_DIGITS = 24  # of 64 bits, in any base
_SPECIAL = {f"{sign}.{word}": float(sign + word) for sign in ("", "+", "-") for word in ("inf", "nan")}


class YamlTextError(ValueError):
    """A file is not text or not YAML; the message says why in one short line."""

    def __init__(self, text: str) -> None:
        # PyYAML's messages quote input of any length.
        super().__init__(" ".join(short_text(text).splitlines()))


def read_small_text(path: Path) -> str:
    """The text of a small file in UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        YamlTextError: It is not text, or larger than `MAX_BYTES`.
    """
    with open_regular_file(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise YamlTextError(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlTextError(f"it is not UTF-8 text: byte {data[error.start]:#04x} at position {error.start}") from error


def parse_yaml(text: str, *, aliases: bool = True) -> Any:
    """Parses a YAML document. Executes nothing: tagged values are read as mappings, lists or strings.

    Plain scalars are read as by `rcl_yaml_param_parser`: "1e-5" is a number, "010" is 8, "1:30" a string. Keys are
    strings.

    Args:
        text: One document.
        aliases: Whether `*name` may refer to an anchor `&name`. ROS rejects aliases, and merges mappings under a
            repeated key. False does the same.

    Raises:
        YamlTextError: It is not valid YAML.
    """
    try:
        return yaml.load(text, _Loader if aliases else _LoaderWithoutAliases)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise YamlTextError(f"it is not valid YAML: {problem}{where}") from error
    except (RecursionError, ValueError) as error:
        raise YamlTextError(f"it is not valid YAML: {type(error).__name__}: {str(error)[:100]}") from error


class _Loader(yaml.SafeLoader):
    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


class _LoaderWithoutAliases(_Loader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported by ROS", mark)
        return super().compose_node(parent, index)


def _plain(text: str) -> object:
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) <= _MOST_DIGITS and _INTEGER.fullmatch(text):
        digits = text.lstrip("+-")
        is_octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        value = int(text, 8 if is_octal else 0)
        return value if -(2**63) <= value < 2**63 else float(value)
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    if _FLOAT.fullmatch(text):
        number = float(text)
        return text if number in {float("inf"), float("-inf")} and "n" not in text.lower() else number
    return text


def _construct_plain(loader: _Loader, node: yaml.ScalarNode) -> object:
    return _plain(str(node.value))


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, object]:
    merged: dict[str, object] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is not text", key_node.start_mark)
        value = loader.construct_object(value_node, deep=True)
        if isinstance(loader, _LoaderWithoutAliases):
            _put(merged, str(key_node.value), value)
            continue
        # Not merged: mappings that aliases repeat would grow without bound.
        if key_node.value in merged:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {quoted(key_node.value)} is given twice", key_node.start_mark
            )
        merged[str(key_node.value)] = value
    return merged


def _put(into: dict[str, object], key: str, value: object) -> None:
    before = into.get(key)
    if isinstance(before, dict) and isinstance(value, dict):
        into[key] = merged = dict(before)
        for inner, inner_value in value.items():
            _put(merged, inner, inner_value)
    else:
        into[key] = value


def _construct_any(loader: _Loader, _: str, node: yaml.Node) -> object:
    """A tagged value (`!!opencv-matrix`, `!!python/tuple`) as plain data; ignores the tag."""
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return _plain(str(node.value))


_Loader.add_constructor(_PLAIN, _construct_plain)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_multi_constructor("", _construct_any)
