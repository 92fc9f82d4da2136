"""The JSON schema that editors read, and the tool that writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from src.config import json_schema
from tests.config.toy import Config
from tools.schema import schemas

ROOT = Path(__file__).parents[2]
OBJECTIVE = '''
from src.config import ExperimentConfig, Section


class Model(Section):
    width: int = 8
    """Width of a token."""


class Config(ExperimentConfig):
    model: Model = Model()
'''


def test_schema_describes_keys_and_allows_overlays() -> None:
    schema = json.loads(json_schema(Config))
    assert schema["properties"]["base"]["type"] == "string"
    assert schema["additionalProperties"] is False
    assert schema["properties"]["objective"]["description"] == "A folder of ssls/."
    assert schema["$defs"]["Tube"]["properties"]["length"]["description"] == "Frames of a tube."
    assert '"required"' not in json_schema(Config)


def test_schemas_of_the_real_objectives_know_the_common_sections() -> None:
    found = schemas(ROOT)
    assert found
    for path, text in found.items():
        if path.parent.name == "transforms":
            continue
        assert path.name == "schema.json"
        assert {"base", "objective", "seed", "data", "engine", "logging"} <= set(json.loads(text)["properties"])


def run_tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.schema", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_tool_writes_the_schema_of_each_objective_and_checks_it(tmp_path: Path) -> None:
    for name in ("toy", "draft"):
        (tmp_path / "ssls" / name).mkdir(parents=True)
    (tmp_path / "ssls" / "__init__.py").touch()
    (tmp_path / "ssls" / "toy" / "config.py").write_text(OBJECTIVE)
    written = Path("configs") / "toy" / "schema.json"

    stale = run_tool(tmp_path, "--check")
    assert (stale.returncode, stale.stderr) == (1, f"{written} is out of date; run python -m tools.schema\n")
    assert not (tmp_path / written).exists()

    assert run_tool(tmp_path).stdout == f"wrote {written}\n"
    schema = json.loads((tmp_path / written).read_text())
    assert schema["$defs"]["Model"]["properties"]["width"]["description"] == "Width of a token."
    assert run_tool(tmp_path, "--check").returncode == 0


def test_tool_outside_the_repository_says_where_to_run_it(tmp_path: Path) -> None:
    (tmp_path / "ssls").mkdir()
    told = run_tool(tmp_path)
    assert told.returncode == 1
    assert "run this from the repository's root" in told.stderr
