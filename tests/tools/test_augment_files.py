"""The picture of the augmentations of an image, a video or a volume, from a file and a section of transforms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.transforms.pictures import picture
from tools.augment import main
from tools.augment_files import draw_augmented, read_image, read_video, read_volume

TRANSFORMS = "configs/transforms"
ULTRASOUND = "video/lung_ultrasound/cc_by/Reg_Image_18122_crop.mp4"
CHEST = "ct/totalsegmentator_example/pulmonary_ct_cropped.nii.gz"


def draw(folder: Path, name: str, *words: str) -> int:
    return main(["--transform", f"{TRANSFORMS}/{name}.yaml", "--output", str(folder / "x.png"), *words])


def image_file(folder: Path) -> Path:
    path = folder / "image.png"
    assert cv2.imwrite(str(path), picture(40, 50))
    return path


def test_an_image_and_a_file_of_transforms_give_a_picture_the_same_every_time(tmp_path: Path) -> None:
    words = ["--image", str(image_file(tmp_path)), "--set", "size=24"]
    assert draw(tmp_path, "image_simclr", *words) == 0
    first = (tmp_path / "x.png").read_bytes()
    assert first.startswith(b"\x89PNG\r\n\x1a\n") and len(first) > 10_000
    assert draw(tmp_path, "image_simclr", *words) == 0
    assert (tmp_path / "x.png").read_bytes() == first
    assert draw(tmp_path, "image_simclr", *words, "blur.sigma=[2, 2]", "blur.kernel=0.5") == 0
    assert (tmp_path / "x.png").read_bytes() != first, "the config's strength"


@pytest.mark.parametrize(
    ("name", "flag", "file", "size"),
    [("video_randaugment", "--video", ULTRASOUND, "24"), ("ct_chest", "--volume", CHEST, "[8, 16, 16]")],
)
def test_real_files_have_a_picture(
    tmp_path: Path, medssl_data: Path, name: str, flag: str, file: str, size: str
) -> None:
    path = medssl_data / file
    if not path.exists():
        pytest.skip(f"no {path}")
    if flag == "--volume":
        pytest.importorskip("nibabel")
    assert draw(tmp_path, name, flag, str(path), "--set", f"size={size}") == 0
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_images_are_read_as_red_green_blue_and_in_their_depth(tmp_path: Path) -> None:
    image = read_image(image_file(tmp_path))["image"]
    np.testing.assert_array_equal(image, picture(40, 50)[..., ::-1])
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")["image"], deep)


def test_a_video_gives_the_frames_that_were_asked_for(medssl_data: Path) -> None:
    path = medssl_data / ULTRASOUND
    if not path.exists():
        pytest.skip(f"no {path}")
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        wanted = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    (video,) = read_video(path)["videos"]
    assert video.told["frames"] == len(wanted) == 187 and video.told["rate"] == pytest.approx(19.1, abs=0.1)
    np.testing.assert_array_equal(video.frames([0, 3, 186]), np.stack([wanted[index] for index in (0, 3, 186)]))


def test_a_volume_lies_head_up_front_first_whatever_its_file_says(tmp_path: Path) -> None:
    """A voxel at +10 mm left, +20 mm posterior, +30 mm superior of the first one, in two orders of the file."""
    nibabel = pytest.importorskip("nibabel")
    for codes, shape in (("RAS", (4, 5, 6)), ("LPS", (4, 5, 6)), ("SAL", (6, 5, 4))):
        signs = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
        affine, spacing_of = np.zeros((4, 4)), {"R": 1.0, "L": 1.0, "A": 2.0, "P": 2.0, "S": 3.0, "I": 3.0}
        affine[3, 3] = 1
        for axis, code in enumerate(codes):
            world, sign = signs[code]
            affine[world, axis] = sign * spacing_of[code]
        stored = np.zeros(shape, np.int16)
        last = tuple(0 if code in "RAI" else side - 1 for code, side in zip(codes, shape, strict=True))
        stored[last] = 7  # the most superior, posterior and left voxel
        nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "v.nii.gz")
        sample = read_volume(tmp_path / "v.nii.gz")
        assert sample["ct"].shape == (1, 6, 5, 4) and sample["meta"] == {
            "spacing": (3.0, 2.0, 1.0),
            "orientation": "SPL",
        }
        assert sample["ct"][0, -1, -1, -1] == 7, codes


def test_a_volume_in_metres_is_in_mm_and_one_of_unknown_orientation_says_so(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([0.001, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "metres.nii")
    assert read_volume(tmp_path / "metres.nii")["meta"]["spacing"] == pytest.approx((3.0, 2.0, 1.0))
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    nibabel.save(image, tmp_path / "bare.nii")
    sample = read_volume(tmp_path / "bare.nii")
    assert sample["ct"].shape == (1, 4, 5, 6) and sample["meta"]["orientation"] is None
    assert draw(tmp_path, "ct_chest", "--volume", str(tmp_path / "bare.nii"), "--set", "size=[4, 5, 6]") == 0


def test_samples_of_shards_are_drawn_by_a_file_of_their_modality(tmp_path: Path, medssl_data: Path) -> None:
    image = {"key": "i", "image": picture(40, 50, 1)}
    transform = Path(TRANSFORMS) / "image_ijepa.yaml"
    draw_augmented(transform, image, "image", tmp_path / "x.png", "i (train)")
    assert (tmp_path / "x.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="image_ijepa.yaml has modality image, but v is of modality video"):
        draw_augmented(transform, {"key": "v"}, "video", tmp_path / "x.png", "")
    path = medssl_data / ULTRASOUND
    if not path.exists():
        pytest.skip(f"no {path}")
    (video,) = read_video(path)["videos"]
    transform = Path(TRANSFORMS) / "video_randaugment.yaml"
    draw_augmented(transform, {"key": "v", "videos": (video,)}, "video", tmp_path / "new" / "v.png", "v (train)")
    assert (tmp_path / "new" / "v.png").stat().st_size > 10_000
    video = replace(video, told={**video.told, "rate": None})
    with pytest.raises(ValueError, match="sample v: nobody knows the rate of its first video"):
        draw_augmented(transform, {"key": "v", "videos": (video,)}, "video", tmp_path / "x.png", "")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("image_simclr", ["--video", "x.mp4"], "has modality image: name one file with --image"),
        ("ct_chest", [], "has modality ct: name one file with --volume"),
        ("image_simclr", ["--image", "{image}", "--video", "{image}"], "name one file with --image"),
        ("image_simclr", ["--image", "nowhere.png"], "error: --image: nowhere.png is no file"),
        ("image_simclr", ["--image", "{text}"], "text.nii: it is no image of these: JPEG, PNG"),
        ("video_randaugment", ["--video", "{text}"], "text.nii: it can't be read as a video"),
        ("ct_chest", ["--volume", "{text}"], "text.nii: it does not begin with a NIfTI header"),
        ("image_simclr", ["--image", "{empty}"], "empty.png: it is empty"),
        ("ct_chest", ["--volume", "{colours}"], "colours.nii: its voxels are colours"),
        ("ct_chest", ["--volume", "{huge}"], "huge.nii: its header announces"),
        ("image_simclr", ["--image", "{image}", "--key", "k"], "--key does something only with --fname"),
        ("image_simclr", ["--image", "{image}", "--leads", "II"], "--leads does something only with --fname"),
        ("image_simclr", ["--image", "{image}", "--seconds", "-5"], "--seconds does something only with --fname"),
        ("image_simclr", ["--image", "{image}", "--window", "1"], "--window does something only with --volume"),
        ("ct_chest", ["--volume", "{text}", "--window", "2"], "--window 2: "),
        ("image_simclr", ["--image", "{image}", "--set", "blr.sigma=1"], "unknown key blr"),
        ("nothing", ["--image", "{image}"], "does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture, name: str, words: list[str], message: str
) -> None:
    nibabel = pytest.importorskip("nibabel")
    (tmp_path / "text.nii").write_text("no picture")
    (tmp_path / "empty.png").touch()
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii")
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 3000))
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(4))
    files = {name: tmp_path / f"{name}.nii" for name in ("text", "colours", "huge")}
    paths = {"image": image_file(tmp_path), "empty": tmp_path / "empty.png", **files}
    assert draw(tmp_path, name, *[word.format(**paths) for word in words]) == 1
    told = capfd.readouterr().err.splitlines()
    assert told[-1].startswith("error: ") and message in told[-1] and not (tmp_path / "x.png").exists()
