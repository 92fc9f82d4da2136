"""Who and what each sample of a split is: labels and patients, read from the small members of all its samples.

One process reads some 150,000 samples a second from a warm cache; 8 bytes stay in memory for each label of a sample, or
for its patient.
"""

# N samples, K labels

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from src.data.shards import Shards

NO_LABEL = "\0"
"""The group of samples whose known labels are all 0; no label's name can be this."""


def label_groups(shards: Shards) -> dict[str, NDArray[np.int64]]:
    """The samples with each label, in the index's order, and those with none; labels that no sample has are left out.

    A sample of which no label is known is in no group.

    Raises:
        ValueError: no sample has a known label, or a json can't be read.
    """
    names = [*shards.label_names, NO_LABEL]
    members = [array("q") for _ in names]
    for sample, (_, labels_K, _) in enumerate(shards.about()):
        found = np.flatnonzero(labels_K > 0).tolist()
        for number in found or ([-1] if (labels_K == 0).any() else []):
            members[number].append(sample)
    groups = {name: np.array(own, np.int64) for name, own in zip(names, members, strict=True) if own}
    if not groups:
        raise ValueError(f"{shards.root} has no labels in split {shards.split}: leave out data.balance labels")
    return groups


def patients_of(shards: Shards) -> NDArray[np.int64]:
    """The number of each sample's patient, 0 .. Q - 1 in the order in which they come.

    Raises:
        ValueError: a sample has no patient.
    """
    numbers: dict[str, int] = {}
    patients_N = np.empty(len(shards), np.int64)
    for sample, patient in enumerate(about.patient for about in shards.about()):
        if patient is None:
            key = shards.keys(np.array([sample]))[0]
            raise ValueError(
                f"{shards.root}: sample {key} has no patient_id: leave out data.balance patients, or build the shards "
                "with --patient-column"
            )
        patients_N[sample] = numbers.setdefault(patient, len(numbers))
    return patients_N
