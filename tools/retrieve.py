"""How well the pair of a run finds reports by ECGs, and ECGs by reports.

python -m tools.retrieve --run runs/mine --shards shards/ours --split test --output retrieval

Writes retrieval.json and retrieval.md into the new folder, and prints the latter.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from src.data.inputs import shards_for
from src.evaluation.pair import load_pair
from src.evaluation.retrieval import evaluate, markdown
from src.files import replace_text
from src.run.launch import parse_devices


def arguments_for(name: str, about: str) -> argparse.ArgumentParser:
    """What all evaluations of a pair take."""
    parser = argparse.ArgumentParser(prog=f"python -m tools.{name}", description=about)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a finished meclip run")
    parser.add_argument("--shards", type=Path, required=True, help="folder of shards")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, help="new folder for the table as JSON and markdown")
    parser.add_argument("--windows", type=int, help="windows of each record; without, so many as cover it")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws of patients")
    parser.add_argument("--batch-size", type=int, default=64, help="records read at a time")
    parser.add_argument("--devices", default="cpu", help="cpu or cuda:0")
    return parser


def check_numbers(words: argparse.Namespace) -> None:
    """Refuse what is no number of anything.

    Raises:
        ValueError: names the flag.
    """
    if min(words.batch_size, words.draws) < 1 or (words.windows is not None and words.windows < 1):
        raise ValueError("--batch-size, --draws and --windows must be 1 or more")
    if words.output is not None and words.output.exists():
        raise ValueError(f"--output: {words.output} is there already; name a new folder")


def tell(name: str, table: dict[str, object], text: str, output: Path | None) -> None:
    """Print the text, and write it beside the table."""
    if output is not None:
        output.mkdir(parents=True)
        replace_text(output / f"{name}.json", json.dumps(table, indent=1) + "\n")
        replace_text(output / f"{name}.md", text + "\n")
    print(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    words = arguments_for("retrieve", "Retrieval between ECGs and reports.").parse_args(arguments)
    try:
        check_numbers(words)
        pair = load_pair(words.run).to(torch.device(parse_devices([words.devices])[0]))
        shards = shards_for(pair.encoder.preprocessing, words.shards, words.split)
        table = evaluate(pair, shards, words.windows, words.batch_size, words.draws)
        tell("retrieval", table, markdown(table), words.output)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
