"""Parameter groups: per network, with and without weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


def parameter_groups(objective: nn.Module, rates: Mapping[str, NetworkRates] | None = None) -> list[Group]:
    """Two groups for each child network with trainable parameters: matrices, and the rest, which never decays.

    Decided by shape, so it must run before an engine shards the parameters. `rates` are `optimization.networks`.

    Raises:
        ValueError: rates for a network that the objective does not train; names those that it does.
    """
    rates = rates or {}
    members: dict[tuple[str, bool], list[str]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            members.setdefault((name.split(".", 1)[0], decays(name, parameter.shape)), []).append(name)
    networks = {network for network, _ in members}
    for network in rates:
        if network not in networks:
            raise ValueError(
                f"optimization.networks.{network}: the objective trains no network of this name; it trains "
                f"{', '.join(sorted(networks))}"
            )
    groups = []
    for (network, matrices), names in sorted(members.items(), key=lambda item: (item[0][0], not item[0][1])):
        own = rates.get(network, NetworkRates())
        name = network if matrices else f"{network}_no_decay"
        groups.append(Group(name, tuple(names), own.lr, own.weight_decay if matrices else 0.0))
    return groups
