"""Attentive heads from config to results: chosen without the test records, scored beside the linear ones, kept."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder
from src.models.attentive import AttentiveProbe
from src.models.config import EncoderConfig
from src.transforms.preprocessing import Preprocessing
from ssls.probe.config import Config
from tests.commands import succeed
from tests.ssls.probe.conftest import PROBES, predictions, probe, results

LEADS, NAMES = ("I", "II", "V1"), ("strong", "sometimes")
DEBUG = PROBES / "ecg_attentive_debug.yaml"
GRID = [(lr, decay) for lr in (1e-3, 3e-3) for decay in (0.4, 0.01)]


def write_world(folder, flipped=False):
    """90 records of 45 patients, of one window or two; a label that is known of all, one of half of them.

    `flipped` gives the test records the other labels.
    """
    rng = np.random.default_rng(0)
    records = []
    for number in range(90):
        split = ("train", "val", "test")[0 if number < 40 else 1 if number < 60 else 2]
        label = int(rng.random() < 0.5)
        signal = rng.normal(0, 1 + label, (3, 100 + number % 2 * 100)).astype(np.float32)
        told = 1 - label if flipped and split == "test" else label
        meta = {"id": str(number), "patient_id": f"p{number // 2}", "age": 20 + number}
        meta["labels"] = [told, told if number % 4 < 2 else None]
        records.append(Record(split, f"ecg-{number:02d}", signal, meta))
    write_shards(folder, records, Description(LEADS, 100.0, Labels(names=NAMES), {"made": "for a test"}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_world(root / "shards")
    write_world(root / "flipped", flipped=True)
    config = EncoderConfig(name="ecg_tiny", leads=3, length=100, patch=10, width=16, depth=1, heads=2)
    preprocessing = Preprocessing(leads=LEADS, sampling_rate=100.0, length=100, normalize="none", clip=None)
    torch.manual_seed(0)
    encoder = Encoder(config, preprocessing)
    export_encoder(root / "encoder", encoder.network.state_dict(), EncoderPart("teacher", config, preprocessing))
    return root


def settings(world, *more, shards="shards"):
    given = [f"data.root={world / shards}", f"init_from={world / 'encoder'}", "data.validation=val", "scores.draws=20"]
    return [*given, "data.tests={val: {split: test}}", *more]


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    return probe(DEBUG, tmp_path_factory.mktemp("run") / "one", *settings(world))


def heads(folder):
    return {path.name: path.read_bytes() for path in (folder / "heads").iterdir()}


def test_attentive_rows_stand_beside_linear_ones_in_every_table(folder):
    found = results(folder)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == list(found["tests"]["val"]["scores"]) == ["pretrained", "random_init", "linear", "raw"]
    assert [row["head"] for row in rows.values()] == ["attentive", "attentive", "linear", "linear"]
    assert list(found["tests"]["val"]["differences"]) == [f"pretrained - {name}" for name in list(rows)[1:]]
    assert rows["linear"]["encoders"] == rows["pretrained"]["encoders"] and rows["random_init"]["encoders"] == []
    assert rows["linear"]["width"] == 16 and rows["pretrained"]["width"] is None
    for name in ("pretrained", "random_init"):
        assert len(rows[name]["thresholds"][0]) == 2 and rows[name]["l2"] == []
        (search,) = rows[name]["search"]
        assert [(tried["lr"], tried["weight_decay"]) for tried in search["tried"]] == GRID
        scores = [tried["score"] for tried in search["tried"]]
        assert scores[search["chosen"]] == pytest.approx(max(scores), abs=1e-9)
    assert not list(folder.glob("tokens*")), "tokens are gone when the run is"


def test_the_head_on_disk_gives_the_predictions_on_disk_and_they_the_auroc_that_is_told(world, folder):
    tensors = load_file(folder / "heads" / "pretrained.0.safetensors")
    assert tensors.pop("mean").tolist() == [0, 0] and tensors.pop("std").tolist() == [1, 1]
    head = AttentiveProbe(16, 2, 0, 2)
    head.load_state_dict(tensors)
    encoder, shards = load_encoder(world / "encoder"), ECGShards(world / "shards", "test", LEADS)
    logits = []
    for sample in shards.read(np.arange(len(shards))):
        windows_WCT = encoder.preprocessing.prepare(sample["ecg"], sample["lead_keep"], None, sample["key"])
        with torch.no_grad():
            logits.append(head(encoder(torch.from_numpy(windows_WCT)).flatten(0, 1)[None])[0].numpy())
    _, truth, told = predictions(folder, "val", "pretrained")
    np.testing.assert_allclose(told, expit(np.array(logits)), atol=2e-3)
    known = ~np.isnan(truth[:, 1])
    labels = results(folder)["tests"]["val"]["scores"]["pretrained"]["labels"]
    assert labels["strong"]["auroc"]["value"] == pytest.approx(roc_auc_score(truth[:, 0], told[:, 0]), abs=1e-6)
    assert labels["sometimes"]["auroc"]["value"] == pytest.approx(
        roc_auc_score(truth[known, 1], told[known, 1]), abs=1e-6
    )


def test_other_test_labels_change_neither_the_choice_nor_a_head(world, folder, tmp_path):
    other = probe(DEBUG, tmp_path / "run", *settings(world, shards="flipped"))
    assert heads(other) == heads(folder)
    before, after = results(folder), results(other)
    assert [row["search"] for row in after["rows"]] == [row["search"] for row in before["rows"]]
    assert [row["thresholds"] for row in after["rows"]] == [row["thresholds"] for row in before["rows"]]
    assert after["tests"]["val"]["scores"]["pretrained"] != before["tests"]["val"]["scores"]["pretrained"]


def test_a_second_run_finds_the_same_bits_and_another_seed_others(world, folder, tmp_path):
    again = probe(DEBUG, tmp_path / "again", *settings(world))
    other = probe(DEBUG, tmp_path / "other", *settings(world, "seed=1"))
    for path in (folder / "predictions").rglob("*.csv"):
        assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert heads(again) == heads(folder) and results(again) == results(folder)
    assert heads(other)["pretrained.0.safetensors"] != heads(folder)["pretrained.0.safetensors"]


@pytest.mark.distributed
def test_two_processes_divide_the_settings_and_find_what_one_finds(world, folder, tmp_path):
    words = ["--fname", str(DEBUG), "--devices", "cpu", "cpu", "--set", *settings(world)]
    succeed(*words, f"logging.folder={tmp_path / 'two'}", timeout=250)
    one, two = results(folder), results(tmp_path / "two")
    for row, other in zip(one["rows"][:2], two["rows"][:2], strict=True):
        scores = [[tried["score"] for tried in of["search"][0]["tried"]] for of in (row, other)]
        np.testing.assert_allclose(scores[1], scores[0], atol=0.03)
    for row in ("pretrained", "linear"):
        _, _, told = predictions(folder, "val", row)
        np.testing.assert_allclose(predictions(tmp_path / "two", "val", row)[2], told, atol=0.02)
    assert not list((tmp_path / "two").glob("tokens*"))


def test_ages_are_told_in_years_and_chosen_out_of_fold(world, tmp_path):
    given = settings(world, "target={column: age}", "head.folds=2", "head.attentive.lr=[3e-3]", "rows.linear=false")
    probe(DEBUG, tmp_path / "run", *given, "data.validation=null")
    found = results(tmp_path / "run")
    assert found["task"] == "regression" and "linear" not in {row["name"] for row in found["rows"]}
    tensors = load_file(tmp_path / "run" / "heads" / "pretrained.0.safetensors")
    ages = np.arange(20, 60)
    assert tensors["mean"].item() == pytest.approx(ages.mean()) and tensors["std"].item() == pytest.approx(ages.std())
    _, _, told = predictions(tmp_path / "run", "val", "pretrained")
    assert 20 < told.min() <= told.max() < 60


def test_heads_that_do_not_divide_the_width_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match=r"head\.attentive\.heads: 3 heads do not divide the encoder's width 16"):
        probe(DEBUG, tmp_path / "run", *settings(world, "head.attentive.heads=3"))
    assert not list((tmp_path / "run").glob("tokens*"))


def test_the_grid_is_the_published_one_unless_another_is_asked_for():
    config = Config.model_fields["head"].default.attentive
    assert len(config.lr) * len(config.weight_decay) == 20 and config.depth == 1
