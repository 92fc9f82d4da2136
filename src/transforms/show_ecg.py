"""What each augmentation makes of one ECG, alone and at the strength that a config gives it, as a picture.

python -m tools.augment --fname CONFIG --output PNG    draws it for a record of the config's shards
"""

# C leads, T samples of a lead

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config.ecg_transforms import ECGTransformConfig
from src.randomness import Streams
from src.transforms.ecg import ECGTransform
from src.transforms.preprocessing import Preprocessing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AUGMENTATIONS = tuple(
    name for name, value in ECGTransformConfig() if "probability" in getattr(type(value), "model_fields", {})
)
"""The sections of data.transform that may or may not hit a sample, in the order of the pipeline."""
UNNATURAL = ("reverse", "sobel", "invert")
"""Those whose result no heart and no recorder gives."""
COLUMNS = 4
BEFORE, AFTER = "#b8b8b8", "#0b4f8a"
GAP = 0.2
"""mV between the leads of a panel."""


def alone(config: ECGTransformConfig, name: str) -> ECGTransformConfig:
    """One augmentation for every sample, and no other; in mV, from the middle of the record."""
    sections = {each: getattr(config, each) for each in AUGMENTATIONS}
    off = {each: section.model_copy(update={"probability": float(each == name)}) for each, section in sections.items()}
    return config.model_copy(update={**off, "crop": "center", "normalize": "none", "clip": None})


def examples(
    config: ECGTransformConfig, preprocessing: Preprocessing, sample: Mapping[str, Any], seed: int
) -> dict[str, NDArray[np.float32] | None]:
    """The window [C, T] after each augmentation; None where the data's leads or rate do not admit it."""
    plain = preprocessing.model_copy(update={"normalize": "none", "clip": None})
    streams = Streams.of_samples(seed, np.zeros(1, np.int64), np.zeros(1, np.int64))
    found: dict[str, NDArray[np.float32] | None] = {}
    for name in AUGMENTATIONS:
        try:
            found[name] = ECGTransform(alone(config, name), plain)([sample], streams)[0]
        except ValueError:
            found[name] = None
    return found


def plot(
    before_CT: NDArray[np.float32],
    after: Mapping[str, NDArray[np.float32] | None],
    leads: Sequence[str],
    sampling_rate: float,
    title: str,
    path: Path,
) -> None:
    """A PNG with a panel for each augmentation: the ECG after it in blue, as it was in grey."""
    from matplotlib.figure import Figure

    rows = -(-len(after) // COLUMNS)
    figure = Figure(figsize=(16, 0.8 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    zero_C = _zero_lines(before_CT)
    for axes in panels.flat[len(after) :]:
        axes.set_axis_off()
    for axes, (name, ecg_CT) in zip(panels.flat, after.items(), strict=False):
        _draw(axes, before_CT, ecg_CT, zero_C, sampling_rate)
        axes.set_title(name + (" (not physiological)" if name in UNNATURAL else ""), fontsize=11, loc="left")
    for axes in panels[-1]:
        axes.set_xlabel("s")
    panels[0, 0].set(yticks=zero_C, yticklabels=leads)
    panels[0, 0].set_ylim(zero_C[-1] + before_CT[-1].min() - GAP, before_CT[0].max() + GAP)
    figure.suptitle(title, fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75, metadata={"Software": None})


def _zero_lines(ecg_CT: NDArray[np.float32]) -> NDArray[np.float64]:
    """Heights in mV at which leads are drawn one below the other, without touching."""
    apart_C = ecg_CT[1:].max(axis=1) - ecg_CT[:-1].min(axis=1) + GAP
    return -np.concatenate([[0.0], np.cumsum(apart_C)])


def _draw(
    axes: Axes,
    before_CT: NDArray[np.float32],
    after_CT: NDArray[np.float32] | None,
    zero_C: NDArray[np.float64],
    sampling_rate: float,
) -> None:
    """Leads one below the other."""
    time_T = np.arange(before_CT.shape[1]) / sampling_rate
    for ecg_CT, colour, width in ((before_CT, BEFORE, 1.4), (after_CT, AFTER, 0.8)):
        if ecg_CT is not None:
            axes.plot(time_T, (ecg_CT + zero_C[:, None]).T, color=colour, linewidth=width)
    if after_CT is None:
        axes.text(0.5, 0.5, "not for these leads or this rate", transform=axes.transAxes, ha="center")
    axes.set_xlim(time_T[0], time_T[-1])
    axes.spines[["top", "right"]].set_visible(False)
