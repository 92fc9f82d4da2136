"""What holds for every augmentation of a volume, whatever it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from src.config.load import load_transform
from src.config.transforms import CTTransformConfig
from src.transforms.ct import CTTransform
from src.transforms.views import views
from tests.transforms.batches import streams_of
from tests.transforms.pictures import volume_samples

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transforms"
AUGMENTATIONS = (
    "rotation",
    "scale",
    "translation",
    "flip_depth",
    "flip_height",
    "flip_width",
    "attenuation",
    "noise",
    "window_jitter",
)
CERTAIN = {name: {"probability": 1.0} for name in AUGMENTATIONS}
SHAPES = ((8, 12, 10), (20, 30, 16))
WIDE = {"windows": ({"center": 0.0, "width": 10000.0},)}
"""A window that nothing leaves: what comes out tells the HU."""


def transform_of(**sections: Any) -> CTTransform:
    return CTTransform(CTTransformConfig.model_validate({"modality": "ct", "size": SHAPES[0], **sections}))


def in_hu(values: np.ndarray) -> np.ndarray:
    return values[:, 0] * 10000.0 - 5000.0


def test_the_list_is_there_and_off() -> None:
    config = CTTransformConfig(modality="ct")
    found = [name for name, value in config if "probability" in getattr(type(value), "model_fields", {})]
    assert tuple(found) == AUGMENTATIONS
    assert all(getattr(config, name).probability == 0 for name in AUGMENTATIONS)


def test_the_shipped_file_flips_nothing() -> None:
    config = load_transform(CONFIGS / "ct_chest.yaml", [])
    assert isinstance(config, CTTransformConfig) and len(config.windows) == 2
    on = [name for name in AUGMENTATIONS if getattr(config, name).probability]
    assert on == [name for name in AUGMENTATIONS if not name.startswith("flip")]


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_volume_does_not_depend_on_its_batch(name: str, size: tuple[int, int, int]) -> None:
    samples = volume_samples(6)
    before = [sample["ct"].copy() for sample in samples]
    run = transform_of(size=size, **(CERTAIN if name == "all" else {name: {"probability": 0.7}}))
    whole = run(samples, streams_of(6))
    assert whole.dtype == np.float32 and whole.shape == (6, 2, *size) and whole.flags.c_contiguous
    assert whole.min() >= 0 and whole.max() <= 1 and np.isfinite(whole).all()
    np.testing.assert_array_equal(run(samples, streams_of(6)), whole)
    for row in range(6):
        np.testing.assert_array_equal(run(samples[row : row + 1], streams_of(1, first=row))[0], whole[row])
    np.testing.assert_array_equal(run(samples[::-1], streams_of(6)[::-1])[::-1], whole)
    for sample, volume in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample["ct"], volume)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_probability_0_hits_none_and_1_all_and_between_its_share(name: str) -> None:
    samples = volume_samples(1) * 800
    plain = transform_of(size=(4, 6, 6), crop="center").plain(samples[:1])[0]

    def changed(probability: float) -> int:
        run = transform_of(size=(4, 6, 6), crop="center", **{name: {"probability": probability}})
        return int((run(samples, streams_of(800)) != plain).any((1, 2, 3, 4)).sum())

    assert changed(0.0) == 0 and changed(1.0) == 800
    assert stats.binomtest(changed(0.3), 800, 0.3).pvalue > 1e-3


def test_training_and_evaluation_standardise_alike() -> None:
    """Each window by its own mean and deviation, and neither before the windows have cut."""
    samples, windows = volume_samples(2), [{"center": -600.0, "width": 1500.0}, {"center": 40.0, "width": 400.0}]
    said = [{**windows[0], "mean": 0.5, "std": 0.25}, {**windows[1], "mean": 0.1, "std": 2.0}]
    usual, ours = (transform_of(windows=tuple(found), crop="center") for found in (windows, said))
    mean, std = (np.array(found, np.float32).reshape(1, 2, 1, 1, 1) for found in ((0.5, 0.1), (0.25, 2.0)))
    wanted = (usual.plain(samples) - mean) / std
    np.testing.assert_allclose(ours.plain(samples), wanted, atol=1e-6)
    np.testing.assert_allclose(ours(samples, streams_of(2)), wanted, atol=1e-6)
    assert ours.config.drawable() == usual.config


@pytest.mark.parametrize(("name", "axis"), [("flip_depth", 2), ("flip_height", 3), ("flip_width", 4)])
def test_a_flip_is_a_mirror_of_the_named_axis(name: str, axis: int) -> None:
    samples = volume_samples(3)
    plain, got = (transform_of(**{name: {"probability": share}})(samples, streams_of(3)) for share in (0.0, 1.0))
    np.testing.assert_array_equal(got, np.flip(plain, axis))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7)])
def test_noise_is_in_hu_behind_the_rotation_and_before_the_windows(spacing: tuple[float, float, float]) -> None:
    """Interpolation would make noise weaker, and a window would cut it: neither happens, at either spacing."""
    sample = {"key": "k", "ct": np.full((40, 40, 40), 40, np.int16), "meta": {"spacing": spacing}}
    noise = {"noise": {"probability": 1.0, "std": 25.0}}
    rotated = {"rotation": {"probability": 1.0, "degrees": (15.0, 5.0, 5.0)}}
    got = in_hu(transform_of(**WIDE, **noise, **rotated)([sample] * 4, streams_of(4)))
    assert got.std() == pytest.approx(25.0, rel=0.05) and got.mean() == pytest.approx(40.0, abs=2.0)
    narrow = {"windows": ({"center": 40.0, "width": 400.0},)}
    values = transform_of(**narrow, **noise)([sample] * 4, streams_of(4))
    assert values.std() == pytest.approx(25.0 / 400, rel=0.05)


def test_int16_and_float32_and_an_axis_of_channels_are_the_same_volume() -> None:
    hu = np.random.default_rng(0).integers(-1000, 2000, (12, 14, 16)).astype(np.int16)
    run = transform_of(**CERTAIN)
    found = [
        run([{"key": "k", "ct": volume, "meta": {"spacing": (2.0, 1.0, 1.0)}}], streams_of(1))
        for volume in (hu, hu.astype(np.float32), hu[None])
    ]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_channels_of_a_volume_share_what_is_drawn_but_the_noise() -> None:
    """All windows of the first channel come first, then those of the next."""
    samples = volume_samples(4)
    for sample in samples:
        sample["ct"] = sample["ct"][None] if sample["ct"].ndim == 3 else sample["ct"]
    twice = [
        {**sample, "ct": np.concatenate([sample["ct"], sample["ct"] + sample["ct"].dtype.type(7)])}
        for sample in samples
    ]
    settings = {name: section for name, section in CERTAIN.items() if name != "noise"}
    run = transform_of(**settings)
    one, both = run(samples, streams_of(4)), run(twice, streams_of(4))
    assert both.shape == (4, 4, *SHAPES[0])
    np.testing.assert_array_equal(both[:, :2], one)
    inside = (one > 0.05) & (one < 0.95)
    higher = (both[:, 2:] - one)[inside]
    assert higher.min() >= 0 and higher.max() < 0.03 and (higher > 0).mean() > 0.5, "7 HU; air around it is the same"
    noisy = transform_of(noise={"probability": 1.0})(
        [{**sample, "ct": sample["ct"][:1].repeat(2, 0)} for sample in samples], streams_of(4)
    )
    assert (noisy[:, :2] != noisy[:, 2:]).any((1, 2, 3, 4)).all()
    plain = transform_of().plain(twice)
    np.testing.assert_array_equal(plain[:, :2], transform_of().plain(samples))


def test_without_a_draw_training_sees_what_evaluation_sees() -> None:
    samples = volume_samples(4)
    run = transform_of(crop="center")
    np.testing.assert_array_equal(run(samples, streams_of(4)), run.plain(samples))
    np.testing.assert_array_equal(transform_of(**CERTAIN).plain(samples), run.plain(samples))


def test_views_differ() -> None:
    run = transform_of(**CERTAIN)
    one, two = views([run, run], volume_samples(3), streams_of(3))
    assert (one != two).any((1, 2, 3, 4)).all()


def test_real_volumes_keep_their_tissues(medssl_data: Path) -> None:
    """Air, lung and soft tissue of a chest CT are at their HU in the windows, and a turn keeps their shares."""
    path = medssl_data / "ct" / "totalsegmentator_example" / "example_ct_sm.nii.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    image = pytest.importorskip("nibabel").load(path)
    volume = np.ascontiguousarray(np.asarray(image.dataobj).T.astype(np.int16))
    sample = {"key": "k", "ct": volume, "meta": {"spacing": [float(step) for step in image.header.get_zooms()[::-1]]}}
    size = volume.shape
    plain = in_hu(transform_of(size=size, **WIDE).plain([sample]))
    np.testing.assert_allclose(plain[0], volume, atol=0.01)
    turned = in_hu(
        transform_of(size=size, crop="center", rotation={"probability": 1.0}, **WIDE)([sample], streams_of(1))
    )
    inner = tuple(slice(side // 4, -(side // 4)) for side in size)
    for low, high in ((-1100, -600), (-100, 100), (200, 3000)):
        shares = [((low < hu) & (hu < high)).mean() for hu in (plain[0][inner], turned[0][inner])]
        assert shares[1] == pytest.approx(shares[0], abs=0.05), (low, high)


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (np.zeros((4, 4), np.int16), r"sample k: its ct is int16 of shape \(4, 4\): give int16 or float32 in HU"),
        (np.zeros((2, 2, 4, 4, 4), np.int16), r"\[C, D, H, W\] or \[D, H, W\]"),
        (np.zeros((4, 4, 4), np.float64), "its ct is float64"),
        (np.zeros((4, 0, 4), np.int16), r"of shape \(4, 0, 4\)"),
        (np.full((4, 4, 4), np.nan, np.float32), "holds NaN or infinite values"),
    ],
)
def test_another_kind_of_volume_is_refused_by_its_sample(volume: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        transform_of()([{"key": "k", "ct": volume, "meta": {}}], streams_of(1))


@pytest.mark.parametrize("meta", [{}, {"spacing": None}, {"spacing": [1.0, 1.0]}, {"spacing": [1.0, 0.0, 1.0]}])
def test_a_spacing_that_is_not_known_is_refused_where_mm_are_needed(meta: dict[str, Any]) -> None:
    samples = [{"key": "k", "ct": np.zeros((4, 4, 4), np.int16), "meta": meta}]
    for name in ("rotation", "scale", "translation"):
        with pytest.raises(ValueError, match="sample k: its meta has the spacing .*, not three lengths in mm"):
            transform_of(**{name: {"probability": 1.0}})(samples, streams_of(1))
    transform_of(noise={"probability": 1.0})(samples, streams_of(1))


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3)])
def test_volumes_of_a_few_voxels_are_no_trouble(size: tuple[int, int, int]) -> None:
    samples = [
        {"key": "k", "ct": np.zeros(shape, np.int16), "meta": {"spacing": (1.0, 2.0, 3.0)}}
        for shape in ((1, 1, 1), (1, 5, 2), (3, 1, 1))
    ]
    assert np.isfinite(transform_of(size=size, **CERTAIN)(samples, streams_of(3))).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *[({name: {"probability": value}}, rf"{name}\.probability") for name in AUGMENTATIONS for value in (-0.1, 1.1)],
        ({"rotation": {"degrees": (10.0, 10.0)}}, r"rotation\.degrees"),
        ({"rotation": {"degrees": (181.0, 0.0, 0.0)}}, r"rotation\.degrees"),
        ({"scale": {"factor": (1.1, 0.9)}}, r"scale\.factor"),
        ({"scale": {"factor": (0.0, 0.9)}}, r"scale\.factor"),
        ({"translation": {"mm": (-1.0, 0.0, 0.0)}}, r"translation\.mm"),
        ({"noise": {"std": -1.0}}, r"noise\.std"),
        ({"attenuation": {"factor": (1.1, 0.9)}}, r"attenuation\.factor"),
        ({"windows": ()}, "windows"),
        ({"windows": ({"center": 0.0, "width": 0.0},)}, "width"),
        ({"window_jitter": {"probability": 0.1, "width": 400.0}}, "the narrowest of windows has 400 HU"),
        ({"size": (4, 4)}, "size"),
        ({"size": (0, 4, 4)}, "size"),
    ],
)
def test_a_strength_that_makes_no_sense_is_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        CTTransformConfig.model_validate({"modality": "ct", **settings})


@pytest.mark.parametrize("channels", [(2, 1), (1, 2)])
def test_volumes_of_other_channels_than_the_first_are_refused(channels: tuple[int, int]) -> None:
    samples = [
        {"key": f"k{row}", "ct": np.zeros((count, 4, 4, 4), np.int16), "meta": {}} for row, count in enumerate(channels)
    ]
    told = f"sample k1: its ct has {channels[1]} channels, but k0 of the same batch has {channels[0]}"
    for run in (lambda: transform_of()(samples, streams_of(2)), lambda: transform_of().plain(samples)):
        with pytest.raises(ValueError, match=told):
            run()
