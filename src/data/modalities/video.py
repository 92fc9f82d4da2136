"""Videos in shards: `<key>.mp4`, or `<key>.0.mp4`, `<key>.1.mp4`, ... where a study has several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from src.data.index import Index
from src.data.modality import Members, Modality
from src.data.video import Facts, Video

FIELD = "mp4"
MEMBER = re.compile(r"(?:(\d{1,6})\.)?(?:mp4|m4v|mov|avi|mkv|webm|mpe?g|wmv|gif)", re.IGNORECASE)
COMMON = 8
"""Sizes that are told, the most frequent."""
MADE = ("remuxed", "encoded")
"""What build_shards writes of a video that it has decoded to its end, in one of its processes."""
RATE_TOLERANCE = 0.01
"""Share by which a container's rate may differ from the json's."""


class VideoIndex(Index):
    """What all videos of a folder are."""

    modality: Literal["video"] = "video"
    videos: tuple[int, int]
    """Videos of a sample, the fewest and the most."""
    frames: tuple[int, int]
    """Frames of a video, the fewest and the most."""
    rates: tuple[float, float] | None
    """Hz, the lowest and the highest; None where no video has one."""
    sizes: dict[str, int]
    """Videos of each height x width, the most frequent."""
    codecs: dict[str, int]
    """Videos of each codec."""


def _fields(names: Iterable[str]) -> tuple[str, ...]:
    found = [(int(match[1] or -1), name) for name in names if (match := MEMBER.fullmatch(name))]
    return tuple(name for _, name in sorted(found))


def _decode(members: Members, meta: dict[str, Any]) -> dict[str, Any]:
    told = meta.pop("videos", None)
    if told is None:
        return {"videos": tuple(Video(bytes(data), {}) for _, data in members)}
    if not isinstance(told, list) or not all(isinstance(own, dict) for own in told) or len(told) != len(members):
        raise ValueError(f"videos in the json is not a list of {len(members)} objects, one for each video")
    return {"videos": tuple(Video(bytes(data), own) for (_, data), own in zip(members, told, strict=True))}


class GatherVideos:
    """Frames, rates, sizes and codecs of all videos of a folder.

    Videos of build_shards are compared with their json frame by frame without decoding them again, which this one
    process would do for all; those of others are decoded.
    """

    def __init__(self) -> None:
        self._frames: Counter[int] = Counter()
        self._rates: Counter[float] = Counter()
        self._sizes: Counter[str] = Counter()
        self._codecs: Counter[str] = Counter()
        self._videos: Counter[int] = Counter()

    def add(self, split: str, sample: Mapping[str, Any]) -> None:
        """Take in a sample.

        Raises:
            ValueError: a video can't be decoded, or is not what its json tells.
        """
        for number, video in enumerate(sample["videos"]):
            try:
                facts = video.glance() if video.told.get("made") in MADE else video.survey()
                _compare(facts, video.told)
            except ValueError as error:
                raise ValueError(f"its video {number}: {error}") from error
            rate = video.told.get("rate", facts.rate)
            self._frames[facts.frames] += 1
            self._sizes[f"{facts.height} x {facts.width}"] += 1
            self._codecs[facts.codec] += 1
            if rate is not None:
                self._rates[rate] += 1
        self._videos[len(sample["videos"])] += 1

    def facts(self) -> dict[str, Any]:
        """Of the index."""
        assert self._videos
        return {
            "videos": (min(self._videos), max(self._videos)),
            "frames": (min(self._frames), max(self._frames)),
            "rates": (min(self._rates), max(self._rates)) if self._rates else None,
            "sizes": dict(self._sizes.most_common(COMMON)),
            "codecs": dict(self._codecs.most_common()),
        }

    def counts(self) -> dict[str, Any]:
        """What people are told."""
        if not self._videos:
            return {"videos": {}, "frames": (0, 0), "rates": None, "sizes": {}, "codecs": {}}
        return {**self.facts(), "videos": dict(sorted(self._videos.items()))}


def _compare(facts: Facts, told: Mapping[str, Any]) -> None:
    """Refuse a json that tells something else."""
    for name in ("frames", "height", "width", "codec"):
        if name in told and told[name] != getattr(facts, name):
            raise ValueError(f"it has {name} {getattr(facts, name)}, its json says {told[name]!r}")
    rate = told.get("rate")
    if rate is not None and facts.rate is not None and not abs(rate / facts.rate - 1.0) <= RATE_TOLERANCE:
        raise ValueError(f"it runs at {facts.rate:g} Hz, its json says {rate:g}")


def _lines(counts: Mapping[str, Any]) -> Iterable[str]:
    fewest, most = counts["frames"]
    several = ", ".join(f"{videos} in {samples:,}" for videos, samples in counts["videos"].items())
    yield f"videos of a sample: {several}"
    yield f"frames: {fewest:,} to {most:,}" + (
        "; rates: {:g} to {:g} Hz".format(*counts["rates"]) if counts["rates"] else "; rates: none is told"
    )
    yield "height x width: " + ", ".join(f"{size} in {videos:,}" for size, videos in counts["sizes"].items())
    yield "codecs: " + ", ".join(f"{codec} in {videos:,}" for codec, videos in counts["codecs"].items())


def _heading(index: VideoIndex) -> str:
    rates = "at unknown rates" if index.rates is None else "at {:g} to {:g} Hz".format(*index.rates)
    of_each = f"{index.videos[0]} to {index.videos[1]} videos a sample" if index.videos[1] > 1 else "one video a sample"
    return f"{of_each} of {index.frames[0]:,} to {index.frames[1]:,} frames {rates}: {', '.join(index.codecs)}"


def _remarks(index: VideoIndex) -> Iterable[str]:
    return ()


VIDEO = Modality("video", FIELD, VideoIndex, _fields, _decode, GatherVideos, _lines, _heading, _remarks)
