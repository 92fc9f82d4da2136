"""Folders of images tell splits, classes and patients by their names."""

import re

import pytest

from src.data.builders.image_folders import list_images
from src.data.builders.video_sources import list_videos


def place(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def told(listing):
    return {source.name: (source.split, source.labels) for source in listing.sources}


def test_folders_are_splits_and_classes(tmp_path):
    place(
        tmp_path,
        "train/cat/1.png",
        "train/dog/2.JPEG",
        "Validation/dog/deep/3.png",
        "test/cat/4.png",
        "inference/5.dcm",
    )
    listing = list_images(tmp_path, True)
    assert listing.labels.names == ("cat", "dog") and listing.labels.kind == "multiclass"
    assert told(listing) == {
        "train/cat/1.png": ("train", (1.0, 0.0)),
        "train/dog/2.JPEG": ("train", (0.0, 1.0)),
        "Validation/dog/deep/3.png": ("val", (0.0, 1.0)),
        "test/cat/4.png": ("test", (1.0, 0.0)),
        "inference/5.dcm": ("inference", (None, None)),
    }
    assert all(source.path == tmp_path / source.name for source in listing.sources)


def test_folders_can_be_classes_alone(tmp_path):
    place(tmp_path, "cat/1.png", "dog/1.png", "cat/notes.txt", ".trash/1.png", "__MACOSX/cat/1.png")
    listing = list_images(tmp_path, True)
    assert told(listing) == {"cat/1.png": ("train", (1.0, 0.0)), "dog/1.png": ("train", (0.0, 1.0))}


def test_folders_are_no_classes_unasked(tmp_path):
    """They may be called as patients, and names of classes are in the shards for all to read."""
    listing = list_images(place(tmp_path, "train/anna/1.png", "train/bert/1.png"))
    assert listing.labels.names == () and told(listing)["train/anna/1.png"] == ("train", ())
    with pytest.raises(ValueError, match="no folders that could be classes"):
        list_images(place(tmp_path / "flat", "train/1.png"), True)


def test_images_without_folders_have_no_labels(tmp_path):
    listing = list_images(place(tmp_path, "1.png", "2.png"))
    assert told(listing) == {"1.png": ("train", ()), "2.png": ("train", ())}
    assert listing.labels.names == ()


def test_patients_are_folders_or_in_names(tmp_path):
    place(tmp_path, "train/cat/anna/1.png", "train/cat/anna/2.png", "test/dog/person7_x_3.png")
    listing = list_images(tmp_path, True, patients_are_folders=True)
    assert [source.patient for source in listing.sources] == [None, "anna", "anna"]
    assert listing.labels.names == ("cat", "dog")
    listing = list_images(tmp_path, patient_pattern=re.compile(r"(person\d+)_"))
    assert [source.patient for source in listing.sources] == ["person7", None, None]


def test_the_first_folder_is_the_patient_as_in_every_verb(tmp_path):
    """And not the last, which is a study of one of them: a patient with two would be two."""
    names = ("anna/s1/1.mkv", "anna/s2/1.mkv", "bert/s1/1.mkv")
    place(tmp_path / "films", *names)
    films = list_videos(tmp_path / "films", patients_are_folders=True)
    place(tmp_path / "images", *(name.replace("mkv", "png") for name in names))
    images = list_images(tmp_path / "images", patients_are_folders=True)
    place(tmp_path / "splits", *(f"train/{name}".replace("mkv", "png") for name in names))
    splits = list_images(tmp_path / "splits", patients_are_folders=True)
    for listing in (films, images, splits):
        assert [source.patient for source in listing.sources] == ["anna", "anna", "bert"]


def test_patients_folders_need_no_classes(tmp_path):
    listing = list_images(place(tmp_path, "anna/1.png", "bert/1.png", "2.png"), patients_are_folders=True)
    assert {source.name: source.patient for source in listing.sources} == {
        "anna/1.png": "anna",
        "bert/1.png": "bert",
        "2.png": None,
    }
    assert listing.labels.names == ()


@pytest.mark.parametrize("other", ["cat/1.png", "1.png"])
def test_nothing_else_lies_beside_splits(tmp_path, other):
    place(tmp_path, "train/cat/1.png", other)
    with pytest.raises(ValueError, match=r"holds the split train and beside it (cat|1\.png), which is none"):
        list_images(tmp_path)


def test_what_holds_no_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        list_images(place(tmp_path, "a.txt", "train/b.csv"))
    with pytest.raises(ValueError, match="is no folder"):
        list_images(tmp_path / "a.txt")
