"""What is done to the blocks of a network from outside, before an engine shards them: recomputation, compilation."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from src.config.engine import EngineConfig


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The members of every `nn.ModuleList`: the repeated blocks of transformers and convolutional stages."""
    return [block for holder in module.modules() if isinstance(holder, nn.ModuleList) for block in holder]


def prepare_blocks(module: nn.Module, config: EngineConfig, device: torch.device) -> None:
    """Recompute and compile as the config says; names of parameters stay what they are.

    Every n-th of the trained blocks is recomputed.

    Raises:
        ValueError: the model has no blocks for what is asked.
    """
    blocks = blocks_of(module)
    if not blocks and (config.recompute or config.compile == "on"):
        raise ValueError(
            "engine.recompute and engine.compile work on the blocks of an nn.ModuleList; the model has none"
        )
    trained = [block for block in blocks if any(parameter.requires_grad for parameter in block.parameters())]
    recomputed = trained[:: config.recompute] if config.recompute else []
    if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
        torch._dynamo.config.suppress_errors = True  # what can't be compiled runs as it is, and torch warns of it
        for block in blocks:
            if block in recomputed:  # what is around a checkpoint is not compiled, so what is in it must be
                block.forward = torch.compile(block.forward)
            else:
                block.compile()
    for block in recomputed:
        again: dict[str, Any] = {}
        if next(block.buffers(), None) is not None:
            again["context_fn"] = functools.partial(_contexts, block)
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, **again)


class BuffersKept:
    """Around a forward that is made a second time, which must not count twice in running statistics."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self._kept = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def __exit__(self, *_: object) -> None:
        for name, buffer in self.module.named_buffers():
            buffer.data.copy_(self._kept[name])  # a backward that has saved the buffer does not read it


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around a block's forward, and around its recomputation, of which there is one for every backward."""
    return nullcontext(), BuffersKept(block)
