"""An .npz of MedMNIST's layout gives the images and labels that numpy finds in it."""

import io
import zipfile

import numpy as np
import pytest

from src.data.builders import medmnist
from src.data.builders.convert_image import row_of
from src.data.builders.medmnist import is_medmnist, list_arrays, unpack

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 6, 7), np.uint8)
CLASSES = np.array([[0], [2], [1], [0], [2]], np.uint8)


def write(path, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_every_public_image_and_label_is_listed(medssl_data, tmp_path, compressed):
    path = medssl_data / "image" / "pneumoniamnist" / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    arrays = dict(np.load(path, allow_pickle=False))
    if not compressed:
        path = write(tmp_path / "plain.npz", False, **arrays)
    listing = list_arrays(path, tmp_path / "arrays", ["normal", "pneumonia"])
    unpack(path, tmp_path / "arrays")
    assert listing.labels.names == ("normal", "pneumonia") and listing.labels.kind == "multiclass"
    assert len({source.name for source in listing.sources}) == len(listing.sources) == 3882 + 524 + 624
    for split in ("train", "val", "test"):
        own = [source for source in listing.sources if source.split == split]
        found_NHW = np.stack([row_of(source.path, source.row) for source in own[::50]])
        assert np.array_equal(found_NHW, arrays[f"{split}_images"][::50])
        assert np.array_equal([source.labels.index(1.0) for source in own], arrays[f"{split}_labels"][:, 0])
        assert all(sum(source.labels) == 1 for source in own)


def test_several_labels_are_zeros_and_ones(tmp_path):
    labels = RNG.integers(0, 2, (5, 3))
    colours = RNG.integers(0, 256, (5, 6, 7, 3), np.uint8)
    path = write(tmp_path / "a.npz", train_images=colours, train_labels=labels)
    listing = list_arrays(path, tmp_path)
    unpack(path, tmp_path)
    assert listing.labels.kind == "multilabel" and listing.labels.names == ("0", "1", "2")
    assert np.array_equal([source.labels for source in listing.sources], labels)
    assert np.array_equal(row_of(listing.sources[4].path, 4), colours[4])


def test_classes_may_be_a_plain_row_or_be_absent(tmp_path):
    listing = list_arrays(write(tmp_path / "a.npz", any_images=IMAGES, any_labels=CLASSES[:, 0]), tmp_path)
    assert [source.labels.index(1.0) for source in listing.sources] == CLASSES[:, 0].tolist()
    assert {source.split for source in listing.sources} == {"any"}
    listing = list_arrays(write(tmp_path / "b.npz", train_images=IMAGES.astype(np.uint16)), tmp_path)
    assert listing.labels.names == () and listing.sources[0].labels == ()


def test_names_of_classes_that_no_image_has_stay(tmp_path):
    path = write(tmp_path / "a.npz", train_images=IMAGES, train_labels=CLASSES)
    assert list_arrays(path, tmp_path, ["a", "b", "c", "d"]).labels.names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("arrays", "names", "sentence"),
    [
        ({"x": IMAGES}, [], "holds x, expected are train_images"),
        ({"train_images": IMAGES.astype(float)}, [], r"train_images is float64 \[5, 6, 7\]"),
        ({"train_images": np.zeros((2, 4, 4, 4), np.uint8)}, [], r"is uint8 \[2, 4, 4, 4\]"),
        ({"train_images": np.zeros((0, 4, 4), np.uint8)}, [], r"\[0, 4, 4\]"),
        ({"train_images": np.zeros((2, 4, 4, 3), np.uint16)}, [], "colours of 16 bits"),
        ({"train_images": np.asfortranarray(IMAGES)}, [], "C order"),
        ({"train_images": IMAGES, "train_labels": CLASSES[:4]}, [], r"train_labels is uint8 \[4, 1\]"),
        ({"train_images": IMAGES, "train_labels": CLASSES * 0.5}, [], "train_labels is float64"),
        ({"train_images": IMAGES, "train_labels": CLASSES.astype(int) - 1}, [], "holds -1 to 1"),
        ({"train_images": IMAGES, "train_labels": np.full((5, 2), 2)}, [], "expected is 0 to 1"),
        ({"train_images": IMAGES, "train_labels": CLASSES}, ["a", "b"], "gives 2 names and .* has 3 labels"),
        ({"train_images": IMAGES, "train_labels": np.ones((5, 2), int)}, ["a"], "gives 1 names"),
        ({"train_images": IMAGES}, ["a"], "no labels to be called a"),
        ({"train_images": IMAGES, "train_labels": CLASSES, "val_images": IMAGES}, [], "no val_labels"),
        (
            {"train_images": IMAGES, "train_labels": CLASSES, "val_images": IMAGES, "val_labels": np.ones((5, 2), int)},
            [],
            "1 labels in one split and 2",
        ),
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path, arrays, names, sentence):
    with pytest.raises(ValueError, match=sentence):
        list_arrays(write(tmp_path / "a.npz", **arrays), tmp_path, names)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, train_images=IMAGES, train_labels=np.array([{}] * 5, dtype=object))
    with pytest.raises(ValueError, match="train_labels"):
        list_arrays(path, tmp_path)


def test_damaged_archives_and_bombs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is not there"):
        list_arrays(tmp_path / "gone.npz", tmp_path)
    (tmp_path / "no.npz").write_bytes(b"hello")
    with pytest.raises(ValueError, match="can't be read as an .npz"):
        list_arrays(tmp_path / "no.npz", tmp_path)
    many = RNG.integers(0, 256, (50, 64, 64), np.uint8)
    path = write(tmp_path / "a.npz", False, train_images=many)
    data = path.read_bytes()
    place = data.index(many[-1].tobytes())
    path.write_bytes(data[:place] + bytes(9) + data[place + 9 :])
    list_arrays(path, tmp_path)
    with pytest.raises(ValueError, match="train_images.npy is damaged"):
        unpack(path, tmp_path / "out")
    array = io.BytesIO()
    np.save(array, IMAGES)
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        archive.writestr("train_images.npy", array.getvalue()[:-1])
    with pytest.raises(ValueError, match="no plain array"):
        list_arrays(tmp_path / "cut.npz", tmp_path)
    monkeypatch.setattr(medmnist, "ALWAYS_SMALL", 1 << 20)
    empty = np.zeros((99, 99, 99), np.uint8)
    list_arrays(write(tmp_path / "b.npz", train_images=empty), tmp_path)
    with pytest.raises(ValueError, match="its arrays would unpack to 1,940,... bytes from .* a bomb"):
        list_arrays(write(tmp_path / "c.npz", train_images=empty, val_images=empty), tmp_path)


@pytest.mark.parametrize("name", ["../outside", "{folder}/outside", "a/b", "1", "a.b", "x" * 65])
def test_names_of_arrays_are_no_paths(tmp_path, name):
    images = {"train_images": IMAGES, name.format(folder=tmp_path) + "_images": IMAGES}
    path = write(tmp_path / "a.npz", **images)
    for read in (list_arrays, unpack):
        with pytest.raises(ValueError, match=r"a\.npz: .*_images.npy: the split .* can't be part of a file name"):
            read(path, tmp_path / "in" / "arrays")
    assert not [found for found in tmp_path.rglob("*") if "outside" in found.name]


@pytest.mark.parametrize(
    ("name", "public"), [("pneumoniamnist.npz", True), ("chestmnist_224.npz", True), ("ours.npz", False)]
)
def test_public_sets_are_known_by_name(tmp_path, name, public):
    assert is_medmnist(tmp_path / name) == public
