"""Over a rank that waits for a batch: the wait ends when a worker is dead, or when it has lasted too long."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from src.data.activity import Activity

STDERR = 2
"""The descriptor: notebooks have put an object without one into its place."""
GRACE_SECONDS = 20.0
"""So much longer may a wait last that no signal ends: the kernel does not let go of a read from dead storage."""


class _Ended(BaseException):
    """Out of a wait; no `except Exception` on the way out may take it for its own."""


class Watch:
    """Ends waits of `rank` that last longer than `seconds` (data.timeout), and those for the dead.

    `alone`: the rank has no workers. Signals reach the main thread alone, so that it must be the one that waits.
    """

    def __init__(self, activity: Activity, rank: int, seconds: float, alone: bool) -> None:
        self._activity, self._rank, self._seconds, self._alone = activity, rank, seconds, alone

    @contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """Around the wait for the batch of a step.

        Raises:
            ValueError: a worker has died, or there was no batch in time; says who and what each worker is at.
        """
        try:
            with self._signals(step), self._last_resort():
                self._refuse_dead()
                yield
        except _Ended as ended:
            raise ValueError(str(ended)) from None

    @contextmanager
    def _signals(self, step: int) -> Iterator[None]:
        """A child that ends and the time that is up are looked at wherever the wait is."""

        def look(number: int, _: object) -> None:
            self._refuse_dead()
            if number == signal.SIGALRM:
                raise _Ended(
                    f"rank {self._rank} has waited {self._seconds:g} s for the batch of step {step} (data.timeout): "
                    f"{'; '.join(self._activity.lines())}: see to the storage, or raise data.timeout or data.workers"
                )

        handlers = {number: signal.signal(number, look) for number in (signal.SIGCHLD, signal.SIGALRM)}
        alarm = signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *alarm)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @contextmanager
    def _last_resort(self) -> Iterator[None]:
        """A rank that reads by itself may be where no signal reaches it: it just ends then, its stack on stderr."""
        if not self._alone:
            yield
            return
        faulthandler.dump_traceback_later(self._seconds + GRACE_SECONDS, exit=True, file=STDERR)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _refuse_dead(self) -> None:
        if dead := self._activity.dead():
            raise _Ended(
                f"rank {self._rank}: {dead}: lower data.workers or data.batch_size or get more memory, then start the "
                "same command again, which goes on from its last checkpoint"
            )
