"""What a DICOM header may tell: of whom it is, a white list of numbers and coded words, and how its pixels are stored.

Names, dates, identifiers (UIDs too), institutions, devices, comments, private and free text are never asked for: only
the attributes named here are read from the file at all. PS3.3 and PS3.5 of DICOM 2024.
"""

# T frames of a file

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.builders.about import About, age_between, age_of, patient_of, sex_of
from src.data.builders.records import Unusable, refuse_special, told

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
HEAD = 132
"""Bytes that tell DICOM: 128 of any content, then its mark."""
LONGEST_META = 1 << 20
"""Bytes of the file's own description, which comes first."""
AGE_UNITS = {"Y": "years", "M": "months", "W": "weeks", "D": "days"}

NUMBERS = {
    "PositionerPrimaryAngle": ("primary_angle", -180.0, 180.0),
    "PositionerSecondaryAngle": ("secondary_angle", -180.0, 180.0),
    "DistanceSourceToDetector": ("source_to_detector", 100.0, 5000.0),
    "DistanceSourceToPatient": ("source_to_patient", 100.0, 5000.0),
    "KVP": ("kvp", 10.0, 300.0),
    "SliceThickness": ("slice_thickness", 0.01, 100.0),
    "SpacingBetweenSlices": ("slice_spacing", 0.01, 100.0),
    "HeartRate": ("heart_rate", 20.0, 300.0),
}
"""Attribute: (its name in the meta, least, most); degrees, mm, kV, beats a minute. What lies outside is left out: a
number that is no measure may be one that tells who it is."""
PAIRS = {"PixelSpacing": "pixel_spacing", "ImagerPixelSpacing": "imager_pixel_spacing"}
"""mm between rows and between columns."""
SPACING = (0.001, 100.0)
MODALITIES = frozenset(
    ("CR", "CT", "DX", "ECG", "ES", "GM", "IO", "IVOCT", "IVUS", "MG", "MR", "NM", "OCT", "OP", "OPT", "PT", "PX")
    + ("RF", "RG", "SC", "SM", "US", "XA", "XC")
)
VIEWS = frozenset(("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT", "LATERAL"))
BODY_PARTS = frozenset(
    ("ABDOMEN", "BREAST", "CHEST", "CORONARYARTERY", "HEAD", "HEART", "LUNG", "NECK", "PELVIS", "SPINE", "THORAX")
)
WORDS = {
    "Modality": ("dicom_modality", MODALITIES),
    "Laterality": ("laterality", frozenset("LR")),
    "ImageLaterality": ("laterality", frozenset("LRUB")),
    "ViewPosition": ("view_position", VIEWS),
    "PatientPosition": ("patient_position", frozenset(("HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS"))),
    "BodyPartExamined": ("body_part", BODY_PARTS),
    "LossyImageCompression": ("lossy_before", frozenset(("00", "01"))),
}
"""Attribute: (its name in the meta, the words that are taken); any other word is left out."""
PERSON = ("PatientID", "PatientAge", "PatientBirthDate", "PatientSex", "StudyDate", "SeriesDate", "AcquisitionDate")
"""Read for a patient to split by and an age; none of them goes into a shard."""
IMAGE = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
STORAGE = (
    *IMAGE,
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept", "BurnedInAnnotation"),
    *("FrameIncrementPointer", "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"),
    *("SharedFunctionalGroupsSequence", "SequenceOfUltrasoundRegions"),
    *(f"{color}PaletteColorLookupTable{part}" for color in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")),
)
"""How pixels and their times are stored."""
RATES = (0.05, 1000.0)
"""Hz that a header may state: a FrameTime in seconds, where milliseconds are wanted, would be 30,000."""


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does, by its first bytes, of which HEAD are enough."""
    return head[128:HEAD] == b"DICM"


def begins_as_dicom(path: Path) -> bool:
    """Whether a file is one, whatever its name; none that can't be opened is, and it is told when it is read."""
    try:
        refuse_special(path)
        with path.open("rb") as file:
            return is_dicom(file.read(HEAD))
    except (OSError, ValueError):
        return False


def open_dicom(path: Path, more: Sequence[str] = ()) -> Dataset:
    """The attributes named above, without the pixels; nothing else is read, and no warning is shown, which may quote.

    `more` are attributes that are read too, for what is done with the file here: they don't get into any meta.

    Raises:
        ValueError: no DICOM file, damaged, or deflated as a whole.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    refuse_special(path)
    wanted = [*NUMBERS, *PAIRS, *WORDS, *PERSON, *STORAGE, *more]
    with told(path, "DICOM"), quiet():
        try:
            if _transfer_syntax(path) == DEFLATED:
                raise Unusable("it is deflated as a whole: unpack it, with dcmconv +te for instance")
            return pydicom.dcmread(path, force=False, stop_before_pixels=True, specific_tags=list(wanted))
        except InvalidDicomError:
            raise Unusable("it is no DICOM file: there is no DICM after its first 128 bytes") from None
        except Unusable:
            raise
        except Exception as error:  # its words may be those of the header
            if isinstance(error, OSError) and error.errno is not None:  # of the path or of the storage
                raise
            raise Unusable(f"its DICOM header can't be read ({type(error).__name__})") from error


def about_dicom(path: Path) -> About:
    """Of whom a file is: its PatientID to split by, and age and sex.

    Raises:
        ValueError: as for opening it.
    """
    return about_of(open_dicom(path))


def about_of(dataset: Dataset) -> About:
    """Of whom an opened file is."""
    return About(patient_of(text_of(dataset, "PatientID")), _age(dataset), sex_of(text_of(dataset, "PatientSex")))


def meta_of(dataset: Dataset) -> dict[str, Any]:
    """What of a header may go into a shard: numbers in their range and words of a list."""
    meta: dict[str, Any] = {}
    for attribute, (name, least, most) in NUMBERS.items():
        if len(values := numbers_of(dataset, attribute)) == 1 and least <= values[0] <= most:
            meta[name] = values[0]
    for attribute, name in PAIRS.items():
        values = numbers_of(dataset, attribute)
        if len(values) == 2 and all(SPACING[0] <= value <= SPACING[1] for value in values):
            meta[name] = list(values)
    for attribute, (name, words) in WORDS.items():
        if (word := text_of(dataset, attribute).upper()) in words:
            meta[name] = word
    if (regions := regions_of(dataset)) and "pixel_spacing" not in meta and regions[0][1] is not None:
        meta["pixel_spacing"] = list(regions[0][1])
    return meta


def rate_of(dataset: Dataset) -> float | None:
    """Frames a second as the header states them; None where it states none, or each frame its own time."""
    if numbers_of(dataset, "FrameTimeVector") and _points_at(dataset, "FrameTimeVector"):
        return None
    for attribute in ("FrameTime", "CineRate", "RecommendedDisplayFrameRate"):
        if len(values := numbers_of(dataset, attribute)) == 1 and values[0] > 0:
            rate = 1000.0 / values[0] if attribute == "FrameTime" else values[0]
            if RATES[0] <= rate <= RATES[1]:
                return rate
    return None


def times_of(dataset: Dataset, frames: int) -> NDArray[np.float64] | None:
    """[T] seconds from the first frame, None where the header states neither a rate nor a time for each frame."""
    if (rate := rate_of(dataset)) is not None:
        return np.arange(frames) / rate
    steps_T = np.array(numbers_of(dataset, "FrameTimeVector"))
    if len(steps_T) != frames or not _are_steps(steps_T[1:]):
        return None
    return np.cumsum(np.append(0.0, steps_T[1:])) / 1000.0


def _are_steps(steps: NDArray[np.float64]) -> bool:
    """Whether all are milliseconds that lie between two frames."""
    return bool(((steps >= 1000.0 / RATES[1]) & (steps <= 1000.0 / RATES[0])).all())


def burned_in(dataset: Dataset) -> bool:
    """Whether the header says that words are drawn into the pixels."""
    return text_of(dataset, "BurnedInAnnotation").upper() == "YES"


def regions_of(dataset: Dataset) -> list[tuple[tuple[int, int, int, int], tuple[float, float] | None]]:
    """Where an ultrasound's scans lie: ((top, left, bottom, right), mm between rows and columns) of each region.

    PS3.3 C.8.5.5: the corners are inside; the spacing is None where its axes are no lengths.
    """
    found = []
    for item in _sequence(dataset, "SequenceOfUltrasoundRegions"):
        corners = [numbers_of(item, f"RegionLocation{name}") for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
        if all(len(corner) == 1 and 0 <= corner[0] < 65536 for corner in corners):
            top, left, bottom, right = (int(corner[0]) for corner in corners)
            found.append(((top, left, bottom + 1, right + 1), _region_spacing(item)))
    return found


def _region_spacing(item: Dataset) -> tuple[float, float] | None:
    """mm, of a region whose axes are in cm (unit 3)."""
    units = [numbers_of(item, f"PhysicalUnits{axis}Direction") for axis in "YX"]
    deltas = [numbers_of(item, f"PhysicalDelta{axis}") for axis in "YX"]
    if units != [(3.0,), (3.0,)] or [len(delta) for delta in deltas] != [1, 1]:
        return None
    spacing = (abs(deltas[0][0]) * 10.0, abs(deltas[1][0]) * 10.0)
    return spacing if all(SPACING[0] <= value <= SPACING[1] for value in spacing) else None


def shared(dataset: Dataset, group: str) -> Dataset:
    """A functional group that all frames of an enhanced file share; of any other file the file's own attributes."""
    for item in _sequence(dataset, "SharedFunctionalGroupsSequence"):
        for inner in _sequence(item, group):
            return inner
    return dataset


def numbers_of(dataset: Dataset, attribute: str) -> tuple[float, ...]:
    """The finite numbers of an attribute; none where it is missing or holds anything else."""
    try:
        value = _value(dataset, attribute)
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        numbers = tuple(float(number) for number in values)
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def function_of(dataset: Dataset) -> str:
    """How a window is applied: LINEAR, LINEAR_EXACT or SIGMOID."""
    return text_of(dataset, "VOILUTFunction").upper() or "LINEAR"


def _age(dataset: Dataset) -> float | None:
    """PatientAge as in 045Y, else counted from the birth date; whole years, at most 90."""
    if stated := re.fullmatch(r"(\d{1,3})([DWMY])", text_of(dataset, "PatientAge").upper()):
        return age_of(stated[1], AGE_UNITS[stated[2]])
    dates = (_day(text_of(dataset, name)) for name in ("StudyDate", "SeriesDate", "AcquisitionDate"))
    return age_between(_day(text_of(dataset, "PatientBirthDate")), next(filter(None, dates), None))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None


def text_of(dataset: Dataset, attribute: str) -> str:
    """One word of a header; empty where there is none, or several."""
    value = _value(dataset, attribute)
    return str(value).strip().strip("\0") if isinstance(value, str) else ""


def _value(dataset: Dataset, attribute: str) -> Any:
    """As pydicom converts it; None where it can't."""
    with quiet():
        try:
            return dataset.get(attribute)
        except Exception:  # its words quote the value
            return None


def _sequence(dataset: Dataset, attribute: str) -> list[Dataset]:
    return list(_value(dataset, attribute) or [])


def _points_at(dataset: Dataset, attribute: str) -> bool:
    """Whether FrameIncrementPointer names an attribute, or nothing while no other time is stated."""
    from pydicom.datadict import tag_for_keyword

    pointer = _value(dataset, "FrameIncrementPointer")
    return pointer == tag_for_keyword(attribute) or (pointer is None and not numbers_of(dataset, "FrameTime"))


def _transfer_syntax(path: Path) -> str:
    """How the rest of the file is written; only the file's own description is read."""
    from pydicom.filereader import read_file_meta_info

    with path.open("rb") as file:
        head = file.read(144)
    if not is_dicom(head):
        raise Unusable("it is no DICOM file: there is no DICM after its first 128 bytes")
    if head[132:136] == b"\x02\x00\x00\x00" and int.from_bytes(head[140:144], "little") > LONGEST_META:
        raise Unusable("its DICOM header is damaged: its first part would be longer than a megabyte")
    return str(read_file_meta_info(path).get("TransferSyntaxUID", ""))


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what pydicom warns of or logs: it quotes what it complains of."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
