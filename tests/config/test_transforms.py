"""Files of configs/transforms/: each loads, comes back from its dump, and every key of theirs is read by some code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.config import ConfigError, Section, json_schema, load_transform
from src.config.transforms import TRANSFORMS
from src.config.yaml_text import dump_yaml
from src.data.batches.ct import CTBatch
from src.data.batches.image import ImageBatch
from src.data.batches.video import VideoBatch
from src.transforms.video_time import clip_indices
from tests.config.record_reads import name_of, recorded
from tests.config.test_every_key_is_read import unread
from tests.transforms.batches import streams_of
from tests.transforms.pictures import clip_samples, image_samples, volume_samples

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs" / "transforms").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "transform.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_file_is_valid_and_comes_back_from_its_dump(path: Path, tmp_path: Path) -> None:
    config = load_transform(path, [])
    assert load_transform(written(tmp_path, dump_yaml(config.model_dump(mode="json"))), []) == config
    assert path.name.startswith(config.modality + "_")
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_each_modality_has_a_shipped_file() -> None:
    assert {load_transform(path, []).modality for path in SHIPPED} == set(TRANSFORMS)


def test_bases_and_overrides_work_as_in_an_experiment(tmp_path: Path) -> None:
    path = written(tmp_path, f"base: {SHIPPED[0]}\n")
    assert load_transform(path, ["size=[8, 9, 10]"]).size == (8, 9, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modality: vidoe", 'modality must be image, video or ct, not the text "vidoe"; did you mean video?'),
        ("modality: 3", "modality must be image, video or ct, not 3"),
        ("modality: [image]", "modality must be image, video or ct, not the list"),
        ("modalty: image", "unknown key modalty; did you mean modality?"),
        ("size: 3", "modality is missing; write image, video or ct"),
        ("modality: image\nsizes: 3", "unknown key sizes; did you mean size?"),
        ("modality: image\nblur: {sigm: 3}", "unknown key blur.sigm; did you mean blur.sigma?"),
        ("modality: image\nblur: {probability: 2}", "blur.probability must be a number from 0 to 1, not 2"),
        ("modality: video\nwindows: []", "unknown key windows; "),
        ("modality: ct\nwindows: [{center: 40}]", "windows[0].width is missing; write a number"),
        ("modality: ct\nwindows: []", "windows must be a list of at least 1 entries"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_to_write(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text + "\n")
    with pytest.raises(ConfigError) as error:
        load_transform(path, [])
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_the_schema_of_the_folder_holds_each_modality_and_no_required_key() -> None:
    schema = json.loads(json_schema(*TRANSFORMS.values()))
    assert [alternative["properties"]["modality"]["const"] for alternative in schema["anyOf"]] == list(TRANSFORMS)
    assert all("base" in alternative["properties"] for alternative in schema["anyOf"])
    assert "required" not in json.dumps(schema)


def use_images(config: Section) -> None:
    ImageBatch(config)(0, image_samples(2), streams_of(2))  # type: ignore[arg-type]


def use_videos(config: Section) -> None:
    clip = config.clip  # type: ignore[attr-defined]
    for each in (clip, clip.model_copy(update={"stride": 2})):
        clip_indices(np.array([90]), np.array([25.0]), each, streams_of(1), ["v"])
    prepared = [{"key": clip["key"], "clips": [clip["video"]], "numbers": [0]} for clip in clip_samples(2, clip.frames)]
    VideoBatch(config)(0, prepared, streams_of(2))  # type: ignore[arg-type]


def use_volumes(config: Section) -> None:
    CTBatch(config)(0, volume_samples(2), streams_of(2))  # type: ignore[arg-type]


USES: dict[str, Any] = {"image": use_images, "video": use_videos, "ct": use_volumes}
"""What does all that a section of this modality asks for."""


def everything(modality: str) -> Section:
    """A section with each augmentation on."""
    schema = TRANSFORMS[modality]
    plain = schema.model_validate({"modality": modality})
    on = {name: {"probability": 1.0} for name, value in plain if hasattr(value, "probability")}
    small = {"size": (4, 8, 8) if modality == "ct" else 16}
    return schema.model_validate({"modality": modality, **on, **small})


@pytest.mark.parametrize("modality", USES)
def test_every_key_is_read_by_some_code(modality: str) -> None:
    config = everything(modality)
    with recorded() as reads:
        USES[modality](config)
    missed = [key for key in unread(type(config), reads) if key != "modality"]
    assert not missed, f"nothing reads {missed}: use them or remove them"
    assert (name_of(type(config)), "size") in reads
