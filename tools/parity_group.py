"""Several runs one after the other in one group of processes, since starting a group takes as long as a short run.

python -m tools.parity_group '{"fname": CONFIG, "devices": ["cpu", "cpu"], "runs": [[KEY=VALUE, ...], ...]}'
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from src.config.load import load_config
from src.distributed.processes import die_with_parent
from src.distributed.variables import LAUNCHER
from src.run.failure import record_failure
from src.run.launch import check_devices, in_rank, launch
from src.run.logs import LOGGER
from ssls.objectives import schema_of


def train_here(task: dict[str, Any]) -> None:
    """One rank of the group; ends the process. The first run that fails ends it too, and the launcher tells why."""
    die_with_parent(int(os.environ[LAUNCHER]))
    try:
        _train(task)
    except BaseException as error:
        record_failure(int(os.environ["RANK"]), error)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # a gloo process sometimes aborts after all Python code has finished


def _train(task: dict[str, Any]) -> None:
    from src.distributed.ranks import join  # torch, which the launcher does without
    from src.run.rank import make_run

    ranks = join(load_config(Path(task["fname"]), task["runs"][0], schema_of).engine.timeout)
    for words in task["runs"]:
        config = load_config(Path(task["fname"]), words, schema_of)
        check_devices(config, task["devices"])
        run = make_run(config, ranks, check=False)
        importlib.import_module(f"ssls.{config.objective}.train").main(config, run)
        run.close(0)
        LOGGER.handlers.clear()


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    if in_rank():
        train_here(task)
    sys.argv = ["-m", "tools.parity_group", sys.argv[1]]  # what the launcher starts again for each rank
    sys.exit(launch(task["devices"]))
