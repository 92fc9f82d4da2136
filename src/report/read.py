"""A run folder as it is now: whole, still growing, killed midway or damaged in parts; nothing here raises for that.

What can't be read is told in a sentence and left out; the rest is used. The files count steps from 0; everything that
is read here counts them as the training log does, 1 after the first.
"""

# N records, F features, K labels

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config.yaml_text import ConfigError, parse_yaml
from src.run.folder import RunFolder

RANDOM = "random_init/"
"""Prefix of a health measure of the encoder before training."""
SIGNS = ("config.yaml", "metrics.jsonl", "attempts", "health.jsonl", "results.json")
"""A folder with none of these is no run's."""
PAIR = ("retrieval.json", "zero_shot.json")
"""What is told of a pair of encoders."""
LARGEST_HEADER = 2**26
"""Bytes; no safetensors header of an encoder is longer."""
ABSOLUTE = re.compile(r"(?<![\w.~/:<])(?:~|\.\.)?/(?:[^\s/'\"<>|]+/)*([^\s/'\"<>|]+)")

Values = NDArray[np.float64]


class Series(NamedTuple):
    """A number over steps done; NaN where a line has null."""

    steps: Values
    values: Values


class Attempt(NamedTuple):
    """One start of the run, without its machine's name and paths."""

    number: int
    start: int | None
    """Steps done before it."""
    processes: int | None
    device: str
    cores: int | None
    """CPU cores that the first process could use."""
    code: str
    python: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class Health:
    """One evaluation of the representation."""

    step: int
    """Steps done."""
    measures: dict[str, float]
    """Numbers by name, those of the random encoder with the prefix `random_init/`."""
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class Embeddings:
    """Features of a split, before (if known) and after training."""

    features_NF: NDArray[np.float32]
    random_NF: NDArray[np.float32] | None
    labels_NK: NDArray[np.float32]
    """NaN where unknown."""
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class RunData:
    """What a run folder holds."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    metrics: dict[str, Series] = field(default_factory=dict)
    health: tuple[Health, ...] = ()
    results: Any = None
    """The JSON of results.json, unchecked."""
    pair: dict[str, Any] | None = None
    """The JSON of each retrieval.json and zero_shot.json in a folder of the run, by folder and name, unchecked; None
    where the run leaves no pair of encoders."""
    embeddings: Embeddings | None = None
    parameters: int | None = None
    """Of the exported encoder."""
    written: float | None = None
    """When the newest of its files was written, seconds since 1970."""
    problems: dict[str, str] = field(default_factory=dict)
    """File name -> a sentence about what of it could not be read."""

    @property
    def objective(self) -> str:
        """A folder of ssls/, or an empty word where the config is lost."""
        found = self.config.get("objective")
        return found if isinstance(found, str) else ""

    @property
    def steps(self) -> int | None:
        """Steps that metrics.jsonl tells of."""
        return int(self.metrics["loss"].steps[-1]) if "loss" in self.metrics else None

    @property
    def finished(self) -> bool:
        """Whether it left what a run leaves at its end."""
        return self.parameters is not None or self.results is not None


Labelled = tuple[str, str, RunData]
"""A run with the name and the colour that it has on a page, which come first."""


def read_run(root: Path) -> RunData:
    """Read a run folder.

    Raises:
        ValueError: it is not one.
    """
    folder = RunFolder(root)
    _check(folder)
    problems: dict[str, str] = {}
    config = _config(folder.config, problems)
    return RunData(
        name=root.resolve().name,
        config=config,
        attempts=_attempts(folder.attempts, problems),
        metrics=_metrics(folder.metrics, problems),
        health=_health(root / "health.jsonl", problems),
        results=_results(root / "results.json", problems),
        pair=_pair(root, problems),
        embeddings=_embeddings(root / "embeddings.npz", problems),
        parameters=_parameters(folder.encoder / "model.safetensors"),
        written=_written(root),
        problems=problems,
    )


def _check(folder: RunFolder) -> None:
    if not folder.root.is_dir():
        state = "is not a folder" if folder.root.exists() else "does not exist"
        raise ValueError(f"{folder.root} {state}; give the run folder that logging.folder named")
    if not any((folder.root / sign).exists() for sign in SIGNS):
        raise ValueError(f"{folder.root} is not a run folder: it holds none of {', '.join(SIGNS)}")


def _written(root: Path) -> float | None:
    times = []
    for name in SIGNS:
        try:
            times.append((root / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def without_paths(text: str) -> str:
    """The text with each absolute path cut to its last part: a page that is mailed tells nothing of the machine."""
    return ABSOLUTE.sub(r"\1", text)


def last_part(path: Any) -> str:
    """The last component of a path in a config."""
    return Path(str(path)).name if path else ""


def run_part(path: str) -> str:
    """What of the path of a run, its encoder or checkpoint tells which run it is; a relative path whole."""
    place = PurePosixPath(path)
    parts = place.parts
    if without_paths(path) == path or not parts:
        return path
    begin = parts.index("checkpoints") if "checkpoints" in parts else len(parts) - (place.name == "encoder")
    return "/".join(parts[max(begin - 1, 1) :])


def shareable(value: Any, key: str = "") -> Any:
    """A config's values as they may be shown: places by their last part."""
    if isinstance(value, Mapping):
        return {name: shareable(child, name) for name, child in value.items()}
    if isinstance(value, list):
        return [shareable(child, key) for child in value]
    if not isinstance(value, str):
        return value
    if key in ("init_from", "encoders"):
        return run_part(value)
    is_place = key in ("root", "folder") or value.startswith(("/", "~", "../"))
    return last_part(value) if is_place else without_paths(value)  # which takes a space for a path's end


def lookup(tree: Any, *keys: str) -> Any:
    """The value at a path of keys, None where there is none."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def number(value: Any) -> float:
    """A JSON number as a float; NaN for null and everything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number else math.nan
    except OverflowError:
        return math.nan


def _text(path: Path, problems: dict[str, str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        problems[path.name] = f"{path.name} can't be read ({error.strerror})."
        return None


def _json(path: Path, problems: dict[str, str]) -> Any:
    text = _text(path, problems)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        problems[path.name] = f"{path.name} is empty or damaged." if text.strip() else f"{path.name} is empty."
        return None


def _config(path: Path, problems: dict[str, str]) -> dict[str, Any]:
    text = _text(path, problems)
    if text is None:
        problems.setdefault(path.name, f"{path.name} is missing.")
        return {}
    try:
        tree = parse_yaml(text, path.name)
    except ConfigError:
        tree = None
    if not isinstance(tree, dict):
        problems[path.name] = f"{path.name} is empty or damaged."
        return {}
    found: dict[str, Any] = shareable_but_sources(tree)
    return found


def shareable_but_sources(tree: dict[str, Any]) -> dict[str, Any]:
    """`shareable`, with data.root, data.mixture and model.encoder.folder whole: what is looked for there, and is never
    shown."""
    shown: dict[str, Any] = shareable(tree)
    for keys in (("data", "root"), ("data", "mixture"), ("model", "encoder", "folder")):
        whole, place = lookup(tree, *keys), lookup(shown, *keys[:-1])
        if whole is not None:
            place[keys[-1]] = whole
    return shown


def _lines(path: Path, problems: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file, with steps counted from 1.

    A last line without its end is one that is being written.
    """
    broken = 0
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    broken += line.endswith(b"\n")
                    continue
                step = number(record.get("step")) if isinstance(record, dict) else math.nan
                if math.isfinite(step):
                    yield {**record, "step": step + 1.0}
                else:
                    broken += 1
    except FileNotFoundError:
        return
    except OSError as error:
        problems[path.name] = f"{path.name} can't be read ({error.strerror})."
    if broken:
        problems[path.name] = f"{broken} damaged {'line' if broken == 1 else 'lines'} of {path.name} left out."


def _metrics(path: Path, problems: dict[str, str]) -> dict[str, Series]:
    """Every number by name; memory is 16 bytes a number, whatever the number of lines."""
    steps: dict[str, array[float]] = {}
    values: dict[str, array[float]] = {}
    for record in _lines(path, problems):
        step = record["step"]
        for key, value in record.items():
            if key == "step" or not (value is None or isinstance(value, int | float)):
                continue
            steps.setdefault(key, array("d")).append(step)
            values.setdefault(key, array("d")).append(number(value))
    return {key: Series(np.array(steps[key]), np.array(values[key])) for key in steps}


def _health(path: Path, problems: dict[str, str]) -> tuple[Health, ...]:
    found = []
    for record in _lines(path, problems):
        sentences = record.get("alarms")
        measures = {
            key: number(value)
            for key, value in record.items()
            if key not in ("step", "records", "seconds", "alarms") and (value is None or math.isfinite(number(value)))
        }
        alarms = [without_paths(str(one)) for one in sentences] if isinstance(sentences, list) else []
        found.append(Health(int(record["step"]), measures, tuple(alarms)))
    return tuple(found)


def _results(path: Path, problems: dict[str, str]) -> Any:
    return _json(path, problems)


def _pair(root: Path, problems: dict[str, str]) -> dict[str, Any] | None:
    if not (root / "text").is_dir():
        return None
    paths = [path for name in PAIR for path in sorted(root.glob(f"*/{name}"))]
    found = {f"{path.parent.name}/{path.name}": _json(path, problems) for path in paths}
    return {place: content for place, content in found.items() if content is not None}


def _attempts(folder: Path, problems: dict[str, str]) -> tuple[Attempt, ...]:
    found: list[Attempt] = []
    for path in sorted(folder.glob("*.json")):
        record = _json(path, problems)
        if isinstance(record, dict):
            found.append(_attempt(record, len(found) + 1))
    return tuple(found)


def _attempt(record: dict[str, Any], place: int) -> Attempt:
    environment = record.get("environment")
    environment = environment if isinstance(environment, dict) else {}
    libraries = environment.get("libraries")
    libraries = libraries if isinstance(libraries, dict) else {}
    return Attempt(
        number=_count(record.get("number")) or place,
        start=_count(record.get("start")),
        processes=_count(record.get("world_size")),
        device=_device(environment.get("command"), str(libraries.get("torch", ""))),
        cores=_count(environment.get("cpus")),
        code=without_paths(str(environment.get("code_version", ""))),
        python=str(environment.get("python", "")),
        libraries={str(name): str(version) for name, version in libraries.items() if version != "absent"},
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _device(command: Any, torch: str) -> str:
    """cpu or cuda, as --devices names them; without it cpu if torch knows nothing else."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    after = words[words.index("--devices") + 1 :] if "--devices" in words else []
    if after and after[0].partition(":")[0] in ("cpu", "cuda"):
        return after[0].partition(":")[0]
    return "cpu" if torch.endswith("+cpu") else ""


def _embeddings(path: Path, problems: dict[str, str]) -> Embeddings | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if name != "keys"}
        return _checked(found)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        problems[path.name] = f"{path.name} is damaged."
        return None


def _checked(found: Mapping[str, NDArray[Any]]) -> Embeddings:
    """Raises ValueError or KeyError for arrays that don't fit each other."""
    features_NF = found["features"].astype(np.float32)
    labels_NK = np.asarray(found.get("labels", np.empty((len(features_NF), 0))), np.float32)
    random_NF = found["random_init"].astype(np.float32) if "random_init" in found else None
    names = tuple(str(name) for name in np.atleast_1d(found.get("label_names", np.empty(0, "U1"))))
    labels_NK = labels_NK.reshape(len(features_NF), -1)
    fits = features_NF.ndim == 2 and labels_NK.shape[1] == len(names)
    if not fits or (random_NF is not None and (random_NF.ndim != 2 or len(random_NF) != len(features_NF))):
        raise ValueError("the arrays' shapes disagree")
    return Embeddings(features_NF, random_NF, labels_NK, names)


def _parameters(path: Path) -> int | None:
    """Numbers in a safetensors file by its header; None where there is none."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size)) if size < LARGEST_HEADER else {}
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError):
        return None
