"""Every contrastive loss under one name and with one signature, beside its reference: for one process and for many."""

from functools import cache

import torch

from src.losses.contrastive.clip import clip
from src.losses.contrastive.multi_positive import multi_positive, supervised_contrastive
from src.losses.contrastive.ntxent import nt_xent
from src.losses.contrastive.siglip import siglip
from tests.losses.contrastive import reference
from tests.losses.contrastive.reference import BIAS, IDS, MODES, ROWS, SCALE

SETS = torch.randint(2, (ROWS, 5), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)


def nearness(rows, columns):
    """Weights between 0 and 1 that are no indicator; 0 of every pair that has a 13 or 14 in it."""
    far = (rows[:, None] - columns).abs()
    return (1.0 - far / 4.0).clamp(min=0.0) * ((rows[:, None] < 13) & (columns < 13))


CASES = {"ntxent": (lambda x, y, s, b, ids: nt_xent(x, y, 1 / s), lambda x, y, s, b: reference.nt_xent(x, y, 1 / s))}
for mode in MODES:
    CASES[f"clip_{mode}"] = (
        lambda x, y, s, b, ids, mode=mode: clip(x, y, s, ids, mode),
        lambda x, y, s, b, mode=mode: reference.clip(x, y, s, IDS, mode),
    )
    for transport in ("ring", "gather"):
        CASES[f"siglip_{mode}_{transport}"] = (
            lambda x, y, s, b, ids, mode=mode, transport=transport: siglip(x, y, s, b, ids, mode, transport, block=3),
            lambda x, y, s, b, mode=mode: reference.siglip(x, y, s, b, IDS, mode),
        )
CASES["supervised"] = (
    lambda x, y, s, b, ids: supervised_contrastive(x, ids, 1 / s),
    lambda x, y, s, b: reference.supervised(x, IDS, 1 / s),
)
CASES["multi_positive"] = (
    lambda x, y, s, b, ids: multi_positive(x, y, s, ids, nearness),
    lambda x, y, s, b: reference.multi_positive(x, y, s, nearness(torch.tensor(IDS), torch.tensor(IDS))),
)
INPUTS = ("first", "second", "scale", "bias")


def inputs(dtype):
    """Both sides, scale and bias, to be differentiated."""
    numbers = [torch.tensor([number], dtype=dtype) for number in (SCALE, BIAS)]
    return [value.requires_grad_() for value in (*reference.pairs(dtype), *numbers)]


def measured(loss, values):
    """A loss and its slopes along INPUTS; zeros along those it has nothing to do with."""
    total = loss(*values).sum()
    found = torch.autograd.grad(total, values, allow_unused=True)
    slopes = [torch.zeros_like(value) if slope is None else slope for slope, value in zip(found, values, strict=True)]
    return {"loss": total.detach(), **dict(zip(INPUTS, slopes, strict=True))}


@cache
def wanted(name, dtype):
    """By the reference, in fp64 from the numbers as `dtype` holds them."""
    return measured(CASES[name][1], [value.detach().double().requires_grad_() for value in inputs(dtype)])


def assert_close(found, expected, close):
    for name, value in expected.items():
        allowed = close * max(1.0, value.abs().max().item())
        told = lambda text, name=name: f"{name}: {text}"  # noqa: E731
        torch.testing.assert_close(found[name].double(), value, rtol=0.0, atol=allowed, msg=told)
