"""The reports of records as a gallery in which each stands once, however many records have it."""

# N records with a report, T different texts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.losses.contrastive.duplicates import text_id


@dataclass(frozen=True)
class Galleries:
    """Both sides of a retrieval: a record and a text belong together where their numbers are equal."""

    rows_N: NDArray[np.int64]
    """Which records have a report."""
    text_N: NDArray[np.int64]
    """The number of each one's text."""
    texts: list[str]
    """As the first record with each has it, in the order of these records."""

    @property
    def text_T(self) -> NDArray[np.int64]:
        """The numbers of the texts: 0, 1, ..."""
        return np.arange(len(self.texts))


def galleries(reports: Sequence[str | None]) -> Galleries:
    """Reports are one text where they differ in case and white space alone."""
    numbers: dict[int, int] = {}
    texts: list[str] = []
    rows, of_row = [], []
    for row, report in enumerate(reports):
        if report is None or not report.strip():
            continue
        number = numbers.setdefault(text_id(report), len(texts))
        if number == len(texts):
            texts.append(report)
        rows.append(row)
        of_row.append(number)
    return Galleries(np.array(rows, np.int64), np.array(of_row, np.int64), texts)
