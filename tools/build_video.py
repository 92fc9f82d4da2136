"""The verb `video` of build_shards: which videos there are, what the flags ask for, and the build."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial

from src.data.builders.dicom import begins_as_dicom
from src.data.builders.sources import Listing, inside, list_table
from src.data.builders.video import ConvertVideo
from src.data.builders.video_format import KEYFRAMES, QUALITIES, Encoding
from src.data.builders.video_read import Reading
from src.data.builders.video_sources import list_videos, told_by_files
from src.data.index import Index
from src.data.make_index import Contents, Progress
from tools.build_archive import Wrong, build_archive, in_splits, with_patients
from tools.build_flags import (
    add_build_flags,
    add_patient_flags,
    add_table_flags,
    columns_of,
    count,
    given,
    positive,
    refuse_idle,
)

INPUT = "folder of videos, or that the paths of --table start in: mp4, mov, avi, mpeg, mkv, webm, wmv, gif, DICOM"
PASS = "keep the coded pictures of H.264, MPEG and Motion JPEG, in an mp4 with nothing else; the rest is encoded"
LAYOUTS = {"table": "videos that a --table lists", "folder": "a folder of videos"}
ONLY_FOR = {
    **dict.fromkeys(("--table", "--path-column", "--root", "--text-column", "--meta-columns"), ("table",)),
    **dict.fromkeys(("--patient-column", "--split-column", "--label-columns", "--class-column"), ("table",)),
    **dict.fromkeys(("--study-column", "--keep-ids"), ("table",)),
    **dict.fromkeys(("--patient-folders", "--study-folders"), ("folder",)),
}
SIDES, HIGHEST_RATE = (2, 8192), 1000.0
"""What a side may become, and Hz."""
CHANGES = ("--size", "--shorter-side", "--rate", "--gray", "--lossless")
"""What a video that is passed through can't be."""


def build_video(arguments: argparse.Namespace, indexing: Progress) -> Index | None:
    """Shards of videos in a folder or a table; None where they were only to be tried."""
    if not arguments.input.is_dir():
        raise ValueError(f"{arguments.input} is no folder: name the folder of the videos with --input")
    layout = "folder" if arguments.table is None else "table"
    _refuse_idle_flags(arguments, layout)
    encoding = _encoding(arguments)
    return build_archive(
        arguments,
        partial(_listed, arguments, layout),
        partial(_settled, arguments, layout, encoding),
        indexing,
        keep_ids=arguments.keep_ids,
    )


def _listed(arguments: argparse.Namespace, layout: str, wrong: Wrong | None) -> Listing:
    """The videos, or the studies, with their patients and splits."""
    if layout == "folder":
        listing = list_videos(arguments.input, arguments.patient_folders, arguments.study_folders)
    else:
        columns = columns_of(arguments, arguments.path_column, arguments.study_column)
        listing = list_table(arguments.table, arguments.input, columns, arguments.root, wrong, inside)
    patients = not (arguments.patient_folders or arguments.patient_column or arguments.no_patients)
    if patients and arguments.keep_ids and any(begins_as_dicom(source.path) for source in listing.sources):
        raise ValueError(
            "--keep-ids would put the patients of DICOM files, as the hospital calls them, into the shards:"
            " leave it out, or name pseudonyms with --patient-column"
        )
    listing = told_by_files(listing, patients)
    remedy = "--patient-folders, or a --table with --patient-column" if layout == "folder" else "--patient-column"
    return in_splits(arguments, with_patients(arguments, listing, remedy))


def _settled(
    arguments: argparse.Namespace, layout: str, encoding: Encoding, listing: Listing
) -> tuple[ConvertVideo, Contents]:
    """What reads the videos, and what the index tells of them."""
    reading = Reading(arguments.assume_rate, arguments.burned_in, arguments.blank_outside)
    convert = ConvertVideo(reading, encoding, arguments.pass_through, arguments.fewest_frames)
    source = {"reader": layout, "pass_through": arguments.pass_through, **asdict(encoding), **asdict(reading)}
    return convert, Contents("video", listing.labels, source)


def _encoding(arguments: argparse.Namespace) -> Encoding:
    best, worst, _ = QUALITIES[arguments.codec]
    if arguments.quality is not None and not best <= arguments.quality <= worst:
        raise ValueError(f"--quality {arguments.quality} of {arguments.codec} must be {best} (best) to {worst}")
    for side in (*(arguments.size or ()), *([arguments.shorter_side] if arguments.shorter_side else ())):
        if not SIDES[0] <= side <= SIDES[1]:
            raise ValueError(
                f"a side of {side} pixels can't be written: --size and --shorter-side take 2 to {SIDES[1]}"
            )
    for flag, rate in (("--rate", arguments.rate), ("--assume-rate", arguments.assume_rate)):
        if rate is not None and rate > HIGHEST_RATE:
            raise ValueError(f"{flag} {rate:g} is above {HIGHEST_RATE:,.0f} Hz: give the frames of a second")
    return Encoding(
        codec=arguments.codec,
        quality=arguments.quality,
        lossless=arguments.lossless,
        gray=arguments.gray,
        keyframes=arguments.keyframes,
        size=tuple(arguments.size) if arguments.size else None,
        fit=arguments.fit,
        shorter_side=arguments.shorter_side,
        rate=arguments.rate,
    )


def _refuse_idle_flags(arguments: argparse.Namespace, layout: str) -> None:
    """A flag that would do nothing is a misunderstanding."""
    refuse_idle(arguments, add_video_flags, ONLY_FOR, layout, LAYOUTS[layout])
    if arguments.fractions and arguments.split_column:
        raise ValueError("--fractions splits by itself: leave out --split-column")
    if arguments.pass_through and (changes := given(arguments, CHANGES, add_video_flags)):
        raise ValueError(f"{changes[0]} needs the pictures to be encoded anew: leave out --pass-through, or it")
    if arguments.fit != "pad" and not arguments.size:
        raise ValueError(f"--fit {arguments.fit} is how a picture gets to --size: give one, or leave it out")
    if arguments.lossless and (arguments.codec == "mjpeg" or arguments.quality is not None):
        raise ValueError("--lossless is of h264 or ffv1 and knows no --quality: leave one out")
    if arguments.quality is not None and arguments.codec == "ffv1":
        raise ValueError("--quality does nothing for ffv1, which loses nothing: leave it out")
    if arguments.keyframes != KEYFRAMES and arguments.codec != "h264":
        raise ValueError(f"--keyframes does nothing for {arguments.codec}, of which every frame is one: leave it out")


def add_video_flags(video: argparse.ArgumentParser) -> None:
    """What `video --help` tells."""
    add_build_flags(video, INPUT, samples_per_shard=256)
    group = video.add_argument_group("pictures")
    size = group.add_mutually_exclusive_group().add_argument
    size("--size", nargs=2, type=count, metavar=("H", "W"), help="bring all to this size; default: each keeps its own")
    size("--shorter-side", type=count, metavar="N", help="scale so that the shorter side is this, aspect kept")
    add = group.add_argument
    add("--fit", choices=("pad", "crop", "stretch"), default="pad", help="to --size, from another shape; default: pad")
    add(
        "--rate",
        type=positive,
        metavar="HZ",
        help="of all: frames are left out or come again; default: as they are",
    )
    add("--codec", choices=tuple(QUALITIES), default="h264", help="default: %(default)s")
    add(
        "--quality",
        type=int,
        metavar="N",
        help="lower is better: of h264 the CRF, 18; of mjpeg the quantiser, 3",
    )
    add("--lossless", action="store_true", help="every value as it is after --size, --rate and --gray")
    add("--gray", action="store_true", help="luminance alone; what is gray already stays gray without it")
    add("--keyframes", type=count, default=KEYFRAMES, metavar="N", help="one of N frames of h264; default: %(default)s")
    add("--pass-through", action="store_true", help=PASS)
    add("--fewest-frames", type=count, default=2, metavar="N", help="reject shorter videos; default: %(default)s")

    add = video.add_argument_group("DICOM").add_argument
    add(
        "--assume-rate",
        type=positive,
        metavar="HZ",
        help="of files whose header states none; else they are rejected",
    )
    add("--burned-in", action="store_true", help="take files whose header says that words are drawn into the pixels")
    add("--blank-outside", action="store_true", help="black outside the regions that an ultrasound's header names")

    add = add_patient_flags(video).add_argument
    add("--study-folders", action="store_true", help="the videos right in a folder are one sample")

    add = add_table_flags(video).add_argument
    add("--study-column", help="rows with the same word here are one sample with several videos, in their order")
