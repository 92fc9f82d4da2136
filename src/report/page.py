"""The page: one HTML file of one or several runs that needs nothing else."""

# N records

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.report import facts, probe
from src.report.masked import BLOCKS
from src.report.masks import mask_pictures
from src.report.measures import in_order, score_title, significant
from src.report.pair import pair_tables
from src.report.plots import BUCKETS, Panel, embedding_map, is_long, principal_plane, run_colour
from src.report.read import RANDOM, Embeddings, Labelled, RunData, read_run
from src.report.training import alarm_list, curve_panels, health_panels, health_table, require_curves

MAP_LABELS = 9
FEW_PATIENTS = 100
"""From here up intervals hold what they should (`python -m tools.benchmark intervals`)."""


class RunPart(NamedTuple):
    """What a section has of one run, or why it has nothing."""

    run: str
    colour: str
    content: Any = None
    absent: str = ""


@dataclass
class Glance:
    """A run in a few numbers."""

    run: str
    colour: str
    state: str
    alarm: bool | None
    """At the last evaluation; None where there is none."""
    numbers: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, value, and the value of the random encoder or what else it is to be seen beside."""


def write_page(folders: Sequence[Path], show_ecg: bool = True) -> str:
    """The HTML of the report on these run folders; without `show_ecg` no record is read.

    Raises:
        ValueError: one of them is not a run folder.
    """
    return render([read_run(folder) for folder in folders], show_ecg)


def render(runs: Sequence[RunData], show_ecg: bool = True) -> str:
    """The HTML of the report on these runs."""
    names = unique([run.name for run in runs])
    labelled = [(name, run_colour(place), run) for place, (name, run) in enumerate(zip(names, runs, strict=True))]
    content = _sections(labelled, show_ecg)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [name for name, parts in content.items() if any(not part.absent for part in parts)]
    return environment.get_template("page.html").render(
        title=", ".join(names),
        runs=[(name, colour) for name, colour, _ in labelled],
        shown=shown,
        nav=[(name, title) for name, title in TITLES.items() if name in ("run", *shown)],
        missing=[(name, TITLES[name], parts) for name, parts in content.items() if name not in shown],
        glances=[glance(*one) for one in labelled],
        problems=[_part(one, lambda run: list(run.problems.values())) for one in labelled],
        facts=facts.facts(runs),
        comparisons=_comparisons(labelled),
        attempt_columns=facts.ATTEMPT_COLUMNS,
        attempts=[_part(one, _attempts) for one in labelled],
        configs=[_part(one, _config) for one in labelled],
        alarms=content["health"],
        health=list(health_panels(labelled)),
        health_table=health_table(labelled),
        curve_parts=content["curves"],
        curves=list(curve_panels(labelled)),
        long_lines=BUCKETS if any(is_long(series) for run in runs for series in run.metrics.values()) else 0,
        probes=content["probe"],
        probe_tests=_probe_tests(content["probe"]),
        row_words=probe.row_words,
        search_tables=probe.search_tables,
        pairs=content.get("pair", []),
        masks=content["masks"],
        block_colours=BLOCKS,
        show_ecg=show_ecg,
        maps=content["embeddings"],
    )


TITLES = {
    "health": "Health",
    "run": "What was run",
    "curves": "Curves",
    "probe": "Probe",
    "pair": "ECGs and texts",
    "masks": "Masks",
    "embeddings": "Embeddings",
}
"""Sections of the page; one that no run has anything for is told of at its end."""


def _sections(runs: Sequence[Labelled], show_ecg: bool) -> dict[str, list[RunPart]]:
    """What each section has of each run, or why it has nothing."""
    made: dict[str, Callable[[RunData], Any]] = {
        "health": alarm_list,
        "curves": require_curves,
        "probe": _results,
        "pair": pair_tables,
        "masks": partial(mask_pictures, show_ecg=show_ecg),
        "embeddings": _maps,
    }
    if all(run.pair is None for _, _, run in runs):
        del made["pair"]
    return {name: [_part(one, make) for one in runs] for name, make in made.items()}


def unique(names: Sequence[str]) -> list[str]:
    """The names, those that come twice with a number."""
    places = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [f"{name} ({place})" if names.count(name) > 1 else name for name, place in zip(names, places, strict=True)]


def _part(labelled: Labelled, content: Callable[[RunData], Any]) -> RunPart:
    """What `content` makes of the run, or the sentence of its ValueError."""
    name, colour, run = labelled
    try:
        return RunPart(name, colour, content(run))
    except ValueError as error:
        return RunPart(name, colour, absent=str(error))


def glance(name: str, colour: str, run: RunData) -> Glance:
    """The numbers that one looks at first."""
    found = Glance(name, colour, facts.state(run), bool(run.health[-1].alarms) if run.health else None)
    done, asked = facts.steps(run)
    if done:
        found.numbers.append(("Steps", done, asked))
    if "loss" in run.metrics:
        found.numbers.append(("Last loss", significant(run.metrics["loss"].values[-1]), ""))
    last = run.health[-1].measures if run.health else {}
    for key, title in (("rankme", "RankMe"), ("knn_auroc", "kNN AUROC"), ("probe_auroc", "Probe AUROC")):
        if math.isfinite(last.get(key, math.nan)):
            beside = significant(last.get(RANDOM + key, math.nan))
            found.numbers.append((title, significant(last[key]), f"random {beside}"))
    found.numbers.extend(_probe_numbers(run))
    return found


def _probe_numbers(run: RunData) -> Iterator[tuple[str, str, str]]:
    """The first metric of the first row of each test set, beside the random encoder's."""
    try:
        tests = _results(run).tests
    except ValueError:
        return
    for test, table in tests.items():
        for row, scores in list(table.scores.items())[:1]:
            for metric in in_order(set(scores.macro))[:1]:
                beside = table.scores.get("random_init", probe.Scores()).macro.get(metric)
                words = f"random {probe.shown(beside).value}" if beside is not None and row != "random_init" else ""
                yield f"{score_title(metric)}, {test}", probe.shown(scores.macro[metric]).value, words


def _comparisons(runs: Sequence[Labelled]) -> list[tuple[str, list[tuple[str, str]], list[facts.Fact]]]:
    """Objective, runs with it and keys that differ: configs of two objectives have too little in common."""
    found = []
    for objective in dict.fromkeys(run.objective for _, _, run in runs if run.objective):
        alike = [one for one in runs if one[2].objective == objective]
        if len(alike) > 1:
            named = [(name, colour) for name, colour, _ in alike]
            found.append((objective, named, facts.differences([run for _, _, run in alike])))
    return found


def _attempts(run: RunData) -> list[list[str]]:
    if not run.attempts:
        raise ValueError("There is no record of its starts in attempts/.")
    return [facts.attempt_words(attempt) for attempt in run.attempts]


def _config(run: RunData) -> str:
    if not run.config:
        raise ValueError(run.problems.get("config.yaml", "There is no config.yaml."))
    return facts.config_text(run)


def _results(run: RunData) -> probe.Results:
    if run.results is None:
        raise ValueError(
            run.problems.get(
                "results.json",
                "It holds no results.json: a probe is a run of its own (objective: probe) and has a folder of its own.",
            )
        )
    return probe.parse_results(run.results)


class ProbePart(NamedTuple):
    """What a run scored on a test set, label by label and group by group."""

    run: str
    colour: str
    table: probe.Table
    positives: bool
    """Whether the labels have a number of positives."""
    forest: tuple[Markup, str] | None
    labels: list[tuple[str, probe.ScoreTable]]
    groups: list[tuple[str, probe.ScoreTable]]
    skipped: list[str]
    gap: str


class ProbeTest(NamedTuple):
    """A test set, with what each run scored on it."""

    name: str
    macro: probe.ScoreTable
    differences: probe.ScoreTable
    more: list[tuple[str, probe.ScoreTable]]
    """What does not fit the width of a page, with titles."""
    level: float
    few: int
    """FEW_PATIENTS where a run was scored on fewer, else 0."""
    parts: list[ProbePart]


def _probe_tests(probes: Sequence[RunPart]) -> list[ProbeTest]:
    """Test sets by name, each with all runs that were scored on it."""
    scored = [part for part in probes if part.content is not None]
    tests = []
    for name in dict.fromkeys(name for part in scored for name in part.content.tests):
        here = [part for part in scored if name in part.content.tests]
        tables = {part.run: part.content.tests[name] for part in here}
        level = here[0].content.bootstrap.level
        parts = [_probe_part(part, part.content.tests[name]) for part in here]
        macro, differences = probe.average_table(tables), probe.difference_table(tables)
        few = any(table.patients is not None and table.patients < FEW_PATIENTS for table in tables.values())
        more = _more(tables, macro, differences)
        tests.append(ProbeTest(name, macro, differences, more, level, FEW_PATIENTS * few, parts))
    return tests


def _more(
    tables: dict[str, probe.Table], macro: probe.ScoreTable, differences: probe.ScoreTable
) -> list[tuple[str, probe.ScoreTable]]:
    """Tables with every metric where the page's own leave some out, and micro averages."""
    whole = probe.average_table(tables, most=None), probe.difference_table(tables, most=None)
    titles = ("Averages over the labels", "Differences of these averages")
    found = [
        (title, table)
        for title, table, seen in zip(titles, whole, (macro, differences), strict=True)
        if len(table.columns) > len(seen.columns)
    ]
    micro = probe.average_table(tables, "micro", most=None)
    return [*found, ("All records and labels pooled (micro)", micro)] if micro.columns else found


def _probe_part(part: RunPart, table: probe.Table) -> ProbePart:
    return ProbePart(
        run=part.run,
        colour=part.colour,
        table=table,
        positives=bool(table.positives),
        forest=probe.forest_of(table),
        labels=probe.label_tables(table),
        groups=[(name, probe.group_table(groups)) for name, groups in table.groups.items()],
        skipped=probe.skipped_words(table),
        gap=probe.gap_sentence(table.gap_closed) if table.gap_closed else "",
    )


def _maps(run: RunData) -> list[Panel]:
    """Maps of the embeddings, one for each of the most frequent labels."""
    embeddings = run.embeddings
    if embeddings is None:
        raise ValueError(run.problems.get("embeddings.npz", "It has no embeddings.npz."))
    planes = {
        name: plane
        for name, features in (("pre-trained", embeddings.features_NF), ("random init", embeddings.random_NF))
        if features is not None and (plane := principal_plane(features)) is not None
    }
    if not planes:
        raise ValueError("The features do not vary: there is nothing to map.")
    return [
        Panel(embedding_map(title, planes, positive_N), caption) for title, caption, positive_N in _labels(embeddings)
    ]


def _labels(embeddings: Embeddings) -> Iterator[tuple[str, str, Any]]:
    """Title, caption and positives of the most frequent labels; one map without colours where there is no label."""
    positive_NK = embeddings.labels_NK > 0.5
    order = np.argsort(-positive_NK.sum(0), kind="stable")[:MAP_LABELS]
    total = len(embeddings.features_NF)
    if not positive_NK.any():
        yield "no label", f"{total:,} records without labels", np.zeros(total, np.bool_)
    for place in order.tolist():
        count = int(positive_NK[:, place].sum())
        name = embeddings.label_names[place]
        if count:
            yield name, f"{name}: {count:,} of {total:,}", positive_NK[:, place]
