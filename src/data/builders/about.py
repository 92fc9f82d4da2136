"""What a file may tell of the person it was recorded from: a patient to split by, age and sex, and nothing else.

Names, birth dates, times, devices, places and free text of a header are not looked at, except to count an age.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from src.data.builders.sources import Listing, Source

OLDEST = 90.0
"""All ages above 89 are this one, since those who are older can be recognised (45 CFR 164.514)."""
LONGEST_LIFE = 150.0
NOBODY = {"", "x", "0", "unknown", "anonymous", "anonymized", "anonymised", "none", "null", "n/a", "na", "nan"}
"""What recorders write where no patient was entered."""
SEXES = {"m": 0.0, "male": 0.0, "f": 1.0, "female": 1.0}
PER_YEAR = {"year": 1, "month": 12, "week": 52, "day": 365, "hour": 8760}


@dataclass(frozen=True)
class About:
    """Of whom a record is."""

    patient: str | None = None
    """As the file has it: for splitting; the shards hold a hash of it."""
    age: float | None = None
    """Whole years, at most 90."""
    sex: float | None = None
    """0 male, 1 female, as PTB-XL."""

    def meta(self) -> dict[str, float]:
        """What goes into the shards."""
        return {name: value for name, value in (("age", self.age), ("sex", self.sex)) if value is not None}


def patient_of(text: str | None) -> str | None:
    """A patient's id in one spelling; None for those that stand for nobody."""
    patient = " ".join((text or "").split())
    return None if patient.casefold() in NOBODY or not patient.strip("0 ._-") else patient


def age_of(text: str | None, unit: str = "years") -> float | None:
    """Whole years out of what a file says; None for what is no age."""
    number = re.fullmatch(r"\s*(\d{1,6})(?:\.\d*)?\s*", text or "")
    parts = PER_YEAR.get(unit.strip().casefold().removesuffix("s") or "year")
    if number is None or parts is None or (years := int(number[1]) // parts) > LONGEST_LIFE:
        return None
    return min(float(years), OLDEST)


def age_between(birth: date | None, recording: date | None) -> float | None:
    """Whole years from one day to the other."""
    if birth is None or recording is None:
        return None
    years = recording.year - birth.year - ((recording.month, recording.day) < (birth.month, birth.day))
    return age_of(str(years))


def sex_of(text: str | None) -> float | None:
    """0 male, 1 female, None for anything else."""
    return SEXES.get((text or "").strip().casefold())


def with_what_files_tell(listing: Listing, tell: Callable[[Path], About], patients: bool) -> Listing:
    """The listing with age and sex out of the files, and the patient too if `patients`; what can't be read is rejected.

    What a source has already stays.
    """
    sources: list[Source] = []
    rejected = list(listing.rejected)
    for source in listing.sources:
        try:
            about = tell(source.path)
        except ValueError as error:
            rejected.append((source.name, str(error)))
            continue
        meta: Mapping[str, object] = {**about.meta(), **source.meta}
        patient = source.patient if source.patient is not None or not patients else about.patient
        sources.append(replace(source, patient=patient, meta=meta))
    return replace(listing, sources=sources, rejected=rejected)
