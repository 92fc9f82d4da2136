"""Build tar shards that the data section of a config can name, or index tars that are there already.

python -m tools.build_shards ecg --input beats.npz --output DIR [--samples-per-shard N]
python -m tools.build_shards index --input DIR [--leads I II ...] [--sampling-rate HZ] [--labels NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from tqdm import tqdm

from src.data.builders.mitbih import read_beats
from src.data.index import TRAINING_SPLIT, Index, Labels
from src.data.make_index import find_tars, make_index
from src.data.write_shards import SAMPLES_PER_SHARD, write_shards


def build_ecg(arguments: argparse.Namespace) -> Index:
    """Shards of the beats in an .npz."""
    beats = read_beats(arguments.input)
    records = tqdm(beats.records(), "writing", len(beats), unit=" samples")
    return write_shards(arguments.output, records, beats.description(), arguments.samples_per_shard, _indexing)


def index_tars(arguments: argparse.Namespace) -> Index:
    """The index of a folder of tars, written into it."""
    return make_index(
        arguments.input,
        find_tars(arguments.input, _patterns(arguments.split)),
        leads=arguments.leads,
        sampling_rate=arguments.sampling_rate,
        labels=Labels(names=tuple(arguments.labels), kind=arguments.label_kind),
        source={"indexed": "tars written elsewhere"},
        progress=_indexing,
    )


def _indexing(tars: Collection[Path]) -> Iterable[Path]:
    return tqdm(tars, "indexing", unit=" shards")


def _patterns(splits: list[str] | None) -> dict[str, str] | None:
    if splits is None:
        return None
    for split in splits:
        if "=" not in split.strip("="):
            raise ValueError(f"--split {split} must be NAME=GLOB, for instance 'train=*-train-*.tar'")
    return dict(split.split("=", 1) for split in splits)


def summary(index: Index, folder: Path) -> str:
    """One line on what a folder holds."""
    splits = "; ".join(f"{split}: {index.samples(split):,}" + _patients(index, split) for split in index.splits)
    tars = sum(len(shards) for shards in index.splits.values())
    return (
        f"{folder}: {splits}; {tars} tars of {index.bytes():,} bytes; leads {' '.join(index.leads)} at"
        f" {index.sampling_rate:g} Hz"
        + ("" if index.statistics else f"; no split {TRAINING_SPLIT} and so no statistics")
    )


def _patients(index: Index, split: str) -> str:
    count = index.patients[split]
    return f" samples of {count:,} patients" if count else " samples of unnamed patients"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; each verb has its own --help."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_shards", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    ecg = verbs.add_parser("ecg", help="shards of the beats in an .npz")
    ecg.add_argument("--input", type=Path, required=True, help=".npz with x, aami, symbol, record, split")
    ecg.add_argument("--output", type=Path, required=True, help="a new folder")
    ecg.add_argument("--samples-per-shard", type=int, default=SAMPLES_PER_SHARD, help="default: %(default)s")
    ecg.set_defaults(run=build_ecg)

    index = verbs.add_parser("index", help="index.json and offset tables for WebDataset tars, in place")
    index.add_argument("--input", type=Path, required=True, help="folder of plain tars")
    index.add_argument("--leads", nargs="+", help="names of the leads; default: 'leads' of the json members")
    index.add_argument("--sampling-rate", type=float, help="Hz; default: 'sampling_rate' of the json members")
    index.add_argument("--labels", nargs="+", default=[], help="names of 'labels' of the json members, in order")
    index.add_argument("--label-kind", choices=["multilabel", "multiclass"], default="multilabel")
    index.add_argument("--split", action="append", metavar="NAME=GLOB", help="default: the tar's name less its number")
    index.set_defaults(run=index_tars)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; what a user can cause ends as one sentence on stderr and exit code 1."""
    parsed = parse(arguments)
    try:
        index = parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(index, parsed.output if "output" in parsed else parsed.input))
    return 0


if __name__ == "__main__":
    sys.exit(main())
