"""Run one experiment on this machine: python main.py --fname configs/x.yaml --devices cuda:0 cuda:1

Under srun with several tasks, or torchrun, each process is a rank.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from src.config.experiment import ExperimentConfig
from src.config.load import load_config
from src.distributed.processes import block_stops, die_with_parent, end_on_stops
from src.distributed.slurm import adopt_slurm
from src.distributed.variables import LAUNCHER, QUIET
from src.run.launch import check_devices, in_rank, launch, parse_devices
from ssls.objectives import schema_of

ROOT = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train one experiment on this machine.")
    parser.add_argument("--fname", required=True, help="YAML file of the experiment")
    parser.add_argument(
        "--devices", nargs="+", default=[], help="one process each: cuda:0 cuda:1, cpu, cpu cpu; default: every GPU"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override keys")
    parser.add_argument(
        "--check", action="store_true", help="try two steps, say what would run, leave the run folder alone"
    )
    return parser.parse_args()


def main() -> int:
    """Check everything that can be checked without training, then start the ranks; a rank trains."""
    if LAUNCHER in os.environ:
        die_with_parent(int(os.environ[LAUNCHER]))
    words = arguments()
    try:
        config = load_config(Path(words.fname), words.set, schema_of)
        adopt_slurm(os.environ, launches=bool(words.devices))
        if in_rank():
            if words.devices and LAUNCHER not in os.environ:
                raise ValueError(
                    "--devices starts processes, but RANK and WORLD_SIZE are set, which make this process one of a "
                    "running job; unset them, or leave --devices out"
                )
            if isinstance(config, ExperimentConfig) and not words.check:
                block_stops()  # before torch starts threads; StopRequest asks for them
            else:
                end_on_stops()
            os.environ.update(QUIET | os.environ)
            from src.run.rank import run_rank  # torch, which the launcher does without

            run_rank(config, importlib.import_module(f"ssls.{config.objective}.train").main, words.check)
        devices = parse_devices(words.devices)
        check_devices(config, devices)
        return launch(devices)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
