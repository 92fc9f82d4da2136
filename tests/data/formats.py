"""Writers of the formats that recorders and public archives have, by their specifications and not by our readers."""

import base64
import csv
import struct

import h5py
import numpy as np
from scipy.io import savemat

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def limbs(units_CT):
    """The same with limb leads that follow from I and II, in whole units."""
    one, two = units_CT[0].astype(np.int64), units_CT[1].astype(np.int64)
    derived = [one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2]
    return np.concatenate([derived, units_CT[6:]]).astype(np.int64)


def ecg(number=0, samples=500):
    """Whole microvolts, [12, samples]."""
    return limbs(np.random.default_rng(number).integers(-2000, 2000, (12, samples)))


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def write_code15(root, exams, files=1, **columns):
    """exams.csv and its .hdf5; `exams` are [12, T] in mV, padded with zeros on both sides to 4096."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in range(files):
        own = list(range(part, len(exams), files))
        tracings = np.zeros((len(own), 4096, 12), np.float32)
        for place, number in enumerate(own):
            front = (4096 - exams[number].shape[1]) // 2
            tracings[place, front : front + exams[number].shape[1]] = exams[number].T
            row = {"exam_id": 1000 + number, "age": 30 + number, "is_male": number % 2 == 0, "nn_predicted_age": 77.7}
            row |= {name: (number + k) % 3 == 0 for k, name in enumerate(("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"))}
            row |= {"patient_id": 500 + number // 2, "death": "", "timey": 2.5, "normal_ecg": False}
            row |= {"trace_file": f"exams_part{part}.hdf5"}
            rows.append(row | {name: values[number] for name, values in columns.items()})
        with h5py.File(root / f"exams_part{part}.hdf5", "w") as file:
            file["tracings"] = tracings
            file["exam_id"] = np.array([1000 + number for number in own])
    write_rows(root / "exams.csv", rows)
    return root


def write_mat(path, units_CT, variable="val", **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: units_CT}, **settings)
    return path


def write_mat73(path, units_CT, variable="val"):
    """As MATLAB does: a header of 512 bytes, and columns first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        file[variable] = units_CT.T
        file[variable].attrs["MATLAB_class"] = np.bytes_("int16")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def write_edf(path, units_CT, names=LEADS, rate=100, unit="uV", least=-32768, most=32767, **header):
    """EDF+ by its specification: 256 bytes, then 256 for each signal field by field, then records of one second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    low, high = header.get("low", -32768), header.get("high", 32767)
    count = len(units_CT)
    records = units_CT.shape[1] // rate

    def field(value, width):
        return str(value).encode("latin-1")[:width].ljust(width)

    data = (
        field(0, 8)
        + field(header.get("patient", "X X X X"), 80)
        + field(header.get("recording", "Startdate X X X X"), 80)
    )
    data += field("01.01.01", 8) + field("10.11.12", 8) + field(256 * (count + 1), 8)
    data += field(header.get("reserved", "EDF+C"), 44) + field(header.get("records", records), 8) + field(1, 8)
    data += field(count, 4)
    columns = [(names, 16), ([header.get("transducer", "")] * count, 80), ([unit] * count, 8), ([least] * count, 8)]
    columns += [([most] * count, 8), ([low] * count, 8), ([high] * count, 8)]
    columns += [([header.get("filter", "")] * count, 80), ([rate] * count, 8), ([""] * count, 32)]
    data += b"".join(field(value, width) for values, width in columns for value in values)
    for record in range(records):
        data += units_CT[:, record * rate : (record + 1) * rate].astype("<i2").tobytes()
    path.write_bytes(data)
    return path


def wave(values):
    return base64.encodebytes(np.asarray(values).astype("<i2").tobytes()).decode()


MUSE_PERSON = (
    """<PatientID>P-77</PatientID><PatientAge>63</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender>"""
)


def muse(units_CT, names=EIGHT, rate=500, per_bit=1.0, person=MUSE_PERSON, more="", lead="", samples=None):
    """GE MUSE, with a median waveform before the rhythm, as the exports have it."""

    def waveform(kind, values_CT):
        leads = "".join(
            f"<LeadData><LeadByteCountTotal>{2 * len(row)}</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset>"
            f"<LeadSampleCountTotal>{samples or len(row)}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>{per_bit}</LeadAmplitudeUnitsPerBit>"
            f"<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{name}</LeadID>"
            f"<LeadOffsetFirstSample>0</LeadOffsetFirstSample><LeadSampleSize>2</LeadSampleSize>{lead}"
            f"<LeadOff>FALSE</LeadOff><WaveFormData>{wave(row)}</WaveFormData></LeadData>"
            for name, row in zip(names, values_CT, strict=True)
        )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>{len(names)}</NumberofLeads>"
            f"<SampleType>CONTINUOUS_SAMPLES</SampleType><SampleBase>{rate}</SampleBase>"
            f"<SampleExponent>0</SampleExponent>{leads}</Waveform>"
        )

    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n<RestingECG>'
        f"<PatientDemographics>{person}</PatientDemographics>{more}"
        f"{waveform('Median', units_CT[:, :60])}{waveform('Rhythm', units_CT)}</RestingECG>"
    )


AECG_PERSON = """<trialSubject><id root="1.2.3" extension="SUBJ-9"/><subjectDemographicPerson>
<administrativeGenderCode code="M"/><birthTime value="19500601"/></subjectDemographicPerson></trialSubject>"""


def aecg(units_CT, names=LEADS, rate=500, scale=1.0, unit="uV", origin=0, person=AECG_PERSON, more="", increment=None):
    """HL7 aECG, with the subject before the series as the guide wants it."""
    leads = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}" codeSystem="2.16.840.1.113883.6.24"/>'
        f'<value xsi:type="SLIST_PQ"><origin value="{origin}" unit="{unit}"/><scale value="{scale}" unit="{unit}"/>'
        f"<digits>{' '.join(map(str, row))}</digits></value></sequence></component>"
        for name, row in zip(names, units_CT, strict=True)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<effectiveTime><low value="20150531101112.000"/><high value="20150531101122.000"/></effectiveTime>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject>{person}</subject></subjectAssignment>
</componentOf></timepointEvent></componentOf>{more}
<component><series><code code="RHYTHM"/><component><sequenceSet>
<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20150531101112.000"/>
<increment value="{increment or 1 / rate}" unit="s"/></value></sequence></component>
{leads}</sequenceSet></component>
<derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/></derivedSeries></derivation>
</series></component></AnnotatedECG>"""


PHILIPS_PERSON = """<patientid>PH-5</patientid><age><years>93</years></age><sex>Male</sex>"""


def philips(units_CT, compress=True, names=LEADS, rate=500, person=PHILIPS_PERSON, more="", data=None, **attributes):
    """Philips 1.04."""
    samples = units_CT.shape[1]
    if data is None:
        data = xli(residuals(units_CT)) if compress else units_CT.astype("<i2").tobytes()
    given = {"dataencoding": "Base64", "numberofleads": len(names), "leadlabels": " ".join(names)}
    given |= {"durationperchannel": samples * 1000 // rate, "samplespersecond": rate, "resolution": 5}
    given |= {"signaloffset": 0, "signalsigned": "True", "bitspersample": 16} | (
        {"compression": "XLI"} if compress else {}
    )
    text = " ".join(f'{name}="{value}"' for name, value in (given | attributes).items())
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo><documenttype>PhilipsECG</documenttype>
<documentversion>1.04</documentversion></documentinfo>{more}
<dataacquisition><signalcharacteristics><samplingrate>{rate}</samplingrate><resolution>5</resolution>
<acquisitiontype>STD-12</acquisitiontype><bitspersample>16</bitspersample><signaloffset>0</signaloffset>
<signalsigned>True</signalsigned><numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics>
</dataacquisition><patient><generalpatientdata>{person}</generalpatientdata></patient>
<waveforms><parsedwaveforms {text}>{base64.encodebytes(data).decode()}</parsedwaveforms></waveforms></restingecgdata>"""


def residuals(units_CT):
    """What Philips keeps of the limb leads that follow from I and II."""
    one, two, three, right, left, foot = units_CT[:6].astype(np.int64)
    kept = [
        one,
        two,
        two - one - three,
        -right - (one + two) // 2,
        (one - three) // 2 - left,
        (two + three) // 2 - foot,
    ]
    return np.concatenate([kept, units_CT[6:]])


def xli(values_CT):
    """For each lead a header, then LZW of the high bytes and the low bytes of second differences."""
    return b"".join(_chunk(row) for row in values_CT.tolist())


def _chunk(row):
    steps = [2 * y - x - z for x, y, z in zip(row, row[1:], row[2:], strict=False)]
    stored = np.array([*row[:2], *(step + 64 for step in steps[1:]), 0], "<i2").view("<u2")
    packed = lzw(bytes((stored >> 8).astype(np.uint8)) + bytes((stored & 255).astype(np.uint8)))
    return struct.pack("<ihh", len(packed), 0, steps[0]) + packed


def lzw(data, bits=10):
    """LZW whose table stays as it is once it is full."""
    table, codes, word = {bytes([byte]): byte for byte in range(256)}, [], b""
    for byte in data:
        longer = word + bytes([byte])
        if longer in table:
            word = longer
            continue
        codes.append(table[word])
        if len(table) <= (1 << bits) - 2:
            table[longer] = len(table)
        word = bytes([byte])
    codes.append(table[word])
    text = "".join(f"{code:0{bits}b}" for code in codes)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path
