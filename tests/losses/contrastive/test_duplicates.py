"""Ids of what samples say: the same for the same words and diagnoses, on every machine, and counted as duplicates."""

import pytest
import torch

from src.losses.contrastive.duplicates import diagnosis_id, duplicate_rate, have_duplicates, same, text_id
from tests.losses.contrastive.cases import SETS


@pytest.mark.parametrize("text", ["Sinus rhythm. Normal ECG.", "  sinus rhythm.\n\tNORMAL  ecg. "])
def test_case_and_white_space_are_no_difference(text):
    assert text_id(text) == text_id("sinus rhythm. normal ecg.") != text_id("sinus rhythm normal ecg")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\ufb01brillation", "fibrillation"),
        ("caf\u00e9", "cafe\u0301"),
        ("a\u00a0b", "a b"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_ways_that_unicode_has_to_write_a_text_are_no_difference(one, other):
    assert one != other and text_id(one) == text_id(other)


def test_other_texts_have_other_ids_of_64_bits_with_both_signs():
    ids = [text_id(f"report {number}") for number in range(2000)]
    assert len(set(ids)) == 2000 and min(ids) < -(2**62) and max(ids) > 2**62
    assert torch.tensor(ids).tolist() == ids  # they fit into int64


def test_ids_are_the_same_in_every_process():
    """By another tool: printf 'normal ecg' | b2sum -l 64."""
    assert text_id("Normal  ECG") == 0x1BA52B2E49D02149


def test_the_order_of_diagnoses_and_repeats_are_no_difference():
    assert diagnosis_id(["AFIB", "LBBB"]) == diagnosis_id(["lbbb", "afib ", "AFIB"])
    assert diagnosis_id({"AFIB"}) not in (diagnosis_id({"AFIB", "LBBB"}), diagnosis_id([]), text_id("AFIB"))
    assert diagnosis_id(["a b", "c"]) != diagnosis_id(["a", "b c"])


@pytest.mark.parametrize("overlap", [0.2, 1 / 3, 0.5, 2 / 3, 1.0])
def test_sets_overlap_as_sets(overlap):
    sets = [set(row.nonzero().flatten().tolist()) for row in SETS] + [set(), set()]
    rows = torch.cat([SETS, torch.zeros(2, SETS.shape[1], dtype=torch.uint8)])
    wanted = [[len(a & b) / len(a | b) >= overlap if a | b else True for b in sets] for a in sets]
    assert same(rows, rows, overlap).tolist() == wanted
    assert same(rows.bool(), rows, overlap).tolist() == wanted


def test_duplicates_are_counted_by_sample():
    assert have_duplicates(torch.tensor([5, 1, 5, 2, 5])).tolist() == [True, False, True, False, True]
    assert duplicate_rate(torch.tensor([5, 1, 5, 2, 5])).item() == pytest.approx(0.6)
    assert duplicate_rate(torch.arange(4)).item() == 0.0
    assert duplicate_rate(torch.zeros(0, dtype=torch.int64)).item() == 0.0
