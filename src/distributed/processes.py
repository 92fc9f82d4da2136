"""Processes that do not outlive the one that started them, and the signals that ask them to stop; free of torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from src.distributed.variables import FAILURES

PR_SET_PDEATHSIG = 1
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a run to save and end: from a terminal, a cluster that preempts, a time limit."""


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when process `parent`, which started this one, ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def ignore_signals() -> None:
    """Leave every signal that asks a job to stop to the process that leads it, blocked or not until now."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    unblock_stops()


def block_stops() -> None:
    """Keep signals that ask to stop until somebody waits for them, in this thread and in all that it starts.

    Threads and processes inherit the mask, through exec as well: what is sent to a whole job ends no compiler, no W&B
    and no git that a rank is waiting for. Before there is a program that asks, they wait: also a `preexec_fn`.
    Children are ended by SIGKILL: `terminate()` does nothing to them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def unblock_stops() -> None:
    """Let them through, those that have come first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def watch_stops(told: Callable[[int], None]) -> None:
    """Call `told` with each signal that asks to stop, from a thread; with those that have come before it returns.

    They stay blocked, and those that are ignored (nohup) stay so. Who watches later takes the place of who did before.
    """
    block_stops()
    heeded = {number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN}
    for number in heeded:  # also for a library that lets them through, as Python's resource tracker does
        signal.signal(number, lambda received, _: told(received))
    while (come := signal.sigtimedwait(heeded, 0)) is not None:
        told(come.si_signo)
    threading.Thread(target=_wait_for_stops, args=(heeded,), name="stops", daemon=True).start()


def _wait_for_stops(heeded: set[signal.Signals]) -> None:
    while True:
        number = signal.sigwait(heeded)
        handler = signal.getsignal(number)
        if callable(handler):
            with suppress(Exception, KeyboardInterrupt):  # one that a library has put there: the thread goes on
                handler(number, None)


def end_on_stops() -> None:
    """End at once with 128 + number when asked to stop, also in a call that never returns: there is nothing to save."""

    def end(number: int) -> None:
        if FAILURES not in os.environ:  # no launcher of ours that would tell it
            with suppress(OSError, ValueError):  # its terminal may be gone
                os.write(sys.stderr.fileno(), f"stopped by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)

    watch_stops(end)
