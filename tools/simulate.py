"""Make an archive of simulated records, with labels, reports and an oracle's scores.

python -m tools.simulate ecg --output DIR [--patients N] [--seed S] [--sampling-rate HZ] [--seconds SECONDS]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from src.simulation.ecg import Cohort, build_command, write_cohort


def simulate_ecg(arguments: argparse.Namespace) -> str:
    """Write a cohort of ECGs; returns what to tell of it."""
    cohort = Cohort(arguments.patients, arguments.seed, arguments.sampling_rate, arguments.seconds)
    count = write_cohort(arguments.output, cohort)
    return (
        f"{arguments.output}: {count:,} records of {cohort.patients:,} patients; shards of them:\n"
        f"{build_command(arguments.output, cohort)}"
    )


class _Parser(argparse.ArgumentParser):
    """Tells a wrong flag in one sentence, as everything else that a user can get wrong."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({self.prog} --help tells the flags)")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; each verb has its own --help."""
    parser = _Parser(prog="python -m tools.simulate", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    ecg = verbs.add_parser("ecg", help="12-lead ECGs of a cohort (docs/simulation.md)")
    usual = Cohort()
    ecg.add_argument("--output", type=Path, required=True, help="a new folder")
    ecg.add_argument("--patients", type=int, default=usual.patients, help="default: %(default)s")
    ecg.add_argument("--seed", type=int, default=usual.seed, help="default: %(default)s")
    ecg.add_argument("--sampling-rate", type=float, default=usual.sampling_rate, help="Hz; default: %(default)s")
    ecg.add_argument("--seconds", type=float, default=usual.seconds, help="of each record; default: %(default)s")
    ecg.set_defaults(run=simulate_ecg)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; what a user can cause ends as one sentence on stderr and exit code 1."""
    try:
        parsed = parse(arguments)
        print(parsed.run(parsed))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
