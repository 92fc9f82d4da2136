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

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The children that make up each stage, by their dotted names, from the input on: every parameter is in one.

        They are what is frozen, or learns at a rate of its own. One that has no such parts is a single stage.
        """
        return {"whole": tuple(name for name, _ in self.named_children())}


def stages_of_blocks(stem: tuple[str, ...], depth: int) -> dict[str, tuple[str, ...]]:
    """A stem, then each of the `blocks`, whose last has the final `norm` with it."""
    blocks: dict[str, tuple[str, ...]] = {f"block_{number}": (f"blocks.{number}",) for number in range(depth)}
    *_, last = blocks
    return {"stem": stem, **blocks, last: (*blocks[last], "norm")}
