"""What the verbs of build_shards share: patients, splits, dry runs and the build itself."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from src.data.build import Convert, build_shards, claim, problems
from src.data.builders.sources import (
    Listing,
    Pseudonyms,
    check_splits,
    refuse_without_patient,
    salt_of,
    split_by_patient,
    split_problems,
)
from src.data.index import Index
from src.data.make_index import Contents, Progress
from src.data.tars import refuse_taken

T = TypeVar("T")
SPLIT_SEED = 0
Wrong = Callable[[int, str], None]
"""Told a row of a table, from 1, and what is wrong with it."""
Listed = Callable[[Wrong | None], Listing]
"""Lists the records of an archive with their patients and splits; with a Wrong, wrong rows are told and left out."""
Settled = Callable[[Listing], tuple[Convert, Contents]]
"""How records that are listed are converted, and what the index tells of them."""


def build_archive(
    arguments: argparse.Namespace,
    listed: Listed,
    settled: Settled,
    indexing: Progress,
    *,
    keep_ids: bool,
    public: str | None = None,
) -> Index | None:
    """Shards of an archive; None where it was only to be tried (--dry-run).

    Args:
        arguments: with the flags of build_flags.add_build_flags.
        listed: what the records are.
        settled: what becomes of them.
        indexing: wraps the list of tars.
        keep_ids: names and patients are pseudonyms already.
        public: the name of a public archive whose ids are kept without being asked to.
    """
    if arguments.output is None and not arguments.dry_run:
        raise ValueError("the shards need a place: name a new folder with --output")
    if arguments.output is not None:
        refuse_taken(arguments.output.resolve())
    if arguments.dry_run:
        _dry_run(arguments, listed, settled, keep_ids)
        return None
    output = arguments.output.resolve()
    listing = listed(None)
    if not listing.sources:
        first = ": ".join(listing.rejected[0])
        raise ValueError(f"none of {len(listing.rejected):,} records can be used; the first: {first}")
    check_splits(listing)
    convert, contents = settled(listing)
    with claim(output) as private:
        index, rejected = build_shards(
            output,
            Pseudonyms(None if keep_ids else salt_of(private)).apply(listing),
            convert,
            contents,
            workers=arguments.workers,
            samples_per_shard=arguments.samples_per_shard,
            writing=_reading,
            indexing=indexing,
        )
    if public is not None:
        print(f"the ids of {public} are public and were kept; an archive of your own takes --table", file=sys.stderr)
    if rejected:
        print(f"{rejected:,} records were left out: {private / 'rejected.csv'} tells which and why", file=sys.stderr)
    return index


def _dry_run(arguments: argparse.Namespace, listed: Listed, settled: Settled, keep_ids: bool) -> None:
    """Read everything, write nothing, and tell row by row what is wrong.

    Raises:
        ValueError: something is.
    """
    found: list[tuple[int, str]] = []
    try:
        listing = listed(lambda row, problem: found.append((row, problem)))
        if listing.sources:
            listing = _named_for_now(listing, keep_ids, found)
            convert, _ = settled(listing)
            reading = problems(listing, convert, arguments.workers)
            tried = [*split_problems(listing), *_reading(reading, 0, len(listing.sources) + len(listing.rejected))]
        else:
            tried = listing.rejected
    except ValueError:  # of the whole; the rows that are wrong by themselves are told too
        _tell(found)
        raise
    found += [(listing.rows.get(name, 0), f"{name}: {problem}") for name, problem in tried if problem]
    _tell(found)
    if found:
        raise ValueError(f"{len(found):,} things are wrong with {arguments.table or arguments.input}, told above")
    print(f"nothing is wrong with the {len(listing.sources):,} records; nothing was written")


def _named_for_now(listing: Listing, keep_ids: bool, found: list[tuple[int, str]]) -> Listing:
    """Keys that are kept are tried; others are of no salt that any build has."""
    if keep_ids:
        try:
            return Pseudonyms(None).apply(listing)
        except ValueError as error:
            found.append((0, str(error)))
    return Pseudonyms(bytes(32)).apply(listing)


def _tell(found: Iterable[tuple[int, str]]) -> None:
    for row, problem in sorted(found):
        print(f"row {row}: {problem}" if row else problem)


def _reading(records: Iterator[T], done: int, total: int) -> Iterable[T]:
    return tqdm(records, "reading", total, initial=done, unit=" records")


def with_patients(arguments: argparse.Namespace, listing: Listing, remedy: str) -> Listing:
    """Records of nobody are refused: without patients nothing keeps one of them from being in train and test.

    `remedy` names the flags that tell patients.
    """
    if arguments.no_patients or not listing.sources:
        return listing
    if all(source.patient is None for source in listing.sources):
        raise ValueError(
            f"no record of {arguments.table or arguments.input} has a patient: say whose they are with {remedy},"
            " or that nobody knows with --no-patients"
        )
    return refuse_without_patient(listing)


def in_splits(arguments: argparse.Namespace, listing: Listing) -> Listing:
    """The listing with patients dealt to splits at random, where --fractions asks for it."""
    if not arguments.fractions:
        return listing
    shares = _shares(arguments.fractions)
    listing = split_by_patient(listing, shares, SPLIT_SEED)
    for split in sorted(set(shares) - {source.split for source in listing.sources}):
        print(f"warning: no patient fell into {split}: there are too few for such shares", file=sys.stderr)
    return listing


def pair(text: str, flag: str, form: str) -> tuple[str, str]:
    """NAME=VALUE of a flag."""
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise ValueError(f"{flag} {text} must be {form}")
    return name.strip(), value.strip()


def once(flag: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
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
    for split, share in once("--fractions", (pair(text, "--fractions", form) for text in texts)).items():
        try:
            shares[split] = float(share)
        except ValueError:
            shares[split] = math.nan
        if not 0 < shares[split] <= 1:
            raise ValueError(f"--fractions {split}={share}: the share of a split is a number above 0 and at most 1")
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        raise ValueError(f"--fractions {' '.join(texts)} add up to {sum(shares.values()):g}: they must make 1")
    return shares
