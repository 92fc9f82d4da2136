"""Text towers: token ids to one vector for each text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from src.models.backbone import load_transformers
from src.models.padding import mean_token
from src.models.text_config import SmallTextConfig, TextSection, TransformersTextConfig

# B batch, L tokens, D width


class TextTower(nn.Module):
    """An encoder of transformers and what pools its tokens.

    Padding is looked at by no token and is no part of the vector. The vector of a text without any token means nothing,
    but is finite.

    Raises:
        ValueError: it knows fewer tokens than the tokenizer has, or lacks weights.
    """

    def __init__(self, config: TextSection, vocabulary: int) -> None:
        """`vocabulary`: tokens that the tokenizer has."""
        super().__init__()
        self.config, self.width = config, config.token_width
        match config:
            case SmallTextConfig():
                self.model, missing = _small(config, vocabulary), set[str]()
            case TransformersTextConfig():
                self.model, missing = _from_transformers(config, vocabulary)
            case _:
                raise AssertionError(f"no text tower is known for {type(config).__name__}")
        self.frozen = isinstance(config, TransformersTextConfig) and config.frozen
        lacking = sorted(missing - self._freeze_idle())
        if lacking:
            raise ValueError(
                f"model.text.folder lacks weights of its model ({lacking[0]} and {len(lacking) - 1} others): save it "
                "again, or set model.text.pretrained: false"
            )
        if self.frozen:
            self.requires_grad_(False)

    def forward(self, text_BL: Tensor, keep_BL: Tensor) -> Tensor:
        """Vectors [B, D] of token ids, `keep_BL` True where they are of the text."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            seen_BL = keep_BL.clone()
            seen_BL[:, 0] |= ~keep_BL.any(1)  # attention over nothing is not a number
            given = self.model(input_ids=text_BL, attention_mask=seen_BL.long())
            tokens_BLD: Tensor = given.last_hidden_state
            return tokens_BLD[:, 0] if self.config.pool == "first" else mean_token(tokens_BLD.float(), seen_BL)

    def _freeze_idle(self) -> set[str]:
        """Stop training what its vectors do not depend on, such as a pooler; their names in the library's model.

        Engines differ in what they do to parameters without a gradient. Found by a forward and backward of two tokens.
        """
        own = dict(self.model.named_parameters())
        training = self.model.training
        self.model.eval()
        keep = torch.ones(1, 2, dtype=torch.bool)
        tokens = self.model(input_ids=torch.zeros(1, 2, dtype=torch.long), attention_mask=keep.long()).last_hidden_state
        slopes = torch.autograd.grad(tokens.sum(), list(own.values()), allow_unused=True)
        self.model.train(training)
        idle = [name for name, slope in zip(own, slopes, strict=True) if slope is None]
        for name in idle:
            own[name].requires_grad_(False)
        return set(idle)


def _small(config: SmallTextConfig, vocabulary: int) -> Any:
    from transformers import BertConfig, BertModel

    described = BertConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=int(config.width * config.mlp_ratio),
        max_position_embeddings=config.positions,
        type_vocab_size=1,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
    return BertModel(described, add_pooling_layer=False)


def _from_transformers(config: TransformersTextConfig, vocabulary: int) -> tuple[Any, set[str]]:
    """The model, and the names of its weights that the folder lacks."""
    from transformers import AutoModel

    known = int(config.architecture.vocab_size)
    if known < vocabulary:
        raise ValueError(
            f"model.text.folder {config.folder} knows {known} tokens, but the tokenizer has {vocabulary}: set "
            "model.tokenizer.tokenizer to the tower's own"
        )
    if not config.pretrained:
        return AutoModel.from_config(config.architecture, trust_remote_code=False, dtype=torch.float32), set()
    try:
        return load_transformers(config.folder)
    except ValueError as error:
        raise ValueError(f"model.text.folder {error}") from None
