"""An encoder with a head that makes logits of its tokens, as one module."""

# B batch, C channels, L tokens, D width, K labels or classes, N blocks

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from src.losses.classification import binary_cross_entropy, cross_entropy, known_classes, known_labels
from src.models.attentive import AttentivePooler
from src.models.build import build_encoder
from src.models.config import EncoderSection
from src.models.padding import mean_token, valid_tokens
from src.models.transformer import initialize
from src.models.vit import VisionTransformer
from ssls.finetune.config import HeadConfig, LossConfig, ModelConfig

LABELS, BRANCHES, KEPT = "labels", "branches", "kept"
"""In a batch: truth [B, K], NaN where unknown; branches of the encoder [B, N, 2]; what dropout keeps [B, D]."""
HEAD_WIDTH = 64
Task = Literal["multilabel", "multiclass"]


class Head(nn.Module):
    """Tokens to logits: pooled, part of it left out in training, then one linear layer.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(self, config: HeadConfig, width: int, outputs: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.pooler: AttentivePooler | None = None
        if config.pool == "attentive":
            heads = config.heads or max(width // HEAD_WIDTH, 1)
            if width % heads:
                raise ValueError(f"model.head.heads: {heads} do not divide the encoder's width {width}; set others")
            self.pooler = AttentivePooler(width, heads)
            self.pooler.cross.k.bias.requires_grad_(False)  # softmax does not see it
        self.linear = nn.Linear(width, outputs)
        initialize(self.linear)

    def forward(self, tokens_BLD: Tensor, valid_BL: Tensor | None, kept_BD: Tensor | None) -> Tensor:
        """Logits [B, K] in fp32, whatever autocast says; `kept_BD` is what dropout keeps, which is as much larger."""
        tokens = tokens_BLD.float()
        with torch.autocast(tokens.device.type, enabled=False):  # bf16 has 0.03 between logits of 4 and more
            pooled_BD = mean_token(tokens, valid_BL) if self.pooler is None else self.pooler(tokens, valid_BL)
            if kept_BD is not None:
                pooled_BD = pooled_BD * kept_BD / (1.0 - self.dropout)
            logits: Tensor = self.linear(pooled_BD)
        return logits


class FineTuned(nn.Module):
    """Encoder and head; all that a checkpoint holds, but for class weights, which the data give again."""

    def __init__(
        self,
        model: ModelConfig,
        loss: LossConfig,
        encoder: EncoderSection,
        modality: str,
        task: Task,
        outputs: int,
        weights_K: Tensor | None = None,
    ) -> None:
        """`encoder` is model.encoder or init_from's, whose weights are loaded from outside; `weights_K` those of
        positives or classes.

        Raises:
            ValueError: stages to be frozen that the encoder has not; heads that do not divide its width.
        """
        super().__init__()
        self.loss, self.modality, self.task = loss, modality, task
        self.coefficients = {"classification": 1.0}
        self.encoder = build_encoder(encoder)
        self.head = Head(model.head, self.encoder.width, outputs)
        self.class_weights_K: Tensor | None
        self.register_buffer("class_weights_K", weights_K, persistent=False)
        self.frozen_networks = frozen_modules(self.encoder.stages(), model.freeze)
        for name in self.frozen_networks:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Any]:
        """The one door: `train` gives the sum of the loss, `predict` the `probabilities` [B, K], `embed` the `tokens`
        [B, L, D]; with `keep` in the batch also which are `valid`, [B, L]."""
        valid_BL = valid_tokens(batch["keep"], self.encoder.config) if "keep" in batch else None
        if mode == "train":
            logits_BK = self.head(self.tokens(batch, valid_BL), valid_BL, batch.get(KEPT))
            return {"classification": self.loss_of(logits_BK, batch[LABELS])}
        tokens_BLD = self.encoder(batch[self.modality], valid_BL=valid_BL)
        if mode == "predict":
            logits_BK = self.head(tokens_BLD, valid_BL, None).float()
            of_classes = self.task == "multiclass"
            return {"probabilities": logits_BK.softmax(1) if of_classes else logits_BK.sigmoid()}
        assert mode == "embed", mode
        return {"tokens": tokens_BLD} | ({} if valid_BL is None else {"valid": valid_BL})

    def tokens(self, batch: dict[str, Tensor], valid_BL: Tensor | None) -> Tensor:
        """Tokens [B, L, D] in training, along the branches that drop path keeps."""
        tokens_BLD: Tensor
        if isinstance(self.encoder, VisionTransformer):
            tokens_BLD = self.encoder(batch[self.modality], None, valid_BL, batch.get(BRANCHES))
        else:
            tokens_BLD = self.encoder(batch[self.modality], valid_BL=valid_BL)
        return tokens_BLD

    def loss_of(self, logits_BK: Tensor, truth_BK: Tensor) -> Tensor:
        """The sum over what is known."""
        smoothing, weights_K = self.loss.label_smoothing, self.class_weights_K
        if self.task == "multiclass":
            return cross_entropy(logits_BK, truth_BK, weights_K, smoothing)
        focal = None if self.loss.focal is None else (self.loss.focal.gamma, self.loss.focal.alpha)
        return binary_cross_entropy(logits_BK, truth_BK, weights_K, smoothing, focal)

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Known labels, or samples of known class."""
        known = known_classes(batch[LABELS]) if self.task == "multiclass" else known_labels(batch[LABELS])
        return {"classification": float(known.sum())}


def frozen_modules(stages: dict[str, tuple[str, ...]], freeze: int | tuple[str, ...]) -> tuple[str, ...]:
    """The modules of the first so many stages, or of those that are named.

    Raises:
        ValueError: there are not so many, or none of such a name.
    """
    names = tuple(stages)
    shown = ", ".join(names)
    if isinstance(freeze, int):
        if freeze > len(names):
            raise ValueError(f"model.freeze is {freeze}, but the encoder has {len(names)} stages: {shown}")
        chosen: tuple[str, ...] = names[:freeze]
    else:
        for name in freeze:
            if name not in stages:
                raise ValueError(f"model.freeze: the encoder has no stage {name}; it has {shown}")
        chosen = freeze
    return tuple(f"encoder.{module}" for stage in chosen for module in stages[stage])
