"""Rotations in three dimensions: of the heart's vector, of a body in a volume."""

# N rotations, X the three axes

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotations(angles_NX: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices [N, X, X] about the first axis, then the second, then the third, by angles in radians."""
    turn_NXX = np.broadcast_to(np.eye(3), (len(angles_NX), 3, 3))
    for axis, angle_N in enumerate(angles_NX.T):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        about_NXX = np.tile(np.eye(3), (len(angles_NX), 1, 1))
        about_NXX[:, one, one] = about_NXX[:, other, other] = np.cos(angle_N)
        about_NXX[:, other, one] = np.sin(angle_N)
        about_NXX[:, one, other] = -np.sin(angle_N)
        turn_NXX = about_NXX @ turn_NXX
    return turn_NXX
