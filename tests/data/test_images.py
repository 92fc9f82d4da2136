"""Images go into shards with the pixels that other readers find in the file, and with nothing else that it says."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from src.data.builders.convert_image import ConvertImage, Encoding
from src.data.builders.images import LARGEST_IMAGE
from src.data.builders.jpeg import strip_jpeg
from src.data.builders.png import START, chunk, strip_png
from src.data.builders.sources import Source
from tests.data import planted
from tests.data.planted import NAME, smooth

GREY, COLOUR = smooth(40, 56, 1), smooth(40, 56)
SIXTEEN = np.random.default_rng(3).integers(0, 65536, (40, 56), np.uint16)
TURNS = {  # EXIF 2.32, 4.6.4: what to do to see the picture upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def by_cv2(data, flags=cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION):
    """The pixels as OpenCV's own decoders find them, RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return image[..., ::-1] if image.ndim == 3 else image


def save(image, form, **settings):
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, form, **settings)
    return stream.getvalue()


@pytest.fixture
def convert(tmp_path):
    """The member, its field and the json's facts of a file with these bytes."""

    def read(data, name="x.img", **encoding):
        path = tmp_path / name
        path.write_bytes(data)
        files, meta = ConvertImage(Encoding(**encoding))(Source(name=name, path=path))
        ((field, content),) = files.items()
        return field, content, meta

    return read


def refused(convert, data, **encoding):
    with pytest.raises(ValueError) as error:
        convert(data, **encoding)
    assert "0x" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("pixels", "subsampling"), [(GREY, 0), (COLOUR, 0), (COLOUR, 2)])
def test_a_jpeg_keeps_its_pixels_and_loses_every_name(convert, pixels, subsampling, progressive):
    given = planted.jpeg(pixels, subsampling=subsampling, progressive=progressive, restart_marker_rows=1)
    assert given.count(NAME.encode()) > 20
    field, content, meta = convert(given)
    assert (field, meta) == ("jpg", {})
    assert NAME.encode() not in content and len(content) < len(given)
    assert np.array_equal(by_cv2(content), by_cv2(given))
    assert np.array_equal(np.array(Image.open(io.BytesIO(content))), np.array(Image.open(io.BytesIO(given))))
    assert Image.open(io.BytesIO(content)).info.keys() <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "progressive",
        "progression",
    }


def test_the_pixels_of_a_jpeg_are_its_scans_byte_for_byte():
    bare = save(COLOUR, "JPEG")
    assert strip_jpeg(bare) == bare


@pytest.mark.parametrize("transform", [0, 1])
def test_the_colours_of_a_jpeg_are_those_that_adobe_says(convert, transform):
    rgb = save(COLOUR, "JPEG", keep_rgb=True, quality=100)
    assert b"Adobe" in rgb and b"JFIF" not in rgb
    place = rgb.index(b"Adobe")
    given = rgb[: place + 11] + bytes((transform,)) + rgb[place + 12 :]
    for component, plain in zip(b"RGB", (1, 2, 3), strict=True):  # no hint in the components' names
        given = given.replace(bytes((component, 0x11)), bytes((plain, 0x11))).replace(
            bytes((component, 0)), bytes((plain, 0))
        )
    given = given.replace(b"Adobe\x00\x64\x00\x00\x00\x00", b"Adobe\x00\x64NAME")
    _, content, _ = convert(given)
    assert b"NAME" not in content
    assert np.array_equal(by_cv2(content), by_cv2(given))
    near = np.abs(by_cv2(content).astype(int) - COLOUR).max() <= 3
    assert near == (transform == 0)


@pytest.mark.parametrize("pixels", [GREY, COLOUR, SIXTEEN], ids=["grey", "colour", "16 bits"])
def test_a_png_keeps_its_compressed_pixels_and_loses_every_name(convert, pixels):
    given = planted.png(pixels)
    assert given.count(NAME.encode()) >= 5
    field, content, meta = convert(given)
    assert (field, meta) == ("png", {})
    assert NAME.encode() not in content
    assert np.array_equal(by_cv2(content), pixels) and by_cv2(content).dtype == pixels.dtype
    names = [
        name
        for name in (b"IHDR", b"IDAT", b"IEND", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"gAMA")
        if name in content
    ]
    assert names == [b"IHDR", b"IDAT", b"IEND"]
    first = given.index(b"IDAT") - 4
    assert given[first : given.index(b"IEND") - 4] in content


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png", "tiff", "webp"])
def test_pictures_are_upright(convert, form, orientation):
    if form == "jpeg":
        given = planted.jpeg(COLOUR, orientation)
    elif form == "png":
        given = planted.png(COLOUR, orientation=orientation)
    elif form == "tiff":
        given = planted.tiff(COLOUR, orientation)
    else:
        given = save(COLOUR, "WEBP", lossless=True, exif=planted.exif(orientation))
    field, content, _ = convert(given)
    assert field == ("jpg" if form == "jpeg" and orientation == 1 else "png")
    stored = by_cv2(given) if form == "jpeg" else COLOUR
    assert np.array_equal(by_cv2(content), TURNS[orientation](stored))
    assert NAME.encode() not in content
    if form == "jpeg":
        assert np.array_equal(by_cv2(content), by_cv2(given, cv2.IMREAD_COLOR))  # which turns by itself


@pytest.mark.parametrize("form", ["BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "GIF"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_other_formats_become_png_with_the_same_pixels(convert, form, pixels):
    settings = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(form, {})
    given = save(pixels, form, **settings)
    field, content, meta = convert(given)
    assert (field, meta) == ("png", {})
    expected = np.array(Image.open(io.BytesIO(given)).convert("RGB")) if form == "GIF" else pixels
    found = by_cv2(content)
    if form in ("WEBP", "GIF") and pixels.ndim == 2:  # which have no grey
        expected = np.stack([pixels] * 3, -1) if found.ndim == 3 else pixels
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_stay(convert, form):
    _, content, _ = convert(save(SIXTEEN, form))
    assert by_cv2(content).dtype == np.uint16 and np.array_equal(by_cv2(content), SIXTEEN)


@pytest.mark.parametrize("pixels", [GREY, SIXTEEN], ids=["8 bits", "16 bits"])
def test_shades_of_a_tiff_in_which_white_is_zero_are_turned_round(convert, pixels):
    tag = b"\x06\x01\x03\x00\x01\x00\x00\x00"  # photometric interpretation, one short
    given = save(pixels, "TIFF").replace(tag + b"\x01", tag + b"\x00")
    inverted = np.iinfo(pixels.dtype).max - pixels
    assert np.array_equal(by_cv2(convert(given)[1]), inverted)


def test_what_is_transparent_is_black_and_hides_nothing(convert):
    alpha = np.zeros((40, 56), np.uint8)
    alpha[:, 20:40], alpha[:, 40:] = 128, 255
    _, content, _ = convert(save(np.dstack([COLOUR, alpha]), "PNG"))
    found = by_cv2(content).astype(int)
    assert found.shape == (40, 56, 3)
    assert not found[:, :20].any() and np.array_equal(found[:, 40:], COLOUR[:, 40:])
    assert np.abs(found[:, 20:40] - COLOUR[:, 20:40] * (128 / 255)).max() <= 1
    _, content, _ = convert(save(Image.fromarray(np.dstack([GREY, alpha]), "LA"), "PNG"))
    assert by_cv2(content).ndim == 2 and not by_cv2(content)[:, :20].any()
    assert np.array_equal(by_cv2(content)[:, 40:], GREY[:, 40:])


@pytest.mark.parametrize(
    "image", [Image.fromarray(COLOUR).quantize(16), Image.fromarray(GREY > 100)], ids=["palette", "1 bit"]
)
def test_palettes_and_bits_become_plain_shades(convert, image):
    _, content, _ = convert(planted.png(image))
    assert NAME.encode() not in content
    assert np.array_equal(by_cv2(content), np.array(image.convert("RGB" if image.mode == "P" else "L")))


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps between them, of each pass: PNG, third edition, 8.1."""


@pytest.mark.parametrize("pixels", [GREY, GREY[:1, :1]], ids=["large", "one pixel"])
def test_what_comes_in_passes_is_written_row_by_row(convert, pixels):
    passes = [pixels[y::down, x::across] for y, x, down, across in ADAM7]
    rows = b"".join(b"\x00" + bytes(row) for own in passes if own.size for row in own)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *pixels.shape[::-1], 8, 0, 0, 0, 1))
    given = START + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(by_cv2(given), pixels)
    _, content, _ = convert(given)
    assert np.array_equal(by_cv2(content), pixels) and content[content.index(b"IHDR") + 16] == 0


def test_names_inside_of_a_png_that_its_pixels_do_not_need_are_lost(convert):
    """In colours of a palette that no pixel has, behind the compressed data, and behind the last row in it."""
    image = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    image.putpalette([9, 9, 9, *(NAME.encode() * 3)])
    rows = b"".join(b"\x00" + bytes(row) for row in GREY)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 56, 40, 8, 0, 0, 0, 0))
    for data in (zlib.compress(rows) + NAME.encode(), zlib.compress(rows + NAME.encode(), 0)):
        _, content, _ = convert(START + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))
        assert NAME.encode() in data and NAME.encode() not in content
        assert np.array_equal(by_cv2(content), GREY)
    end = chunk(b"IEND", NAME.encode())
    _, content, _ = convert(START + header + chunk(b"IDAT", zlib.compress(rows)) + end)
    assert NAME.encode() not in content and content.endswith(chunk(b"IEND", b""))
    given = save(image, "PNG")
    _, content, _ = convert(given)
    assert NAME.encode() in given and NAME.encode() not in content and (by_cv2(content) == 9).all()


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_png_has_no_palette_that_it_does_not_use_and_one_header(convert, pixels):
    given = save(pixels, "PNG")
    first, end = given.index(b"IDAT") - 4, given.index(b"IEND") - 4
    _, content, _ = convert(given[:first] + chunk(b"PLTE", NAME.encode() * 3) + given[first:])
    assert NAME.encode() not in content and content == convert(given)[1]
    for place in (first, end):
        second = chunk(b"IHDR", given[16:29] + NAME.encode())
        assert refused(convert, given[:place] + second + given[place:]) == "it has a second header"


@pytest.mark.parametrize("form", ["TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000"])
def test_names_in_other_formats_are_lost(convert, form):
    if form == "TIFF":
        given = planted.tiff(GREY)
    else:
        settings = {"WEBP": {"exif": planted.exif(), "xmp": planted.XMP, "icc_profile": planted.ICC}}
        settings["GIF"] = {"comment": NAME.encode()}
        given = save(GREY, form, **settings.get(form, {}))
        given = given.replace(b"P5\n", b"P5\n# " + NAME.encode() + b"\n") + NAME.encode()
    assert NAME.encode() in given
    assert NAME.encode() not in convert(given)[1]


def test_images_are_brought_to_a_size(convert):
    given = save(COLOUR, "PNG")
    field, content, meta = convert(given, size=(20, 20))
    assert by_cv2(content).shape == (20, 20, 3) and field == "png" and meta == {"original_size": [40, 56]}
    assert by_cv2(convert(given, shorter_side=20)[1]).shape == (20, 28, 3)
    assert by_cv2(convert(given, shorter_side=41)[1]).shape == (40, 56, 3)
    assert convert(given, size=(40, 56))[1:] == convert(given)[1:]
    assert by_cv2(convert(save(SIXTEEN, "PNG"), size=(20, 28))[1]).dtype == np.uint16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_shrunk_is_filtered(convert, dtype):
    """Stripes finer than the new pixels become grey, not other stripes; a slow wave stays where it is."""
    stripes = np.tile(np.array([0, np.iinfo(dtype).max], dtype), (64, 100))
    found = by_cv2(convert(save(stripes, "PNG"), size=(16, 50))[1])[:, 3:-3] / np.iinfo(dtype).max
    assert np.abs(found - 0.5).max() < 0.02
    wave = smooth(160, 200, 1, dtype)
    small = by_cv2(convert(save(wave, "PNG"), size=(80, 100))[1]).astype(float)
    means = wave.reshape(80, 2, 100, 2).mean((1, 3))
    assert np.abs(small - means).max() < 0.02 * np.iinfo(dtype).max


def test_the_form_can_be_chosen(convert):
    png, jpeg = save(COLOUR, "PNG"), save(COLOUR, "JPEG", quality=60)
    assert convert(jpeg, form="jpeg")[1] == jpeg  # is not lossy twice
    field, content, _ = convert(jpeg, form="png")
    assert field == "png" and np.array_equal(by_cv2(content), by_cv2(jpeg))
    field, content, _ = convert(png, form="jpeg", quality=90)
    assert field == "jpg" and np.abs(by_cv2(content).astype(int) - COLOUR).max() < 12
    assert len(content) > len(convert(png, form="jpeg", quality=30)[1])
    assert refused(convert, save(SIXTEEN, "PNG"), form="jpeg").startswith("it has 16 bits and JPEG has 8: leave out")


def test_what_is_no_image_is_refused_in_a_sentence(convert, tmp_path):
    whole = {
        "JPEG": save(COLOUR, "JPEG"),
        "PNG": save(COLOUR, "PNG"),
        "TIFF": save(COLOUR, "TIFF"),
        "BMP": save(COLOUR, "BMP"),
    }
    assert refused(convert, b"") == "it is empty"
    assert "it is no image of these: JPEG" in refused(convert, b"hello" * 99)
    assert "it is no image" in refused(convert, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for form, data in whole.items():
        for length in (12, len(data) // 2, len(data) - 3):
            assert refused(convert, data[:length]), (form, length)
    for form in ("CMYK", "LAB"):
        image = Image.new(form, (8, 8))
        data = save(image, "JPEG" if form == "CMYK" else "TIFF")
        assert f"its colours are {form}" in refused(convert, data)
    floats = save(np.ones((4, 4), np.float32), "TIFF")
    assert "floating point" in refused(convert, floats)
    assert "its values run from -1 to 5" in refused(convert, save(np.array([[-1, 5]], np.int32), "TIFF"))
    ok, data = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint16))
    assert ok and "16 bits and colours" in refused(convert, data.tobytes())
    with pytest.raises(ValueError, match=r"there is no gone\.png"):
        ConvertImage()(Source(name="gone.png", path=tmp_path / "gone.png"))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"can't be opened"):
        ConvertImage()(Source(name="folder.png", path=tmp_path / "folder.png"))


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".jp2"])
def test_colours_of_more_than_8_bits_are_refused(convert, suffix):
    """Pillow opens them as of 8, without a word."""
    for dtype in (np.uint8, np.uint16):
        ok, data = cv2.imencode(suffix, smooth(96, 96, dtype=dtype)[..., ::-1])
        assert ok
        if dtype == np.uint8:
            assert by_cv2(convert(data.tobytes())[1]).shape == (96, 96, 3)
        else:
            assert "save it with 8 bits, or as grey alone" in refused(convert, data.tobytes())
    assert "colours of more" in refused(convert, b"P3\n# 255\n1 1\n1023\n5 300 1023\n")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_off_or_damaged_inside_is_refused(convert, progressive):
    """Others see grey where its scans end, and no error."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
    whole = save(noise, "JPEG", quality=90, progressive=progressive)
    half = len(whole) // 2
    assert convert(whole)[1] == strip_jpeg(whole)
    for data in (whole[:half] + whole[-2:], whole[:half] + bytes(999) + whole[half + 999 :]):
        assert by_cv2(data).shape == (96, 96)
        assert "its scans are cut off or damaged" in refused(convert, data)


@pytest.mark.parametrize("factors", ["411111", "221111", "211111", "121111", "111111"])
@pytest.mark.parametrize("shape", [(1, 1), (15, 17), (200, 131)])
def test_no_whole_jpeg_is_refused(convert, shape, factors):
    """Whatever its size, its subsampling, its passes."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for progressive in (0, 1):
        settings = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, int(factors, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        ok, data = cv2.imencode(".jpg", noise, [*settings, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
        assert ok and convert(data.tobytes())[0] == "jpg"


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_what_moves_is_refused(convert, form):
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    assert "have their own verb, video" in refused(
        convert, save(frames[0], form, save_all=True, append_images=frames[1:])
    )


def test_bombs_are_refused_before_they_are_unpacked(convert, monkeypatch):
    loaded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: loaded.append(self.size))
    for width in (10_000, 100_000):  # within Pillow's own limit for an error, and beyond
        side = width if width == 100_000 else LARGEST_IMAGE // width + 1
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, side, 8, 2, 0, 0, 0))
        data = START + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        assert "bomb" in refused(convert, data)
    assert not loaded


def test_a_png_that_unpacks_to_more_than_its_pixels_is_not_unpacked_further():
    rows = b"".join(b"\x00" + bytes(row) for row in GREY)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 56, 40, 8, 0, 0, 0, 0))
    data = START + header + chunk(b"IDAT", zlib.compress(rows + bytes(1 << 25))) + chunk(b"IEND", b"")
    assert not strip_png(data).plain()


def test_the_pixels_of_every_public_image_are_kept(medssl_data, tmp_path):
    path = medssl_data / "image" / "pneumoniamnist" / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    images_NHW = np.load(path, allow_pickle=False)["val_images"]
    np.save(tmp_path / "val.npy", images_NHW)
    for row in range(0, len(images_NHW), 7):
        files, _ = ConvertImage()(Source(name=str(row), path=tmp_path / "val.npy", row=row))
        assert np.array_equal(by_cv2(files["png"]), images_NHW[row])


def test_the_same_file_gives_the_same_bytes(convert):
    given = planted.tiff(COLOUR)
    assert convert(given, size=(13, 17))[1] == convert(given, size=(13, 17))[1]
