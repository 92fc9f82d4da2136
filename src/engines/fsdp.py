"""FSDP2: every parameter is a DTensor of which each rank holds some rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from src.distributed.ranks import alone
from src.engines.adamw import AdamWEngine
from src.engines.blocks import blocks_of
from src.engines.door import Door
from src.engines.engine import Batch, Piece, TensorSource
from src.engines.training import MOMENTS, TRAINING_MODES, same_names

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class FSDPEngine(AdamWEngine):
    """AdamW on shards; blocks are gathered when their turn comes, and gradients are averaged into the shards."""

    name = "fsdp"

    def _wrap(self, door: Door) -> nn.Module:
        mesh = self._mesh()  # fully_shard moves to its device block by block: the whole never lies on one GPU
        offload = (
            CPUOffloadPolicy(pin_memory=self.ranks.device.type == "cuda")
            if self.config.offload.parameters
            else OffloadPolicy()
        )
        for block in reversed(blocks_of(door)):  # the inner ones first
            policy = self._policy(block)
            if policy.param_dtype is not None and self.ranks.device.type == "cpu":
                _let_norms_take_halves(block)
            fully_shard(block, mesh=mesh, mp_policy=policy, offload_policy=offload)
        fully_shard(door, mesh=mesh, offload_policy=offload)
        self._optimize()
        return door

    def _policy(self, block: nn.Module) -> MixedPrecisionPolicy:
        """In 16 bits a block travels in half the bytes, and its gradients are added in fp32.

        BatchNorm takes no weights in 16 bits beside statistics in 32, so blocks that have one travel as they are.
        """
        half = PRECISIONS.get(self.config.precision)
        if half is None or any(isinstance(module, _BatchNorm) for module in block.modules()):
            return MixedPrecisionPolicy()
        return MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)

    def _mesh(self) -> DeviceMesh:
        """All ranks in a row; with `engine.replicas`, so many copies of the model, each sharded over its ranks."""
        if self.ranks.world_size == 1:
            alone(self.ranks.device)
        kind, replicas = self.ranks.device.type, self.config.replicas
        if replicas == 1:
            return init_device_mesh(kind, (self.ranks.world_size,), mesh_dim_names=("shard",))
        shape = (replicas, self.ranks.world_size // replicas)
        return init_device_mesh(kind, shape, mesh_dim_names=("replicate", "shard"))

    def __call__(self, batch: Batch, mode: str) -> Any:
        """A forward without backward would leave the root gathered, and what changes the shards would not be seen."""
        found = super().__call__(batch, mode)
        if not (mode in TRAINING_MODES and torch.is_grad_enabled()):
            for module in self.module.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()
        return found

    def _held(self, parameter: Tensor) -> Tensor:
        return _local(parameter)

    def _whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def _pieces(self) -> Iterator[Piece]:
        for name, parameter in self.parameters.items():
            yield from self._own("model", name, parameter)
        for name, buffer in self.buffers().items():
            yield from self.own_share("buffer", name, buffer)
        for name, parameter in self.trainable.items():
            for kind in MOMENTS if self.optimizer_steps else ():
                yield from self._own(kind, name, self.optimizer.state[parameter][kind])

    def _own(self, kind: str, name: str, tensor: Any) -> Iterator[Piece]:
        """The rows that this rank holds, if no other copy of the model writes them."""
        local, start = _local(tensor), self._start(tensor)
        if local.numel() and (tensor.device_mesh.ndim == 1 or tensor.device_mesh.get_local_rank("replicate") == 0):
            yield Piece(kind, name, tuple(tensor.shape), start, local.detach().reshape(-1))

    def _start(self, tensor: DTensor) -> int:
        """Where this rank's rows begin in the flattened tensor: all ranks but the last hold ceil(rows / ranks)."""
        shard = tensor.device_mesh["shard"]
        rows = -(-tensor.shape[0] // shard.size())
        first = min(shard.get_local_rank() * rows, tensor.shape[0])
        return first * (tensor.numel() // tensor.shape[0])

    @torch.no_grad()
    def load_weights(self, source: TensorSource) -> None:
        self.load_buffers(source)
        same_names(source, "model", set(self.parameters))
        for name, parameter in self.parameters.items():
            _local(parameter).copy_(self._rows(source, "model", name, parameter))

    def _rows(self, source: TensorSource, kind: str, name: str, like: Any) -> Tensor:
        local, start = _local(like), self._start(like)
        return source.read_range(kind, name, tuple(like.shape), start, start + local.numel()).reshape(local.shape)

    @torch.no_grad()
    def _load_moments(self, source: TensorSource) -> None:
        for name, parameter in self.trainable.items():
            moments = {}
            for kind in MOMENTS:
                moments[kind] = torch.zeros_like(parameter)
                _local(moments[kind]).copy_(self._rows(source, kind, name, parameter))
            self.optimizer.state[parameter] = {"step": torch.tensor(float(self.optimizer_steps)), **moments}

    @torch.no_grad()
    def network(self, name: str) -> dict[str, Tensor]:
        """Gathered tensor by tensor, on all ranks together."""
        found = {}
        for key, value in self.objective.get_submodule(name).state_dict().items():
            found[key] = self._whole(value).detach().cpu().clone()
        return found


def _let_norms_take_halves(block: nn.Module) -> None:
    """Autocast on a CPU leaves a norm's input in 32 bits, which fails beside weights in 16; a GPU casts both."""
    for module in block.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)) and module.weight is not None:
            module.register_forward_pre_hook(lambda norm, words: tuple(word.to(norm.weight.dtype) for word in words))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
