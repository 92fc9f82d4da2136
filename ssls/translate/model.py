"""An encoder and the decoder that writes what its tokens say, as one module."""

# B batch, T tokens of a text, L encoder tokens, E encoder width, V vocabulary

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.distributed.ranks import everywhere
from src.models.build import build_encoder
from src.models.config import EncoderSection
from src.models.decoder import Decoder
from src.models.generate import beam_search, greedy
from src.models.padding import valid_tokens
from src.models.vit import VisionTransformer
from src.text.special import IGNORE, SpecialTokens
from ssls.translate.config import GenerationConfig, LossConfig, ModelConfig

LABELS, PARALLEL, BRANCHES = "labels", "parallel", "branches"
"""What a batch has beside its input: the tokens to be written [B, T] (IGNORE where there is none), which texts are
predicted in parallel [B], and which branches of the encoder drop path keeps [B, depth, 2]; the last two if there are
any."""
LOSS = "text"


class Translator(nn.Module):
    """Encoder and decoder; all that a checkpoint holds."""

    coefficients = {LOSS: 1.0}

    def __init__(
        self,
        model: ModelConfig,
        loss: LossConfig,
        generation: GenerationConfig,
        encoder: EncoderSection,
        modality: str,
        special: SpecialTokens,
    ) -> None:
        super().__init__()
        self.loss, self.generation, self.modality, self.special = loss, generation, modality, special
        self.length = model.tokenizer.length
        self.encoder = build_encoder(encoder)
        self.frozen_networks = ("encoder",) if model.frozen else ()
        self.encoder.requires_grad_(not model.frozen)
        self.decoder = Decoder(model.decoder, special, self.length, encoder.token_width)

    def forward(self, batch: dict[str, Any], mode: str = "train") -> dict[str, Tensor]:
        """The one door: `train` gives the sum of losses over the tokens of the batch's texts.

        `score` gives of each text the sum of its tokens' cross-entropies, without smoothing, and their number:
        `entropy` [B], `tokens` [B]. `greedy` and `beam` give `ids` [B, T] of texts that are written; all ranks must ask
        for them alike. `embed` gives the encoder's `tokens` [B, L, E] and, if some are padding, which are `valid`.
        """
        encoded_BLE, valid_BL = self.encode(batch)
        match mode:
            case "train":
                return {LOSS: self.entropy(batch, encoded_BLE, valid_BL, self.loss.label_smoothing).sum()}
            case "score":
                labels_BT = batch[LABELS]
                entropy_BT = self.entropy(batch, encoded_BLE, valid_BL, 0.0)
                return {"entropy": entropy_BT.sum(1), "tokens": (labels_BT != IGNORE).sum(1)}
            case "greedy" | "beam":
                return {"ids": self.write(encoded_BLE, valid_BL, 1 if mode == "greedy" else self.generation.beams)}
        assert mode == "embed", mode
        return {"tokens": encoded_BLE} | ({} if valid_BL is None else {"valid": valid_BL})

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """The tokens that are predicted; a sample without a report has none."""
        return {LOSS: float((batch[LABELS] != IGNORE).sum())}

    def encode(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The encoder's tokens [B, L, E], and which of them hold signal [B, L]; None where all do."""
        signal, config = batch[self.modality], self.encoder.config
        valid_BL = valid_tokens(batch["keep"], config) if "keep" in batch else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_networks):
            if isinstance(self.encoder, VisionTransformer):
                return self.encoder(signal, None, valid_BL, batch.get(BRANCHES)), valid_BL
            return self.encoder(signal, valid_BL=valid_BL), valid_BL

    def entropy(self, batch: dict[str, Any], encoded_BLE: Tensor, valid_BL: Tensor | None, smoothing: float) -> Tensor:
        """The cross-entropy of each token [B, T], 0 where there is none."""
        labels_BT = batch[LABELS]
        logits_BTV = self.decoder(labels_BT, encoded_BLE, valid_BL, batch.get(PARALLEL))
        return F.cross_entropy(
            logits_BTV.float().transpose(1, 2),
            labels_BT,
            ignore_index=IGNORE,
            reduction="none",
            label_smoothing=smoothing,
        )

    def write(self, encoded_BLE: Tensor, valid_BL: Tensor | None, beams: int) -> Tensor:
        """Texts [B, T], which all ranks write to the end of the longest."""
        write, device = self.decoder.begin(encoded_BLE, valid_BL, beams), encoded_BLE.device
        if beams == 1:
            return greedy(write, self.special, self.length, device, everywhere).ids_BT
        penalty = self.generation.length_penalty
        return beam_search(write, beams, self.special, self.length, device, penalty, everywhere).ids_BT
