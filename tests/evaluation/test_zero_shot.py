"""Zero-shot scores from vectors whose answer is known, and files of prompts."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src.config.load import load_section
from src.config.prompts import Prompts
from src.evaluation.zero_shot import label_directions, markdown, score_zero_shot

ROOT = Path(__file__).resolve().parents[2]
VECTORS = {"ill": [1.0, 0.0, 0.0], "krank": [0.0, 1.0, 0.0], "well": [0.0, 0.0, 1.0]}


def embed(sentences):
    return np.array([VECTORS[sentence.removeprefix("ekg: ")] for sentence in sentences], np.float32)


def prompts(**label):
    return Prompts.model_validate({"labels": {"MI": label}})


def test_a_direction_is_the_mean_of_what_speaks_for_it_less_that_against_it():
    both = prompts(positive={"en": ("ill",), "de": ("krank",)}, negative={"en": ("well",)})
    half = np.sqrt(0.5)
    np.testing.assert_allclose(label_directions(both, embed), [[half, half, -1.0]], atol=1e-6)
    np.testing.assert_allclose(label_directions(both, embed, ("en",)), [[1.0, 0.0, -1.0]])
    alone = prompts(positive={"de": ("krank",)})
    np.testing.assert_allclose(label_directions(alone, embed), [[0.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match="the prompts of MI are in de, not in en"):
        label_directions(alone, embed, ("en",))


def test_templates_hold_each_sentence_once():
    asked = Prompts.model_validate({"templates": ("{}", "ekg: {}"), "labels": {"MI": {"positive": {"de": ("krank",)}}}})
    assert asked.sentences({"de": ("krank",)}, None, "MI") == ["krank", "ekg: krank"]
    with pytest.raises(ValueError, match="must have {} once"):
        Prompts.model_validate({"templates": ("ekg",), "labels": {"MI": {"positive": {"de": ("krank",)}}}})


def test_scores_are_those_of_the_cosines_and_a_label_of_one_class_is_skipped():
    draw = np.random.default_rng(0)
    ecg = draw.normal(size=(80, 3)).astype(np.float32)
    ecg /= np.linalg.norm(ecg, axis=1, keepdims=True)
    directions = np.array([[1, 0, -1], [0, 1, 0], [0, 0, 1]], np.float32)
    truth = (ecg @ directions.T + draw.normal(size=(80, 3)) > 0).astype(float)
    truth[:, 2] = 1.0
    truth[5, 0] = np.nan
    table = score_zero_shot(
        ecg, directions, truth, ["MI", "CD", "HYP"], [f"p{row // 2}" for row in range(80)], draws=100
    )
    cells = table["scores"]["zero_shot"]
    known = ~np.isnan(truth[:, 0])
    by_hand = [
        roc_auc_score(truth[known, 0], (ecg @ directions[0])[known]),
        roc_auc_score(truth[:, 1], ecg @ directions[1]),
    ]
    assert cells["labels"]["MI"]["auroc"]["value"] == pytest.approx(by_hand[0])
    assert cells["macro"]["auroc"]["value"] == pytest.approx(np.mean(by_hand))
    assert cells["macro"]["auroc"]["low"] < np.mean(by_hand) < cells["macro"]["auroc"]["high"]
    assert "HYP" in table["skipped"] and set(cells["macro"]) == {"auroc", "average_precision"}
    text = markdown(table)
    assert "| MI |" in text and "HYP is skipped" in text


def test_shipped_prompts_are_read_and_a_mistake_in_one_is_named(tmp_path):
    for path in (ROOT / "configs" / "prompts").glob("*.yaml"):
        assert load_section(path, Prompts).labels
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("labels:\n  MI: {positve: {de: [infarkt]}}\n")
    with pytest.raises(ValueError, match=r"wrong.yaml.*positve"):
        load_section(wrong, Prompts)
