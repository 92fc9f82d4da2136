"""Images in an .npz of MedMNIST's layout: `train_images` [N, H, W] or [N, H, W, 3] and `train_labels` for each split.

Yang et al., Scientific Data 10:41, 2023. Labels are [N] or [N, 1] numbers of classes, or [N, K] of zeros and ones. The
arrays are unpacked once into .npy files, of which each process maps what it needs: a set at 224 x 224 has 10 GB.
"""

# N images of a split, H rows, W columns, K labels

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from src.data.builders.records import told
from src.data.builders.sources import Listing, Source
from src.data.index import Labels
from src.data.tars import check_split

IMAGES, LABELS = "_images", "_labels"
LARGEST_RATIO, ALWAYS_SMALL = 200, 1 << 30
"""What all arrays may be larger than their file, and bytes up to which that does not matter."""
PUBLISHED = {
    "name": "MedMNIST v2 (Yang et al. 2023)",
    "licence": "CC BY 4.0; DermaMNIST CC BY-NC 4.0",
}


class Heading(NamedTuple):
    """What an array of an .npz says before it is unpacked."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def is_medmnist(path: Path) -> bool:
    """Whether a file is called as one of the public sets: pneumoniamnist.npz, chestmnist_224.npz."""
    return path.stem.split("_")[0].endswith("mnist")


def list_arrays(path: Path, folder: Path, label_names: Sequence[str] = ()) -> Listing:
    """The images of an .npz; its arrays will be `folder`/<split>_images.npy.

    Raises:
        ValueError: it can't be read, or has another layout; the array is named.
    """
    with _opened(path) as archive:
        _refuse_bombs(path, archive)
        headings = {name.removesuffix(".npy"): _heading(path, archive, name) for name in archive.namelist()}
        splits = list(_images(path, archive))
        if not splits:
            raise ValueError(
                f"{path} holds {', '.join(headings) or 'nothing'}, expected are train{IMAGES}, train{LABELS}, ..."
            )
        for split in splits:
            _check_images(path, split + IMAGES, headings[split + IMAGES])
        labels = {split: _labels(path, archive, headings, split) for split in splits}
        crcs = {split: info.CRC for split, info in _images(path, archive).items()}
    if len({known_NK is None for known_NK in labels.values()}) > 1:
        bare = next(split for split, known_NK in labels.items() if known_NK is None)
        raise ValueError(f"{path} has labels of some splits and no {bare}{LABELS}: give all of them, or none")
    names, kind = _names(path, [known_NK for known_NK in labels.values() if known_NK is not None], label_names)
    sources = [
        Source(
            name=f"{path.stem}-{split}-{number:06d}",
            path=folder / _unpacked(crcs[split], split + IMAGES),
            split=split,
            row=number,
            labels=known,
        )
        for split in splits
        for number, known in enumerate(_known(labels[split], headings[split + IMAGES].shape[0], len(names), kind))
    ]
    return Listing(sources, Labels(names=names, kind=kind))


def unpack(path: Path, folder: Path) -> None:
    """Write the images of each split of an .npz as .npy files that can be mapped; those that are there are kept.

    Raises:
        ValueError: they are damaged, or a split is none that a file can be called by.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(path) as archive:
        for split, info in _images(path, archive).items():
            whole = folder / _unpacked(info.CRC, split + IMAGES)
            if whole.exists():
                continue
            partial = whole.with_suffix(".partial")
            try:
                with archive.open(info) as packed, partial.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ValueError(f"{path}: {info.filename} is damaged ({error}): fetch it again") from None
            partial.rename(whole)


def check_images(path: Path, table: Path, rows: int) -> None:
    """Refuse a table that has not one row for each image of a .npy of many.

    Raises:
        ValueError: so, or the array can't be read or holds no images.
    """
    with told(path, "a .npy of numbers"):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        found = Heading(images.shape, images.dtype)
    _check_images(path, "its array", found)
    if found.shape[0] != rows:
        raise ValueError(f"{path} holds {found.shape[0]:,} images and {table} has {rows:,} rows: give each image one")


def _refuse_bombs(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse arrays that together are far larger than their file."""
    size, packed = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if size > max(ALWAYS_SMALL, LARGEST_RATIO * packed):
        raise ValueError(f"{path}: its arrays would unpack to {size:,} bytes from {packed:,}: a bomb")


def _images(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The images of each split, whose name becomes one of a file: none with a path in it passes."""
    found = {}
    for name in archive.namelist():
        split = name.removesuffix(IMAGES + ".npy")
        if not split or split == name:
            continue
        try:
            check_split(split)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from None
        found[split] = archive.getinfo(name)
    return found


def _unpacked(crc32: int, name: str) -> str:
    """By its content, so that what is left of a build of another .npz is not taken for it."""
    return f"{name}-{crc32:08x}.npy"


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: name the .npz with --input") from None
    except (zipfile.BadZipFile, IsADirectoryError) as error:
        raise ValueError(f"{path} can't be read as an .npz ({error}): fetch it again") from None
    return archive


def _heading(path: Path, archive: zipfile.ZipFile, name: str) -> Heading:
    """Shape and type of an array, whose size must be theirs."""
    info = archive.getinfo(name)
    try:
        with archive.open(name) as file:
            shape, fortran, dtype = _read_heading(file)
            size = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: {name} can't be read as a plain array ({error}): fetch it again") from None
    if dtype.hasobject or fortran or size != info.file_size:
        raise ValueError(f"{path}: {name} is no plain array of numbers in C order: make the .npz with numpy.savez")
    return Heading(shape, dtype)


def _read_heading(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)


def _check_images(path: Path, name: str, found: Heading) -> None:
    is_image = len(found.shape) == 3 or (len(found.shape) == 4 and found.shape[3] == 3)
    if not is_image or 0 in found.shape or found.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{path}: {name} is {found.dtype} {list(found.shape)}, expected is uint8 [N, H, W] or [N, H, W, 3], or"
            " uint16 [N, H, W]"
        )
    if found.dtype == np.uint16 and len(found.shape) == 4:
        raise ValueError(f"{path}: {name} has colours of 16 bits: save it as uint8")


def _labels(
    path: Path, archive: zipfile.ZipFile, headings: Mapping[str, Heading], split: str
) -> NDArray[np.int64] | None:
    """[N, 1] classes or [N, K] zeros and ones; None where there are none."""
    name, images = split + LABELS, headings[split + IMAGES].shape[0]
    if name not in headings:
        return None
    with archive.open(f"{name}.npy") as file:
        known = npy.read_array(file, allow_pickle=False)
    if known.dtype.kind not in "biu" or known.ndim not in (1, 2) or len(known) != images or 0 in known.shape:
        raise ValueError(
            f"{path}: {name} is {known.dtype} {list(known.shape)}, expected are integers [{images}, 1] or"
            f" [{images}, labels]"
        )
    known_NK: NDArray[np.int64] = known.reshape(images, -1).astype(np.int64)
    highest = 1 if known_NK.shape[1] > 1 else 65535
    if known_NK.min() < 0 or known_NK.max() > highest:
        raise ValueError(f"{path}: {name} holds {known_NK.min()} to {known_NK.max()}, expected is 0 to {highest}")
    return known_NK


def _names(path: Path, labels: Sequence[NDArray[np.int64]], given: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Names and kind of the labels."""
    if not labels:
        if given:
            raise ValueError(f"{path} has no labels to be called {' '.join(given)}: leave out --label-names")
        return (), "multilabel"
    widths = sorted({known_NK.shape[1] for known_NK in labels})
    if len(widths) > 1:
        raise ValueError(f"{path} has {widths[0]} labels in one split and {widths[1]} in another")
    kind = "multilabel" if widths[0] > 1 else "multiclass"
    count = widths[0] if widths[0] > 1 else int(max(known_NK.max() for known_NK in labels)) + 1
    if given and (len(given) < count or (len(given) > count and kind == "multilabel")):
        raise ValueError(f"--label-names gives {len(given)} names and {path} has {count} labels: name each once")
    return tuple(given) or tuple(map(str, range(count))), kind


def _known(known_NK: NDArray[np.int64] | None, images: int, names: int, kind: str) -> Iterator[tuple[float, ...]]:
    """The labels of each image, one number for each name."""
    if known_NK is None:
        yield from [()] * images
    elif kind == "multilabel":
        yield from map(tuple, known_NK.astype(float).tolist())
    else:
        rows = [tuple(row) for row in np.eye(names).tolist()]
        yield from (rows[number] for number in known_NK[:, 0].tolist())
