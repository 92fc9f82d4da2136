"""Where the pixels of an image go: parts of it, the middle, squares, mirrors; video does the same to each frame.

Legend: B batch, N samples that a transform hits, A tries, H height, W width, C channels, S side of the model's input.
A picture is uint8 or uint16, [H, W] (gray) or [H, W, 3]. Boxes are top, left, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.transforms import AreaCropConfig
from src.randomness import Streams
from src.transforms.draws import between, hit

TRIES = 10
MOST_GROWN = 1 << 22
"""Pixels that a grown picture may have before its middle is cut out; of a longer one the middle alone is made."""
SHARPNESS = -0.75
"""cv2's a of the bicubic kernel."""
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
    rows, columns = max(side, round(height * share)), max(side, round(width * share))
    if share >= 1 and rows * columns > MOST_GROWN:
        return grown_middle(picture, side, rows, columns)
    whole = resize(picture, rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return whole[top : top + side, left : left + side]


def grown_middle(picture: Picture, side: int, rows: int, columns: int) -> Picture:
    """The middle of `resize(picture, rows, columns)`, which is no smaller, to a level: out of the pixels it needs."""
    top_S4, down_S4 = _taps(picture.shape[0], rows, side)
    left_S4, across_S4 = _taps(picture.shape[1], columns, side)
    first, last = left_S4.min(), left_S4.max() + 1
    needed = picture[:, first:last, None] if picture.ndim == 2 else picture[:, first:last]
    tall = np.einsum("stwc,st->swc", needed[top_S4], down_S4)
    square = np.einsum("hstc,st->hsc", tall[:, left_S4 - first], across_S4)
    found: Picture = np.clip(np.rint(square), 0, np.iinfo(picture.dtype).max).astype(picture.dtype)
    return found[..., 0] if picture.ndim == 2 else found


def _taps(length: int, grown: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The four pixels [S, 4] that each of the middle ones of a grown axis is made of, and their weights [S, 4]."""
    at_S = ((grown - side) // 2 + np.arange(side) + 0.5) * length / grown - 0.5
    pixels_S4 = np.floor(at_S).astype(np.int64)[:, None] + np.arange(-1, 3)
    off_S4 = np.abs(at_S[:, None] - pixels_S4)
    near_S4 = ((SHARPNESS + 2) * off_S4 - (SHARPNESS + 3)) * off_S4**2 + 1
    far_S4 = SHARPNESS * (((off_S4 - 5) * off_S4 + 8) * off_S4 - 4)
    return np.clip(pixels_S4, 0, length - 1), np.where(off_S4 <= 1, near_S4, far_S4)


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


@contextmanager
def named(key: str, what: str, picture: Picture) -> Iterator[None]:
    """What OpenCV refuses inside, as a ValueError that names the sample."""
    try:
        yield
    except cv2.error as error:
        raise ValueError(
            f"sample {key}: OpenCV refuses its {what} of shape {picture.shape} ({error.err}): leave it out"
        ) from error


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
