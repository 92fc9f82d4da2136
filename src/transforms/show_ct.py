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
from src.transforms.ct import CTTransform, spacing_of
from src.transforms.show_panels import alone, augmentations, beside, draws

AUGMENTATIONS = augmentations(CTTransformConfig)
"""The sections that may or may not hit a volume, in the order of the pipeline."""
OTHER_SIDE = ("flip_depth", "flip_height", "flip_width")
"""Those that put the heart elsewhere."""


def examples(
    config: CTTransformConfig, sample: Mapping[str, Any], seed: int, window: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Panels [H, W, 3]: the planes D, H and W through the middle, before, after each augmentation alone, and of all.

    Pixels are as large as the finest spacing; D grows upwards, as in a volume whose D runs to superior. `window` is
    the number of the window that is shown.
    """
    spacing, streams = spacing_of(sample), draws(seed, 1)
    run = CTTransform(config)
    panels = {"as evaluation sees it": planes(run.plain([sample])[0, window], spacing)}
    middle = config.model_copy(update={"crop": "center"})
    for name in AUGMENTATIONS:
        found = CTTransform(alone(middle, AUGMENTATIONS, name))([sample], streams)[0, window]
        panels[f"{name} (another side)" if name in OTHER_SIDE else name] = planes(found, spacing)
    panels["all of the config, with their probabilities"] = planes(run([sample], streams)[0, window], spacing)
    return panels


def planes(values_DHW: NDArray[np.float32], spacing_X: NDArray[np.float64]) -> NDArray[np.float32]:
    """The three planes through the middle side by side, millimetres true to each other."""
    middle = [side // 2 for side in values_DHW.shape]
    shown = [
        (values_DHW[middle[0]], (1, 2)),
        (values_DHW[::-1, middle[1]], (0, 2)),
        (values_DHW[::-1, :, middle[2]], (0, 1)),
    ]
    finest = spacing_X.min()
    pictures = []
    for plane, (down, across) in shown:
        size = [max(1, round(plane.shape[n] * spacing_X[axis] / finest)) for n, axis in enumerate((down, across))]
        resized = cv2.resize(np.ascontiguousarray(plane), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        pictures.append(np.asarray(resized, np.float32)[..., None])
    return beside(pictures)
