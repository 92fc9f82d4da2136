"""Small archives of images, and what their shards must hold."""

import csv
import io

import cv2
import numpy as np
from PIL import Image

from src.data.shards import Shards
from tests.data.planted import smooth


def encode(pixels, form="PNG", **settings):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **settings)
    return stream.getvalue()


def by_cv2(data):
    """The pixels as OpenCV finds them, RGB, as stored."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    return image[..., ::-1] if image.ndim == 3 else image


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_archive(folder, images=60, patients=20):
    """PNG and JPEG files of several sizes, grey and coloured, with a CSV; returns the command's words."""
    rows = []
    for number in range(images):
        pixels = smooth(20 + number % 7, 30 + number % 5, 1 if number % 3 else 3, seed=number)
        name, form = (f"deep/{number}.jpg", "JPEG") if number % 2 else (f"{number}.png", "PNG")
        put(folder / "images" / name, encode(pixels, form))
        patient = number % patients
        rows.append(
            {
                "file": f"/mnt/archive/{name}",
                "patient": f"P{patient}",
                "split": ["train", "val"][patient % 4 == 3],
                "report": f"no finding {number}",
                "pneumonia": number % 2,
                "age": 20 + patient,
            }
        )
    with (folder / "images.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return [
        *("image", "--input", str(folder / "images"), "--table", str(folder / "images.csv"), "--path-column", "file"),
        *("--root", "/mnt/archive", "--patient-column", "patient", "--split-column", "split"),
        *("--text-column", "report", "--label-columns", "pneumonia", "--meta-columns", "age"),
    ]


def samples_of(folder):
    """All samples of a folder by key, with their split."""
    found = {}
    for split in ("train", "val", "test", "inference"):
        try:
            with Shards(folder, split) as shards:
                found |= {sample["key"]: (split, sample) for sample in shards.read(np.arange(len(shards)))}
        except ValueError as error:
            assert "has no split" in str(error)
    return found
