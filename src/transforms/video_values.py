"""What happens to the values of a clip, in place: brightness, contrast, gamma, blur, speckle, noise.

What is drawn is drawn once for a clip, but for speckle and noise, which are others in each frame.
Legend: B batch, N clips that a transform hits, T frames, S side, C channels (1 or 3). Values are float32 in 0 .. 1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.transforms import (
    BrightnessConfig,
    ContrastConfig,
    GammaConfig,
    SpeckleConfig,
    VideoBlurConfig,
    VideoNoiseConfig,
)
from src.randomness import Streams
from src.transforms.draws import between, hit, signed
from src.transforms.image_color import brighten, smooth, stretch_contrast


def change_gamma(video_BTSSC: NDArray[np.float32], config: GammaConfig, streams: Streams) -> None:
    """v to the power of gamma, whose logarithm is uniform."""
    hit_N = hit(streams, "gamma", config.probability)
    lowest, highest = np.log(config.gamma)
    for row, log_gamma in zip(hit_N, between(streams[hit_N], "gamma.log", (lowest, highest)), strict=True):
        np.power(video_BTSSC[row], np.float32(np.exp(log_gamma)), out=video_BTSSC[row])


def change_contrast(video_BTSSC: NDArray[np.float32], config: ContrastConfig, streams: Streams) -> None:
    """The distance to the clip's mean times a factor, uniform in 1 +- strength."""
    hit_N = hit(streams, "contrast", config.probability)
    for row, change in zip(hit_N, (config.strength * signed(streams[hit_N], "contrast.factor")).tolist(), strict=True):
        stretch_contrast(video_BTSSC[row], 1.0 + change)


def change_brightness(video_BTSSC: NDArray[np.float32], config: BrightnessConfig, streams: Streams) -> None:
    """Values times a factor, uniform in 1 +- strength."""
    hit_N = hit(streams, "brightness", config.probability)
    changes_N = config.strength * signed(streams[hit_N], "brightness.factor")
    for row, change in zip(hit_N, changes_N.tolist(), strict=True):
        brighten(video_BTSSC[row], 1.0 + change)


def blur_frames(video_BTSSC: NDArray[np.float32], config: VideoBlurConfig, streams: Streams) -> None:
    """A Gaussian of a uniform standard deviation, four of which are its kernel's half; edges are mirrored."""
    hit_N = hit(streams, "blur", config.probability)
    for row, sigma in zip(hit_N, between(streams[hit_N], "blur.sigma", config.sigma).tolist(), strict=True):
        for frame_SSC in video_BTSSC[row]:
            smooth(frame_SSC, sigma, 2 * math.ceil(4 * sigma) + 1)


def add_speckle(video_BTSSC: NDArray[np.float32], config: SpeckleConfig, streams: Streams) -> None:
    """Values times 1 + std * grains, cut off at 0 and 1: speckle is multiplicative (Burckhardt 1978)."""
    frames, side = video_BTSSC.shape[1:3]
    for row in hit(streams, "speckle", config.probability):
        grains_TSS = grains(streams[np.array([row])], frames, side, config.grain)
        factor_TSS = np.float32(1.0) + np.float32(config.std) * grains_TSS
        np.clip(video_BTSSC[row] * factor_TSS[..., None], 0.0, 1.0, out=video_BTSSC[row])


def grains(streams: Streams, frames: int, side: int, grain: float) -> NDArray[np.float32]:
    """Gaussian noise [T, S, S] of mean 0 and variance 1 everywhere, smoothed by a Gaussian of that standard deviation.

    It is drawn beyond the edges too, so that a pixel there is as any other.
    """
    beyond = math.ceil(3 * grain)
    white = streams.normal("speckle.grain", frames, side + 2 * beyond, side + 2 * beyond)[0].astype(np.float32)
    if not beyond:
        return white
    kernel = cv2.getGaussianKernel(2 * beyond + 1, grain, cv2.CV_32F)
    inside = slice(beyond, beyond + side)
    smoothed = [cv2.sepFilter2D(frame, -1, kernel, kernel)[inside, inside] for frame in white]
    return np.stack(smoothed).astype(np.float32, copy=False) / np.float32((kernel.astype(np.float64) ** 2).sum())


def add_noise(video_BTSSC: NDArray[np.float32], config: VideoNoiseConfig, streams: Streams) -> None:
    """White noise in each pixel of each frame, alike in all channels; cut off at 0 and 1."""
    for row in hit(streams, "noise", config.probability):  # one by one: a batch's draws would not fit the cache
        noise_TSS = streams[np.array([row])].normal("noise.value", *video_BTSSC.shape[1:4])[0].astype(np.float32)
        noise_TSS *= np.float32(config.std)
        np.clip(video_BTSSC[row] + noise_TSS[..., None], 0.0, 1.0, out=video_BTSSC[row])
