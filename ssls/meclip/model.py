"""MECLIP as one module: an encoder of ECGs and one of reports, pulled together where they belong to one record.

CLIP (Radford et al. 2021, arXiv 2103.00020) on ECGs and their reports, many of which are equal: MECLIP (doi
10.1038/s44325-024-00010-0) does not tell these apart, or shares what is right among them.

The contrast is of all rows with a report, of all ranks and micro-batches. A row without one has no part in it, nor in
the statistics of the heads' BatchNorm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.losses.contrastive.clip import clip
from src.losses.contrastive.temperature import LogitScale
from src.models.build import build_encoder
from src.models.heads import hold_shift
from src.models.joint import JointHead
from src.models.padding import mean_token, valid_tokens
from src.models.text import TextTower
from src.models.vit import VisionTransformer
from ssls.meclip.config import LossConfig, ModelConfig

# B batch, L tokens, D width of a tower, F features of the joint space

BRANCHES = "branches"
"""What drop path keeps of each sample, [B, depth, 2] bool."""
IDS = "ids"
"""What each sample says: an integer, [B], or its labels, [B, K] bool."""


class MECLIP(nn.Module):
    """Two towers, their heads into the joint space, and the learned temperature; all that a checkpoint holds."""

    contrastive = True

    def __init__(self, model: ModelConfig, loss: LossConfig, vocabulary: int) -> None:
        """`vocabulary`: tokens that the tokenizer has."""
        super().__init__()
        self.loss, self.coefficients = loss, {"clip": 1.0}
        self.encoder = build_encoder(model.encoder)
        self.text = TextTower(model.text, vocabulary)
        self.ecg_head = JointHead(self.encoder.width, model.ecg_head)
        if model.ecg_head.norm == "batch" and len(model.ecg_head.widths) > 1:
            hold_shift(self.encoder)
        self.text_head = JointHead(self.text.width, model.text_head)
        self.scale = LogitScale(model.temperature)
        self.frozen_networks = ("text",) if self.text.frozen else ()

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Any]:
        """The one door: `train` gives the `features` that `contrast` maps to the sum `clip`.

        `embed` gives the `tokens` [B, L, D] of ECGs, and which are `valid` where some are padding. `join_ecg` maps
        `features` [B, D], means of such tokens, to their `joint` features [B, F], of length 1; `join_text` does so with
        texts.
        """
        if mode == "train":
            return {"features": self.features(batch)}
        if mode == "contrast":
            return {"clip": self.contrast(batch)}
        with torch.no_grad():
            if mode == "join_ecg":
                return {"joint": F.normalize(self.ecg_head(batch["features"]).float(), dim=-1)}
            if mode == "join_text":
                vectors_BD = self.text(batch["text"], batch["text_keep"])
                return {"joint": F.normalize(self.text_head(vectors_BD).float(), dim=-1)}
            assert mode == "embed", mode
            valid_BL = self.valid(batch)
            valid = {} if valid_BL is None else {"valid": valid_BL}
            return {"tokens": self.tokens(batch, valid_BL)} | valid

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """What the sum runs over: rows with a report."""
        return {"clip": float(batch["has_text"].sum())}

    def features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both sides [B, F] in the joint space, not yet of length 1, and what the contrast must know of the rows."""
        has_text_B, valid_BL = batch["has_text"], self.valid(batch)
        ecg_BD = mean_token(self.tokens(batch, valid_BL).float(), valid_BL)
        text_BD = self.text(batch["text"], batch["text_keep"])
        return {
            "ecg": self.ecg_head(ecg_BD, has_text_B).float(),
            "text": self.text_head(text_BD, has_text_B).float(),
            "has_text": has_text_B,
            IDS: batch[IDS],
        }

    def contrast(self, features: dict[str, Tensor]) -> Tensor:
        """Over the rows with a report, of which ranks may hold different numbers, or none."""
        rows = features["has_text"]
        ecg, text, ids = (features[name][rows] for name in ("ecg", "text", IDS))
        return clip(ecg, text, self.scale(), ids, self.loss.duplicates, self.loss.overlap)

    def tokens(self, batch: dict[str, Tensor], valid_BL: Tensor | None) -> Tensor:
        """Of ECGs, [B, L, D]."""
        if isinstance(self.encoder, VisionTransformer):
            tokens_BLD: Tensor = self.encoder(batch["ecg"], None, valid_BL, batch.get(BRANCHES))
            return tokens_BLD
        return self.encoder(batch["ecg"], valid_BL=valid_BL)

    def valid(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Which tokens [B, L] hold signal; None where all do."""
        return valid_tokens(batch["keep"], self.encoder.config) if "keep" in batch else None
