"""Pictures of what each augmentation does, a panel for each: what images, videos and volumes have in common."""

# H W pixels of a panel, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from src.config.section import Section
from src.randomness import Streams

AnySection = TypeVar("AnySection", bound=Section)
GAP = 4
"""White pixels between the pictures of a panel."""
PANEL_INCHES, TITLE_INCHES = 6.0, 0.35
MOST_DOTS = 110
"""Dots an inch."""


def augmentations(schema: type[Section]) -> tuple[str, ...]:
    """The sections that may or may not hit a sample, in the order of the pipeline."""
    sections = ((name, field.annotation) for name, field in schema.model_fields.items())
    return tuple(name for name, kind in sections if "probability" in getattr(kind, "model_fields", {}))


def alone(config: AnySection, names: Sequence[str], name: str) -> AnySection:
    """One augmentation for every sample, and no other of the names."""
    sections = {each: getattr(config, each) for each in names}
    off = {each: section.model_copy(update={"probability": float(each == name)}) for each, section in sections.items()}
    return config.model_copy(update=off)


def draws(seed: int, count: int) -> Streams:
    """The streams of one sample in so many epochs."""
    return Streams.of_samples(seed, np.arange(count), np.zeros(count, np.int64))


def beside(pictures: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    """Pictures [H, W, C] of 0 .. 1 side by side, in the middle of the highest one's height, as [H, W, 3] on white."""
    height = max(picture.shape[0] for picture in pictures)
    parts = []
    for picture in pictures:
        part = np.ones((height, picture.shape[1] + GAP, 3), np.float32)
        top = (height - picture.shape[0]) // 2
        part[top : top + picture.shape[0], : picture.shape[1]] = picture
        parts.append(part)
    return np.concatenate(parts, axis=1)[:, :-GAP]


def plot(panels: Mapping[str, NDArray[np.float32] | None], title: str, path: Path, columns: int = 2) -> None:
    """A PNG with a titled panel [H, W, 3] for each; None says that the sample does not admit it."""
    from matplotlib.figure import Figure

    shapes = [panel.shape[:2] for panel in panels.values() if panel is not None]
    tall = max(PANEL_INCHES * height / width for height, width in shapes) + TITLE_INCHES
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL_INCHES * columns, tall * rows + 0.5), layout="constrained")
    axes_of = figure.subplots(rows, columns, squeeze=False)
    for axes in axes_of.flat:
        axes.set_axis_off()
    for axes, (name, panel) in zip(axes_of.flat, panels.items(), strict=False):
        axes.set_title(name, fontsize=11, loc="left")
        if panel is None:
            axes.text(0.5, 0.5, "not for this sample", transform=axes.transAxes, ha="center")
        else:
            axes.imshow(np.clip(panel, 0.0, 1.0), interpolation="nearest")
    figure.suptitle(title, fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dots(shapes), metadata={"Software": None})


def dots(shapes: Sequence[tuple[int, int]]) -> float:
    """Dots an inch at which no pixel of a panel is much larger than a dot, and the file stays small."""
    return min(MOST_DOTS, max(60.0, max(width for _, width in shapes) / PANEL_INCHES))
