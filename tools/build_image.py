"""The verb `image` of build_shards: which layout the images have, what the flags ask for, and the build."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from src.data.build import claim, private_folder
from src.data.builders.about import About, with_what_files_tell
from src.data.builders.convert_image import QUALITY, ConvertImage, Encoding
from src.data.builders.dicom import about_dicom
from src.data.builders.image_folders import list_images
from src.data.builders.images import named_or_begins_as_dicom
from src.data.builders.medmnist import PUBLISHED, check_images, is_medmnist, list_arrays, unpack
from src.data.builders.sources import Listing, inside, list_table
from src.data.index import Index
from src.data.make_index import Contents, Progress
from tools.build_archive import Wrong, build_archive, in_splits, with_patients
from tools.build_flags import add_build_flags, add_patient_flags, add_table_flags, columns_of, count, refuse_idle

INPUT = """folder of images, in folders of splits and classes or that the paths of --table start in; an .npz of
MedMNIST's layout; an .npy [images, height, width] or [images, height, width, 3] with a row of --table for each"""
FOLDERS = "the folder right below --input, or below those of splits and --class-folders, is its images' patient"
CLASSES = "the folders below --input, or below those of the splits, are classes; their names go into the shards"
PATTERN = r"what of an image's path below --input is its patient, in brackets: '(person\d+)_'"
SHORTER = "shrink images whose shorter side is longer than this to it, with their aspect"
FORM = "what all become; default: JPEG and PNG stay as they are, less metadata, and all else becomes PNG"
DICOM = "DICOM as a viewer shows it, through its own window to 8 bits; default: all bits that it has"
LAYOUTS = {"arrays": "an .npz", "table": "images that a --table lists", "folder": "a folder of images"}
ONLY_FOR = {
    **dict.fromkeys(("--table", "--path-column", "--root", "--text-column", "--meta-columns"), ("table",)),
    **dict.fromkeys(("--patient-column", "--split-column", "--label-columns", "--class-column"), ("table",)),
    **dict.fromkeys(("--class-folders", "--patient-folders", "--patient-pattern"), ("folder",)),
    **dict.fromkeys(("--no-patients", "--fractions", "--windowed", "--burned-in"), ("table", "folder")),
    "--label-names": ("arrays",),
}


def build_image(arguments: argparse.Namespace, indexing: Progress) -> Index | None:
    """Shards of images, whichever of the layouts they have; None where they were only to be tried."""
    if not arguments.input.exists():
        raise ValueError(f"{arguments.input} is not there: name the images with --input")
    layout = _layout(arguments)
    _refuse_idle_flags(arguments, layout)
    public = layout == "arrays" and is_medmnist(arguments.input)
    with _room_for_arrays(arguments) as room:
        index = build_archive(
            arguments,
            partial(_listed, arguments, layout, room),
            partial(_settled, arguments, layout),
            indexing,
            keep_ids=public or arguments.keep_ids,
            public=PUBLISHED["name"] if public else None,
        )
    if layout == "arrays":
        print(f"{arguments.input} tells no patients: whether one is in two splits can't be checked", file=sys.stderr)
    return index


@contextmanager
def _room_for_arrays(arguments: argparse.Namespace) -> Iterator[Path]:
    """Where an .npz is unpacked; what a build that was stopped has unpacked is of use to the next."""
    if arguments.output is None or arguments.dry_run:
        with TemporaryDirectory() as room:
            yield Path(room)
        return
    room_beside = private_folder(arguments.output.resolve()) / "arrays"
    yield room_beside
    shutil.rmtree(room_beside, ignore_errors=True)


def _layout(arguments: argparse.Namespace) -> str:
    """Which of LAYOUTS the input has."""
    if arguments.input.suffix == ".npz":
        return "arrays"
    if arguments.table is not None:
        return "table"
    if arguments.input.suffix == ".npy":
        raise ValueError(f"{arguments.input} tells nothing of patients and labels: give their CSV with --table")
    return "folder"


def _listed(arguments: argparse.Namespace, layout: str, room: Path, wrong: Wrong | None) -> Listing:
    """The images with their patients and splits."""
    if layout == "arrays":
        listing = list_arrays(arguments.input, room, arguments.label_names)
        with nullcontext() if arguments.dry_run else claim(arguments.output.resolve()):
            unpack(arguments.input, room)
        return listing
    listing = _told_by_files(arguments, _listing(arguments, layout, wrong))
    remedy = "--patient-column" if layout == "table" else "--patient-folders, --patient-pattern, or a --table"
    return in_splits(arguments, with_patients(arguments, listing, remedy))


def _listing(arguments: argparse.Namespace, layout: str, wrong: Wrong | None) -> Listing:
    if layout == "folder":
        whose = (arguments.patient_folders, arguments.patient_pattern)
        listing = list_images(arguments.input, arguments.class_folders, *whose)
        _tell_of_folders(arguments, listing)
        return listing
    rows = arguments.input.suffix == ".npy"
    columns = columns_of(arguments, None if rows else arguments.path_column)
    listing = list_table(arguments.table, arguments.input, columns, arguments.root, wrong, inside)
    if rows:
        check_images(arguments.input, arguments.table, listing.length)
    return listing


def _tell_of_folders(arguments: argparse.Namespace, listing: Listing) -> None:
    """Whoever has folders of classes should know that they are not asked for."""
    folders = {source.path.parent for source in listing.sources}
    splits = {source.split for source in listing.sources}
    if len(folders) > len(splits) and not (arguments.class_folders or arguments.patient_folders):
        print(
            f"no folder of {arguments.input} is taken for a class: --class-folders makes labels of them",
            file=sys.stderr,
        )


def _told_by_files(arguments: argparse.Namespace, listing: Listing) -> Listing:
    """Age and sex of DICOM files, and the patient where no flag says whose they are."""
    given = (arguments.patient_folders, arguments.patient_pattern, arguments.patient_column, arguments.no_patients)
    if not any(source.row is None and named_or_begins_as_dicom(source.path) for source in listing.sources):
        return listing
    patients = not any(given)
    if patients and arguments.keep_ids:
        raise ValueError(
            "--keep-ids would put the patients of DICOM files, as the hospital calls them, into the shards:"
            " leave it out, or name pseudonyms with --patient-column"
        )
    return with_what_files_tell(listing, _about, patients)


def _about(path: Path) -> About:
    return about_dicom(path) if named_or_begins_as_dicom(path) else About()


def _settled(arguments: argparse.Namespace, layout: str, listing: Listing) -> tuple[ConvertImage, Contents]:
    """What reads the images, and what the index tells of them."""
    encoding = Encoding(
        size=tuple(arguments.size) if arguments.size else None,
        shorter_side=arguments.shorter_side,
        form=arguments.format,
        quality=arguments.quality,
    )
    public = layout == "arrays" and is_medmnist(arguments.input)
    source = {"reader": layout, **asdict(encoding), **(PUBLISHED if public else {})}
    return ConvertImage(encoding, arguments.windowed, arguments.burned_in), Contents("image", listing.labels, source)


def _refuse_idle_flags(arguments: argparse.Namespace, layout: str) -> None:
    """A flag that would do nothing is a misunderstanding."""
    refuse_idle(arguments, add_image_flags, ONLY_FOR, layout, LAYOUTS[layout])
    if arguments.fractions and arguments.split_column:
        raise ValueError("--fractions splits by itself: leave out --split-column")
    if arguments.quality != QUALITY and arguments.format != "jpeg":
        raise ValueError("--quality is of images that are written as JPEG: add --format jpeg, or leave it out")
    if arguments.patient_folders and arguments.patient_pattern:
        raise ValueError("--patient-folders and --patient-pattern both say whose the images are: leave one out")


def add_image_flags(image: argparse.ArgumentParser) -> None:
    """What `image --help` tells."""
    add_build_flags(image, INPUT)
    group = image.add_argument_group("pixels")
    size = group.add_mutually_exclusive_group().add_argument
    size("--size", nargs=2, type=count, metavar=("H", "W"), help="bring all to this size, whatever their aspect")
    size("--shorter-side", type=count, metavar="N", help=SHORTER)
    add = group.add_argument
    add("--format", choices=("png", "jpeg"), help=FORM)
    add("--quality", type=_quality, default=QUALITY, help="of images written as JPEG; default: %(default)s")
    add("--windowed", action="store_true", help=DICOM)
    add("--burned-in", action="store_true", help="take DICOM whose header says that words are drawn into the pixels")

    add = add_patient_flags(image, FOLDERS).add_argument
    add("--patient-pattern", type=_pattern, metavar="REGEX", help=PATTERN)
    add("--class-folders", action="store_true", help=CLASSES)
    add("--label-names", nargs="+", default=[], help="of an .npz, in the order of its numbers; default: 0, 1, ...")

    add_table_flags(image)


def _quality(text: str) -> int:
    if count(text) > 100:
        raise argparse.ArgumentTypeError(f"{text} must be 1 to 100")
    return int(text)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text} is no regular expression ({error})") from None
    if pattern.groups != 1:
        raise argparse.ArgumentTypeError(f"{text} needs one pair of brackets, around the patient")
    return pattern
