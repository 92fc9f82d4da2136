"""From the command to the job: the script, the folder of a submission, and what a task survives."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from src.cluster.request import Request
from src.cluster.submit import BLOCK, SHIELD, TASK, _environment, _own_words, _python, _teardown
from src.config.load import load_config
from src.distributed.processes import STOPS
from ssls.objectives import schema_of
from tests.cluster.calls import DEBUG, SHORT, call, files, path_without_slurm
from tests.commands import ROOT, metrics, wait_until

WORDS = "Batch job submission failed: Invalid feature specification"
REFUSES = f"echo 'sbatch: error: {WORDS}' >&2; exit 1"


def dry(folder, *words):
    done = call(folder, "--fname", DEBUG, "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dry_run_prints_the_script_needs_no_slurm_and_writes_nothing(tmp_path):
    before = files(tmp_path) | {"bin"}
    told = dry(
        tmp_path, "--partition", "low", "--nodes", "2", "--tasks-per-node", "4", "--time", "1-0:30", "--memory", "1.5",
        "--account", "us", "--gpus-per-node", "4", "--set", "data.workers=3", "--slurm", "mail-type=END", "exclusive",
        "--setup", "module load cuda", "--reservation", "r",
    )  # fmt: skip
    assert files(tmp_path) <= before
    options = {shlex.split(line)[1] for line in told.splitlines() if line.startswith("#SBATCH")}
    assert options >= {
        "--partition=low", "--nodes=2", "--ntasks-per-node=4", "--time=1470", "--mem=1536M", "--account=us",
        "--gpus-per-node=4", "--cpus-per-task=4", "--mail-type=END", "--exclusive", "--reservation=r", "--requeue",
        "--signal=USR2@120", "--open-mode=append", "--job-name=jepa_ecg_debug",
    }  # fmt: skip
    assert not any(option.startswith(("--array", "--wckey")) for option in options)
    lines = told.splitlines()
    assert lines.index("module load cuda") < next(n for n, line in enumerate(lines) if "src.cluster.master" in line)
    step = next(shlex.split(line) for line in lines if line.startswith("srun "))
    assert {"--kill-on-bad-exit=1", "--cpus-per-task=4", "--export=ALL"} <= set(step)
    subprocess.run(["bash", "-n"], input=told, text=True, check=True)
    assert (
        lines.index("module load cuda")
        < lines.index("set +e")
        < next(n for n, line in enumerate(lines) if line.startswith("srun "))
    ), "a setup's own set -e must not end the script where srun has failed"


@pytest.mark.parametrize(("code", "ended"), [(0, 1), (5, 5)])
def test_a_job_of_which_nobody_can_say_what_became_is_no_success(code, ended):
    """No job's number is told, so that the last lines of the script fail."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    lines = [f"(exit {code})", *_teardown(3)]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=ROOT, env=outside | {"code": "/nowhere/code"}, capture_output=True
    )
    assert done.returncode == ended and done.stderr


def test_seeds_and_sweeps_are_one_array(tmp_path):
    told = dry(tmp_path, "--seeds", "0", "1", "2", "--sweep", "optimization.lr=1e-4,1e-3", "--array-parallelism", "4")
    assert "#SBATCH --array=0-5%4" in told and "%A_%a_%t_log.out" in told


def test_a_refusal_is_told_in_sbatchs_words_and_leaves_nothing(tmp_path):
    before = files(tmp_path)
    words = ["--fname", DEBUG, "--constraint", "nothere"]
    for more in ([], ["--seeds", "0", "1"]):
        done = call(tmp_path, *words, *more, sbatch=REFUSES, srun="")
        assert done.returncode == 1
        assert done.stderr == f"error: sbatch refuses the job: {WORDS}\n"
        assert files(tmp_path) - {"bin"} == before


def test_jobs_of_an_array_have_a_folder_each_and_resubmit_one_by_one(tmp_path):
    done = call(
        tmp_path, "--fname", DEBUG, "--seeds", "0", "1", "--folder", "my logs", "--nodes", "2", "--time", "90",
        sbatch="echo Submitted batch job 77", srun="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for number in (0, 1):
        folder = tmp_path / "runs" / "jepa_ecg_debug" / f"seed-{number}"
        submission = folder / "submissions" / "0001"
        assert (submission / "job").read_text() == f"slurm 77_{number}\n"
        config = load_config(submission / "config.yaml", [], schema_of)
        assert config.seed == number and config.logging.folder == f"runs/jepa_ecg_debug/seed-{number}"
        assert f"77_{number}  runs/jepa_ecg_debug/seed-{number}" in done.stdout
        again = (submission / "submit.sh").read_text()
        words = shlex.split(again.splitlines()[-1])
        assert words[words.index("--fname") + 1] == str(submission / "config.yaml")
        assert f"cd {tmp_path} || exit 1" in again and {"--nodes", "--time", "90", "my logs"} <= set(words)
    assert "scancel 77" in done.stdout and str(tmp_path / "my logs" / "77_0_0_log.out") in done.stdout
    assert (submission / "code" / "main.py").samefile(
        tmp_path / "runs" / "jepa_ecg_debug" / "seed-0" / "submissions" / "0001" / "code" / "main.py"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_task_survives_a_signal_before_python_stands(tmp_path, number):
    command = _python([SHIELD, f"touch {shlex.quote(str(tmp_path / 'begun'))}; sleep 0.5"], TASK)
    process = subprocess.Popen(f"exec {command} -c 'print(1 + 1)'", shell=True, stdout=subprocess.PIPE, text=True)
    wait_until((tmp_path / "begun").exists, 20, "the shell")
    for _ in range(10):
        process.send_signal(number)
        time.sleep(0.02)
    assert process.communicate(timeout=60)[0] == "2\n" and process.returncode == 0


SLOW_START = """
import signal, sys, time
from pathlib import Path
Path(sys.argv[1]).touch()
time.sleep(1)
from src.cluster.task import _Signals
print(sorted(_Signals().received), flush=True)
"""


@pytest.mark.parametrize("able", [True, False])
def test_a_task_hears_of_signals_that_came_while_it_started_where_env_can_keep_them(tmp_path, able):
    if able and subprocess.run([*BLOCK.split(), "true"], capture_output=True).returncode:
        pytest.skip("this env cannot block signals")
    path = os.environ["PATH"]
    if not able:
        script = f'case $1 in --block*) exit 125;; esac; exec {shutil.which("env")} "$@"'
        path = f"{path_without_slurm(tmp_path, env=script)}:{path}"
    command = f"exec {_python([], TASK)} -c {shlex.quote(SLOW_START)} {shlex.quote(str(tmp_path / 'begun'))}"
    process = subprocess.Popen(
        command, shell=True, cwd=ROOT, env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    wait_until((tmp_path / "begun").exists, 60, "Python")
    for number in STOPS:
        process.send_signal(number)
    told = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0 and told == f"{sorted(map(int, STOPS)) if able else []}\n"


def test_what_another_job_left_in_the_environment_is_not_inherited(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_CONF", "RANK", "MASTER_PORT", "SUBMITIT_EXECUTOR", "MINE"):
        monkeypatch.setenv(name, "1")
    with _environment(Request(), tmp_path):
        assert {"SLURM_CONF", "MINE"} <= os.environ.keys()
        assert not {"SLURM_JOB_ID", "SLURM_NTASKS", "RANK", "MASTER_PORT", "SUBMITIT_EXECUTOR"} & os.environ.keys()
    assert os.environ["RANK"] == os.environ["SLURM_NTASKS"] == "1"


def test_sbatchs_own_words_are_found_in_what_submitit_makes_of_them():
    said = "stderr:\nsbatch: unrecognized option '--foo=bar'\nTry \"sbatch --help\" for more information"
    assert _own_words(RuntimeError(said)) == "unrecognized option '--foo=bar'"


@pytest.mark.distributed
def test_jobs_run_on_this_machine_and_again_by_hand_from_anywhere(tmp_path):
    """Relative paths of a config stay relative to where the command was called."""
    done = call(
        tmp_path, "--fname", DEBUG, "--cluster", "local", "--tasks-per-node", "2", "--wait", "--set", *SHORT,
        "data.root=shards/here", "logging.folder=runs/two", "--partition", "p",
    )  # fmt: skip
    logs = "".join(path.read_text() for path in tmp_path.glob("logs/*.err"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "warning: --partition is for SLURM" in done.stderr
    assert "COMPLETED" in done.stdout.splitlines()[-1]
    run = tmp_path / "runs" / "two"
    assert (tmp_path / "shards" / "here" / "index.json").is_file()
    attempt = json.loads((run / "attempts" / "0001.json").read_text())
    assert attempt["world_size"] == 2
    submission = run / "submissions" / "0001"
    assert attempt["environment"]["code_version"] + "\n" == (submission / "code" / "COMMIT").read_text()
    assert str(submission / "code" / "main.py") in attempt["environment"]["command"]
    assert [record["step"] for record in metrics(run)] == [0, 1, 2]

    more = ["--set", "logging.folder=runs/one", "--tasks-per-node", "1", "--cluster", "debug"]
    subprocess.run(["sh", submission / "submit.sh", *more], cwd="/", check=True, capture_output=True, timeout=200)
    assert [record["step"] for record in metrics(tmp_path / "runs" / "one")] == [0, 1, 2]
    assert [record["loss"] for record in metrics(tmp_path / "runs" / "one")] == pytest.approx(
        [record["loss"] for record in metrics(run)], rel=1e-4
    )
    commit = tmp_path / "runs" / "one" / "submissions" / "0001" / "code" / "COMMIT"
    assert commit.read_text() == (submission / "code" / "COMMIT").read_text()


@pytest.mark.distributed
def test_a_run_that_fails_is_told_with_its_sentence(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text("{}")
    places = ["data.root=shards", "logging.folder=run"]
    done = call(tmp_path, "--fname", DEBUG, "--cluster", "local", "--wait", "--set", *SHORT, *places)
    assert done.returncode == 1
    assert "FAILED, run folder run" in done.stdout and "shards/index.json has format version None" in done.stdout
