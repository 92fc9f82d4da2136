"""Every command of the README does what it says, in a copy of the repository and in the README's order."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from tests.commands import metrics, wait_until
from tests.health import variance_between_samples
from tools import benchmark, build_shards, inspect_shards, trial

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHORT = (
    " --set optimization.epochs=null optimization.steps={} optimization.warmup_epochs=null"
    " optimization.warmup_steps=null checkpoint.every=2"
)
SMALL_DEMO = (
    " -o install BIN={} DEVICES='cpu cpu' COHORT='--patients 60' TRAINING='optimization.steps=4"
    " optimization.warmup_steps=null'"
)
"""The environment is there already, and the rest is smaller."""
LONG_CONFIGS = ("ecg_mitdb_small", "ecg_ptbxl_small")
PAGES = sorted((ROOT / "docs").glob("*.md"))
KILL = re.compile(r"timeout -s KILL \d+ ")


def blocks(language, text=README):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands(text=README):
    """Whole commands: continued lines joined, a here-document with its text."""
    found = []
    for block in blocks("bash", text):
        lines = iter(block.splitlines())
        for line in lines:
            command = line
            while command.endswith("\\"):
                command += "\n" + next(lines)
            if (mark := re.search(r"<<'(\w+)'", command)) is not None:
                for rest in lines:
                    command += "\n" + rest
                    if rest == mark[1]:
                        break
            if command:
                found.append(command)
    return found


def copy_of_the_repository(folder):
    """The files of the repository alone, as a clone would have them."""
    for name in ("src", "ssls", "tools", "configs", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "main_distributed.py", "Makefile"):
        shutil.copy(ROOT / name, folder)
    return folder


class Shell:
    """Commands one after the other, as in one terminal: variables that they set stay set."""

    def __init__(self, folder, data):
        self.folder, self.variables = folder, []
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        self.environment = outside | {
            "MEDSSL_DATA": str(data),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self, command):
        script = "\n".join([*self.variables, f"exec {command}" if command.startswith("python") else command])
        return subprocess.Popen(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command, timeout=200):
        if re.match(r"[A-Z]+=", command):
            self.variables.append(command)
            return ""
        process = self.start(command)
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, command + out + err
        return out

    def kill_after_a_checkpoint(self, command, run_folder):
        """What `timeout -s KILL` does, at a moment that does not depend on how fast this machine is."""
        process = self.start(KILL.sub("", command))
        saved = run_folder / "checkpoints"
        wait_until(lambda: list(saved.glob("step-*.attempt-?")) or process.poll() is not None, 100, "a checkpoint")
        time.sleep(0.3)
        process.kill()
        out, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, out + err


def run_folder(shell, command):
    words = shlex.split(command)
    config = shell.folder / words[words.index("--fname") + 1]
    return shell.folder / yaml.safe_load(config.read_text())["logging"]["folder"]


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.timeout(600)
def test_the_commands_run_in_their_order(tmp_path, medssl_data):
    shell = Shell(copy_of_the_repository(tmp_path / "medssl"), medssl_data)
    ran = []
    for command in commands():
        if command.startswith(("make test", "export")):  # `make test` is what runs this
            continue
        if command == "make demo":
            out = shell.run(command + SMALL_DEMO.format(Path(sys.executable).parent))
            assert (shell.folder / out.splitlines()[-1].split(" ")[-1]).is_file()
            assert "<html" in (shell.folder / "demo" / "report.html").read_text()
            continue
        trains = "main.py" in command and "configs/probe" not in command and "--check" not in command
        if trains and any(name in command for name in LONG_CONFIGS):
            command += SHORT.format(12 if "ptbxl" in command else 8)
        if KILL.match(command):
            shell.kill_after_a_checkpoint(command, run_folder(shell, command))
        else:
            out = shell.run(command)
            if ran and KILL.match(ran[-1]):
                assert "continuing from" in out
                steps = [record["step"] for record in metrics(run_folder(shell, command))]
                assert steps == sorted(set(steps)) and steps[-1] == 11
        ran.append(command)
    assert sum("main.py" in command for command in ran) == 10
    assert sum("build_shards" in command for command in ran) == 6
    assert sum("main_distributed.py" in command for command in ran) == 2
    for code in blocks("python"):
        subprocess.run([sys.executable, "-c", code], cwd=shell.folder, check=True, capture_output=True, timeout=60)
    rejected = (shell.folder / "shards" / "ours.private" / "rejected.csv").read_text()
    assert rejected == "record,reason\n"


@pytest.mark.data
@pytest.mark.parametrize("page", ["ct.md", "image.md"])
def test_the_commands_of_a_page_on_archives_run(tmp_path, medssl_data, page):
    shell = Shell(copy_of_the_repository(tmp_path / "medssl"), medssl_data)
    ran = commands((ROOT / "docs" / page).read_text())
    told = [shell.run(command) for command in ran]
    assert len(ran) >= 2 and any("patients" in out for out in told)


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_the_commands_of_the_page_on_weights_run(tmp_path):
    shell = Shell(copy_of_the_repository(tmp_path / "medssl"), tmp_path)
    page = (ROOT / "docs" / "weights.md").read_text()
    told = [shell.run(command) for command in commands(page)]
    assert "starting from the weights of weights/mine" in told[-1]
    for code in blocks("python", page):
        subprocess.run([sys.executable, "-c", code], cwd=shell.folder, check=True, capture_output=True, timeout=120)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(3600)
def test_ptbxl_is_built_trained_killed_and_resumed_by_the_commands_as_they_stand(tmp_path, medssl_data):
    """The share of variance between samples was 0.83 to 0.93 for five seeds and folds."""
    shell = Shell(copy_of_the_repository(tmp_path / "medssl"), medssl_data)
    section = README[README.index("## PTB-XL") : README.index("## Heartbeats")]
    build, killed, resumed, *_ = commands(section)
    assert KILL.match(killed) and KILL.sub("", killed) == resumed
    shell.run(build)
    process = shell.start(killed)
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), "the run ended before it was killed"
    assert "continuing from" in shell.run(resumed, timeout=1800)
    folder = run_folder(shell, resumed)
    losses = [record["loss"] for record in metrics(folder)]
    assert losses[-1] < 0.6 * losses[0]
    with ECGShards(shell.folder / "shards" / "ptbxl500", "val", STANDARD_LEADS) as shards:
        assert variance_between_samples(folder / "encoder", shards) > 0.5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_of_docs_is_reached_from_the_readme(page):
    assert f"docs/{page.name}" in README


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_into_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("page", "verbs"),
    [
        ("shards.md", ("ecg", "image", "video", "ct", "index")),
        ("ecg.md", ("ecg",)),
        ("image.md", ("image", "index")),
        ("video.md", ("video",)),
        ("ct.md", ("ct",)),
    ],
)
def test_every_flag_that_a_page_on_shards_tells_of_exists(page, verbs, capsys):
    told = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs" / page).read_text()))
    asked = [
        *((build_shards, (verb,)) for verb in verbs),
        (inspect_shards, ()),
        (benchmark, ("build",)),
        (trial, ("mitdb",)),
    ]
    for tool, verb in asked:
        with suppress(SystemExit):
            tool.main([*verb, "--help"])
    assert told <= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) and len(told) > 15


def test_the_folders_of_the_map_exist():
    tree = blocks("")[-1]
    for name in re.findall(r"^  (\w+)/ ", tree, re.MULTILINE):
        assert (ROOT / "src" / name).is_dir(), name
    assert {path.name for path in (ROOT / "src").iterdir() if path.is_dir() and path.name != "__pycache__"} == set(
        re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)
    )


def test_every_config_in_the_readme_exists():
    made = {name for command in commands() for name in re.findall(r"cat > (\S+)", command)}
    for name in re.findall(r"configs/[\w/]+\.(?:yaml|json)", README):
        assert name in made or (ROOT / name).exists(), name
