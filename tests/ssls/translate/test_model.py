"""The translator: its first loss, what its losses are over, and what is frozen."""

# B batch, T tokens of a text, V vocabulary

import math

import pytest
import torch
import torch.nn.functional as F

from src.config.transforms import TokenizerConfig
from src.models.config import EncoderConfig
from src.models.decoder_config import DecoderConfig
from src.text.special import IGNORE, SpecialTokens
from ssls.translate.config import GenerationConfig, LossConfig, ModelConfig
from ssls.translate.model import LABELS, LOSS, PARALLEL, Translator

SPECIAL = SpecialTokens(begin=2, end=3, pad=0, mask=4, vocabulary=300)
ENCODER = EncoderConfig(name="ecg_tiny", leads=2, length=40, patch=10, width=16, depth=1, heads=2)


def translator(smoothing=0.0, beams=3, **model):
    torch.manual_seed(0)
    decoder = DecoderConfig(width=16, depth=2, heads=2)
    config = ModelConfig(decoder=decoder, tokenizer=TokenizerConfig(length=6), **model)
    loss, generation = LossConfig(label_smoothing=smoothing), GenerationConfig(beams=beams)
    return Translator(config, loss, generation, ENCODER, "ecg", SPECIAL)


def loud(model):
    """With logits that are not all zero."""
    torch.nn.init.normal_(model.decoder.logits.weight, std=0.5)
    return model


def batch(seed=0):
    torch.manual_seed(seed)
    labels = torch.randint(5, 300, (4, 6))
    labels[0, 4:], labels[1, :], labels[2, 1:] = IGNORE, IGNORE, IGNORE
    return {"ecg": torch.randn(4, 2, 40), LABELS: labels}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_loss_of_a_token_is_the_logarithm_of_the_vocabulary(smoothing):
    model, given = translator(smoothing), batch()
    assert model(given)[LOSS].item() / model.weights(given)[LOSS] == pytest.approx(math.log(300), rel=1e-6)


def test_the_loss_is_over_known_tokens_alone():
    model, given = loud(translator()), batch()
    assert model.weights(given) == {LOSS: 4 + 0 + 1 + 6}
    logits = model.decoder(given[LABELS], model.encoder(given["ecg"]))
    known = given[LABELS] != IGNORE
    assert model(given)[LOSS].item() == pytest.approx(
        F.cross_entropy(logits[known], given[LABELS][known], reduction="sum").item(), rel=1e-6
    )
    nothing = {**given, LABELS: torch.full_like(given[LABELS], IGNORE)}
    assert model(nothing)[LOSS].item() == 0.0 and model.weights(nothing) == {LOSS: 0.0}


def test_smoothing_spreads_the_truth_over_all_tokens():
    plain, smooth, given = loud(translator()), loud(translator(0.2)), batch()
    smooth.load_state_dict(plain.state_dict())
    logs = plain.decoder(given[LABELS], plain.encoder(given["ecg"])).log_softmax(2)
    uniform = -logs.mean(2)[given[LABELS] != IGNORE].sum().item()
    assert smooth(given)[LOSS].item() == pytest.approx(0.8 * plain(given)[LOSS].item() + 0.2 * uniform, rel=1e-5)
    assert smooth(given, mode="score")["entropy"].sum().item() == pytest.approx(plain(given)[LOSS].item(), rel=1e-6)


def test_a_sample_without_a_report_changes_no_gradient():
    model, given = loud(translator()), batch()
    others = {name: value[[0, 2, 3]] for name, value in given.items()}
    found = []
    for one in (given, others):
        model.zero_grad()
        model(one)[LOSS].backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_scores_are_of_each_text():
    model, given = loud(translator()), batch()
    together = model(given, mode="score")
    assert together["tokens"].tolist() == [4, 0, 1, 6]
    for row in range(4):
        alone = model({name: value[row : row + 1] for name, value in given.items()}, mode="score")
        assert alone["entropy"].item() == pytest.approx(together["entropy"][row].item(), rel=1e-5)


def test_texts_in_parallel_have_losses_of_their_own():
    model, given = loud(translator()), batch()
    word_by_word = model({**given, PARALLEL: torch.zeros(4, dtype=torch.bool)}, mode="score")["entropy"]
    torch.testing.assert_close(word_by_word, model(given, mode="score")["entropy"])
    mixed = model({**given, PARALLEL: torch.tensor([True, False, False, True])}, mode="score")["entropy"]
    assert (mixed != word_by_word).tolist()[1:3] == [False, False] and (mixed != word_by_word)[[0, 3]].all()


def test_a_frozen_encoder_gets_no_gradient_and_the_decoder_learns():
    model = loud(translator(frozen=True))
    model(batch())[LOSS].backward()
    assert model.frozen_networks == ("encoder",)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())


def test_padding_behind_a_record_is_not_seen():
    model, given = loud(translator()), batch()
    given["keep"] = torch.arange(40)[None] < torch.tensor([40, 20, 30, 10])[:, None]
    noise = torch.randn(4, 2, 40) * ~given["keep"][:, None]
    other = {**given, "ecg": given["ecg"] + noise}
    torch.testing.assert_close(model(other, mode="score")["entropy"], model(given, mode="score")["entropy"])
    assert torch.equal(model(other, mode="beam")["ids"], model(given, mode="beam")["ids"])


def test_a_beam_writes_likelier_texts_than_greedy():
    """As their own labels tell, on average over many signals."""
    model = loud(translator(beams=6))
    model.generation = GenerationConfig(beams=6, length_penalty=0.0)
    torch.manual_seed(1)
    signal = torch.randn(64, 2, 40)

    def likelihood(mode):
        ids = model({"ecg": signal}, mode=mode)["ids"]
        return -model({"ecg": signal, LABELS: ids.masked_fill(ids == SPECIAL.pad, IGNORE)}, mode="score")[
            "entropy"
        ].mean()

    assert likelihood("beam") > likelihood("greedy")
