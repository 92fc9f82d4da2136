"""Philips Sierra ECG: restingecgdata 1.03 and 1.04, base64 integers, plain or compressed with XLI.

XLI is 10-bit LZW over second differences; the limb leads III, aVR, aVL and aVF are then residuals of what follows from
I and II. The decoder of LZW is that of sierraecg (MIT, github.com/sixlettervariables/sierra-ecg-tools).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.data.builders.about import About, age_of, patient_of, sex_of
from src.data.builders.records import Unusable
from src.data.builders.signals import Channel, lead_name
from src.data.builders.xml_tree import Element, base64_bytes, find, int16_values, number, positive, text_of

ROOT, SIGNAL = "restingecgdata", "waveforms"
VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LIMBS = tuple(lead_name(name) for name in STANDARD[:6])
LONGEST = 1_000_000
"""Samples of a lead: half an hour at 500 Hz, and these are records of 10 s."""
LARGEST_MISFIT = 0.05
"""mV by which III may miss II - I at the median: more, and the limb leads are not what they are taken for."""


def about(root: Element) -> About:
    """The patient, age and sex."""
    person = find(root, "patient", "generalpatientdata")
    return About(
        patient_of(text_of(person, "patientid")),
        age_of(text_of(person, "age", "years")),
        sex_of(text_of(person, "sex")),
    )


def channels(root: Element) -> list[Channel]:
    """The leads.

    Raises:
        ValueError: another version or coding, or it can't be read.
    """
    version = text_of(root, "documentinfo", "documentversion")
    if version not in VERSIONS:
        raise Unusable(f"it is of version {version[:20] or 'none'}, known are {', '.join(VERSIONS)}")
    waves, signal = find(root, "waveforms", "parsedwaveforms"), find(root, "dataacquisition", "signalcharacteristics")
    if waves is None or signal is None:
        raise Unusable("it has no parsedwaveforms or no signalcharacteristics")
    _refuse_other_integers(waves, signal)
    names = _names(waves, signal)
    rate = positive(waves.get("samplespersecond") or text_of(signal, "samplingrate"), "sampling rate")
    stated = waves.get("resolution") or text_of(signal, "resolution") or text_of(signal, "signalresolution")
    resolution = positive(stated, "resolution")
    seconds = positive(waves.get("durationperchannel") or "", "durationperchannel") / 1000
    samples = round(seconds * rate) if seconds * rate <= LONGEST else 0
    if samples < 1:
        raise Unusable(f"its leads last {seconds:g} s at {rate:g} Hz, which is no resting ECG")
    values_CT = _values(waves, names, samples)
    _check_limbs(values_CT, names, resolution)
    return [Channel(name, "uV", rate, row_T, 1.0 / resolution) for name, row_T in zip(names, values_CT, strict=True)]


def _refuse_other_integers(waves: Element, signal: Element) -> None:
    for name, expected in (("bitspersample", "16"), ("signaloffset", "0"), ("signalsigned", "true")):
        stated = waves.get(name) or waves.get(f"n{name}") or text_of(signal, name) or expected
        if stated.strip().casefold() != expected:
            raise Unusable(f"its {name} is {stated[:20]}, expected is {expected}")


def _names(waves: Element, signal: Element) -> list[str]:
    if waves.get("leadlabels"):
        count = number(waves.get("numberofleads") or "", "numberofleads")
        names = waves.get("leadlabels").split()
    else:
        count = number(text_of(signal, "numberchannelsallocated"), "numberchannelsallocated")
        names = list(STANDARD) if text_of(signal, "acquisitiontype") in ("STD-12", "10-WIRE") else []
    if not 0 < count <= len(names):
        raise Unusable(f"it has {count:g} leads and names for {len(names)}")
    return names[: int(count)]


def _values(waves: Element, names: list[str], samples: int) -> NDArray[np.int64]:
    coding = waves.get("dataencoding") or "nothing"
    if coding.casefold() != "base64":
        raise Unusable(f"its waveforms are coded as {coding[:20]}, expected is Base64")
    data = base64_bytes(waves.text or "", "parsedwaveforms")
    method = waves.get("compressmethod") or waves.get("compression") or "Uncompressed"
    if method == "XLI":
        values_CT = np.stack(_unpack(data, len(names), samples))
        return _rebuilt(values_CT) if tuple(map(lead_name, names[:6])) == LIMBS else values_CT
    if method != "Uncompressed":
        raise Unusable(f"its waveforms are compressed with {method[:20]}, known is XLI")
    values = int16_values(data, "parsedwaveforms")
    if len(values) != len(names) * samples:
        raise Unusable(f"its waveforms hold {len(values)} samples, {len(names)} leads of {samples} are stated")
    return values.reshape(len(names), samples)


def _unpack(data: bytes, leads: int, samples: int) -> list[NDArray[np.int64]]:
    """The chunks of XLI, one for each lead: size, code and first difference, then LZW, of which no more is unpacked
    than `samples`."""
    from sierraecg.lzw import LzwDecoder

    found: list[NDArray[np.int64]] = []
    place = 0
    for _ in range(leads):
        size = int.from_bytes(data[place : place + 4], "little", signed=True)
        first = int.from_bytes(data[place + 6 : place + 8], "little", signed=True)
        chunk = data[place + 8 : place + 8 + size]
        if size < 1 or len(chunk) < size:
            raise Unusable(f"its compressed waveforms end in lead {len(found) + 1} of {leads}")
        decoder = LzwDecoder(chunk, bits=10)
        unpacked: list[int] = []
        while len(unpacked) <= 2 * samples and (byte := decoder.read()) >= 0:
            unpacked.append(byte)
        if len(unpacked) + len(unpacked) % 2 != 2 * samples:
            raise Unusable(f"its compressed lead {len(found) + 1} does not hold the {samples} samples stated")
        found.append(_summed(bytes(unpacked).ljust(2 * samples, b"\0"), first))
        place += 8 + size
    return found


def _summed(data: bytes, first: int) -> NDArray[np.int64]:
    """Samples out of high bytes, then low bytes: two as they are, then what each misses of the line through the two
    before it, one place late and by 64 too much."""
    high_T, low_T = np.frombuffer(data, np.uint8).astype(np.uint16).reshape(2, -1)
    stored_T = (high_T << 8 | low_T).view(np.int16).astype(np.int64)
    missed_T = np.concatenate([[first], stored_T[2:-1] - 64])[: max(len(stored_T) - 2, 0)]
    steps_T = stored_T[1:2] - stored_T[:1] - np.cumsum(missed_T)
    return np.concatenate([stored_T[:2], stored_T[1:2] + np.cumsum(steps_T)])


def _rebuilt(values_CT: NDArray[np.int64]) -> NDArray[np.int64]:
    """The limb leads out of their residuals."""
    one, two, three, right, left, foot = values_CT[:6]
    three = two - one - three
    limbs = [one, two, three, -right - (one + two) // 2, (one - three) // 2 - left, (two + three) // 2 - foot]
    return np.concatenate([limbs, values_CT[6:]])


def _check_limbs(values_CT: NDArray[np.int64], names: list[str], resolution: float) -> None:
    place = {lead_name(name): number for number, name in enumerate(names)}
    if {"i", "ii", "iii"} <= set(place):
        one, two, three = (values_CT[place[name]] for name in ("i", "ii", "iii"))
        misfit = float(np.median(np.abs(two - one - three))) * resolution / 1000
        if misfit > LARGEST_MISFIT:
            raise Unusable(
                f"its lead III misses II - I by {misfit:.2g} mV at the median: its limb leads are unreliable"
            )
