"""What was counted in a folder of shards, as text: tables for people, and nothing of a report but its length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from src.data.columns import columns
from src.data.inspect import Inspection, Shared, SplitCounts
from src.data.modalities import MODALITIES

FAULTS = 100
"""That are named one by one; the JSON has all."""


def as_text(found: Inspection) -> str:
    """All splits, then what they share, then the faults."""
    lines = [found.heading]
    for split, counts in found.splits.items():
        lines += ["", *_split(found, split, counts)]
    lines += ["", *_between(found)]
    if found.faults:
        lines += ["", f"broken: {len(found.faults):,}, counted nowhere above"]
        lines += [f"  {file}: {f'sample {key}: ' if key else ''}{why}" for file, key, why in found.faults[:FAULTS]]
        if more := len(found.faults[FAULTS:]):
            lines.append(f"  and {more:,} more")
    return "\n".join(lines)


def _split(found: Inspection, split: str, counts: SplitCounts) -> Iterable[str]:
    unnamed = f", {counts.unnamed_patients:,} samples without one" if counts.unnamed_patients else ""
    yield f"{split}: {counts.samples:,} samples of {counts.patients:,} patients{unnamed}"
    yield f"  {counts.tars:,} tars, {counts.bytes:,} bytes"
    if not counts.samples:
        return
    yield f"  contents that come again: {counts.duplicates:,}"
    yield f"  reports: {_reports(counts)}"
    for line in MODALITIES[found.modality].lines(counts.contents):
        yield f"  {line}"
    if counts.labels:
        yield from _labels(found, counts)


def _reports(counts: SplitCounts) -> str:
    texts = counts.texts
    if not texts.reports:
        return "none"
    words = ", ".join(f"{length:,} in {count:,}" for length, count in texts.words.items())
    return (
        f"{texts.reports:,} of {counts.samples:,}, {texts.distinct:,} distinct, {texts.duplicate_rate:.1%} repeat"
        f" another; words, the most frequent: {words}"
    )


def _labels(found: Inspection, counts: SplitCounts) -> Iterable[str]:
    if found.labels.kind == "multiclass":
        yield from _indented(("class", "samples"), [(name, f"{own.positive:,}") for name, own in counts.labels.items()])
        yield f"  not of exactly one class: {counts.without_class:,}"
        return
    other = any(own.other for own in counts.labels.values())
    head = ("label", "positive", "negative", "unknown", *(["other"] if other else []))
    cells = [(name, *(f"{getattr(own, column):,}" for column in head[1:])) for name, own in counts.labels.items()]
    yield from _indented(head, cells)


def _indented(head: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterable[str]:
    return (f"  {line}" for line in columns(head, cells))


def _between(found: Inspection) -> Iterable[str]:
    if not found.shared:
        yield "between splits: no content and no patient is in two"
    for shared in found.shared:
        yield _pair(shared)


def _pair(shared: Shared) -> str:
    one, other = shared.splits
    named = ", ".join(f"{key} = {same}" for key, same in shared.keys)
    more = " ..." if shared.contents > len(shared.keys) else ""
    return f"between {one} and {other}: {shared.contents:,} contents and {shared.patients:,} patients are in both" + (
        f" ({named}{more})" if named else ""
    )
