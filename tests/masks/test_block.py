import numpy as np
import pytest

from src.masks.block import block_shape, block_tokens, corner, inside


def test_shapes_are_the_closest_to_scale_and_aspect() -> None:
    assert block_shape((50,), 0.2) == (10,)
    assert block_shape((16, 16), 0.25) == (8, 8)
    assert block_shape((16, 16), 0.125, aspect=2.0) == (8, 4)
    assert block_shape((8, 16, 16), 0.125, aspect=0.5, temporal=0.5) == (4, 4, 8)
    assert block_shape((50,), 1e-6) == (1,) and block_shape((16, 16), 1e-6) == (1, 1)


def test_a_side_cut_by_the_grid_keeps_the_area() -> None:
    assert block_shape((4, 32), 0.5, aspect=1.0) == (4, 16)
    assert block_shape((32, 4), 0.5, aspect=1.0) == (16, 4)
    assert block_shape((16, 32), 1.0) == (16, 32)


@pytest.mark.parametrize(("grid", "shape"), [((9,), (4,)), ((4, 5), (2, 3)), ((3, 4, 5), (2, 2, 3))])
def test_tokens_and_inside_agree_with_slicing(grid: tuple[int, ...], shape: tuple[int, ...]) -> None:
    numbers = np.arange(np.prod(grid)).reshape(grid)
    for place in np.ndindex(*(g - s + 1 for g, s in zip(grid, shape, strict=True))):
        wanted = numbers[tuple(slice(p, p + s) for p, s in zip(place, shape, strict=True))].reshape(-1)
        corners = np.array([[place]])
        np.testing.assert_array_equal(block_tokens(grid, shape, corners)[0, 0], wanted)
        np.testing.assert_array_equal(np.flatnonzero(inside(grid, shape, corners[0])[0]), wanted)


def test_corners_reach_the_first_and_the_last_place() -> None:
    ends = np.array([[[0.0, 0.0], [1.0 - 2.0**-53, 1.0 - 2.0**-53]]])
    np.testing.assert_array_equal(corner(ends, (5, 1)), [[[0, 0], [4, 0]]])
