"""What --check says of a run: what it would train, how large it is, how long it would take."""

from __future__ import annotations

import resource

import torch
from torch import nn

from src.config.experiment import ExperimentConfig
from src.distributed.ranks import Ranks
from src.run.logs import duration

CHECK_STEPS = 2
"""The first step warms up, the second is timed."""


def count_parameters(objective: nn.Module) -> tuple[int, int]:
    """Parameters in total and trainable."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in objective.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


def peak_memory(device: torch.device) -> str:
    """The most memory this rank has held so far."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB of GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of memory"


def describe(
    config: ExperimentConfig,
    ranks: Ranks,
    parameters: tuple[int, int],
    samples: int,
    start: int,
    total_steps: int,
    seconds: float,
) -> str:
    """The report, a line for each question."""
    data = config.data
    epochs = total_steps * data.batch_size / samples
    share = data.batch_size // ranks.world_size
    micro = min(data.micro_batch_size or share, share)
    begin = f"continue at step {start}" if start else "start at step 0"
    return "\n".join(
        [
            f"objective   {config.objective}, would {begin} in {config.logging.folder}",
            f"data        {samples} samples of split {data.split} in {data.root}",
            f"batch       {data.batch_size} over {ranks.world_size} x {ranks.device.type}, forwards of {micro} at most",
            f"parameters  {parameters[0]:,} in total, {parameters[1]:,} trainable",
            f"precision   {config.engine.precision}",
            f"memory      {peak_memory(ranks.device)} on rank 0 so far",
            f"time        {total_steps} steps ({epochs:.1f} epochs) at {seconds:.3f} s a step: "
            f"{duration((total_steps - start) * seconds)} to go",
            "check passed: two steps forward and back; the run folder is untouched",
        ]
    )
