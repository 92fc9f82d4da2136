"""The page about augmentations says what the config says, and its picture is there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.config.data import STANDARD_LEADS
from src.config.ecg_transforms import ECGTransformConfig
from src.transforms.preprocessing import Preprocessing
from src.transforms.show_ecg import AUGMENTATIONS, UNNATURAL, alone, examples, plot
from tests.transforms.batches import random_records

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "augmentations.md").read_text()
LISTED = dict(re.findall(r"^\| `(\w+)`(?:, `clip`)? \| (.+) \|$", PAGE[: PAGE.index("## What to know")], re.MULTILINE))


def test_the_page_lists_every_key_in_the_order_of_the_pipeline() -> None:
    assert list(LISTED) == [name for name in ECGTransformConfig.model_fields if name not in ("modality", "clip")]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_page_tells_every_strength_and_its_default(name: str) -> None:
    strengths = getattr(ECGTransformConfig(), name).model_dump(mode="json")
    assert strengths.pop("probability") == 0
    assert {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+): ([^`]+)`", LISTED[name])} == strengths


def test_the_page_says_what_is_not_physiological() -> None:
    assert [name for name in AUGMENTATIONS if "| **no** |" in LISTED[name]] == list(UNNATURAL)


def test_the_published_pair_of_the_page_is_a_config() -> None:
    pair = yaml.safe_load(PAGE[PAGE.index("```yaml") + 7 : PAGE.index("```\n\n## The list")])["data"]["transform"]
    config = ECGTransformConfig.model_validate_json(json.dumps(pair))
    assert [name for name in AUGMENTATIONS if getattr(config, name).probability == 1] == ["resized_crop", "time_out"]
    assert (config.resized_crop.scale, config.time_out.fraction) == ((0.5, 1.0), (0.0, 0.5))


def test_the_picture_of_the_page_is_a_small_png() -> None:
    data = (DOCS / "augmentations_ecg.png").read_bytes()
    assert "](augmentations_ecg.png)" in PAGE and "CC BY 4.0" in PAGE
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and 20_000 < len(data) < 400_000


def test_alone_is_one_augmentation_in_millivolts_at_the_configs_strength() -> None:
    config = alone(ECGTransformConfig.model_validate({"noise": {"std": 0.3}, "wander": {"probability": 0.5}}), "noise")
    assert [name for name in AUGMENTATIONS if getattr(config, name).probability] == ["noise"]
    assert config.noise.std == 0.3 and (config.normalize, config.clip, config.crop) == ("none", None, "center")


def test_what_the_data_do_not_admit_has_an_empty_panel(tmp_path: Path) -> None:
    sample = random_records(3, 94)[2]
    leads = tuple(f"lead{number}" for number in range(12))
    preprocessing = Preprocessing(leads=leads, sampling_rate=60.0, length=120, normalize="none", clip=None)
    found = examples(ECGTransformConfig(), preprocessing, sample, 0)
    assert list(found) == list(AUGMENTATIONS)
    assert [name for name, ecg_CT in found.items() if ecg_CT is None] == ["vcg", "powerline"]
    standard = preprocessing.model_copy(update={"leads": STANDARD_LEADS, "sampling_rate": 100.0})
    sample["lead_keep"][:] = True
    drawn = examples(ECGTransformConfig(), standard, sample, 0)
    assert all(ecg_CT is not None and not np.array_equal(ecg_CT, sample["ecg"]) for ecg_CT in drawn.values())
    plot(sample["ecg"], found, leads, 60.0, "none", tmp_path / "new" / "x.png")
    assert (tmp_path / "new" / "x.png").stat().st_size > 20_000
