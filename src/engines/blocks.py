"""What is done to the blocks of a network from outside, before an engine shards them: recomputation, compilation."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from src.config.sections import EngineConfig


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
    if config.recompute:
        trained = [block for block in blocks if any(parameter.requires_grad for parameter in block.parameters())]
        for block in trained[:: config.recompute]:
            again: dict[str, Any] = {}
            if next(block.buffers(), None) is not None:
                again["context_fn"] = functools.partial(_contexts, block)
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, **again)
    if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
        torch._dynamo.config.suppress_errors = True  # what can't be compiled runs as it is, and torch warns of it
        for block in blocks:
            block.compile()


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """A forward that is made a second time must not count twice in running statistics."""
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:  # recomputation ends by an exception, once it has what the backward needs
        for name, buffer in module.named_buffers():
            buffer.data.copy_(kept[name])  # a backward that has saved the buffer does not read it


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around a block's forward, and around its recomputation."""
    return nullcontext(), buffers_kept(block)
