"""The rules of the house: arrows run one way, and no file is a drawer for anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for top in ("src", "ssls", "tools") for path in (ROOT / top).rglob("*.py"))
STARTS = ("main", "main_distributed")
PURE = {"models", "losses", "masks", "transforms", "metrics", "text"}
MACHINERY = {"run", "engines", "checkpoints", "data"}


def imports(path):
    """Dotted names of the project's own modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {
        name for name in found if name.split(".")[0] in ("src", "ssls", "tools", "main", "main_distributed", "tests")
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    top, *rest = path.relative_to(ROOT).parts
    for name in imports(path):
        target, *inner = name.split(".")
        assert target not in ("tests", *STARTS) and (target != "tools" or top == "tools"), f"{path} imports {name}"
        if top == "src":
            assert target == "src", f"{path} imports {name}"
        if top == "src" and rest[0] in PURE:
            assert inner[0] not in MACHINERY, f"{path} imports {name}"
        if top == "src" and rest[0] == "distributed":
            assert inner[0] == "distributed", f"{path} imports {name}: distributed is a leaf"
        if top == "ssls" and target == "ssls":
            assert inner[0] == rest[0], f"{path} imports another objective: {name}"


def test_objectives_have_the_same_files():
    for folder in (ROOT / "ssls").iterdir():
        if (folder / "__init__.py").exists():
            assert {"config.py", "model.py", "train.py"} <= {path.name for path in folder.iterdir()}, folder


def test_no_file_is_called_utils_or_helper():
    for path in SOURCES:
        assert not {"utils", "util", "helper", "helpers", "misc", "common", "manager"} & {path.stem, *path.parent.parts}


@pytest.mark.parametrize(
    ("objective", "dear"),
    [
        ("jepa", ("torch._dynamo", "torch.distributed.tensor", "scipy", "deepspeed", "cv2", "matplotlib")),
        ("probe", ("torch._dynamo", "torch.distributed.tensor", "deepspeed", "cv2", "matplotlib")),
        ("simclr", ("torch._dynamo", "torch.distributed.tensor", "scipy", "deepspeed", "cv2", "matplotlib")),
        ("byol", ("torch._dynamo", "torch.distributed.tensor", "scipy", "deepspeed", "cv2", "matplotlib")),
        (
            "translate",
            ("torch._dynamo", "scipy", "deepspeed", "cv2", "matplotlib", "nltk", "sacrebleu", "transformers"),
        ),
    ],
)
def test_what_is_dear_to_import_waits_until_a_rank_needs_it(objective, dear):
    """Together they took a third of a rank's start."""
    code = f"import sys, src.run.rank, ssls.{objective}.train; print(*(set({dear!r}) & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert told.stdout.split() == []
