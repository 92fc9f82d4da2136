"""Parts of an image: their areas, shapes and places as published, and what resizing does to pixels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from src.config.transforms import AreaCropConfig
from src.transforms.image_space import boxes, crop_boxes, cut, grown_middle, largest, middle, resize
from tests.commands import ROOT
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SIZES, picture

MANY = 4000


def drawn(height: int, width: int, config: AreaCropConfig, count: int = MANY) -> np.ndarray:
    """Top, left, height and width [N, 4] in one picture."""
    return crop_boxes(np.tile([height, width], (count, 1)), config, streams_of(count))


@pytest.mark.parametrize("side", [224, 900])
def test_area_is_uniform_and_the_log_of_the_ratio_too(side: int) -> None:
    """Where every first try fits: shares so small that no ratio leaves the picture."""
    config = AreaCropConfig(probability=1.0, scale=(0.1, 0.7), ratio=(0.75, 4 / 3))
    _, _, height_N, width_N = drawn(side, side, config).T
    area_N, ratio_N = height_N * width_N / side**2, width_N / height_N
    assert stats.kstest(area_N, stats.uniform(0.1, 0.6).cdf).pvalue > 1e-3
    assert stats.kstest(np.log(ratio_N), stats.uniform(np.log(0.75), 2 * np.log(4 / 3)).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(224, 224), (300, 200), (28, 28)])
def test_the_draw_agrees_with_a_rejection_sampler(height: int, width: int) -> None:
    """The published scale (0.08, 1), where many tries fall out of the picture: torchvision's loop, written out."""
    rng, wanted = np.random.default_rng(0), []
    while len(wanted) < MANY:
        area, ratio = rng.uniform(0.08, 1.0) * height * width, np.exp(rng.uniform(np.log(0.75), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if h <= height and w <= width:
            wanted.append((rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w))
    got = drawn(height, width, AreaCropConfig(probability=1.0, scale=(0.08, 1.0), ratio=(0.75, 4 / 3)))
    for ours, theirs in zip(got.T, np.array(wanted).T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(5, 1000), (1000, 5), (1, 1), (1, 3), (2, 300)])
def test_where_no_try_fits_it_is_the_largest_middle(height: int, width: int) -> None:
    config = AreaCropConfig(probability=1.0, scale=(0.9, 1.0), ratio=(0.75, 4 / 3))
    top_N, left_N, height_N, width_N = drawn(height, width, config, 50).T
    assert (height_N >= 1).all() and (width_N >= 1).all()
    assert (top_N >= 0).all() and (top_N + height_N <= height).all() and (left_N + width_N <= width).all()
    if max(height, width) > 100:
        assert len(np.unique(top_N)) == len(np.unique(left_N)) == 1
        assert abs(2 * top_N[0] + height_N[0] - height) <= 1 and abs(2 * left_N[0] + width_N[0] - width) <= 1
        slim = 4 / 3 if width > height else 3 / 4
        assert abs(width_N[0] - height_N[0] * slim) <= 1


def test_the_largest_box_is_the_picture_where_its_ratio_is_in_the_range() -> None:
    np.testing.assert_array_equal(largest(np.array([[30, 30], [30, 40], [40, 30]]), (0.75, 4 / 3))[:, 0], [30, 30, 40])
    np.testing.assert_array_equal(largest(np.array([[30, 300]]), (0.75, 4 / 3)), [[30, 40]])
    np.testing.assert_array_equal(largest(np.array([[300, 30]]), (0.75, 4 / 3)), [[40, 30]])


@pytest.mark.parametrize("side", [7, 11])
def test_each_place_is_as_likely_the_last_row_and_column_too(side: int) -> None:
    """A box of one size: its 6 x 6 (or 10 x 10) corners by a chi-square test, and symmetric coverage of pixels."""
    share = (4 / side**2) * 0.999, (4 / side**2) * 1.001
    config = AreaCropConfig(probability=1.0, scale=share, ratio=(1.0, 1.0))
    top_N, left_N, height_N, width_N = drawn(side, side, config, 20_000).T
    assert set(height_N) == set(width_N) == {2}
    counts = np.bincount(top_N * (side - 1) + left_N, minlength=(side - 1) ** 2)
    assert len(counts) == (side - 1) ** 2 and stats.chisquare(counts).pvalue > 1e-3
    covered = np.zeros((side, side))
    for top, left in zip(top_N, left_N, strict=True):
        covered[top : top + 2, left : left + 2] += 1
    for mirrored in (covered[::-1], covered[:, ::-1], covered.T):
        assert np.abs(covered - mirrored).max() < 6 * np.sqrt(covered.max())


def test_probability_is_the_share_that_is_cut() -> None:
    config = AreaCropConfig(probability=0.3)
    found = boxes(np.tile([50, 60], (3000, 1)), config, streams_of(3000))
    assert stats.binomtest(sum(box is not None for box in found), 3000, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrinking_is_the_mean_of_the_pixels_that_become_one(factor: int, channels: int) -> None:
    """Of noise, whose neighbours tell nothing of each other: what leaves pixels out is far off."""
    whole = np.random.default_rng(0).integers(0, 256, (60, 90, channels), dtype=np.uint8)
    blocks = whole.reshape(60 // factor, factor, 90 // factor, factor, channels).astype(float).mean((1, 3))
    got = resize(whole if channels == 3 else whole[..., 0], 60 // factor, 90 // factor)
    assert got.dtype == np.uint8
    assert np.abs(got.reshape(blocks.shape) - blocks).max() <= 0.51
    only_down = resize(whole, 60 // factor, 90).reshape(60 // factor, 90, channels)
    np.testing.assert_allclose(only_down, whole.reshape(60 // factor, factor, 90, channels).mean(1), atol=0.51)


@pytest.mark.parametrize("target", [(64, 200), (200, 64), (50, 50), (200, 210)])
def test_resizing_agrees_with_pillow_on_smooth_pictures(target: tuple[int, int]) -> None:
    """Pillow's box filter where an axis shrinks and its bicubic (a = -0.5, ours is cv2's -0.75) where one grows."""
    whole = picture(128, 128)
    height, width = target
    small = Image.fromarray(whole).resize((min(width, 128), min(height, 128)), Image.Resampling.BOX)
    wanted = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(resize(whole, height, width) - wanted).max() <= 3
    assert np.abs(resize(whole, height, width) - wanted).mean() < 0.6


@pytest.mark.parametrize("side", SIZES)
def test_resizing_keeps_where_things_are(side: int) -> None:
    """The centre of mass of a disc stays at its share of the picture, to a hundredth of it."""
    y, x = np.mgrid[:200, :300]
    disc = (255 * ((y - 60) ** 2 + (x - 200) ** 2 < 40**2)).astype(np.uint8)
    got = cut(disc, (0, 100, 200, 200), side, None).astype(float)
    grid = (np.arange(side) + 0.5) / side
    assert (got.sum(1) @ grid) / got.sum() == pytest.approx(60.5 / 200, abs=0.01)
    assert (got.sum(0) @ grid) / got.sum() == pytest.approx(100.5 / 200, abs=0.01)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (61, 90), (60, 60), (20, 31)])
def test_the_middle_is_centred_and_its_margin_is_what_was_asked(shape: tuple[int, int]) -> None:
    height, width = shape
    ramp = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), shape)
    for picture_, axis in ((ramp, 1), (np.ascontiguousarray(ramp.T), 0)):
        for shorter in (32, 40):
            got = middle(picture_, 32, shorter).astype(float)
            assert got.shape == (32, 32)
            assert got.mean() == pytest.approx(127.5, abs=4.5), "as much is lost on the left as on the right"
            seen = (got.mean(1 - axis)[-1] - got.mean(1 - axis)[0]) / 255
            assert seen == pytest.approx(31 / shorter * min(shape) / width, abs=0.06)


def test_a_square_of_the_models_size_stays_as_it_is() -> None:
    whole = picture(64, 64)
    np.testing.assert_array_equal(cut(whole, None, 64, None), whole)
    np.testing.assert_array_equal(cut(whole, (0, 0, 64, 64), 64, None), whole)
    np.testing.assert_array_equal(middle(picture(64, 90), 64, 64), picture(64, 90)[:, 13:77])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width", "shorter"), [(1, 9, 16), (7, 100, 19), (33, 20, 40), (16, 51, 16)])
def test_a_grown_middle_is_that_of_the_whole(height: int, width: int, shorter: int, kind: type, channels: int) -> None:
    """Of noise, in which a tenth of a pixel shows: to the level that OpenCV's own arithmetic of 8 bits leaves open."""
    noise = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (height, width, channels), kind, endpoint=True)
    noise = noise[..., 0] if channels == 1 else noise
    share = shorter / min(height, width)
    rows, columns = round(height * share), round(width * share)
    top, left = (rows - 16) // 2, (columns - 16) // 2
    wanted = resize(noise, rows, columns)[top : top + 16, left : left + 16]
    got = grown_middle(noise, 16, rows, columns)
    assert got.dtype == kind and got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).max() <= 1


THREAD = """
import tracemalloc
import numpy as np
from src.transforms.image_space import middle

thread = np.tile(np.arange(60_000) // 235, (3, 1)).T[None].astype(np.uint8)
tracemalloc.start()
got = middle(thread, 224, 224)
peak = tracemalloc.get_traced_memory()[1]
assert peak < 1 << 26 and got.shape == (224, 224, 3) and (got == thread[0, 30_000]).all(), peak
"""


def test_the_middle_of_a_thread_takes_the_memory_of_the_middle() -> None:
    """One row of 60,000 pixels, which as a whole would be of 224 x 13,440,000; no other thread allocates beside it."""
    subprocess.run([sys.executable, "-c", THREAD], cwd=ROOT, check=True, timeout=60)
