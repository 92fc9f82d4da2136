"""Run experiments on a SLURM cluster: python main_distributed.py --fname configs/x.yaml --folder logs --partition gpu

Everything that can be known to be wrong is told before a job is queued; docs/slurm.md goes from nothing to a run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from src.cluster.check import Check, Checked, refuse_logs
from src.cluster.flags import parse, request_of
from src.cluster.follow import follow, run_here
from src.cluster.queue import faults_of_cluster
from src.cluster.request import Request
from src.cluster.submit import script, submit
from src.cluster.tell import how_to_go_on, notes
from src.cluster.wanted import Wanted, wanted_configs
from ssls.objectives import schema_of


def main() -> int:
    """Check, submit, tell, and wait if asked to; returns the exit status."""
    words = parse()
    request = request_of(words)
    try:
        wanted = wanted_configs(words.fname, words.batch_launch, words.set, words.sweep, words.seeds)
        checked = check(wanted, request, words.folder, words.dry_run)
        if checked is None:
            return 1
        for note in notes(request):
            print(f"warning: {note}", file=sys.stderr)
        if words.dry_run:
            print(script(checked, request, words.folder), end="")
            return 0
        jobs = submit(checked, request, words.folder, Path.cwd())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(how_to_go_on(jobs, request), flush=True)
    if request.cluster == "debug":
        return run_here(jobs)
    return follow(jobs, request.cluster) if words.wait else 0


def check(wanted: list[Wanted], request: Request, logs: Path, dry_run: bool) -> list[Checked] | None:
    """The configs, if nothing is wrong with any of them; else all that is has been told."""
    looking = Check(request.processes, schema_of)
    looking.ask("", request.check)
    looking.ask("", lambda: refuse_logs(logs))
    checked = looking.configs(wanted)
    faults = looking.faults
    if request.cluster == "slurm":
        faults += faults_of_cluster(checked, request, dry_run)
    if len(faults) > 1:
        print(f"error: {len(faults)} things are wrong, nothing was submitted:", file=sys.stderr)
    for fault in faults:
        print(f"  {fault}" if len(faults) > 1 else f"error: {fault}", file=sys.stderr)
    return None if faults else checked


if __name__ == "__main__":
    sys.exit(main())
