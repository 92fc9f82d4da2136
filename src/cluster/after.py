"""After the tasks of a job: has anyone said what became of the attempt? If not, the job goes back into the queue.

Tasks put their job back themselves. They can't when srun is told to end (it kills them at once), when SLURM kills a
step that has no memory left, or when srun ends before it has started them, now and then even with code 0.

python -m src.cluster.after SUBMISSION RETRIES CODE    called by a job's script with the code that srun ended with
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from src.cluster.ends import BEGUN, ENDS, FAILED, FINISHED, LOST, failures_of, known_ends, told_verdict
from src.cluster.requeue import Ended, give_back, newest_step, refusal
from src.distributed.slurm import adopt_slurm
from src.distributed.variables import JOB, RESTART

UNSTARTED = (126, 127)
"""Exit codes of a shell that finds no program: another start would find none either."""
UNTOLD = "its tasks were ended before they could tell why"


def why_back(failures: Path, code: int) -> tuple[str, str] | None:
    """Why an attempt whose srun has ended with a code is to be followed by another one; None if it is not."""
    told = told_verdict(failures)
    if told is None and code in UNSTARTED:
        return None
    outcome, why = told or (LOST, UNTOLD)
    if outcome == FINISHED and code and not known_ends(failures / ENDS):
        return LOST, UNTOLD
    return None if outcome in (FINISHED, FAILED) else (outcome, why)


def main(submission: Path, retries: int, code: int) -> int:
    """The exit status: not 0 where the job has not done what it should, whatever srun's code."""
    told = dict(os.environ)
    adopt_slurm(told, launches=True)
    job, restart = told[JOB], int(told[RESTART])
    failures = failures_of(submission, job, restart)
    back = why_back(failures, code)
    if back is None:
        return 0
    with suppress(OSError):  # who asks for the job to be put back, asks again
        if refusal(job, restart):
            return 1
    reached = newest_step(submission.parents[1] / "checkpoints")
    begun = failures / BEGUN
    try:
        ended = Ended(job, restart, *back, int(begun.read_text()) if begun.exists() else reached, reached, time.time())
        give_back(submission, ended, retries)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
