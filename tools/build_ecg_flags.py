"""The flags of the verb `ecg` of build_shards, and for which layouts and files each does something."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable
from pathlib import Path

from src.config.sections import STANDARD_LEADS
from src.data.builders.ptbxl import SETS
from src.data.write_shards import SAMPLES_PER_SHARD

INPUT = """folder of records, of PTB-XL, CODE-15%% or MIMIC-IV-ECG, or that the paths of --table start in; an .npy
[records, leads, samples] with a row of --table for each; an .npz of MIT-BIH beats"""
SAMPLING_RATE = "bring every record to this rate; default: that of the first record, and others are rejected"
LONGEST_GAP = "NaN that are interpolated; a lead with a longer gap counts as missing; default: %(default)s"
FOLDERS = ("wfdb", "edf", "xml")
EVERY = ("table", *FOLDERS, "ptbxl", "code15", "mimic")
LAYOUTS = {
    "beats": "an .npz of beats",
    "table": "records that a --table lists",
    "wfdb": "a folder of WFDB records",
    "edf": "a folder of EDF files",
    "xml": "a folder of XML files",
    "ptbxl": "the layout of PTB-XL",
    "code15": "the layout of CODE-15%",
    "mimic": "the layout of MIMIC-IV-ECG",
}
ONLY_FOR = {
    "--path-column": ("table",),
    "--patient-column": ("table",),
    "--split-column": ("table",),
    "--text-column": ("table",),
    "--meta-columns": ("table",),
    "--label-columns": ("table",),
    "--class-column": ("table",),
    "--root": ("table",),
    "--source-rate": ("table",),
    "--source-leads": ("table",),
    "--variable": ("table",),
    "--per-millivolt": ("table", "code15"),
    "--patient-folders": FOLDERS,
    "--format": FOLDERS,
    "--folds": ("ptbxl",),
    "--labels": ("ptbxl",),
    "--table": ("table",),
    "--leads": EVERY,
    "--rename": EVERY,
    "--sampling-rate": EVERY,
    "--longest-gap": EVERY,
    "--fewest-leads": EVERY,
    "--shortest": EVERY,
    "--ignore-checksums": ("table", "wfdb", "ptbxl", "mimic"),
    "--no-patients": EVERY,
    "--keep-ids": ("table", "wfdb", "ptbxl", "code15", "mimic"),
    "--fractions": EVERY,
    "--dry-run": EVERY,
}
KINDS = {"wfdb": "WFDB records", "npy": ".npy files", "mat": ".mat files", "edf": "EDF files", "xml": "XML files"}
ONLY_FOR_KIND = {
    "--source-rate": ("npy", "mat"),
    "--source-leads": ("npy", "mat"),
    "--per-millivolt": ("npy", "mat"),
    "--variable": ("mat",),
    "--ignore-checksums": ("wfdb",),
}
"""Of the records of a table."""
META = "what else goes into the shards, age and sex for instance: nothing that tells who it is"


def refuse_idle_flags(arguments: argparse.Namespace, layout: str) -> None:
    """A flag that would do nothing is a misunderstanding."""
    if idle := [flag for flag in given(arguments, ONLY_FOR) if layout not in ONLY_FOR[flag]]:
        raise ValueError(f"{idle[0]} does nothing for {LAYOUTS[layout]}: leave it out")
    if arguments.fractions and (arguments.split_column or arguments.folds):
        raise ValueError("--fractions splits by itself: leave out --split-column and --folds")


def given(arguments: argparse.Namespace, flags: Iterable[str]) -> list[str]:
    """Those that are not as they are by default."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    names = {flag: flag.removeprefix("--").replace("-", "_") for flag in flags}
    return [flag for flag, name in names.items() if getattr(arguments, name) != parser.get_default(name)]


def add_flags(ecg: argparse.ArgumentParser) -> None:
    """What `ecg --help` tells."""
    add = ecg.add_argument
    add("--input", type=Path, required=True, help=INPUT)
    add("--output", type=Path, help="a new folder; who is who goes to OUTPUT.private and stays here")
    add("--dry-run", action="store_true", help="read all, write nothing, and tell what is wrong, row by row")
    add("--format", choices=FOLDERS, help="which files of a folder are the records; default: wfdb")
    add("--workers", type=_count, default=len(os.sched_getaffinity(0)), help="reading processes; default: %(default)s")
    add("--samples-per-shard", type=_count, default=SAMPLES_PER_SHARD, help="default: %(default)s")

    add = ecg.add_argument_group("leads").add_argument
    add("--leads", nargs="+", default=STANDARD_LEADS, help="in the order of the shards; default: I ... aVF, V1 ... V6")
    add("--rename", nargs="+", default=[], metavar="OLD=NEW", help="what the recorder calls OLD is the lead NEW")
    add("--sampling-rate", type=_positive, metavar="HZ", help=SAMPLING_RATE)
    add("--longest-gap", type=_not_negative, default=0.2, metavar="SECONDS", help=LONGEST_GAP)
    add(
        "--fewest-leads", type=_count, default=1, metavar="N", help="reject records with fewer leads that have a signal"
    )
    add("--shortest", type=_not_negative, default=0.0, metavar="SECONDS", help="reject shorter records")
    add("--ignore-checksums", action="store_true", help="take WFDB signals that are not what their header says")

    add = ecg.add_argument_group(".npy and .mat files").add_argument
    add("--source-rate", type=_positive, metavar="HZ", help="their sampling rate")
    add("--source-leads", nargs="+", default=STANDARD_LEADS, help="their rows; default: I ... aVF, V1 ... V6")
    add(
        "--per-millivolt",
        type=_positive,
        default=1.0,
        metavar="X",
        help="values for 1 mV: 1000 for microvolts; default: 1; of CODE-15%% too",
    )
    add("--variable", default="val", metavar="NAME", help="of a .mat; default: %(default)s")

    add = ecg.add_argument_group("patients and splits").add_argument
    add("--no-patients", action="store_true", help="take records whose patient nobody knows")
    add("--patient-folders", action="store_true", help="the folder right below --input is the patient of its records")
    add("--keep-ids", action="store_true", help="names and patients are pseudonyms already: keep them")
    add("--fractions", nargs="+", metavar="SPLIT=SHARE", help="patients at random, as in train=0.8 val=0.1 test=0.1")
    add("--folds", nargs="+", metavar="SPLIT=FOLDS", help="of PTB-XL; default: train=1-8 val=9 test=10")
    add("--labels", nargs="+", choices=SETS, default=["superclass"], help="of PTB-XL; default: superclass")

    table = ecg.add_argument_group("table")
    add = table.add_argument
    add("--table", type=Path, help="CSV with a row for each record")
    add("--path-column", default="path", help="path below --input, with or without suffix; default: %(default)s")
    add("--root", metavar="PREFIX", help="what absolute paths begin with instead of --input")
    add("--patient-column")
    add("--split-column", help="train, val, test or any word; default: all are train")
    add("--text-column", help="the report")
    add("--meta-columns", nargs="+", default=[], help=META)
    add = table.add_mutually_exclusive_group().add_argument
    add("--label-columns", nargs="+", default=[], help="a number each, nothing where unknown")
    add("--class-column", help="one word out of several")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    number = _not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def _not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be a number of at least 0")
    return number
