"""Shards of an address are fetched before the steps that need them, by a process beside each rank.

A process and not a thread: loader workers are forked from the rank, the rank's loop has its interpreter to itself, and
nothing that goes wrong here can end or hang a run. It dies with the rank, in the middle of a download if need be: the
cache throws away what is not whole. What it could not fetch is left to the reader, which tells the error.
"""

# S shards

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.data import DataConfig
from src.data.sources import Sources
from src.distributed.processes import die_with_parent, ignore_signals

SHARE = 0.5
"""Of the cache, for the shards of the coming steps: the rest is for those that were just read, and for other runs."""
STREAMS = 4
"""Shards that a rank fetches at a time: object stores give each connection a part of what the line could carry. From a
server that gives each 3 MB/s, 16 shards came in 3.0 s instead of 8.0."""
POLL_SECONDS = 0.1


class Horizon:
    """The shards that the coming steps need: from the step reached on, as many steps as a number of bytes allows."""

    def __init__(
        self, shards_of: Callable[[int], NDArray[np.int64]], bytes_S: Sequence[int], budget: float, steps: range
    ) -> None:
        self._shards_of, self._bytes_S, self._budget = shards_of, bytes_S, budget
        self._next, self._stop = steps.start, steps.stop
        self._steps: deque[tuple[int, list[int]]] = deque()
        self._last_step: dict[int, int] = {}
        self._bytes = 0

    def reach(self, step: int) -> list[int]:
        """Shards that come into sight at that step, in the order of need."""
        self._forget(step)
        self._next = max(self._next, step)
        seen = []
        while self._next < self._stop and len(self._last_step) < len(self._bytes_S):
            shards = self._shards_of(self._next).tolist()
            new = [shard for shard in shards if shard not in self._last_step]
            if self._bytes + sum(self._bytes_S[shard] for shard in new) > self._budget:
                break
            self._bytes += sum(self._bytes_S[shard] for shard in new)
            self._last_step.update(dict.fromkeys(shards, self._next))
            self._steps.append((self._next, shards))
            seen += new
            self._next += 1
        return seen

    def __contains__(self, shard: int) -> bool:
        return shard in self._last_step

    def _forget(self, reached: int) -> None:
        """Drop the shards that no step from the one reached on needs, as far as can be seen."""
        while self._steps and self._steps[0][0] < reached:
            step, shards = self._steps.popleft()
            for shard in shards:
                if self._last_step.get(shard) == step:
                    del self._last_step[shard]
                    self._bytes -= self._bytes_S[shard]


@contextmanager
def fetched_ahead(
    config: DataConfig, sources: Sources, shards_of: Callable[[int], NDArray[np.int64]], steps: range, neighbours: int
) -> Iterator[Callable[[int], None]]:
    """While it is open, a process fetches what the coming steps need; the function that is given tells it the step.

    `shards_of` are the shards that the rank needs at a step, `neighbours` the ranks on this machine: with lanes each
    has shards of its own in the cache that they share. Does nothing for shards of a folder.
    """
    if config.cache is None or not sources.remote:
        yield lambda step: None
        return
    budget = SHARE * config.cache.size * 1e9 / (neighbours if config.lanes > 1 else 1)
    context = multiprocessing.get_context("fork")
    reached = context.Value("q", steps.start, lock=False)
    horizon = Horizon(shards_of, sources.tar_sizes, budget, steps)
    process = context.Process(target=_fetch, args=(os.getpid(), sources, horizon, reached), daemon=True)
    process.start()

    def reach(step: int) -> None:
        reached.value = step

    try:
        yield reach
    finally:
        process.kill()
        process.join()


def _fetch(rank_process: int, sources: Sources, horizon: Horizon, reached: Any) -> None:
    """The life of the process: it has nothing but these threads, and is killed."""
    die_with_parent(rank_process)
    ignore_signals()
    waiting: deque[int] = deque()
    taking = threading.Lock()

    def take() -> int | None:
        with taking:
            waiting.extend(horizon.reach(reached.value))
            return next((shard for shard in _emptied(waiting) if shard in horizon), None)

    for _ in range(STREAMS - 1):
        threading.Thread(target=_stream, args=(sources, take), daemon=True).start()
    _stream(sources, take)


def _emptied(waiting: deque[int]) -> Iterator[int]:
    while waiting:
        yield waiting.popleft()


def _stream(sources: Sources, take: Callable[[], int | None]) -> None:
    while True:
        shard = take()
        if shard is None:
            time.sleep(POLL_SECONDS)
            continue
        try:
            sources.fetch(shard)
        except (ValueError, OSError):
            time.sleep(POLL_SECONDS)  # the reader meets it too, and tells


def thrashing(config: DataConfig, sources: Sources, machines: int) -> str | None:
    """Why shards will be fetched again and again within an epoch, as a sentence; None if they will not.

    `machines` share the lanes.
    """
    if config.cache is None or not sources.remote:
        return None
    size, total = config.cache.size * 1e9, sum(sources.tar_sizes)
    if total <= size:
        return None
    told = f"data.cache.size {config.cache.size:g} GB is less than"
    if config.window is None:
        windowed = "set data.window to the shards of a quarter of the cache"
        advice = windowed if config.balance == "none" else "raise it, or leave out data.balance, which reads everywhere"
        return (
            f"{told} the {total / 1e9:.3g} GB of its shards, and the samples are shuffled over all of them: every "
            f"shard is fetched many times in an epoch; {advice}"
        )
    windows = [sum(sorted(part.tar_sizes)[-config.window :]) for part in sources.remote]
    needed = sum(windows) * -(-config.lanes // machines)
    if needed <= size:
        return None
    return (
        f"{told} the {needed / 1e9:.3g} GB that the windows being read may take: shards are fetched several times in "
        "an epoch; lower data.window or raise data.cache.size to four windows"
    )
