"""Parameter groups: per network, with and without weight decay."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay, by name."""

    name: str
    parameters: tuple[str, ...]
    decays: bool


def parameter_groups(objective: nn.Module) -> list[Group]:
    """Two groups for each child network with trainable parameters: matrices, and the rest, which never decays.

    Decided by shape, so it must run before an engine shards the parameters. A bias, a norm or a learned scalar is 1-D
    and does not decay; neither does a token [1, 1, D], which is a vector with room for a batch.
    """
    members: dict[tuple[str, bool], list[str]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            token = parameter.ndim > 2 and all(side == 1 for side in parameter.shape[:-1])
            decays = parameter.ndim > 1 and not token
            members.setdefault((name.split(".", 1)[0], decays), []).append(name)
    return [
        Group(network if decays else f"{network}_no_decay", tuple(names), decays)
        for (network, decays), names in sorted(members.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]
