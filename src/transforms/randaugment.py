"""RandAugment (Cubuk et al. 2019) on clips: some operations from a list, alike for all frames of a clip.

The ranges are AutoAugment's (Cubuk et al. 2018), each growing with the magnitude from nothing, with either sign where
there are two. Statistics (extremes, histogram, mean) are those of the whole clip, so that it does not flicker. Turning
and shearing are about the middle of the picture; what comes in from outside is black.
Legend: N clips that it hits, O operations of a clip, T frames, S side, C channels (1 or 3).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.transforms import RandAugmentConfig
from src.randomness import Streams
from src.transforms.draws import hit, signed

Clip = NDArray[np.uint8]
LARGEST_ANGLE, LARGEST_SHEAR, LARGEST_SHIFT, LARGEST_FACTOR, MOST_BITS = 30.0, 0.3, 150 / 331, 0.9, 4
"""AutoAugment's: degrees, share, share of the side, change of a factor, bits that are dropped."""
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's filter of that name, which sharpness goes away from."""


def randaugment(clips: list[Clip], config: RandAugmentConfig, streams: Streams) -> None:
    """Puts the changed clips [T, S, S, C] in the place of those that it hits."""
    hit_N = hit(streams, "randaugment", config.probability)
    which_NO = streams[hit_N].integers("randaugment.operation", len(config.operations), config.count)
    sign_NO = np.where(signed(streams[hit_N], "randaugment.sign", config.count) < 0, -1.0, 1.0)
    for row, which_O, sign_O in zip(hit_N, which_NO, sign_NO.tolist(), strict=True):
        for which, sign in zip(which_O, sign_O, strict=True):
            clips[row] = OPERATIONS[config.operations[which]](clips[row], sign * config.magnitude / 10)


def _identity(clip_TSSC: Clip, share: float) -> Clip:
    return clip_TSSC


def _rotate(clip_TSSC: Clip, share: float) -> Clip:
    angle = np.deg2rad(LARGEST_ANGLE * share)
    return _moved(clip_TSSC, np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))


def _shear_x(clip_TSSC: Clip, share: float) -> Clip:
    return _moved(clip_TSSC, np.array([[1.0, LARGEST_SHEAR * share], [0.0, 1.0]]))


def _shear_y(clip_TSSC: Clip, share: float) -> Clip:
    return _moved(clip_TSSC, np.array([[1.0, 0.0], [LARGEST_SHEAR * share, 1.0]]))


def _translate_x(clip_TSSC: Clip, share: float) -> Clip:
    return _moved(clip_TSSC, np.eye(2), (LARGEST_SHIFT * share, 0.0))


def _translate_y(clip_TSSC: Clip, share: float) -> Clip:
    return _moved(clip_TSSC, np.eye(2), (0.0, LARGEST_SHIFT * share))


def _moved(clip_TSSC: Clip, turn: NDArray[np.float64], shift: tuple[float, float] = (0.0, 0.0)) -> Clip:
    """Each point (x, y) goes to turn @ (x, y) from the middle, then by a share of the side; bilinear."""
    side = clip_TSSC.shape[1]
    middle = np.full(2, (side - 1) / 2)
    matrix = np.column_stack([turn, middle - turn @ middle + np.array(shift) * side])
    frames = [cv2.warpAffine(frame_SSC, matrix, (side, side), flags=cv2.INTER_LINEAR) for frame_SSC in clip_TSSC]
    return np.stack(frames).reshape(clip_TSSC.shape).astype(np.uint8, copy=False)


def _brightness(clip_TSSC: Clip, share: float) -> Clip:
    return _mapped(clip_TSSC, np.arange(256.0) * (1 + LARGEST_FACTOR * share))


def _contrast(clip_TSSC: Clip, share: float) -> Clip:
    mean = round(float(_gray(clip_TSSC).mean(dtype=np.float64)))
    return _mapped(clip_TSSC, mean + (np.arange(256.0) - mean) * (1 + LARGEST_FACTOR * share))


def _solarize(clip_TSSC: Clip, share: float) -> Clip:
    value = np.arange(256.0)
    return _mapped(clip_TSSC, np.where(value < 256 * (1 - abs(share)), value, 255 - value))


def _posterize(clip_TSSC: Clip, share: float) -> Clip:
    dropped = round(MOST_BITS * abs(share))
    return _mapped(clip_TSSC, (np.arange(256) >> dropped << dropped).astype(np.float64))


def _autocontrast(clip_TSSC: Clip, share: float) -> Clip:
    lowest, highest = (of(clip_TSSC, axis=(0, 1, 2)).astype(float) for of in (np.min, np.max))
    span = np.where(highest > lowest, highest - lowest, 255.0)
    return _mapped(clip_TSSC, (np.arange(256.0)[:, None] - np.where(highest > lowest, lowest, 0.0)) * 255.0 / span)


def _equalize(clip_TSSC: Clip, share: float) -> Clip:
    """Pillow's rule on the histogram of all frames."""
    tables = []
    for channel in np.moveaxis(clip_TSSC, -1, 0):
        counts = np.bincount(channel.reshape(-1), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        before = np.concatenate([[0], np.cumsum(counts)[:-1]])
        tables.append((before + step // 2) // step if step else np.arange(256))
    return _mapped(clip_TSSC, np.stack(tables, axis=1).astype(np.float64))


def _color(clip_TSSC: Clip, share: float) -> Clip:
    if clip_TSSC.shape[-1] == 1:
        return clip_TSSC
    gray_TSS1 = _gray(clip_TSSC)[..., None].astype(np.float32)
    return _rounded((clip_TSSC - gray_TSS1) * np.float32(1 + LARGEST_FACTOR * share) + gray_TSS1)


def _sharpness(clip_TSSC: Clip, share: float) -> Clip:
    """Away from the smoothed picture, or towards it; the outermost pixels stay, as in Pillow."""
    inner = slice(1, -1)
    changed_TSSC = clip_TSSC.astype(np.float32)
    for into_SSC, frame_SSC in zip(changed_TSSC, clip_TSSC.astype(np.float32), strict=True):
        smooth_SSC = np.rint(cv2.filter2D(frame_SSC, -1, SMOOTH)).reshape(frame_SSC.shape)[inner, inner]
        sharper_SSC = (frame_SSC[inner, inner] - smooth_SSC) * np.float32(1 + LARGEST_FACTOR * share) + smooth_SSC
        into_SSC[inner, inner] = sharper_SSC
    return _rounded(changed_TSSC)


def _gray(clip_TSSC: Clip) -> NDArray[np.uint8]:
    if clip_TSSC.shape[-1] == 1:
        return clip_TSSC[..., 0]
    rows = clip_TSSC.reshape(-1, clip_TSSC.shape[2], 3)  # one high image, for cv2
    gray: NDArray[np.uint8] = cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY)  # type: ignore[assignment]
    return gray.reshape(clip_TSSC.shape[:-1])


def _mapped(clip_TSSC: Clip, table: NDArray[np.float64]) -> Clip:
    """Each value v becomes table[v], of each channel where the table has them; rounded, cut off at 0 and 255."""
    channels = clip_TSSC.shape[-1]
    table_1VC = np.broadcast_to(_rounded(table).reshape(1, 256, -1), (1, 256, channels))
    mapped = cv2.LUT(clip_TSSC.reshape(-1, 1, channels), np.ascontiguousarray(table_1VC))
    return mapped.reshape(clip_TSSC.shape).astype(np.uint8, copy=False)


def _rounded(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


OPERATIONS: dict[str, Callable[[Clip, float], Clip]] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""What each makes of a clip at a share of its range in +-1."""
