"""Residual convolutional networks over the leads of an ECG."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from src.distributed.batchnorm import SyncBatchNorm
from src.models.config import ResNetConfig
from src.models.encoder import AnyEncoder

# B batch, C leads, T samples of a lead, L tokens, D width

STEM_WIDTH = 64


def conv_norm(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the length, or makes it ceil(length / stride), and BatchNorm over all ranks."""
    convolution = nn.Conv1d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, SyncBatchNorm(width))


class Residual(nn.Module):
    """relu(shortcut(x) + path(x)): two convolutions, or with an expansion a bottleneck of three.

    The stride is that of the wide kernel, not of the bottleneck's first as in He et al.'s first version. `pooled` is
    ResNet-D's shortcut (He et al. 2019, arXiv 1812.01187): it averages pairs where a strided one skips every other.
    """

    def __init__(self, channels: int, inner: int, expansion: int, stride: int, kernel: int, pooled: bool) -> None:
        super().__init__()
        width = inner * expansion
        if expansion == 1:
            layers = [conv_norm(channels, inner, kernel, stride), conv_norm(inner, width, kernel)]
        else:
            layers = [
                conv_norm(channels, inner, 1),
                conv_norm(inner, inner, kernel, stride),
                conv_norm(inner, width, 1),
            ]
        self.path = nn.Sequential(layers[0])
        for layer in layers[1:]:
            self.path.extend([nn.ReLU(), layer])
        self.shortcut = nn.Sequential()
        if pooled and stride > 1:
            self.shortcut.append(nn.AvgPool1d(stride, ceil_mode=True))
        if channels != width or (stride > 1 and not pooled):
            self.shortcut.append(conv_norm(channels, width, 1, 1 if pooled else stride))

    def silence_path(self) -> None:
        """Let the block begin as its shortcut."""
        norm = self.path[-1].get_submodule("1")
        assert isinstance(norm, SyncBatchNorm)
        nn.init.zeros_(norm.weight)

    def forward(self, x_BDT: Tensor) -> Tensor:
        return F.relu(self.shortcut(x_BDT) + self.path(x_BDT))


class ResNet1d(AnyEncoder):
    """He et al. 2015 (arXiv 1512.03385) in one dimension, and the xresnet1d of Strodthoff et al. 2020 (2004.13701).

    The latter has kernels of 5, a stem of three convolutions, the shortcuts of ResNet-D, and blocks that begin as their
    shortcuts. Weights begin normal by their fan-in (arXiv 1502.01852). Tokens are the last feature map: the length is
    halved five times, rounded up. BatchNorm takes its statistics from the batches of all ranks; in evaluation from
    those it followed.
    """

    config: ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.token_width
        depths, widths, expansion = config.size
        tweaked = config.name.startswith("x")
        self.stem = _stem((config.channels, 32, 32, STEM_WIDTH), 5) if tweaked else _stem((config.channels, 64), 7)
        self.blocks = nn.ModuleList()
        channels = STEM_WIDTH
        for stage, (depth, inner) in enumerate(zip(depths, widths, strict=True)):
            for number in range(depth):
                stride = 2 if stage and not number else 1
                self.blocks.append(Residual(channels, inner, expansion, stride, 5 if tweaked else 3, pooled=tweaked))
                channels = inner * expansion
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if isinstance(layer, Residual) and tweaked:
                layer.silence_path()

    def forward(self, signal: Tensor, keep_BK: Tensor | None = None, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] of ECGs [B, C, T], L = ceil(T / 32); all of them, of records without padding."""
        assert keep_BK is None and valid_BL is None, "a convolutional network takes whole records without padding"
        x_BDT = self.stem(signal)
        for block in self.blocks:
            x_BDT = block(x_BDT)
        return x_BDT.transpose(1, 2)

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The stem, and He et al.'s four stages, at whose beginnings, but for the first, the length is halved."""
        ends = [0, *accumulate(self.config.size[0])]
        parts = enumerate(pairwise(ends), 1)
        return {"stem": ("stem",)} | {
            f"stage_{number}": tuple(f"blocks.{block}" for block in range(*part)) for number, part in parts
        }


def _stem(widths: tuple[int, ...], kernel: int) -> nn.Sequential:
    """Convolutions, the first with a stride, and the maximum over pairs: a quarter of the length."""
    layers: list[nn.Module] = []
    for channels, width in pairwise(widths):
        layers += [conv_norm(channels, width, kernel, 1 if layers else 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool1d(3, 2, padding=1))
