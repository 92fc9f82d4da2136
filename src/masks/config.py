"""The `mask` section: which tokens an encoder sees and which ones are predicted."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, field_validator

from src.config.section import Section

Range = tuple[float, float]


class MaskConfig(Section):
    """Block masks of I-JEPA (arXiv 2301.08243), V-JEPA (arXiv 2404.08471) and their 1-D relatives for ECG."""

    style: Literal["multiblock", "complement", "legacy_ijepa", "runs"] = "multiblock"
    """multiblock: target blocks, and a context block less the targets; complement: the union of the blocks is hidden
    and every token is either context or target; legacy_ijepa: multiblock with the faults of the published code; runs:
    all but a share of an ECG is hidden, in long runs (1-D only; arXiv 2410.13867)."""
    targets: PositiveInt = 4
    """Number of target blocks."""
    target_scale: Range = (0.15, 0.2)
    """Lowest and highest share of the grid's area (in 1-D of its length) that a target block covers."""
    target_aspect: Range = (0.75, 1.5)
    """Lowest and highest height / width of a target block, in tokens; not used in 1-D."""
    context_scale: Range = (0.85, 1.0)
    """Lowest and highest share of the grid that the context block covers; not used by complement and runs."""
    min_context: PositiveInt = 10
    """Block sizes whose median number of remaining context tokens is below this are drawn again."""
    temporal_scale: Range = (1.0, 1.0)
    """Lowest and highest share of the first axis that a target block spans (3-D only); 1 is a tube of full length."""
    legacy_batch: PositiveInt = 128
    """The per-GPU batch whose minimum cut the published masks (legacy_ijepa only)."""
    keep: Range = (0.15, 0.25)
    """Lowest and highest share of the tokens that are context (runs only)."""
    shortest: PositiveInt = 10
    """Fewest tokens of a hidden run (runs only)."""

    @field_validator("target_scale", "context_scale", "temporal_scale", "keep")
    @classmethod
    def _shares(cls, scale: Range) -> Range:
        if not 0.0 < scale[0] <= scale[1] <= 1.0:
            raise ValueError(f"must be [low, high] with 0 < low <= high <= 1, got {list(scale)}")
        return scale

    @field_validator("target_aspect")
    @classmethod
    def _aspects(cls, aspect: Range) -> Range:
        if not 0.0 < aspect[0] <= aspect[1] < float("inf"):
            raise ValueError(f"must be [low, high] with 0 < low <= high, got {list(aspect)}")
        return aspect

    def unused(self, dimensions: int) -> list[str]:
        """The keys that were changed from their default but do nothing with this style on a grid of 1, 2 or 3 axes."""
        runs = self.style == "runs"
        idle = {
            "targets": runs,
            "target_scale": runs,
            "target_aspect": dimensions == 1,
            "temporal_scale": dimensions != 3,
            "context_scale": self.style == "complement" or runs,
            "min_context": runs,
            "legacy_batch": self.style != "legacy_ijepa",
            "keep": not runs,
            "shortest": not runs,
        }
        fields = type(self).model_fields
        return [key for key, is_idle in idle.items() if is_idle and getattr(self, key) != fields[key].default]
