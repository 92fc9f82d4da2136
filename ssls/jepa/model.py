"""JEPA as one module: the student sees the context, the predictor guesses what the teacher sees at the targets.

Assran et al. 2023 (I-JEPA, arXiv 2301.08243); on ECG: Weimann & Conrad 2024 (arXiv 2410.13867).
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.losses.regression import feature_regression
from src.models.build import build_encoder
from src.models.config import TransformerConfig
from src.models.predictor import Predictor
from src.models.vit import VisionTransformer, gather_tokens
from ssls.jepa.config import LossConfig, ModelConfig

# B batch, C channels, L tokens, K context tokens, M target blocks, N tokens of a block, D width


class MaskNames(NamedTuple):
    """What a kind of mask is called in a batch and among the losses."""

    context: str
    targets: str
    branches: str
    """Which branches of the student each sample goes through, where it drops some."""
    loss: str


def mask_names(kinds: int) -> list[MaskNames]:
    """The only kind has no number."""
    if kinds == 1:
        return [MaskNames("context", "targets", "branches", "prediction")]
    return [MaskNames(f"context_{n}", f"targets_{n}", f"branches_{n}", f"prediction_{n}") for n in range(kinds)]


class JEPA(nn.Module):
    """Student encoder, EMA teacher and predictor; everything that a checkpoint holds."""

    def __init__(self, model: ModelConfig, loss: LossConfig, kinds: int = 1, modality: str = "ecg") -> None:
        """`kinds` of masks, each with a context and targets of its own in the batch beside the input `modality`."""
        super().__init__()
        self.loss, self.modality = loss, modality
        self.names = mask_names(kinds)
        self.coefficients = {name.loss: 1.0 / kinds for name in self.names}
        self.student = build_encoder(model.encoder)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        positions = model.encoder.positions if isinstance(model.encoder, TransformerConfig) else "sincos"
        self.predictor = Predictor(model.predictor, self.student.width, model.encoder.grid, positions)

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Tensor]:
        """The one door: `train` gives sums of losses; `embed` the teacher's `tokens` and, from them, `targets`.

        Both are [B, L, D]: `targets` are what the predictor is asked for.
        """
        if mode == "train":
            return self.prediction_losses(batch)
        assert mode == "embed", mode
        with torch.no_grad():
            tokens_BLD = self.teacher(batch[self.modality])
            return {"tokens": tokens_BLD, "targets": as_targets(tokens_BLD)}

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """What each sum runs over: the target tokens."""
        return {name.loss: float(batch[name.targets].numel()) for name in self.names}

    def prediction_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """For each kind of mask the sum over its target tokens of the distance between prediction and teacher."""
        wanted_BLD = self.targets(batch)
        sums = {}
        for kind, name in enumerate(self.names):
            context_BK, targets_BMN = batch[name.context], batch[name.targets]
            token = kind if len(self.predictor.mask_tokens) > 1 else 0
            seen_BKD = self.see(batch[self.modality], context_BK, batch.get(name.branches))
            predicted_BMND = self.predictor(seen_BKD, context_BK, targets_BMN, token)
            wanted_BMND = gather_tokens(wanted_BLD, targets_BMN.flatten(1)).view_as(predicted_BMND)
            sums[name.loss] = feature_regression(predicted_BMND, wanted_BMND, self.loss.kind).sum()
        return sums

    def see(self, signal: Tensor, context_BK: Tensor, branches_BN2: Tensor | None = None) -> Tensor:
        """The student's features [B, K, D] of the context; what it can't leave out is zero in the signal it sees."""
        if isinstance(self.student, VisionTransformer):
            tokens_BKD: Tensor = self.student(signal, context_BK, branches_BN2=branches_BN2)
            return tokens_BKD
        return gather_tokens(self.student(hide(signal, context_BK, self.student.config.grid)), context_BK)

    @torch.no_grad()
    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, L, D]: the teacher sees every token, each is layer-normalised without parameters."""
        return as_targets(self.teacher(batch[self.modality]))


def hide(signal: Tensor, context_BK: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The signal [B, C, *sides] with zeros in the parts of all tokens but the context's; the last may be cut short."""
    B, L = len(context_BK), math.prod(grid)
    seen_BL = torch.zeros(B, L, dtype=signal.dtype, device=signal.device).scatter(1, context_BK, 1.0)
    seen = seen_BL.view(B, 1, *grid)
    for axis, (side, tokens) in enumerate(zip(signal.shape[2:], grid, strict=True), 2):
        seen = seen.repeat_interleave(-(-side // tokens), axis).narrow(axis, 0, side)
    return signal * seen


def as_targets(tokens_BLD: Tensor) -> Tensor:
    """Tokens normalised over their width, without parameters."""
    return F.layer_norm(tokens_BLD.float(), tokens_BLD.shape[-1:])
