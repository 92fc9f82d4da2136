"""The regularisers that a config can choose beside a teacher, or in its place; free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from src.config.section import Section


class ProjectedConfig(Section):
    """Where features are regularised."""

    projection: tuple[PositiveInt, ...] = ()
    """Widths of an MLP behind which they are; [2048, 2048, 64] for instance. Empty: as they are."""


class SIGRegConfig(ProjectedConfig):
    """SIGReg (LeJEPA, arXiv 2511.08544): the global batch's features are pulled towards an isotropic Gaussian."""

    kind: Literal["sigreg"]
    coefficient: NonNegativeFloat = 0.05
    """Weight of its statistic, which grows with the batch, beside the prediction's 1; LeJEPA has lambda and
    1 - lambda."""
    directions: PositiveInt = 1024
    """Random directions, drawn anew each step, along which the features are compared with a Gaussian."""


class VICRegConfig(ProjectedConfig):
    """VICReg (arXiv 2105.04906): over the global batch each feature varies, and no two say the same.

    The prediction takes the place of its third term, invariance.
    """

    kind: Literal["vicreg"]
    variance: NonNegativeFloat = 5.0
    """Weight of what a feature's standard deviation lacks to 1, beside the prediction's 1."""
    covariance: NonNegativeFloat = 5.0
    """Weight of the squared covariances between features, which grow with the width. The paper's is a 25th of that of
    the variance, for 8,192 features."""


RegularizerConfig = Annotated[SIGRegConfig | VICRegConfig, Field(discriminator="kind")]
