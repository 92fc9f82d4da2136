"""How far each engine's training is from one process: the table of docs/engines.md.

python -m tools.parity [--fname CONFIG] [--ranks 1 2 3 4] [--engines plain fsdp zero3 ...] --output DIR

Every run is 20 steps where differences show: peak learning rate, EMA momentum 0.9, weight decay 0.1, clipping active.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from src.checkpoints.read import checkpoint_folders, open_checkpoint
from src.files import replace_text
from src.run.environment import code_version

STEPS = 20
CLIP, BETA = 0.05, 0.9
GRADIENT_TOLERANCE, UPDATE_TOLERANCE = 1e-5, 1e-3
DEBUG = Path("configs/jepa/ecg_debug.yaml")
ENGINES: dict[str, tuple[str, ...]] = {
    "ddp": ("engine.name=ddp",),
    "fsdp": ("engine.name=fsdp",),
    **{f"zero{stage}": ("engine.name=deepspeed", f"engine.zero_stage={stage}") for stage in range(4)},
}
SETTINGS = (
    "optimization.epochs=null",
    f"optimization.steps={STEPS}",
    "optimization.warmup_epochs=null",
    "optimization.warmup_steps=null",
    "optimization.lr=3e-3",
    "optimization.schedule=cosine",
    "optimization.final_lr=3e-3",
    "optimization.weight_decay=0.1",
    "optimization.final_weight_decay=null",
    f"optimization.clip={CLIP}",
    "data.batch_size=12",  # which 1, 2, 3 and 4 ranks divide
    "checkpoint.every=1",
    "checkpoint.keep_last=100",
    "logging.every=1",
    "evaluation.every=null",
)
TEACHER = ("model.teacher.momentum=0.9", "model.teacher.final_momentum=0.9")

Tensors = dict[tuple[str, str], Tensor]


@dataclass(frozen=True)
class Discrepancy:
    """Relative differences of two runs: |difference| / |change of the reference|."""

    values: Mapping[str, float]

    @property
    def within(self) -> bool:
        """Whether the gradient of step 1 and everything after 20 steps are as near as rounding leaves them."""
        return all(
            value <= (GRADIENT_TOLERANCE if name == "gradient" else UPDATE_TOLERANCE)
            for name, value in self.values.items()
        )


def settings_of(config: Path, root: Path, folder: Path) -> list[str]:
    """Words for --set that make a run of a debug config comparable."""
    tree = yaml.safe_load(config.read_text())
    teacher = TEACHER if "teacher" in tree.get("model", {}) else ()
    return [f"data.root={root}", f"logging.folder={folder}", *SETTINGS, *teacher]


def tensors_at(folder: Path, step: int) -> Tensors:
    """Every tensor of the checkpoint after so many steps, by (kind, name)."""
    (found,) = [path for path in checkpoint_folders(folder / "checkpoints") if path.name.startswith(f"step-{step:08d}")]
    checkpoint = open_checkpoint(found)
    return {(kind, name): checkpoint.read(kind, name, shape) for kind, name, shape in checkpoint.shapes()}


def flat(found: Tensors, kind: str, networks: Iterable[str] = ("",)) -> Tensor:
    """All tensors of a kind and some networks, one after the other, in float64."""
    chosen = [
        value.flatten() for key, value in sorted(found.items()) if key[0] == kind and key[1].startswith(tuple(networks))
    ]
    return torch.cat(chosen).double() if chosen else torch.zeros(0, dtype=torch.float64)


def relative(difference: Tensor, scale: Tensor) -> float:
    """|difference| / |scale|."""
    return (difference.norm() / scale.norm()).item()


def first_gradient(folder: Path) -> Tensor:
    """The raw global gradient of step 0, from the first moment: exp_avg = (1 - beta) * clipped gradient."""
    norm = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["grad_norm"]
    assert norm > CLIP, "clipping must be active"
    return flat(tensors_at(folder, 1), "exp_avg") / (1 - BETA) * (norm / CLIP)


def discrepancies(reference: Path, other: Path) -> Discrepancy:
    """Gradient of step 1; update of trained parameters, update of averaged ones, and moments after all steps."""
    gradient = first_gradient(reference)
    found = {"gradient": relative(first_gradient(other) - gradient, gradient)}
    early, end, other_end = tensors_at(reference, 1), tensors_at(reference, STEPS), tensors_at(other, STEPS)
    trained = sorted({name.split(".", 1)[0] for kind, name in early if kind == "exp_avg"})
    moved = sorted({name.split(".", 1)[0] for kind, name in early if kind == "model"} - set(trained))
    parts = [("update", "model", trained), ("teacher", "model", moved)]
    parts += [("first moment", "exp_avg", [""]), ("second moment", "exp_avg_sq", [""])]
    for name, kind, networks in parts:
        before, after, other_after = (flat(tensors, kind, networks) for tensors in (early, end, other_end))
        if before.numel() and not torch.equal(before, after):
            found[name] = relative(other_after - after, after - before)
    return Discrepancy(found)


def train(config: Path, root: Path, folder: Path, devices: Sequence[str], extra: Sequence[str] = ()) -> Path:
    """One comparable run by main.py, unless it is there already.

    Raises:
        ValueError: main.py failed.
    """
    if not (folder / "encoder").exists():
        words = ["--fname", str(config), "--devices", *devices, "--set", *settings_of(config, root, folder), *extra]
        done = subprocess.run(
            [sys.executable, "main.py", *words], env=_environment(devices), capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(f"main.py {' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    return folder


def train_all(
    config: Path,
    root: Path,
    runs: Mapping[Path, Sequence[str]],
    devices: Sequence[str],
    script: Sequence[str] = ("-m", "tools.parity_group"),
) -> None:
    """Comparable runs into their folders, in one group of processes.

    Where one fails, nothing stays of it, and it and those after it are left out; stderr tells why.
    """
    missing = {folder: extra for folder, extra in runs.items() if not (folder / "encoder").exists()}
    words = [[*settings_of(config, root, folder), *extra] for folder, extra in missing.items()]
    task = json.dumps({"fname": str(config), "devices": list(devices), "runs": words})
    if not missing:
        return
    done = subprocess.run(
        [sys.executable, *script, task], env=_environment(devices), capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        print("\n".join(done.stderr.strip().splitlines()[-3:]), file=sys.stderr)
        for folder in missing:  # a run that goes on would pass for an undisturbed one
            if not (folder / "encoder").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _environment(devices: Sequence[str]) -> dict[str, str]:
    return os.environ | ({"OMP_NUM_THREADS": "1"} if devices[0] == "cpu" else {})


def refuse_old_runs(folder: Path) -> None:
    """What is told must be of this code.

    Raises:
        ValueError: the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--output: {folder} holds runs already, perhaps of other code; name a new folder")


def table(words: argparse.Namespace) -> str:
    """A line for each engine and world size."""
    root = words.output / "shards"
    devices = ["cpu"] if not torch.cuda.is_available() else [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    reference = train(words.fname, root, words.output / "plain-1", devices[:1])
    return "\n".join(_lines(words, root, devices, reference))


def _lines(words: argparse.Namespace, root: Path, devices: list[str], reference: Path) -> Iterator[str]:
    heads = ("gradient", "update", "teacher", "first moment", "second moment")
    yield f"| engine | ranks | {' | '.join(heads)} |"
    yield f"|---|---:|{'---:|' * len(heads)}"
    for count in words.ranks:
        given = devices * count if devices == ["cpu"] else devices[:count]
        names = [name for name in words.engines if count > 1 or name != "ddp"]
        folders = {words.output / f"{name}-{count}": ENGINES[name] for name in names}
        train_all(words.fname, root, folders, given)
        for name, folder in zip(names, folders, strict=True):
            other = train(words.fname, root, folder, given, ENGINES[name])
            found = discrepancies(reference, other)
            cells = (f"{found.values[head]:.1e}" if head in found.values else "" for head in heads)
            yield f"| {name} | {count} | {' | '.join(cells)} |" + ("" if found.within else " too far |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it into the output folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.parity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of shards, runs and table.md")
    parser.add_argument("--fname", type=Path, default=DEBUG, help="debug config; default: %(default)s")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4], help="default: 1 2 3 4")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: all")
    words = parser.parse_args(arguments)
    try:
        refuse_old_runs(words.output)
        text = f"{words.fname}, {STEPS} steps; code {code_version()}\n\n{table(words)}\n"
        replace_text(words.output / "table.md", text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
