"""Writing texts: greedy, by a beam and by chance, against brute force over all texts of a toy vocabulary."""

# B batch, N rows, T tokens of a text, V vocabulary

import itertools

import numpy as np
import pytest
import torch

from src.models.decoder import Decoder
from src.models.decoder_config import DecoderConfig
from src.models.generate import Sampling, beam_search, drawn, greedy, log_probabilities, sample
from src.randomness import Streams
from src.text.special import SpecialTokens

CPU = torch.device("cpu")
SPECIAL = SpecialTokens(begin=0, end=1, pad=2, mask=0, vocabulary=5)
WORDS = (3, 4)
T = 4


class Table:
    """A language whose next token depends on the whole text so far, by a table of random logits for each sample."""

    def __init__(self, samples, beams=1, vocabulary=5, seed=0):
        self.table, self.vocabulary = {}, vocabulary
        self.texts = [(sample,) for sample in range(samples) for _ in range(beams)]
        self.seed, self.calls = seed, 0

    def __len__(self):
        return len(self.texts)

    def logits(self, text):
        if text not in self.table:
            key = hash((self.seed, *text)) % 2**31
            self.table[text] = 2 * torch.randn(self.vocabulary, generator=torch.Generator().manual_seed(key)).double()
        return self.table[text]

    def __call__(self, last_N):
        self.calls += 1
        self.texts = [(*text, last) for text, last in zip(self.texts, last_N.tolist(), strict=True)]
        return torch.stack([self.logits(text) for text in self.texts])

    def select(self, rows_N):
        self.texts = [self.texts[row] for row in rows_N.tolist()]


def score(language, number, text):
    """The log-probability of a whole text."""
    given, total = (number, SPECIAL.begin), 0.0
    for token in text:
        total += log_probabilities(language.logits(given)[None], SPECIAL)[0, token].item()
        given = (*given, token)
    return total


def all_texts():
    """Those that are over, of up to T tokens, and those that are full."""
    for length in range(T):
        yield from ((*words, SPECIAL.end) for words in itertools.product(WORDS, repeat=length))
    yield from itertools.product(WORDS, repeat=T)


def padded(text):
    return [*text, *[SPECIAL.pad] * (T - len(text))]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_what_brute_force_finds(penalty):
    beams = len(list(all_texts()))
    found = beam_search(Table(6, beams), beams, SPECIAL, T, CPU, penalty)
    language, lengths = Table(6), set()
    for number in range(6):
        scores = {text: score(language, number, text) / len(text) ** penalty for text in all_texts()}
        best = max(scores, key=scores.get)
        lengths.add(len(best))
        assert found.ids_BT[number].tolist() == padded(best)
        assert found.scores_B[number].item() == pytest.approx(scores[best], abs=1e-5)
    assert len(lengths) > 1, "texts of one length try no penalty"


def test_a_beam_of_one_is_greedy():
    one = beam_search(Table(40, 1, seed=1), 1, SPECIAL, T, CPU, 0.7)
    other = greedy(Table(40, seed=1), SPECIAL, T, CPU)
    assert torch.equal(one.ids_BT, other.ids_BT)
    assert len({tuple(row) for row in one.ids_BT.tolist()}) > 5


def test_greedy_takes_the_likeliest_token_each_time():
    found, language = greedy(Table(20, seed=2), SPECIAL, T, CPU), Table(20, seed=2)
    for number in range(20):
        text = []
        while len(text) < T and SPECIAL.end not in text:
            logits = language.logits((number, SPECIAL.begin, *text))
            text.append(max((SPECIAL.end, *WORDS), key=lambda token: logits[token]))
        assert found.ids_BT[number].tolist() == padded(text)
        assert found.scores_B[number].item() == pytest.approx(score(language, number, text), abs=1e-5)


def test_a_wider_beam_finds_likelier_texts_than_greedy_on_average():
    """By the sum of log-probabilities; for a single sample it may."""
    narrow = greedy(Table(100, seed=3), SPECIAL, T, CPU).scores_B.mean()
    wide = beam_search(Table(100, 3, seed=3), 3, SPECIAL, T, CPU, 0.0).scores_B.mean()
    assert wide > narrow


def test_each_rank_is_called_until_all_are_over():
    write = Table(3, seed=4)
    told = []
    found = greedy(write, SPECIAL, 30, CPU, all_over=lambda over: told.append(over) or len(told) == 25)
    assert write.calls == 25 and told.index(True) < 24
    assert torch.equal(found.ids_BT, greedy(Table(3, seed=4), SPECIAL, 30, CPU).ids_BT)
    wide = Table(3, 2, seed=4)
    told.clear()
    beams = beam_search(wide, 2, SPECIAL, 30, CPU, all_over=lambda over: told.append(over) or len(told) == 25)
    assert wide.calls == 25 and told.index(True) < 24
    assert torch.equal(beams.ids_BT, beam_search(Table(3, 2, seed=4), 2, SPECIAL, 30, CPU).ids_BT)


def test_drawn_tokens_have_the_shares_of_the_softmax():
    known_V = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniform_N = torch.from_numpy(Streams.of_step(0, 0).uniform("u", 20000)[0])
    for sampling, shares in (
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=0.5), [x**2 / (0.25 + 0.09 + 0.0225 + 0.0025) for x in (0.5, 0.3, 0.15, 0.05)]),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.6), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.01), [1, 0, 0, 0]),
        (Sampling(top_k=3, top_p=0.9), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
    ):
        counts = torch.bincount(drawn(known_V.expand(len(uniform_N), -1), uniform_N, sampling), minlength=4)
        np.testing.assert_allclose(counts / len(uniform_N), shares, atol=0.015)


def test_what_a_sample_draws_does_not_depend_on_the_batch():
    uniforms_BT = torch.from_numpy(Streams.of_step(0, 0).uniform("u", 6, T)[0])
    language = Table(6, seed=5)
    together = sample(language, SPECIAL, uniforms_BT, Sampling()).ids_BT
    few = Table(6, seed=5)
    few.texts = few.texts[4:5]
    assert torch.equal(sample(few, SPECIAL, uniforms_BT[4:5], Sampling()).ids_BT[0], together[4])
    assert not torch.equal(together, greedy(Table(6, seed=5), SPECIAL, T, CPU).ids_BT)


def test_nothing_is_written_that_is_no_part_of_a_text():
    uniforms_BT = torch.from_numpy(Streams.of_step(0, 1).uniform("u", 50, T)[0])
    for found in (
        sample(Table(50), SPECIAL, uniforms_BT, Sampling(temperature=5.0)),
        greedy(Table(50), SPECIAL, T, CPU),
    ):
        for row in found.ids_BT.tolist():
            text = row[: row.index(SPECIAL.end)] if SPECIAL.end in row else row
            assert set(text) <= set(WORDS) and set(row[len(text) + 1 :]) <= {SPECIAL.pad}


OF_DECODER = SpecialTokens(begin=1, end=2, pad=0, mask=3, vocabulary=9)


def loud_decoder():
    """One whose texts differ from sample to sample."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(width=16, depth=2, heads=2), OF_DECODER, 8, 6)
    for parameter in decoder.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.5)
    return decoder


@pytest.mark.parametrize("beams", [1, 4])
def test_a_decoder_writes_the_same_whatever_is_padded_and_who_is_beside(beams):
    decoder = loud_decoder()
    encoded_BLE, keep_BL = torch.randn(5, 7, 6), torch.rand(5, 7) < 0.6
    keep_BL[:, 2] = True

    def written(encoded_BLE, keep_BL):
        return beam_search(decoder.begin(encoded_BLE, keep_BL, beams), beams, OF_DECODER, 8, CPU).ids_BT

    together = written(encoded_BLE, keep_BL)
    assert len({tuple(row) for row in together.tolist()}) > 2
    for row in range(5):
        kept = encoded_BLE[row : row + 1, keep_BL[row]]
        assert torch.equal(written(kept, None)[0], together[row])
        ahead = torch.cat([torch.full((1, 3, 6), 7.0), kept], dim=1)
        keep = torch.arange(ahead.shape[1])[None] >= 3
        assert torch.equal(written(ahead, keep)[0], together[row])


def test_a_decoder_that_remembers_writes_what_one_that_reads_all_again_would():
    decoder = loud_decoder()
    encoded_BLE = torch.randn(12, 7, 6)

    class Again:
        """Goes through the whole text for each token."""

        def __init__(self, beams):
            self.encoded_NLE = encoded_BLE.repeat_interleave(beams, 0)
            self.texts = torch.empty(len(self.encoded_NLE), 0, dtype=torch.int64)

        def __len__(self):
            return len(self.encoded_NLE)

        def __call__(self, last_N):
            """The labels' shift puts the begin where the first token is, which is it."""
            self.texts = torch.cat([self.texts, last_N[:, None]], dim=1)
            labels = torch.cat([self.texts[:, 1:], torch.full((len(self), 1), 5)], dim=1)
            return decoder(labels, self.encoded_NLE)[:, -1]

        def select(self, rows_N):
            self.texts = self.texts[rows_N]

    for beams in (1, 3):
        quick = beam_search(decoder.begin(encoded_BLE, None, beams), beams, OF_DECODER, 8, CPU).ids_BT
        assert torch.equal(quick, beam_search(Again(beams), beams, OF_DECODER, 8, CPU).ids_BT)
