"""BLEU and ROUGE of texts that were written, against the libraries, published examples and brute force."""

import random
from functools import cache

import numpy as np
import pytest
from sacrebleu import corpus_bleu as sacrebleu_of

from src.metrics.translation import (
    constant_answer,
    corpus_bleu,
    measure,
    translation_intervals,
    translation_scores,
)

WORDS = ("sinus", "rhythm,", "größe,", "Höhe", "normal", "ECG", "no", "acute", "left", "QRS", "120", "/min", ".")


def texts(number, seed):
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(0, 9))) for _ in range(number)]


def near(references, seed):
    """Texts of which about half the words are the reference's."""
    chance = random.Random(seed)
    return [
        " ".join(word if chance.random() < 0.7 else chance.choice(WORDS) for word in text.split())
        for text in references
    ]


@pytest.mark.parametrize("number", [1, 7, 60])
def test_bleu_is_sacrebleus_of_lower_cased_texts(number):
    references = [text or "normal" for text in texts(number, 1)]
    for written in (texts(number, 2), near(references, 3), references):
        ours = translation_scores(measure(written, references))["bleu"]
        assert ours == pytest.approx(sacrebleu_of(written, [references], lowercase=True).score, abs=1e-9)


def test_a_word_counts_as_often_as_it_is_in_the_reference():
    """The example of Papineni et al. 2002: seven times "the", of which two are in the reference."""
    statistics_S = measure(["the the the the the the the"], ["The cat is on the mat"]).statistics_NS[0]
    assert statistics_S.tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 6]


def test_a_text_that_is_too_short_pays_for_it():
    """Precision 1 for every n, so that BLEU is the brevity penalty exp(1 - 8/4)."""
    short = measure(["one two three four"], ["one two three four five six seven eight"])
    assert corpus_bleu(short.statistics_NS[0]) == pytest.approx(100 * np.exp(-1))


def test_rouge_is_what_its_authors_page_says():
    """The example of rouge-score's own page: 6 of 8 and of 9 words, 5 of these in order."""
    scores = translation_scores(
        measure(["The quick brown dog jumps on the log."], ["The quick brown fox jumps over the lazy dog"])
    )
    assert scores["rouge_1"] == pytest.approx(2 * 6 / (8 + 9))
    assert scores["rouge_2"] == pytest.approx(2 * 2 / (7 + 8))
    assert scores["rouge_l"] == pytest.approx(2 * 5 / (8 + 9))


def test_rouge_l_is_the_longest_common_subsequence_in_any_language():
    references, written = texts(30, 4), texts(30, 5)
    measured = measure(written, references).scores["rouge_l"]
    for row, (text, reference) in enumerate(zip(written, references, strict=True)):
        a, b = (
            tuple(one.lower().replace(",", "").replace(".", "").replace("/", "").split()) for one in (text, reference)
        )

        @cache
        def common(i, j, a=a, b=b):
            if i == len(a) or j == len(b):
                return 0
            return 1 + common(i + 1, j + 1) if a[i] == b[j] else max(common(i + 1, j), common(i, j + 1))

        assert measured[row] == pytest.approx(2 * common(0, 0) / max(len(a) + len(b), 1))


def test_an_umlaut_is_part_of_its_word():
    assert translation_scores(measure(["linke Größe"], ["linke Gräße"]))["rouge_1"] == pytest.approx(0.5)


def test_equal_but_for_case_and_white_space():
    found = measure(["sinus  Rhythm ", "sinus rhythm."], ["Sinus rhythm", "Sinus rhythm"])
    assert found.scores["exact"].tolist() == [1.0, 0.0]


def test_nothing_written_scores_nothing():
    assert set(translation_scores(measure(["", ""], ["Sinus rhythm", "normal"])).values()) == {0.0}


def test_intervals_hold_the_scores_and_are_those_of_sets_with_records_drawn_again():
    references = [text or "normal" for text in texts(40, 6)]
    measured = measure(near(references, 7), references)
    patients = [f"patient {number // 2}" for number in range(40)]
    found = translation_intervals(measured, patients, draws=200, seed=3, level=0.95)
    scores = translation_scores(measured)
    assert found.keys() == scores.keys()
    for name, interval in found.items():
        assert interval.value == pytest.approx(scores[name])
        assert interval.low <= interval.value <= interval.high
    wide = translation_intervals(measured, ["one"] * 20 + ["other"] * 20, draws=200, seed=3, level=0.95)
    halves = [
        translation_scores(measure(near(references, 7)[part], references[part]))["bleu"]
        for part in (slice(20), slice(20, 40))
    ]
    assert (wide["bleu"].low, wide["bleu"].high) == pytest.approx((min(halves), max(halves)))


def test_the_constant_answer_is_the_most_frequent_text():
    assert constant_answer(["b b", "a", "B  b", "c", "a", "b B"]) == "b b"
    assert constant_answer(["Z", "y", "x"]) == "x", "the first in the alphabet of equally frequent ones"
