"""BYOL as one module: from one view of a sample the student predicts what the teacher makes of the other.

Grill et al. 2020 (arXiv 2006.07733); on ECG: Mehari & Strodthoff 2022 (arXiv 2103.12676).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from src.losses.regression import cosine_distance
from src.models.build import build_encoder
from src.models.heads import MLPHead, hold_shift
from src.models.padding import valid_tokens
from src.models.views import VIEWS, embed_views
from ssls.byol.config import ModelConfig

# B batch, L tokens, D width of the encoder's tokens, P width of the projection

ENCODER = "student"
"""The network that embeds, and that a run leaves behind."""
AVERAGES = {"teacher": "student", "teacher_projection": "projection"}
"""Which network is the moving average of which."""


class BYOL(nn.Module):
    """Student encoder, projection and predictor, the teacher's encoder and projection; all that a checkpoint holds.

    In training the teacher's BatchNorm has the statistics of its batch, as the student's. The statistics that it
    follows are the student's, copied with each update of the average.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.coefficients = {"prediction": 1.0}
        widths, norm = model.projection.widths, model.projection.norm
        self.student = build_encoder(model.encoder)
        self.projection = MLPHead(self.student.width, widths, norm)
        for key in model.predictor.unused():
            warnings.warn(f"model.predictor.{key} has no effect: there is no predictor", stacklevel=2)
        predicts = model.predictor.kind == "mlp"
        if norm == "batch" and (len(widths) > 1 or predicts):
            hold_shift(self.student)
        self.predictor = MLPHead(widths[-1], (*model.predictor.hidden, widths[-1]), norm) if predicts else nn.Identity()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_projection = copy.deepcopy(self.projection).requires_grad_(False)

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Any]:
        """The one door: `train` gives the sum of the loss over the pairs.

        `embed` gives the student's `tokens` [B, L, D] of whole inputs; with `keep` in the batch also which are `valid`.
        """
        if mode == "train":
            return {"prediction": self.prediction_loss(batch)}
        assert mode == "embed", mode
        with torch.no_grad():
            if "keep" not in batch:
                return {"tokens": self.student(batch["ecg"])}
            valid_BL = valid_tokens(batch["keep"], self.student.config)
            return {"tokens": self.student(batch["ecg"], valid_BL=valid_BL), "valid": valid_BL}

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """The loss runs over pairs."""
        return {"prediction": float(len(batch[VIEWS[0]]))}

    def prediction_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """2 - 2 cos(prediction from one view, the teacher's projection of the other), summed over pairs and directions.

        Views go through one after the other, so that each has the BatchNorm statistics of its own batch.
        """
        guessed = [self.predicted(batch, view) for view in VIEWS]
        wanted = [self.target(batch, view) for view in VIEWS]
        return torch.stack(
            [cosine_distance(mine, other).sum() for mine, other in zip(guessed, reversed(wanted), strict=True)]
        ).sum()

    def predicted(self, batch: dict[str, Tensor], view: str) -> Tensor:
        """The student's guess [B, P] from a view."""
        guess_BP: Tensor = self.predictor(self.projection(embed_views(self.student, batch, (view,))))
        return guess_BP

    @torch.no_grad()
    def target(self, batch: dict[str, Tensor], view: str) -> Tensor:
        """The teacher's projection [B, P] of a view."""
        seen_BD = embed_views(self.teacher, batch, (view,), dropping=False)
        projected_BP: Tensor = self.teacher_projection(seen_BD)
        return projected_BP
