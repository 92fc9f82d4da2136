"""Where the pixels of an image go: parts of it, the middle, squares, mirrors; video does the same to each frame.

Legend: B batch, N samples that a transform hits, A tries, H height, W width, C channels, S side of the model's input.
A picture is uint8 or uint16, [H, W] (gray) or [H, W, 3]. Boxes are top, left, height, width.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.transforms import AreaCropConfig
from src.randomness import Streams
from src.transforms.draws import between, hit

TRIES = 10
Picture = NDArray[np.uint8] | NDArray[np.uint16]


def crop_boxes(sizes_N2: NDArray[np.int64], config: AreaCropConfig, streams: Streams) -> NDArray[np.int64]:
    """Boxes [N, 4] with a uniform share of the area and a log-uniform ratio of width to height, uniformly placed.

    Of ten tries the first that fits into the picture (height, width) is taken. Where none does, it is the largest box
    in the middle whose ratio is in the range (as torchvision's RandomResizedCrop does it).
    """
    heights_N1, widths_N1 = sizes_N2[:, :1], sizes_N2[:, 1:]
    area_NA = between(streams, "resized_crop.scale", config.scale, TRIES) * heights_N1 * widths_N1
    narrowest, widest = np.log(config.ratio)
    ratio_NA = np.exp(between(streams, "resized_crop.ratio", (narrowest, widest), TRIES))
    height_NA, width_NA = np.rint(np.sqrt(area_NA / ratio_NA)), np.rint(np.sqrt(area_NA * ratio_NA))
    fits_NA = (height_NA >= 1) & (height_NA <= heights_N1) & (width_NA >= 1) & (width_NA <= widths_N1)
    found_N: NDArray[np.bool_] = np.any(fits_NA, axis=1)
    first_N, rows_N = fits_NA.argmax(axis=1), np.arange(len(sizes_N2))
    boxed_N2 = np.stack([height_NA[rows_N, first_N], width_NA[rows_N, first_N]], axis=1).astype(np.int64)
    boxed_N2[~found_N] = largest(sizes_N2[~found_N], config.ratio)
    spare_N2 = sizes_N2 - boxed_N2
    top_N = streams.integers("resized_crop.top", spare_N2[:, 0] + 1)
    left_N = streams.integers("resized_crop.left", spare_N2[:, 1] + 1)
    corner_N2 = np.where(found_N[:, None], np.stack([top_N, left_N], axis=1), spare_N2 // 2)
    return np.concatenate([corner_N2, boxed_N2], axis=1)


def largest(sizes_N2: NDArray[np.int64], ratio: tuple[float, float]) -> NDArray[np.int64]:
    """Height and width [N, 2] of the largest box whose ratio of width to height is in the range, as pixels admit."""
    height_N, width_N = sizes_N2.T
    flat_N = np.minimum(height_N, np.maximum(1, np.rint(width_N / ratio[0]))).astype(np.int64)
    slim_N = np.minimum(width_N, np.maximum(1, np.rint(height_N * ratio[1]))).astype(np.int64)
    return np.stack([flat_N, slim_N], axis=1)


def boxes(
    sizes_B2: NDArray[np.int64], config: AreaCropConfig, streams: Streams
) -> list[tuple[int, int, int, int] | None]:
    """For each picture of the batch the box that is cut out, or None where `resized_crop` does not hit it."""
    hit_N = hit(streams, "resized_crop", config.probability)
    found: list[tuple[int, int, int, int] | None] = [None] * len(sizes_B2)
    for row, (top, left, height, width) in zip(
        hit_N, crop_boxes(sizes_B2[hit_N], config, streams[hit_N]).tolist(), strict=True
    ):
        found[row] = top, left, height, width
    return found


def cut(picture: Picture, box: tuple[int, int, int, int] | None, side: int, shorter_side: int | None) -> Picture:
    """The box of the picture as a square of that side; without a box the middle, as `middle` does it."""
    if box is None:
        return middle(picture, side, shorter_side or side)
    top, left, height, width = box
    return resize(picture[top : top + height, left : left + width], side, side)


def middle(picture: Picture, side: int, shorter_side: int) -> Picture:
    """The shorter side resized to so many pixels, then the middle square of that side: what evaluation sees."""
    height, width = picture.shape[:2]
    share = shorter_side / min(height, width)
    whole = resize(picture, max(side, round(height * share)), max(side, round(width * share)))
    top, left = (whole.shape[0] - side) // 2, (whole.shape[1] - side) // 2
    return whole[top : top + side, left : left + side]


def resize(picture: Picture, height: int, width: int) -> Picture:
    """Pixels are averaged by area along an axis that shrinks, bicubic (cv2's, a = -0.75) along one that grows."""
    small = min(height, picture.shape[0]), min(width, picture.shape[1])
    if small != picture.shape[:2]:
        picture = cv2.resize(picture, small[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if small != (height, width):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return picture


def in_channels(picture: Picture, channels: int) -> Picture:
    """[H, W] or [H, W, 3] as [H, W] for one channel; for three it stays, `unit_interval` repeats gray."""
    if channels == 1 and picture.ndim == 3:
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]
    return picture


def check_picture(key: str, what: str, picture: Picture, axes: str) -> None:
    """Raises ValueError unless it is of 8 or 16 bits, has the axes "H, W" (say), maybe three channels, and a pixel."""
    count = axes.count(",") + 1
    fits = picture.ndim == count or (picture.ndim == count + 1 and picture.shape[-1] == 3)
    if picture.dtype not in (np.uint8, np.uint16) or not fits:
        raise ValueError(
            f"sample {key}: its {what} is {picture.dtype} of shape {picture.shape}: give uint8 or uint16, [{axes}] or "
            f"[{axes}, 3]"
        )
    if not picture.size:
        raise ValueError(f"sample {key}: its {what} has shape {picture.shape}, without a pixel: leave it out")
