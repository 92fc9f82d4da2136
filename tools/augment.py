"""Draws what each augmentation of a config makes of one sample, alone and at the config's strength.

python -m tools.augment --fname configs/jepa/ecg_ptbxl_small.yaml --output augmentations.png
python -m tools.augment --transform configs/transforms/image_simclr.yaml --image FILE --output augmentations.png
python -m tools.augment --transform configs/transforms/video_randaugment.yaml --video FILE --output augmentations.png
python -m tools.augment --transform configs/transforms/ct_chest.yaml --volume FILE --output augmentations.png

Probabilities have no influence on the picture: each augmentation is shown, one after the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.config.ecg_transforms import ECGTransformConfig
from src.config.experiment import ExperimentConfig
from src.config.load import load_config
from src.data.ecg_shards import ECGShards
from src.data.inputs import open_shards
from src.data.sample import Sample
from src.transforms.preprocessing import Preprocessing
from src.transforms.show_ecg import examples, plot
from ssls.objectives import schema_of
from tools.augment_files import SHOWN, draw_file


def read_config(words: argparse.Namespace) -> ExperimentConfig:
    """The config that was named, if it trains."""
    config = load_config(words.fname, words.set, schema_of)
    if not isinstance(config, ExperimentConfig):
        raise ValueError(f"{words.fname}: {config.objective} has no augmentations; name a config that trains")
    return config


def find(shards: ECGShards, key: str | None) -> Sample:
    """The record with a key, or the first of the split."""
    keys = shards.keys(np.arange(1 if key is None else len(shards)))
    if key is not None and key not in keys:
        raise ValueError(f"--key: {shards.root} has no record {key} in this split; the first is {keys[0]}")
    return shards.read(np.array([0 if key is None else keys.index(key)]))[0]


def draw(config: ExperimentConfig, words: argparse.Namespace) -> None:
    """The picture, of the leads that were asked for."""
    data, transform = config.data, config.data.transform
    if not isinstance(transform, ECGTransformConfig):
        raise ValueError(
            f"--fname: data.transform.modality is {transform.modality}: write its transform into a file of its own, "
            "as in configs/transforms/, to see what it does"
        )
    shards = open_shards(data)
    assert isinstance(shards, ECGShards)
    if unknown := [lead for lead in words.leads if lead not in data.leads]:
        raise ValueError(f"--leads: {unknown[0]} is not in data.leads ({', '.join(data.leads)})")
    sample = find(shards, words.key)
    rate = shards.sampling_rate
    length = min(round(words.seconds * rate), sample["ecg"].shape[1])
    if length < 2:
        raise ValueError(f"--seconds {words.seconds:g} is less than two samples at {rate:g} Hz")
    preprocessing = Preprocessing(leads=data.leads, sampling_rate=rate, length=length, normalize="none", clip=None)
    shown = [data.leads.index(lead) for lead in words.leads] or list(range(min(3, len(data.leads))))
    after = examples(transform, preprocessing, sample, words.seed)
    before_CT = preprocessing.windows(sample["ecg"], 1)[0]
    title = words.title or f"{sample['key']} at {rate:g} Hz: grey before, blue after"
    names = [data.leads[lead] for lead in shown]
    panels = {name: None if ecg_CT is None else ecg_CT[shown] for name, ecg_CT in after.items()}
    plot(before_CT[shown], panels, names, rate, title, words.output)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ValueError: flags that do nothing together.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.augment", description=(__doc__ or "").split("\n")[0])
    config = parser.add_mutually_exclusive_group(required=True)
    config.add_argument("--fname", type=Path, help="YAML file of an experiment that trains: a record of its shards")
    config.add_argument("--transform", type=Path, help="YAML file of transforms as in configs/transforms; with one of:")
    parser.add_argument("--image", type=Path, metavar="FILE", help="PNG or JPEG")
    parser.add_argument("--video", type=Path, metavar="FILE", help="mp4, mov, avi, ...: a clip from its middle")
    parser.add_argument("--volume", type=Path, metavar="FILE", help="NIfTI")
    parser.add_argument(
        "--window", type=int, default=0, help="of --volume, the window that is shown; default: the first"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override keys")
    parser.add_argument("--output", type=Path, required=True, help="the PNG")
    parser.add_argument("--key", help="of the record; default: the first of data.split")
    parser.add_argument("--leads", nargs="+", default=[], help="default: the first three")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the record, from its middle; default: 10")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; default: 0")
    parser.add_argument("--title", help="default: key and sampling rate, or the file's name")
    words = parser.parse_args(arguments)
    _refuse_idle(parser, words)
    return words


def _refuse_idle(parser: argparse.ArgumentParser, words: argparse.Namespace) -> None:
    """A flag that would do nothing is a mistake of the user's."""
    needs = {"fname": ("key", "leads", "seconds"), "transform": SHOWN.values(), "volume": ("window",)}
    for flag, others in needs.items():
        for other in others:
            if getattr(words, flag) is None and getattr(words, other) != parser.get_default(other):
                raise ValueError(f"--{other} does something only with --{flag}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; what a user can cause ends as one sentence and exit code 1."""
    try:
        words = parse(arguments)
        if words.transform is not None:
            draw_file(words)
        else:
            draw(read_config(words), words)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {words.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
