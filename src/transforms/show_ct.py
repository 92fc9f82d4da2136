"""What each augmentation makes of one volume, alone and at the strength that a config gives it, as a picture.

python -m tools.augment --transform FILE --volume FILE --output PNG
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.transforms import CTTransformConfig
from src.report import planes as body
from src.transforms.ct import CTTransform, spacing_of
from src.transforms.show_panels import alone, augmentations, beside, draws

AUGMENTATIONS = augmentations(CTTransformConfig)
"""The sections that may or may not hit a volume, in the order of the pipeline."""
OTHER_SIDE = ("flip_depth", "flip_height", "flip_width")
"""Those that put the heart elsewhere."""


def examples(
    config: CTTransformConfig, sample: Mapping[str, Any], seed: int, window: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Panels [H, W, 3]: three planes through the middle, before, after each augmentation alone, and of all.

    They are axial, coronal and sagittal where meta tells the orientation, whatever it is; else as stored. Pixels are as
    large as the finest spacing, or those of a cube where nobody knows it. `window` is the number of the one shown.
    """
    config = config.drawable()
    run, streams, orientation, notes = CTTransform(config), draws(seed, 1), sample["meta"].get("orientation"), []
    try:
        spacing = spacing_of(sample)
    except ValueError:
        spacing = np.ones(3)
        sample = {**sample, "meta": {**sample["meta"], "spacing": spacing}}
        notes.append("unknown spacing, drawn as cubes of 1 mm")
    if orientation is None:
        notes.append("unknown orientation, drawn as stored")

    def planes_of(values_KDHW: NDArray[np.float32]) -> NDArray[np.float32]:
        return planes(values_KDHW[window], spacing, orientation)

    panels = {"\n".join(["as evaluation sees it", *notes]): planes_of(run.plain([sample])[0])}
    middle = config.model_copy(update={"crop": "center"})
    for name in AUGMENTATIONS:
        found = planes_of(CTTransform(alone(middle, AUGMENTATIONS, name))([sample], streams)[0])
        panels[f"{name} (another side)" if name in OTHER_SIDE else name] = found
    panels["all of the config, with their probabilities"] = planes_of(run([sample], streams)[0])
    return panels


def planes(
    values_DHW: NDArray[np.float32], spacing_X: NDArray[np.float64], orientation: str | None
) -> NDArray[np.float32]:
    """The three planes of report/planes.py side by side, millimetres true to each other."""
    depth, height, width = spacing_X.tolist()
    finest, pictures = spacing_X.min(), []
    for plane in body.planes(values_DHW, (depth, height, width), orientation):
        down, across = (max(1, round(length / finest)) for length in plane.size)
        stored = np.ascontiguousarray(plane.hounsfield)
        resized = cv2.resize(stored, (across, down), interpolation=cv2.INTER_NEAREST)
        pictures.append(np.asarray(resized, np.float32)[..., None])
    return beside(pictures)
