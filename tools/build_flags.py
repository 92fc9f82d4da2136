"""The flags that the verbs of build_shards share."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from src.data.builders.sources import Columns
from src.data.tars import SAMPLES_PER_SHARD
from tools.build_archive import once

FOLDERS = "the folder right below --input is the patient of its records"
META = "what else goes into the shards, age and sex for instance: nothing that tells who it is"
AddFlags = Callable[[argparse.ArgumentParser], None]


def add_build_flags(parser: argparse.ArgumentParser, records: str, samples_per_shard: int = SAMPLES_PER_SHARD) -> None:
    """Where records come from and where shards go; `records` says what --input may be."""
    add = parser.add_argument
    add("--input", type=Path, required=True, help=records)
    add("--output", type=Path, help="a new folder; who is who goes to OUTPUT.private and stays here")
    add("--dry-run", action="store_true", help="read all, write nothing, and tell what is wrong, row by row")
    add("--workers", type=count, default=len(os.sched_getaffinity(0)), help="reading processes; default: %(default)s")
    add("--samples-per-shard", type=count, default=samples_per_shard, help="default: %(default)s")


def add_patient_flags(parser: argparse.ArgumentParser, folders: str = FOLDERS) -> argparse._ArgumentGroup:
    """Whose the records are, and their splits; returns the group, to which a verb may add.

    `folders` says which folder --patient-folders means.
    """
    group = parser.add_argument_group("patients and splits")
    add = group.add_argument
    add("--no-patients", action="store_true", help="take records whose patient nobody knows")
    add("--patient-folders", action="store_true", help=folders)
    add("--keep-ids", action="store_true", help="names and patients are pseudonyms already: keep them")
    add("--fractions", nargs="+", metavar="SPLIT=SHARE", help="patients at random, as in train=0.8 val=0.1 test=0.1")
    return group


def add_table_flags(parser: argparse.ArgumentParser, path_column: str = "path") -> argparse._ArgumentGroup:
    """A CSV that lists the records; returns the group, to which a verb may add."""
    table = parser.add_argument_group("table")
    add = table.add_argument
    add("--table", type=Path, help="CSV with a row for each record")
    add("--path-column", default=path_column, help="path below --input; default: %(default)s")
    add("--root", metavar="PREFIX", help="what absolute paths begin with instead of --input")
    add("--patient-column")
    add("--split-column", help="train, val, test or any word; default: all are train")
    add("--text-column", help="the report")
    add("--meta-columns", nargs="+", default=[], help=META)
    add = table.add_mutually_exclusive_group().add_argument
    add("--label-columns", nargs="+", default=[], help="a number each, nothing where unknown")
    add("--class-column", help="one word out of several")
    return table


def columns_of(arguments: argparse.Namespace, path: str | None, study: str | None = None) -> Columns:
    """The columns that the flags of a table name; each but once."""
    once("--label-columns", ((name, name) for name in arguments.label_columns))
    once("--meta-columns", ((name, name) for name in arguments.meta_columns))
    return Columns(
        path=path,
        study=study,
        patient=arguments.patient_column,
        text=arguments.text_column,
        split=arguments.split_column,
        labels=tuple(arguments.label_columns),
        category=arguments.class_column,
        meta=tuple(arguments.meta_columns),
    )


def refuse_idle(
    arguments: argparse.Namespace,
    add_flags: AddFlags,
    only_for: Mapping[str, Collection[str]],
    layout: str,
    called: str,
) -> None:
    """Refuse flags that would do nothing for a layout: a misunderstanding."""
    if idle := [flag for flag in given(arguments, only_for, add_flags) if layout not in only_for[flag]]:
        raise ValueError(f"{idle[0]} does nothing for {called}: leave it out")


def given(arguments: argparse.Namespace, flags: Iterable[str], add_flags: AddFlags) -> list[str]:
    """Those that are not as they are by default."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    names = {flag: flag.removeprefix("--").replace("-", "_") for flag in flags}
    return [flag for flag, name in names.items() if getattr(arguments, name) != parser.get_default(name)]


def count(text: str) -> int:
    """A flag's whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1")
    return int(text)


def positive(text: str) -> float:
    """A flag's number above 0."""
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def not_negative(text: str) -> float:
    """A flag's number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be a number of at least 0")
    return number
