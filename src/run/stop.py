"""A signal that asks a run to stop: all ranks agree on the step, save it, and end."""

from __future__ import annotations

import torch
import torch.distributed as dist

from src.distributed.processes import block_stops, watch_stops
from src.distributed.ranks import Ranks


class Stopped(Exception):
    """The run was asked to stop; where it stands is on disk."""

    def __init__(self, number: int, steps: int) -> None:
        super().__init__(
            f"stopped after {steps} steps, which are saved; the same command goes on from there"
            if steps
            else "stopped before the first step; the same command starts over"
        )
        self.number = number


class StopRequest:
    """Whether any rank has been asked; each rank's answer travels while the next step is computed."""

    def __init__(self, ranks: Ranks) -> None:
        """Watch the signals from now on. Called by all ranks together.

        One that came while they were blocked stops the run after its first step.
        """
        self._asked = 0
        self._group = dist.new_group(backend="gloo") if ranks.world_size > 1 else None
        self._told = torch.zeros(1, dtype=torch.int32)
        self._journey: dist.Work | None = None
        watch_stops(self._ask)
        self.poll()

    def _ask(self, number: int) -> None:
        self._asked = number

    def poll(self) -> int:
        """The signal that any rank had been sent by the poll before, or 0; called by all ranks equally often."""
        block_stops()  # again, wherever a library has let them through: its children would die of them
        if self._group is None:
            return self._asked
        found = self.drain()
        self._told = torch.tensor([self._asked], dtype=torch.int32)
        self._journey = dist.all_reduce(self._told, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return found

    def drain(self) -> int:
        """Wait for the answers under way: nothing may be in flight when the process group ends."""
        if self._journey is None:
            return 0
        self._journey.wait()
        self._journey = None
        return int(self._told)
