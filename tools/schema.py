"""Writes configs/<objective>/schema.json, with which an editor completes and checks the keys of a YAML file.

python -m tools.schema            writes the schema of each objective, and that of configs/transforms
python -m tools.schema --check    writes nothing; fails where a schema differs from its config class
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from src.config import json_schema
from src.config.transforms import TRANSFORMS


def schemas(root: Path) -> dict[Path, str]:
    """The file and text of each schema: of each objective (a folder of ssls/ with a config.py) and of transforms."""
    names = sorted(config.parent.name for config in (root / "ssls").glob("*/config.py"))
    found = {
        root / "configs" / name / "schema.json": json_schema(importlib.import_module(f"ssls.{name}.config").Config)
        for name in names
    }
    if (root / "configs" / "transforms").is_dir():
        found[root / "configs" / "transforms" / "schema.json"] = json_schema(*TRANSFORMS.values())
    return found


def stale(found: dict[Path, str]) -> list[Path]:
    """Files that are absent or differ from what their config class gives."""
    return [path for path, text in found.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool in the current folder, the repository's root; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.schema", description="JSON schemas of configs, for editors.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a schema is out of date")
    check = parser.parse_args(arguments).check
    found = schemas(Path())
    if not found:
        print("no ssls/<objective>/config.py here; run this from the repository's root", file=sys.stderr)
        return 1
    for path in stale(found):
        if check:
            print(f"{path} is out of date; run python -m tools.schema", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found[path], encoding="utf-8")
            print(f"wrote {path}")
    return 1 if check and stale(found) else 0


if __name__ == "__main__":
    sys.exit(main())
