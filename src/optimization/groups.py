"""Parameter groups: per network, with and without weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

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


def parameter_groups(objective: nn.Module, rates: Mapping[str, NetworkRates] | None = None) -> list[Group]:
    """Two groups for each child network with trainable parameters: matrices, and the rest, which never decays.

    Decided by shape, so it must run before an engine shards the parameters. A bias, a norm or a learned scalar is 1-D
    and does not decay; neither does a token [1, 1, D], which is a vector with room for a batch. `rates` are
    `optimization.networks`.

    Raises:
        ValueError: rates for a network that the objective does not train; names those that it does.
    """
    rates = rates or {}
    members: dict[tuple[str, bool], list[str]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            token = parameter.ndim > 2 and all(side == 1 for side in parameter.shape[:-1])
            decays = parameter.ndim > 1 and not token
            members.setdefault((name.split(".", 1)[0], decays), []).append(name)
    networks = {network for network, _ in members}
    for network in rates:
        if network not in networks:
            raise ValueError(
                f"optimization.networks.{network}: the objective trains no network of this name; it trains "
                f"{', '.join(sorted(networks))}"
            )
    groups = []
    for (network, decays), names in sorted(members.items(), key=lambda item: (item[0][0], not item[0][1])):
        own = rates.get(network, NetworkRates())
        name = network if decays else f"{network}_no_decay"
        groups.append(Group(name, tuple(names), own.lr, own.weight_decay if decays else 0.0))
    return groups
