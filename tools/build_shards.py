"""Build tar shards that the data section of a config can name, or index tars that are there already.

python -m tools.build_shards ecg --input RECORDS [--table CSV] --output DIR    (--help tells every flag)
python -m tools.build_shards video --input VIDEOS [--table CSV] --output DIR
python -m tools.build_shards image --input IMAGES [--table CSV] --output DIR
python -m tools.build_shards ct --input VOLUMES --units hu|unit_interval|rescale [--table CSV] --output DIR
python -m tools.build_shards index --input DIR [--leads I II ...] [--sampling-rate HZ] [--labels NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, NoReturn

from tqdm import tqdm

from src.data.index import Index, Labels
from src.data.make_index import Contents, Progress, find_tars, make_index, members_of, told_by
from src.data.modalities import MODALITIES
from src.data.sample import CLASS_FIELD
from tools.build_archive import pair
from tools.build_ct import build_ct
from tools.build_ct_flags import add_flags as add_ct_flags
from tools.build_ecg import build_ecg
from tools.build_ecg_flags import add_flags
from tools.build_image import add_image_flags, build_image
from tools.build_video import add_video_flags, build_video


def index_tars(arguments: argparse.Namespace, indexing: Progress) -> Index:
    """The index of a folder of tars, written into it."""
    splits = find_tars(arguments.input, _patterns(arguments.split))
    first = next(tar for tars in splits.values() for tar in tars)
    members = members_of(first)
    modality = arguments.modality or told_by(first, members)
    given = {"leads": arguments.leads, "sampling_rate": arguments.sampling_rate}
    if modality != "ecg" and (idle := [name for name, value in given.items() if value is not None]):
        flag = "--" + idle[0].replace("_", "-")
        raise ValueError(f"{flag} does nothing for the modality {modality} of {arguments.input}: leave it out")
    contents = Contents(
        modality,
        Labels(names=tuple(arguments.labels), kind=arguments.label_kind or _kind(first, members, arguments.labels)),
        {"indexed": "tars written elsewhere"},
        given if modality == "ecg" else {},
    )
    return make_index(arguments.input, splits, contents, indexing)


def _kind(tar: Path, members: Collection[str], labels: Collection[str]) -> Literal["multiclass", "multilabel"]:
    """What labels are where no flag says it; classes need names, by which their numbers are understood."""
    if CLASS_FIELD not in members:
        return "multilabel"
    if not labels:
        raise ValueError(f"{tar.name} holds classes (.{CLASS_FIELD}): name them with --labels, in their numbers' order")
    return "multiclass"


def indexing_bar(tars: Collection[Path]) -> Iterable[Path]:
    """A progress bar over tars."""
    return tqdm(tars, "indexing", unit=" shards")


def _patterns(splits: list[str] | None) -> dict[str, str] | None:
    if splits is None:
        return None
    return dict(pair(split, "--split", "NAME=GLOB, for instance 'train=*-train-*.tar'") for split in splits)


def summary(index: Index, folder: Path) -> str:
    """What a folder holds, and what a user should know of it."""
    splits = "; ".join(_split(index, split) for split in index.splits)
    tars = sum(len(shards) for shards in index.splits.values())
    lines = [f"{folder}: {splits}; {tars} tars of {index.bytes():,} bytes; {MODALITIES[index.modality].heading(index)}"]
    if duplicates := index.source.get("duplicates"):
        across = index.source.get("duplicates_across_splits")
        lines.append(
            f"duplicates: {duplicates:,} samples hold the very content of another"
            + (f"; {across:,} such contents are in more than one split" if across else "")
        )
    lines += MODALITIES[index.modality].remarks(index)
    return "\n".join(lines)


def _split(index: Index, split: str) -> str:
    patients, texts = index.patients[split], index.texts[split]
    return (
        f"{split}: {index.samples(split):,} samples of"
        + (f" {patients:,} patients" if patients else " unnamed patients")
        + (f", {texts:,} with a report" if texts else "")
    )


class SentenceParser(argparse.ArgumentParser):
    """Tells a wrong flag in one sentence, as everything else that a user can get wrong."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({self.prog} --help tells the flags)")


def add_index_flags(parser: argparse.ArgumentParser) -> None:
    """What index_tars must know of tars that others wrote."""
    parser.add_argument("--modality", choices=sorted(MODALITIES), help="default: told by the members of the first tar")
    parser.add_argument("--leads", nargs="+", help="names of the leads; default: 'leads' of the json members")
    parser.add_argument("--sampling-rate", type=float, help="Hz; default: 'sampling_rate' of the json members")
    parser.add_argument("--labels", nargs="+", default=[], help="names of 'labels' in the json members, or of .cls")
    kind = "default: multiclass where the tars hold the number of a class (.cls), else multilabel"
    parser.add_argument("--label-kind", choices=["multilabel", "multiclass"], help=kind)
    parser.add_argument("--split", action="append", metavar="NAME=GLOB", help="default: the tar's name less its number")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; each verb has its own --help."""
    parser = SentenceParser(prog="python -m tools.build_shards", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    ecg = verbs.add_parser("ecg", help="shards of records in WFDB, EDF, XML, HDF5, MATLAB or numpy")
    add_flags(ecg)
    ecg.set_defaults(run=build_ecg)

    video = verbs.add_parser("video", help="shards of videos: mp4, mov, avi, mpeg, gif, DICOM; single, or studies")
    add_video_flags(video)
    video.set_defaults(run=build_video)
    image = verbs.add_parser("image", help="shards of images: files in folders or a table, or an .npz of MedMNIST")
    add_image_flags(image)
    image.set_defaults(run=build_image)
    ct = verbs.add_parser("ct", help="shards of CT volumes in NIfTI, NRRD, DICOM or numpy")
    add_ct_flags(ct)
    ct.set_defaults(run=build_ct)

    index = verbs.add_parser("index", help="index.json and offset tables for WebDataset tars, in place")
    index.add_argument("--input", type=Path, required=True, help="folder of plain tars")
    add_index_flags(index)
    index.set_defaults(run=index_tars)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; what a user can cause ends as one sentence on stderr and exit code 1."""
    try:
        parsed = parse(arguments)
        index = parsed.run(parsed, indexing_bar)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last whole tar", file=sys.stderr)
        return 130
    if index is not None:
        print(summary(index, parsed.output if "output" in parsed else parsed.input))
    return 0


if __name__ == "__main__":
    sys.exit(main())
