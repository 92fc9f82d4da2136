"""What every encoder is, whatever it is made of."""

from __future__ import annotations

from torch import Tensor, nn

from src.models.config import EncoderSection

# B batch, C channels, L tokens, K kept tokens, D width


class AnyEncoder(nn.Module):
    """Makes tokens of a signal; its config says whether it can leave some out, and whether it knows of padding."""

    config: EncoderSection
    width: int
    """Of its tokens, which is config.token_width."""

    def forward(self, signal: Tensor, keep_BK: Tensor | None = None, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] of a signal [B, C, *sides], row-major, or those at `keep_BK` alone, [B, K, D].

        Tokens that are not valid (padding; True = keep) are looked at by no other.
        """
        raise NotImplementedError
