"""The folder of a submission: all that a job is started from, and what is needed to start it again by hand.

<logging.folder>/submissions/0001/
    code/          the code as it was, with COMMIT
    config.yaml    the config with every default
    command.txt    what was typed, and where
    submit.sh      submits the same again
    job            the cluster's number of it
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from src.cluster.check import Checked
from src.cluster.request import Request
from src.cluster.snapshot import share_snapshot, take_snapshot
from src.config.load import dump_config

SUBMISSIONS = "submissions"
RESUBMIT = """#!/bin/sh
# Submits this run again: the same code, config and resources. More flags may follow: sh {path} --time 600 --wait
cd {directory} || exit 1
exec {command} "$@"
"""


@dataclass(frozen=True)
class Submission:
    """One job's."""

    folder: Path
    checked: Checked
    made: tuple[Path, ...] = ()
    """Folders that were not there before it."""

    @property
    def code(self) -> Path:
        return self.folder / "code"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def again(self) -> Path:
        return self.folder / "submit.sh"


def write_submissions(checked: list[Checked], request: Request, logs: Path, directory: Path) -> list[Submission]:
    """The folders of jobs that are submitted together, which share one snapshot of the code."""
    written: list[Submission] = []
    try:
        for one in checked:
            above = one.folder.absolute() / SUBMISSIONS
            made = tuple(path for path in (above, *above.parents) if not path.exists())
            submission = Submission(_new_folder(above), one, made)
            written.append(submission)
            if len(written) == 1:
                take_snapshot(submission.code)
            else:
                share_snapshot(written[0].code, submission.code)
            submission.config.write_text(dump_config(one.config), encoding="utf-8")
            typed = shlex.join([sys.executable, *sys.argv])
            (submission.folder / "command.txt").write_text(f"cd {shlex.quote(str(directory))} && {typed}\n")
            submission.again.write_text(_again(submission, request, logs, directory))
            submission.again.chmod(0o755)
    except BaseException:
        withdraw(written)
        raise
    return written


def withdraw(submissions: list[Submission]) -> None:
    """Leave no trace of jobs that were never queued."""
    for submission in submissions:
        shutil.rmtree(submission.folder)
    for submission in reversed(submissions):
        for folder in submission.made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _new_folder(submissions: Path) -> Path:
    submissions.mkdir(parents=True, exist_ok=True)
    while True:
        number = 1 + max((int(path.name) for path in submissions.iterdir() if path.name.isdigit()), default=0)
        try:
            (folder := submissions / f"{number:04d}").mkdir()
        except FileExistsError:  # somebody was quicker
            continue
        return folder


def _again(submission: Submission, request: Request, logs: Path, directory: Path) -> str:
    words = [sys.executable, str(submission.code / "main_distributed.py"), "--fname", str(submission.config)]
    words += ["--folder", str(logs), *request.words()]
    path = shlex.quote(str(submission.again))
    return RESUBMIT.format(path=path, directory=shlex.quote(str(directory)), command=shlex.join(words))
