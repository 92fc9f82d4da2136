"""A run of MECLIP, what it logs, and what its pair finds, by the tools."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config import load_config
from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.evaluation.encoder import load_encoder
from src.evaluation.pair import load_pair
from src.evaluation.texts import galleries
from src.run.logs import LOGGER
from ssls.objectives import schema_of
from tests.commands import lines
from tests.config.record_reads import experiment
from tests.report.conftest import page_of
from tools import retrieve, zero_shot

DEBUG = Path(__file__).resolve().parents[2] / "configs" / "meclip" / "ecg_debug.yaml"
SHORT = ("optimization.epochs=null", "optimization.steps=6", "optimization.warmup_epochs=null", "evaluation.every=3")


def train(folder, *settings, run="run"):
    """The debug run, in this process; its folder."""
    places = [f"data.root={folder / 'shards'}", f"logging.folder={folder / run}"]
    experiment(load_config(DEBUG, [*places, *SHORT, *settings], schema_of), False)
    return folder / run


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """Nothing is left among the handlers of the process."""
    handlers, threads = LOGGER.handlers[:], torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    LOGGER.handlers = handlers
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meclip")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def shards(folder):
    found = ECGShards(folder / "shards", "val", load_encoder(folder / "run").preprocessing.leads)
    return found.read(np.arange(len(found)))


def test_the_log_tells_of_duplicates_and_of_retrieval(folder):
    steps, health = lines(folder / "run" / "metrics.jsonl"), lines(folder / "run" / "health.jsonl")
    assert all(0 < line["duplicate_text_rate"] < 1 for line in steps)
    assert [line["step"] for line in health] == [2, 5]
    for line in health:
        assert line["retrieval/texts"] <= line["retrieval/ecgs"] <= line["records"]
        for direction in ("ecg_to_text", "text_to_ecg"):
            name = f"retrieval/{direction}/median_rank"
            assert 1 <= line[name] <= line["retrieval/ecgs"] and f"random_init/{name}" in line


def test_a_pair_is_whole_without_the_config_and_the_shards(folder, shards, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "config.yaml"))
    pair = load_pair(tmp_path / "run")
    texts = [sample["text"] for sample in shards if sample["text"]]
    found = pair.embed_text(texts)
    assert found.shape == (len(texts), 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(pair.embed_text(texts[2:3]), found[2:3], atol=1e-6)
    ecg = pair.embed_samples(shards)
    np.testing.assert_allclose(np.linalg.norm(ecg, axis=1), 1.0, rtol=1e-5)
    one = pair.embed_ecg(shards[0]["ecg"][None])
    np.testing.assert_allclose(one, ecg[:1], atol=1e-5)
    with pytest.raises(ValueError, match="text 1 is empty"):
        pair.embed_text(["sinus rhythm", " "])


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"holds no pair .*text/config.json is missing"):
        load_pair(tmp_path)
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    weights = tmp_path / "run" / "text" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"text/model.safetensors does not fit config.json or is damaged"):
        load_pair(tmp_path / "run")


def test_the_tool_tells_what_the_pair_finds(folder, shards, tmp_path, capsys):
    given = ["--run", str(folder / "run"), "--shards", str(folder / "shards"), "--split", "val", "--draws", "100"]
    assert retrieve.main([*given, "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    known = galleries([sample["text"] for sample in shards])
    assert (table["ecgs"], table["texts"]) == (len(known.text_N), len(known.texts))
    assert f"{len(known.text_N)} ECGs and {len(known.texts)} different reports" in told
    frequent = np.bincount(known.text_N)
    constant = table["rows"]["ecg_to_text, constant answer"]["recall_any@1"]["value"]
    assert constant == pytest.approx(frequent.max() / frequent.sum())
    pair = load_pair(folder / "run")
    scores = pair.embed_samples([shards[row] for row in known.rows_N]) @ pair.embed_text(known.texts).T
    right = scores[np.arange(len(scores)), known.text_N]
    ranks = (scores >= right[:, None]).sum(1)
    assert table["rows"]["ecg_to_text"]["mrr"]["value"] == pytest.approx((1 / ranks).mean(), rel=1e-5)
    assert table["rows"]["ecg_to_text"]["median_rank"]["value"] == np.median(ranks)
    assert retrieve.main([*given, "--output", str(tmp_path / "out")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_prompts_tell_a_label_that_was_never_seen(folder, tmp_path, capsys):
    asked = tmp_path / "fast.yaml"
    asked.write_text(
        "labels:\n  fast:\n    positive: {en: [sinus tachycardia], de: [Sinustachykardie]}\n"
        "    negative: {en: ['sinus rhythm, normal ECG']}\n"
    )
    given = ["--run", str(folder / "run"), "--shards", str(folder / "shards"), "--split", "train", "--draws", "50"]
    assert zero_shot.main([*given, "--prompts", str(asked), "--output", str(tmp_path / "out")]) == 0
    assert "| fast |" in capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    assert 0 <= table["scores"]["zero_shot"]["macro"]["auroc"]["value"] <= 1
    asked.write_text("labels:\n  slow: {positive: {en: [sinus bradycardia]}}\n")
    assert zero_shot.main([*given, "--prompts", str(asked)]) == 1
    assert "has no label slow; there is fast" in capsys.readouterr().err


def test_the_report_has_the_tables_that_lie_in_the_run(folder, tmp_path):
    run = Path(shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    assert "Its pair has not been evaluated" in page_of(run)
    given = ["--run", str(run), "--shards", str(folder / "shards"), "--split", "val", "--draws", "50"]
    asked = tmp_path / "fast.yaml"
    asked.write_text("labels:\n  fast: {positive: {en: [sinus tachycardia]}}\n")
    assert retrieve.main([*given, "--output", str(run / "retrieval")]) == 0
    assert zero_shot.main([*given, "--prompts", str(asked), "--output", str(run / "fast")]) == 0
    page = page_of(run)
    found = json.loads((run / "retrieval" / "retrieval.json").read_text())
    for row in ("ecg_to_text", "ecg_to_text, constant answer", "text_to_ecg"):
        assert row.replace("_", " ") in page and f"{found['rows'][row]['mrr']['value']:.3f}" in page
    told = json.loads((run / "fast" / "zero_shot.json").read_text())
    assert f"{told['scores']['zero_shot']['labels']['fast']['auroc']['value']:.3f}" in page
    assert "Retrieval, retrieval" in page and "Labels from sentences, fast" in page
    (run / "retrieval" / "retrieval.json").write_text("[]")
    assert "retrieval/retrieval.json is not what its tool writes" in page_of(run)
    shutil.rmtree(run / "text")
    assert "ECGs and texts" not in page_of(run)


def test_up_to_the_first_duplicate_the_three_modes_are_one_run(tmp_path):
    steps = []
    for mode in ("ignore", "exclude", "share"):
        run = train(tmp_path, f"loss.duplicates={mode}", "data.batch_size=2", "evaluation.every=null", run=mode)
        steps.append(lines(run / "metrics.jsonl"))
    rates = [line["duplicate_text_rate"] for line in steps[0]]
    alike = next((step for step, rate in enumerate(rates) if rate), len(rates))
    assert alike > 0, rates
    for other in steps[1:]:
        assert [line["loss"] for line in other[:alike]] == [line["loss"] for line in steps[0][:alike]]


def write_alike(root, text):
    """ECGs of noise whose reports are all alike."""
    draw = np.random.default_rng(0)
    records = (
        Record(
            split="train",
            key=f"r{number:02d}",
            signal_CT=draw.integers(-900, 900, (12, 500)).astype(np.int16),
            meta={"id": str(number), "patient_id": f"p{number}", "labels": [], "scale": [0.001] * 12},
            text=text,
        )
        for number in range(32)
    )
    write_shards(root, records, Description(STANDARD_LEADS, 100.0, Labels(), {}))


@pytest.mark.parametrize("mode", ["ignore", "exclude", "share"])
def test_a_batch_of_one_text_is_told_once_and_is_no_nan(tmp_path, mode):
    write_alike(tmp_path / "shards", "Normal ECG")
    run = train(tmp_path, "data.synthetic=null", f"loss.duplicates={mode}", "evaluation.every=null")
    steps, log = lines(run / "metrics.jsonl"), (run / "training.log").read_text()
    assert all(line["duplicate_text_rate"] == 1.0 and line["skipped_steps"] == 0 for line in steps)
    assert all(line["loss"] > 0 if mode == "ignore" else line["loss"] == 0 for line in steps)
    assert log.count("all reports of the batch say the same") == 1
    assert ("so that its loss is 0" in log) == (mode != "ignore")


def test_shards_that_say_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.synthetic makes ECGs without reports: set data.synthetic.reports"):
        train(tmp_path, "data.synthetic.reports=false")
    write_alike(tmp_path / "shards", None)
    with pytest.raises(ValueError, match=r"no sample of split train in .* has a report"):
        train(tmp_path, "data.synthetic=null")
    write_alike(tmp_path / "other" / "shards", "Normal ECG")
    with pytest.raises(ValueError, match=r"loss.ids is labels, but .* has none"):
        train(tmp_path / "other", "data.synthetic=null", "loss.ids=labels")
