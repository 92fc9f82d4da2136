"""Every command of the README does what it says, in a copy of the repository and in the README's order."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHORT = " --set optimization.epochs=null optimization.steps=8 optimization.warmup_epochs=null"


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands():
    return [line for block in blocks("bash") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The files of the repository alone, as a clone would have them."""
    copy = tmp_path_factory.mktemp("readme") / "medssl"
    for name in ("src", "ssls", "tools", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", copy)
    return copy


@pytest.mark.distributed
@pytest.mark.data
def test_the_commands_run_in_their_order(checkout, medssl_data):
    environment = os.environ | {
        "MEDSSL_DATA": str(medssl_data),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ran = []
    for command in commands():
        if command.startswith(("make", "export")):  # `make test` is what runs this
            continue
        long = "ecg_mitdb_small" in command and "--check" not in command
        done = subprocess.run(
            ["bash", "-c", command + SHORT * long],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
        ran.append(command.split()[1])
    assert ran.count("main.py") == 3 and "-m" in ran
    for code in blocks("python"):
        subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True, capture_output=True, timeout=60)


def test_the_folders_of_the_map_exist():
    tree = blocks("")[-1]
    for name in re.findall(r"^  (\w+)/ ", tree, re.MULTILINE):
        assert (ROOT / "src" / name).is_dir(), name
    assert {path.name for path in (ROOT / "src").iterdir() if path.is_dir() and path.name != "__pycache__"} == set(
        re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)
    )


def test_every_config_in_the_readme_exists():
    for name in re.findall(r"configs/[\w/]+\.(?:yaml|json)", README):
        assert (ROOT / name).exists(), name
