"""What was measured while a run trained: its alarms, the health of its representation, its curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from src.report.measures import COUNTS, CURVES, HEALTH, MEAN_LOSS, Measure, significant
from src.report.plots import Line, Panel, curves, run_colour
from src.report.read import RANDOM, Health, Labelled, RunData, Series

MOST_ALARMS = 100
"""Evaluations with alarms that are listed."""
PROBE = "This is a probe: it trains no encoder."
STYLES = ("-", "--", "-.", ":")
BESIDE = (RANDOM, "constant/")
"""What a measure is compared with: the encoder before training, a constant answer."""


class AlarmList(NamedTuple):
    """The alarms of a run."""

    evaluations: int
    last_step: int
    """Of the last evaluation."""
    now: bool
    """Whether the last evaluation has one."""
    alarmed: list[tuple[int, tuple[str, ...]]]
    """Evaluations with their sentences, the last first."""
    most: int = MOST_ALARMS


def alarm_list(run: RunData) -> AlarmList:
    """The alarms of a run's evaluations.

    Raises:
        ValueError: why it has none, as a sentence.
    """
    evaluated = _health_of(run)
    found = [(one.step, one.alarms) for one in reversed(evaluated) if one.alarms]
    return AlarmList(len(evaluated), evaluated[-1].step, bool(evaluated[-1].alarms), found)


def require_curves(run: RunData) -> None:
    """Pass a run that has curves.

    Raises:
        ValueError: why it has none, as a sentence.
    """
    if run.objective == "probe":
        raise ValueError(PROBE)
    if not run.metrics:
        raise ValueError("metrics.jsonl has no line yet.")


def curve_panels(runs: Sequence[Labelled]) -> Iterator[Panel]:
    """A panel for each number of metrics.jsonl that is worth one."""
    trained = [(colour, _drawn(run), len(runs) == 1) for _, colour, run in runs if run.objective != "probe"]
    keys = dict.fromkeys(key for _, series, _ in trained for key in series)
    for key in sorted(keys, key=_curve_place):
        lines = [line for colour, series, alone in trained for line in _lines(key, series.get(key, {}), colour, alone)]
        lost = sum(int((~np.isfinite(line.series.values)).sum()) for line in lines)
        caption = "" if not lost else f"{lost:,} {'value is' if lost == 1 else 'values are'} not finite and not drawn."
        measure = CURVES.get(key, Measure(key, ""))
        yield Panel(curves(measure.title, lines, measure.low, measure.high), caption)


def _curve_place(key: str) -> tuple[int, str]:
    known = list(CURVES)
    return (0 if key == "loss" else 1 if key.startswith("loss/") else 2 + known.index(key)), key


def _drawn(run: RunData) -> dict[str, dict[str, Series]]:
    """Panel -> line -> series: learning rates in one panel, parts of the loss where they are not the loss itself."""
    found: dict[str, dict[str, Series]] = {}
    for key, series in run.metrics.items():
        kind, _, name = key.partition("/")
        if kind == "loss" and name and not _same(series, run.metrics.get("loss")):
            found[key] = {"": series}
        elif kind == "lr":
            rates = found.setdefault("learning rate", {})
            twin = next((other for other, known in rates.items() if _same(series, known)), None)
            rates[name if twin is None else f"{twin}, {name}"] = series if twin is None else rates.pop(twin)
        elif key in CURVES and (key != "skipped_steps" or np.nansum(series.values)):
            found[key] = {"": series}
    if len(rates := found.get("learning rate", {})) == 1:
        found["learning rate"] = {"": next(iter(rates.values()))}
    return found


def _same(one: Series, other: Series | None) -> bool:
    return other is not None and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def _lines(key: str, named: dict[str, Series], colour: str, alone: bool) -> Iterator[Line]:
    """The lines of a run in a panel: told apart by style, with a legend where there are several."""
    for place, (name, series) in enumerate(named.items()):
        yield Line(series, run_colour(place) if alone else colour, STYLES[place % len(STYLES)], name)


def _health_of(run: RunData) -> tuple[Health, ...]:
    """The run's evaluations; ValueError tells why there are none."""
    if run.objective == "probe":
        raise ValueError(PROBE)
    if not run.health:
        raise ValueError("It has no evaluation yet: health.jsonl is empty or absent (evaluation.every says how often).")
    return run.health


def health_panels(runs: Sequence[Labelled]) -> Iterator[Panel]:
    """A panel for each measure, the random encoder's value dashed."""
    evaluated = [(colour, run) for _, colour, run in runs if run.health]
    measured = dict.fromkeys(
        key for _, run in evaluated for one in run.health for key in one.measures if not key.startswith(BESIDE)
    )
    measured = {key: None for key in measured if key not in COUNTS}
    if "loss" in measured and not any(MEAN_LOSS in one.measures for _, run in evaluated for one in run.health):
        del measured["loss"]  # alone it stands among the curves
    for key in sorted(measured, key=_health_place):
        if key == MEAN_LOSS:
            continue
        lines = [line for colour, run in evaluated for line in _health_lines(run, key, colour)]
        if lines:
            measure = HEALTH.get(key, Measure(key.replace("_", " "), ""))
            yield Panel(curves(measure.title, lines, measure.low, measure.high), measure.meaning)


def _beside(measures: Mapping[str, float], key: str) -> str:
    """What is told beside a measure: the random encoder's, or that of a constant answer."""
    return next((prefix + key for prefix in BESIDE if prefix + key in measures), RANDOM + key)


def _health_place(key: str) -> int:
    key = "loss" if key == MEAN_LOSS else key
    return list(HEALTH).index(key) if key in HEALTH else len(HEALTH)


def _health_lines(run: RunData, key: str, colour: str) -> Iterator[Line]:
    steps = np.array([one.step for one in run.health], np.float64)
    beside = (MEAN_LOSS, ":") if key == "loss" else (_beside(run.health[-1].measures, key), "--")
    for name, style in ((key, "-"), beside):
        values = np.array([one.measures.get(name, math.nan) for one in run.health])
        known = np.isfinite(values)
        if not known.any():
            continue
        if style == "--":  # one value, drawn as wide as the run even where there is one evaluation
            level = values[known][-1]
            begin, end = (0.0, max(steps[-1], 1.0)) if len(steps) == 1 else (steps[0], steps[-1])
            yield Line(Series(np.array([begin, end]), np.array([level, level])), colour, style)
        else:
            yield Line(Series(steps[known], values[known]), colour, style)


class HealthTable(NamedTuple):
    """The last value of each measure beside the random encoder's, two columns a run."""

    runs: list[tuple[str, str, int]]
    """Name, colour, step."""
    rows: list[tuple[str, list[tuple[str, str]]]]


def health_table(runs: Sequence[Labelled]) -> HealthTable | None:
    evaluated = [(name, colour, run.health[-1]) for name, colour, run in runs if run.health]
    found = {key for _, _, last in evaluated for key in last.measures if not key.startswith(BESIDE)}
    if not found:
        return None
    rows = [
        (
            _health_title(key),
            [
                tuple(significant(last.measures.get(name, math.nan)) for name in (key, _beside(last.measures, key)))
                for _, _, last in evaluated
            ],
        )
        for key in sorted(found, key=lambda key: (_health_place(key), key))
    ]
    return HealthTable([(name, colour, last.step) for name, colour, last in evaluated], rows)  # type: ignore[arg-type]


def _health_title(key: str) -> str:
    own = {
        "loss": "Training loss",
        MEAN_LOSS: "Loss of predicting the mean",
        "retrieval/ecgs": "ECGs with a report",
        "retrieval/texts": "Different reports",
    }
    return own.get(key) or (HEALTH[key].title if key in HEALTH else key.replace("_", " "))
