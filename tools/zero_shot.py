"""Labels of records told from sentences about them, by the pair of a run that has seen no label.

python -m tools.zero_shot --run runs/mine --shards shards/ours --prompts configs/prompts/ptbxl_superclass.yaml

With --output writes zero_shot.json and zero_shot.md into the new folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from src.config.load import load_section
from src.config.prompts import Prompts
from src.data.inputs import shards_for
from src.evaluation.pair import load_pair
from src.evaluation.retrieval import embed_split
from src.evaluation.targets import label_target, read_cases
from src.evaluation.zero_shot import label_directions, markdown, score_zero_shot
from src.run.launch import parse_devices
from tools.retrieve import arguments_for, check_numbers, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    parser = arguments_for("zero_shot", "Labels from sentences about them.")
    parser.add_argument("--prompts", type=Path, required=True, help="a file like those of configs/prompts/")
    parser.add_argument("--languages", nargs="+", help="those of its languages to ask in; without, all")
    words = parser.parse_args(arguments)
    try:
        check_numbers(words)
        prompts = load_section(words.prompts, Prompts)
        pair = load_pair(words.run).to(torch.device(parse_devices([words.devices])[0]))
        shards = shards_for(pair.encoder.preprocessing, words.shards, words.split)
        cases = read_cases(shards, label_target(shards, list(prompts.labels), "multilabel"), ())
        names = [name for name in shards.label_names if name in prompts.labels]
        directions = label_directions(prompts, pair.embed_text, tuple(words.languages) if words.languages else None)
        directions = directions[[list(prompts.labels).index(name) for name in names]]
        ecg, _ = embed_split(pair, shards, words.windows, words.batch_size)
        table = score_zero_shot(ecg[cases.samples_N], directions, cases.truth_NK, names, cases.patients_N, words.draws)
        tell("zero_shot", table, markdown(table), words.output)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
