"""Where the voxels of a volume go: parts of it, and the body turned, scaled and moved, in millimetres.

Legend: B batch, N volumes that a transform hits, C channels of a volume, X the axes D, H, W of a volume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from src.config.transforms import RotationConfig, ScaleConfig, TranslationConfig
from src.randomness import Streams
from src.transforms.draws import between, hit, signed
from src.transforms.rotation import rotations

AIR = -1000.0  # HU, by definition


def starts(shapes_BX: NDArray[np.int64], size: tuple[int, int, int], where: str, streams: Streams) -> NDArray[np.int64]:
    """The first voxel [B, X] of the part: from the middle, or ("random") each as likely; below 0 in front of it.

    Along an axis that is shorter than the size the volume lies in the middle of air.
    """
    spare_BX = shapes_BX - np.array(size)
    middle_BX = np.where(spare_BX >= 0, spare_BX // 2, -(-spare_BX // 2))
    if where == "center":
        return middle_BX
    share_BX = streams.uniform("crop.start", 3)
    drawn_BX = np.minimum((share_BX * (np.maximum(spare_BX, 0) + 1)).astype(np.int64), np.maximum(spare_BX, 0))
    return np.where(spare_BX > 0, drawn_BX, middle_BX)


def part(
    volume_CDHW: NDArray[np.generic], start_X: NDArray[np.int64], size: tuple[int, int, int]
) -> NDArray[np.float32]:
    """The voxels [C, *size] from a start on, as they are; air where the volume has none."""
    found = np.full((len(volume_CDHW), *size), AIR, np.float32)
    begin_X, end_X = np.maximum(start_X, 0), np.minimum(start_X + size, volume_CDHW.shape[1:])
    source = tuple(slice(begin, end) for begin, end in zip(begin_X, end_X, strict=True))
    target = tuple(slice(begin, end) for begin, end in zip(begin_X - start_X, end_X - start_X, strict=True))
    found[:, *target] = volume_CDHW[:, *source]
    return found


def maps(
    rotation: RotationConfig, scale: ScaleConfig, translation: TranslationConfig, streams: Streams
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Which samples [B] the three hit, and by them where a point of the body goes: matrix @ mm + mm.

    The matrix [B, X, X] turns about D, then H, then W and scales; the shift [B, X] is in mm.
    """
    batch = len(streams)
    rotated_N, scaled_N, moved_N = (
        hit(streams, name, config.probability)
        for name, config in (("rotation", rotation), ("scale", scale), ("translation", translation))
    )
    matrix_BXX, shift_BX = np.tile(np.eye(3), (batch, 1, 1)), np.zeros((batch, 3))
    angles_NX = np.deg2rad(rotation.degrees) * signed(streams[rotated_N], "rotation.angle", 3)
    matrix_BXX[rotated_N] = rotations(angles_NX)
    lowest, highest = np.log(scale.factor)
    matrix_BXX[scaled_N] *= np.exp(between(streams[scaled_N], "scale.log", (lowest, highest)))[:, None, None]
    shift_BX[moved_N] = np.array(translation.mm) * signed(streams[moved_N], "translation.mm", 3)
    changed_B = np.zeros(batch, np.bool_)
    for hit_N in (rotated_N, scaled_N, moved_N):
        changed_B[hit_N] = True
    return changed_B, matrix_BXX, shift_BX


def resampled(
    volume_CDHW: NDArray[np.generic],
    start_X: NDArray[np.int64],
    size: tuple[int, int, int],
    spacing_X: NDArray[np.float64],
    matrix_XX: NDArray[np.float64],
    shift_X: NDArray[np.float64],
) -> NDArray[np.float32]:
    """As `part`, of the body after matrix @ mm + shift about the middle of the part; linear, air around the volume.

    The spacing in mm along D, H, W stays, so that a rotation is rigid whatever the voxels' shape.
    """
    middle_X = (np.array(size) - 1) / 2
    back_XX = np.linalg.inv(matrix_XX)
    voxels_XX = back_XX * spacing_X / spacing_X[:, None]
    offset_X = start_X + middle_X - voxels_XX @ middle_X - (back_XX @ shift_X) / spacing_X
    moved = [
        ndimage.affine_transform(
            volume_DHW, voxels_XX, offset_X, size, np.float32, order=1, mode="grid-constant", cval=AIR
        )
        for volume_DHW in volume_CDHW
    ]
    return np.stack(moved)
