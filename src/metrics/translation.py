"""How near texts that were written are to those of people: BLEU by sacrebleu, ROUGE by rouge-score.

Both count words in common and know nothing of what they mean: "no infarction" is near "infarction". Where many reports
are alike, one sentence for all scores high: tell `constant_answer`'s scores beside.
"""

# D draws, N records, S statistics of BLEU

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.metrics.bootstrap import Interval, interval, over_draws, patient_draws

NGRAMS = 4
ROUGES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
SCORES = ("bleu", *ROUGES, "exact")


class Words:
    """Lower-cased words of letters, digits and _ in any language; rouge-score's own takes every umlaut for a space."""

    def tokenize(self, text: str) -> list[str]:
        """The words."""
        return re.findall(r"\w+", text.lower())


class Measured(NamedTuple):
    """What of each record the scores of any set of them are made."""

    statistics_NS: NDArray[np.float64]
    """BLEU's: n-grams in common and in all, for n = 1 to 4, and the lengths of both texts."""
    scores: dict[str, NDArray[np.float64]]
    """[N] each: the F-measures of ROUGE, and whether both texts are equal but for case and white space."""


def measure(written: Sequence[str], references: Sequence[str]) -> Measured:
    """Compare each text with its reference.

    BLEU is sacrebleu's with its 13a tokens, of lower-cased texts; ROUGE without stemming.
    """
    from rouge_score.rouge_scorer import RougeScorer  # nltk behind it, seconds to import
    from sacrebleu.metrics import BLEU

    assert len(written) == len(references)
    bleu, rouge = BLEU(lowercase=True, effective_order=True), RougeScorer(list(ROUGES.values()), tokenizer=Words())
    statistics, scores = np.zeros((len(written), 2 * NGRAMS + 2)), np.zeros((len(written), len(ROUGES) + 1))
    for row, (text, reference) in enumerate(zip(written, references, strict=True)):
        found = bleu.sentence_score(text, [reference])
        statistics[row] = [*found.counts, *found.totals, found.sys_len, found.ref_len]
        overlaps = rouge.score(reference, text)
        same = text.lower().split() == reference.lower().split()
        scores[row] = [*(overlaps[name].fmeasure for name in ROUGES.values()), float(same)]
    return Measured(statistics, dict(zip((*ROUGES, "exact"), scores.T, strict=True)))


def corpus_bleu(statistics_S: NDArray[np.float64]) -> float:
    """BLEU, 0 to 100, of the records whose statistics these are the sum of."""
    from sacrebleu.metrics import BLEU

    counts, totals, (ours, theirs) = np.split(statistics_S, [NGRAMS, 2 * NGRAMS])
    return float(BLEU.compute_bleu(counts.tolist(), totals.tolist(), int(ours), int(theirs), smooth_method="exp").score)


def translation_scores(measured: Measured) -> dict[str, float]:
    """`bleu` (0 to 100) of all texts together; the means of `rouge_1`, `rouge_2`, `rouge_l` and `exact` (0 to 1)."""
    means = {name: float(scores_N.mean()) for name, scores_N in measured.scores.items()}
    return {"bleu": corpus_bleu(measured.statistics_NS.sum(0)), **means}


def translation_intervals(
    measured: Measured, patients: Sequence[Any], draws: int, seed: int, level: float
) -> dict[str, Interval]:
    """The same scores, each with a percentile interval over draws of patients."""
    weights_DN = patient_draws(patients, draws, seed)
    values = translation_scores(measured)

    def bleu(weights_DN: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([corpus_bleu(statistics_S) for statistics_S in weights_DN @ measured.statistics_NS])

    found = {"bleu": interval(values["bleu"], over_draws(bleu, weights_DN, len(patients)), level)}
    for name, scores_N in measured.scores.items():
        means_D = (weights_DN @ scores_N) / weights_DN.sum(1)
        found[name] = interval(values[name], means_D, level)
    return found


def constant_answer(texts: Iterable[str | None]) -> str:
    """The most frequent text, of equally frequent ones the first in the alphabet: what knows nothing of a record.

    Texts that differ in case and white space alone are one, told as the first of them; None and blanks do not count.

    Raises:
        ValueError: there is none.
    """
    alike: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for text in texts:
        if text is not None and (folded := " ".join(text.lower().split())):
            alike.setdefault(folded, text)
            counts[folded] += 1
    if not counts:
        raise ValueError("no record of data.split has a report: name another split, or other shards")
    return alike[min(counts, key=lambda text: (-counts[text], text))]
