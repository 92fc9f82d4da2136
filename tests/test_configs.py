"""Every shipped config is valid, and its objective's JSON schema is current."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.config import dump_config, load_config
from ssls.objectives import schema_of

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("transforms", "prompts")
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name not in OTHERS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_is_valid_and_comes_back_from_its_dump(path, tmp_path):
    config = load_config(path, [], schema_of)
    dumped = tmp_path / "config.yaml"
    dumped.write_text(dump_config(config))
    assert load_config(dumped, [], schema_of) == config
    folder = ROOT / "configs" / config.objective
    assert path.parent in (folder, folder.parent)
    schema = (folder / "schema.json").relative_to(path.parent)
    assert path.read_text().startswith(f"# yaml-language-server: $schema={schema}\n")


def test_configs_that_name_one_folder_make_the_same_samples():
    """The second that is tried would refuse what the first has made."""
    made = {}
    for path in CONFIGS:
        data = getattr(load_config(path, [], schema_of), "data", None)
        if getattr(data, "synthetic", None) is not None:
            made.setdefault(data.root, {})[path.name + path.parent.name] = (data.synthetic, data.leads)
    for root, recipes in made.items():
        assert len(set(recipes.values())) == 1, f"{root} is made in different ways by {', '.join(recipes)}"


def test_the_json_schemas_are_current():
    done = subprocess.run([sys.executable, "-m", "tools.schema", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
