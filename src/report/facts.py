"""What was run, in words: a row for each fact and a value for each run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.config.yaml_text import dump_yaml
from src.data.load_index import load_index
from src.data.modalities.ecg import ECGIndex
from src.models.any_config import read_encoder_section
from src.models.backbone_config import BackboneConfig
from src.models.config import EncoderSection, TransformerConfig
from src.report.read import Attempt, RunData, last_part, lookup, shareable

ABSENT = "\N{EN DASH}"
NOT_COMPARED = ("logging",)
"""Sections of the config that tell where a run writes, not what it does."""
SHOWN_LIBRARIES = ("torch", "numpy", "transformers", "deepspeed")

RECORDS = {"image": "images", "video": "videos", "ct": "CT volumes"}


class Fact(NamedTuple):
    """A row of a table with a value for each run."""

    name: str
    values: list[str]


def facts(runs: Sequence[RunData]) -> list[Fact]:
    """What one wants to know first; facts that no run has are left out."""
    columns = [_facts(run) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [Fact(name, [column.get(name) or ABSENT for column in columns]) for name in names]
    return [row for row in rows if set(row.values) != {ABSENT}]


def _facts(run: RunData) -> dict[str, str]:
    config = run.config
    batch, micro_batch = lookup(config, "data", "batch_size"), lookup(config, "data", "micro_batch_size")
    return {
        "Objective": run.objective,
        "State": state(run),
        "Data": _data(config),
        "Encoder": _encoder(run),
        "Started from": _names(config.get("init_from")),
        "Steps": ", ".join(word for word in steps(run) if word),
        "Batch": f"{batch}" + (f" (micro-batch {micro_batch})" if micro_batch else "") if batch else "",
        "Masks": _masks(config),
        "Loss": str(lookup(config, "loss", "kind") or ""),
        "Peak learning rate": _general(lookup(config, "optimization", "lr")),
        "Precision": str(lookup(config, "engine", "precision") or ""),
        "Seed": str(config.get("seed", "")),
        "Time in training": _time(run),
        "Last written": "" if run.written is None else f"{datetime.fromtimestamp(run.written, UTC):%Y-%m-%d %H:%M} UTC",
    }


def state(run: RunData) -> str:
    """Whether the run came to its end."""
    if run.finished:
        return "finished"
    return "not finished: still running or stopped" if run.attempts or run.metrics else "not started"


def _names(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def duration(seconds: float) -> str:
    """A length of time in the unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _general(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else ""


def _data(config: Mapping[str, Any]) -> str:
    root, leads = lookup(config, "data", "root"), lookup(config, "data", "leads")
    if not isinstance(root, str):
        return ""
    split = lookup(config, "data", "split") or lookup(config, "data", "train")
    words = [last_part(root), *([f"split {split}"] if split else []), *_size(root, split)]
    tests = lookup(config, "data", "tests")
    if isinstance(tests, dict):
        words.append(f"tested on {', '.join(tests)}")
    if isinstance(leads, list) and lookup(config, "data", "transform", "modality") in (None, "ecg"):
        words.append(f"{len(leads)} {'lead' if len(leads) == 1 else 'leads'}")
    if kind := RECORDS.get(str(lookup(config, "data", "transform", "modality"))):
        words.append(kind)
    return ", ".join(words)


def _size(root: str, split: Any) -> list[str]:
    """Records, patients and sampling rate by the shards' index, where it can be read from here."""
    try:
        index, _ = load_index(Path(root))
        words = [f"{index.samples(split):,} records"]
        if isinstance(index, ECGIndex):
            words.append(f"{index.sampling_rate:g} Hz")
        if index.patients.get(split):
            words.insert(1, f"{index.patients[split]:,} patients")
        return words
    except (ValueError, OSError, KeyError, TypeError):
        return []


def _encoder(run: RunData) -> str:
    section = lookup(run.config, "model", "encoder")
    if not isinstance(section, dict):
        return ""
    try:
        encoder = read_encoder_section(json.dumps(section))
        grid = " x ".join(map(str, known_grid(encoder)))
    except ValueError:
        return str(section.get("name", ""))
    weights = "" if run.parameters is None else f"{millions(run.parameters)} parameters, "
    if not isinstance(encoder, TransformerConfig):
        return f"{section['name']}: {weights}{grid} tokens of width {encoder.token_width}"
    width, depth, heads = encoder.size
    patch = patch_words(encoder, str(lookup(run.config, "data", "transform", "modality") or "ecg"))
    return f"{section['name']}: {weights}width {width}, depth {depth}, {heads} heads, {grid} tokens of {patch}"


def known_grid(encoder: EncoderSection) -> tuple[int, ...]:
    """Tokens along each axis, as far as this machine knows them: a page is made without asking the hub.

    Raises:
        ValueError: only the hub knows, or a folder that is elsewhere.
    """
    if isinstance(encoder, BackboneConfig) and encoder.config is None and not Path(encoder.folder).is_dir():
        raise ValueError(f"model.encoder.folder {last_part(encoder.folder)} is no folder of this machine")
    return encoder.grid


def patch_words(encoder: EncoderSection, modality: str) -> str:
    """What a token is of: `2 x 16 x 16 pixels`."""
    if isinstance(encoder, TransformerConfig):
        sizes = encoder.patches
    else:
        sizes = tuple(-(-side // tokens) for side, tokens in zip(encoder.sides, encoder.grid, strict=True))
    unit = {"ecg": "samples", "ct": "voxels"}.get(modality, "pixels")
    return f"{' x '.join(map(str, sizes))} {unit}"


def _masks(config: Mapping[str, Any]) -> str:
    more = lookup(config, "more_masks")
    kinds = [lookup(config, "mask"), *(more if isinstance(more, list) else [])]
    return "; ".join(mask_words(kind) for kind in kinds if isinstance(kind, Mapping))


def mask_words(section: Mapping[str, Any]) -> str:
    """A kind of masks: `multiblock, 4 blocks of 15 to 20 %`."""
    blocks, style = section.get("targets"), str(section.get("style") or "")
    share = _percent(section.get("target_scale"))
    if not isinstance(blocks, int) or not share:
        return style
    depth = _percent(section.get("temporal_scale"))
    through = f" through {depth} of the first axis" if depth and depth != "100 %" else ""
    return f"{style}, {blocks} {'block' if blocks == 1 else 'blocks'} of {share}{through}"


def _percent(shares: Any) -> str:
    """A range of shares; empty for what is none."""
    if not isinstance(shares, list | tuple) or not all(isinstance(share, int | float) for share in shares):
        return ""
    return " to ".join(dict.fromkeys(f"{100 * share:.3g}" for share in shares)) + " %"


def millions(count: int) -> str:
    """1.2 million, 34 thousand."""
    return f"{count / 1e6:.1f} million" if count >= 950_000 else f"{count / 1e3:.0f} thousand"


def steps(run: RunData) -> tuple[str, str]:
    """Steps that were trained, and what the config asks for."""
    planned, epochs = lookup(run.config, "optimization", "steps"), lookup(run.config, "optimization", "epochs")
    if run.objective == "probe" or (run.steps is None and planned is None):
        return "", ""
    asked = f"{planned:,} planned" if isinstance(planned, int) else f"{epochs} epochs planned" if epochs else ""
    return f"{run.steps or 0:,}", asked


def _time(run: RunData) -> str:
    """From samples/s and the batch: what steps took, not what stood between attempts."""
    batch, rates = lookup(run.config, "data", "batch_size"), run.metrics.get("samples_per_second")
    if rates is None or not isinstance(batch, int):
        return ""
    trained = np.diff(rates.steps, prepend=0.0)
    known = np.isfinite(rates.values) & (rates.values > 0.0) & (trained > 0.0)
    seconds = float((trained[known] * batch / rates.values[known]).sum())
    return f"about {duration(seconds)}" if known.any() and math.isfinite(seconds) else ""


ATTEMPT_COLUMNS = ("Start", "After step", "Processes", "Device", "Cores", "Code", "Python", *SHOWN_LIBRARIES)


def attempt_words(attempt: Attempt) -> list[str]:
    """A row under ATTEMPT_COLUMNS."""
    commit, plus, changes = attempt.code.partition("+")
    numbers = (attempt.number, attempt.start, attempt.processes)
    return [
        *(ABSENT if value is None else f"{value:,}" for value in numbers),
        attempt.device or ABSENT,
        ABSENT if attempt.cores is None else str(attempt.cores),
        f"{commit[:10]}{plus}{changes}" or ABSENT,
        attempt.python or ABSENT,
        *(attempt.libraries.get(library, ABSENT) for library in SHOWN_LIBRARIES),
    ]


def config_text(run: RunData) -> str:
    """The whole config as YAML, places by their last part."""
    return dump_yaml(shareable(run.config))


def differences(runs: Sequence[RunData]) -> list[Fact]:
    """The keys of the configs that differ, dotted, with each run's value."""
    compared = [{key: part for key, part in run.config.items() if key not in NOT_COMPARED} for run in runs]
    trees = [flat(shareable(tree)) for tree in compared]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    rows = [Fact(key, [tree.get(key, ABSENT) for tree in trees]) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def flat(tree: Any, path: str = "") -> dict[str, str]:
    """Dotted keys and their values as JSON, strings bare."""
    if isinstance(tree, Mapping) and tree:
        parts = (flat(value, f"{path}.{key}" if path else str(key)) for key, value in tree.items())
        return {key: value for part in parts for key, value in part.items()}
    return {path: tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False, default=str)}
