"""The results of a probe (results.json, format 1) as tables and a forest plot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, ValidationError

from src.report.measures import HEADLINE, SCORES, in_order, score_title
from src.report.plots import Interval, forest
from src.report.read import run_part, without_paths

FOREST_METRICS = ("auroc", "average_precision", "r2", "pearson", "mae")
"""The first of them that labels have is drawn."""
FOREST_LABELS = 30
MINUS = "\N{MINUS SIGN}"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Cell(_Part):
    """A score: None where it is undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float | None, ...] = ()
    """The score of each seed, of which `value` is the mean."""


Metrics = dict[str, Cell]


class Scores(_Part):
    """Of one row, or of the difference of two."""

    macro: Metrics = {}
    micro: Metrics = {}
    labels: dict[str, Metrics] = {}


class Gap(_Part):
    """How much of the distance from the random encoder to a reference the pre-trained one covers."""

    reference: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Table(_Part):
    """A test set, or a group of its records."""

    records: int | None = None
    patients: int | None = None
    positives: dict[str, int] = {}
    skipped: dict[str, str] = {}
    scores: dict[str, Scores] = {}
    differences: dict[str, Scores] = {}
    gap_closed: Gap | None = None
    groups: dict[str, dict[str, Table]] = {}


class Tried(_Part):
    """A setting of an attentive head, and what it scored on the held-out records."""

    lr: float
    weight_decay: float
    score: float | None = None


class Search(_Part):
    """All settings that were tried for one encoder."""

    chosen: int
    tried: tuple[Tried, ...]


class Row(_Part):
    """What was scored."""

    name: str
    kind: str = ""
    encoders: tuple[str, ...] = ()
    head: str | None = None
    pool: str | None = None
    width: int | None = None
    l2: tuple[float | None, ...] = ()
    search: tuple[Search, ...] = ()


class Bootstrap(_Part):
    """Of the intervals."""

    draws: int | None = None
    level: float = 0.95


class Split(_Part):
    """Records that heads were fitted on or chosen by."""

    records: int | None = None
    patients: int | None = None


class Results(_Part):
    """results.json."""

    format: Literal[1]
    task: str = ""
    labels: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    bootstrap: Bootstrap = Bootstrap()
    data: dict[str, Split | None] = {}
    tests: dict[str, Table] = {}


class Shown(NamedTuple):
    """A cell of a table as text."""

    value: str
    interval: str = ""
    note: str = ""
    marked: bool = False
    """The interval does not contain 0."""


class ScoreTable(NamedTuple):
    """Rows of cells under the titles of metrics."""

    columns: list[str]
    rows: list[tuple[list[str], list[Shown]]]
    """The words at the row's beginning, and its cells."""


def parse_results(content: Any) -> Results:
    """The results of a probe.

    Raises:
        ValueError: they are not of format 1; a sentence.
    """
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ValueError(f"results.json is not one of format 1 (at {where or 'its top'}).") from None


def score_table(
    rows: Iterable[tuple[list[str], Metrics]], most: int | None = None, signed: bool = False, seeds: bool = False
) -> ScoreTable:
    """The first `most` metrics as columns; those that no row has are left out."""
    rows = list(rows)
    metrics = in_order({name for _, cells in rows for name, cell in cells.items() if cell.value is not None})[:most]
    columns = [f"{score_title(name)}{_arrow(name)}" for name in metrics]
    body = [[shown(cells.get(name), signed, seeds) for name in metrics] for _, cells in rows]
    return ScoreTable(columns, list(zip(_without_repeats([words for words, _ in rows]), body, strict=True)))


def _without_repeats(rows: list[list[str]]) -> list[list[str]]:
    """Words that stand in the row above, after equal words, are left out; the last word of a row never is."""
    found: list[list[str]] = []
    above: list[str] = []
    for row in rows:
        same = 0
        while same < len(row) - 1 and above[: same + 1] == row[: same + 1]:
            same += 1
        found.append([""] * same + row[same:])
        above = row
    return found


def _arrow(metric: str) -> str:
    if metric not in SCORES:
        return ""
    return " \N{UPWARDS ARROW}" if SCORES[metric].better == "higher" else " \N{DOWNWARDS ARROW}"


Average = Literal["macro", "micro"]


def average_table(tables: Mapping[str, Table], average: Average = "macro", most: int | None = HEADLINE) -> ScoreTable:
    """Averages over labels of every run's rows on one test set; the run's name leads where there are several."""
    return score_table(
        (
            ([*([run] if len(tables) > 1 else []), row], getattr(scores, average))
            for run, table in tables.items()
            for row, scores in table.scores.items()
        ),
        most,
        seeds=True,
    )


def difference_table(tables: Mapping[str, Table], most: int | None = HEADLINE) -> ScoreTable:
    """Macro differences of every run on one test set."""
    return score_table(
        (
            ([*([run] if len(tables) > 1 else []), pair.replace(" - ", f" {MINUS} ")], scores.macro)
            for run, table in tables.items()
            for pair, scores in table.differences.items()
        ),
        most,
        signed=True,
    )


def label_tables(table: Table) -> list[tuple[str, ScoreTable]]:
    """For each metric its title and a table of labels x rows."""
    found: set[str] = {name for row in table.scores.values() for cells in row.labels.values() for name in cells}
    tables = []
    for metric in in_order(found):
        rows = []
        for label in labels_of(table):
            cells = [shown(row.labels.get(label, {}).get(metric)) for row in table.scores.values()]
            rows.append(([label, many(table.positives.get(label))], cells))
        tables.append((score_title(metric), ScoreTable(list(table.scores), rows)))
    return tables


def group_table(groups: Mapping[str, Table]) -> ScoreTable:
    """Macro scores of each row in each group."""
    return score_table(
        (
            ([group, many(table.records), many(table.patients), row], scores.macro)
            for group, table in groups.items()
            for row, scores in (table.scores or {"not scored": Scores()}).items()
        ),
        HEADLINE,
    )


def many(count: int | None) -> str:
    """A count as text, nothing where it is not known."""
    return "" if count is None else f"{count:,}"


def labels_of(table: Table) -> list[str]:
    """Labels with a score, in the order of the file."""
    return list(dict.fromkeys(label for row in table.scores.values() for label in row.labels))


def forest_of(table: Table) -> tuple[Markup, str] | None:
    """The forest plot of a test set and a note of what it leaves out; None where no label has a score."""
    labels = labels_of(table)
    scored = {name for row in table.scores.values() for cells in row.labels.values() for name in cells}
    metric = next((name for name in FOREST_METRICS if name in scored), None)
    if metric is None or not labels:
        return None
    note = ""
    if len(labels) > FOREST_LABELS:
        most = sorted(labels, key=lambda label: -table.positives.get(label, 0))[:FOREST_LABELS]
        note = f"The {FOREST_LABELS} labels with most positives of {len(labels)}; all are in the table."
        labels = [label for label in labels if label in most]
    rows = {
        name: [_interval(row.labels.get(label, {}).get(metric, Cell())) for label in labels]
        for name, row in table.scores.items()
    }
    return forest(metric, [f"{label}{_positives(table, label)}" for label in labels], rows), note


def _positives(table: Table, label: str) -> str:
    return f" ({table.positives[label]:,})" if label in table.positives else ""


def _interval(cell: Cell) -> Interval:
    return Interval(*(math.nan if part is None else part for part in (cell.value, cell.low, cell.high)))


def shown(cell: Cell | None, signed: bool = False, with_seeds: bool = False) -> Shown:
    """0.831 [0.802, 0.860], with the range over seeds where there are several; a dash for what is undefined."""
    if cell is None or cell.value is None or not math.isfinite(cell.value):
        return Shown("\N{EN DASH}")
    interval, apart = "", False
    if cell.low is not None and cell.high is not None:
        interval = f"[{digits(cell.low)}, {digits(cell.high)}]"
        apart = signed and (cell.low > 0.0 or cell.high < 0.0)
    seeds = [seed for seed in cell.seeds if seed is not None]
    several = with_seeds and len(seeds) > 1
    note = f"{len(seeds)} seeds, {digits(min(seeds))} to {digits(max(seeds))}" if several else ""
    return Shown(digits(cell.value, signed), interval, note, apart)


def digits(value: float, signed: bool = False) -> str:
    """Three decimals, fewer for what is above ten."""
    text = f"{value:{'+' if signed else ''}.{3 if abs(value) < 10 else 1}f}"
    return text.replace("-", MINUS)


def gap_sentence(gap: Gap, row: str = "pretrained", start: str = "random_init") -> str:
    """What was closed of the distance to the reference."""
    if gap.value is None:
        return ""
    interval = "" if gap.low is None or gap.high is None else f" [{digits(gap.low)}, {digits(gap.high)}]"
    return (
        f"Gap closed: {digits(gap.value)}{interval}, the share of the distance in {score_title(gap.metric)} from "
        f"{start} to {gap.reference} that {row} covers."
    )


def row_words(row: Row) -> list[str]:
    """A row of the table of what was scored."""
    chosen = [f"l2 {value:g}" for value in row.l2 if value is not None]
    settings = [search.tried[search.chosen] for search in row.search]
    chosen += [f"lr {setting.lr:g} and weight decay {setting.weight_decay:g}" for setting in settings]
    encoders = ", ".join(dict.fromkeys(encoder_name(path) for path in row.encoders))
    width = "" if row.width is None else f"{row.width:,}"
    return [row.name, row.kind, encoders, row.head or "", row.pool or "", width, ", ".join(dict.fromkeys(chosen))]


def search_tables(rows: Iterable[Row]) -> list[tuple[str, ScoreTable]]:
    """Of each attentive head a title and its held-out scores, learning rates x weight decays."""
    return [
        (f"{row.name}{f', encoder {number}' if len(row.search) > 1 else ''}", _search_table(search))
        for row in rows
        for number, search in enumerate(row.search, 1)
    ]


def _search_table(search: Search) -> ScoreTable:
    rates = sorted({tried.lr for tried in search.tried})
    decays = sorted({tried.weight_decay for tried in search.tried})
    cells = {
        (tried.lr, tried.weight_decay): shown(Cell(value=tried.score))._replace(
            note="chosen" * (place == search.chosen)
        )
        for place, tried in enumerate(search.tried)
    }
    body = [([f"lr {lr:g}"], [cells.get((lr, decay), shown(None)) for decay in decays]) for lr in rates]
    return ScoreTable([f"weight decay {decay:g}" for decay in decays], body)


def encoder_name(path: str) -> str:
    """The run that an encoder is of."""
    return run_part(path).removesuffix("/encoder").rpartition("/")[2]


def skipped_words(table: Table) -> list[str]:
    """Labels without a score, with the reason."""
    return [f"{label}: {without_paths(reason)}" for label, reason in table.skipped.items()]
