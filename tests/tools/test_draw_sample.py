"""--show draws what other readers find in the members of a tar, whichever modality, in tars of others too."""

import io

import cv2
import numpy as np
import pytest
from matplotlib.image import imread

from src.data.modalities import MODALITIES
from src.report.contact import Clip, even_frames, save_contact_sheet
from src.report.planes import save_planes
from src.report.plate import save_image
from tests.data.conftest import write_tar
from tests.data.image_archive import by_cv2, encode
from tests.data.planted import smooth
from tools.inspect_shards import main

SIXTEEN = np.random.default_rng(3).integers(9, 4096, (30, 20), np.uint16)


def needs(modality):
    return pytest.mark.skipif(modality not in MODALITIES, reason=f"no modality {modality} yet")


def show(folder, key, *index_flags):
    assert main([str(folder), "--index", *index_flags]) == 0
    assert main([str(folder), "--show", key, "--output", str(folder / "shown.png")]) == 0
    return (folder / "shown.png").read_bytes()


def expected(folder):
    return (folder / "expected.png").read_bytes()


@pytest.mark.parametrize(
    ("field", "data", "kind"),
    [
        ("png", encode(smooth(30, 20, 1)), "grey, 8 bits"),
        ("jpg", encode(smooth(30, 20), "JPEG"), "RGB, 8 bits"),
        ("png", encode(SIXTEEN), "grey, 16 bits"),
    ],
)
def test_an_image_is_drawn_with_labels_and_report(tmp_path, field, data, kind):
    members = [
        (f"a.{field}", data),
        ("a.json", {"labels": [1, None, 0]}),
        ("a.txt", b"no finding"),
        ("b.png", encode(SIXTEEN)),
    ]
    write_tar(tmp_path / "val-0.tar", members)
    found = show(tmp_path, "a", "--labels", "sick", "old", "tall")
    lines = ["labels: sick; unknown: old", f"30 x 20, {kind}"]
    save_image(tmp_path / "expected.png", by_cv2(data), "a (val)", lines, "no finding")
    assert found == expected(tmp_path)
    assert imread(tmp_path / "shown.png").shape[0] > 1590


def frames_of(path):
    """All frames as OpenCV decodes them, RGB, and their rate."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return np.stack(frames), capture.get(cv2.CAP_PROP_FPS)


@needs("video")
@pytest.mark.parametrize("count", [1, 2])
def test_videos_of_others_are_drawn_at_even_times(tmp_path, medssl_data, count):
    folder = medssl_data / "video" / "lung_ultrasound" / "cc_by"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    paths = [folder / "Reg_Image_18122_crop.mp4", folder / "Pneu_prospective_file3.mp4"][:count]
    names = ["a.mp4"] if count == 1 else [f"a.{number}.mp4" for number in range(count)]
    members = [(name, path.read_bytes()) for name, path in zip(names, paths, strict=True)]
    write_tar(tmp_path / "train-0.tar", [*members, ("a.cls", b"1"), ("a.txt", b"b-lines")])
    found = show(tmp_path, "a", "--labels", "no", "yes")
    clips = []
    for number, path in enumerate(paths):
        frames, rate = frames_of(path)
        chosen = even_frames(len(frames), 12 if count == 1 else 6)
        heading = f"{number}: {len(frames)} frames at {rate:.4g} Hz, {frames.shape[1]} x {frames.shape[2]}, h264"
        clips.append(Clip(heading, frames[chosen], [f"{time:.2f} s" for time in chosen / rate]))
    save_contact_sheet(tmp_path / "expected.png", clips, "a (train)", ["labels: yes"], "b-lines")
    one, other = imread(tmp_path / "shown.png"), imread(tmp_path / "expected.png")
    assert one.shape == other.shape
    assert found == expected(tmp_path) or np.abs(one - other).max() < 0.02, "pixels of two decoders of FFmpeg"


@needs("ct")
@pytest.mark.parametrize("orientation", ["SPL", "IPL", None])
def test_a_ct_of_others_is_drawn_in_three_planes(tmp_path, orientation):
    volume = np.random.default_rng(0).integers(-1000, 1000, (2, 6, 12, 10)).astype(np.int16)
    content = io.BytesIO()
    np.savez(content, ct=volume)
    meta = {"spacing": [5.0, 0.703125, 2.0], **({"orientation": orientation} if orientation else {})}
    write_tar(tmp_path / "train-0.tar", [("a.ct.npz", content.getvalue()), ("a.json", meta), ("a.txt", b"nodule")])
    found = show(tmp_path, "a")
    lines = ["6 x 12 x 10 voxels, 5 x 0.7031 x 2 mm", "drawn: the first of 2 channels"]
    window = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0)}
    save_planes(
        tmp_path / "expected.png", volume[0], (5.0, 0.703125, 2.0), orientation, window, "a (train)", lines, "nodule"
    )
    assert found == expected(tmp_path)
