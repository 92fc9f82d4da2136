"""A tokenizer of one's own reports: the same texts give the same one, and what it reads it writes again."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from src.config.data import STANDARD_LEADS, SyntheticConfig
from src.config.transforms import TokenizerConfig
from src.data.shards import Shards
from src.data.synthetic import make_synthetic
from src.distributed.ranks import Ranks
from src.run.tokenizer import tokenizer_of
from src.run.training import TrainingRun
from src.text.tokenize import Tokenize
from src.text.vocabulary import LEAST, ROLES, train_tokenizer

REPORTS = ["Sinusrhythmus, überdrehter Linkstyp", "sinus rhythm, normal ECG", "sinusrytm, lågt st-avsnitt", None, "  "]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("reports") / "shards"
    make_synthetic(root, SyntheticConfig(samples=60, length=100, reports=True), STANDARD_LEADS)
    return Shards(root, "train")


def test_the_same_texts_give_the_same_tokenizer_and_others_another():
    assert len({train_tokenizer(iter(REPORTS), 400) for _ in range(5)}) == 1
    assert train_tokenizer(REPORTS, 400) != train_tokenizer(REPORTS[:1], 400)


def test_processes_with_other_hash_seeds_agree():
    code = f"from src.text.vocabulary import train_tokenizer; print(train_tokenizer({REPORTS!r}, 400))"
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(told) == 1


def test_special_tokens_come_first_and_stand_around_each_text():
    tokenize = Tokenize(TokenizerConfig(length=40), train_tokenizer(REPORTS, 400))
    ids_BL, keep_BL = tokenize([REPORTS[1], ""])
    begin, end = tokenize.ends
    assert (begin, end) == (2, 3) and list(ROLES.values()).index("[PAD]") == 0
    kept = ids_BL[0][keep_BL[0]].tolist()
    assert kept[0] == begin and kept[-1] == end and min(kept[1:-1]) >= len(ROLES)
    assert not keep_BL[1].any() and (ids_BL[0][~keep_BL[0]] == 0).all()
    assert max(kept) < tokenize.size <= 400


@pytest.mark.parametrize("vocabulary", [LEAST, 400])
def test_what_is_read_is_written_again_in_lower_case_with_its_umlauts(vocabulary):
    tokenize = Tokenize(TokenizerConfig(length=80), train_tokenizer(REPORTS, vocabulary))
    ids_BL, keep_BL = tokenize(["Überdrehter Linkstyp sinusrytm lågt"])
    assert tokenize.text(ids_BL[0][keep_BL[0]].tolist()) == "überdrehter linkstyp sinusrytm lågt"


def test_a_saved_one_is_read_by_transformers_and_by_its_folder(tmp_path):
    own = Tokenize(TokenizerConfig(length=20), train_tokenizer(REPORTS, 400))
    own.save(tmp_path)
    named = Tokenize(TokenizerConfig(tokenizer=str(tmp_path), length=20))
    for mine, theirs in zip(own(REPORTS[:3]), named(REPORTS[:3]), strict=True):
        assert np.array_equal(mine, theirs)
    assert AutoTokenizer.from_pretrained(tmp_path)(REPORTS[0])["input_ids"] == own._ids(REPORTS[:1])[0]


def test_no_report_and_no_room_are_told():
    with pytest.raises(ValueError, match="no report to train a tokenizer on"):
        train_tokenizer([None, " "], 400)
    with pytest.raises(ValueError, match="greater than or equal to"):
        TokenizerConfig(vocabulary=LEAST - 1)
    assert TokenizerConfig(vocabulary=LEAST).vocabulary == LEAST


def test_the_reports_of_a_split_are_read_without_their_ecgs(shards):
    whole = [sample["text"] for batch in shards.batches() for sample in batch]
    assert list(shards.texts()) == whole
    assert None in whole and len({text for text in whole if text}) < sum(map(bool, whole))


def test_synthetic_reports_tell_the_rate_and_change_nothing_else(shards, tmp_path):
    make_synthetic(tmp_path / "s", SyntheticConfig(samples=60, length=100), STANDARD_LEADS)
    everything = np.arange(len(shards))
    for told, silent in zip(shards.read(everything), Shards(tmp_path / "s", "train").read(everything), strict=True):
        assert np.array_equal(told["ecg"], silent["ecg"]) and silent["text"] is None
        if told["text"]:
            rate = told["meta"]["heart_rate"]
            assert f" {round(rate, -1):.0f}/min" in told["text"]
            assert (rate >= 100) == ("tachy" in told["text"].lower()) and (rate < 60) == (
                "brady" in told["text"].lower()
            )


def test_a_run_trains_one_on_its_split_unless_a_folder_is_named(shards, tmp_path):
    from src.config import load_config
    from ssls.objectives import schema_of

    config = load_config(Path("configs/jepa/ecg_debug.yaml"), [f"logging.folder={tmp_path / 'run'}"], schema_of)
    run = TrainingRun(config, Ranks(0, 1, torch.device("cpu")), check=True)
    own = tokenizer_of(run, TokenizerConfig(length=30, vocabulary=300), shards)
    own.save(tmp_path / "tokenizer")
    named = tokenizer_of(run, TokenizerConfig(tokenizer=str(tmp_path / "tokenizer"), length=30), shards)
    report = next(text for text in shards.texts() if text)
    assert np.array_equal(own([report])[0], named([report])[0])
    assert own.sha256 == named.sha256 != tokenizer_of(run, TokenizerConfig(length=30, vocabulary=290), shards).sha256
    assert own.text(own([report])[0][0].tolist()) == report.lower()
