"""SIGReg (LeJEPA, arXiv 2511.08544): features of the global batch are pulled towards an isotropic Gaussian.

By Cramer-Wold a distribution is N(0, I) if each of its projections is N(0, 1), so a step draws unit directions and
takes the Epps-Pulley statistic of the features along each of them:

    T = n * integral over t in [-5, 5] of |ECF(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,    ECF(t) = mean of exp(i t x)

by the trapezoid rule on the paper's 17 equally spaced nodes, averaged over directions. T is about 1.06 for N(0, I) at
any n, and of the order of n for anything else. The ECF is a mean over all ranks' rows, so one all-reduce of cosines and
sines makes 4 ranks of 64 rows one of 256; whatever a rank would find on its own 64 rows is never looked at.
"""

# B rows of this rank, D width, M directions, J nodes

from __future__ import annotations

import math

import torch
from torch import Tensor

from src.distributed.collectives import sum_with_gradient
from src.randomness import derive_seed

END, NODES = 5.0, 17
"""The integral runs from -END to END (paper, algorithm 1)."""


def draw_directions(width: int, count: int, seed: int, step: int) -> Tensor:
    """Random unit vectors [D, M] of a step, float64: a function of (seed, step), the same on every rank and device."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "sigreg", step))
    directions_DM = torch.randn(width, count, generator=generator, dtype=torch.float64)
    return directions_DM / directions_DM.norm(dim=0)


def sigreg(features_BD: Tensor, directions_DM: Tensor) -> Tensor:
    """The statistic T of the rows of all ranks, times the rows of this rank: a sum whose weight is the rows.

    An objective returns it from its mode `contrast` and counts its rows in `weights`: over all ranks the sums are n T
    and the weights n, and the engine's gradient is that of T on one process with all rows. Ranks may hold different
    numbers of rows, or none. At least fp32, whatever autocast says: bf16 knows the angle 5 x of x = 2 to 0.03 only.
    """
    with torch.autocast(features_BD.device.type, enabled=False):
        features_BD = features_BD if features_BD.dtype == torch.float64 else features_BD.float()
        B, M = len(features_BD), directions_DM.shape[1]
        nodes_J, weights_J = (part.to(features_BD) for part in _half_of_the_rule())
        angles_JBM = nodes_J.view(-1, 1, 1) * (features_BD @ directions_DM.to(features_BD))
        # deviations from N(0, 1) are summed, not cosines: they are small, and so is what fp32 loses of them
        real_JM = (angles_JBM.cos() - (-nodes_J.square() / 2).exp().view(-1, 1, 1)).sum(1)
        imaginary_JM = angles_JBM.sin().sum(1)
        own = torch.cat([real_JM.flatten(), imaginary_JM.flatten(), features_BD.new_full((1,), B)])
        total = sum_with_gradient(own)
        squares_JM = total[:-1].square().view(2, -1, M).sum(0)
        return B * (weights_J @ squares_JM).mean() / total[-1].detach().clamp(min=1.0)


def _half_of_the_rule() -> tuple[Tensor, Tensor]:
    """Nodes t > 0 and their weights: the integrand is even in t, and 0 at t = 0."""
    step = 2 * END / (NODES - 1)
    nodes_J = step * torch.arange(1, NODES // 2 + 1, dtype=torch.float64)
    weights_J = 2 * step * (-nodes_J.square() / 2).exp()
    weights_J[-1] /= 2
    assert math.isclose(nodes_J[-1].item(), END)
    return nodes_J, weights_J
