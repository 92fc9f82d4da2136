"""Small chest CTs as a lab might have them, written by nibabel, pynrrd, pydicom and numpy."""

import numpy as np

AIR, LUNG, FAT, MUSCLE, BONE = -1000, -850, -90, 50, 700


def chest(shape=(24, 32, 28), seed=0, noise=15.0):
    """HU of a body with two lungs and a spine, [D, H, W], int16; no two directions look alike."""
    axes = (np.linspace(-1, 1, size) for size in shape)
    z, y, x = np.meshgrid(*axes, indexing="ij")
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    values = np.where(body, MUSCLE, AIR)
    values = np.where(body & ((x / 0.8) ** 2 + (y / 0.6) ** 2 > 1), FAT, values)
    for side, size in ((-0.4, 0.28), (0.4, 0.22)):
        values = np.where(((x - side) / size) ** 2 + (y / 0.45) ** 2 + (z - 0.1) ** 2 < 0.9, LUNG, values)
    values = np.where(x**2 + (y - 0.5) ** 2 < 0.015, BONE, values)
    values = values + np.random.default_rng(seed).normal(0, noise, shape)
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)
