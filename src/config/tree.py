"""Nested values that remember where each of them is from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from src.config.json_schema import Key


@dataclass(frozen=True)
class Tree:
    """Nested values, and for each leaf (a value that is no mapping, or an empty one) the file or `--set` it is from."""

    file: str
    """The experiment's own file: where to write what is given nowhere."""
    values: dict[str, Any]
    origins: dict[Key, str]

    @classmethod
    def of(cls, file: str, values: dict[str, Any], origin: str) -> Tree:
        return cls(file, values, dict.fromkeys(_leaves(values), origin))

    def under(self, above: Tree) -> Tree:
        """This tree with another laid over it."""
        values = _merged(self.values, above.values)
        origins = {leaf: above.origins.get(leaf) or self.origins[leaf] for leaf in _leaves(values)}
        return Tree(above.file, values, origins)

    def origin(self, key: Key) -> str:
        """Where a value is from; several names for a section that was put together."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return self.origin_of_all([leaf for leaf in self.origins if leaf[: len(key)] == key])

    def origin_of_all(self, leaves: Sequence[Key]) -> str:
        return " and ".join(dict.fromkeys(self.origins[leaf] for leaf in leaves)) or self.file


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
