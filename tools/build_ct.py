"""The verb `ct` of build_shards: the volumes of a folder or a table, and the build."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial

from src.data.build import Convert
from src.data.builders.ct_settings import CTSettings, read_settings
from src.data.builders.ct_sources import (
    dicom_names,
    found_by_name,
    list_volumes,
    with_patient_pattern,
    with_series,
)
from src.data.builders.ct_texts import read_texts, with_texts
from src.data.builders.sources import Columns, Listing, header_of, inside, list_table
from src.data.index import Index
from src.data.make_index import Contents, Progress
from tools.build_archive import Wrong, build_archive, in_splits, with_patients
from tools.build_ct_flags import SPLIT, TEXT, refuse_idle_flags, settings_given
from tools.build_flags import columns_of

REMEDY = "--patient-folders, --patient-pattern, or a --table with --patient-column"


def build_ct(arguments: argparse.Namespace, indexing: Progress) -> Index | None:
    """Shards of an archive of CT volumes; None where they were only to be tried."""
    if not arguments.input.is_dir():
        raise ValueError(f"{arguments.input} is no folder: name the volumes' one with --input")
    refuse_idle_flags(arguments, "folder" if arguments.table is None else "table")
    given = settings_given(arguments)
    if "units" not in given and arguments.settings is None:
        raise ValueError(
            "--units is missing: say whether the values are hu, unit_interval or rescale; a wrong one is refused, and"
            " the sentence says which fits"
        )
    settings = read_settings(arguments.settings, given)
    _refuse_idle_scales(arguments, settings)
    return build_archive(
        arguments,
        partial(_listed, arguments),
        partial(_settled, arguments, settings),
        indexing,
        keep_ids=arguments.keep_ids,
    )


def _listed(arguments: argparse.Namespace, wrong: Wrong | None) -> Listing:
    """The volumes with their patients, splits and texts."""
    if arguments.table is None:
        listing = list_volumes(arguments.input, arguments.patient_folders)
        _tell_of_others(listing)
    else:
        place = found_by_name(arguments.input) if arguments.by_name else inside
        columns = _columns(arguments)
        listing = list_table(arguments.table, arguments.input, columns, arguments.root, wrong, place)
        listing = with_series(listing, patients=arguments.patient_column is None)
    if arguments.patient_pattern:
        listing = with_patient_pattern(listing, arguments.patient_pattern)
    listing = _without_hospital_ids(arguments, listing)
    if arguments.texts is not None:
        listing = _with_texts(arguments, listing)
    return in_splits(arguments, with_patients(arguments, listing, REMEDY))


def _tell_of_others(listing: Listing) -> None:
    """Volumes in a format that is not read here should not go unnoticed."""
    if listing.passed:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(listing.passed.items()))
        print(f"files that are taken for no volume and were not read: {counts}", file=sys.stderr)


def _columns(arguments: argparse.Namespace) -> Columns:
    """Those that flags name, and `findings` and `split` where the table has them."""
    header = header_of(arguments.table)
    if arguments.text_column is None and arguments.texts is None and TEXT in header:
        arguments.text_column = TEXT
        print(f"the column {TEXT} goes along as the text; --text-column names another", file=sys.stderr)
    if arguments.split_column is None and not arguments.fractions and SPLIT in header:
        arguments.split_column = SPLIT
        print(f"the column {SPLIT} names the splits; --fractions or --split-column would do otherwise", file=sys.stderr)
    columns = columns_of(arguments, arguments.path_column)
    scale = [name for name in (arguments.slope_column, arguments.intercept_column) if name]
    return Columns(**{**vars(columns), "meta": tuple(dict.fromkeys([*columns.meta, *scale]))})


def _without_hospital_ids(arguments: argparse.Namespace, listing: Listing) -> Listing:
    """The listing without the patients that DICOM names, where ids are kept and nobody else says whose they are.

    Raises:
        ValueError: they were to be kept.
    """
    stated = arguments.patient_column or arguments.patient_folders or arguments.patient_pattern
    if not arguments.keep_ids or stated or not dicom_names(listing.sources):
        return listing
    if not arguments.no_patients:
        raise ValueError(
            "--keep-ids would put the patients of DICOM files, as the hospital calls them, into the shards: leave it"
            " out, or name pseudonyms with --patient-column, --patient-folders or --patient-pattern"
        )
    return replace(listing, sources=[replace(source, patient=None) for source in listing.sources])


def _with_texts(arguments: argparse.Namespace, listing: Listing) -> Listing:
    if arguments.text_column is not None and arguments.table is not None:
        raise ValueError("--texts and --text-column both say what the texts are: keep one")
    texts = read_texts(arguments.texts, arguments.path_column, arguments.text_column or TEXT)
    listing, unmatched = with_texts(listing, texts)
    without = sum(source.text is None for source in listing.sources)
    if unmatched:
        print(f"{len(unmatched):,} texts are of no volume, the first that of {unmatched[0]}", file=sys.stderr)
    if without:
        print(f"{without:,} volumes have no text", file=sys.stderr)
    return listing


def _settled(arguments: argparse.Namespace, settings: CTSettings, listing: Listing) -> tuple[Convert, Contents]:
    """What reads the volumes, and what the index tells of them."""
    _refuse_idle_statements(settings, listing)
    convert = settings.convert(arguments.slope_column, arguments.intercept_column)
    source = {"reader": "ct", **settings.model_dump(mode="json", exclude={"windows"})}
    return convert, Contents("ct", listing.labels, source, {"windows": settings.shown_windows()})


def _refuse_idle_scales(arguments: argparse.Namespace, settings: CTSettings) -> None:
    """A column of slopes or intercepts goes before one number for all."""
    if settings.units != "rescale" and (arguments.slope_column or arguments.intercept_column):
        raise ValueError(f"--slope-column and --intercept-column do nothing for --units {settings.units}")
    for name in ("slope", "intercept"):
        if getattr(arguments, f"{name}_column") and getattr(settings, name) is not None:
            raise ValueError(f"--{name} and --{name}-column both say the {name}: keep one")


def _refuse_idle_statements(settings: CTSettings, listing: Listing) -> None:
    """What is stated of files must be of use for one of them at least."""
    names = [source.path.name.casefold() for source in listing.sources if not source.parts]
    if settings.array is not None and listing.sources and not any(name.endswith(".npz") for name in names):
        raise ValueError(f"--array {settings.array} does nothing where no volume is an .npz: leave it out")
    if listing.sources and not names and (settings.source_orientation or settings.source_spacing):
        raise ValueError(
            "--source-orientation and --source-spacing do nothing for DICOM series, which say it themselves: leave"
            " them out"
        )
