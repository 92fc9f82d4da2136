"""SIGReg against the paper's formula written down plainly, against numerical integration, and as what it must tell."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from src.losses.sigreg import draw_directions, sigreg


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several, by far where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(features, directions):
    """The formula with complex numbers on all 17 nodes."""
    t = torch.linspace(-5, 5, 17, dtype=features.dtype)
    gaussian = torch.exp(-t.square() / 2)
    ecf = torch.exp(1j * (features @ directions).unsqueeze(2) * t).mean(0)
    integral = torch.trapezoid((ecf - gaussian).abs().square() * gaussian, t, dim=1)
    return len(features) * integral.mean()


def statistic(features, directions):
    return sigreg(features, directions) / len(features)


def gaussian(rows, width, dtype=torch.float64, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_value_and_gradient_are_the_formulas(dtype, close):
    directions = draw_directions(12, 40, seed=1, step=2).to(dtype)
    features = (0.7 * gaussian(96, 12, dtype) + 0.2).requires_grad_()
    own, wanted = statistic(features, directions), plain(features, directions)
    assert own.item() == pytest.approx(wanted.item(), rel=close)
    own_slope, slope = (torch.autograd.grad(value, features)[0] for value in (own, wanted))
    torch.testing.assert_close(own_slope, slope, rtol=0, atol=close * slope.abs().max().item())


def test_it_is_the_integral_of_the_squared_modulus():
    """|ECF - exp(-t^2 / 2)|^2 multiplied out over all pairs of points, integrated by quadrature and in closed form."""
    features, direction = gaussian(30, 4) * 1.2 - 0.3, draw_directions(4, 1, seed=3, step=0)
    x = (features @ direction).squeeze(1).numpy()
    pairs = x[:, None] - x

    def integrand(t):
        g = math.exp(-t * t / 2)
        return g * (np.cos(t * pairs).mean() - 2 * g * np.cos(t * x).mean() + g * g)

    own = statistic(features, direction).item()
    assert own == pytest.approx(len(x) * quad(integrand, -5, 5, epsabs=1e-12)[0], rel=1e-4)
    whole_line = np.exp(-(pairs**2) / 2).mean() - math.sqrt(2) * np.exp(-(x**2) / 4).mean() + 1 / math.sqrt(3)
    assert own == pytest.approx(len(x) * math.sqrt(2 * math.pi) * whole_line, rel=1e-3)


def test_a_gaussian_scores_what_theory_says_at_any_size():
    """The mean of n |ECF - CF|^2 is 1 - exp(-t^2): its weighted integral is sqrt(2 pi) (1 - 1 / sqrt(3))."""
    wanted = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    directions = draw_directions(16, 64, seed=0, step=0)
    for rows in (32, 256):
        found = [statistic(gaussian(rows, 16, seed=draw), directions).item() for draw in range(20)]
        assert np.mean(found) == pytest.approx(wanted, abs=0.15)


def correlated(x):
    return torch.cat([x[:, :8], x[:, :8]], dim=1)


def heavy_tailed(x):
    return x / gaussian(len(x), 3, seed=9).square().mean(1, keepdim=True).sqrt()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: torch.zeros_like(x),
        lambda x: x[:1].expand_as(x),
        lambda x: 0.6 * x,
        lambda x: 1.6 * x,
        lambda x: x + 0.4,
        correlated,
        heavy_tailed,
        lambda x: x.sign(),
    ],
    ids=["zeros", "one_point", "narrow", "wide", "shifted", "correlated", "heavy_tailed", "signs"],
)
def test_anything_else_scores_higher(spoil):
    directions = draw_directions(16, 256, seed=0, step=0)
    good, bad = gaussian(1024, 16), spoil(gaussian(1024, 16))
    assert statistic(bad, directions) > 1.5 * statistic(good, directions)


def test_descent_makes_features_a_round_cloud():
    features = (gaussian(128, 4) * torch.linspace(0.2, 1.6, 4) + 0.5).requires_grad_()
    optimizer = torch.optim.Adam([features], lr=0.1)
    for step in range(60):
        optimizer.zero_grad()
        statistic(features, draw_directions(4, 16, seed=0, step=step)).backward()
        optimizer.step()
    assert features.mean(0).abs().max() < 0.1  # was 0.5
    assert (features.T.cov() - torch.eye(4)).abs().max() < 0.35  # was 1.56


def test_directions_are_unit_vectors_of_seed_and_step():
    directions = draw_directions(24, 5000, seed=4, step=7)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(5000, dtype=torch.float64))
    torch.testing.assert_close(directions @ directions.T / 5000, torch.eye(24).double() / 24, rtol=0, atol=0.004)
    torch.manual_seed(5)
    assert torch.equal(directions, draw_directions(24, 5000, seed=4, step=7))
    assert not torch.equal(directions, draw_directions(24, 5000, seed=4, step=8))
    assert not torch.equal(directions, draw_directions(24, 5000, seed=5, step=7))


def test_autocast_does_not_coarsen_it():
    features, directions = gaussian(64, 32, torch.float32), draw_directions(32, 64, seed=0, step=0)
    wanted = sigreg(features, directions)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sigreg(features, directions), wanted)
        assert sigreg(features.bfloat16(), directions).dtype == torch.float32
