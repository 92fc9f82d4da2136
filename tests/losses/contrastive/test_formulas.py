"""Every contrastive loss of one process, and all its gradients, against loops over anchors."""

import pytest
import torch

from src.losses.contrastive.siglip import siglip
from tests.losses.contrastive.cases import CASES, assert_close, inputs, measured, wanted
from tests.losses.contrastive.reference import IDS, MODES

CLOSE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_the_formulas(name, dtype):
    loss = lambda *values: CASES[name][0](*values, torch.tensor(IDS))  # noqa: E731
    found, expected = measured(loss, inputs(dtype)), wanted(name, dtype)
    assert expected["loss"] > 1.0 and found["loss"].dtype == dtype
    assert_close(found, expected, CLOSE[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_features_in_16_bits_are_contrasted_in_32(name, dtype):
    """-1e9 in place of -inf would overflow here, and half a temperature is lost to bf16 if it computes in it."""
    values = [value.detach().to(dtype) for value in inputs(torch.float64)[:2]] + inputs(torch.float32)[2:]
    values = [value.requires_grad_() for value in values]
    with torch.autocast("cpu", torch.bfloat16):
        found = CASES[name][0](*values, torch.tensor(IDS))
    assert found.dtype == torch.float32
    slopes = torch.autograd.grad(found, values[:2], allow_unused=True)
    assert all(slope is None or (slope.dtype == dtype and slope.isfinite().all()) for slope in slopes)
    exact = CASES[name][1](*(value.detach().double() for value in values))
    assert found.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_no_samples_give_zero_with_gradients(name):
    values = inputs(torch.float32)
    found = measured(lambda *v: CASES[name][0](v[0][:0], v[1][:0], *v[2:], torch.tensor(IDS)[:0]), values)
    assert all(value.isfinite().all() and not value.any() for value in found.values())


@pytest.mark.parametrize("name", CASES)
def test_one_sample_alone_is_finite(name):
    values = inputs(torch.float32)
    found = measured(lambda *v: CASES[name][0](v[0][:1], v[1][:1], *v[2:], torch.tensor(IDS)[:1]), values)
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("block", [1, 5, 12, 1024])
@pytest.mark.parametrize("mode", MODES)
def test_the_block_of_siglip_changes_no_number(mode, block):
    loss = lambda *values: siglip(*values, torch.tensor(IDS), mode, block=block)  # noqa: E731
    assert_close(measured(loss, inputs(torch.float64)), wanted(f"siglip_{mode}_ring", torch.float64), 1e-12)


@pytest.mark.parametrize("frozen", [(0,), (1,), (2, 3), (0, 2, 3)])
def test_siglip_gives_each_input_its_gradient_whichever_others_need_one(frozen):
    values = inputs(torch.float64)
    for number in frozen:
        values[number].requires_grad_(False)
    siglip(*values, block=5).backward()
    expected = list(wanted("siglip_ignore_ring", torch.float64).values())[1:]
    for number, (value, slope) in enumerate(zip(values, expected, strict=True)):
        if number in frozen:
            assert value.grad is None
        else:
            torch.testing.assert_close(value.grad, slope, rtol=1e-12, atol=1e-12)
