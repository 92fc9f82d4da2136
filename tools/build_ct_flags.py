"""The flags of the verb `ct` of build_shards, and what each is for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from src.data.builders.ct_settings import CTSettings
from src.transforms.ct_windows import PRESETS
from tools.build_flags import add_build_flags, add_patient_flags, add_table_flags, count, refuse_idle

INPUT = (
    "folder of volumes (.nii, .nii.gz, .nrrd, .nhdr, .npz, .npy, DICOM series), or that the paths of --table start in"
)
UNITS = """what the values are once the header's own slope and intercept are applied: hu, an interval that stands for
HU, or stored values that are rescaled by the header (DICOM, NIfTI) or by --slope and --intercept; required"""
SAMPLES_PER_SHARD = 64
"""Volumes have 10 to 300 MB."""
PATH, TEXT, SPLIT = "img_path", "findings", "split"
"""Columns of a table by default; the last two where it has them."""
LAYOUTS = {"table": "volumes that a --table lists", "folder": "a folder of volumes"}
ONLY_FOR = {
    "--root": ("table",),
    "--by-name": ("table",),
    "--patient-column": ("table",),
    "--split-column": ("table",),
    "--meta-columns": ("table",),
    "--label-columns": ("table",),
    "--class-column": ("table",),
    "--slope-column": ("table",),
    "--intercept-column": ("table",),
}


def add_flags(ct: argparse.ArgumentParser) -> None:
    """What `ct --help` tells."""
    add_build_flags(ct, INPUT, SAMPLES_PER_SHARD)
    add = ct.add_argument
    add("--settings", type=Path, metavar="YAML", help="the flags of the next groups, without -- and with _ for -")

    add = ct.add_argument_group("values").add_argument
    add("--units", choices=["hu", "unit_interval", "rescale"], help=UNITS)
    add("--slope", type=float, help="of stored values whose header has none; HU = stored * slope + intercept")
    add("--intercept", type=float)
    add("--interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of unit_interval; default: 0 1")
    add("--interval-hu", type=float, nargs=2, metavar=("LOW", "HIGH"), help="the HU that its ends stand for")
    add("--unchecked-units", action="store_const", const=True, help="take values that can't be HU of a chest")
    add(
        "--windows",
        nargs="+",
        metavar="WINDOW",
        help=f"{', '.join(PRESETS)} or NAME=CENTER,WIDTH; default: lung mediastinum",
    )
    add("--keep-float", action="store_const", const=True, help="store fractions as float32, not as the nearest HU")
    add("--compress", action="store_const", const=True, help="deflate each volume: smaller, and slower to read")

    add = ct.add_argument_group("grid").add_argument
    add("--orientation", metavar="CODES", help="what D, H, W go to, or keep; default: SPL")
    add("--spacing", type=float, nargs=3, metavar=("D", "H", "W"), help="mm to resample to; default: as it is")
    add("--size", type=int, nargs=3, metavar=("D", "H", "W"), help="voxels to crop and pad to; default: as it is")
    add("--crop", choices=["center", "never"], help="what is larger than --size: its middle, or reject it")
    add("--pad-value", type=float, metavar="HU", help="around what is smaller; default: -1024")

    add = ct.add_argument_group("files that say too little").add_argument
    add("--channels", type=count, metavar="C", help="of every volume; default: 1")
    add("--array", metavar="NAME", help="of an .npz with several")
    add("--source-orientation", metavar="CODES", help="what their axes go to, in their order, as in RAS")
    add("--source-spacing", type=float, nargs=3, metavar="MM", help="along their axes, in their order")

    add = add_patient_flags(ct).add_argument
    add(
        "--patient-pattern", metavar="REGEX", help="whose first group is the patient in a file's name: '^(train_\\d+)_'"
    )

    add = add_table_flags(ct, PATH).add_argument
    add("--by-name", action="store_true", help="paths are names of files, which lie anywhere below --input")
    add("--slope-column", metavar="COLUMN", help="of each volume's own, with --units rescale")
    add("--intercept-column", metavar="COLUMN")
    add(
        "--texts",
        type=Path,
        metavar="JSON",
        help="{name: text}, or a list of objects with --path-column, --text-column",
    )


def settings_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags that are keys of CTSettings, as far as they are given."""
    return {name: value for name in CTSettings.model_fields if (value := getattr(arguments, name)) is not None}


def refuse_idle_flags(arguments: argparse.Namespace, layout: str) -> None:
    """A flag that would do nothing is a misunderstanding."""
    refuse_idle(arguments, add_flags, ONLY_FOR, layout, LAYOUTS[layout])
    if layout == "folder" and arguments.texts is None:
        refuse_idle(arguments, add_flags, {"--path-column": (), "--text-column": ()}, layout, LAYOUTS[layout])
    if arguments.fractions and arguments.split_column:
        raise ValueError("--fractions splits by itself: leave out --split-column")
    named = [flag for flag in ("patient_column", "patient_folders", "patient_pattern") if getattr(arguments, flag)]
    if len(named) > 1:
        one, other = ("--" + flag.replace("_", "-") for flag in named[:2])
        raise ValueError(f"{one} and {other} both say whose the volumes are: keep one")
