"""Does the alarm fire where a representation collapses, and only there? Many short runs on simulated ECGs."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.files import replace_text
from src.run.environment import code_version
from src.simulation.ecg import Cohort, build_command, write_cohort
from tools.build_shards import main as build_shards

SEEDS = 5
PATIENTS = 300
STEPS = 200
SETTINGS = (
    "model.encoder={name: ecg_tiny, leads: 12, length: 200, patch: 10, width: 64, depth: 2, heads: 4}",
    "model.predictor={width: 32, depth: 1, heads: 4}",
    "data.batch_size=32",
    "evaluation.samples=300",
)
"""Over configs/jepa/ecg_demo.yaml: a run of seconds."""
HEALTHY = {
    "as shipped": (),
    "momentum 0.996 to 1": ("model.teacher.momentum=0.996", "model.teacher.final_momentum=1.0"),
    "learning rate 3e-4": ("optimization.lr=3e-4",),
    "loss l1": ("loss.kind=l1",),
}
COLLAPSING = {
    "momentum 0: the teacher is the student": ("model.teacher.momentum=0.0", "model.teacher.final_momentum=0.0"),
    "momentum 0.9 at learning rate 5e-3": (
        "model.teacher.momentum=0.9",
        "model.teacher.final_momentum=0.9",
        "optimization.lr=5e-3",
    ),
    "momentum 0.5, most of the signal masked": (
        "model.teacher.momentum=0.5",
        "model.teacher.final_momentum=0.5",
        "mask={style: multiblock, targets: 1, target_scale: [0.5, 0.6], context_scale: [0.1, 0.15], min_context: 1}",
    ),
}
MEASURES = ("rankme", "probe_auroc", "mean_loss")


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    name: str
    seed: int
    shares: dict[str, float]
    """The lowest share of the random encoder's value that each measure fell to."""
    fired: int | None
    """Step of the first alarm."""

    def fell(self, share: float) -> bool:
        """Whether a measure fell below a share of the random encoder's."""
        return any(value < share for value in self.shares.values())


def alarm(words: argparse.Namespace) -> str:
    """Three ways to collapse and four healthy recipes, five seeds each: when does the alarm fire?"""
    ways = {**HEALTHY, **COLLAPSING}
    outcomes = list(outcomes_of(words.output, ways, range(SEEDS), STEPS, words.devices))
    text = f"alarm, {len(outcomes)} runs of {STEPS} steps, {SEEDS} seeds each; code {code_version()}\n\n"
    text += markdown(outcomes)
    replace_text(words.output / "table.md", text + "\n")
    return text


def outcomes_of(
    folder: Path, ways: dict[str, tuple[str, ...]], seeds: Iterable[int], steps: int, devices: Sequence[str] = ("cpu",)
) -> Iterable[Outcome]:
    """Train each way with each seed in folders below `folder`; those that are finished are read."""
    shards = make_world(folder)
    for number, (name, settings) in enumerate(ways.items()):
        for seed in seeds:
            run = folder / f"way-{number}" / f"seed-{seed}"
            if not (run / "encoder").exists():
                train(run, shards, [*SETTINGS, *settings], seed, steps, devices)
            yield outcome(name, seed, run)


def make_world(folder: Path) -> Path:
    """Shards of a small cohort."""
    cohort = Cohort(patients=PATIENTS, seed=1)
    shards = folder / "cohort-shards"
    if not shards.exists():
        if not (folder / "cohort").exists():
            write_cohort(folder / "cohort", cohort)
        if build_shards(shlex.split(build_command(folder / "cohort", cohort))[3:]):
            raise ValueError("the shards could not be built")
    return shards


def train(run: Path, shards: Path, settings: list[str], seed: int, steps: int, devices: Sequence[str]) -> None:
    """One run of main.py, evaluated five times."""
    own = [f"data.root={shards}", f"logging.folder={run}", f"seed={seed}", f"optimization.steps={steps}"]
    own += [f"optimization.warmup_steps={steps // 10}", f"evaluation.every={steps // 5}", f"checkpoint.every={steps}"]
    command = [sys.executable, "main.py", "--fname", "configs/jepa/ecg_demo.yaml"]
    command += ["--devices", *(devices or ["cpu"]), "--set", *own, *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"main.py failed: {done.stderr.strip()}")


def outcome(name: str, seed: int, run: Path) -> Outcome:
    """What health.jsonl tells."""
    records = [json.loads(line) for line in (run / "health.jsonl").read_text().splitlines()]
    fired = next((record["step"] + 1 for record in records if record["alarms"]), None)
    return Outcome(name, seed, {key: min(share(record, key) for record in records) for key in MEASURES}, fired)


def share(record: dict[str, Any], measure: str) -> float:
    """A measure as a share of the random encoder's; of an AUROC what is above 0.5. Not finite is nothing."""
    if record[measure] is None:
        return 0.0
    chance = 0.5 if measure.endswith("auroc") else 0.0
    return float((record[measure] - chance) / (record[f"random_init/{measure}"] - chance))


def markdown(outcomes: Sequence[Outcome]) -> str:
    """A row for each way."""
    lines = [
        "| way | lowest RankMe | lowest probe | lowest loss of the mean | alarms | at step |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in dict.fromkeys(outcome.name for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.name == name]
        spans = [span([outcome.shares[measure] for outcome in own]) for measure in MEASURES]
        steps = sorted(outcome.fired for outcome in own if outcome.fired is not None)
        when = f"{steps[0]} to {steps[-1]}" if steps else "never"
        lines.append(f"| {name} | {' | '.join(spans)} | {len(steps)} of {len(own)} | {when} |")
    return "\n".join([*lines, "", "Shares of the random encoder's values, lowest to highest over the seeds."])


def span(values: Sequence[float]) -> str:
    """0.12 to 0.34"""
    return f"{min(values):.2f} to {max(values):.2f}"
