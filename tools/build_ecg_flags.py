"""The flags of the verb `ecg` of build_shards, and for which layouts and files each does something."""

from __future__ import annotations

import argparse

from src.config.data import STANDARD_LEADS
from src.data.builders.ptbxl import SETS
from tools.build_flags import (
    add_build_flags,
    add_patient_flags,
    add_table_flags,
    count,
    not_negative,
    positive,
    refuse_idle,
)

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


def refuse_idle_flags(arguments: argparse.Namespace, layout: str) -> None:
    """A flag that would do nothing is a misunderstanding."""
    refuse_idle(arguments, add_flags, ONLY_FOR, layout, LAYOUTS[layout])
    if arguments.fractions and (arguments.split_column or arguments.folds):
        raise ValueError("--fractions splits by itself: leave out --split-column and --folds")


def add_flags(ecg: argparse.ArgumentParser) -> None:
    """What `ecg --help` tells."""
    add_build_flags(ecg, INPUT)
    add = ecg.add_argument
    add("--format", choices=FOLDERS, help="which files of a folder are the records; default: wfdb")

    add = ecg.add_argument_group("leads").add_argument
    add("--leads", nargs="+", default=STANDARD_LEADS, help="in the order of the shards; default: I ... aVF, V1 ... V6")
    add("--rename", nargs="+", default=[], metavar="OLD=NEW", help="what the recorder calls OLD is the lead NEW")
    add("--sampling-rate", type=positive, metavar="HZ", help=SAMPLING_RATE)
    add("--longest-gap", type=not_negative, default=0.2, metavar="SECONDS", help=LONGEST_GAP)
    add("--fewest-leads", type=count, default=1, metavar="N", help="reject records with fewer leads that have a signal")
    add("--shortest", type=not_negative, default=0.0, metavar="SECONDS", help="reject shorter records")
    add("--ignore-checksums", action="store_true", help="take WFDB signals that are not what their header says")

    add = ecg.add_argument_group(".npy and .mat files").add_argument
    add("--source-rate", type=positive, metavar="HZ", help="their sampling rate")
    add("--source-leads", nargs="+", default=STANDARD_LEADS, help="their rows; default: I ... aVF, V1 ... V6")
    add(
        "--per-millivolt",
        type=positive,
        default=1.0,
        metavar="X",
        help="values for 1 mV: 1000 for microvolts; default: 1; of CODE-15%% too",
    )
    add("--variable", default="val", metavar="NAME", help="of a .mat; default: %(default)s")

    add = add_patient_flags(ecg).add_argument
    add("--folds", nargs="+", metavar="SPLIT=FOLDS", help="of PTB-XL; default: train=1-8 val=9 test=10")
    add("--labels", nargs="+", choices=SETS, default=["superclass"], help="of PTB-XL; default: superclass")

    add_table_flags(ecg)
