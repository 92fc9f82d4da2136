"""GE MUSE: RestingECG with a rhythm waveform of base64 integers, mostly of eight leads, from which four are derived.

No specification is public; this follows the published exports and the readers of others (rickead/musexmlexport).
"""

from __future__ import annotations

from dataclasses import replace

from src.data.builders.about import About, age_of, patient_of, sex_of
from src.data.builders.records import Unusable
from src.data.builders.signals import Channel, lead_name
from src.data.builders.xml_tree import Element, base64_bytes, children, int16_values, number, positive, text_of

ROOT, SIGNAL = "RestingECG", "Waveform"
UNITS = {"microvolts": "uV", "microvolt": "uV", "uv": "uV", "millivolts": "mV", "millivolt": "mV", "mv": "mV"}
DERIVED = {"III": (-1, 1, 1), "aVR": (-1, -1, 2), "aVL": (2, -1, 2), "aVF": (-1, 2, 2)}
"""Lead: (a, b, c) for (a I + b II) / c."""


def about(root: Element) -> About:
    """The patient, age and sex."""
    return About(
        patient_of(text_of(root, "PatientDemographics", "PatientID")),
        age_of(
            text_of(root, "PatientDemographics", "PatientAge"),
            text_of(root, "PatientDemographics", "AgeUnits") or "years",
        ),
        sex_of(text_of(root, "PatientDemographics", "Gender")),
    )


def channels(root: Element) -> list[Channel]:
    """The leads of the rhythm waveform, and those that follow from I and II; a lead whose electrode is off is missing.

    Raises:
        ValueError: there is no rhythm waveform, or more than one, or one that can't be read.
    """
    waves = [wave for wave in children(root, SIGNAL) if text_of(wave, "WaveformType").casefold() == "rhythm"]
    if len(waves) != 1:
        raise Unusable(f"it has {len(waves)} rhythm waveforms, expected is one")
    rate = positive(text_of(waves[0], "SampleBase"), "SampleBase")
    exponent = number(text_of(waves[0], "SampleExponent") or "0", "SampleExponent")
    if abs(exponent) > 9:
        raise Unusable(f"its SampleExponent is {exponent:g}, which no recorder has")
    found = [_channel(lead, rate * 10.0**exponent) for lead in children(waves[0], "LeadData") if not _off(lead)]
    return found + _derived({lead_name(channel.name): channel for channel in found})


def _off(lead: Element) -> bool:
    return text_of(lead, "LeadOff").casefold() == "true"


def _channel(lead: Element, rate: float) -> Channel:
    name = text_of(lead, "LeadID")
    unit = text_of(lead, "LeadAmplitudeUnits")
    size = text_of(lead, "LeadSampleSize") or "2"
    if size != "2":
        raise Unusable(f"its lead {name} has samples of {size[:20]} bytes, expected are 2")
    if number(text_of(lead, "LeadOffsetFirstSample") or "0", "LeadOffsetFirstSample"):
        raise Unusable(f"its lead {name} begins later than the others")
    values_T = int16_values(base64_bytes(text_of(lead, "WaveFormData"), f"lead {name}"), f"lead {name}")
    stated = text_of(lead, "LeadSampleCountTotal")
    if stated and number(stated, "LeadSampleCountTotal") != len(values_T):
        raise Unusable(f"its lead {name} holds {len(values_T)} samples and says {stated[:20]}")
    return Channel(
        name=name,
        unit=UNITS.get(unit.casefold(), unit),
        rate=rate,
        values_T=values_T,
        gain=1.0 / positive(text_of(lead, "LeadAmplitudeUnitsPerBit"), "LeadAmplitudeUnitsPerBit"),
    )


def _derived(found: dict[str, Channel]) -> list[Channel]:
    """Whole units too: a half is a unit of half the size."""
    one, two = found.get("i"), found.get("ii")
    if one is None or two is None or len(one.values_T) != len(two.values_T):
        return []
    if (one.gain, one.unit) != (two.gain, two.unit):
        raise Unusable("its leads I and II differ in their units, so that III and aVR, aVL, aVF do not follow")
    return [
        replace(one, name=name, values_T=a * one.values_T + b * two.values_T, gain=c * one.gain)
        for name, (a, b, c) in DERIVED.items()
        if lead_name(name) not in found
    ]
