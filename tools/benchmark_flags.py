"""The flags of each verb of benchmark."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from tools.benchmark_augmentations import BENCHES
from tools.benchmark_build import ARCHIVES
from tools.benchmark_contrastive import LOSSES
from tools.benchmark_decoders import CODECS
from tools.benchmark_engines import ENGINES
from tools.benchmark_memory import SETTLING
from tools.benchmark_sets import BENCHES as SETS


def add_mask_flags(parser: argparse.ArgumentParser) -> None:
    """How long each row is measured, and on which batches."""
    add = parser.add_argument
    add("--seconds", type=positive, default=3.5, help="for each row; default: %(default)s")
    add("--batch", type=count, default=128, help="default: %(default)s")


def add_augmentation_flags(parser: argparse.ArgumentParser) -> None:
    """What is augmented, and how long each row is measured."""
    add = parser.add_argument
    add("--seconds", type=positive, default=3.5, help="for each row; default: %(default)s")
    add("--modality", choices=["ecg", *BENCHES], default="ecg", help="of what; default: %(default)s")
    add("--batch", type=count, help="default: 64 ECGs, 8 images, 4 clips, 2 volumes")
    add("--size", type=count, help="of the model's input; default: 224, 112 or 128 pixels")
    add("--rate", type=positive, default=100.0, help="of ECGs, Hz; default: %(default)s")


def add_interval_flags(parser: argparse.ArgumentParser) -> None:
    """How large the timed table is, and the simulated data sets."""
    add = parser.add_argument
    add("--records", type=count, default=3039, help="of the timing; default: %(default)s")
    add("--labels", type=count, default=18, help="of the timing; default: %(default)s")
    add("--draws", type=count, default=1000, help="default: %(default)s")
    add("--datasets", type=count, default=1000, help="for each size; default: %(default)s")
    sizes = [20, 50, 100, 200, 500]
    add("--patients", type=count, nargs="+", default=sizes, help="of the coverage; default: %(default)s")


def add_health_flags(parser: argparse.ArgumentParser) -> None:
    """Whose logs are read."""
    parser.add_argument("--run", dest="folder", type=Path, required=True, help="run folder")


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Which engines, where, and how long a turn of each is."""
    add = parser.add_argument
    add("--devices", nargs="+", default=["cpu", "cpu"], help="one rank each; default: %(default)s")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: all")
    add("--batch", type=count, default=16, help="of each rank; default: %(default)s")
    add("--steps", type=count, default=4, help="in a turn; default: %(default)s")
    _add_training_flags(parser)


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Which training writes checkpoints, and where to."""
    parser.add_argument("--output", type=Path, default=Path(), help="folder on the disk to write to; default: here")
    _add_training_flags(parser)


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--fname", default="configs/jepa/ecg_demo.yaml", help="JEPA config; default: %(default)s")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of it")
    add("--rounds", type=count, default=7, help="default: %(default)s")


def add_build_flags(parser: argparse.ArgumentParser) -> None:
    """Which records are built into which shards."""
    add = parser.add_argument
    add("--modality", choices=sorted(ARCHIVES), required=True)
    add("--records", type=count, default=1000, help="default: %(default)s")
    add("--builds", nargs="+", metavar="ROW", help="rows of the table, h264 for instance; default: all")
    add("--output", type=Path, help="folder on the disk to write to; default: that of temporary files")


def add_decoder_flags(parser: argparse.ArgumentParser) -> None:
    """Which clips are decoded, and how often."""
    add = parser.add_argument
    add("--clips", type=count, default=8, help="public ones; default: %(default)s")
    add("--codecs", nargs="+", choices=CODECS, default=list(CODECS), help="default: all")
    add("--rounds", type=count, default=5, help="default: %(default)s")
    add("--output", type=Path, help="folder on the disk to use; default: that of temporary files")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """How often and with how many workers each way to the batches is measured."""
    add = parser.add_argument
    add("--rounds", type=count, default=5, help="default: %(default)s")
    add("--workers", type=int, nargs="+", choices=range(65), default=[0, 1, 2], metavar="N")
    add("--profile", action="store_true", help="where the time of the loader in this process goes")
    _add_set_flags(parser)


def add_memory_flags(parser: argparse.ArgumentParser) -> None:
    """How long the loader's memory is watched."""
    add = parser.add_argument
    add("--epochs", type=_epochs, default=20, help="default: %(default)s")
    add("--workers", type=count, default=2, help="default: %(default)s")
    add("--plot", type=Path, metavar="PNG", help="draws the series")
    _add_set_flags(parser)


def add_contrastive_flags(parser: argparse.ArgumentParser) -> None:
    """On how many ranks, with which rows each, which losses are measured."""
    add = parser.add_argument
    add("--ranks", type=count, nargs="+", default=[1, 2, 4, 8], metavar="N", help="default: %(default)s")
    add("--rows", type=count, default=512, help="of each rank; default: %(default)s")
    add("--width", type=count, default=256, help="of the features; default: %(default)s")
    add("--block", type=count, default=1024, help="columns of SigLIP's blocks; default: %(default)s")
    add("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="default: all")


def _add_set_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    add("--records", type=count, help="of each set; default: 48 volumes to 10,000 beats")
    add("--output", type=Path, help="folder on the disk to use; default: that of temporary files")


def positive(text: str) -> float:
    """A flag's number above 0."""
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def count(text: str) -> int:
    """A flag's whole number of at least 1."""
    return int(positive(str(int(text))))


def _epochs(text: str) -> int:
    if (epochs := count(text)) < 3 * SETTLING:
        raise argparse.ArgumentTypeError(
            f"{text} must be at least {3 * SETTLING}: {SETTLING} in which memory settles, {SETTLING} to measure from"
            f" and {SETTLING} to measure to"
        )
    return epochs
