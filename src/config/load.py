"""From a YAML file, its bases and `--set key=value` to a validated config, or to an error that says what to write.

YAML is read by its 1.2 rules with decimal numbers: 1e-3 is a number, and yes, no, on and off are text (PyYAML follows
1.1, where 1e-3 is text and off is false). Each value remembers the file or the `--set` that gave it, because an error
in a chain of files has to name the right one.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from src.config.json_schema import Key, Node, SchemaMap, dotted, either
from src.config.sections import ExperimentConfig

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


@dataclass(frozen=True)
class _Tree:
    """Nested values, and for each leaf (a value that is no mapping, or an empty one) the file or `--set` it is from."""

    file: str
    """The experiment's own file: where to write what is given nowhere."""
    values: dict[str, Any]
    origins: dict[Key, str]

    @classmethod
    def of(cls, file: str, values: dict[str, Any], origin: str) -> _Tree:
        return cls(file, values, dict.fromkeys(_leaves(values), origin))

    def under(self, above: _Tree) -> _Tree:
        """This tree with another laid over it."""
        values = _merged(self.values, above.values)
        origins = {leaf: above.origins.get(leaf) or self.origins[leaf] for leaf in _leaves(values)}
        return _Tree(above.file, values, origins)

    def origin(self, key: Key) -> str:
        """Where a value is from; several names for a section that was put together."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return self.origin_of_all([leaf for leaf in self.origins if leaf[: len(key)] == key])

    def origin_of_all(self, leaves: Sequence[Key]) -> str:
        return " and ".join(dict.fromkeys(self.origins[leaf] for leaf in leaves)) or self.file


def load_config(
    path: Path, overrides: Sequence[str], schema_of: Callable[[str], type[ExperimentConfig]]
) -> ExperimentConfig:
    """The experiment of a YAML file: its bases first, the file over them, `key.path=value` overrides last.

    Mappings are merged key by key, everything else is replaced. `schema_of` gives the config class of an objective and
    raises ValueError for an unknown one. Whatever a user can get wrong raises ConfigError.
    """
    tree = _read_with_bases(path, ())
    for override in overrides:
        tree = tree.under(_read_override(override, tree))
    schema = _schema(tree, schema_of)
    try:
        return schema.model_validate_json(json.dumps(tree.values))
    except ValidationError as error:
        raise ConfigError(_explanation(error, tree, SchemaMap(schema))) from None


def dump_config(config: ExperimentConfig) -> str:
    """The whole config as YAML, defaults included; `load_config` reads it back to an equal one."""
    tree = config.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


# Reading


def _read_with_bases(path: Path, overlays: tuple[Path, ...]) -> _Tree:
    if path.resolve() in [overlay.resolve() for overlay in overlays]:
        chain = " -> ".join(map(str, [*overlays, path]))
        raise ConfigError(
            f"{overlays[-1]}: base leads back to a file that is based on this one ({chain}); remove one base"
        )
    values = _read_file(path)
    if "base" not in values:
        return _Tree.of(str(path), values, str(path))
    base = values.pop("base")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: base must be the path of one YAML file, not {_shown(base)}")
    below = Path(os.path.normpath(path.parent / base))
    if not below.is_file():
        raise ConfigError(
            f"{path}: base {base} is not a file; write its path relative to {path.parent}/ or an absolute one"
        )
    return _read_with_bases(below, (*overlays, path)).under(_Tree.of(str(path), values, str(path)))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give the path of a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the path of a YAML file in it") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; give the path of a YAML file") from None
    values = _parse(text, str(path))
    if values is None:
        raise ConfigError(f"{path} is empty; a config needs at least `base: other.yaml` or `objective: name`")
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {_shown(values)}; a config is a mapping of lines `key: value`")
    return values


def _read_override(override: str, tree: _Tree) -> _Tree:
    """One `key.path=value`; a section that is absent or null is made on the way to the key."""
    name, equals, text = override.partition("=")
    origin = f"--set {override}"
    key = tuple(part.strip() for part in name.split("."))
    if not equals:
        raise ConfigError(f"{origin}: there is no '='; write --set key.path=value")
    if not all(key):
        raise ConfigError(f"{origin}: a part of the key is empty; write --set key.path=value")
    if key[0] == "base":
        raise ConfigError(f"{origin}: base can't be set here; write it in a YAML file")
    section: Any = tree.values
    for length, part in enumerate(key[:-1], 1):
        section = section.get(part)
        if section is None:
            break
        if not isinstance(section, dict):
            above = dotted(key[:length])
            raise ConfigError(f"{origin}: {above} is {_shown(section)}, which has no keys; set {above} as a whole")
    value = _parse(text, origin, key)
    for part in reversed(key):
        value = {part: value}
    return _Tree.of(tree.file, value, origin)


def _parse(text: str, origin: str, key: Key = ()) -> Any:
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
                raise ConfigError(f"{origin}: the key {_shown(name)}{place} is not text; put it in quotes")
            _check_plain(child, (*key, name), origin)
    elif isinstance(value, list):
        for number, child in enumerate(value):
            _check_plain(child, (*key, number), origin)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{origin}: {dotted(key)} is {value}; write a finite number")
    elif isinstance(value, _Date):
        raise ConfigError(f"{origin}: {dotted(key)} is {value}, which is a date in YAML; {_in_quotes(origin)}")
    elif not isinstance(value, str | int | float | None):
        raise ConfigError(f"{origin}: {dotted(key)} is a {type(value).__name__}; a config has no such values")


def _leaves(values: dict[str, Any], above: Key = ()) -> Iterator[Key]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        result[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


# Explaining


def _schema(tree: _Tree, schema_of: Callable[[str], type[ExperimentConfig]]) -> type[ExperimentConfig]:
    objective = tree.values.get("objective")
    if "objective" not in tree.values:
        for name in difflib.get_close_matches("objective", tree.values, n=1):
            raise ConfigError(f"{tree.origin((name,))}: unknown key {name}; did you mean objective?")
        raise ConfigError(f"{tree.file}: objective is missing; write the name of a folder of ssls/")
    origin = tree.origin(("objective",))
    if not isinstance(objective, str):
        raise ConfigError(f"{origin}: objective must be the name of a folder of ssls/, not {_shown(objective)}")
    try:
        return schema_of(objective)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _explanation(error: ValidationError, tree: _Tree, schema: SchemaMap) -> str:
    """One line for each fault, unknown keys first: what else is missing is often only misspelt."""
    unknown, wrong, missing = [], [], {}
    meant: set[str] = set()
    for fault in error.errors(include_url=False):
        key, nodes = schema.locate(fault["loc"])
        kind, details = fault["type"], fault.get("ctx", {})
        if kind == "extra_forbidden":
            nearest = schema.nearest(key)
            meant.update(nearest)
            unknown.append(f"{tree.origin(key)}: {_unknown_key(key, nearest, schema)}")
        elif kind in ("value_error", "assertion_error"):
            wrong.append(_own_message(key, fault["input"], str(details["error"]), tree))
        elif kind == "missing" and isinstance(key[-1], int):  # a list that is too short
            key, nodes = schema.locate(fault["loc"][:-1])
            wrong.append(_wrong_value(key, fault["input"], nodes, schema, tree))
        elif kind == "missing":
            missing[dotted(key)] = schema.describe(nodes)
        elif kind == "union_tag_not_found":
            name = details["discriminator"].strip("'")
            missing[dotted((*key, name))] = schema.describe(schema.children(nodes, name))
        elif kind == "union_tag_invalid":
            name = details["discriminator"].strip("'")
            kinds = schema.children(nodes, name)
            wrong.append(_wrong_value((*key, name), fault["input"][name], kinds, schema, tree))
        else:
            wrong.append(_wrong_value(key, fault["input"], nodes, schema, tree))
    absent = [f"{tree.file}: {key} is missing; write {words}" for key, words in missing.items() if key not in meant]
    return "\n".join(dict.fromkeys([*unknown, *wrong, *absent]))  # two alternatives may give the same line


def _unknown_key(key: Key, nearest: Sequence[str], schema: SchemaMap) -> str:
    *section, name = key
    text = f"unknown key {dotted(key)}; "
    if "." in str(name):
        return text + "a key with dots is for --set, in a file write its parts as nested sections"
    if dotted(key) in nearest:  # known to another alternative of a union
        return f"{dotted(key)} does not go with the other keys of {dotted(tuple(section))}"
    if nearest:
        return text + f"did you mean {either(nearest)}?"
    known = schema.keys(schema.locate(tuple(section))[1])
    return text + f"{dotted(tuple(section)) or 'a config'} has {', '.join(known) or 'no keys'}"


def _wrong_value(key: Key, value: Any, nodes: Sequence[Node], schema: SchemaMap, tree: _Tree) -> str:
    origin, expected = tree.origin(key), schema.describe(nodes)
    hint = _hint(value, nodes, schema, origin)
    return f"{origin}: {dotted(key)} must be {expected}, not {_shown(value)}" + (f"; {hint}" if hint else "")


def _hint(value: Any, nodes: Sequence[Node], schema: SchemaMap, origin: str) -> str:
    """What was probably meant by a value of the wrong type; empty where that is anyone's guess."""
    kinds = {node.get("type") for node in nodes}
    number = _as_number(value)
    if number is not None and schema.holds(nodes, number):
        return f"write {number}"
    if isinstance(value, str) and "boolean" in kinds and value.lower() in ("yes", "on", "no", "off"):
        return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if isinstance(value, str):
        close = difflib.get_close_matches(value, schema.choices(nodes), n=1)
        return f"did you mean {close[0]}?" if close else ""
    if value is None and "object" in kinds and not schema.required(nodes):
        return "leave it out for the defaults"
    return _in_quotes(origin) if isinstance(value, int | float) and "string" in kinds else ""


def _as_number(value: Any) -> int | float | None:
    """The number that a text stands for, or the whole one that 3.0 does."""
    if not isinstance(value, str | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def _in_quotes(origin: str) -> str:
    shell = " inside another pair, because the shell removes the outer one" if origin.startswith("--set") else ""
    return f"put it in quotes{shell}"


def _own_message(key: Key, value: Any, message: str, tree: _Tree) -> str:
    """The sentence of a config class's own check, with the files that gave the keys it names."""
    if not isinstance(value, dict):
        instead = "" if " got " in message else f", not {_shown(value)}"
        said = f" {message}{instead}" if message.startswith("must ") else f" is {_shown(value)}; {message}"
        return f"{tree.origin(key)}: {dotted(key)}{said}"
    inside = [leaf for leaf in tree.origins if leaf[: len(key)] == key]
    words = set(re.findall(r"\w+", message))
    named = [leaf for leaf in inside if dotted(leaf) in message] or [leaf for leaf in inside if leaf[-1] in words]
    place = "" if dotted(key) in message else f"{dotted(key)}: "
    return f"{tree.origin_of_all(named)}: {place}{message}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= 60 else text[:57] + "..."
    kind = "the text " if isinstance(value, str) else "the list " if isinstance(value, list) else ""
    return kind + text
