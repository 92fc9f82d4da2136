"""What can be known to go wrong before anything waits in a queue; free of torch.

Nothing is written, and all that is wrong is told at once: a job that fails after a night in the queue cost a night.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from src.checkpoints.manifest import FOLDER_NAME, MANIFEST
from src.cluster.wanted import Wanted
from src.config.data import CacheConfig
from src.config.experiment import ExperimentConfig, RunConfig
from src.config.load import load_config
from src.data.index import Index
from src.data.load_index import read_index
from src.data.roots import find_root
from src.run.belongs import probe_identity, refuse_another_probe, refuse_another_run
from src.run.folder import RunFolder
from src.run.launch import check_devices

Answer = TypeVar("Answer")
ENCODER = "model.safetensors"
"""Of an exported encoder, which a run leaves in its encoder/."""


@dataclass(frozen=True)
class Checked:
    """A config that can be submitted."""

    wanted: Wanted
    config: RunConfig
    samples: int
    """What its shards hold of its splits; 0 where it makes them itself."""

    @property
    def folder(self) -> Path:
        return Path(self.config.logging.folder)


@dataclass
class Check:
    """Looks at each folder of shards once, however many configs read it."""

    processes: int
    """Of each job."""
    schema_of: Callable[[str], type[RunConfig]]
    faults: list[str] = field(default_factory=list)
    """A sentence each, with the file it is about."""
    _seen: dict[str, tuple[Index, str] | ValueError] = field(default_factory=dict)

    def configs(self, wanted: Sequence[Wanted]) -> list[Checked]:
        """Those that are right; what is wrong with the others is in `faults`."""
        found = [checked for one in wanted if (checked := self._config(one)) is not None]
        owners: dict[Path, Checked] = {}
        for checked in found:
            owner = owners.setdefault(checked.folder.resolve(), checked)
            if owner is not checked:
                self._tell(
                    checked.wanted,
                    f"logging.folder {checked.folder} is that of {owner.wanted.place} too; give each one of its own",
                )
        return found

    def _config(self, wanted: Wanted) -> Checked | None:
        try:
            config = load_config(wanted.file, (*wanted.overrides, *wanted.swept), self.schema_of)
        except ValueError as error:
            text = str(error)
            for setting in wanted.swept:
                text = text.replace(f"--set {setting}", f"--sweep {setting}")
            self.faults += [line for line in text.splitlines() if line not in self.faults]
            return None
        if wanted.variant:
            logging = config.logging.model_copy(update={"folder": f"{config.logging.folder}/{wanted.variant}"})
            config = config.model_copy(update={"logging": logging})
        before = len(self.faults)
        samples = 0
        for question in (self._processes, self._starts, self._folder):
            self.ask(wanted, partial(question, config))
        for key, (root, split) in config.shards_needed.items():
            samples += self.ask(wanted, partial(self._split, key, root, split, config.data.cache)) or 0  # type: ignore[attr-defined]
        return Checked(wanted, config, samples) if len(self.faults) == before else None

    def ask(self, about: Wanted | str, question: Callable[[], Answer]) -> Answer | None:
        """The answer, or None and a fault, which a sweep has once if all its configs have it."""
        try:
            return question()
        except (ValueError, OSError) as error:
            self._tell(about, str(error))
        return None

    def _tell(self, about: Wanted | str, fault: str) -> None:
        if isinstance(about, str):
            self.faults.append(fault)
        elif not any(told.startswith(str(about.file)) and told.endswith(f": {fault}") for told in self.faults):
            self.faults.append(f"{about.place}: {fault}")

    def _processes(self, config: RunConfig) -> None:
        check_devices(config, ["rank"] * self.processes)

    def _starts(self, config: RunConfig) -> None:
        """That init_from is there, unless the run goes on from a checkpoint; it is verified when it is read."""
        if isinstance(config, ExperimentConfig) and _checkpoints(Path(config.logging.folder)):
            return
        whole = isinstance(config, ExperimentConfig) and config.starts_whole_from is not None
        for word in config.starts_from:
            path = Path(word)
            places = [path / MANIFEST, *_checkpoints(path)]
            if not whole:
                places += [path / ENCODER, path / "encoder" / ENCODER]
            if not any(place.is_file() for place in places):
                kinds = "" if whole else "an exported encoder/, "
                raise ValueError(f"init_from: {path} is not there, or not {kinds}a checkpoint or a run folder")

    def _split(self, key: str, root: str, split: str, cache: CacheConfig | None) -> int:
        """Samples of a split whose shards are there."""
        index = self._index(root, cache)[0]
        if split not in index.splits:
            raise ValueError(f"{root} has no split {split}: set {key} to one of {', '.join(index.splits)}")
        find_root(root, cache).check(index.splits[split])
        return index.samples(split)

    def _index(self, root: str, cache: CacheConfig | None) -> tuple[Index, str]:
        if root not in self._seen:
            try:
                self._seen[root] = read_index(find_root(root, cache))
            except ValueError as error:
                self._seen[root] = error
        found = self._seen[root]
        if isinstance(found, ValueError):
            raise found
        return found

    def _folder(self, config: RunConfig) -> None:
        """That the run folder can be written, and is this experiment's if it is anyone's."""
        refuse_unwritable(Path(config.logging.folder), "logging.folder")
        folder = RunFolder(Path(config.logging.folder))
        if not isinstance(config, ExperimentConfig):
            refuse_another_probe(folder, probe_identity(config))
            return
        if not folder.attempts.is_dir():
            return
        attempt = folder.last_attempt()
        if attempt is not None and (_checkpoints(folder.root) or folder.last_logged_step() is not None):
            refuse_another_run(folder.root, attempt.identity, attempt.data_sha256, config, self._data(config))

    def _data(self, config: ExperimentConfig) -> str | None:
        """The checksum of the data, where one index stands for them."""
        data = config.data
        if data.mixture or data.balance != "none" or data.synthetic is not None:
            return None
        try:
            return self._index(data.root, data.cache)[1]
        except ValueError:
            return None  # told as what it is


def refuse_unwritable(folder: Path, key: str) -> None:
    """Refuse a folder that could not be made or written, without making it.

    Raises:
        ValueError: names the key and what is in the way.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ValueError(f"{key}: {folder} can't be made, because {there} is not a folder; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{key}: {folder} can't be written, because {there} is not yours; name another")


def refuse_logs(folder: Path) -> None:
    """Refuse a --folder that could not hold the logs of a job.

    Raises:
        ValueError: says why.
    """
    place = folder.expanduser().absolute()
    if "%" in str(place):
        raise ValueError(f"--folder {place}: name a folder without %; each file in it begins with its job's number")
    refuse_unwritable(folder, "--folder")


def _checkpoints(folder: Path) -> list[Path]:
    """The manifests of a run folder's checkpoints."""
    return list(_manifests(folder / "checkpoints"))


def _manifests(checkpoints: Path) -> Iterator[Path]:
    for path in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if FOLDER_NAME.fullmatch(path.name):
            yield path / MANIFEST
