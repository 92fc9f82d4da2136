"""Tokens of reports: rows of one length, and no token where there is no report."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from src.config.transforms import TokenizerConfig
from src.data.batches.text import TextBatch
from src.data.batches.together import Together
from src.text.tokenize import Tokenize
from tests.transforms.batches import streams_of

REPORTS = ["sinus rhythm, normal ECG", "atrial fibrillation with a rapid ventricular response", "normal"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A WordPiece tokenizer of these reports."""
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words.train_from_iterator(REPORTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    ends = [(name, words.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    root = tmp_path_factory.mktemp("tokenizer")
    roles = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **roles).save_pretrained(root)
    return root


def tokenizer(folder, length=12):
    return Tokenize(TokenizerConfig(tokenizer=str(folder), length=length))


def test_rows_are_the_tokenizers_own_ids_and_padding_behind(folder):
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(12)
    ids_BL, keep_BL = tokenizer(folder)(REPORTS)
    for row, report in enumerate(REPORTS):
        assert ids_BL[row][keep_BL[row]].tolist() == plain.encode(report).ids
        assert keep_BL[row].tolist() == sorted(keep_BL[row], reverse=True)
        assert (ids_BL[row][~keep_BL[row]] == plain.token_to_id("[PAD]")).all()


def test_a_long_report_is_cut_and_keeps_its_end_token(folder):
    ids_BL, keep_BL = tokenizer(folder, 4)([REPORTS[1]])
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert keep_BL.all() and ids_BL[0, [0, -1]].tolist() == [words.token_to_id("[CLS]"), words.token_to_id("[SEP]")]


def test_a_sample_without_a_report_keeps_no_token(folder):
    samples = [{"key": str(n), "text": text} for n, text in enumerate([REPORTS[0], None, " ", REPORTS[2]])]
    batch = TextBatch(tokenizer(folder))(0, samples, streams_of(4))
    assert batch["has_text"].tolist() == [True, False, False, True]
    assert torch.equal(batch["text_keep"].any(1), batch["has_text"])
    assert batch["text"].shape == batch["text_keep"].shape == (4, 12) and batch["text"].dtype == torch.int64
    nobody = TextBatch(tokenizer(folder))(0, samples[1:3], streams_of(2))
    assert not nobody["text_keep"].any() and not nobody["has_text"].any()


def test_a_row_does_not_depend_on_the_others(folder):
    ids_BL, _ = tokenizer(folder)(REPORTS)
    assert all((tokenizer(folder)([report])[0][0] == ids_BL[row]).all() for row, report in enumerate(REPORTS))


def test_a_report_goes_with_what_it_is_of(folder):
    class Keys:
        def prepare(self, sample, streams):
            return {**sample, "drawn": streams.uniform("drawn")[0]}

        def __call__(self, step, prepared, streams):
            return {"drawn": torch.tensor([sample["drawn"] for sample in prepared])}

    both, streams = Together(Keys(), TextBatch(tokenizer(folder))), streams_of(2)
    samples = [{"key": "a", "text": REPORTS[0]}, {"key": "b", "text": None}]
    batch = both(0, [both.prepare(sample, streams[n : n + 1]) for n, sample in enumerate(samples)], streams)
    assert batch.keys() == {"drawn", "text", "text_keep", "has_text"}
    assert batch["drawn"].tolist() == streams.uniform("drawn").tolist()


def test_what_is_no_tokenizer_is_one_sentence(tmp_path, folder):
    with pytest.raises(ValueError, match=rf"^{tmp_path} is no tokenizer"):
        tokenizer(tmp_path)
    with pytest.raises(ValueError, match="adds 2 special tokens to each text: give more"):
        tokenizer(folder, 2)


def words_only(root):
    """A tokenizer of two words, without special tokens and without one for what is unknown."""
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "normal": 1, "rhythm": 2}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Replace("\u200b", ""), pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(root)
    return tokenizer(root)


def test_code_that_lies_beside_a_tokenizer_is_not_run_and_nobody_is_asked(tmp_path, monkeypatch):
    auto = '{"auto_map": {"AutoTokenizer": ["own.Own", null]}, "tokenizer_class": "Own"}'
    (tmp_path / "tokenizer_config.json").write_text(auto)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "y")
    with pytest.raises(ValueError, match=rf"^{tmp_path} is no tokenizer that can be read \(ValueError .*\n?.*name the"):
        tokenizer(tmp_path)
    assert not asked and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["{", "{}", '{"version": "1.0"}', '{"version": "1.0", "model": {"type": "X"}}', ""])
def test_a_damaged_tokenizer_is_one_sentence(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(
        ValueError, match=rf"^{tmp_path} is no tokenizer that can be read \(.*\): name the folder"
    ) as told:
        tokenizer(tmp_path)
    assert "\n" not in str(told.value)


def test_a_text_without_any_token_is_none(tmp_path):
    samples = [{"key": str(n), "text": text} for n, text in enumerate(["normal rhythm", "\u200b", "normal"])]
    batch = TextBatch(words_only(tmp_path))(0, samples, streams_of(3))
    assert batch["has_text"].tolist() == batch["text_keep"].any(1).tolist() == [True, False, True]


def test_a_word_that_a_tokenizer_has_no_token_for_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=rf"^{tmp_path} can't tokenise a text of this batch \(.*\): give a tokenizer"):
        words_only(tmp_path)(["infarction"])
