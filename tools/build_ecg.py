"""The verb `ecg` of build_shards: which layout an archive has, what the flags ask for, and the build."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.config.sections import STANDARD_LEADS
from src.data.build import Converted, Reader, build_shards, claim, problems
from src.data.builders import hdf5, mimic, ptbxl
from src.data.builders.about import with_what_files_tell
from src.data.builders.edf import EDFFiles, about_edf
from src.data.builders.folders import list_folder
from src.data.builders.hdf5 import TracingFiles, list_code15
from src.data.builders.matlab import MatlabFiles
from src.data.builders.mimic import list_mimic
from src.data.builders.mitbih import read_beats
from src.data.builders.ptbxl import FOLDS, SETS, list_ptbxl
from src.data.builders.records import NumpyFiles, WFDBFiles, check_rows
from src.data.builders.signals import Leads, lead_name
from src.data.builders.sources import (
    Columns,
    Listing,
    Pseudonyms,
    check_splits,
    list_table,
    refuse_without_patient,
    salt_of,
    split_by_patient,
    split_problems,
)
from src.data.builders.xml import XMLFiles, about_xml
from src.data.index import Index, Labels
from src.data.make_index import Progress
from src.data.write_shards import SAMPLES_PER_SHARD, Description, refuse_taken, write_shards

SPLIT_SEED = 0
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
TABLES = {"ptbxl": ptbxl.TABLE, "code15": hdf5.TABLE, "mimic": mimic.TABLE}
"""What tells a public archive's layout."""
PUBLISHED = {
    "ptbxl": {"name": "PTB-XL (Wagner et al. 2020)", "licence": "CC BY 4.0"},
    "code15": {"name": "CODE-15% (Ribeiro et al. 2021)", "licence": "CC BY 4.0"},
    "mimic": {"name": "MIMIC-IV-ECG (Gow et al. 2023)", "licence": "ODbL 1.0"},
}
PUBLIC_IDS = {"ptbxl": "PTB-XL", "mimic": "MIMIC-IV-ECG"}
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
SUFFIXES = {f".{kind}": kind for kind in KINDS if kind != "wfdb"}
ONLY_FOR_KIND = {
    "--source-rate": ("npy", "mat"),
    "--source-leads": ("npy", "mat"),
    "--per-millivolt": ("npy", "mat"),
    "--variable": ("mat",),
    "--ignore-checksums": ("wfdb",),
}
"""Of the records of a table."""
META = "what else goes into the shards, age and sex for instance: nothing that tells who it is"


def build_ecg(arguments: argparse.Namespace, indexing: Progress) -> Index | None:
    """Shards of an archive of ECGs, whichever of the layouts it has; None where they were only to be tried."""
    if arguments.input.suffix != ".npz" and not arguments.input.exists():
        raise ValueError(f"{arguments.input} is not there: name the records with --input")
    if arguments.output is None and not arguments.dry_run:
        raise ValueError("the shards need a place: name a new folder with --output")
    layout = _layout(arguments)
    _refuse_idle_flags(arguments, layout)
    if layout == "beats":
        return _build_beats(arguments, indexing)
    if arguments.output is not None:
        refuse_taken(arguments.output.resolve())
    if arguments.dry_run:
        _dry_run(arguments, layout)
        return None
    output = arguments.output.resolve()
    listing, reader = _prepared(arguments, layout)
    check_splits(listing)
    leads = _leads(arguments, reader, listing)
    with claim(output) as private:
        index, rejected = build_shards(
            output,
            Pseudonyms(None if _keeps_ids(arguments, layout) else salt_of(private)).apply(listing),
            reader,
            leads,
            _description(layout, leads, listing.labels),
            workers=arguments.workers,
            samples_per_shard=arguments.samples_per_shard,
            writing=_writing,
            indexing=indexing,
        )
    if layout in PUBLIC_IDS:
        name = PUBLIC_IDS[layout]
        print(f"the ids of {name} are public and were kept; an archive of your own takes --table", file=sys.stderr)
    if rejected:
        print(f"{rejected:,} records were left out: {private / 'rejected.csv'} tells which and why", file=sys.stderr)
    return index


def _keeps_ids(arguments: argparse.Namespace, layout: str) -> bool:
    return layout in PUBLIC_IDS or arguments.keep_ids


def _dry_run(arguments: argparse.Namespace, layout: str) -> None:
    """Read everything, write nothing, and tell row by row what is wrong.

    Raises:
        ValueError: something is.
    """
    found: list[tuple[int, str]] = []
    try:
        listing, reader = _prepared(arguments, layout, lambda row, problem: found.append((row, problem)))
        listing = _named_for_now(arguments, layout, listing, found)
        leads = _leads(arguments, reader, listing)
        description = _description(layout, leads, listing.labels)
        tried = [*split_problems(listing), *problems(listing, reader, leads, description, arguments.workers)]
    except ValueError:  # of the whole; the rows that are wrong by themselves are told too
        _tell(found)
        raise
    found += [(listing.rows.get(name, 0), f"{name}: {problem}") for name, problem in tried if problem]
    _tell(found)
    if found:
        raise ValueError(f"{len(found):,} things are wrong with {arguments.table or arguments.input}, told above")
    print(f"nothing is wrong with the {len(listing.sources):,} records; nothing was written")


def _named_for_now(
    arguments: argparse.Namespace, layout: str, listing: Listing, found: list[tuple[int, str]]
) -> Listing:
    """Keys that are kept are tried; others are of no salt that any build has."""
    if _keeps_ids(arguments, layout):
        try:
            return Pseudonyms(None).apply(listing)
        except ValueError as error:
            found.append((0, str(error)))
    return Pseudonyms(bytes(32)).apply(listing)


def _tell(found: Iterable[tuple[int, str]]) -> None:
    for row, problem in sorted(found):
        print(f"row {row}: {problem}" if row else problem)


def _prepared(
    arguments: argparse.Namespace, layout: str, wrong: Callable[[int, str], None] | None = None
) -> tuple[Listing, Reader]:
    """The records with their patients and splits, and what reads them."""
    listing = _listing(arguments, layout, wrong)
    kind = _kind(arguments, layout, listing)
    if kind in ("edf", "xml"):
        listing = _told_by_files(arguments, kind, listing)
    listing = _with_patients(arguments, layout, listing)
    if arguments.fractions:
        shares = _shares(arguments.fractions)
        listing = split_by_patient(listing, shares, SPLIT_SEED)
        for split in sorted(set(shares) - {source.split for source in listing.sources}):
            print(f"warning: no patient fell into {split}: there are too few for such shares", file=sys.stderr)
    return listing, _reader(arguments, kind)


def _told_by_files(arguments: argparse.Namespace, kind: str, listing: Listing) -> Listing:
    """Age, sex, and the patient where no flag says whose the records are."""
    patients = not (arguments.patient_folders or arguments.patient_column or arguments.no_patients)
    if patients and arguments.keep_ids:
        raise ValueError(
            f"--keep-ids would put the patients of {KINDS[kind]}, as the hospital calls them, into the shards:"
            " leave it out, or name pseudonyms with --patient-column"
        )
    return with_what_files_tell(listing, about_edf if kind == "edf" else about_xml, patients)


def _build_beats(arguments: argparse.Namespace, indexing: Progress) -> Index:
    beats = read_beats(arguments.input)
    records = tqdm(beats.records(), "writing", len(beats), unit=" samples")
    return write_shards(arguments.output, records, beats.description(), arguments.samples_per_shard, indexing)


def _refuse_idle_flags(arguments: argparse.Namespace, layout: str) -> None:
    """A flag that would do nothing is a misunderstanding."""
    if idle := [flag for flag in _given(arguments, ONLY_FOR) if layout not in ONLY_FOR[flag]]:
        raise ValueError(f"{idle[0]} does nothing for {LAYOUTS[layout]}: leave it out")
    if arguments.fractions and (arguments.split_column or arguments.folds):
        raise ValueError("--fractions splits by itself: leave out --split-column and --folds")


def _given(arguments: argparse.Namespace, flags: Iterable[str]) -> list[str]:
    """Those that are not as they are by default."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    names = {flag: flag.removeprefix("--").replace("-", "_") for flag in flags}
    return [flag for flag, name in names.items() if getattr(arguments, name) != parser.get_default(name)]


def _layout(arguments: argparse.Namespace) -> str:
    """Which of LAYOUTS the input has."""
    if arguments.input.suffix == ".npz":
        return "beats"
    if arguments.table is not None:
        return "table"
    if arguments.input.suffix == ".npy":
        raise ValueError(f"{arguments.input} tells nothing of patients and labels: give their CSV with --table")
    if arguments.format is not None:
        return str(arguments.format)
    found = [layout for layout, table in TABLES.items() if (arguments.input / table).is_file()]
    if "code15" in found and not any(arguments.input.glob("*.hdf5")):
        found.remove("code15")
    if len(found) > 1:
        raise ValueError(f"{arguments.input} has {TABLES[found[0]]} and {TABLES[found[1]]}: keep archives apart")
    return found[0] if found else "wfdb"


def _listing(arguments: argparse.Namespace, layout: str, wrong: Callable[[int, str], None] | None = None) -> Listing:
    if layout == "table":
        _once("--label-columns", ((name, name) for name in arguments.label_columns))
        _once("--meta-columns", ((name, name) for name in arguments.meta_columns))
        columns = Columns(
            path=None if arguments.input.suffix == ".npy" else arguments.path_column,
            patient=arguments.patient_column,
            text=arguments.text_column,
            split=arguments.split_column,
            labels=tuple(arguments.label_columns),
            category=arguments.class_column,
            meta=tuple(arguments.meta_columns),
        )
        listing = list_table(arguments.table, arguments.input, columns, arguments.root, wrong)
        if columns.path is None:
            check_rows(arguments.input, arguments.table, listing.length)
        return listing
    if layout == "ptbxl":
        if arguments.sampling_rate is None:
            raise ValueError(f"{arguments.input} has the layout of PTB-XL: choose --sampling-rate 100 or 500")
        folds = _folds(arguments.folds) if arguments.folds else FOLDS
        return list_ptbxl(arguments.input, arguments.sampling_rate, arguments.labels, folds)
    if layout == "code15":
        return list_code15(arguments.input)
    if layout == "mimic":
        return list_mimic(arguments.input)
    return list_folder(arguments.input, layout, arguments.patient_folders)


def _with_patients(arguments: argparse.Namespace, layout: str, listing: Listing) -> Listing:
    """Records of nobody are refused: without patients nothing keeps one of them from being in train and test."""
    if arguments.no_patients:
        return listing
    if all(source.patient is None for source in listing.sources):
        remedy = "--patient-folders, or a --table with --patient-column" if layout in FOLDERS else "--patient-column"
        raise ValueError(
            f"no record of {arguments.table or arguments.input} has a patient: say whose they are with {remedy},"
            " or that nobody knows with --no-patients"
        )
    return refuse_without_patient(listing)


def _kind(arguments: argparse.Namespace, layout: str, listing: Listing) -> str:
    """What the records are: of a table, by how their paths end, and all of one kind."""
    if layout != "table":
        return {"ptbxl": "wfdb", "mimic": "wfdb"}.get(layout, layout)
    kinds = {
        "npy" if source.row is not None else SUFFIXES.get(source.path.suffix.casefold(), "wfdb")
        for source in listing.sources
    }
    if len(kinds) > 1:
        one, other = sorted(KINDS[kind] for kind in kinds)[:2]
        raise ValueError(f"{arguments.table} lists {one} and {other}: build them one after the other")
    kind = kinds.pop() if kinds else "wfdb"
    if idle := [flag for flag in _given(arguments, ONLY_FOR_KIND) if kind not in ONLY_FOR_KIND[flag]]:
        raise ValueError(f"{idle[0]} does nothing for {KINDS[kind]}: leave it out")
    if kind in ("npy", "mat") and arguments.source_rate is None:
        raise ValueError(f"a .{kind} does not tell its sampling rate: state it with --source-rate")
    return kind


def _reader(arguments: argparse.Namespace, kind: str) -> Reader:
    array = (tuple(arguments.source_leads), arguments.source_rate, arguments.per_millivolt)
    readers: dict[str, Callable[[], Reader]] = {
        "wfdb": lambda: WFDBFiles(verify=not arguments.ignore_checksums),
        "npy": lambda: NumpyFiles(*array),
        "mat": lambda: MatlabFiles(arguments.variable, *array),
        "edf": EDFFiles,
        "xml": XMLFiles,
        "code15": lambda: TracingFiles(arguments.per_millivolt),
    }
    return readers[kind]()


def _leads(arguments: argparse.Namespace, reader: Reader, listing: Listing) -> Leads:
    renamed = _once("--rename", (pair(text, "--rename", "OLD=NEW") for text in arguments.rename))
    for flag, names in (("--leads", arguments.leads), ("--source-leads", arguments.source_leads)):
        _once(flag, ((lead_name(name), name) for name in names))
    return Leads(
        names=tuple(arguments.leads),
        sampling_rate=arguments.sampling_rate or _common_rate(reader, listing),
        resample=arguments.sampling_rate is not None,
        renamed=renamed,
        longest_gap=arguments.longest_gap,
        fewest=arguments.fewest_leads,
        shortest=arguments.shortest,
    )


def _common_rate(reader: Reader, listing: Listing) -> float:
    """That of the first record that can be opened; those of another rate will be rejected."""
    reason = "there are no records"
    for source in listing.sources:
        try:
            return reader.rate(source.path, source.row)
        except ValueError as error:
            reason = f"{source.name}: {error}"
    raise ValueError(f"no record can be opened; the last: {reason}")


def _description(layout: str, leads: Leads, labels: Labels) -> Description:
    source: dict[str, Any] = {"reader": layout, "longest_gap": leads.longest_gap}
    source |= PUBLISHED.get(layout, {})
    return Description(leads.names, leads.sampling_rate, labels, source)


def _writing(records: Iterator[Converted], done: int, total: int) -> Iterable[Converted]:
    return tqdm(records, "reading", total, initial=done, unit=" records")


def pair(text: str, flag: str, form: str) -> tuple[str, str]:
    """NAME=VALUE of a flag."""
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise ValueError(f"{flag} {text} must be {form}")
    return name.strip(), value.strip()


def _once(flag: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs as a dict, in which no name may come twice."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{flag} names {name} twice")
        found[name] = value
    return found


def _shares(texts: Sequence[str]) -> dict[str, float]:
    form = "SPLIT=SHARE, for instance train=0.8"
    shares = {}
    for split, share in _once("--fractions", (pair(text, "--fractions", form) for text in texts)).items():
        try:
            shares[split] = float(share)
        except ValueError:
            shares[split] = math.nan
        if not 0 < shares[split] <= 1:
            raise ValueError(f"--fractions {split}={share}: the share of a split is a number above 0 and at most 1")
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        raise ValueError(f"--fractions {' '.join(texts)} add up to {sum(shares.values()):g}: they must make 1")
    return shares


def _folds(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`train=1-8 val=9` as {"train": (1, ..., 8), "val": (9,)}."""
    form = "SPLIT=FIRST-LAST or SPLIT=FOLD,FOLD, for instance train=1-8"
    folds = {}
    for split, numbers in _once("--folds", (pair(text, "--folds", form) for text in texts)).items():
        ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in numbers.split(",")]
        own = [range(int(ends[1]), int(ends[2] or ends[1]) + 1) for ends in ranges if ends]
        if len(own) < len(ranges) or not all(own):
            raise ValueError(f"--folds {split}={numbers} must be {form}")
        folds[split] = tuple(fold for numbers_of in own for fold in numbers_of)
    every = [fold for own in folds.values() for fold in own]
    if len(set(every)) < len(every):
        raise ValueError(f"--folds {' '.join(texts)}: a fold is in two splits")
    return folds


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
