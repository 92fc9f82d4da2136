"""How long this project and OpenCV take for the same frames of a video: the verb `decoders` of benchmark."""

# T frames, H rows, W columns

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.video import Video
from tools.benchmark_build import ARCHIVES, build, repeated
from tools.benchmark_sets import opened, public_records

SIZE = ("--size", "224", "224")
CODECS = {
    "as they came": ("--pass-through",),
    "h264": SIZE,
    "mjpeg": (*SIZE, "--codec", "mjpeg"),
    "ffv1": (*SIZE, "--codec", "ffv1"),
}
"""Flags of build_shards for each."""
PATTERNS: Mapping[str, Callable[[int], Sequence[int]]] = {
    "all": lambda frames: range(frames),
    "64 of the middle": lambda frames: range(frames // 2 - 32, frames // 2 + 32),
    "16 first": lambda frames: range(16),
    "16 of the middle": lambda frames: range(frames // 2 - 8, frames // 2 + 8),
    "16, every fourth": lambda frames: range(frames // 2 - 32, frames // 2 + 32, 4),
    "16 over all": lambda frames: np.linspace(0, frames - 1, 16).round().astype(int).tolist(),
}
"""Frames, ascending, of a video that has so many; 64 or more."""
JUMP = 16
"""Frames ahead from which OpenCV is let seek."""

Way = Callable[[Video, Sequence[int]], NDArray[np.uint8]]
"""Frames of these numbers, [T, H, W, 3] of RGB."""
Times = Mapping[tuple[str, str], Sequence[float]]
"""CPU ms a clip of each round, by pattern and way."""


def by_opencv(video: Video, numbers: Sequence[int], jump: float = float("inf")) -> NDArray[np.uint8]:
    """The frames [T, H, W, 3] of these numbers, ascending; what lies between is decoded, or jumped over where it is
    `jump` frames or more. By one thread, and as RGB right where they are wanted, which is OpenCV's fastest way.

    Raises:
        ValueError: OpenCV finds no such frame.
    """
    file: Any = io.BytesIO(video.data)  # OpenCV's types ask for a base class that it does not need
    capture = cv2.VideoCapture(file, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames_THWC, next_number = None, 0
    for place, number in enumerate(numbers):
        if number - next_number >= jump:
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            next_number = number
        while next_number < number and capture.grab():
            next_number += 1
        found, frame_HWC = capture.read()
        if not found:
            raise ValueError(f"OpenCV finds no frame {number} in a video of {video.told['frames']} frames")
        next_number += 1
        if frames_THWC is None:
            frames_THWC = np.empty((len(numbers), *frame_HWC.shape), np.uint8)
        cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB, dst=frames_THWC[place])
    assert frames_THWC is not None, "no frame was asked for"
    return frames_THWC


WAYS: Mapping[str, Way] = {
    "this project": lambda video, numbers: video.frames(numbers),
    "OpenCV": by_opencv,
    "OpenCV, seeking": lambda video, numbers: by_opencv(video, numbers, JUMP),
}


def benchmark_decoders(arguments: argparse.Namespace) -> Iterator[str]:
    """A table of all codecs; every way takes its turn in each round, at all videos of a codec."""
    cv2.setNumThreads(1)
    yield f"CPU ms a clip, median of {arguments.rounds} rounds by turns (lowest to highest), one thread. OpenCV"
    yield f"{cv2.__version__} reads up to a frame, or seeks to one that is {JUMP} or more ahead. Bold: its slowest"
    yield "round is faster than the fastest of the others. Other bytes: clips and patterns unlike this project's.\n"
    yield f"| codec | by | {' | '.join(PATTERNS)} | other bytes |"
    yield f"| --- | --- | {'---: | ' * len(PATTERNS)}--- |"
    lengths: set[int] = set()
    for codec in arguments.codecs:
        with tempfile.TemporaryDirectory(dir=arguments.output, prefix="medssl-decoders-") as room:
            videos = _videos(Path(room), CODECS[codec], arguments.clips)
        lengths |= {video.told["frames"] for video in videos}
        differing = {way: _differing(videos, way) for way in WAYS}
        times = _rounds(videos, arguments.rounds)
        for way in WAYS:
            cells = " | ".join(_cell(times, pattern, way) for pattern in PATTERNS)
            yield f"| {codec} | {way} | {cells} | {differing[way]} |"
    yield f"\nClips of each codec: {len(videos)}, of {min(lengths)} to {max(lengths)} frames."


def _videos(room: Path, flags: Sequence[str], clips: int) -> list[Video]:
    """Public clips, from all of them alike, by build_shards."""
    files = ARCHIVES["video"].files(public_records())
    if not files:
        raise ValueError(f"{public_records()} holds no public records of video: name their folder by MEDSSL_DATA")
    taken = [files[number] for number in np.unique(np.linspace(0, len(files) - 1, clips).astype(np.int64))]
    workers = str(len(os.sched_getaffinity(0)))
    build("video", repeated(room / "in", taken, len(taken)), room / "shards", (*flags, "--workers", workers))
    shards = opened(room / "shards")
    return [video for sample in shards.read(np.arange(len(shards))) for video in sample["videos"]]


def _differing(videos: Sequence[Video], way: str) -> str:
    """How many clips and patterns have other bytes in this way, and by how much; each is decoded once before its time
    is taken."""
    differences = []
    for video in videos:
        for pattern in PATTERNS.values():
            numbers = pattern(video.told["frames"])
            found, wanted = WAYS[way](video, numbers).astype(np.int16), video.frames(numbers)
            differences.append(int(np.abs(found - wanted).max()))
    wrong = sum(difference > 0 for difference in differences)
    return f"{wrong} of {len(differences)}" + (f", by {max(differences)} at most" if wrong else "")


def _rounds(videos: Sequence[Video], rounds: int) -> Times:
    """Each round begins with another way."""
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        first = number % len(WAYS)
        for pattern, numbers_of in PATTERNS.items():
            for way, decode in [*WAYS.items()][first:] + [*WAYS.items()][:first]:
                start = time.process_time()
                for video in videos:
                    decode(video, numbers_of(video.told["frames"]))
                times[pattern, way].append(1000 * (time.process_time() - start) / len(videos))
    return times


def _cell(times: Times, pattern: str, way: str) -> str:
    own = times[pattern, way]
    others = min(min(times[pattern, other]) for other in WAYS if other != way)
    middle = shown(statistics.median(own))
    return f"{f'**{middle}**' if max(own) < others else middle} ({shown(min(own))}-{shown(max(own))})"


def shown(milliseconds: float) -> str:
    """With the digits that mean something."""
    return f"{milliseconds:.0f}" if milliseconds >= 20 else f"{milliseconds:.1f}"
