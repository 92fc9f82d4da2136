import numpy as np

from src.masks.sampler import Masks
from src.masks.show import show


def test_one_line_for_each_sample_in_1d() -> None:
    masks = Masks(np.array([[0, 2], [1, 5]]), np.array([[[3, 4]], [[2, 3]]]))
    assert show(masks, (6,)) == "#.#oo.\n.#oo.#"


def test_rows_in_2d_and_frames_side_by_side_in_3d() -> None:
    masks = Masks(np.array([[0, 7]]), np.array([[[2, 3]]]))
    assert show(masks, (2, 4)) == "#.oo\n...#"
    assert show(masks, (2, 2, 2)) == "#.  ..\noo  .#"
