"""Features of a split's records as an array, and whose they are as a table.

python -m tools.embed --encoder runs/mine --shards shards/ours --split test --output features/ours

features.npy holds float32 [N, F]; row n of records.parquet tells its key, id, patient_id, labels and metadata.
"""

# N records, F features, K labels

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from src.data.inputs import shards_for
from src.data.sample import Sample
from src.data.shards import Shards
from src.evaluation.encoder import Encoder, load_encoder
from src.run.launch import parse_devices

FEATURES, RECORDS = "features.npy", "records.parquet"


def embed(encoder: Encoder, shards: Shards, output: Path, pool: Any, windows: int | None, batch_size: int) -> None:
    """Write both files into the new folder `output`, the table last.

    Raises:
        ValueError: the folder is taken, or the records do not fit the encoder.
    """
    import pyarrow
    import pyarrow.parquet

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output: {output} is there already; name a new folder")
    output.mkdir(parents=True, exist_ok=True)
    found, rows = [], []
    calls = -(-len(shards) // batch_size)
    for samples in tqdm(shards.batches(size=batch_size), total=calls, unit="batch", disable=not sys.stderr.isatty()):
        found.append(encoder.embed_samples(samples, pool, windows))
        rows += [_row(sample, shards.label_names) for sample in samples]
    np.save(output / FEATURES, np.concatenate(found))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_same_columns(rows)), output / RECORDS)
    print(f"{len(rows)} records, {found[0].shape[1]} features each: {output / FEATURES}, {output / RECORDS}")


def _row(sample: Sample, label_names: Sequence[str]) -> dict[str, Any]:
    """Numbers and words of a sample's metadata, and its labels as `label/<name>`, null where unknown."""
    known = {name: value for name, value in sample["meta"].items() if isinstance(value, str | int | float | bool)}
    labels = {
        f"label/{name}": None if np.isnan(label) else float(label)
        for name, label in zip(label_names, sample["labels"], strict=True)
    }
    return {"key": sample["key"], **(known | labels | {"key": sample["key"]})}


def _same_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row with every column; one that holds numbers here and words (or true, false) there becomes words."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    worded = {name for name in names if len({_kind(row[name]) for row in rows if row.get(name) is not None}) > 1}
    return [
        {name: str(row[name]) if name in worded and row.get(name) is not None else row.get(name) for name in names}
        for row in rows
    ]


def _kind(value: Any) -> type:
    return type(value) if isinstance(value, str | bool) else float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.embed", description="Features of records from an encoder.")
    parser.add_argument("--encoder", type=Path, required=True, help="exported encoder/, checkpoint or run folder")
    parser.add_argument("--shards", type=Path, required=True, help="folder of shards")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, required=True, help="new folder for features.npy and records.parquet")
    parser.add_argument("--pool", choices=("mean", "mean+std", "mean+max", "tokens"), default="mean")
    parser.add_argument("--windows", type=int, help="windows of each record; without, so many as cover it")
    parser.add_argument("--batch-size", type=int, default=64, help="records read at a time")
    parser.add_argument("--devices", default="cpu", help="cpu or cuda:0")
    words = parser.parse_args(arguments)
    try:
        if words.batch_size < 1 or (words.windows is not None and words.windows < 1):
            raise ValueError("--batch-size and --windows must be 1 or more")
        encoder = load_encoder(words.encoder).to(torch.device(parse_devices([words.devices])[0]))
        shards = shards_for(encoder.preprocessing, words.shards, words.split)
        embed(encoder, shards, words.output, words.pool, words.windows, words.batch_size)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
