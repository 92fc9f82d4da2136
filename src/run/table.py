"""metrics.csv: the lines of metrics.jsonl as a table, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.run.logs import finite


class Table:
    """A CSV file with the rows of a JSON-lines file and a column for each key, in the order in which keys appear.

    The lines are the truth: the table is made from them when it is opened, which cures whatever a kill left, and again
    when a record brings a key that has no column yet.
    """

    def __init__(self, path: Path, lines: Path) -> None:
        self._path, self._lines = path, lines
        self._rebuild()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which stands in the lines already; null is an empty cell."""
        if record.keys() <= self._columns.keys():
            self._rows.writerow(finite(record))
        else:
            self._file.close()
            self._rebuild()

    def _rebuild(self) -> None:
        draft = self._path.with_name(self._path.name + ".draft")
        self._columns = {key: None for record in self._records() for key in record}
        self._file = draft.open("w", newline="", buffering=1)
        self._rows = csv.DictWriter(self._file, list(self._columns), lineterminator="\n")
        if self._columns:
            self._rows.writeheader()
        self._rows.writerows(self._records())
        draft.replace(self._path)  # the open file goes with its name

    def _records(self) -> Iterator[dict[str, Any]]:
        with self._lines.open() as file:
            yield from map(json.loads, file)
