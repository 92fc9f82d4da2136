"""The page stands alone, tells what there is, and hides what must not be mailed."""

import html
import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from src.config.data import SyntheticConfig
from src.data.synthetic import make_synthetic
from src.report.read import read_run, shareable, without_paths
from tests.commands import ROOT, refuse
from tests.report.conftest import HOSTILE, SENTENCE, append, copy, page_of, raise_alarm
from tests.report.html_page import Page
from tools.report import main

SECTIONS = ["health", "run", "curves", "probe", "masks", "embeddings"]


def sections(page):
    return [name for name in page.ids if name in SECTIONS]


def test_page_is_well_formed_and_ids_are_unique(pages):
    for text in pages:
        page = Page(text)
        assert len(page.ids) == len(set(page.ids))
        assert text.startswith("<!DOCTYPE html>")


def test_page_refers_to_nothing_outside(pages):
    for text in pages:
        page = Page(text)
        assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
        for tag, target in page.references:
            citation = tag == "a" and target.startswith("https://doi.org/")
            assert citation or target == "data:," or target.removeprefix("#") in page.ids, (tag, target)
        assert "@import" not in text
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
        assert re.sub("https://doi.org/", "", text).count("://") == 0


def test_tables_have_captions_and_heads_that_say_what_they_head(pages, run, tmp_path):
    two_runs = page_of(run, copy(run, tmp_path / "other"))
    tables = [table for text in [*pages, two_runs] for table in Page(text).tables]
    assert len(tables) > 40
    for table in tables:
        assert table.tags[0] == "caption" and table.tags.count("caption") == 1 and table.caption.strip()
        for cell in (cell for row in table.rows for cell in row):
            assert cell.scope == ({"thead": "col", "tbody": "row"}[cell.part] if cell.tag == "th" else None), cell
            assert cell.tag == "td" or cell.text.strip(), f"a head without words: {table.caption}"
            assert cell.tag == "th" or cell.part == "tbody" or not cell.text.strip(), f"words in no head: {cell}"
        for row in table.rows:
            assert any(cell.tag == "th" for cell in row), f"a row without a head: {table.caption}, {row}"


def test_page_is_small(pages):
    assert max(map(len, pages)) < 2_000_000


def test_every_section_is_there(run, probe):
    assert sorted(sections(Page(page_of(run, probe)))) == sorted(SECTIONS)
    alone = Page(page_of(run))
    assert sections(alone) == ["health", "run", "curves", "masks", "embeddings", "probe"]
    assert "a probe is a run of its own" in alone.text


def test_page_tells_what_was_run(run):
    text = Page(page_of(run)).text
    assert "26, 8 epochs planned" in text and "shards, split train" in text and "multiblock" in text
    assert "29 thousand parameters, width 32, depth 2, 2 heads, 40 tokens of 10 samples" in text
    assert "final_weight_decay: 0.4" in text, "the whole config"


def test_steps_are_those_of_the_training_log(run):
    log = (run / "training.log").read_text()
    trained, evaluated = (
        [int(step) for step in re.findall(found, log)] for found in (r" step (\d+)/", r" at step (\d+):")
    )
    data = read_run(run)
    assert trained[0] == 1 and data.metrics["loss"].steps.tolist() == trained and data.steps == trained[-1]
    assert [one.step for one in data.health] == evaluated == [10, 20, 26]


def test_healthy_run_has_a_green_line_and_no_red(run):
    page = Page(page_of(run))
    assert "green" in page.classes and "red" not in page.classes
    assert "No alarm at any of 3 evaluations, the last at step 26" in page.text


def test_alarm_is_prominent_and_escaped(run):
    raise_alarm(run, 30)
    text = page_of(run)
    page = Page(text)
    assert "red" in page.classes and "Alarm at the last evaluation, step 31" in page.text
    assert without_paths(SENTENCE) in page.text
    assert "<b>&" not in text


def test_alarm_that_went_by_is_told_without_red(run):
    raise_alarm(run, 30)
    append(run / "health.jsonl", {"step": 40, "rankme": 20.0, "random_init/rankme": 22.0, "alarms": []})
    page = Page(page_of(run))
    assert "red" not in page.classes and "amber" in page.classes
    assert "Earlier alarms , none at the last evaluation, step 41" in page.text.replace("alarms,", "alarms ,")


def test_labels_are_escaped_in_tables_and_plots(probe):
    text = page_of(probe)
    assert HOSTILE in Page(text).text
    assert "<b>&" not in text


def test_label_names_are_never_mathematics(run):
    arrays = dict(np.load(run / "embeddings.npz"))
    arrays["label_names"] = np.array(["$\\frac{1}$"])
    np.savez(run / "embeddings.npz", **arrays)
    assert "$\\frac{1}$" in Page(page_of(run)).text


def test_probe_tells_intervals_differences_gap_groups_and_skipped_labels(probe):
    content = json.loads((probe / "results.json").read_text())
    text = Page(page_of(probe)).text
    cell = content["tests"]["test"]["scores"]["pretrained"]["macro"]["auroc"]
    assert f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" in text
    assert f"2 seeds, {min(cell['seeds']):.3f} to {max(cell['seeds']):.3f}" in text
    assert "Gap closed: 0.410 [0.200, 0.600]" in text
    assert "never: no positives among 120 known records" in text
    assert "By sex" in text and "Test set second_hospital" in text
    assert "significan" not in text


def test_settings_of_attentive_heads_are_told_with_their_held_out_scores(probe):
    assert "How the attentive heads were chosen" not in Page(page_of(probe)).text
    content = json.loads((probe / "results.json").read_text())
    tried = [
        {"lr": lr, "weight_decay": decay, "score": lr * 100 + decay} for lr in (1e-3, 3e-3) for decay in (0.4, 0.1)
    ]
    tried[1]["score"] = None
    content["rows"][0] |= {"head": "attentive", "pool": None, "search": [{"chosen": 2, "tried": tried}] * 2}
    (probe / "results.json").write_text(json.dumps(content))
    text = Page(page_of(probe)).text
    assert "attentive lr 0.003 and weight decay 0.4" in text
    for number in (1, 2):
        assert (
            f"pretrained, encoder {number} weight decay 0.1 weight decay 0.4 lr 0.001 \N{EN DASH} 0.500 "
            f"lr 0.003 0.400 0.700 chosen" in text
        )


@pytest.mark.parametrize(("patients", "told"), [(99, True), (100, False)])
def test_intervals_of_few_patients_come_with_a_warning(probe, patients, told):
    content = json.loads((probe / "results.json").read_text())
    for table in content["tests"].values():
        table["patients"] = patients
    (probe / "results.json").write_text(json.dumps(content))
    assert ("With fewer than 100 patients" in Page(page_of(probe)).text) == told


def test_mark_stands_where_the_interval_excludes_0(probe):
    content = json.loads((probe / "results.json").read_text())
    cells = [
        cell
        for table in content["tests"].values()
        for part in table["differences"].values()
        for cell in part["macro"].values()
    ]
    apart = [cell["low"] > 0 or cell["high"] < 0 for cell in cells if cell["low"] is not None]
    assert 0 < sum(apart) < len(apart), "some of both"
    assert page_of(probe).count('title="the interval does not contain 0"') == sum(apart)


def test_regression_and_undefined_values_are_shown(probe):
    content = json.loads((probe / "results.json").read_text())
    cell = {"value": -0.5, "low": None, "high": None, "seeds": [None]}
    scores = {
        "macro": {"mae": {**cell, "value": 12.34}, "r2": cell, "pearson": {"value": None}},
        "labels": {"age": {"mae": cell}},
    }
    content |= {
        "task": "regression",
        "labels": ["age"],
        "tests": {"test": {"records": 5, "scores": {"pretrained": scores}}},
    }
    (probe / "results.json").write_text(json.dumps(content))
    text = Page(page_of(probe)).text
    assert "mean absolute error \N{DOWNWARDS ARROW}" in text and "12.3" in text and "\N{MINUS SIGN}0.500" in text


def test_runs_stand_side_by_side(run, tmp_path):
    other = copy(run, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("lr: 0.001", "lr: 0.002").replace("seed: 0", "seed: 7", 1))
    text = page_of(run, other)
    page = Page(text)
    assert re.search(
        r"Keys of the config that differ What each run has there Key run other"
        r" seed 0 7 optimization\.lr 0\.001 0\.002 Starts",
        page.text,
    )
    assert text.count("#0072b2") > 10 and text.count("#d55e00") > 10, "a colour for each"
    assert page.text.count("step 26 beside it") == 2, "a column for each"


def test_equal_names_are_told_apart(run, tmp_path):
    other = copy(run, tmp_path / "elsewhere" / "run")
    assert "run (1)" in Page(page_of(run, other)).text and "run (2)" in Page(page_of(run, other)).text


def test_page_hides_machine_places_keys_and_patients(run, probe):
    raise_alarm(run, 30)
    attempt = run / "attempts" / "0001.json"
    record = json.loads(attempt.read_text())
    record["environment"] |= {
        "host": "secret-host",
        "platform": "secret-platform",
        "variables": {"TOKEN": "secret-token"},
    }
    attempt.write_text(json.dumps(record))
    text = html.unescape(page_of(run, probe))
    places = [str(run.parent), "hidden_place", str(ROOT), str(Path.home()) + "/", "/srv", "secret", "synthetic-000"]
    assert [place for place in places if place in text] == []
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", Page(text).text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see /srv/a b/c.txt", "see a b/c.txt"),
        ("/srv/data/ptbxl", "ptbxl"),
        ("~/runs/x and ../y/z", "x and z"),
        ("samples/s, train/test, 3 / 4", "samples/s, train/test, 3 / 4"),
        ("https://doi.org/10.1", "https://doi.org/10.1"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text, shown):
    assert without_paths(text) == shown


def test_a_path_with_spaces_in_a_config_is_cut_whole():
    places = ("/home/Jane Doe/scores.csv", "~/Jane Doe/scores.csv", "../../home/Jane Doe/scores.csv")
    assert [shareable({"scores": {"doctor": place}}) for place in places] == 3 * [{"scores": {"doctor": "scores.csv"}}]


DAMAGES = {
    "config.yaml": b"objective: [",
    "metrics.jsonl": b'{"step": 1, "loss": 0.5}\n{"step": 2, "lo',
    "health.jsonl": b'{"step": null}\nnonsense\n{"step": 3, "rankme": "high", "alarms": 7}\n',
    "embeddings.npz": b"PK nothing",
    "attempts/0001.json": b"{",
    "results.json": b'{"format": 2}',
    "encoder/model.safetensors": b"\xff" * 20,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_costs_its_part_of_the_page(run, name):
    (run / name).write_bytes(DAMAGES[name])
    assert sorted(sections(Page(page_of(run)))) == sorted(SECTIONS)


@pytest.mark.parametrize("loss", ["absent", "empty", "a folder", "not to be read"])
@pytest.mark.parametrize("kept", ["config.yaml", "metrics.jsonl"])
def test_any_one_file_is_enough_for_a_page(run, loss, kept):
    for name in set(DAMAGES) - {kept}:
        path = run / name
        path.unlink(missing_ok=True)
        if loss == "a folder":
            path.mkdir()
        elif loss == "not to be read":
            path.symlink_to(path)
        elif loss == "empty":
            path.touch()
    assert sorted(sections(Page(page_of(run)))) == sorted(SECTIONS)


def test_a_run_that_has_just_begun_has_a_page(run):
    for name in ("metrics.jsonl", "health.jsonl", "embeddings.npz"):
        (run / name).unlink()
    (run / "encoder" / "model.safetensors").unlink()
    text = Page(page_of(run)).text
    assert "not finished: still running or stopped" in text and "metrics.jsonl has no line yet" in text


def test_broken_lines_are_counted(run):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"nonsense\n[1]\n" + b'{"step": 99')
    assert "2 damaged lines of metrics.jsonl left out." in Page(page_of(run)).text
    assert read_run(run).steps == 26


def test_values_that_are_not_finite_are_told(run):
    append(run / "metrics.jsonl", {"step": 26, "loss": None}, {"step": 27, "loss": 0.3})
    assert "1 value is not finite and not drawn." in Page(page_of(run)).text


def test_shards_that_are_elsewhere_cost_only_the_masks(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub("root: .*", "root: /nowhere/at/all/ours", config))
    text = Page(page_of(run)).text
    assert "The shards ours can't be read from here" in text and "/nowhere" not in text


def traces(page):
    """The paths of leads on paper; a calibration mark has six points."""
    paths = re.findall(r' d="([^"]*)"[^>]*stroke: #000000; stroke-width: 0\.8;', page)
    return [path for path in paths if path.count("L") > 5]


def test_page_without_ecg_holds_none_of_any_record(run, tmp_path):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub("root: .*", f"root: {tmp_path / 'shards'}", config))
    data = read_run(run).config["data"]
    drawn, without = [], []
    for seed in (1, 2):
        make_synthetic(tmp_path / "shards", SyntheticConfig(**data["synthetic"] | {"seed": seed}), data["leads"])
        drawn.append(page_of(run))
        assert main([str(run), "--without-ecg", "--output", str(tmp_path / "page.html")]) == 0
        without.append((tmp_path / "page.html").read_text())
        (tmp_path / "shards").rename(tmp_path / f"shards of {seed}")
    assert [len(traces(page)) for page in drawn] == [21, 21], "three leads of three samples, and twelve of one"
    assert not set(traces(drawn[0])) & set(traces(drawn[1]))
    assert traces(without[0]) == [] and without[0] == without[1], "the page does not depend on any signal"
    text = Page(without[0]).text
    assert "this page was made to hold no ECG" in text and "Sample 3:" in text and "over one record" not in text
    assert "this page was made to hold no ECG" not in Page(drawn[0]).text


def test_the_same_folder_gives_the_same_page(run):
    assert page_of(run) == page_of(run)


def test_tool_writes_where_it_says(run, probe, tmp_path, capsys):
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == f"the report is in {run / 'report.html'}\n"
    assert main([str(run), str(probe), "--output", str(tmp_path / "both.html")]) == 0
    assert (tmp_path / "both.html").read_text() == page_of(run, probe)


@pytest.mark.parametrize("place", ["nowhere", "file", "empty"])
def test_a_folder_that_is_no_run_is_one_sentence(tmp_path, place, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / place)]) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("error: ") and sentence.count("\n") == 1
    assert place in sentence and "run folder" in sentence


def test_the_command_ends_with_that_sentence(tmp_path):
    assert "run folder" in refuse(str(tmp_path / "nowhere"), script="-mtools.report")


def test_an_output_that_cannot_be_written_is_one_sentence(run, tmp_path, capsys):
    assert main([str(run), "--output", str(tmp_path / "no" / "folder" / "x.html")]) == 1
    assert "--output" in capsys.readouterr().err
