"""JEPA as one module: the student sees the context, the predictor guesses what the teacher sees at the targets.

Assran et al. 2023 (I-JEPA, arXiv 2301.08243); on ECG: Weimann & Conrad 2024 (arXiv 2410.13867).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.losses.regression import feature_regression
from src.models.build import build_encoder
from src.models.predictor import Predictor
from src.models.vit import gather_tokens
from ssls.jepa.config import LossConfig, ModelConfig

# B batch, C leads, T samples, L tokens, K context tokens, M target blocks, N tokens of a block, D width


class JEPA(nn.Module):
    """Student encoder, EMA teacher and predictor; everything that a checkpoint holds."""

    def __init__(self, model: ModelConfig, loss: LossConfig) -> None:
        super().__init__()
        self.loss = loss
        self.coefficients = {"prediction": 1.0}
        self.student = build_encoder(model.encoder)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.predictor = Predictor(model.predictor, self.student.width, model.encoder.grid, model.encoder.positions)

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Tensor]:
        """The one door: `train` gives sums of losses; `embed` the teacher's `tokens` and, from them, `targets`.

        Both are [B, L, D]: `targets` are what the predictor is asked for.
        """
        if mode == "train":
            return {"prediction": self.prediction_loss(batch)}
        assert mode == "embed", mode
        with torch.no_grad():
            tokens_BLD = self.teacher(batch["ecg"])
            return {"tokens": tokens_BLD, "targets": as_targets(tokens_BLD)}

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """What each sum runs over: the target tokens."""
        return {"prediction": float(batch["targets"].numel())}

    def prediction_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Sum over all target tokens of the distance between prediction and the teacher's features."""
        context_BKD = self.student(batch["ecg"], batch["context"])
        predicted_BMND = self.predictor(context_BKD, batch["context"], batch["targets"])
        return feature_regression(predicted_BMND, self.targets(batch), self.loss.kind).sum()

    @torch.no_grad()
    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, M, N, D]: the teacher sees every token, each is layer-normalised without parameters."""
        B, M, N = batch["targets"].shape
        tokens_BLD = as_targets(self.teacher(batch["ecg"]))
        return gather_tokens(tokens_BLD, batch["targets"].flatten(1)).view(B, M, N, -1)


def as_targets(tokens_BLD: Tensor) -> Tensor:
    """Tokens normalised over their width, without parameters."""
    return F.layer_norm(tokens_BLD.float(), tokens_BLD.shape[-1:])
