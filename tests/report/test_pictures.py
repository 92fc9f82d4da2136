"""Pictures of samples: their pixels are the data's, planes are where anatomy has them, and no word leaves the page."""

from itertools import permutations, product

import numpy as np
import pytest
from matplotlib.image import imread

from src.report.contact import COLUMNS, Clip, captions, contact_sheet, even_frames, save_contact_sheet
from src.report.planes import draw_planes, planes, save_planes
from src.report.plate import page, save_image
from src.report.svg import drawing

RNG = np.random.default_rng(0)
WINDOWS = {"lung": (-600.0, 1500.0), "bone": (300.0, 1500.0)}
CODES = ["".join(code) for pairs in permutations(("LR", "AP", "SI")) for code in product(*pairs)]


def picture(path):
    return np.round(imread(path)[:, :, :3] * 255).astype(int)


@pytest.mark.parametrize("shape", [(28, 28), (20, 31, 3)])
def test_each_pixel_of_a_small_image_is_a_square_of_its_shade(tmp_path, shape):
    image = RNG.integers(0, 255, shape, np.uint8)
    save_image(tmp_path / "x.png", image, "title")
    found = picture(tmp_path / "x.png")
    side = 1600 // max(shape)
    body = found[70 : 70 + shape[0] * side, 40 : 40 + shape[1] * side]  # one line of title, 4 mm of edge
    expected = image if image.ndim == 3 else np.stack([image] * 3, -1)
    assert np.abs(body - expected.repeat(side, 0).repeat(side, 1)).max() <= 1
    assert (found[:, :40] == 255).all() and (found[-40:] == 255).all()


def test_sixteen_bits_run_from_the_darkest_to_the_lightest_and_say_so(tmp_path):
    image = np.array([[100, 200], [300, 4095]], np.uint16)
    save_image(tmp_path / "x.png", image, "title")
    found = picture(tmp_path / "x.png")
    shades = [found[-440 - (1 - row) * 800, 440 + column * 800, 0] for row in (0, 1) for column in (0, 1)]
    assert np.allclose(shades, (image.ravel() - 100.0) / 3995 * 255, atol=1)
    save_image(tmp_path / "flat.png", np.full((4, 4), 7, np.uint16), "title")


def test_a_large_image_is_shrunk_and_keeps_its_shades(tmp_path):
    image = np.tile(np.array([0, 200], np.uint8), (3000, 1000))
    save_image(tmp_path / "x.png", image, "title")
    found = picture(tmp_path / "x.png")
    assert found.shape[0] < 1800 and found.shape[1] == 1070 + 80  # 160 x 106.7 mm and the edges
    assert abs(found[-900, 300:800, 0].mean() - 100) < 3 and found[-900, 300:800, 0].std() < 30


@pytest.mark.parametrize(("frames", "wanted"), [(1, 6), (5, 6), (6, 6), (495, 6), (7, 4), (0, 6)])
def test_frames_are_even_and_inside_of_the_video(frames, wanted):
    numbers = even_frames(frames, wanted)
    assert len(numbers) == min(frames, wanted) == len(set(numbers.tolist()))
    assert all(0 <= number < frames for number in numbers)
    steps = np.diff(numbers)
    assert not len(steps) or steps.max() - steps.min() <= 1
    assert not len(numbers) or abs(numbers[0] - (frames - 1 - numbers[-1])) <= 1


def test_a_contact_sheet_shows_each_frame_at_its_place_with_its_time(tmp_path):
    shades = [RNG.integers(0, 255, (count, 1, 1, 3), np.uint8) for count in (8, 3)]
    clips = [
        Clip(
            f"clip {number}", own * np.ones((1, 40, 32 * (number + 1), 3), np.uint8), captions(np.arange(len(own)), 4.0)
        )
        for number, own in enumerate(shades)
    ]
    with drawing():
        figure, axes = contact_sheet(clips, "title")
        texts = [text.get_text() for text in axes.texts]
        figure.set_dpi(254)
        extents = [axes.transData.transform(np.array(image.get_extent()).reshape(2, 2).T) for image in axes.images]
        height = figure.bbox.height
    assert texts.count("0.25 s") == 2 and texts.count("1.75 s") == 1 and {"clip 0", "clip 1"} <= set(texts)
    save_contact_sheet(tmp_path / "x.png", clips, "title")
    found = picture(tmp_path / "x.png")
    for corners, shade in zip(extents, np.concatenate(shades)[:, 0, 0], strict=True):
        x, y = corners.mean(0)
        assert np.array_equal(found[round(height - y), round(x)], shade)
        (width, tall) = np.abs(np.diff(corners, axis=0))[0]
        assert width == pytest.approx(320, abs=1)
        assert tall in (pytest.approx(400, abs=1), pytest.approx(200, abs=1))
    assert captions(np.array([0, 12]), None) == ["frame 0", "frame 12"]
    assert len({round(corners[:, 1].mean()) for corners in extents}) == 3  # rows: 6, 2 and 3
    assert len({round(corners[:, 0].mean()) for corners in extents}) == COLUMNS


def stored(anatomy_IPL, spacing_IPL, code):
    """A volume whose indices grow to I, P and L, as a file with another code holds it."""
    opposite = dict(zip("LRPAIS", "RLAPSI", strict=True))
    order = [("IPL".index(letter) if letter in "IPL" else "IPL".index(opposite[letter])) for letter in code]
    volume = anatomy_IPL.transpose(order)
    turned = volume[tuple(slice(None, None, 1 if letter in "IPL" else -1) for letter in code)]
    return turned, tuple(spacing_IPL[direction] for direction in order)


@pytest.mark.parametrize("code", CODES)
def test_planes_are_where_anatomy_has_them_whatever_the_storage(code):
    assert len(CODES) == 48
    anatomy = RNG.integers(-1000, 1000, (5, 7, 9), np.int16)
    volume, spacing = stored(anatomy, (3.0, 2.0, 1.0), code)
    axial, coronal, sagittal = planes(volume, spacing, code)
    assert np.array_equal(axial.hounsfield, anatomy[2]) and axial.letters == ("R", "L", "A", "P")
    assert np.array_equal(coronal.hounsfield, anatomy[:, 3]) and coronal.letters == ("R", "L", "S", "I")
    assert np.array_equal(sagittal.hounsfield, anatomy[:, :, 4]) and sagittal.letters == ("A", "P", "S", "I")
    assert (axial.size, coronal.size, sagittal.size) == ((14.0, 9.0), (15.0, 9.0), (15.0, 14.0))


def test_an_independent_reader_agrees_on_the_planes_of_a_real_volume(medssl_data):
    path = medssl_data / "ct" / "totalsegmentator_example" / "example_ct.nii.gz"
    nibabel = pytest.importorskip("nibabel")
    if not path.is_file():
        pytest.skip(f"no {path}")
    image = nibabel.load(path)
    ras = np.asarray(nibabel.as_closest_canonical(image).dataobj)  # to the right, to the front, up
    code = "".join(nibabel.aff2axcodes(image.affine))
    axial, coronal, sagittal = planes(np.asarray(image.dataobj), image.header.get_zooms(), code)
    middle = [(length - 1) - length // 2 for length in ras.shape]
    assert np.array_equal(axial.hounsfield, ras[::-1, ::-1, middle[2]].T[:, ::1])
    assert np.array_equal(coronal.hounsfield, ras[::-1, middle[1], ::-1].T)
    assert np.array_equal(sagittal.hounsfield, ras[middle[0], ::-1, ::-1].T)


def test_an_orientation_that_is_none_is_refused():
    for code in ("LPX", "LLP", "LP", "lps"):
        with pytest.raises(ValueError, match="three letters"):
            planes(np.zeros((2, 2, 2)), (1, 1, 1), code)
    with pytest.raises(ValueError, match="is not"):
        planes(np.zeros((1, 2, 2, 2)), (1, 1, 1))


def test_a_window_goes_from_black_to_white_and_millimetres_are_true(tmp_path):
    volume = np.zeros((20, 30, 40), np.int16)
    for step, hounsfield in enumerate((-2000, -1350, -600, 149, 2000)):
        volume[9:11, :, step * 8 : step * 8 + 8] = hounsfield
    with drawing():
        figure, axes = draw_planes(volume, (5.0, 2.0, 1.0), "SPL", WINDOWS, "title")
        figure.set_dpi(254)
        height = figure.bbox.height
        boxes = [axes.transData.transform(np.array(image.get_extent()).reshape(2, 2).T) for image in axes.images]
        texts = [text.get_text() for text in axes.texts]
    sizes = [np.abs(np.diff(box, axis=0))[0] for box in boxes]
    scale = sizes[0][0] / 40
    assert np.allclose(sizes[:3], np.array([(40, 60), (40, 100), (60, 100)]) * scale, atol=1)
    assert np.allclose(sizes[3:], sizes[:3])
    assert "lung: -1,350 to 150 HU" in texts and "bone: -450 to 1,050 HU" in texts
    bar = next(line for line in axes.lines)
    assert f"{np.diff(bar.get_xdata())[0] * 10 / scale:.0f} mm" in texts
    save_planes(tmp_path / "x.png", volume, (5.0, 2.0, 1.0), "SPL", WINDOWS, "title")
    found = picture(tmp_path / "x.png")
    (x0, _), (x1, _) = boxes[0]
    row = found[round(height - boxes[0].mean(0)[1])]
    shades = [row[round(x0 + (x1 - x0) * (step + 0.5) / 5), 0] for step in range(5)]
    assert np.allclose(shades, [0, 0, 127.5, 255, 255], atol=1)


def test_an_unknown_orientation_is_told_and_gives_no_letters():
    with drawing():
        _, axes = draw_planes(np.zeros((4, 5, 6)), (1, 1, 1), None, WINDOWS, "title")
        texts = [text.get_text() for text in axes.texts]
    assert "the orientation is unknown: drawn as stored" in texts
    assert not {"L", "R", "A", "P", "S", "I"} & set(texts)


LONG = (
    "folder/OF-A-LONG-KEY_" * 9,
    ["labels: " + ", ".join(["PNEUMOTHORAX"] * 40)],
    "NO ACUTE CARDIOPULMONARY WMW " * 60,
)


@pytest.mark.parametrize("kind", ["image", "sheet", "planes", "slab"])
def test_no_word_leaves_the_page(kind):
    with drawing():
        if kind == "image":
            figure, axes = page(10.0, 30.0, *LONG)
        elif kind == "sheet":
            clip = Clip(
                "0: 495 frames at 19.04 per s, 1080 x 1920, h264", np.zeros((1, 90, 10), np.uint8), ["3599.99 s"]
            )
            figure, axes = contact_sheet([clip, clip], *LONG)
        else:
            shape = (2, 64, 64) if kind == "slab" else (16, 16, 16)
            figure, axes = draw_planes(np.zeros(shape), (1.5, 1.5, 1.5), "SPL", WINDOWS, *LONG)
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        inside = figure.bbox
    assert sum("WMW" in text.get_text() for text in axes.texts) == 5
    assert all(box.x0 >= 0 and box.x1 <= inside.x1 and box.y0 >= 0 and box.y1 <= inside.y1 for box in boxes)


def test_no_picture_lies_on_another_or_on_words():
    clips = [
        Clip("first", np.zeros((8, 40, 32), np.uint8), list("abcdefgh")),
        Clip("second", np.zeros((2, 9, 32), np.uint8), list("ab")),
    ]
    with drawing():
        for figure, axes in (
            contact_sheet(clips, "title", ["a", "b"], "report"),
            draw_planes(np.zeros((3, 64, 64)), (1.0, 1.0, 1.0), "SPL", WINDOWS, "title", ["a"], "report"),
        ):
            boxes = [text.get_window_extent() for text in axes.texts] + [
                image.get_window_extent() for image in axes.images
            ]
            for number, box in enumerate(boxes):
                for other in boxes[:number]:
                    apart = (
                        box.x1 <= other.x0 + 1
                        or other.x1 <= box.x0 + 1
                        or box.y1 <= other.y0 + 1
                        or other.y1 <= box.y0 + 1
                    )
                    assert apart, (box, other)
            assert figure.bbox.width > 0


def test_pictures_are_the_same_every_time(tmp_path):
    volume = RNG.integers(-1000, 1000, (6, 7, 8))
    for name in ("a", "b"):
        save_planes(tmp_path / f"{name}.png", volume, (1, 1, 1), "SPL", WINDOWS, "title", ["labels"], "report")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
