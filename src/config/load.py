"""From a YAML file, its bases and `--set key=value` to a validated config, or to an error that says what to write.

Each value remembers the file or `--set` that gave it: an error in a chain of files has to name the right one.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from src.config.experiment import RunConfig
from src.config.explain import explanation
from src.config.json_schema import SchemaMap, dotted, either
from src.config.section import Section
from src.config.transforms import TRANSFORMS, TransformConfig
from src.config.tree import Tree
from src.config.yaml_text import ConfigError, dump_yaml, parse_yaml, shown

AnySection = TypeVar("AnySection", bound=Section)


def load_config(path: Path, overrides: Sequence[str], schema_of: Callable[[str], type[RunConfig]]) -> RunConfig:
    """The experiment of a YAML file: its bases first, the file over them, `key.path=value` overrides last.

    Mappings are merged key by key, everything else is replaced. `schema_of` gives the config class of an objective and
    raises ValueError for an unknown one. Whatever a user can get wrong raises ConfigError.
    """
    tree = _read(path, overrides)
    return _validated(tree, _schema(tree, schema_of))


def load_transform(path: Path, overrides: Sequence[str]) -> TransformConfig:
    """The transforms of a YAML file like those of configs/transforms/, read as `load_config` reads an experiment."""
    tree = _read(path, overrides)
    return _validated(tree, _transform_class(tree))


def load_section(path: Path, schema: type[AnySection]) -> AnySection:
    """Any section of a YAML file of its own, read as `load_config` reads an experiment."""
    return _validated(_read(path, ()), schema)


def dump_config(config: RunConfig) -> str:
    """The whole config as YAML, defaults included; `load_config` reads it back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def _read(path: Path, overrides: Sequence[str]) -> Tree:
    tree = _read_with_bases(path, ())
    for override in overrides:
        tree = tree.under(_read_override(override, tree))
    return tree


def _validated(tree: Tree, schema: type[AnySection]) -> AnySection:
    try:
        return schema.model_validate_json(json.dumps(tree.values))
    except ValidationError as error:
        raise ConfigError(explanation(error, tree, SchemaMap(schema))) from None


def _transform_class(tree: Tree) -> type[TransformConfig]:
    """The class of a modality, the one key that such a file can't do without."""
    modality, known = tree.values.get("modality"), either(list(TRANSFORMS))
    if "modality" not in tree.values:
        for name in difflib.get_close_matches("modality", tree.values, n=1):
            raise ConfigError(f"{tree.origin((name,))}: unknown key {name}; did you mean modality?")
        raise ConfigError(f"{tree.file}: modality is missing; write {known}")
    if not isinstance(modality, str) or modality not in TRANSFORMS:
        close = difflib.get_close_matches(str(modality), TRANSFORMS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{tree.origin(('modality',))}: modality must be {known}, not {shown(modality)}{hint}")
    return TRANSFORMS[modality]


def _schema(tree: Tree, schema_of: Callable[[str], type[RunConfig]]) -> type[RunConfig]:
    objective = tree.values.get("objective")
    if "objective" not in tree.values:
        for name in difflib.get_close_matches("objective", tree.values, n=1):
            raise ConfigError(f"{tree.origin((name,))}: unknown key {name}; did you mean objective?")
        raise ConfigError(f"{tree.file}: objective is missing; write the name of a folder of ssls/")
    origin = tree.origin(("objective",))
    if not isinstance(objective, str):
        raise ConfigError(f"{origin}: objective must be the name of a folder of ssls/, not {shown(objective)}")
    try:
        return schema_of(objective)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _read_with_bases(path: Path, overlays: tuple[Path, ...]) -> Tree:
    if path.resolve() in [overlay.resolve() for overlay in overlays]:
        chain = " -> ".join(map(str, [*overlays, path]))
        raise ConfigError(
            f"{overlays[-1]}: base leads back to a file that is based on this one ({chain}); remove one base"
        )
    values = _read_file(path)
    if "base" not in values:
        return Tree.of(str(path), values, str(path))
    base = values.pop("base")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: base must be the path of one YAML file, not {shown(base)}")
    below = Path(os.path.normpath(path.parent / base))
    if not below.is_file():
        raise ConfigError(
            f"{path}: base {base} is not a file; write its path relative to {path.parent}/ or an absolute one"
        )
    return _read_with_bases(below, (*overlays, path)).under(Tree.of(str(path), values, str(path)))


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
    values = parse_yaml(text, str(path))
    if values is None:
        raise ConfigError(f"{path} is empty; a config needs at least `base: other.yaml` or `objective: name`")
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {shown(values)}; a config is a mapping of lines `key: value`")
    return values


def _read_override(override: str, tree: Tree) -> Tree:
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
            raise ConfigError(f"{origin}: {above} is {shown(section)}, which has no keys; set {above} as a whole")
    value = parse_yaml(text, origin, key)
    for part in reversed(key):
        value = {part: value}
    return Tree.of(tree.file, value, origin)
