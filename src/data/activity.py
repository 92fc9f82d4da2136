"""What each loader process is at, written where its rank can read it without asking: memory that both share."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections.abc import Sequence
from pathlib import Path

ROW = struct.Struct("<qq240s")
"""Process, nanoseconds of the clock that all processes share, words."""
PROCESS = struct.Struct("<q")
"""The beginning of a row."""
LIKELY_CAUSES = {
    signal.SIGKILL: "often: out of memory",
    signal.SIGBUS: "often: out of memory, or a file was cut while it was read",
    signal.SIGSEGV: "often: a decoder came to grief on a damaged file",
}
STATES = {"T": ", and is stopped", "D": ", and the storage does not answer it"}
"""Of a process, by the letter in /proc/<pid>/stat."""


class Activity:
    """A row for each process that makes batches; of a rank that makes its own there is one."""

    def __init__(self, processes: int) -> None:
        self._rows = mmap.mmap(-1, ROW.size * processes)
        self._processes = processes
        self._number = 0

    def clear(self) -> None:
        """Before the processes start."""
        for number in range(self._processes):
            ROW.pack_into(self._rows, number * ROW.size, 0, time.monotonic_ns(), b"starting")

    def expect(self, processes: Sequence[int]) -> None:
        """The processes of the rows, by who has started them: one may die before it can `begin`."""
        for number, process in enumerate(processes):
            PROCESS.pack_into(self._rows, number * ROW.size, process)

    def begin(self, number: int) -> None:
        """This process has row `number` from now on."""
        self._number = number
        self.note("starting")

    def note(self, words: str) -> None:
        """This process begins to do something else."""
        row = (os.getpid(), time.monotonic_ns(), words.encode()[: ROW.size - 16])
        ROW.pack_into(self._rows, self._number * ROW.size, *row)

    def lines(self) -> list[str]:
        """What each process is at and since when."""
        return [self._line(number) for number in range(self._processes)]

    def dead(self) -> str | None:
        """Which of this process's children among them has ended and why, if one has."""
        for number in range(self._processes):
            process, _, words = self._row(number)
            if process not in (0, os.getpid()) and (end := _end_of(process)):
                return f"loader worker {number} (process {process}), last {words}, {end}"
        return None

    def kill(self) -> None:
        """End the children among them at once: they hold nothing that could be lost."""
        for number in range(self._processes):
            process, _, _ = self._row(number)
            if process not in (0, os.getpid()) and not _end_of(process):
                os.kill(process, signal.SIGKILL)

    def _row(self, number: int) -> tuple[int, int, str]:
        process, since, words = ROW.unpack_from(self._rows, number * ROW.size)
        return process, since, words.rstrip(b"\0").decode(errors="ignore")

    def _line(self, number: int) -> str:
        process, since, words = self._row(number)
        if not process:
            return f"worker {number} has not started"
        who = "the rank itself" if process == os.getpid() else f"worker {number} (process {process})"
        seconds = (time.monotonic_ns() - since) / 1e9
        return f"{who} has been {words} for {seconds:.0f} s{STATES.get(_state(process), '')}"


def _end_of(process: int) -> str | None:
    """How a child has ended; it stays for its parent to be waited for."""
    try:
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "has ended"
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return f"ended with code {ended.si_status}"
    number = signal.Signals(ended.si_status)
    cause = f" ({LIKELY_CAUSES[number]})" if number in LIKELY_CAUSES else ""
    return f"was killed by {number.name}{cause}"


def _state(process: int) -> str:
    """The kernel's letter for what a process does."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
