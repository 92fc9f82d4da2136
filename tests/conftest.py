"""What tests of several rooms share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.distributed.processes import STOPS, unblock_stops

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that wait for a busy core took 6 times the time

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Failures are told when they happen as well: a run that is cut off has no summary."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        config.pluginmanager.register(TellsAtOnce(reporter))


class TellsAtOnce:
    """A line for each failure, with what was wrong, beside the dots."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for each part of each test."""
        if report.failed:
            wrong = [
                line.removeprefix("E").strip() for line in report.longreprtext.splitlines() if line.startswith("E ")
            ]
            self._reporter.ensure_newline()
            self._reporter.write_line(f"FAILED {report.nodeid} ({report.when}): {' '.join(wrong)[:1000]}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes first: they are long, and the last ones to end should be short."""
    long = {item.path for item in items if item.get_closest_marker("distributed") or item.get_closest_marker("slurm")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Training in a test's own process leaves signals blocked, which whatever a later test starts would inherit."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    unblock_stops()


@pytest.fixture(scope="session")
def medssl_data() -> Path:
    """The folder of public records; tests that ask for it are skipped where it is absent."""
    folder = (ROOT / os.environ.get("MEDSSL_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no public records at {folder}: name their folder in MEDSSL_DATA")
    return folder
