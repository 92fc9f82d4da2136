"""How well a pair finds the reports of ECGs, and the ECGs of reports, in a split; as a table with intervals."""

# N records with a report, T different texts, F features of the joint space

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.shards import Shards
from src.evaluation.pair import Pair
from src.evaluation.results import cell_text
from src.evaluation.texts import Galleries, galleries
from src.metrics.retrieval import constant_answer, retrieve, with_intervals

Features = NDArray[np.float32]
CONSTANT = "ecg_to_text, constant answer"
NOTE = (
    "Each text stands in the gallery once, however many records have it. The constant answer ranks the texts by how "
    "often these very records have them, and does not look at any ECG. Ties count against the model. 95 % intervals "
    "are over patients."
)


def embed_split(pair: Pair, shards: Shards, windows: int | None, batch_size: int) -> tuple[Features, list[str | None]]:
    """Joint features [N, F] of all records of a split, and their reports; few samples are in memory at a time."""
    found, reports = [], list[str | None]()
    for samples in shards.batches(size=batch_size):
        found.append(pair.embed_samples(samples, windows))
        reports += [sample["text"] for sample in samples]
    return np.concatenate(found), reports


def patients_of(shards: Shards) -> list[str]:
    """Whose each record of a split is; a record without a patient is one by itself."""
    return [about.patient or about.key for about in shards.about()]


def retrieval_table(
    ecg_NF: Features,
    text_TF: Features,
    known: Galleries,
    patients_N: Sequence[object],
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Both directions and the constant answer: {"ecgs", "texts", "most_frequent", "rows": {row: {metric: cell}}}.

    ECGs and patients are those of `known.rows_N`. A cell is one of `with_intervals`.
    """
    text_N, text_T = known.text_N, known.text_T
    found = {
        "ecg_to_text": retrieve(ecg_NF, text_N, text_TF, text_T),
        CONSTANT: constant_answer(text_N, text_T),
        "text_to_ecg": retrieve(text_TF, text_T, ecg_NF, text_N),
    }
    owners = {"text_to_ecg": text_N}
    rows = {
        name: with_intervals(
            of.metrics(), owners[name] if name in owners else np.arange(len(text_N)), patients_N, draws, seed
        )
        for name, of in found.items()
    }
    return {
        "ecgs": len(text_N),
        "texts": len(text_T),
        "most_frequent": int(np.bincount(text_N).max()),
        "rows": rows,
    }


def evaluate(pair: Pair, shards: Shards, windows: int | None, batch_size: int, draws: int) -> dict[str, Any]:
    """The table of a split.

    Raises:
        ValueError: it has no report.
    """
    ecg_NF, reports = embed_split(pair, shards, windows, batch_size)
    known = galleries(reports)
    if not known.texts:
        raise ValueError(f"no sample of split {shards.split} in {shards.root} has a report: name another split")
    of_all = patients_of(shards)
    patients = [of_all[row] for row in known.rows_N]
    return retrieval_table(ecg_NF[known.rows_N], pair.embed_text(known.texts), known, patients, draws)


def markdown(table: dict[str, Any]) -> str:
    """The table with what it is of."""
    rows = table["rows"]
    metrics = list(next(iter(rows.values())))
    lines = [
        f"{table['ecgs']} ECGs and {table['texts']} different reports, the most frequent of which "
        f"{table['most_frequent']} have. {NOTE}\n",
        f"| | {' | '.join(rows)} |",
        f"| --- | {' | '.join('---:' for _ in rows)} |",
    ]
    lines += [f"| {metric} | {' | '.join(cell_text(cells[metric]) for cells in rows.values())} |" for metric in metrics]
    return "\n".join(lines)
