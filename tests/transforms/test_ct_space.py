"""Parts of a volume, and the body turned, scaled and moved: physical at two spacings, exact where it can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from src.config.transforms import RotationConfig, ScaleConfig, TranslationConfig
from src.transforms.ct_space import AIR, maps, part, resampled, starts
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SPACINGS

SIZE = (16, 20, 24)
START = np.array([3, 2, 1])


def part_of(volume: np.ndarray, *given: Any) -> np.ndarray:
    return part(volume[None], *given)[0]


def moved_of(volume: np.ndarray, *given: Any) -> np.ndarray:
    return resampled(volume[None], *given)[0]


def maps_of(count: int, **sections: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    schemas = {"rotation": RotationConfig, "scale": ScaleConfig, "translation": TranslationConfig}
    return maps(*(schema(**sections.get(name, {})) for name, schema in schemas.items()), streams_of(count))


def millimetres(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """Where each voxel [D, H, W, X] is in mm, from the first one."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * np.array(spacing)


@pytest.mark.parametrize("size", [(3, 4, 5), (4, 2, 7)])
def test_each_start_is_as_likely_and_the_last_voxel_comes(size: tuple[int, int, int]) -> None:
    shape = (8, 8, 8)
    found = starts(np.tile(shape, (6000, 1)), size, "random", streams_of(6000))
    for axis in range(3):
        counts = np.bincount(found[:, axis], minlength=8 - size[axis] + 1)
        assert len(counts) == 8 - size[axis] + 1 and stats.chisquare(counts).pvalue > 1e-3
    assert np.abs(np.corrcoef(found.T)[~np.eye(3, dtype=bool)]).max() < 0.06


@pytest.mark.parametrize("where", ["random", "center"])
def test_what_a_volume_lacks_is_air_on_both_sides_alike(where: str) -> None:
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    start = starts(np.array([volume.shape]), (5, 6, 4), where, streams_of(1))[0]
    got = part_of(volume, start, (5, 6, 4))
    np.testing.assert_array_equal(got[1:3, 1:4], volume)
    assert (got == AIR).sum() == 5 * 6 * 4 - 24 and got.dtype == np.float32


def test_the_middle_is_in_the_middle() -> None:
    np.testing.assert_array_equal(
        starts(np.array([[9, 8, 3], [4, 5, 6]]), (4, 4, 4), "center", streams_of(2)), [[2, 2, 0], [0, 0, 1]]
    )


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 1, 3), (-2, 1, -1), (4, 5, 6), (-9, 0, 0)])
def test_a_part_is_a_slice_of_the_volume_in_air(start: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).normal(0, 100, (6, 7, 8)).astype(np.float32)
    wide = np.pad(volume, 20, constant_values=AIR)
    wanted = wide[tuple(slice(20 + first, 20 + first + 5) for first in start)]
    inside = tuple(min(max(first, -5), 10) for first in start)
    np.testing.assert_array_equal(part_of(volume, np.array(inside), (5, 5, 5)), wanted)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_no_change_is_the_part_itself(spacing: tuple[float, float, float]) -> None:
    volume = np.random.default_rng(0).integers(-1000, 2000, (18, 22, 26)).astype(np.int16)
    for start in (START, np.array([-4, 5, -2])):
        got = moved_of(volume, start, SIZE, np.array(spacing), np.eye(3), np.zeros(3))
        np.testing.assert_allclose(got, part_of(volume, start, SIZE), atol=1e-3)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_field_that_is_linear_in_mm_is_moved_without_error(spacing: tuple[float, float, float]) -> None:
    """HU = slope . mm + 40: linear interpolation has no error there, so each voxel tells where it came from."""
    slope, volume_shape = np.array([7.0, -3.0, 5.0]), (40, 44, 48)
    volume = (millimetres(volume_shape, spacing) @ slope + 40).astype(np.float32)
    matrix = 1.07 * Rotation.from_euler("xyz", [12, -4, 5], degrees=True).as_matrix()
    shift = np.array([3.0, -2.0, 1.0])
    start = np.array([12, 12, 12])
    got = moved_of(volume, start, SIZE, np.array(spacing), matrix, shift)
    middle = (start + (np.array(SIZE) - 1) / 2) * spacing
    seen = millimetres(SIZE, spacing) + start * np.array(spacing)
    came_from = (seen - middle - shift) @ np.linalg.inv(matrix).T + middle
    assert (came_from >= 0).all() and (came_from <= (np.array(volume_shape) - 1) * spacing).all()
    np.testing.assert_allclose(got, came_from @ slope + 40, atol=0.02)


def balls(spacing: tuple[float, float, float], centres: np.ndarray) -> np.ndarray:
    """Three balls of 200 HU and 5 mm about points in mm, in air of 64 x 64 x 64 mm."""
    shape = tuple(int(64 / step) for step in spacing)
    away = np.linalg.norm(millimetres(shape, spacing)[..., None, :] - centres, axis=-1)
    return np.where(away < 5.0, 200.0, AIR).max(-1).astype(np.float32)


def places(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Centres of mass in mm of what is denser than air, ordered along W."""
    dense = volume - AIR
    labels, count = ndimage.label(dense > 100)
    assert count == 3
    found = np.array(ndimage.center_of_mass(dense * (dense > 100), labels, [1, 2, 3])) * spacing
    return found[found[:, 2].argsort()]


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(3, 1)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("degrees", [(30, 0, 0), (0, 25, 0), (0, 0, -30), (15, 10, -20)])
def test_rotation_keeps_distances_in_mm_and_puts_points_where_scipy_does(
    degrees: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    centres = np.array([[24.0, 26.0, 16.0], [40.0, 22.0, 30.0], [28.0, 42.0, 46.0]])
    volume = balls(spacing, centres)
    matrix = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()  # about the first axis, second, third
    got = moved_of(volume, np.zeros(3, int), volume.shape, np.array(spacing), matrix, np.zeros(3))
    before, after = places(volume, spacing), places(got, spacing)
    np.testing.assert_allclose(distances(after), distances(before), atol=0.15)
    middle = (np.array(volume.shape) - 1) / 2 * spacing
    wanted = (before - middle) @ matrix.T + middle
    np.testing.assert_allclose(after, wanted[wanted[:, 2].argsort()], atol=0.15)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_scale_and_translation_are_lengths_in_mm_at_each_spacing(spacing: tuple[float, float, float]) -> None:
    centres = np.array([[24.0, 26.0, 16.0], [40.0, 22.0, 30.0], [28.0, 42.0, 46.0]])
    volume = balls(spacing, centres)
    whole, mm = np.zeros(3, int), np.array(spacing)
    larger = moved_of(volume, whole, volume.shape, mm, 1.15 * np.eye(3), np.zeros(3))
    assert distances(places(larger, spacing)) == pytest.approx(1.15 * distances(places(volume, spacing)), abs=0.2)
    moved = moved_of(volume, whole, volume.shape, mm, np.eye(3), np.array([3.0, -4.2, 5.1]))
    np.testing.assert_allclose(places(moved, spacing) - places(volume, spacing), [[3.0, -4.2, 5.1]] * 3, atol=0.15)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_of_cubes_is_numpys_without_a_voxel_lost(axis: int) -> None:
    volume = np.random.default_rng(0).normal(0, 300, (7, 7, 7)).astype(np.float32)
    degrees = np.eye(3)[axis] * 90
    matrix = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    got = moved_of(volume, np.zeros(3, int), (7, 7, 7), np.array([2.0, 2.0, 2.0]), matrix, np.zeros(3))
    np.testing.assert_allclose(got, np.rot90(volume, 1, ((axis + 1) % 3, (axis + 2) % 3)), atol=1e-2)


def test_around_the_volume_is_air() -> None:
    full = np.full((8, 8, 8), 60, np.int16)
    got = moved_of(full, np.zeros(3, int), (8, 8, 8), np.ones(3), np.eye(3), np.array([0.0, 3.0, 0.0]))
    np.testing.assert_allclose(got[:, :3], AIR)
    np.testing.assert_allclose(got[:, 3:], 60)


def test_angles_factors_and_ways_are_drawn_as_stated() -> None:
    sections = {
        "rotation": {"probability": 1.0, "degrees": (20.0, 0.0, 10.0)},
        "scale": {"probability": 1.0, "factor": (0.8, 1.25)},
        "translation": {"probability": 1.0, "mm": (5.0, 10.0, 0.0)},
    }
    changed, matrix, shift = maps_of(3000, **sections)
    assert changed.all()
    factor = np.cbrt(np.linalg.det(matrix))
    assert stats.kstest(np.log(factor), stats.uniform(np.log(0.8), 2 * np.log(1.25)).cdf).pvalue > 1e-3
    turn = matrix / factor[:, None, None]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.tile(np.eye(3), (3000, 1, 1)), atol=1e-12)
    angles = Rotation.from_matrix(turn).as_euler("xyz", degrees=True)
    for axis, largest in ((0, 20.0), (2, 10.0)):
        assert stats.kstest(angles[:, axis], stats.uniform(-largest, 2 * largest).cdf).pvalue > 1e-3
    np.testing.assert_allclose(angles[:, 1], 0, atol=1e-9)
    for axis, largest in ((0, 5.0), (1, 10.0)):
        assert stats.kstest(shift[:, axis], stats.uniform(-largest, 2 * largest).cdf).pvalue > 1e-3
    assert (shift[:, 2] == 0).all()


@pytest.mark.parametrize("name", ["rotation", "scale", "translation"])
def test_each_hits_its_share_and_leaves_the_others_alone(name: str) -> None:
    changed, matrix, shift = maps_of(2000, **{name: {"probability": 0.3}})
    assert stats.binomtest(int(changed.sum()), 2000, 0.3).pvalue > 1e-3
    moved = (matrix != np.eye(3)).any((1, 2)) | (shift != 0).any(1)
    np.testing.assert_array_equal(moved, changed)
    if name != "translation":
        assert (shift == 0).all()
