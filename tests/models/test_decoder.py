"""The text decoder: what it may look at, where it starts, and that remembering changes nothing."""

# B batch, T tokens of a text, L encoder tokens, E encoder width, V vocabulary

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.models.decoder import Decoder
from src.models.decoder_config import DecoderConfig
from src.text.special import IGNORE, SpecialTokens, as_labels, shift_right

B, T, L, E, V = 3, 7, 5, 6, 11
SPECIAL = SpecialTokens(begin=1, end=2, pad=0, mask=3, vocabulary=V)


def decoder(seed=0, **config):
    """One whose logits are not all zero."""
    torch.manual_seed(seed)
    made = Decoder(DecoderConfig(**{"width": 16, "depth": 2, "heads": 2, **config}), SPECIAL, T, E)
    torch.nn.init.normal_(made.logits.weight, std=0.5)
    return made.double()


def inputs(seed=0):
    torch.manual_seed(seed)
    return torch.randint(4, V, (B, T)), torch.randn(B, L, E, dtype=torch.float64)


def test_the_first_loss_is_that_of_knowing_nothing():
    made = Decoder(DecoderConfig(width=16, depth=2, heads=2), SPECIAL, T, E)
    labels_BT, encoded_BLE = inputs()
    loss = F.cross_entropy(made(labels_BT, encoded_BLE.float()).flatten(0, 1), labels_BT.flatten())
    assert loss.item() == pytest.approx(math.log(V), abs=1e-6)


def test_every_parameter_gets_a_gradient():
    for parallel_B in (None, torch.tensor([True, False, True])):
        made = decoder()
        made(*inputs(), parallel_B=parallel_B).square().sum().backward()
        assert all(parameter.grad is not None for parameter in made.parameters())


@pytest.mark.parametrize("place", range(T))
def test_a_token_changes_nothing_before_it(place):
    """The label at a place is first seen where the next one is predicted."""
    made, (labels_BT, encoded_BLE) = decoder(), inputs()
    other_BT = labels_BT.clone()
    other_BT[:, place] = 4 + (labels_BT[:, place] - 3) % (V - 4)
    changed_T = (made(labels_BT, encoded_BLE) != made(other_BT, encoded_BLE)).any(2).any(0)
    assert changed_T.tolist() == [False] * (place + 1) + [True] * (T - place - 1)


def test_every_token_looks_at_every_encoder_token_that_is_kept():
    made, (labels_BT, encoded_BLE) = decoder(), inputs()
    keep_BL = torch.ones(B, L, dtype=torch.bool)
    keep_BL[0, 3:] = False
    encoded_BLE.requires_grad_()
    for place in range(T):
        (gradient_BLE,) = torch.autograd.grad(
            made(labels_BT, encoded_BLE, keep_BL)[:, place].square().sum(), encoded_BLE
        )
        assert torch.equal(gradient_BLE.abs().sum(2) > 0, keep_BL)


def test_padding_before_and_behind_encoder_tokens_changes_nothing():
    made, (labels_BT, encoded_BLE) = decoder(), inputs()
    alone = made(labels_BT, encoded_BLE)
    for before, behind in ((0, 3), (3, 0), (2, 1)):
        padded_BLE = F.pad(encoded_BLE, (0, 0, before, behind), value=9.0)
        keep_BL = F.pad(torch.ones(B, L, dtype=torch.bool), (before, behind))
        torch.testing.assert_close(made(labels_BT, padded_BLE, keep_BL), alone)


def test_padding_behind_a_text_changes_nothing_of_it():
    made, (labels_BT, encoded_BLE) = decoder(), inputs()
    ended_BT = labels_BT.clone()
    ended_BT[:, 4:] = IGNORE
    torch.testing.assert_close(made(ended_BT, encoded_BLE)[:, :4], made(labels_BT[:, :4], encoded_BLE))


def test_a_text_that_is_predicted_in_parallel_is_not_seen_and_each_token_looks_at_all_places():
    made, (labels_BT, encoded_BLE) = decoder(parallel=0.5), inputs()
    parallel_B = torch.tensor([True, False, True])
    other_BT = 4 + (labels_BT - 3) % (V - 4)
    same_B = (
        (made(labels_BT, encoded_BLE, None, parallel_B) == made(other_BT, encoded_BLE, None, parallel_B)).all(2).all(1)
    )
    assert same_B.tolist() == parallel_B.tolist()
    made.positions.grad = None
    made(labels_BT, encoded_BLE, None, torch.ones(B, dtype=torch.bool))[:, 0].square().sum().backward()
    assert (made.positions.grad.abs().sum((0, 2)) > 0).all(), "the first token looks at the last place too"
    made.words.weight.grad = None
    made(labels_BT, encoded_BLE, None, torch.ones(B, dtype=torch.bool)).square().sum().backward()
    assert made.words.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [SPECIAL.mask]


def test_what_is_not_predicted_in_parallel_is_as_without_the_choice():
    made, given = decoder(), inputs()
    torch.testing.assert_close(made(*given, parallel_B=torch.zeros(B, dtype=torch.bool)), made(*given))


def test_writing_word_by_word_gives_the_logits_of_the_whole_text():
    made, (labels_BT, encoded_BLE) = decoder(), inputs()
    keep_BL = torch.rand(B, L) < 0.6
    keep_BL[:, 0] = True
    whole_BTV = made(labels_BT, encoded_BLE, keep_BL)
    write = made.begin(encoded_BLE, keep_BL, beams=2)
    given_NT = shift_right(labels_BT, SPECIAL).repeat_interleave(2, 0)
    assert len(write) == 2 * B
    for place in range(T):
        torch.testing.assert_close(
            write(given_NT[:, place]).double(), whole_BTV[:, place].repeat_interleave(2, 0), rtol=1e-6, atol=1e-6
        )


def test_a_text_that_goes_on_from_another_row_has_that_rows_words():
    made, (labels_BT, encoded_BLE) = decoder(), inputs()
    encoded_BLE[:] = encoded_BLE[:1]  # beams of one sample
    write, given_BT = made.begin(encoded_BLE), shift_right(labels_BT, SPECIAL)
    for place in range(4):
        write(given_BT[:, place])
    rows_B = torch.tensor([2, 2, 0])
    write.select(rows_B)
    mixed_BT = torch.cat([labels_BT[rows_B, :4], labels_BT[:, 4:]], dim=1)
    mixed_BT[:, 3] = labels_BT[:, 3]  # the fourth label is what comes next, and was not seen yet
    expected_BTV = made(mixed_BT, encoded_BLE)
    torch.testing.assert_close(write(labels_BT[:, 3]).double(), expected_BTV[:, 4], rtol=1e-6, atol=1e-6)


def test_labels_begin_without_begin_and_end_with_the_end():
    rows = [[1, 5, 6, 2], [5, 6], [1, 4, 5, 6, 7, 8, 9], [4, 5, 6, 7, 8, 9, 10], [], [1, 2]]
    ids_BT, keep_BT = np.zeros((len(rows), T), np.int64), np.zeros((len(rows), T), np.bool_)
    for number, row in enumerate(rows):
        ids_BT[number, : len(row)], keep_BT[number, : len(row)] = row, True
    labels_BT = as_labels(ids_BT, keep_BT, SPECIAL)
    written = [[id for id in row if id != IGNORE] for row in labels_BT.tolist()]
    assert written == [[5, 6, 2], [5, 6, 2], [4, 5, 6, 7, 8, 9, 2], [4, 5, 6, 7, 8, 9, 2], [], [2]]
    assert all(row[: len(ids)] == ids for row, ids in zip(labels_BT.tolist(), written, strict=True))


def test_a_token_is_predicted_from_those_before_it():
    labels_BT = torch.tensor([[5, 6, 7, 2], [5, 2, IGNORE, IGNORE], [IGNORE] * 4])
    assert shift_right(labels_BT, SPECIAL).tolist() == [[1, 5, 6, 7], [1, 5, 2, 0], [1, 0, 0, 0]]
