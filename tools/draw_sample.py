"""How a sample of each modality is drawn, with its labels and its report above."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.data.index import Index
from src.data.sample import Sample
from src.report.contact import COLUMNS, Clip, captions, even_frames, save_contact_sheet
from src.report.planes import save_planes
from src.report.plate import save_image
from src.report.sheet import save_sheet

MOST_VIDEOS = 12
"""Of a study, that are drawn."""


def draw_sample(path: Path, sample: Sample, index: Index, split: str) -> None:
    """Write the picture of a sample as a PNG.

    Raises:
        ValueError: its frames can't be decoded.
    """
    DRAW[index.modality](path, sample, index, f"{sample['key']} ({split})", labels_of(sample, index))


def labels_of(sample: Sample, index: Index) -> list[str]:
    """Labels, for the picture's title."""
    values = dict(zip(index.labels.names, sample["labels"].tolist(), strict=True))
    given = [name if value == 1 else f"{name}={value:g}" for name, value in values.items() if value == value and value]
    unknown = [name for name, value in values.items() if value != value]
    labels = f"labels: {', '.join(given) or 'none'}" + (f"; unknown: {', '.join(unknown)}" if unknown else "")
    return [labels] if values else []


def _draw_ecg(path: Path, sample: Mapping[str, Any], index: Any, title: str, lines: Sequence[str]) -> None:
    length, rate = sample["ecg"].shape[1], index.sampling_rate
    lines = [*lines, f"{length / rate:g} s at {rate:g} Hz"]
    save_sheet(path, sample["ecg"], sample["lead_keep"], rate, index.leads, title, lines, sample["text"])


def _draw_image(path: Path, sample: Mapping[str, Any], index: Any, title: str, lines: Sequence[str]) -> None:
    image = sample["image"]
    kind = f"{'grey' if image.ndim == 2 else 'RGB'}, {image.dtype.itemsize * 8} bits"
    lines = [*lines, f"{image.shape[0]} x {image.shape[1]}, {kind}"]
    save_image(path, image, title, lines, sample["text"])


def _draw_videos(path: Path, sample: Mapping[str, Any], index: Any, title: str, lines: Sequence[str]) -> None:
    videos = sample["videos"][:MOST_VIDEOS]
    of_each = 2 * COLUMNS if len(videos) == 1 else COLUMNS
    if len(sample["videos"]) > len(videos):
        lines = [*lines, f"drawn: the first {len(videos)} of {len(sample['videos'])} videos"]
    clips = [_clip(video, number, of_each) for number, video in enumerate(videos)]
    save_contact_sheet(path, clips, title, lines, sample["text"])


def _clip(video: Any, number: int, wanted: int) -> Clip:
    """Some frames of a video, with their times by its mean rate, or their numbers where it has none."""
    facts = video.survey()
    rate = video.told.get("rate", facts.rate)
    numbers = even_frames(facts.frames, wanted)
    speed = f" at {rate:.4g} Hz" if rate else ""
    heading = f"{number}: {facts.frames:,} frames{speed}, {facts.height} x {facts.width}, {facts.codec}"
    return Clip(heading, video.frames(numbers.tolist()), captions(numbers, rate))


def _draw_ct(path: Path, sample: Mapping[str, Any], index: Any, title: str, lines: Sequence[str]) -> None:
    ct_CDHW, meta = sample["ct"], sample["meta"]
    shape = " x ".join(map(str, ct_CDHW.shape[1:]))
    spacing = meta.get("spacing")
    known = " x ".join(f"{step:.4g}" for step in spacing) + " mm" if spacing else "unknown spacing, drawn as cubes"
    lines = [*lines, f"{shape} voxels, {known}"]
    if len(ct_CDHW) > 1:
        lines.append(f"drawn: the first of {len(ct_CDHW)} channels")
    windows = {window.name: (window.center, window.width) for window in index.windows}
    depth, height, width = spacing or (1.0, 1.0, 1.0)
    volume_DHW = np.asarray(ct_CDHW[0])
    save_planes(
        path, volume_DHW, (depth, height, width), meta.get("orientation"), windows, title, lines, sample["text"]
    )


DRAW: dict[str, Callable[[Path, Any, Any, str, Sequence[str]], None]] = {
    "ecg": _draw_ecg,
    "image": _draw_image,
    "video": _draw_videos,
    "ct": _draw_ct,
}
"""By modality: path of the PNG, sample, index, title, lines below it."""
