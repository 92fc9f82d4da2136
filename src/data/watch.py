"""Over a rank that waits for a batch: the wait ends when a worker is dead, or when it has lasted too long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from src.data.activity import Activity

STDERR = 2
"""The descriptor: notebooks have put an object without one into its place."""
GRACE_SECONDS = 20.0
"""So much longer may a wait last that no signal ends: the kernel does not let go of a read from dead storage."""
AGAIN_SECONDS = 1.0
"""After which the alarm is repeated: what is raised in a destructor or a callback of C code is lost."""
POLL_SECONDS = 1.0
"""How often the thread looks that ends such a wait."""


class _Ended(BaseException):
    """Out of a wait; no `except Exception` on the way out may take it for its own."""


class Watch:
    """Ends waits of `rank` that last longer than `seconds` (data.timeout), and those for the dead.

    `alone`: the rank has no workers. Signals reach the main thread alone, so that it must be the one that waits.
    """

    def __init__(self, activity: Activity, rank: int, seconds: float, alone: bool) -> None:
        self._activity, self._rank, self._seconds, self._alone = activity, rank, seconds, alone
        self._waits: tuple[int, float] | None = None
        """The step, and the time since when."""

    @contextmanager
    def on_duty(self) -> Iterator[None]:
        """Around all waits: one who reads alone may be where no signal reaches it, so that a thread looks on."""
        over = threading.Event()
        if self._alone:
            threading.Thread(target=self._look_on, args=(over,), name="watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    @contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """Around the wait for the batch of a step.

        Raises:
            ValueError: a worker has died, or there was no batch in time; says who and what each worker is at.
        """
        self._waits = step, time.monotonic()
        try:
            with self._signals(step):
                self._refuse_dead()
                yield
        except _Ended as ended:
            raise ValueError(str(ended)) from None
        finally:
            self._waits = None

    @contextmanager
    def _signals(self, step: int) -> Iterator[None]:
        """A child that ends and the time that is up are looked at wherever the wait is."""

        def look(number: int, _: object) -> None:
            self._refuse_dead()
            if number == signal.SIGALRM:
                raise _Ended(self._late(step))

        handlers = {number: signal.signal(number, look) for number in (signal.SIGCHLD, signal.SIGALRM)}
        alarm = signal.setitimer(signal.ITIMER_REAL, self._seconds, AGAIN_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *alarm)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _look_on(self, over: threading.Event) -> None:
        while not over.wait(POLL_SECONDS):
            waits = self._waits
            if waits is not None and time.monotonic() - waits[1] > self._seconds + GRACE_SECONDS:
                os.write(STDERR, f"error: {self._late(waits[0])}\n".encode())
                os._exit(1)

    def _late(self, step: int) -> str:
        return (
            f"rank {self._rank} has waited {self._seconds:g} s for the batch of step {step} (data.timeout): "
            f"{'; '.join(self._activity.lines())}: see to the storage, or raise data.timeout or data.workers"
        )

    def _refuse_dead(self) -> None:
        if dead := self._activity.dead():
            raise _Ended(
                f"rank {self._rank}: {dead}: lower data.workers or data.batch_size or get more memory, then start the "
                "same command again, which goes on from its last checkpoint"
            )
