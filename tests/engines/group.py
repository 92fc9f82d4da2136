"""Run as one rank of a group: every engine trains the towers, and every engine goes on from another's checkpoint.

python -m tests.engines.group FOLDER CASE [CASE ...]; a case is ENGINE[:key=value,...], its files are in FOLDER/CASE.
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from src.checkpoints.manifest import Manifest
from src.checkpoints.read import open_checkpoint
from src.checkpoints.write import BackgroundWriter, write_checkpoint
from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.collectives import gather_rows
from src.distributed.ranks import Ranks, join
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.engines.zero import COMPILED_ON_CPU
from tests.engines.towers import Towers, micro_batches

STEPS, HALF, LR, MOMENTUM = 8, 4, 3e-3, 0.9
SLOW = {"text": {"lr": 0.3, "weight_decay": 2.0}}
SETTINGS = OptimizationConfig.model_validate(
    {"steps": STEPS, "lr": LR, "weight_decay": 0.1, "clip": 0.05, "networks": SLOW}
)


def make(config: EngineConfig, ranks: Ranks, optimization=SETTINGS, batchnorm=True):
    """The towers in an engine, at the peak rate."""
    setup = Setup(config, optimization, ranks, 3, lambda step: LR, lambda step: 0.1)
    return build_engine(Towers(batchnorm), setup)


def run_steps(engine, ranks, steps, cuts=1, poisoned=None, looks=False):
    """Train over a range of steps; returns a record of each.

    At step `poisoned` the last rank gets a NaN; with `looks` features are asked for in between, which changes nothing.
    """

    def look():
        if looks:
            engine(micro_batches(98, 0, 1, 1)[0], mode="embed")
            engine(micro_batches(98, ranks.rank, ranks.world_size, 1)[0], mode="generate")

    records = []
    for step in steps:
        batches = micro_batches(step, ranks.rank, ranks.world_size, cuts)
        if step == poisoned and ranks.rank == ranks.world_size - 1:
            batches[-1]["image"][-1, -1] = float("nan")
        losses = engine.forward_backward(step, batches)
        look()
        engine.step(step)
        look()
        engine.ema("teacher", "student", MOMENTUM)
        records.append({name: value.item() for name, value in losses.items()} | {"norm": engine.last["grad_norm"]})
        records[-1] |= {name: engine.last[name] for name in ("loss_scale",) if name in engine.last}
    return records


def save(engine, ranks, folder: Path, step: int, writer=None) -> None:
    """A checkpoint as a run writes it; in the background where there is a writer."""
    manifest = Manifest(
        step, step * 12, 1, ranks.world_size, engine.name, engine.optimizer_steps, {}, "", "", engine.state()
    )
    if writer is None:
        write_checkpoint(folder, manifest, engine.pieces(), ranks)
    else:
        writer.write(folder, manifest, engine.pieces(), lambda _: None)


def one_case(case: str, ranks: Ranks, folder: Path) -> None:
    """Train with checkpoints after 1, HALF and STEPS, and around a poisoned one; from=CHECKPOINT goes on.

    into=FOLDER is where its files go, instead of a folder of its name.
    """
    name, _, words = case.partition(":")
    settings = dict(word.partition("=")[::2] for word in words.split(",")) if words else {}
    cuts, batchnorm = int(settings.pop("cuts", 1)), settings.pop("batchnorm", "yes") == "yes"
    looks, into = settings.pop("looks", "no") == "yes", settings.pop("into", None)
    writer = BackgroundWriter(ranks) if settings.pop("background", "no") == "yes" else None
    start, poisoned = settings.pop("from", None), json.loads(settings.pop("poisoned", "null"))
    config = EngineConfig.model_validate({"name": name, **{key: json.loads(value) for key, value in settings.items()}})
    own = Path(into) if into else folder / case.replace("/", "_")
    torch._dynamo.reset()
    counters.clear()
    engine = make(config, ranks, batchnorm=batchnorm)
    begin = 0
    engine(micro_batches(98, 0, 1, 1)[0], mode="embed")  # as the baseline of a run's health, before anything is loaded
    if start is not None:
        source = open_checkpoint(Path(start))
        engine.load(source)
        begin = source.manifest.step
    records = []
    around = set() if poisoned is None else {poisoned, poisoned + 1}
    for end in sorted({1, HALF, STEPS} | around):
        if end > begin:
            records += run_steps(engine, ranks, range(begin, end), cuts, poisoned, looks)
            save(engine, ranks, own, end, writer)
            begin = end
    if writer is not None:
        writer.wait()
    features = engine(micro_batches(99, 0, 1, 1)[0], mode="embed")["tokens"]
    own_share = micro_batches(99, ranks.rank, ranks.world_size, 1)[0]
    generated = gather_rows(engine(own_share, mode="generate")["generated"])
    networks = {name: engine.network(name) for name in ("teacher", "frozen")}
    if ranks.first:
        (own / "records.json").write_text(json.dumps(records))
        (own / "compiled.json").write_text(json.dumps({"graphs": counters["stats"]["unique_graphs"]} | operators()))
        torch.save({"features": features.cpu(), "generated": generated} | networks, own / "outputs.pt")


def operators():
    """Whether DeepSpeed, if it is there, may compile the operator that blocks later processes when it is killed."""
    deepspeed = sys.modules.get("deepspeed")
    return {} if deepspeed is None else {COMPILED_ON_CPU: deepspeed.ops.__compatible_ops__.get(COMPILED_ON_CPU)}


def main() -> None:
    """Every case in this group."""
    folder, cases = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    ranks = join(1800.0)
    for case in cases:
        one_case(case, ranks, folder)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
