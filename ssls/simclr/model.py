"""SimCLR as one module: two views of a sample are to be found alike among the views of all others.

Chen et al. 2020 (arXiv 2002.05709); on ECG: Mehari & Strodthoff 2022 (arXiv 2103.12676).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from src.losses.contrastive.ntxent import nt_xent
from src.losses.contrastive.temperature import LogitScale
from src.models.build import build_encoder
from src.models.heads import MLPHead, hold_shift
from src.models.padding import valid_tokens
from src.models.views import VIEWS, embed_views
from ssls.simclr.config import LossConfig, ModelConfig

# B batch, L tokens, D width of the encoder's tokens, P width of the projection

ENCODER = "encoder"
"""The network that embeds, and that a run leaves behind."""


class SimCLR(nn.Module):
    """Encoder, projection, and a temperature where it is learned; all that a checkpoint holds."""

    contrastive = True

    def __init__(self, model: ModelConfig, loss: LossConfig) -> None:
        super().__init__()
        self.loss = loss
        self.coefficients = {"contrast": 1.0}
        self.contrast_trains = loss.learn_temperature
        self.encoder = build_encoder(model.encoder)
        self.projection = MLPHead(self.encoder.width, model.projection.widths, model.projection.norm)
        if model.projection.norm == "batch" and len(model.projection.widths) > 1:
            hold_shift(self.encoder)
        if loss.learn_temperature:
            self.scale = LogitScale(loss.temperature, 1.0 / loss.least_temperature)

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Any]:
        """The one door: `train` gives `features`, both views [B, P]; `contrast` makes of all the rank's the loss.

        `embed` gives the encoder's `tokens` [B, L, D] of whole inputs; with `keep` in the batch also which are `valid`.
        """
        if mode == "train":
            return {"features": self.features(batch)}
        if mode == "contrast":
            first_BP, second_BP = (batch[view] for view in VIEWS)
            return {"contrast": nt_xent(first_BP, second_BP, self.temperature())}
        assert mode == "embed", mode
        with torch.no_grad():
            if "keep" not in batch:
                return {"tokens": self.encoder(batch["ecg"])}
            valid_BL = valid_tokens(batch["keep"], self.encoder.config)
            return {"tokens": self.encoder(batch["ecg"], valid_BL=valid_BL), "valid": valid_BL}

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """The loss runs over pairs."""
        return {"contrast": float(len(batch[VIEWS[0]]))}

    def features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The projection [B, P] of each view; both go through together, so that BatchNorm sees 2 B rows."""
        projected_2BP = self.projection(embed_views(self.encoder, batch, VIEWS)).float()
        return dict(zip(VIEWS, projected_2BP.chunk(2), strict=True))

    def temperature(self) -> Tensor | float:
        """What similarities are divided by: the config's number, or the learned one [1]."""
        if not self.loss.learn_temperature:
            return self.loss.temperature
        scale: Tensor = self.scale()
        return 1.0 / scale
