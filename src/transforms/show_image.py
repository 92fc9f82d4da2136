"""What each augmentation makes of one image, alone and at the strength that a config gives it, as a picture.

python -m tools.augment --transform FILE --image FILE --output PNG
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import ImageTransformConfig
from src.transforms.image import ImageTransform
from src.transforms.show_panels import alone, augmentations, beside, draws

AUGMENTATIONS = augmentations(ImageTransformConfig)
"""The sections that may or may not hit an image, in the order of the pipeline."""
OTHER_SIDE = ("flip_horizontal", "flip_vertical")
"""Those that put the heart elsewhere."""
UNNATURAL = ("solarize",)
"""Those whose result no detector gives."""
DRAWS = 5


def examples(config: ImageTransformConfig, sample: Mapping[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Panels [H, W, 3]: the image, five draws of each augmentation alone, and of all with their probabilities."""
    raw = config.model_copy(update={"mean": (0.0,) * config.channels, "std": (1.0,) * config.channels})
    samples, streams = [sample] * DRAWS, draws(seed, DRAWS)
    (before,) = _pictures(ImageTransform(raw).plain([sample]))
    panels = {"as evaluation sees it": beside([before] + [np.ones_like(before)] * (DRAWS - 1))}
    for name in AUGMENTATIONS:
        found = ImageTransform(alone(raw, AUGMENTATIONS, name))(samples, streams)
        panels[titled(name)] = beside(_pictures(found))
    panels["all of the config, with their probabilities"] = beside(_pictures(ImageTransform(raw)(samples, streams)))
    return panels


def titled(name: str) -> str:
    """The name of an augmentation and what to know of it."""
    if name in UNNATURAL:
        return f"{name} (no detector does that)"
    return f"{name} (another side)" if name in OTHER_SIDE else name


def _pictures(image_BCSS: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return list(np.moveaxis(image_BCSS, 1, -1))
