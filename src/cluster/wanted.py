"""Which configs a command asks for: one, those that a file lists, and each again for every seed and setting of a sweep.

python main_distributed.py --fname c.yaml --sweep optimization.lr=1e-4,3e-4 --seeds 0 1    four runs, four run folders
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.yaml_text import ConfigError, parse_yaml, shown

OPENING, CLOSING, QUOTES = "[{", "]}", "'\""
OWN_FOLDER = "logging.folder"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.+_-]+")
LONGEST_NAME = 200
"""Characters; file systems take 255 bytes."""


@dataclass(frozen=True)
class Wanted:
    """A config that is to become a job."""

    file: Path
    overrides: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()
    """Further overrides, those of --sweep and --seeds."""
    variant: str = ""
    """Name of its folder inside the config's own run folder, where it is one of several."""

    @property
    def place(self) -> str:
        """What errors call it."""
        return f"{self.file} ({self.variant})" if self.variant else str(self.file)


def wanted_configs(
    file: Path | None, batch: Path | None, overrides: Sequence[str], sweeps: Sequence[str], seeds: Sequence[int]
) -> list[Wanted]:
    """Every config of a command; `overrides` lie over those of the batch file, a sweep over both.

    Raises:
        ValueError: names the flag, or the file and what is wrong in it.
    """
    assert (file is None) != (batch is None)
    configs = [Wanted(file)] if file is not None else read_batch(batch)  # type: ignore[arg-type]
    variants = list(_variants(sweeps, seeds))
    return [
        Wanted(config.file, (*config.overrides, *overrides), settings, variant)
        for config in configs
        for variant, settings in variants
    ]


def read_batch(path: Path) -> list[Wanted]:
    """The configs that a YAML file lists: paths, or {fname: path, set: [key=value, ...]}; paths as --fname has them.

    Raises:
        ConfigError: names the file and the entry.
    """
    try:
        entries = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"--batch-launch {path} can't be read ({reason}); name a YAML file") from None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"--batch-launch {path} holds {shown(entries)}; it has to be a list of configs, `- a.yaml`")
    return [_entry(path, number, entry) for number, entry in enumerate(entries, 1)]


def _entry(path: Path, number: int, entry: Any) -> Wanted:
    fields = {"fname": entry} if isinstance(entry, str) else entry
    place = f"--batch-launch {path}, entry {number}"
    if not isinstance(fields, dict) or not isinstance(fields.get("fname"), str) or fields.keys() - {"fname", "set"}:
        raise ConfigError(f"{place}: write the path of a config, or {{fname: path, set: [key=value]}}")
    settings = fields.get("set", [])
    if not isinstance(settings, list) or not all(isinstance(setting, str) for setting in settings):
        raise ConfigError(f"{place}: set must be a list such as [seed=1, optimization.lr=1e-4], not {shown(settings)}")
    return Wanted(Path(fields["fname"]), tuple(settings))


def _variants(sweeps: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and overrides of each point of the grid; the last axis changes fastest; nothing swept is one nameless."""
    axes = [_axis(sweep) for sweep in sweeps]
    if seeds:
        axes.append([("seed", str(seed)) for seed in seeds])
    for axis in axes:
        key, values = axis[0][0], [value for _, value in axis]
        if key == OWN_FOLDER:
            raise ValueError(f"--sweep {OWN_FOLDER}: each run of a sweep has a folder of its own already; leave it out")
        if repeated := [value for value, times in Counter(values).items() if times > 1]:
            raise ValueError(f"{_flag(key, seeds)}: {repeated[0]} is given twice; each value is one run")
        if sum(other[0][0] == key for other in axes) > 1:
            raise ValueError(f"{key} is swept twice; give all its values to one --sweep or to --seeds")
    for point in itertools.product(*axes):
        name = "_".join(f"{key}-{NOT_IN_NAMES.sub('-', value).strip('-') or 'empty'}" for key, value in point)
        if len(name) > LONGEST_NAME:
            raise ValueError(f"--sweep: the run folder {name[:60]}... would have {len(name)} characters; sweep less")
        yield name, tuple(f"{key}={value}" for key, value in point)


def _flag(key: str, seeds: Sequence[int]) -> str:
    return "--seeds" if key == "seed" and seeds else f"--sweep {key}"


def _axis(sweep: str) -> list[tuple[str, str]]:
    """Key and value, for each value of `key=v1,v2`."""
    key, equals, text = sweep.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--sweep {sweep}: write --sweep key.path=value,value")
    values = _between_commas(sweep, text)
    if not all(values):
        raise ValueError(f"--sweep {sweep}: a value is empty; write --sweep key.path=value,value")
    return [(key.strip(), value) for value in values]


def _between_commas(sweep: str, text: str) -> list[str]:
    """The values of a list: commas in brackets and quotes belong to a value."""
    values, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        elif letter in OPENING + CLOSING:
            depth += 1 if letter in OPENING else -1
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    if depth or quote:
        raise ValueError(f"--sweep {sweep}: a {'quote' if quote else 'bracket'} is not closed")
    return [value.strip() for value in values]
