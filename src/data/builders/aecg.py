"""HL7 annotated ECG: AnnotatedECG with a rhythm series of integers, each lead with origin and scale.

HL7 aECG Implementation Guide, final of 21 March 2005.
"""

from __future__ import annotations

from datetime import date

import numpy as np

from src.data.builders.about import About, age_between, patient_of, sex_of
from src.data.builders.records import Unusable, whole_rate
from src.data.builders.signals import Channel
from src.data.builders.xml_tree import Element, below, children, find, number, positive, text_of

ROOT, SIGNAL = "AnnotatedECG", "series"
LEAD = "MDC_ECG_LEAD_"
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def about(root: Element) -> About:
    """The patient, sex, and the age on the day of the recording."""
    subject = next(below(root, "trialSubject"), None)
    person = find(subject, "subjectDemographicPerson")
    when = find(root, "effectiveTime")
    start = next((found for name in ("low", "center") if (found := find(when, name)) is not None), when)
    return About(
        patient_of(_attribute(find(subject, "id"), "extension") or _attribute(find(subject, "id"), "root")),
        age_between(_day(_attribute(find(person, "birthTime"), "value")), _day(_attribute(start, "value"))),
        sex_of(_attribute(find(person, "administrativeGenderCode"), "code")),
    )


def channels(root: Element) -> list[Channel]:
    """The leads of the one rhythm series.

    Raises:
        ValueError: it is in several stretches, or can't be read.
    """
    series = [
        found
        for component in children(root, "component")
        for found in children(component, SIGNAL)
        if _attribute(find(found, "code"), "code") in ("RHYTHM", "")
    ]
    sets = [
        found
        for one in series
        for component in children(one, "component")
        for found in children(component, "sequenceSet")
    ]
    if len(sets) != 1:
        raise Unusable(f"it has {len(sets)} stretches of rhythm, expected is one")
    sequences = [found for component in children(sets[0], "component") for found in children(component, "sequence")]
    times = [one for one in sequences if _code(one).startswith("TIME_")]
    if len(times) != 1:
        raise Unusable(f"it has {len(times)} time axes, expected is one")
    increment = find(times[0], "value", "increment")
    unit = _attribute(increment, "unit")
    if unit not in SECONDS:
        raise Unusable(f"its increment is in {unit[:20] or 'no unit'}, expected is s, ms or us")
    rate = whole_rate(1.0 / (positive(_attribute(increment, "value"), "increment") * SECONDS[unit]))
    return [_channel(one, rate) for one in sequences if one is not times[0]]


def _channel(sequence: Element, rate: float) -> Channel:
    name, value = _code(sequence).removeprefix(LEAD), find(sequence, "value")
    origin, scale = find(value, "origin"), find(value, "scale")
    unit = _attribute(scale, "unit")
    size = positive(_attribute(scale, "value"), f"scale of {name}")
    start = number(_attribute(origin, "value") or "0", f"origin of {name}")
    if start and _attribute(origin, "unit") != unit:
        raise Unusable(f"its lead {name} has an origin in {_attribute(origin, 'unit')[:20]} and a scale in {unit[:20]}")
    try:
        digits_T = np.array(text_of(value, "digits").split(), np.int64)
    except (ValueError, OverflowError):
        raise Unusable(f"its lead {name} holds digits that are no whole numbers") from None
    if abs(start) > 1e6 * size:
        raise Unusable(f"its lead {name} has an origin of {start:g} at a scale of {size:g}, which no recorder has")
    if abs(start / size - round(start / size)) > 1e-6:
        return Channel(name, unit, rate, (start + digits_T * size).astype(np.float64))
    return Channel(name, unit, rate, digits_T + round(start / size), 1.0 / size)


def _code(sequence: Element) -> str:
    return _attribute(find(sequence, "code"), "code")


def _attribute(element: Element | None, name: str) -> str:
    return (element.get(name) or "").strip() if element is not None else ""


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None
