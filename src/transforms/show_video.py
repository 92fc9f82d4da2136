"""What each augmentation makes of one clip, alone and at the strength that a config gives it, as a picture.

python -m tools.augment --transform FILE --video FILE --output PNG
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import VideoTransformConfig
from src.transforms.show_image import titled
from src.transforms.show_panels import alone, augmentations, beside, draws
from src.transforms.video import VideoTransform

AUGMENTATIONS = augmentations(VideoTransformConfig)
"""The sections that may or may not hit a clip, in the order of the pipeline."""
FRAMES = 4


def examples(config: VideoTransformConfig, sample: Mapping[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Panels [H, W, 3]: four frames of the clip, of each augmentation alone, and of all with their probabilities."""
    raw = config.model_copy(update={"mean": (0.0,) * config.channels, "std": (1.0,) * config.channels})
    streams = draws(seed, 1)
    panels = {"as evaluation sees it": _frames(VideoTransform(raw).plain([sample]))}
    for name in AUGMENTATIONS:
        panels[titled(name)] = _frames(VideoTransform(alone(raw, AUGMENTATIONS, name))([sample], streams))
    panels["all of the config, with their probabilities"] = _frames(VideoTransform(raw)([sample], streams))
    return panels


def _frames(video_1CTSS: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames from the first to the last, evenly spaced, side by side."""
    shown = np.linspace(0, video_1CTSS.shape[2] - 1, min(FRAMES, video_1CTSS.shape[2])).round().astype(int)
    return beside(list(np.moveaxis(video_1CTSS[0][:, shown], 0, -1)))
