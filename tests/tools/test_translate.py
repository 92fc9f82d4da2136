"""Reports of a split, as a CSV."""

import csv

import pytest

from src.data.inputs import shards_for
from src.evaluation.writer import load_writer
from src.metrics.translation import measure, translation_scores
from src.run.logs import LOGGER
from tests.ssls.translate.test_train import train
from tools import translate

SPLIT = "val"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of seconds, and its shards beside it."""
    LOGGER.handlers = []
    return train(tmp_path_factory.mktemp("translate") / "run", "optimization.steps=40", "optimization.warmup_steps=2")


def told(run, output, *flags):
    words = ["--run", str(run), "--shards", str(run.parent / "shards"), "--split", SPLIT, "--output", str(output)]
    assert translate.main([*words, *flags]) == 0
    with output.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("flags", "column"), [((), "greedy"), (("--beams", "2"), "beam")])
def test_it_writes_what_the_run_wrote_at_its_end(run, tmp_path, capsys, flags, column):
    rows = told(run, tmp_path / "written.csv", *flags, "--batch-size", "3")
    with (run / "predictions" / "validation.csv").open(newline="", encoding="utf-8") as file:
        theirs = {row["key"]: row for row in csv.DictReader(file)}
    shards = shards_for(load_writer(run).encoder.preprocessing, run.parent / "shards", SPLIT)
    assert [row["key"] for row in rows] == [sample["key"] for batch in shards.batches(size=5) for sample in batch]
    with_report = [row for row in rows if row["reference"]]
    assert {row["key"] for row in with_report} == set(theirs)
    for row in with_report:
        other = theirs[row["key"]]
        assert (row["patient_id"], row["reference"], row["written"]) == (
            other["patient_id"],
            other["reference"],
            other[column],
        )
    said = capsys.readouterr().out
    scores = translation_scores(
        measure([row["written"] for row in with_report], [row["reference"] for row in with_report])
    )
    assert f"{len(rows)} records" in said and f"{len(with_report)} have a report: bleu {scores['bleu']:.3g}" in said


def test_what_is_drawn_is_drawn_again_with_the_same_seed(run, tmp_path):
    drawn = [
        told(run, tmp_path / f"{number}.csv", "--sample", "--temperature", "2", "--top-k", "50", "--seed", seed)
        for number, seed in enumerate("001")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--beams", "0"], "--beams must be 1 or more"),
        (["--sample", "--beams", "2"], "leave one of them out"),
        (["--sample", "--temperature", "0"], "--temperature must be above 0"),
        (["--sample", "--top-p", "0"], "--top-p above 0"),
        (["--top-k", "5"], "are for --sample"),
        (["--split", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(run, tmp_path, capsys, flags, sentence):
    words = ["--run", str(run), "--shards", str(run.parent / "shards"), "--split", SPLIT]
    assert translate.main([*words, "--output", str(tmp_path / "written.csv"), *flags]) == 1
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error and not (tmp_path / "written.csv").exists()


def test_a_file_that_is_there_stays(run, tmp_path, capsys):
    taken = tmp_path / "written.csv"
    taken.write_text("mine")
    words = ["--run", str(run), "--shards", str(run.parent / "shards"), "--split", SPLIT, "--output", str(taken)]
    assert translate.main(words) == 1
    assert taken.read_text() == "mine" and "is there already" in capsys.readouterr().err
