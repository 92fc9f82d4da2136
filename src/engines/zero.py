"""DeepSpeed ZeRO: stage 0 keeps everything on every rank, 1 shards the optimizer, 2 the gradients, 3 the parameters."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks, alone
from src.engines.door import Door
from src.engines.engine import Batch, Piece, TensorSource
from src.engines.training import MOMENTS, TrainingEngine, same_names
from src.engines.zero_settings import deepspeed_settings

COMPILED_ON_CPU = "deepspeed_shm_comm"
"""An operator that DeepSpeed compiles for a minute on a CPU and that training does not need; a process killed while it
loads leaves a lock on which every later one waits for ever."""


class SkippingAdamW(torch.optim.AdamW):
    """AdamW that divides by the loss scale, clips, and leaves everything as it was if a gradient is not finite.

    What ZeRO's own optimizers do at stages 1 to 3; stage 0 steps the optimizer that it is given.
    """

    scale, clip, norm, overflow = 1.0, None, 0.0, False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update, or none."""
        held = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in held:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in held]
        torch._foreach_div_(gradients, self.scale)
        total = get_total_norm(gradients)
        self.norm = total.item()
        self.overflow = not math.isfinite(self.norm)
        if not self.overflow:
            if self.clip is not None:
                clip_grads_with_norm_(held, self.clip, total)
            super().step(closure)


class ZeroEngine(TrainingEngine):
    """AdamW by DeepSpeed; parameters, moments and teachers are fp32 at every stage."""

    name = "deepspeed"

    def _wrap(self, door: Door) -> nn.Module:
        self.stage = self.config.stage
        if self.stage < 3:
            door.to(self.ranks.device)
        self.parameters: dict[str, Any] = dict(self.objective.named_parameters())
        self.trainable = {name: self.parameters[name] for name in self.trains}
        kind = SkippingAdamW if self.stage == 0 else torch.optim.AdamW
        base = kind(
            [{"params": [self.parameters[name] for name in group.parameters]} for group in self.groups],
            lr=self.optimization.lr,
            betas=self.optimization.betas,
            eps=self.optimization.eps,
        )
        if isinstance(base, SkippingAdamW):
            base.clip = self.optimization.clip  # type: ignore[assignment]
        usual = torch.nn.functional.linear
        try:
            self.engine, self.optimizer = _initialize(door, base, self.config, self.optimization, self.ranks)
        finally:
            self._linear, torch.nn.functional.linear = torch.nn.functional.linear, usual
        return self.engine

    def __call__(self, batch: Batch, mode: str) -> Any:
        with self._products():
            return super().__call__(batch, mode)

    @contextmanager
    def _products(self) -> Iterator[None]:
        """Stage 3 comes with a product of its own, which does not hold on to gathered weights until the backward.

        In place for forwards, and for backwards, which recompute them.
        """
        usual, torch.nn.functional.linear = torch.nn.functional.linear, self._linear
        try:
            yield
        finally:
            torch.nn.functional.linear = usual

    @property
    def adamw(self) -> torch.optim.Optimizer:
        """The optimizer inside DeepSpeed's."""
        inner: torch.optim.Optimizer = self.optimizer if self.stage == 0 else self.optimizer.optimizer
        return inner

    def _scaled(self, total: Tensor) -> Tensor:
        """From stage 1 on ZeRO multiplies by the loss scale itself, in every backward."""
        return total * self.scale.value if self.stage == 0 else total

    def _pulls(self, gradient: Tensor) -> Tensor:
        return gradient / self.scale.value if self.stage else gradient

    def _begin(self) -> None:
        """Where a step's first backward misses a parameter, ZeRO would go on from what the last step left.

        Stage 3 adds later gradients to it; with the optimizer offloaded every stage keeps it for the whole step.
        """
        if self.stage == 3:
            self.optimizer.grad_partitions_flat_buffer.zero_()
        if self.stage and self.config.offload.optimizer:
            for flat in self._masters():
                if flat.grad is not None:
                    flat.grad.zero_()
            for gradient in getattr(self.optimizer, "accumulated_grads_in_cpu", {}).values():
                gradient.zero_()
            self.optimizer.norm_for_param_grads = {}

    def _masters(self) -> list[Tensor]:
        """The flat fp32 partitions of this rank."""
        found: list[Tensor] = (
            self.optimizer.fp32_partitioned_groups_flat
            if self.stage == 3
            else self.optimizer.single_partition_of_fp32_groups
        )
        return found

    def _backward(self, total: Tensor, last: bool) -> None:
        if self.scale.active:
            if self.stage:
                self.optimizer.override_loss_scale(self.scale.value)
            else:
                self.optimizer.scale = self.scale.value
        with self._products():
            self.engine.backward(total)

    def _group_settings(self) -> list[dict[str, Any]]:
        return self.adamw.param_groups

    def _update(self) -> float:
        self.engine.step()
        if self.stage == 0:
            return self.optimizer.norm
        return math.inf if self.optimizer.overflow else float(self.engine.get_global_grad_norm())

    def _held(self, parameter: Any) -> Tensor:
        held: Tensor = parameter.ds_tensor if self.stage == 3 else parameter
        return held

    def _pieces(self) -> Iterator[Piece]:
        for name, buffer in self.buffers().items():
            yield from self.own_share("buffer", name, buffer)
        if self.optimizer_steps:
            self._link_moments()
        for name, parameter in self.parameters.items():
            if self.stage < 3:
                yield from self.own_share("model", name, parameter)
            else:
                yield from self._partition("model", name, parameter, parameter.ds_tensor)
        for name, parameter in self.trainable.items():
            for kind in MOMENTS if self.optimizer_steps else ():
                if self.stage == 0:
                    yield from self.own_share(kind, name, self.optimizer.state[parameter][kind])
                elif self.stage < 3:
                    yield from self._fragment(kind, name, parameter)
                else:
                    yield from self._partition(kind, name, parameter, self._local_moment(parameter, kind))

    def _link_moments(self) -> None:
        """Stages 1 and 2 link the moments after the first step of the first group alone: link those of all groups."""
        if self.stage in (1, 2):
            self.optimizer._hp_optimizer_states_linked = False
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def _fragment(self, kind: str, name: str, parameter: Any) -> Iterator[Piece]:
        """Stages 1 and 2: the part of the parameter that lies in this rank's flat partition."""
        mapping = parameter._hp_mapping
        if mapping is not None:
            values = mapping.get_optim_state_fragment(kind).detach()
            yield Piece(kind, name, self.shapes[name], mapping.lp_fragment_address.start, values)

    def _partition(self, kind: str, name: str, parameter: Any, local: Tensor) -> Iterator[Piece]:
        """Stage 3: this rank's W-th part of the parameter, less the padding at its end."""
        start, end = self._span(parameter)
        if start < end:
            yield Piece(kind, name, self.shapes[name], start, local.detach().reshape(-1)[: end - start])

    def _span(self, parameter: Any) -> tuple[int, int]:
        size = parameter.ds_tensor.ds_numel
        start = min(self.ranks.rank * size, parameter.ds_numel)
        return start, min(start + size, parameter.ds_numel)

    def _local_moment(self, parameter: Any, kind: str) -> Tensor:
        from deepspeed.utils import safe_get_local_optimizer_state

        moment: Tensor = safe_get_local_optimizer_state(parameter, kind)
        return moment

    @torch.no_grad()
    def load_weights(self, source: TensorSource) -> None:
        """Live weights and the fp32 masters alike: DeepSpeed copies neither to the other before a step."""
        self.load_buffers(source)
        same_names(source, "model", set(self.parameters))
        for name, parameter in self.parameters.items():
            if self.stage == 3:
                self._fill(source, "model", name, parameter, parameter.ds_tensor)
                if parameter.requires_grad:
                    self._fill(source, "model", name, parameter, self._master(parameter))
                continue
            parameter.copy_(source.read("model", name, self.shapes[name]))
            if self.stage and parameter.requires_grad and parameter._hp_mapping is not None:
                mapping = parameter._hp_mapping
                address = mapping.lp_fragment_address
                mapping.hp_fragment.copy_(parameter.reshape(-1).narrow(0, address.start, address.numel))

    def _fill(self, source: TensorSource, kind: str, name: str, parameter: Any, local: Tensor) -> None:
        """This rank's part of a tensor from a checkpoint; the padding is zero."""
        start, end = self._span(parameter)
        flat = local.view(-1)
        flat.zero_()
        flat[: end - start].copy_(source.read_range(kind, name, self.shapes[name], start, end))

    def _master(self, parameter: Any) -> Tensor:
        group, offset, count = self.optimizer.grad_position[self.optimizer.get_param_id(parameter)]
        master: Tensor = self.optimizer.fp32_partitioned_groups_flat[group].narrow(0, offset, count)
        return master

    @torch.no_grad()
    def _load_moments(self, source: TensorSource) -> None:
        flats = list(self._flat_partitions())
        for flat in flats:
            count = torch.tensor(float(self.optimizer_steps))
            self.adamw.state[flat] = {"step": count, **{kind: torch.zeros_like(flat) for kind in MOMENTS}}
        self._link_moments()
        for name, parameter in self.trainable.items():
            for kind in MOMENTS:
                if self.stage == 0:
                    self.adamw.state[parameter][kind].copy_(source.read(kind, name, self.shapes[name]))
                elif self.stage < 3:
                    self._fill_fragment(source, kind, name, parameter)
                else:
                    group, offset, count = self.optimizer.grad_position[self.optimizer.get_param_id(parameter)]
                    flat = self.optimizer.fp32_partitioned_groups_flat[group]
                    moment = self.adamw.state[flat][kind].narrow(0, offset, count)
                    self._fill(source, kind, name, parameter, moment)

    def _fill_fragment(self, source: TensorSource, kind: str, name: str, parameter: Any) -> None:
        mapping = parameter._hp_mapping
        if mapping is not None:
            address = mapping.lp_fragment_address
            end = address.start + address.numel
            values = source.read_range(kind, name, self.shapes[name], address.start, end)
            mapping.get_optim_state_fragment(kind).copy_(values)

    def _flat_partitions(self) -> Iterator[Tensor]:
        """The tensors that AdamW steps on this rank."""
        if self.stage == 3:
            yield from self.optimizer.fp32_partitioned_groups_flat
        else:
            yield from (parameter for group in self.adamw.param_groups for parameter in group["params"])

    @torch.no_grad()
    def network(self, name: str) -> dict[str, Tensor]:
        """Gathered tensor by tensor at stage 3, on all ranks together."""
        import deepspeed

        found = {}
        module = self.objective.get_submodule(name)
        for key, parameter in module.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                found[key] = parameter.detach().cpu().clone()
        persistent = set(module.state_dict())
        return found | {key: value.cpu().clone() for key, value in module.named_buffers() if key in persistent}


def _initialize(
    door: Door, base: torch.optim.Optimizer, config: EngineConfig, optimization: OptimizationConfig, ranks: Ranks
) -> tuple[Any, Any]:
    """DeepSpeed around the door; imported here, since it takes seconds."""
    if ranks.device.type == "cpu":
        os.environ.setdefault("LOCAL_RANK", "0")
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:  # the device it computes on, whatever place this rank has on the machine
        os.environ["LOCAL_RANK"] = str(ranks.device.index)
    if ranks.world_size == 1:
        alone(ranks.device)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)  # each step
    if ranks.device.type == "cpu" and COMPILED_ON_CPU in deepspeed.ops.__compatible_ops__:
        deepspeed.ops.__compatible_ops__[COMPILED_ON_CPU] = False
    trained = sum(parameter.numel() for group in base.param_groups for parameter in group["params"])
    settings = deepspeed_settings(config, optimization, trained)
    try:
        if config.stage == 3:  # parameter by parameter onto the device, so that the whole never lies there
            deepspeed.zero.Init(module=door, config_dict_or_path=settings, dtype=torch.float32)
            for buffer in door.buffers():
                buffer.data = buffer.data.to(ranks.device)
        engine, optimizer, _, _ = deepspeed.initialize(
            model=door, optimizer=base, config=settings, dist_init_required=False
        )
    except (ValueError, AssertionError) as error:
        if config.deepspeed is None:
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"engine.deepspeed: DeepSpeed refuses {config.deepspeed}: {why}") from error
    # The loss scale of fp16 is ours, a part of the checkpoint; these would scale a second time.
    engine.torch_autocast_z0_gradscaler = optimizer.torch_autocast_gradscaler = None
    return engine, optimizer
