"""What makes two configs the same run: the sections that decide what is learned, less what may change on a resume.

Engine, logging, checkpoints and evaluation may change between a kill and its resume. So may the keys of `data`
that name a place or a way of working; the samples themselves are identified by the checksum of their index.
`init_from` is left out: it says where a new run starts, and a resumed one starts from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from src.config.experiment import ExperimentConfig

SECTIONS = ("objective", "seed", "data", "pairs", "target", "model", "mask", "more_masks", "loss", "optimization")
FREE_DATA_KEYS = frozenset({"root", "workers", "micro_batch_size", "cache", "timeout", "broken"})
ABSENT = "absent"


def identity(config: ExperimentConfig) -> dict[str, Any]:
    """The part of the config that a resume may not change, as plain JSON values."""
    tree = config.model_dump(mode="json")
    kept = {name: tree[name] for name in SECTIONS if name in tree}
    data = {key: value for key, value in kept["data"].items() if key not in FREE_DATA_KEYS}
    for source in data["mixture"].values():
        del source["root"]
    return {**kept, "data": data}


def config_hash(config: ExperimentConfig) -> str:
    """SHA-256 of the identity, as hex; the order of keys has no influence."""
    return hashlib.sha256(_canonical(identity(config)).encode()).hexdigest()


def completed(old: Mapping[str, Any], config: ExperimentConfig) -> Mapping[str, Any]:
    """The identity of an earlier run, with the defaults of keys that the config has got since.

    As it is, where it is not valid any more.
    """
    now = config.model_dump(mode="json")
    free = {name: value for name, value in now.items() if name not in SECTIONS}
    free_of_data = {key: now["data"][key] for key in FREE_DATA_KEYS}
    try:
        roots = {name: {"root": source["root"]} for name, source in now["data"]["mixture"].items()}
        sources = {name: roots.get(name, {}) | source for name, source in old["data"].get("mixture", {}).items()}
        tree = {**free, **old, "data": {**free_of_data, **old["data"], "mixture": sources}}
        return identity(type(config).model_validate_json(json.dumps(tree)))
    except (ValidationError, KeyError):
        return old


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first dotted key in which two identities differ, and both values (`ABSENT` where there is none).

    None exactly where the hashes are equal. Keys are compared in the order of `SECTIONS`, then by name, whatever order
    the mappings have, so that another objective is told as such and not as a stray key of its model.
    """
    rank = {name: number for number, name in enumerate(SECTIONS)}
    for key in sorted({*old, *new}, key=lambda key: (rank.get(key, len(rank)), key)):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = first_difference(before, after)
            if inner is not None:
                return f"{key}.{inner[0]}", inner[1], inner[2]
        elif (key in old) != (key in new) or _canonical(before) != _canonical(after):
            return key, before, after
    return None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
