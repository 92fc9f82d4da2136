"""What happens to the values of an image, in place: colour jitter, gray, blur, solarisation, normalising.

Legend: B batch, N samples that a transform hits, J the four jitters, S side, C channels (1 or 3), P pixels and X axes
of any arrangement. Values are float32 in 0 .. 1, red, green and blue.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.transforms import ColorJitterConfig, GrayscaleConfig, ImageBlurConfig, SolarizeConfig
from src.memory import empty
from src.randomness import Streams
from src.transforms.draws import between, hit, signed

JITTERS = ("brightness", "contrast", "saturation", "hue")


def color_jitter(image_BSSC: NDArray[np.float32], config: ColorJitterConfig, streams: Streams) -> None:
    """Brightness, contrast, saturation and hue of each image in an order of its own (SimCLR, Chen et al. 2020)."""
    hit_N = hit(streams, "color_jitter", config.probability)
    streams = streams[hit_N]
    spans = [config.strength * getattr(config, name) for name in JITTERS]
    drawn_NJ = np.stack([signed(streams, f"color_jitter.{name}") for name in JITTERS], axis=1) * spans
    drawn_NJ[:, :3] = np.maximum(0.0, 1.0 + drawn_NJ[:, :3])
    order_NJ = streams.uniform("color_jitter.order", len(JITTERS)).argsort(axis=1)
    changes = (brighten, stretch_contrast, saturate, turn_hue)
    for row, drawn_J, order_J in zip(hit_N, drawn_NJ.tolist(), order_NJ, strict=True):
        for which in order_J:
            if spans[which]:
                changes[which](image_BSSC[row], drawn_J[which])


def brighten(values_PC: NDArray[np.float32], factor: float) -> None:
    """Values times a factor, cut off at 1."""
    np.clip(values_PC * np.float32(factor), 0.0, 1.0, out=values_PC)


def stretch_contrast(values_PC: NDArray[np.float32], factor: float) -> None:
    """The distance to the mean of the gray values times a factor, cut off at 0 and 1."""
    mean = np.float32(luma(values_PC).mean(dtype=np.float64))
    np.clip((values_PC - mean) * np.float32(factor) + mean, 0.0, 1.0, out=values_PC)


def saturate(values_PC: NDArray[np.float32], factor: float) -> None:
    """The distance to the pixel's own gray value times a factor, cut off at 0 and 1."""
    gray_P1 = luma(values_PC)[..., None]
    np.clip((values_PC - gray_P1) * np.float32(factor) + gray_P1, 0.0, 1.0, out=values_PC)


def turn_hue(image_SSC: NDArray[np.float32], turn: float) -> None:
    """The hue turned by a share of the circle; saturation and value of HSV stay."""
    hsv_SSC = cv2.cvtColor(image_SSC, cv2.COLOR_RGB2HSV)
    hsv_SSC[..., 0] = np.mod(hsv_SSC[..., 0] + np.float32(360.0 * turn), np.float32(360.0))
    np.clip(cv2.cvtColor(hsv_SSC, cv2.COLOR_HSV2RGB), 0.0, 1.0, out=image_SSC)


def luma(values_PC: NDArray[np.float32]) -> NDArray[np.float32]:
    """0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); of one channel itself."""
    if values_PC.shape[-1] == 1:
        return values_PC[..., 0]
    rows = values_PC.reshape(-1, values_PC.shape[-2], 3)  # one high image, for cv2
    gray: NDArray[np.float32] = cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY)  # type: ignore[assignment]
    return gray.reshape(values_PC.shape[:-1])


def grayscale(image_BSSC: NDArray[np.float32], config: GrayscaleConfig, streams: Streams) -> None:
    """Every channel becomes the gray value."""
    for row in hit(streams, "grayscale", config.probability):
        image_BSSC[row] = luma(image_BSSC[row])[..., None]


def blur(image_BSSC: NDArray[np.float32], config: ImageBlurConfig, streams: Streams) -> None:
    """A Gaussian of a uniform standard deviation, cut off at the kernel's width; edges are mirrored."""
    hit_N = hit(streams, "blur", config.probability)
    width = kernel_width(config.kernel, image_BSSC.shape[1])
    for row, sigma in zip(hit_N, between(streams[hit_N], "blur.sigma", config.sigma).tolist(), strict=True):
        smooth(image_BSSC[row], sigma, width)


def kernel_width(share: float, side: int) -> int:
    """Odd pixels of a kernel that is to be a share of the side: 23 for a tenth of 224."""
    return 2 * (int(share * side) // 2) + 1


def smooth(image_SSC: NDArray[np.float32], sigma: float, width: int) -> None:
    """A Gaussian filter on a kernel of an odd width; edges are mirrored about their outermost pixel."""
    if sigma > 0:
        blurred = cv2.GaussianBlur(image_SSC, (width, width), sigma, borderType=cv2.BORDER_REFLECT_101)
        image_SSC[:] = blurred.reshape(image_SSC.shape)


def solarize(image_BSSC: NDArray[np.float32], config: SolarizeConfig, streams: Streams) -> None:
    """v becomes 1 - v where it is the threshold or above (BYOL, Grill et al. 2020)."""
    threshold = np.float32(config.threshold)
    for row in hit(streams, "solarize", config.probability):
        image_BSSC[row] = np.where(image_BSSC[row] >= threshold, 1.0 - image_BSSC[row], image_BSSC[row])


def unit_interval(pictures: Sequence[NDArray[np.integer]], axes: int, channels: int) -> NDArray[np.float32]:
    """Pictures of 8 or 16 bits as one batch of 0 .. 1, [B, ..., C]; they have so many axes, maybe one of channels."""
    values_BXC = np.empty((len(pictures), *pictures[0].shape[:axes], channels), np.float32)
    for into_XC, picture in zip(values_BXC, pictures, strict=True):
        into_XC[:] = picture if picture.ndim > axes else picture[..., None]
        into_XC /= np.float32(np.iinfo(picture.dtype).max)
    return values_BXC


def normalized(values_BXC: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(values - mean) / std of each channel, with the channels behind the batch: [B, ..., C] to [B, C, ...]."""
    values_BXC -= np.array(mean, np.float32)
    moved_BCX = np.moveaxis(values_BXC, -1, 1)
    values_BCX = empty(moved_BCX.shape)
    std_CX = np.array(std, np.float32).reshape(-1, *[1] * (moved_BCX.ndim - 2))
    return np.divide(moved_BCX, std_CX, out=values_BCX)
