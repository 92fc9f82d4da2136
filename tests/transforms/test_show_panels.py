"""The page about augmentations says what the sections of images, videos and volumes say, and its pictures are there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.config.transforms import TRANSFORMS, CTTransformConfig, ImageTransformConfig, VideoTransformConfig
from src.transforms import show_ct, show_image, show_video
from src.transforms.show_panels import GAP, alone, beside, plot
from tests.transforms.pictures import clip_samples, image_samples, volume_samples

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "augmentations.md").read_text()
HEADINGS = {"image": "## Images", "video": "## Videos", "ct": "## CT volumes"}
SHOW = {"image": show_image, "video": show_video, "ct": show_ct}
WITHOUT_A_ROW = {"modality", "std"}
"""The first line of each file, and what stands in the row of mean."""


def section(modality: str) -> str:
    start = PAGE.index(HEADINGS[modality] + "\n")
    end = PAGE.find("\n## ", start + 1)
    return PAGE[start : end if end > 0 else len(PAGE)]


def listed(modality: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)`[^|]* \| (.+) \|$", section(modality), re.MULTILINE))


@pytest.mark.parametrize("modality", TRANSFORMS)
def test_the_page_lists_every_key_in_the_order_of_the_pipeline(modality: str) -> None:
    assert list(listed(modality)) == [name for name in TRANSFORMS[modality].model_fields if name not in WITHOUT_A_ROW]


@pytest.mark.parametrize("modality", TRANSFORMS)
def test_the_page_tells_every_strength_and_its_default(modality: str) -> None:
    config = TRANSFORMS[modality].model_validate({"modality": modality})
    for name in SHOW[modality].AUGMENTATIONS:
        strengths = getattr(config, name).model_dump(mode="json")
        assert strengths.pop("probability") == 0
        told = {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+): ([^`]+)`", listed(modality)[name])}
        assert "fourteen" in listed(modality)[name] or "operations" not in strengths
        strengths.pop("operations", None)
        assert told == strengths, name


@pytest.mark.parametrize("modality", TRANSFORMS)
def test_the_picture_of_the_section_is_a_small_png_with_its_credit(modality: str) -> None:
    data = (DOCS / f"augmentations_{modality}.png").read_bytes()
    assert f"](augmentations_{modality}.png)" in section(modality) and "CC BY 4.0" in section(modality)
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and 20_000 < len(data) < 400_000


def test_pictures_stand_side_by_side_in_the_middle_of_the_highest() -> None:
    low, high = np.zeros((2, 3, 1), np.float32), np.full((6, 5, 3), 0.5, np.float32)
    got = beside([low, high])
    assert got.shape == (6, 3 + GAP + 5, 3)
    np.testing.assert_array_equal(got[2:4, :3], 0)
    np.testing.assert_array_equal(got[:, 3 + GAP :], 0.5)
    assert (got[:2, :3] == 1).all() and (got[4:, :3] == 1).all() and (got[:, 3 : 3 + GAP] == 1).all()


@pytest.mark.parametrize("modality", TRANSFORMS)
def test_alone_is_one_augmentation_at_the_configs_strength(modality: str) -> None:
    names = SHOW[modality].AUGMENTATIONS
    sections = {name: {"probability": 0.3} for name in names}
    strong = (
        {"noise": {"std": 55.0, "probability": 0.3}}
        if modality == "ct"
        else {"blur": {"sigma": (3.0, 4.0), "probability": 0.3}}
    )
    config = TRANSFORMS[modality].model_validate({"modality": modality, **sections, **strong})
    for name in names:
        got = alone(config, names, name)
        assert [each for each in names if getattr(got, each).probability] == [name]
        assert getattr(got, name).model_copy(update={"probability": 0.3}) == getattr(config, name)


def test_each_augmentation_has_a_panel_that_differs_from_before(tmp_path: Path) -> None:
    found = {
        "image": show_image.examples(ImageTransformConfig(modality="image", size=32), image_samples(1)[0], 0),
        "video": show_video.examples(
            VideoTransformConfig.model_validate({"modality": "video", "size": 32, "clip": {"frames": 5}}),
            clip_samples(1)[0],
            0,
        ),
        "ct": show_ct.examples(CTTransformConfig(modality="ct", size=(8, 16, 12)), volume_samples(2)[1], 0, 1),
    }
    for modality, panels in found.items():
        names = SHOW[modality].AUGMENTATIONS
        first = "as evaluation sees it" + "\nunknown orientation, drawn as stored" * (modality == "ct")
        assert list(panels)[0] == first and len(panels) == len(names) + 2
        before = panels[first]
        for title, panel in list(panels.items())[1:-1]:
            assert panel.ndim == 3 and panel.shape == before.shape and panel.dtype == np.float32
            assert not np.array_equal(panel, before), title
    plot({"none": None, **found["ct"]}, "ct", tmp_path / "new" / "x.png")
    assert (tmp_path / "new" / "x.png").stat().st_size > 10_000


def test_planes_are_true_in_millimetres_and_the_head_is_up() -> None:
    """Voxels of 3 x 1 x 1 mm: 4 of them along D are as long as 12 along H."""
    volume = np.zeros((4, 12, 10), np.float32)
    volume[3] = 1.0
    got = show_ct.planes(volume, np.array([3.0, 1.0, 1.0]), "SPL")
    assert got.shape == (12, 10 + GAP + 10 + GAP + 12, 3)
    coronal = got[:, 10 + GAP : 20 + GAP, 0]
    assert (coronal[:3] == 1).all() and (coronal[3:] == 0).all()


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "ASR"])
def test_however_a_volume_is_stored_its_planes_are_those_of_a_radiologist(orientation: str) -> None:
    """Odd sides, whose middle is one voxel from either end."""
    patient, opposite = (
        np.random.default_rng(0).random((5, 7, 9), np.float32),
        dict(zip("SIPALR", "ISAPRL", strict=True)),
    )
    order = [next(axis for axis, end in enumerate("SPL") if letter in (end, opposite[end])) for letter in orientation]
    stored = patient.transpose(order)
    stored = np.flip(stored, [axis for axis, letter in enumerate(orientation) if letter not in "SPL"])
    spacing = np.array([3.0, 2.0, 1.0])
    got = show_ct.planes(stored, spacing[order], orientation)
    np.testing.assert_array_equal(got, show_ct.planes(patient, spacing, "SPL"))
    config = CTTransformConfig(modality="ct", size=stored.shape)
    meta = {"spacing": tuple(spacing[order]), "orientation": orientation}
    sample = {"key": "k", "ct": stored * 1000 - 500, "meta": meta}
    upright = {"key": "k", "ct": patient * 1000 - 500, "meta": {"spacing": tuple(spacing), "orientation": "SPL"}}
    shown = show_ct.examples(config, sample, 0)["as evaluation sees it"]
    wanted = show_ct.examples(config.model_copy(update={"size": patient.shape}), upright, 0)["as evaluation sees it"]
    np.testing.assert_array_equal(shown, wanted)


@pytest.mark.parametrize("meta", [{}, {"spacing": None}, {"spacing": (1.0, 0.0, 1.0)}])
def test_a_volume_of_unknown_spacing_and_orientation_is_drawn_and_says_so(meta: dict) -> None:
    sample = {**volume_samples(1)[0], "meta": meta}
    first, *others = show_ct.examples(CTTransformConfig(modality="ct", size=(8, 16, 12)), sample, 0)
    assert first == (
        "as evaluation sees it\nunknown spacing, drawn as cubes of 1 mm\nunknown orientation, drawn as stored"
    )
    assert others[0] == "rotation"


def test_the_same_seed_gives_the_same_panels_and_another_others() -> None:
    config, sample = ImageTransformConfig(modality="image", size=32), image_samples(1)[0]
    one, again, other = (show_image.examples(config, sample, seed) for seed in (0, 0, 1))
    for title in one:
        np.testing.assert_array_equal(one[title], again[title])
    assert not np.array_equal(one["resized_crop"], other["resized_crop"])
