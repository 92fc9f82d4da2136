"""Which sample stands at which position: an order, a mixture of several, or a balanced one; all closed forms."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from src.config.sections import DataConfig
from src.data.order import Order
from src.data.shards import Shards

# P positions


class Plan(Protocol):
    """An endless sequence of samples, by their numbers in the shards that the plan was made for."""

    samples: int
    """Positions of an epoch."""

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the sample at each position."""

    def instead(self, position: int, places: int) -> int:
        """The sample so many places behind that of a position in its epoch; behind the epoch's last comes its first."""


def make_plan(config: DataConfig, shards: Shards, seed: int) -> Plan:
    """The plan that a config asks for."""
    return Order(seed, shards.sizes, config.window, config.lanes, config.batch_size)
