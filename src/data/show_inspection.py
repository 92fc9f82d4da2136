"""What was counted in a folder of shards, as text: tables for people, and nothing of a report but its length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from src.data.inspect import Inspection, Shared, SplitCounts

FAULTS = 100
"""That are named one by one; the JSON has all."""


def as_text(found: Inspection) -> str:
    """All splits, then what they share, then the faults."""
    lines = [f"{len(found.leads)} leads at {found.sampling_rate:g} Hz: {' '.join(found.leads)}"]
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
    yield f"  lengths: {_lengths(counts, found.sampling_rate)}"
    missing = ", ".join(f"{lead} in {count:,}" for lead, count in counts.missing_leads.items())
    yield f"  leads without a signal: {missing or 'none'}"
    yield f"  signals that come again: {counts.duplicates:,}"
    yield f"  reports: {_reports(counts)}"
    statistics = zip(found.leads, counts.statistics.mean, counts.statistics.std, strict=True)
    yield from _table(
        ("lead", "mean mV", "std mV"), [(lead, f"{mean:.4f}", f"{std:.4f}") for lead, mean, std in statistics]
    )
    if counts.labels:
        yield from _labels(found, counts)


def _lengths(counts: SplitCounts, rate: float) -> str:
    common = ", ".join(f"{length:,} in {count:,}" for length, count in counts.lengths.items())
    return f"{counts.shortest / rate:g} to {counts.longest / rate:g} s; samples of a lead, the most frequent: {common}"


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
        yield from _table(("class", "samples"), [(name, f"{own.positive:,}") for name, own in counts.labels.items()])
        yield f"  not of exactly one class: {counts.without_class:,}"
        return
    other = any(own.other for own in counts.labels.values())
    head = ("label", "positive", "negative", "unknown", *(["other"] if other else []))
    cells = [(name, *(f"{getattr(own, column):,}" for column in head[1:])) for name, own in counts.labels.items()]
    yield from _table(head, cells)


def _between(found: Inspection) -> Iterable[str]:
    if not found.shared:
        yield "between splits: no signal and no patient is in two"
    for shared in found.shared:
        yield _pair(shared)


def _pair(shared: Shared) -> str:
    one, other = shared.splits
    named = ", ".join(f"{key} = {same}" for key, same in shared.keys)
    more = " ..." if shared.signals > len(shared.keys) else ""
    return f"between {one} and {other}: {shared.signals:,} signals and {shared.patients:,} patients are in both" + (
        f" ({named}{more})" if named else ""
    )


def _table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterable[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for first, *others in (head, *cells):
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield f"  {first.ljust(widths[0])}  {numbers}"
