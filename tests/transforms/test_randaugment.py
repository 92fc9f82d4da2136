"""The operations of RandAugment: against Pillow and scipy, at two sizes, and the same for all frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from src.config.transforms import PUBLISHED_OPERATIONS, RandAugmentConfig
from src.transforms.randaugment import LARGEST_SHIFT, OPERATIONS, randaugment
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SIZES, picture

WITHOUT_MAGNITUDE = ("autocontrast", "equalize")
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def dim(side: int, channels: int = 3) -> np.ndarray:
    """A clip [1, S, S, C] that does not use the whole range."""
    return (40 + picture(side, side, channels).reshape(1, side, side, channels) * 0.6).astype(np.uint8)


def blobs(side: int) -> np.ndarray:
    """Two points of light a third of the side apart, [1, S, S, 1]."""
    y, x = np.mgrid[:side, :side] / side
    light = [np.exp(-((y - 0.45) ** 2 + (x - at) ** 2) / (2 * 0.03**2)) for at in (0.37, 0.37 + 1 / 3)]
    return np.rint(255 * sum(light)).clip(0, 255).astype(np.uint8)[None, ..., None]


def places(clip_1SS1: np.ndarray) -> np.ndarray:
    """Where the two points of light are, (y, x) in shares of the side, the upper left one first."""
    image = clip_1SS1[0, ..., 0].astype(float)
    labels, _ = ndimage.label(image > 20)
    largest = np.argsort(-ndimage.sum(image > 20, labels, range(1, labels.max() + 1)))[:2] + 1
    found = np.array(ndimage.center_of_mass(image * (image > 20), labels, largest))
    return found[found[:, 1].argsort()] / len(image)


def test_the_list_is_the_published_one_and_each_has_its_function() -> None:
    assert list(OPERATIONS) == list(PUBLISHED_OPERATIONS) and len(OPERATIONS) == 14


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITHOUT_MAGNITUDE])
def test_magnitude_0_changes_nothing(name: str, channels: int) -> None:
    for share in (0.0, -0.0):
        np.testing.assert_array_equal(OPERATIONS[name](dim(48, channels), share), dim(48, channels))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in (*WITHOUT_MAGNITUDE, "identity")])
def test_a_larger_magnitude_changes_more(name: str) -> None:
    distances = [
        np.abs(OPERATIONS[name](dim(48), share).astype(float) - dim(48)).mean() for share in (0.25, 0.5, 0.75, 1.0)
    ]
    assert (np.diff(distances) > 0).all() and distances[0] > 0


@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("share", [-1.0, -0.4, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("color", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancing_is_pillows(name: str, enhance, share: float, side: int) -> None:
    wanted = np.asarray(enhance(Image.fromarray(dim(side)[0])).enhance(1 + 0.9 * share)).astype(int)
    got = OPERATIONS[name](dim(side), share)[0].astype(int)
    assert np.abs(got - wanted).max() <= 2, "Pillow cuts decimals off, we round"


@pytest.mark.parametrize("side", SIZES)
def test_tables_are_pillows_to_the_last_bit(side: int) -> None:
    image = Image.fromarray(dim(side)[0])
    for share in (0.3, -0.6, 1.0):
        wanted = np.asarray(ImageOps.posterize(image, 8 - round(4 * abs(share))))
        np.testing.assert_array_equal(OPERATIONS["posterize"](dim(side), share)[0], wanted)
        wanted = np.asarray(ImageOps.solarize(image, 256 * (1 - abs(share))))
        np.testing.assert_array_equal(OPERATIONS["solarize"](dim(side), share)[0], wanted)
    np.testing.assert_array_equal(OPERATIONS["equalize"](dim(side), 1.0)[0], np.asarray(ImageOps.equalize(image)))
    stretched = np.asarray(ImageOps.autocontrast(image)).astype(int)
    assert np.abs(OPERATIONS["autocontrast"](dim(side), 1.0)[0] - stretched).max() <= 1


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_clip_of_one_value_has_nothing_to_stretch(value: int) -> None:
    flat = np.full((2, 8, 8, 3), value, np.uint8)
    for name in WITHOUT_MAGNITUDE:
        np.testing.assert_array_equal(OPERATIONS[name](flat, 1.0), flat)


@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("share", [-1.0, 0.3, 1.0])
@pytest.mark.parametrize("name", MOVING)
def test_moving_is_scipys(name: str, share: float, side: int) -> None:
    """The inverse of each map, written out, through scipy's linear interpolation; black outside."""
    angle, shear, shift = np.deg2rad(30 * share), 0.3 * share, LARGEST_SHIFT * share * side
    forward_xy = {
        "rotate": [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]],
        "shear_x": [[1, shear], [0, 1]],
        "shear_y": [[1, 0], [shear, 1]],
    }.get(name, [[1, 0], [0, 1]])
    back_yx = np.linalg.inv(np.array(forward_xy))[::-1, ::-1]
    moved_yx = np.array({"translate_x": [0, shift], "translate_y": [shift, 0]}.get(name, [0, 0]))
    middle = np.full(2, (side - 1) / 2)
    image = dim(side, 1)[0, ..., 0].astype(float)
    offset = middle - back_yx @ (middle + moved_yx)
    wanted = ndimage.affine_transform(image, back_yx, offset, order=1, mode="grid-constant", cval=0.0)
    got = OPERATIONS[name](dim(side, 1), share)[0, ..., 0]
    assert np.abs(got - wanted).max() <= 4 and np.abs(got - wanted).mean() < 0.6, "cv2 has 32 steps within a pixel"


@pytest.mark.parametrize("side", [64, 160])
@pytest.mark.parametrize("share", [-1.0, 0.5, 1.0])
def test_turning_keeps_distances_and_has_its_angle(share: float, side: int) -> None:
    before, after = places(blobs(side)), places(OPERATIONS["rotate"](blobs(side), share))
    way_before, way_after = before[1] - before[0], after[1] - after[0]
    assert np.hypot(*way_after) == pytest.approx(np.hypot(*way_before), rel=0.01)
    turned = np.rad2deg(np.arctan2(-way_after[0], way_after[1]) - np.arctan2(-way_before[0], way_before[1]))
    assert turned == pytest.approx(30 * share, abs=0.5), "counter-clockwise"


@pytest.mark.parametrize("side", [64, 160])
def test_translation_is_a_share_of_the_side_at_each_size(side: int) -> None:
    for name, axis in (("translate_x", 1), ("translate_y", 0)):
        way = places(OPERATIONS[name](blobs(side), 0.4)) - places(blobs(side))
        np.testing.assert_allclose(way[:, axis], 0.4 * 150 / 331, atol=0.01)
        np.testing.assert_allclose(way[:, 1 - axis], 0, atol=0.01)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_still_clip_stays_still_and_frames_share_one_table(name: str, channels: int) -> None:
    still = np.repeat(dim(32, channels), 4, axis=0)
    got = OPERATIONS[name](still, 0.7)
    assert got.dtype == np.uint8 and got.shape == still.shape
    for frame in got[1:]:
        np.testing.assert_array_equal(frame, got[0])
    np.testing.assert_array_equal(still, np.repeat(dim(32, channels), 4, axis=0))


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "contrast"])
def test_a_clip_that_gets_brighter_does_not_flicker(name: str) -> None:
    """What is brighter in one frame than in another stays so: the table is one for the clip."""
    clip = np.stack([np.full((8, 8, 1), value, np.uint8) for value in (50, 60, 80, 81, 120)])
    assert (np.diff(OPERATIONS[name](clip, -0.5)[:, 0, 0, 0].astype(int)) > 0).all()


def test_operations_and_signs_are_drawn_alike_and_apart() -> None:
    """Which operation gives what is there tells which was drawn."""
    start, clips = dim(24), [dim(24) for _ in range(1500)]
    randaugment(clips, RandAugmentConfig(probability=1.0, count=1, magnitude=6.0), streams_of(1500))
    results = {(name, sign): of(start, sign * 0.6) for name, of in OPERATIONS.items() for sign in (-1, 1)}
    signed = [key for key in results if not np.array_equal(results[key[0], 1], results[key[0], -1])]
    seen = [next(key for key, result in results.items() if np.array_equal(clip, result)) for clip in clips]
    counts = [sum(name == each for name, _ in seen) for each in OPERATIONS]
    assert min(counts) > 0 and stats.chisquare(counts).pvalue > 1e-3
    positive = sum(sign > 0 for name, sign in seen if (name, sign) in signed)
    assert stats.binomtest(positive, sum(key in signed for key in seen), 0.5).pvalue > 1e-3


def test_operations_follow_each_other_and_only_those_of_the_list_come() -> None:
    clips = [dim(24, 1) for _ in range(200)]
    config = RandAugmentConfig(probability=1.0, count=2, magnitude=10.0, operations=("translate_x", "solarize"))
    randaugment(clips, config, streams_of(200))
    one = {(name, sign): OPERATIONS[name] for name in config.operations for sign in (-1.0, 1.0)}
    wanted = [
        second(first(dim(24, 1), sign), other).tobytes()
        for (_, sign), first in one.items()
        for (_, other), second in one.items()
    ]
    assert {clip.tobytes() for clip in clips} == set(wanted)
