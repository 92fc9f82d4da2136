"""The life of one rank: join, train, and end in a way that cannot go wrong after the work is done."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from src.config.experiment import ExperimentConfig, RunConfig
from src.distributed.ranks import Ranks, join, leave
from src.distributed.rendezvous import PATIENCE_SECONDS
from src.distributed.variables import FAILURES
from src.run.failure import record_failure
from src.run.launch import check_devices
from src.run.run import Run
from src.run.stop import Stopped
from src.run.training import TrainingRun
from src.run.watchdog import Watchdog

LEAVE_SECONDS = 30.0
"""So long may a rank take to leave the others, or to end after an error: who hangs there holds its GPU."""

MEET_SECONDS = PATIENCE_SECONDS + 60.0
"""So long the watchdog leaves it to the rendezvous to say who is missing: ten seconds beyond its patience, and more."""


def run_rank(config: RunConfig, train: Callable[[Any, Any], None], check: bool) -> None:
    """Run an objective's `main` on this rank; the process ends with 0, 1 after an error, or 128 + the stopping signal.

    Ends by os._exit: a gloo process sometimes aborts after all Python code has finished (11 of 60 with torch 2.13).
    """
    code = 0
    run: Run | None = None
    try:
        if isinstance(config, ExperimentConfig):
            watchdog = Watchdog(config.engine.timeout, int(os.environ["RANK"]))
            watchdog.beat("before all ranks have met", at_least=MEET_SECONDS)
            ranks = join(config.engine.timeout, partial(watchdog.beat, "before the first step"))
        else:
            watchdog, ranks = None, join(config.engine.timeout)
        check_devices(config, [str(ranks.device)] * ranks.world_size)
        run = make_run(config, ranks, check, watchdog)
        train(config, run)
        faulthandler.dump_traceback_later(LEAVE_SECONDS, exit=True)
        leave()
        faulthandler.cancel_dump_traceback_later()
    except Stopped as stopped:
        code = 128 + stopped.number
        run.watchdog.rest()  # type: ignore[union-attr]
        run.say(str(stopped))  # type: ignore[union-attr]
    except BaseException as error:
        code = 1
        faulthandler.dump_traceback_later(LEAVE_SECONDS, exit=True)
        failure = record_failure(int(os.environ["RANK"]), run.cause(error) if run is not None else error)
        if FAILURES not in os.environ:  # no launcher of ours that would tell it
            print(f"error: {failure.message}" if failure.by_user else failure.trace, file=sys.stderr)
    if run is not None:
        run.close(code)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def make_run(config: RunConfig, ranks: Ranks, check: bool, watchdog: Watchdog | None = None) -> Run:
    """The run of a config: one with the machinery of training, if it trains."""
    if isinstance(config, ExperimentConfig):
        return TrainingRun(config, ranks, check, watchdog)
    return Run(config, ranks, check)
