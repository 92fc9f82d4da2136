"""Processes that do not outlive the one that started them, and the signals that ask them to stop; free of torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

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
    """Keep signals that ask to stop until they are unblocked: a `preexec_fn`, for a process that will save on them.

    The mask outlives exec: what comes before the program stands is delivered once it has a handler for it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def unblock_stops() -> None:
    """Let them through, those that have come first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
