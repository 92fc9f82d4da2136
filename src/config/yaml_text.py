"""YAML as JSON values, by the rules of YAML 1.2 with decimal numbers, and back.

1e-3 is a number, and yes, no, on and off are text (PyYAML follows 1.1, where 1e-3 is text and off is false). What a
config can't hold (a key given twice, dates, .nan, tags) is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

from src.config.json_schema import Key, dotted

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": (r"<<", "<"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "timestamp": (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "0123456789"),
}


# PyYAML's words for what goes wrong most often, and ours.
_YAML_PROBLEMS = {
    "'\\t'": "a tab can't stand here, indent with spaces",
    "mapping values are not allowed": "there is a ': ' too many or the indent is wrong; quote text that holds ': '",
    "could not determine a constructor": "tags (!name) are not supported; quote text that starts with '!'",
    "undefined alias": "*name refers to nothing; quote text that starts with '*'",
    "flow sequence": "in a list [a, b] a comma or the closing ] is missing",
    "flow mapping": "in a mapping {a: 1, b: 2} a comma or the closing } is missing",
    "quoted scalar": "a quote is not closed, or a \\ in double quotes has to be doubled",
    "block mapping": "this line's indent does not fit the lines above it",
    "block collection": "this line's indent does not fit the lines above it",
    "could not find expected ':'": "a line is no `key: value`",
    "single document": "a config is one document, remove the line ---",
    "unhashable key": "a key must be text",
    "cannot start any token": "quote text that starts with @, ` or %",
}


class ConfigError(ValueError):
    """A config that can't be used; the message names the file, the key and what to write."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuses a key that is given twice, of which PyYAML would silently take the last."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


class _Date(str):
    """A bare date: text to this reader and a date to others, hence refused by name."""


def _construct_date(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> _Date:
    return _Date(node.value)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the rules of YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if "\x85" in text else None  # PyYAML would take this line break for a blank in any other style
    return dumper.represent_scalar(_TAG + "str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    on_one_line = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence(_TAG + "seq", values, flow_style=on_one_line)


for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_TAG + "timestamp", _construct_date)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)


def parse_yaml(text: str, origin: str, key: Key = ()) -> Any:
    """YAML as JSON values."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        _check_plain(value, key, origin)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{origin}{_line(error) if not key else ''}: {_yaml_problem(error)}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{origin}: it holds characters that YAML does not allow; write plain text") from None
    except RecursionError:
        raise ConfigError(f"{origin}: it is nested too deep, or an alias (*name) holds itself") from None
    except (ValueError, KeyError):
        raise ConfigError(
            f"{origin}: a number has thousands of digits or a tag (!!name) does not fit its value"
        ) from None
    return value


def _line(error: yaml.MarkedYAMLError) -> str:
    """Where the fault is; for what was never closed, where it was opened."""
    unclosed = "end of stream" in str(error.problem) or "<stream end>" in str(error.problem)
    mark = (error.context_mark if unclosed else None) or error.problem_mark
    return f", line {mark.line + 1}" if mark else ""


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    text = f"{error.context or ''} {error.problem or ''}".strip()
    if "given twice" in text:
        return f"{text}; remove one"
    for fragment, meaning in _YAML_PROBLEMS.items():
        if fragment in text:
            return f"not valid YAML; {meaning}"
    return f"not valid YAML; {text}"


def _check_plain(value: Any, key: Key, origin: str) -> None:
    """Refuses what YAML can hold and a config can't: dates, sets, binary, keys that are no text, .nan and .inf."""
    if isinstance(value, dict):
        for name, child in value.items():
            if not isinstance(name, str):
                place = f" of {dotted(key)}" if key else ""
                raise ConfigError(f"{origin}: the key {shown(name)}{place} is not text; put it in quotes")
            _check_plain(child, (*key, name), origin)
    elif isinstance(value, list):
        for number, child in enumerate(value):
            _check_plain(child, (*key, number), origin)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{origin}: {dotted(key)} is {value}; write a finite number")
    elif isinstance(value, _Date):
        raise ConfigError(f"{origin}: {dotted(key)} is {value}, which is a date in YAML; {in_quotes(origin)}")
    elif not isinstance(value, str | int | float | None):
        raise ConfigError(f"{origin}: {dotted(key)} is a {type(value).__name__}; a config has no such values")


def dump_yaml(tree: dict[str, Any]) -> str:
    """YAML that `parse_yaml` reads back to the same values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def in_quotes(origin: str) -> str:
    shell = " inside another pair, because the shell removes the outer one" if origin.startswith("--set") else ""
    return f"put it in quotes{shell}"


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= 60 else text[:57] + "..."
    kind = "the text " if isinstance(value, str) else "the list " if isinstance(value, list) else ""
    return kind + text
