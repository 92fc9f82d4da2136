"""Parameter groups: per network, and per stage of an encoder, with and without weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Size, nn

from src.config.optimization import NetworkRates


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay, by name."""

    name: str
    parameters: tuple[str, ...]
    lr: float
    """Times the run's learning rate."""
    weight_decay: float
    """Times the run's weight decay; 0 for those that never decay."""


def decays(name: str, shape: Size) -> bool:
    """Whether weight decay pulls a parameter to zero, by its name and its whole shape: it does so to a layer's matrix.

    A bias, a norm or a learned scalar is 1-D. A token, a query or a table of positions is added to tokens and weighs
    them with nothing: a parameter with room for a batch, [1, ..., D], that is not the `weight` of a layer, or by its
    name a bias or positions, as Swin's tables and the embeddings of transformers are.
    """
    layer, own = ["", *name.split(".")][-2:]
    token = shape[:1] == (1,) and own != "weight"
    added = any(word in part for word in ("bias", "position") for part in (layer, own))
    return len(shape) > 1 and not token and not added


@runtime_checkable
class Staged(Protocol):
    """A network in stages, as every encoder is."""

    def stages(self) -> dict[str, tuple[str, ...]]: ...


def parameter_groups(
    objective: nn.Module, rates: Mapping[str, NetworkRates] | None = None, layer_decay: float = 1.0
) -> list[Group]:
    """Two groups for each child network with trainable parameters: matrices, and the rest, which never decays.

    Decided by shape, so it must run before an engine shards the parameters. `rates` are `optimization.networks`. With a
    `layer_decay` below 1 each stage of a network that has stages is a network of its own here, and the i-th of n, from
    1, learns at layer_decay^(n + 1 - i) of its network's rate (Bao et al. 2021, arXiv 2106.08254).

    Raises:
        ValueError: rates for a network that the objective does not train; names those that it does.
    """
    rates = rates or {}
    members: dict[tuple[str, str, bool], list[str]] = {}
    stages = stages_of(objective) if layer_decay != 1.0 else {}
    factors = {stage: layer_decay**behind for of in stages.values() for behind, stage in enumerate(reversed(of), 1)}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            network = name.split(".", 1)[0]
            stage = _stage(name, stages[network]) if network in stages else network
            members.setdefault((network, stage, decays(name, parameter.shape)), []).append(name)
    networks = {network for network, _, _ in members}
    for network in rates:
        if network not in networks:
            raise ValueError(
                f"optimization.networks.{network}: the objective trains no network of this name; it trains "
                f"{', '.join(sorted(networks))}"
            )
    groups = []
    for (network, stage, matrices), names in sorted(members.items(), key=lambda item: (*item[0][:2], not item[0][2])):
        own = rates.get(network, NetworkRates())
        name = stage if matrices else f"{stage}_no_decay"
        decay = own.weight_decay if matrices else 0.0
        groups.append(Group(name, tuple(names), own.lr * factors.get(stage, 1.0), decay))
    return groups


def stages_of(objective: nn.Module) -> dict[str, dict[str, tuple[str, ...]]]:
    """The modules of each `<network>.<stage>`, by their names in the objective, of every network that has stages."""
    return {
        network: {
            f"{network}.{stage}": tuple(f"{network}.{module}" for module in modules)
            for stage, modules in child.stages().items()
        }
        for network, child in objective.named_children()
        if isinstance(child, Staged)
    }


def _stage(name: str, stages: Mapping[str, tuple[str, ...]]) -> str:
    (found,) = [stage for stage, of in stages.items() if any(name.startswith(f"{module}.") for module in of)]
    return found
