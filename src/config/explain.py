"""What is wrong with a config, in sentences: file, key, value, and what to write instead."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from src.config.json_schema import Key, Node, SchemaMap, dotted, either
from src.config.tree import Tree
from src.config.yaml_text import in_quotes, shown


def explanation(error: ValidationError, tree: Tree, schema: SchemaMap) -> str:
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
            name = details["discriminator"].strip("'()")
            missing[dotted((*key, name))] = schema.describe(schema.children(nodes, name))
        elif kind == "union_tag_invalid":
            name = details["discriminator"].strip("'()")
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


def _wrong_value(key: Key, value: Any, nodes: Sequence[Node], schema: SchemaMap, tree: Tree) -> str:
    origin, expected = tree.origin(key), schema.describe(nodes)
    hint = _hint(value, nodes, schema, origin)
    return f"{origin}: {dotted(key)} must be {expected}, not {shown(value)}" + (f"; {hint}" if hint else "")


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
    return in_quotes(origin) if isinstance(value, int | float) and "string" in kinds else ""


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


def _own_message(key: Key, value: Any, message: str, tree: Tree) -> str:
    """The sentence of a config class's own check, with the files that gave the keys it names."""
    if not isinstance(value, dict):
        instead = "" if " got " in message else f", not {shown(value)}"
        said = f" {message}{instead}" if message.startswith("must ") else f" is {shown(value)}; {message}"
        return f"{tree.origin(key)}: {dotted(key)}{said}"
    inside = [leaf for leaf in tree.origins if leaf[: len(key)] == key]
    words = set(re.findall(r"\w+", message))
    named = [leaf for leaf in inside if dotted(leaf) in message] or [leaf for leaf in inside if leaf[-1] in words]
    place = "" if dotted(key) in message else f"{dotted(key)}: "
    return f"{tree.origin_of_all(named)}: {place}{message}"
