"""metrics.csv is metrics.jsonl as a table, at any moment and after any kill."""

import csv
import json
import math
import random

import pytest

from src.run.folder import RunFolder
from src.run.logs import Lines
from src.run.table import Table
from tests.commands import kill_tree, lines, start, succeed, wait_for_lines


def cells(path):
    """The header and the rows of a CSV file, as text."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def as_cells(records):
    """What the table of these records must be."""
    header = list(dict.fromkeys(key for record in records for key in record))
    texts = [{key: "" if value is None else repr(value) for key, value in record.items()} for record in records]
    return header, [[text.get(key, "") for key in header] for text in texts]


class Metrics:
    """The two files of a run, written as Run does."""

    def __init__(self, root):
        self.folder = RunFolder(root)
        self.lines = Lines(self.folder.metrics)
        self.table = Table(self.folder.metrics_csv, self.folder.metrics)

    def write(self, record):
        self.lines.write(record)
        self.table.write(record)


def test_rows_equal_lines_after_each_write_whatever_keys_come(tmp_path):
    metrics, chance = Metrics(tmp_path), random.Random(1)
    for step in range(60):
        keys = chance.sample(["loss", "lr/a", "empty_steps/x", "grad_norm", 'a "quoted", key'], chance.randrange(1, 4))
        values = [chance.choice([1, 1e-9, math.pi, math.nan, math.inf, -0.0, 12345678901234567890]) for _ in keys]
        metrics.write({"step": step, **dict(zip(keys, values, strict=True))})
        assert cells(tmp_path / "metrics.csv") == as_cells(lines(tmp_path / "metrics.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "metrics.jsonl"]


def test_a_key_that_comes_later_is_a_column_at_the_end_and_empty_above(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.write({"step": 0, "loss": 0.5})
    metrics.write({"step": 1, "loss": math.nan, "skipped": 1})
    metrics.write({"step": 2, "loss": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,skipped\n0,0.5,\n1,,1\n2,0.25,\n"


def test_a_table_is_made_from_the_lines_whatever_a_kill_left_of_it(tmp_path):
    metrics = Metrics(tmp_path)
    for step in range(5):
        metrics.write({"step": step, "loss": step / 3})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5,0.1")
    (tmp_path / "metrics.csv.draft").write_text("step,lo")
    RunFolder(tmp_path).cut_logs(3)
    Metrics(tmp_path).write({"step": 3, "loss": 7.0})
    header, rows = cells(tmp_path / "metrics.csv")
    assert [row[0] for row in rows] == ["0", "1", "2", "3"] and rows[3] == ["3", "7.0"]
    assert not (tmp_path / "metrics.csv.draft").exists()


def test_a_run_without_lines_has_an_empty_table(tmp_path):
    Metrics(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == ""


@pytest.mark.distributed
def test_table_equals_lines_after_a_kill_and_a_resume(tmp_path):
    folder = tmp_path / "run"
    words = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu", "--set", f"logging.folder={folder}"]
    words += [f"data.root={tmp_path / 'shards'}", "checkpoint.every=3", "optimization.steps=8"]
    words += ["optimization.epochs=null", "optimization.warmup_epochs=null"]
    process = start(*words)
    wait_for_lines(process, folder, 5)
    kill_tree(process.pid)
    process.communicate()
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    with (folder / "metrics.csv").open("a") as file:
        file.write("99,")
    succeed(*words)
    records = lines(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(8)) and records[0] == first
    assert cells(folder / "metrics.csv") == as_cells(records)
