"""What a pair of encoders is worth: the tables of tools.retrieve and tools.zero_shot."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from src.report.measures import score_title
from src.report.probe import Cell, ScoreTable, Table, many, score_table, shown, skipped_words
from src.report.read import RunData

FALLING = ("median_rank",)
"""Metrics of which less is better."""


class PairTable(NamedTuple):
    """A table of one evaluation."""

    title: str
    note: str
    heads: list[str]
    """Of the words that begin each row; behind the first are counts."""
    table: ScoreTable


class _Retrieval(BaseModel):
    """retrieval.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    ecgs: int
    texts: int
    most_frequent: int
    rows: dict[str, dict[str, Cell]]


def pair_tables(run: RunData) -> list[PairTable]:
    """A table for each retrieval.json and zero_shot.json in a folder of the run.

    Raises:
        ValueError: there is none, or one is not what these tools write; a sentence.
    """
    if run.pair is None:
        raise ValueError("It leaves no pair of encoders.")
    if not run.pair:
        raise ValueError(
            "Its pair has not been evaluated: with --output RUN/retrieval and RUN/zero_shot, tools.retrieve and "
            "tools.zero_shot leave their tables where this page looks."
        )
    return [_table(place, content) for place, content in run.pair.items()]


def _table(place: str, content: Any) -> PairTable:
    try:
        return _retrieval(place, content) if place.endswith("retrieval.json") else _zero_shot(place, content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ValueError(f"{place} is not what its tool writes (at {where or 'its top'}).") from None


def _retrieval(place: str, content: Any) -> PairTable:
    found = _Retrieval.model_validate(content)
    metrics = list(dict.fromkeys(metric for cells in found.rows.values() for metric in cells))
    arrows = {name: "\N{DOWNWARDS ARROW}" if name in FALLING else "\N{UPWARDS ARROW}" for name in metrics}
    columns = [row.replace("_", " ") for row in found.rows]
    rows = [
        ([f"{score_title(name)} {arrows[name]}"], [shown(cells.get(name)) for cells in found.rows.values()])
        for name in metrics
    ]
    note = (
        f"{found.ecgs:,} ECGs and {found.texts:,} different reports, the most frequent of which "
        f"{found.most_frequent:,} have. Each report stands in the gallery once. The constant answer ranks the reports "
        "by how often these very records have them, and does not look at any ECG."
    )
    return PairTable(f"Retrieval, {_folder(place)}", note, ["Metric"], ScoreTable(columns, rows))


def _zero_shot(place: str, content: Any) -> PairTable:
    found = Table.model_validate(content)
    rows = []
    for scores in found.scores.values():
        rows.append((["all labels, averaged", ""], scores.macro))
        rows += [([name, many(found.positives.get(name))], cells) for name, cells in scores.labels.items()]
    skipped = skipped_words(found)
    note = "No threshold is told, since no labelled record has chosen one."
    note += f" Without a score: {'; '.join(skipped)}." if skipped else ""
    return PairTable(f"Labels from sentences, {_folder(place)}", note, ["Label", "Positives"], score_table(rows))


def _folder(place: str) -> str:
    return place.rpartition("/")[0]
