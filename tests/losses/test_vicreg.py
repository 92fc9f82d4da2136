"""VICReg against its formulas written down plainly, and as what each term must tell."""

import pytest
import torch
import torch.nn.functional as F

from src.losses.vicreg import variance_covariance, vicreg


def plain(first, second):
    """The paper's three terms with torch's own variance and covariance."""
    found = {"invariance": F.mse_loss(first, second), "variance": 0.0, "covariance": 0.0}
    for view in (first, second):
        found["variance"] += F.relu(1 - torch.sqrt(view.var(0) + 1e-4)).mean()
        covariance = view.T.cov()
        found["covariance"] += covariance.fill_diagonal_(0.0).square().sum() / view.shape[1]
    return found


def views(rows, width, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.2, 1.8, width, dtype=dtype)  # some below the hinge, some above
    mix = torch.randn(width, width, generator=draw, dtype=dtype) / width**0.5
    first = torch.randn(rows, width, generator=draw, dtype=dtype) @ mix * scale + 3.0
    return first, first + 0.3 * torch.randn(rows, width, generator=draw, dtype=dtype)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["invariance", "variance", "covariance"])
def test_values_and_gradients_are_the_formulas(name, dtype, close):
    pair = [view.requires_grad_() for view in views(40, 12, dtype)]
    own, wanted = vicreg(*pair)[name] / 40, plain(*pair)[name]
    assert wanted > 0.01 and own.item() == pytest.approx(wanted.item(), rel=close)
    for found, slope in zip(torch.autograd.grad(own, pair), torch.autograd.grad(wanted, pair), strict=True):
        torch.testing.assert_close(found, slope, rtol=0, atol=close * slope.abs().max().item())


def test_a_collapse_costs_the_whole_hinge_and_has_a_gradient():
    features = torch.full((32, 8), 0.7, requires_grad=True)
    terms = variance_covariance(features)
    assert terms["variance"].item() / 32 == pytest.approx(0.99, abs=1e-5) and terms["covariance"] < 1e-12
    nearly = (features + 1e-3 * torch.randn(32, 8, generator=torch.Generator().manual_seed(0))).detach()
    slope = torch.autograd.grad(variance_covariance(nearly.requires_grad_())["variance"], nearly)[0]
    assert slope.isfinite().all() and (slope * (nearly - nearly.mean(0))).sum() < 0  # descent moves rows apart


def test_features_that_vary_and_do_not_correlate_cost_nothing():
    white, _ = torch.linalg.qr(torch.randn(64, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    white, _ = torch.linalg.qr(white - white.mean(0))
    terms = variance_covariance(white * 63**0.5 * 1.1 + 5.0)
    assert terms["variance"] == 0.0 and terms["covariance"] < 1e-20


def test_features_that_repeat_one_another_cost_covariance():
    column = torch.linspace(-1.0, 1.0, 50, dtype=torch.float64).unsqueeze(1)
    assert variance_covariance(column.expand(50, 4))["covariance"].item() / 50 == pytest.approx(
        12 * column.var().item() ** 2 / 4
    )


def test_one_row_gives_finite_terms():
    features = torch.ones(1, 3, requires_grad=True)
    terms = vicreg(features, features)
    slope = torch.autograd.grad(sum(terms.values()), features)[0]
    assert terms["variance"].item() == pytest.approx(2 * 0.99) and slope.isfinite().all()


def test_autocast_does_not_coarsen_them():
    pair = views(64, 16, torch.float32)
    wanted = vicreg(*pair)
    with torch.autocast("cpu", torch.bfloat16):
        found = vicreg(*pair)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
