"""Trials of what an encoder learns, by fixed protocols: train, probe, compare, print a markdown table.

python -m tools.trial mitdb --output DIR       heartbeats of MIT-BIH: five seeds, DS1 -> DS2
python -m tools.trial ptbxl500 --output DIR    500 records of PTB-XL: five folds, NORM or not
python -m tools.trial mitdb --objectives jepa simclr byol --output DIR    several in one table; ptbxl500 likewise
python -m tools.trial collapse --output DIR    BYOL with its predictor and without, on the 500 records
python -m tools.trial ptbxl500-simulated --output DIR    the same, pre-trained on a simulated cohort
python -m tools.trial pneumonia --output DIR   X-rays of PneumoniaMNIST: five seeds
python -m tools.trial organs --output DIR      patches of a CT around 13 organs: five seeds
python -m tools.trial ultrasound --output DIR  lung ultrasound clips: five seeds, and their health
python -m tools.trial meclip --output DIR      reports of PTB-XL: five folds, three ways with duplicates
python -m tools.trial alarm --output DIR       three ways to collapse, four healthy recipes, five seeds of each

Each trains with main.py as a user would; a trial that was stopped goes on with the same command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.trial_alarm import alarm
from tools.trial_collapse import collapse
from tools.trial_encoders import mitdb, ptbxl500, ptbxl500_simulated
from tools.trial_objectives import compare_mitdb, compare_ptbxl500
from tools.trial_pictures import organs, pneumonia, ultrasound
from tools.trial_text import meclip

DATA = "MEDSSL_DATA"
COMPARES = {mitdb: compare_mitdb, ptbxl500: compare_ptbxl500}
"""What runs where other objectives than JEPA are asked for."""
OBJECTIVES = ("jepa", "simclr", "byol")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a trial; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.trial", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="TRIAL")
    for run in (mitdb, ptbxl500, ptbxl500_simulated, pneumonia, organs, ultrasound, meclip, alarm, collapse):
        verb = verbs.add_parser(run.__name__.replace("_", "-"), help=(run.__doc__ or "").split("\n")[0])
        verb.add_argument("--output", type=Path, required=True, help="folder of shards, runs and table.md")
        verb.add_argument("--devices", nargs="+", default=[], help="as of main.py")
        verb.set_defaults(run=run, data=None, set_probe=[], objectives=["jepa"])
        if run is not alarm:
            usual = Path(os.environ.get(DATA, "../shared/data"))
            verb.add_argument("--data", type=Path, default=usual, help=f"public records; default: {DATA}")
            verb.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the training")
        if run not in (alarm, collapse):
            verb.add_argument("--set-probe", nargs="+", default=[], metavar="KEY=VALUE", help="and of the probe")
        if run in COMPARES:
            verb.add_argument("--objectives", nargs="+", choices=OBJECTIVES, help="default: jepa alone")
    words = parser.parse_args(arguments)
    try:
        if words.data is not None and not words.data.is_dir():
            raise ValueError(f"{words.data} is no folder: name that of the public records with --data or {DATA}")
        words.objectives = list(dict.fromkeys(words.objectives))
        run = words.run if words.objectives == ["jepa"] else COMPARES[words.run]
        table = run(words)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
