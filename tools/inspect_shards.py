"""What a folder of shards holds, split by split, and whether it is still what was indexed.

python -m tools.inspect_shards DIR [--verify] [--json FILE]                    counts; exit code 1 if anything is broken
python -m tools.inspect_shards DIR --show KEY --output PNG [--augment CONFIG]  one sample: an ECG on paper,
                                                                               frames of a video, planes of a CT
python -m tools.inspect_shards DIR --index [--leads I II ...] [--labels ...]   index tars written elsewhere, then count

A report's text is told by --show alone, in its picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.data.index import Index
from src.data.inspect import Inspection, inspect, locate
from src.data.load_index import load_index
from src.data.sample import Sample
from src.data.shards import Shards
from src.data.show_inspection import as_text
from src.files import replace_text
from tools import augment
from tools.augment_files import SHOWN, draw_augmented
from tools.build_shards import SentenceParser, add_index_flags, index_tars, indexing_bar
from tools.draw_sample import draw_sample


def count(words: argparse.Namespace, index: Index) -> int:
    """Read all samples and tell; 1 if anything is broken."""
    size = index.bytes() * (2 if words.verify else 1)
    with tqdm(total=size, desc="verifying" if words.verify else "reading", unit="B", unit_scale=True) as bar:
        found = inspect(words.input, index, verify=words.verify, advance=bar.update)
    print(as_text(found))
    if words.json is not None:
        save_json(words.json, found)
    if found.faults:
        print(f"error: {words.input}: {len(found.faults):,} broken, named above", file=sys.stderr)
        return 1
    if words.verify:
        print("verified: every tar, table and sample is what was indexed")
    return 0


def save_json(path: Path, found: Inspection) -> None:
    """The same for programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, found.model_dump_json(indent=2) + "\n")


def show(words: argparse.Namespace, index: Index) -> int:
    """Draw one sample."""
    split, number = locate(words.input, index, words.show)
    if words.augment is None:
        draw_sample(words.output, read_sample(words, split, number), index, split)
    elif index.modality in SHOWN:
        sample = read_sample(words, split, number)
        draw_augmented(words.augment, sample, index.modality, words.output, f"{sample['key']} ({split})")
    else:
        drawing = augment.parse([f"--fname={words.augment}", f"--output={words.output}", f"--key={words.show}"])
        config = augment.read_config(drawing)
        here = {"root": str(words.input), "split": split, "synthetic": None}
        augment.draw(config.model_copy(update={"data": config.data.model_copy(update=here)}), drawing)
    print(f"wrote {words.output}", file=sys.stderr)
    return 0


def read_sample(words: argparse.Namespace, split: str, number: int) -> Sample:
    """The sample of that number in its split."""
    with Shards(words.input, split) as shards:
        return shards.read(np.array([number]))[0]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ValueError: flags that do nothing together.
    """
    parser = SentenceParser(prog="python -m tools.inspect_shards", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("input", type=Path, metavar="DIR", help="folder of shards")
    parser.add_argument("--verify", action="store_true", help="also compare the sha256 of every tar with the index")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts as JSON too")
    parser.add_argument("--show", metavar="KEY", help="draw this sample instead of counting")
    parser.add_argument("--augment", type=Path, metavar="CONFIG", help="with --show: what its augmentations make of it")
    parser.add_argument("--output", type=Path, metavar="PNG", help="with --show: the picture")
    parser.add_argument("--index", action="store_true", help="first index the folder's tars, written elsewhere; with:")
    add_index_flags(parser)
    words = parser.parse_args(arguments)
    _refuse_idle(parser, words)
    return words


def _refuse_idle(parser: argparse.ArgumentParser, words: argparse.Namespace) -> None:
    """A flag that would do nothing is a mistake of the user's."""
    needs = {
        "index": ("modality", "leads", "sampling_rate", "labels", "label_kind", "split"),
        "show": ("augment", "output"),
    }
    for flag, others in needs.items():
        for other in others:
            if getattr(words, flag) in (None, False) and getattr(words, other) != parser.get_default(other):
                raise ValueError(f"--{other.replace('_', '-')} does something only with --{flag}")
    if words.show is not None and words.output is None:
        raise ValueError("--show needs --output, the PNG to write")
    for other in ("verify", "json", "index"):
        if words.show is not None and getattr(words, other):
            raise ValueError(f"--show draws one sample and --{other} does nothing there: leave one of them out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Count or draw; what a user can cause ends as one sentence on stderr and exit code 1."""
    try:
        words = parse(arguments)
        if words.index:
            index_tars(words, indexing_bar)
        index, _ = load_index(words.input)
        return count(words, index) if words.show is None else show(words, index)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
