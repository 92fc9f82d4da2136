"""What stands at which position: a plan is an order, a mixture of several, or a balanced one; all are closed forms."""

# P positions

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Plan(Protocol):
    """An endless sequence of samples, by their numbers in what the plan was made for."""

    basis: str
    """Checksum of what the plan goes by beside the index; empty where there is nothing else."""

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the sample at each position; both together address the sample's random numbers."""

    def instead(self, position: int, places: int) -> int:
        """The sample so many places behind that of a position in its epoch; behind the epoch's last comes its first."""
