"""A probe's encoder as a module with the one door; its heads see no more of it than its tokens."""

from __future__ import annotations

from torch import Tensor, nn

from src.evaluation.encoder import Encoder


class Frozen(nn.Module):
    """An encoder that nothing trains."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: dict[str, Tensor], mode: str = "embed") -> dict[str, Tensor]:
        """The one door: `embed` gives the tokens [B, L, D] of windows [B, C, *sides] by their modality.

        Where they have padding also which tokens are `valid`.
        """
        assert mode == "embed", mode
        return self.encoder.given(batch)
