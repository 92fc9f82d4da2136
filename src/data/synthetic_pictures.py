"""Made-up images, videos and CT volumes: for a first try, for tests, never for a result.

A chamber, an ellipse with a soft rim, of a size and at a place of its own; in a video it contracts, in a CT it is an
air-filled lung in a body. It is labelled large where its mean radius is.
"""

# H rows, W columns, D depth, T frames

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.data import SyntheticConfig
from src.data.index import TRAINING_SPLIT, Labels
from src.data.make_index import Contents
from src.data.npz import pack_npz
from src.data.tars import sample_files
from src.data.write_shards import Files, write_files
from src.randomness import Streams

RECIPE = 1
"""Counts changes of what the same config makes."""
RECORDS_PER_PATIENT = 2
VALIDATION_SHARE = 0.2
RADII = 0.15, 0.35
"""Least and greatest, as shares of the sides."""
LARGE = 0.25
RATE = 25.0
"""Frames a second of a video."""
SPACING = (2.0, 1.5, 1.5)
"""mm between voxels of a CT along D, H and W."""


def patient_and_split(samples: int, number: int) -> tuple[int, str]:
    """Whose record it is, and for what: patients come in order, the last ones are for validation."""
    patients = -(-samples // RECORDS_PER_PATIENT)
    validation = min(max(1, round(VALIDATION_SHARE * patients)), patients - 1)
    patient = number // RECORDS_PER_PATIENT
    return patient, "val" if patient >= patients - validation else TRAINING_SPLIT


def pictures_source(config: SyntheticConfig, modality: str) -> dict[str, Any]:
    """What the index tells of how they were made."""
    assert config.sides is not None, "the config has checked it"
    made = {"samples": config.samples, "seed": config.seed, "sides": list(config.sides)}
    return {"synthetic": {**made, "modality": modality, "recipe": RECIPE}}


def write_pictures(root: Path, config: SyntheticConfig, modality: str) -> None:
    """Write the folder.

    Raises:
        FolderTaken: it is there already.
    """
    labels = Labels(names=("large",), kind="multilabel")
    write_files(root, _samples(config, modality), Contents(modality, labels, pictures_source(config, modality)))


def _samples(config: SyntheticConfig, modality: str) -> Iterator[Files]:
    sides = config.sides
    assert sides is not None
    for number in range(config.samples):
        patient, split = patient_and_split(config.samples, number)
        of_patient, of_record = _stream(config, "patient", patient), _stream(config, "record", number)
        radius = RADII[0] + (RADII[1] - RADII[0]) * of_patient.uniform("radius", 1)[0, 0]
        files, told = _FILES[modality](sides, float(radius), of_record)
        about = {"id": f"{number:07d}", "patient_id": f"{patient:07d}", "radius": round(float(radius), 4)}
        meta = {**about, "labels": [int(radius >= LARGE)], **told}
        yield Files(split, f"synthetic-{number:07d}", sample_files(files, meta, None))


def _stream(config: SyntheticConfig, kind: str, number: int) -> Streams:
    return Streams.of_samples(config.seed, np.zeros(1, np.int64), np.array([number])).fork("pictures").fork(kind)


def _chamber(sides: tuple[int, ...], radius: float, streams: Streams) -> NDArray[np.float64]:
    """An ellipse at a place and of a form that is drawn."""
    middle = 0.5 + 0.2 * (streams.uniform("center", len(sides))[0] - 0.5)
    stretch = np.exp(0.2 * (streams.uniform("stretch", len(sides))[0] - 0.5))
    return _ellipse(sides, radius, middle, stretch)


def _ellipse(
    sides: tuple[int, ...], radius: float, middle: NDArray[np.float64], stretch: NDArray[np.float64]
) -> NDArray[np.float64]:
    """1 inside, 0 outside; lengths are shares of the sides."""
    axes = np.ix_(*((np.arange(side) + 0.5) / side for side in sides))
    squares = sum(((axis - m) / s) ** 2 for axis, m, s in zip(axes, middle, stretch, strict=True))
    return 1 / (1 + np.exp((np.sqrt(squares) - radius) / 0.02))


def _gray(chamber: NDArray[np.float64], streams: Streams) -> NDArray[np.uint8]:
    noise = streams.normal("noise", *chamber.shape)[0]
    return np.clip(70 + 110 * chamber + 12 * noise, 0, 255).astype(np.uint8)


def _image(sides: tuple[int, ...], radius: float, streams: Streams) -> tuple[dict[str, bytes], dict[str, Any]]:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(_gray(_chamber(sides, radius, streams), streams)).save(content, "PNG")
    return {"png": content.getvalue()}, {}


def _video(sides: tuple[int, ...], radius: float, streams: Streams) -> tuple[dict[str, bytes], dict[str, Any]]:
    from av import VideoFrame

    from src.data.builders.video_encode import encode
    from src.data.builders.video_format import Encoding
    from src.data.builders.video_read import Picture

    frames, *plane = sides
    phase, beats = streams.uniform("beat", 2)[0] * (2 * math.pi, 1.0) + (0.0, 0.8)
    pictures = []
    for number in range(frames):
        now = radius * (1 + 0.2 * math.sin(phase + 2 * math.pi * beats * number / RATE))
        gray_HW = _gray(_chamber(tuple(plane), now, streams), streams.fork(number))
        pictures.append(Picture(number / RATE, VideoFrame.from_ndarray(gray_HW, "gray")))
    data, told = encode(pictures, Encoding(gray=True))
    return {"mp4": data}, told


def _ct(sides: tuple[int, ...], radius: float, streams: Streams) -> tuple[dict[str, bytes], dict[str, Any]]:
    body_DHW = _ellipse(sides, 0.45, np.full(3, 0.5), np.ones(3))
    hu_DHW = -1000 + 1040 * body_DHW - 890 * _chamber(sides, radius, streams) * body_DHW
    hu_DHW += 20 * streams.normal("noise", *sides)[0]
    content = pack_npz("ct", np.rint(hu_DHW)[None].astype(np.int16), compress=True)
    return {"ct.npz": content}, {"spacing": list(SPACING), "orientation": "SPL"}


_FILES = {"image": _image, "video": _video, "ct": _ct}
