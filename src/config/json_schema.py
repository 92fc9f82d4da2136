"""A config class as JSON schema: for editors, which complete and check keys with it, and for errors that say what fits.

An editor finds it by a first line `# yaml-language-server: $schema=schema.json` in a YAML file of configs/<objective>/.
Errors read the same schema (`SchemaMap`), so that a new constraint in a config class is explained without a line here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from src.config.section import Section

Node = dict[str, Any]
Key = tuple[str | int, ...]

BASE = {"description": "A YAML file, relative to this one, that this file is laid over.", "type": "string"}


def json_schema(*schemas: type[Section]) -> str:
    """The schema of a file that holds one of these, as indented JSON.

    No key is required, because a file with a `base` need not be complete.
    """
    roots = [schema.model_json_schema() for schema in schemas]
    definitions = {name: section for root in roots for name, section in root.pop("$defs", {}).items()}
    for section in [*roots, *definitions.values()]:
        section.pop("required", None)
        for value in section.get("properties", {}).values():
            if "oneOf" in value:  # without its required keys more than one may fit
                value["anyOf"] = value.pop("oneOf")
    for each in roots:
        each["properties"] = {"base": BASE, **each["properties"]}
    root = {"$defs": definitions, **(roots[0] if len(roots) == 1 else {"anyOf": roots})}
    root = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root}
    return json.dumps(root, indent=2, ensure_ascii=False) + "\n"


def dotted(key: Key) -> str:
    """A key as a user writes it: ("data", "leads", 0) is data.leads[0]."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def either(choices: Sequence[str]) -> str:
    """Choices as prose: a, b or c."""
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if len(choices) > 1 else "".join(choices)


def both(names: Sequence[str]) -> str:
    """Names as prose: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


class SchemaMap:
    """Finds a key's place in a config class and puts into words what may stand there."""

    def __init__(self, schema: type[BaseModel]) -> None:
        self.root = schema.model_json_schema()
        self.definitions: dict[str, Node] = self.root.get("$defs", {})

    def locate(self, location: Key) -> tuple[Key, list[Node]]:
        """The key that a pydantic location means, and the alternatives for its value (none for an unknown key).

        Inside a union pydantic adds the name of the alternative it tried; a user never wrote it, so it is left out.
        """
        nodes = self._alternatives(self.root)
        key: Key = ()
        chosen = False
        for number, part in enumerate(location):
            below = self.children(nodes, part)
            last = number == len(location) - 1
            is_union = len([node for node in nodes if node.get("type") != "null"]) > 1
            if (is_union and not chosen) or not (below or last or isinstance(part, int)):
                chosen = True
                nodes = nodes if last else [node for node in nodes if _is_called(node, part)] or nodes
            else:
                nodes, key, chosen = below, (*key, part), False
        return key, nodes

    def describe(self, nodes: Sequence[Node]) -> str:
        """What a value must be: "a whole number above 0 or null"."""
        words = [word for node in nodes for word in self._words(node)]
        sections = [word for word in words if word.startswith("a section")]
        if len(sections) > 1:  # which one is meant is open, and so are its keys
            words = ["a section", *(word for word in words if word not in sections)]
        return either(list(dict.fromkeys(words)))

    def choices(self, nodes: Sequence[Node]) -> list[str]:
        """The texts among a key's few allowed values."""
        return [value for node in nodes for value in _fixed_values(node) if isinstance(value, str)]

    def holds(self, nodes: Sequence[Node], number: int | float) -> bool:
        """Whether a number is of the right kind and within the bounds."""
        for node in nodes:
            kind = "integer" if isinstance(number, int) else "number"
            inside = (
                node.get("minimum", number) <= number <= node.get("maximum", number)
                and ("exclusiveMinimum" not in node or number > node["exclusiveMinimum"])
                and ("exclusiveMaximum" not in node or number < node["exclusiveMaximum"])
            )
            if node.get("type") in (kind, "number") and inside:
                return True
        return False

    def required(self, nodes: Sequence[Node]) -> list[str]:
        """The keys that a section can't do without."""
        return [name for node in nodes for name in node.get("required", [])]

    def keys(self, nodes: Sequence[Node]) -> list[str]:
        """The keys of a section."""
        return list(dict.fromkeys(name for node in nodes for name in node.get("properties", {})))

    def nearest(self, key: Key) -> list[str]:
        """Known keys that an unknown one may have meant: its like in the same section, or its name in another one."""
        *section, name = key
        close = difflib.get_close_matches(str(name), self.keys(self.locate(tuple(section))[1]), n=1)
        if close:
            return [dotted((*section, close[0]))]
        by_name: dict[str, list[str]] = {}
        for path in self._paths(self._alternatives(self.root), (), ()):
            by_name.setdefault(str(path[-1]), []).append(dotted(path))
        close = difflib.get_close_matches(str(name), by_name, n=1, cutoff=0.75)
        return list(dict.fromkeys(by_name[close[0]]))[:3] if close else []

    def _alternatives(self, node: Node) -> list[Node]:
        if "$ref" in node:
            return self._alternatives(self.definitions[node["$ref"].rsplit("/", 1)[-1]])
        parts = node.get("anyOf") or node.get("oneOf")
        return [leaf for part in parts for leaf in self._alternatives(part)] if parts else [node]

    def children(self, nodes: Sequence[Node], part: str | int) -> list[Node]:
        """The alternatives for the value of a key, or of a list's entry, below the given ones."""
        found: list[Node] = []
        for node in nodes:
            if isinstance(part, int):
                entries = node.get("prefixItems", [])
                child = entries[part] if part < len(entries) else node.get("items")
            else:
                child = node.get("properties", {}).get(part) or node.get("additionalProperties")
            if isinstance(child, dict):
                found += self._alternatives(child)
        return found

    def _paths(self, nodes: Sequence[Node], above: Key, parents: tuple[int, ...]) -> Iterator[Key]:
        for node in nodes:
            if id(node) in parents:  # a section that holds itself
                continue
            for name, child in node.get("properties", {}).items():
                yield (*above, name)
                yield from self._paths(self._alternatives(child), (*above, name), (*parents, id(node)))

    def _words(self, node: Node) -> list[str]:
        if fixed := _fixed_values(node):
            return [value if isinstance(value, str) else json.dumps(value) for value in fixed]
        match node.get("type"):
            case "boolean":
                return ["true", "false"]
            case "integer":
                return ["a whole number" + _bounds(node)]
            case "number":
                return ["a number" + _bounds(node)]
            case "string":
                return ["text" + _text_limits(node)]
            case "array":
                return ["a list" + self._entries(node)]
            case "object":
                return [self._section(node)]
            case other:
                return [other or "any value"]

    def _entries(self, node: Node) -> str:
        least, most = node.get("minItems"), node.get("maxItems")
        if least is not None and least == most:
            count = f"{least} "
        else:
            count = (f"at least {least} " if least else "") + (f"at most {most} " if most is not None else "")
        kinds = [self.describe(self._alternatives(kind)) for kind in node.get("prefixItems", [])]
        if isinstance(node.get("items"), dict):
            kinds.append(self.describe(self._alternatives(node["items"])))
        kinds = list(dict.fromkeys(kinds))
        return f" of {count}entries" + (f", each of them {kinds[0]}" if len(kinds) == 1 else f": {', '.join(kinds)}")

    def _section(self, node: Node) -> str:
        if isinstance(node.get("additionalProperties"), dict):
            return "a mapping from names, each to " + self.describe(self._alternatives(node["additionalProperties"]))
        required = node.get("required", [])
        return "a section" + (f" with {both(required)}" if required else "")


def _is_called(node: Node, label: str | int) -> bool:
    """Whether an alternative of a union goes by this name: its class, or the value of the key that tells them apart."""
    values = [_fixed_values(child) for child in node.get("properties", {}).values()]
    return label == node.get("title") or any(label in fixed for fixed in values)


def _fixed_values(node: Node) -> list[Any]:
    return [node["const"]] if "const" in node else node.get("enum", [])


def _bounds(node: Node) -> str:
    if "minimum" in node and "maximum" in node:
        return f" from {node['minimum']:g} to {node['maximum']:g}"
    words = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
        "multipleOf": "that is a multiple of",
    }
    limits = [f"{word} {node[name]:g}" for name, word in words.items() if name in node]
    return " " + " and ".join(limits) if limits else ""


def _text_limits(node: Node) -> str:
    words = {
        "minLength": "of at least {} characters",
        "maxLength": "of at most {} characters",
        "pattern": "matching {}",
    }
    limits = [word.format(node[name]) for name, word in words.items() if name in node]
    return " " + " and ".join(limits) if limits else ""
