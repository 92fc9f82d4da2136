"""Reports of a split's records, written by a run of translation.

python -m tools.translate --run runs/mine --shards shards/ours --split test --beams 4 --output written.csv

The CSV has a row for each record: key, patient_id, reference (its own report, if it has one), written.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from src.data.inputs import shards_for
from src.data.shards import Shards
from src.evaluation.features import Records
from src.evaluation.writer import Writer, load_writer
from src.models.generate import Sampling
from src.run.launch import parse_devices

HEADER = ("key", "patient_id", "reference", "written")


def translate(
    writer: Writer,
    shards: Shards,
    output: Path,
    batch_size: int,
    beams: int,
    length_penalty: float,
    sampling: Sampling | None,
    seed: int,
) -> None:
    """Write the CSV, and say how near the texts are to the reports that there are.

    Raises:
        ValueError: the file is there already, or the records do not fit the encoder.
    """
    if output.exists():
        raise ValueError(f"--output: {output} is there already; name a new file")
    records = Records(shards, np.arange(len(shards)), writer.encoder.preprocessing, windows=1)
    rows: list[tuple[str, str | None, str | None, str]] = []
    calls = -(-len(shards) // batch_size)
    for samples in tqdm(shards.batches(size=batch_size), total=calls, unit="batch", disable=not sys.stderr.isatty()):
        texts = writer.write(records, samples, beams, length_penalty, sampling, seed)
        for sample, text in zip(samples, texts, strict=True):
            patient = sample["meta"].get("patient_id")
            rows.append((sample["key"], None if patient is None else str(patient), sample["text"], text))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(HEADER)
        table.writerows(rows)
    print(f"{len(rows)} records: {output}")
    told = [(text, reference) for _, _, reference, text in rows if reference is not None and reference.strip()]
    if told:
        print(_scores([text for text, _ in told], [reference for _, reference in told]))


def _scores(written: list[str], references: list[str]) -> str:
    from src.metrics.translation import measure, translation_scores

    scores = translation_scores(measure(written, references))
    return f"{len(written)} have a report: " + ", ".join(f"{name} {value:.3g}" for name, value in scores.items())


def _sampling(words: argparse.Namespace) -> Sampling | None:
    """How tokens are drawn, if they are.

    Raises:
        ValueError: numbers that can't be, or a beam beside them.
    """
    if not words.sample:
        if (words.temperature, words.top_k, words.top_p, words.seed) != (1.0, None, 1.0, 0):
            raise ValueError("--temperature, --top-k, --top-p and --seed are for --sample: add it")
        return None
    if words.beams > 1:
        raise ValueError("--beams looks for the likeliest text, and --sample draws one: leave one of them out")
    if words.temperature <= 0 or not 0 < words.top_p <= 1 or (words.top_k is not None and words.top_k < 1):
        raise ValueError("--temperature must be above 0, --top-p above 0 and at most 1, --top-k 1 or more")
    return Sampling(words.temperature, words.top_k, words.top_p)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.translate", description="Reports of records, as text.")
    parser.add_argument("--run", type=Path, required=True, help="run folder of a finished translation")
    parser.add_argument("--shards", required=True, help="folder or address of shards")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, required=True, help="new CSV file")
    parser.add_argument("--beams", type=int, default=1, help="texts that are looked at side by side; 1 is greedy")
    parser.add_argument("--length-penalty", type=float, default=1.0, help="of a beam: more makes longer texts")
    parser.add_argument("--sample", action="store_true", help="draw the tokens instead")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 the likely becomes likelier")
    parser.add_argument("--top-k", type=int, help="draw among so many of the likeliest tokens")
    parser.add_argument("--top-p", type=float, default=1.0, help="and among the likeliest that have this share")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, with the key of the record")
    parser.add_argument("--batch-size", type=int, default=64, help="records read at a time")
    parser.add_argument("--devices", default="cpu", help="cpu or cuda:0")
    words = parser.parse_args(arguments)
    try:
        if words.batch_size < 1 or words.beams < 1 or words.length_penalty < 0:
            raise ValueError("--batch-size and --beams must be 1 or more, --length-penalty 0 or more")
        sampling = _sampling(words)
        writer = load_writer(words.run).to(torch.device(parse_devices([words.devices])[0]))
        shards = shards_for(writer.encoder.preprocessing, words.shards, words.split)
        how = (words.batch_size, words.beams, words.length_penalty, sampling, words.seed)
        translate(writer, shards, words.output, *how)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
