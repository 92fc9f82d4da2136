"""Sections of text towers and of the heads into a joint space; free of torch."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from src.config.section import Section
from src.models.backbone_config import read_architecture
from src.models.config import DropRate

TextPool = Literal["mean", "first"]


class TextSection(Section):
    """What every text tower says of itself; `name` tells them apart."""

    pool: TextPool = "mean"
    """The vector of a text: the mean of its tokens, special ones included, or its first, which BERTs call [CLS]."""

    @property
    def longest(self) -> int:
        """Tokens that it takes at most."""
        raise NotImplementedError

    @property
    def token_width(self) -> int:
        """Numbers of a token."""
        raise NotImplementedError

    def drawn(self) -> Self:
        """The same architecture, with weights that are drawn and not read from anywhere."""
        return self

    def carried(self) -> Self:
        """The same architecture with all that it takes to build it, where another file tells a part of it."""
        return self


class SmallTextConfig(TextSection):
    """A BERT of these sizes (Devlin et al. 2018, arXiv 1810.04805), from random weights, for a vocabulary of ours."""

    name: Literal["small"]
    width: PositiveInt = 256
    depth: PositiveInt = 4
    heads: PositiveInt = 4
    mlp_ratio: Annotated[float, Field(gt=0.0, le=16.0)] = 4.0
    """Hidden width of the MLPs over the width."""
    positions: PositiveInt = 512
    """Tokens of the longest text that it can be given."""
    dropout: DropRate = 0.0
    """Of embeddings, attention and MLPs in training. It depends on the number of processes; 0 is exact."""

    @property
    def longest(self) -> int:
        return self.positions

    @property
    def token_width(self) -> int:
        return self.width

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}")
        return self


class TransformersTextConfig(TextSection):
    """An encoder of transformers that makes tokens of texts: BERT, RoBERTa, DistilBERT, DeBERTa, ModernBERT."""

    name: Literal["transformers"]
    folder: str
    """Folder with the model's config.json and model.safetensors, or its name in the local cache of the Hugging Face
    hub; model.tokenizer.tokenizer is usually the same."""
    pretrained: bool = True
    """Begin with its weights; false takes only its architecture."""
    frozen: bool = False
    """Do not train it: only what projects its vectors is. It runs without gradient and without dropout."""
    config: dict[str, Any] | None = None
    """What the folder's config.json says, in an exported tower, which needs the folder no more; null reads it there."""

    @property
    def architecture(self) -> Any:
        """What the model's config.json says, as transformers reads it.

        Raises:
            ValueError: it can't be read, or describes no encoder of texts.
        """
        if self.config is None:
            try:
                found = read_architecture(self.folder)
            except ValueError as error:
                raise ValueError(f"model.text.folder {error}") from None
        else:
            from transformers import AutoConfig

            found = AutoConfig.for_model(**self.config)
        if any(not hasattr(found, key) for key in ("vocab_size", "hidden_size", "max_position_embeddings")):
            raise ValueError(f"model.text.folder {self.folder} is a {found.model_type}, no encoder of texts")
        if getattr(found, "is_encoder_decoder", False):
            raise ValueError(
                f"model.text.folder {self.folder} is a {found.model_type}, an encoder with a decoder: take an encoder"
            )
        return found

    @property
    def longest(self) -> int:
        """RoBERTa and its kin count positions from behind the id of padding."""
        first = (self.architecture.pad_token_id or 0) + 1 if self.architecture.model_type in OFFSET else 0
        return int(self.architecture.max_position_embeddings) - first

    @property
    def token_width(self) -> int:
        return int(self.architecture.hidden_size)

    def drawn(self) -> Self:
        return self.model_copy(update={"pretrained": False})

    def carried(self) -> Self:
        return self.model_copy(update={"config": json.loads(self.architecture.to_json_string())})


OFFSET = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "xmod", "longformer")
AnyTextConfig = Annotated[SmallTextConfig | TransformersTextConfig, Field(discriminator="name")]


class JointHeadConfig(Section):
    """What maps the vector of an ECG or of a text into the space that they share."""

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Of its linear layers; the last is the joint space's."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Between the layers, before each GELU. batch: over the samples of all processes that have a text, as published; it
    makes a sample's features those of the micro-batch that it happens to be in. layer and none do not."""
