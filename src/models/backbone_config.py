"""Sections of encoders that other libraries build; free of torch."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import PositiveInt, model_validator

from src.models.config import EncoderSection, pair


def read_architecture(folder: str) -> Any:
    """What the config.json of a folder, or of a name on the hub, says, as transformers reads it; no code is run.

    Raises:
        ValueError: it can't be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=Path(folder).is_dir(), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} has no config.json of a model that transformers knows ({str(error).splitlines()[0]})"
        ) from None


class BackboneConfig(EncoderSection):
    """A model of transformers that makes tokens of images or videos: ViT, DINOv2, Swin, ConvNeXt, VideoMAE."""

    name: Literal["transformers"]
    folder: str
    """Folder with the model's config.json and model.safetensors, or its name on the Hugging Face hub."""
    pretrained: bool = True
    """Begin with its weights; false takes only its architecture."""
    input: tuple[PositiveInt, ...] | None = None
    """Size of the input where it is not the model's own: [height, width], or [frames, height, width]."""
    config: dict[str, Any] | None = None
    """What the folder's config.json says, in an exported encoder, which needs the folder no more; null reads it
    there."""

    @cached_property
    def architecture(self) -> Any:
        """What the model's config.json says, as transformers reads it.

        Raises:
            ValueError: it can't be read, or describes nothing that makes tokens of images or videos.
        """
        found = self._described
        missing = [key for key in ("image_size", "patch_size", "num_channels") if not hasattr(found, key)]
        if missing or (hasattr(found, "num_frames") and found.model_type != "videomae"):
            raise ValueError(
                f"model.encoder.folder {self.folder} is a {found.model_type}, whose tokens have no place that is known "
                "here; take a ViT, DINOv2, Swin, ConvNeXt or VideoMAE"
            )
        return found

    @property
    def _described(self) -> Any:
        if self.config is None:
            try:
                return read_architecture(self.folder)
            except ValueError as error:
                raise ValueError(f"model.encoder.folder {error}") from None
        from transformers import AutoConfig

        try:
            return AutoConfig.for_model(**self.config)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"model.encoder.config describes no model that transformers knows ({str(error).splitlines()[0]})"
            ) from None

    @property
    def channels(self) -> int:
        return int(self.architecture.num_channels)

    @property
    def sides(self) -> tuple[int, ...]:
        frames = getattr(self.architecture, "num_frames", None)
        own = (*(() if frames is None else (frames,)), *pair(self.architecture.image_size))
        if self.input is not None and len(self.input) != len(own):
            raise ValueError(
                f"model.encoder.input {list(self.input)} must have {len(own)} numbers, as {list(own)} of {self.folder}"
            )
        return self.input or own

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(side // patch for side, patch in zip(self.sides, self.patches, strict=True))

    @property
    def patches(self) -> tuple[int, ...]:
        """Size of a token along each axis; those that have stages halve their grid before each but the first."""
        found = self.architecture
        halved = 2 ** (len(getattr(found, "depths", (0,))) - 1)
        frames = () if not hasattr(found, "tubelet_size") else (int(found.tubelet_size),)
        return (*frames, *(patch * halved for patch in pair(found.patch_size)))

    @property
    def token_width(self) -> int:
        widths = getattr(self.architecture, "hidden_sizes", None)
        return int(widths[-1] if widths else self.architecture.hidden_size)

    def drawn(self) -> Self:
        return self.model_copy(update={"pretrained": False})

    def carried(self) -> Self:
        return self.model_copy(update={"config": json.loads(self.architecture.to_json_string())})

    @model_validator(mode="after")
    def _two_or_three_sides(self) -> Self:
        if self.input is not None and len(self.input) not in (2, 3):
            raise ValueError(f"input {list(self.input)} must have two numbers (images) or three (videos)")
        return self


class TimmConfig(EncoderSection):
    """A model of timm, which is not among the requirements: pip install timm."""

    name: Literal["timm"]
    model: str
    """Its name there, such as convnext_tiny or vit_small_patch16_224."""
    pretrained: bool = True
    """Begin with the weights that timm downloads; false takes only the architecture."""
    colors: PositiveInt = 3
    """Channels of the input."""
    input: tuple[PositiveInt, PositiveInt]
    """Size of the input: [height, width]."""
    patch: tuple[PositiveInt, PositiveInt]
    """Size of a token along the same axes: the patch of a ViT, the stride of the last feature map of a ConvNet."""
    width: PositiveInt
    """Numbers of a token."""

    @property
    def channels(self) -> int:
        return self.colors

    @property
    def sides(self) -> tuple[int, ...]:
        return self.input

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(side // patch for side, patch in zip(self.input, self.patch, strict=True))

    @property
    def token_width(self) -> int:
        return self.width

    def drawn(self) -> Self:
        return self.model_copy(update={"pretrained": False})
