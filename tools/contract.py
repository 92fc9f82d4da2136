"""What every objective must pass on every engine, and docs/matrix.md, which tells how it went.

python -m tools.contract --output DIR [--objectives jepa-ecg ...] [--page docs/matrix.md]

Finds the objectives in ssls/ by itself; what runs is configs/<objective>/<modality>_debug.yaml by main.py, as a user
runs it. A new objective has nothing to write but that file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from src.config.experiment import ExperimentConfig
from src.data.modalities import MODALITIES
from src.evaluation.encoder import load_encoder
from src.files import replace_text
from src.run.environment import code_version
from tools.contract_curves import Curve, draw_moves
from tools.parity import (
    ENGINES,
    STEPS,
    Discrepancy,
    discrepancies,
    refuse_old_runs,
    settings_of,
    tensors_at,
    train,
    train_all,
)

Words = tuple[str, ...]
COLUMNS: dict[str, Words] = {"plain": ("engine.name=plain",), **ENGINES}
MOVES: dict[str, tuple[int, str, int]] = {
    "plain": (1, "fsdp", 2),
    "ddp": (2, "zero3", 2),
    "fsdp": (2, "zero1", 2),
    "zero0": (2, "plain", 1),
    "zero1": (2, "fsdp", 4),
    "zero2": (2, "ddp", 2),
    "zero3": (2, "plain", 1),
}
"""From an engine at a number of ranks to another at another."""
MOVED, METRICS = "moved", "metrics.jsonl"
HEALTH = ("evaluation.every=10",)
STOP, KILL = 6, 12
"""Steps after which a run is asked to stop, and killed."""
TIMES = ("samples_per_second", "data_wait", "seconds")
CURVE_TOLERANCE = 1e-4


class Broken(AssertionError):
    """A cell of the matrix that is red; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One promise of one objective on one engine."""

    row: str
    column: str
    keep: Callable[[], str]
    """Runs what it takes; returns what was measured, raises Broken."""


@dataclass(frozen=True)
class Runs:
    """The runs of one debug config, each made when first asked for."""

    config: Path
    folder: Path
    together: Sequence[str] = tuple(COLUMNS)
    """Engines whose undisturbed runs are made in one group of processes."""

    def finished(self, engine: str, ranks: int) -> Path:
        """An undisturbed run on so many CPU ranks; the first that is asked for brings the others."""
        folders = {
            name: self.folder / f"{name}-{ranks}"
            for name in engines_of(ranks)
            if name in self.together or name == engine
        }
        if not any(folder.exists() for folder in folders.values()):
            runs = {folder: (*COLUMNS[name], *HEALTH) for name, folder in folders.items()}
            train_all(self.config, self.folder / "shards", runs, ["cpu"] * ranks)
        words = (*COLUMNS[engine], *HEALTH)
        return train(self.config, self.folder / "shards", folders[engine], ["cpu"] * ranks, words)

    def disturbed(self, engine: str, ranks: int) -> Path:
        """The same, asked to stop on the way; it stands there unfinished."""
        folder = self.folder / f"{engine}-{ranks}-stopped"
        if not folder.exists():
            process = self._start(engine, ranks, folder)
            _wait_for_step(process, folder, STOP)
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                code = -1
            if code != 128 + signal.SIGTERM:
                shutil.rmtree(folder)
                raise Broken(f"SIGTERM: exit {code}")
        return folder

    def killed(self, folder: Path, engine: str, ranks: int) -> None:
        """Go on in a folder, and be killed."""
        process = self._start(engine, ranks, folder)
        _wait_for_step(process, folder, KILL)
        process.kill()
        process.wait()

    def go_on(self, folder: Path, engine: str, ranks: int) -> None:
        """Go on in a folder to the end."""
        train(self.config, self.folder / "shards", folder, ["cpu"] * ranks, (*COLUMNS[engine], *HEALTH))

    def check(self, engine: str, ranks: int) -> str:
        """What --check says; it must leave no folder."""
        folder = self.folder / "checked"
        process = self._start(engine, ranks, folder, "--check")
        out, _ = process.communicate()
        if process.returncode or folder.exists() or "check passed" not in out:
            raise Broken("--check")
        return "passed"

    def _start(self, engine: str, ranks: int, folder: Path, *flags: str) -> subprocess.Popen[str]:
        settings = [*settings_of(self.config, self.folder / "shards", folder), *COLUMNS[engine], *HEALTH]
        words = ["--fname", str(self.config), *flags, "--devices", *["cpu"] * ranks, "--set", *settings]
        return subprocess.Popen(
            [sys.executable, "main.py", *words],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def _wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while len(_lines(folder / "metrics.jsonl")) < step:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise Broken(f"never came to step {step}")
        time.sleep(0.01)


def _lines(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in whole]


def engines_of(ranks: int) -> list[str]:
    """Those that so many processes can have: one alone is plain, several are not."""
    return [name for name in COLUMNS if name != ("ddp" if ranks == 1 else "plain")]


def trainings() -> dict[str, Path]:
    """The debug configs of every objective that trains, by its folder in ssls/ and their name: jepa-ecg."""
    found = {}
    for folder in sorted(Path("ssls").iterdir()):
        if not (folder / "config.py").exists():
            continue
        if issubclass(importlib.import_module(f"ssls.{folder.name}.config").Config, ExperimentConfig):
            for modality in MODALITIES:
                path = Path("configs", folder.name, f"{modality}_debug.yaml")
                if path.exists():
                    found[f"{folder.name}-{modality}"] = path
    return found


def cells(config: Path, folder: Path, together: Sequence[str] = tuple(COLUMNS)) -> Iterator[Cell]:
    """Every promise, for every engine; `together` as of Runs."""
    runs = Runs(config, folder, together)
    for ranks in (1, 2, 4):
        for engine in engines_of(ranks):
            if engine == "plain":
                continue
            row = f"{ranks} {'rank trains' if ranks == 1 else 'ranks train'} as one plain process does"
            yield Cell(row, engine, partial(_parity, runs, engine, ranks))
    for engine, (ranks, other, others) in MOVES.items():
        yield Cell(
            "stopped by SIGTERM, then killed: ends with the same bits", engine, partial(_resume, runs, engine, ranks)
        )
        yield Cell("goes on under another engine", engine, partial(_move, runs, engine, ranks, other, others))
        yield Cell("health while training is plain's", engine, partial(_health, runs, engine, ranks))
        yield Cell("the exported encoder is plain's", engine, partial(_export, runs, engine, ranks))
        yield Cell("--check passes", engine, partial(runs.check, engine, ranks))


def _parity(runs: Runs, engine: str, ranks: int) -> str:
    return _told(discrepancies(runs.finished("plain", 1), runs.finished(engine, ranks)))


def _told(found: Discrepancy) -> str:
    worst = f"{max(found.values.values()):.0e}"
    if not found.within:
        raise Broken(f"differs by {worst}")
    return worst


def _resume(runs: Runs, engine: str, ranks: int) -> str:
    whole = runs.finished(engine, ranks)
    folder = _copied(runs.disturbed(engine, ranks), "killed")
    runs.killed(folder, engine, ranks)
    runs.go_on(folder, engine, ranks)
    starts = _starts(folder)
    if len(starts) != 3 or not STOP <= starts[1] < starts[2] < STEPS:
        raise Broken(f"attempts started at steps {starts}")
    for log in ("metrics.jsonl", "health.jsonl"):
        if _lines(folder / log) != _lines(whole / log):
            raise Broken(f"{log} differs")
    mine, theirs = tensors_at(folder, STEPS), tensors_at(whole, STEPS)
    if mine.keys() != theirs.keys() or not all(torch.equal(value, theirs[key]) for key, value in mine.items()):
        raise Broken("other bits")
    return "yes"


def _move(runs: Runs, engine: str, ranks: int, other: str, others: int) -> str:
    whole = runs.finished("plain", 1)
    folder = _copied(runs.disturbed(engine, ranks), MOVED)
    runs.go_on(folder, other, others)
    worst = 0.0
    for mine, theirs in zip(_lines(folder / "metrics.jsonl"), _lines(whole / "metrics.jsonl"), strict=True):
        worst = max(worst, abs(mine["loss"] - theirs["loss"]) / abs(theirs["loss"]))
    if len(_starts(folder)) != 2 or not worst <= CURVE_TOLERANCE:
        raise Broken(f"to {other} x{others}: the curve differs by {worst:.0e}")
    return f"{other} x{others}: {_told(discrepancies(whole, folder))}"


def _health(runs: Runs, engine: str, ranks: int) -> str:
    mine, theirs = (
        _lines(folder / "health.jsonl") for folder in (runs.finished(engine, ranks), runs.finished("plain", 1))
    )
    worst = 0.0
    for one, other in zip(mine, theirs, strict=True):
        if one.keys() != other.keys():
            raise Broken(f"other keys: {sorted(one.keys() ^ other.keys())}")
        numbers = [key for key in one if isinstance(other[key], float) and math.isfinite(other[key])]
        apart = [abs(one[key] - other[key]) / max(abs(other[key]), 1e-3) for key in numbers]
        worst = max([worst, *(value if math.isfinite(value) else math.inf for value in apart)])
    if not mine or not worst <= 1e-2:
        raise Broken(f"differs by {worst:.0e}" if mine else "no health")
    return _number(worst)


def _export(runs: Runs, engine: str, ranks: int) -> str:
    folders = [folder / "encoder" for folder in (runs.finished(engine, ranks), runs.finished("plain", 1))]
    mine, theirs = (load_file(folder / "model.safetensors") for folder in folders)
    if mine.keys() != theirs.keys():
        raise Broken("other tensors")
    load_encoder(folders[0])
    worst = max((mine[key].double() - theirs[key].double()).abs().max().item() for key in mine)
    if not worst <= 1e-4:
        raise Broken(f"differs by {worst:.0e}")
    return _number(worst)


def _number(difference: float) -> str:
    return f"{difference:.0e}" if difference else "0"


def _copied(folder: Path, name: str) -> Path:
    copy = folder.with_name(f"{folder.name}-{name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    return copy


def _starts(folder: Path) -> list[int]:
    """The step that each attempt started from."""
    return [json.loads(path.read_text())["start"] for path in sorted(folder.glob("attempts/*"))]


def page(objectives: Sequence[str], output: Path, beside: Path | None = None, earlier: str = "") -> tuple[str, int]:
    """docs/matrix.md, and how many cells are red; pictures of the moves go into the folder `beside`.

    Objectives that are not named keep the part that they have in the `earlier` page.
    """
    found = trainings()
    parts = {part.partition("\n")[0]: f"## {part}" for part in earlier.split("\n## ")[1:]}
    kept = {name: parts[name].rstrip() for name in found if name in parts}
    fresh, red = sections(objectives or list(found), output, beside)
    text = [(kept | fresh)[name] for name in found if name in kept | fresh]
    return "\n".join([HEAD, *(f"{part}\n" for part in text)]).rstrip() + "\n", red


def sections(objectives: Sequence[str], output: Path, beside: Path | None) -> tuple[dict[str, str], int]:
    """The part of the page of each objective, and how many cells are red."""
    found, made, red = trainings(), {}, 0
    code = code_version()  # before the pictures, which change the folder of the code
    for name in objectives:
        table: dict[str, dict[str, str]] = {}
        for cell in cells(found[name], output / name):
            try:
                word = cell.keep()
            except Exception as error:  # whatever it is, the cell is red and the page goes on
                word, red = f"🟥 {error}".replace("\n", " ").replace("|", "/"), red + 1
            print(f"{name}, {cell.row}, {cell.column}: {word}", file=sys.stderr)
            table.setdefault(cell.row, {})[cell.column] = word
        text = [
            f"## {name}\n",
            f"Code {code}.\n",
            f"| | {' | '.join(COLUMNS)} |",
            f"|---{'|---' * len(COLUMNS)}|",
        ]
        text += [
            f"| {row} | {' | '.join(words.get(column, '') for column in COLUMNS)} |" for row, words in table.items()
        ]
        text.append("")
        if beside is not None:
            text += _picture(name, output / name, beside)
        made[name] = "\n".join(text).rstrip()
    return made, red


def _picture(name: str, runs: Path, beside: Path) -> list[str]:
    """The objective's moves as far as they went, drawn; and the words that show it."""
    moved = {
        f"{engine} x{ranks}, then {other} x{others}": runs / f"{engine}-{ranks}-stopped-{MOVED}"
        for engine, (ranks, other, others) in MOVES.items()
    }
    curves = {
        label: Curve(max(_starts(folder)), {int(line["step"]): line["loss"] for line in _lines(folder / METRICS)})
        for label, folder in moved.items()
        if len(_starts(folder)) == 2
    }
    if not curves:
        return []
    picture = beside / f"moves_{name}.png"
    draw_moves({int(line["step"]): line["loss"] for line in _lines(runs / "plain-1" / METRICS)}, curves, picture)
    return [f"![losses of runs that went on under another engine, beside the undisturbed one]({picture.name})\n"]


HEAD = """# What every objective keeps on every engine

Made by `python -m tools.contract --output DIR --page docs/matrix.md`, which makes anew the parts that `--objectives`
names. Red cells are promises that are not kept. Each objective's debug config is trained for 20 steps at its peak
learning rate, with fast teachers, weight decay and clipping. Numbers are the largest relative differences to one plain
process: of the first gradient, of the whole update of weights and teachers, and of the moments; of any number of
health, where those below 1e-3 count as that. Of the exported encoder it is the largest difference itself.
`tests/contract` runs the same list: a part of it in `make test`, the rest with `pytest -m slow tests/contract`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the contract and write the page; returns 1 where a cell is red."""
    parser = argparse.ArgumentParser(prog="python -m tools.contract", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--objectives", nargs="+", default=[], choices=list(trainings()), help="default: all that train"
    )
    parser.add_argument("--page", type=Path, help="file to write, with pictures beside it; default: print it")
    words = parser.parse_args(arguments)
    try:
        refuse_old_runs(words.output)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    beside = None if words.page is None else words.page.parent
    earlier = words.page.read_text() if words.page is not None and words.page.exists() else ""
    text, red = page(words.objectives, words.output, beside, earlier)
    if words.page is not None:
        replace_text(words.page, text)
    else:
        print(text)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
