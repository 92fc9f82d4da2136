"""The verb `ecg` of build_shards: which layout an archive has, what the flags ask for, and the build."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial

from tqdm import tqdm

from src.data.builders import hdf5, mimic, ptbxl
from src.data.builders.about import with_what_files_tell
from src.data.builders.ecg import ConvertECG, Reader
from src.data.builders.edf import EDFFiles, about_edf
from src.data.builders.folders import list_folder
from src.data.builders.hdf5 import TracingFiles, list_code15
from src.data.builders.matlab import MatlabFiles
from src.data.builders.mimic import list_mimic
from src.data.builders.mitbih import read_beats
from src.data.builders.ptbxl import FOLDS, list_ptbxl
from src.data.builders.records import NumpyFiles, WFDBFiles, check_rows
from src.data.builders.signals import Leads, lead_name
from src.data.builders.sources import Listing, list_table
from src.data.builders.xml import XMLFiles, about_xml
from src.data.index import Index
from src.data.make_index import Contents, Progress
from src.data.write_shards import write_shards
from tools.build_archive import Wrong, build_archive, in_splits, once, pair, with_patients
from tools.build_ecg_flags import FOLDERS, KINDS, ONLY_FOR_KIND, add_flags, refuse_idle_flags
from tools.build_flags import columns_of, given

TABLES = {"ptbxl": ptbxl.TABLE, "code15": hdf5.TABLE, "mimic": mimic.TABLE}
"""What tells a public archive's layout."""
PUBLISHED = {
    "ptbxl": {"name": "PTB-XL (Wagner et al. 2020)", "licence": "CC BY 4.0"},
    "code15": {"name": "CODE-15% (Ribeiro et al. 2021)", "licence": "CC BY 4.0"},
    "mimic": {"name": "MIMIC-IV-ECG (Gow et al. 2023)", "licence": "ODbL 1.0"},
}
PUBLIC_IDS = {"ptbxl": "PTB-XL", "mimic": "MIMIC-IV-ECG"}
SUFFIXES = {f".{kind}": kind for kind in KINDS if kind != "wfdb"}


def build_ecg(arguments: argparse.Namespace, indexing: Progress) -> Index | None:
    """Shards of an archive of ECGs, whichever of the layouts it has; None where they were only to be tried."""
    if arguments.input.suffix != ".npz" and not arguments.input.exists():
        raise ValueError(f"{arguments.input} is not there: name the records with --input")
    if arguments.output is None and not arguments.dry_run:
        raise ValueError("the shards need a place: name a new folder with --output")
    layout = _layout(arguments)
    refuse_idle_flags(arguments, layout)
    if layout == "beats":
        return _build_beats(arguments, indexing)
    return build_archive(
        arguments,
        partial(_listed, arguments, layout),
        partial(_settled, arguments, layout),
        indexing,
        keep_ids=layout in PUBLIC_IDS or arguments.keep_ids,
        public=PUBLIC_IDS.get(layout),
    )


def _listed(arguments: argparse.Namespace, layout: str, wrong: Wrong | None) -> Listing:
    """The records with their patients and splits."""
    listing = _listing(arguments, layout, wrong)
    kind = _kind(arguments, layout, listing)
    if kind in ("edf", "xml"):
        listing = _told_by_files(arguments, kind, listing)
    remedy = "--patient-folders, or a --table with --patient-column" if layout in FOLDERS else "--patient-column"
    return in_splits(arguments, with_patients(arguments, listing, remedy))


def _settled(arguments: argparse.Namespace, layout: str, listing: Listing) -> tuple[ConvertECG, Contents]:
    """What reads the records, and what the index tells of them."""
    reader = _reader(arguments, _kind(arguments, layout, listing))
    leads = _leads(arguments, reader, listing)
    source = {"reader": layout, "longest_gap": leads.longest_gap, **PUBLISHED.get(layout, {})}
    given = {"leads": leads.names, "sampling_rate": leads.sampling_rate}
    return ConvertECG(reader, leads), Contents("ecg", listing.labels, source, given)


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


def _listing(arguments: argparse.Namespace, layout: str, wrong: Wrong | None) -> Listing:
    if layout == "table":
        path_column = None if arguments.input.suffix == ".npy" else arguments.path_column
        columns = columns_of(arguments, path_column)
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
    if not kinds:  # every row is wrong, and told
        return "wfdb"
    kind = kinds.pop()
    if idle := [flag for flag in given(arguments, ONLY_FOR_KIND, add_flags) if kind not in ONLY_FOR_KIND[flag]]:
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
    renamed = once("--rename", (pair(text, "--rename", "OLD=NEW") for text in arguments.rename))
    for flag, names in (("--leads", arguments.leads), ("--source-leads", arguments.source_leads)):
        once(flag, ((lead_name(name), name) for name in names))
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


def _folds(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`train=1-8 val=9` as {"train": (1, ..., 8), "val": (9,)}."""
    form = "SPLIT=FIRST-LAST or SPLIT=FOLD,FOLD, for instance train=1-8"
    folds = {}
    for split, numbers in once("--folds", (pair(text, "--folds", form) for text in texts)).items():
        ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in numbers.split(",")]
        own = [range(int(ends[1]), int(ends[2] or ends[1]) + 1) for ends in ranges if ends]
        if len(own) < len(ranges) or not all(own):
            raise ValueError(f"--folds {split}={numbers} must be {form}")
        folds[split] = tuple(fold for numbers_of in own for fold in numbers_of)
    every = [fold for own in folds.values() for fold in own]
    if len(set(every)) < len(every):
        raise ValueError(f"--folds {' '.join(texts)}: a fold is in two splits")
    return folds
