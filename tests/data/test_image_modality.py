"""Images come out of shards with the pixels that Pillow finds in them, and the index tells what numpy counts."""

import io

import numpy as np
import pytest
import webdataset
from PIL import Image

from src.data.index import Labels
from src.data.inspect import inspect
from src.data.load_index import load_index
from src.data.make_index import Contents, find_tars, make_index
from src.data.modalities.image import GatherImages, decode_image
from src.data.shards import Shards
from src.data.show_inspection import as_text
from tests.data.conftest import write_tar
from tests.data.image_archive import encode
from tests.data.planted import smooth
from tools.build_shards import main
from tools.inspect_shards import main as inspect_shards

RNG = np.random.default_rng(0)
GREY, COLOUR = smooth(33, 41, 1), smooth(33, 41)
SIXTEEN = RNG.integers(0, 65536, (33, 41), np.uint16)


def by_pillow(data):
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("pixels", [GREY, COLOUR, SIXTEEN], ids=["grey", "colour", "16 bits"])
def test_a_png_comes_out_as_it_was(pixels):
    found = decode_image(memoryview(encode(pixels)))
    assert found.dtype == pixels.dtype and np.array_equal(found, pixels)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_jpeg_comes_out_as_pillow_decodes_it(quality, subsampling, seed):
    noise = np.random.default_rng(seed).integers(-30, 30, COLOUR.shape)
    pixels = np.clip(smooth(33, 41, seed=seed) + noise, 0, 255).astype(np.uint8)
    for own in (pixels, pixels[..., 0]):
        data = encode(own, "JPEG", quality=quality, subsampling=subsampling)
        assert np.array_equal(decode_image(memoryview(data)), by_pillow(data))


def test_images_of_other_tools_are_read_too():
    palette = encode(np.array(Image.fromarray(COLOUR)), "WEBP", lossless=True)
    assert np.array_equal(decode_image(memoryview(palette)), COLOUR)
    quantized = Image.fromarray(COLOUR).quantize(16)
    stream = io.BytesIO()
    quantized.save(stream, "PNG")
    assert np.array_equal(decode_image(memoryview(stream.getvalue())), np.array(quantized.convert("RGB")))
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encode(COLOUR, "JPEG", exif=turned.tobytes())
    assert np.array_equal(decode_image(memoryview(data)), np.rot90(by_pillow(data), -1))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_what_is_cut_off_or_damaged_is_told(form):
    data = encode(COLOUR, form)
    for length in (0, 3, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="its image can't be decoded"):
            decode_image(memoryview(data[:length]))
    with pytest.raises(ValueError, match="can't be decoded"):
        decode_image(memoryview(b"hello" * 99))


def gather(*images, split="train"):
    found = GatherImages()
    for image in images:
        found.add(split, {"image": image})
    return found


@pytest.mark.parametrize("depths", [(np.uint8,), (np.uint16,), (np.uint8, np.uint16)])
def test_statistics_are_those_of_all_pixels(depths):
    images = [
        RNG.integers(0, np.iinfo(dtype).max + 1, (rng, 9), dtype)
        for rng, dtype in zip(range(3, 9), depths * 6, strict=False)
    ]
    images[0][:] = np.iinfo(images[0].dtype).max  # the largest sums that can be
    values = np.concatenate([(image / np.iinfo(image.dtype).max).ravel() for image in images])
    statistics = gather(*images).facts()["statistics"]
    assert statistics.count == values.size
    assert statistics.mean == pytest.approx([values.mean()], rel=1e-12)
    assert statistics.std == pytest.approx([values.std()], rel=1e-9)
    assert gather(*images[::-1]).facts()["statistics"] == statistics, "in any order"
    assert gather(*images, split="test").facts()["statistics"] is None


def test_grey_images_are_in_all_colours_where_there_are_some():
    values = np.concatenate([np.stack([GREY] * 3, -1).reshape(-1, 3), COLOUR.reshape(-1, 3)]) / 255
    statistics = gather(GREY, COLOUR).facts()["statistics"]
    assert statistics.mean == pytest.approx(values.mean(0)) and statistics.std == pytest.approx(values.std(0))


def test_sizes_channels_depths_and_blanks_are_counted():
    facts = gather(GREY, COLOUR[:9], SIXTEEN[:, :5], np.full((50, 7), 3, np.uint8)).facts()
    assert (facts["heights"], facts["widths"]) == ((9, 50), (5, 41))
    assert (facts["channels"], facts["bits"], facts["blank"]) == ((1, 3), (8, 16), 1)
    counts = gather(GREY, GREY, COLOUR).counts()
    assert counts["sizes"] == {"33 x 41": 3} and counts["channels"] == {1: 2, 3: 1} and counts["bits"] == {8: 3}


def write_as_others(folder, split="train", count=6, **more):
    """With WebDataset's own writer, as ImageNet is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [smooth(16, 16 + number, seed=number) for number in range(count)]
    with webdataset.TarWriter(str(folder / f"{split}-0.tar")) as writer:
        for number, image in enumerate(images):
            writer.write({"__key__": f"{split}{number}", "png": image, "cls": number % 3, **more})
    return images


def test_images_with_classes_of_others_are_indexed_and_read(tmp_path, capsys):
    images = write_as_others(tmp_path, txt="no finding")
    assert main(["index", "--input", str(tmp_path), "--labels", "a", "b", "c"]) == 0
    assert "train: 6 samples of unnamed patients, 6 with a report" in capsys.readouterr().out
    index, _ = load_index(tmp_path)
    assert (index.modality, index.labels) == ("image", Labels(names=("a", "b", "c"), kind="multiclass"))
    with Shards(tmp_path, "train") as shards:
        for number, sample in enumerate(shards.read(np.arange(6))):
            assert np.array_equal(sample["image"], images[number]) and sample["text"] == "no finding"
            assert sample["labels"].tolist() == [float(place == number % 3) for place in range(3)]


def test_classes_need_their_names_and_no_more_of_them_than_there_are(tmp_path, capsys):
    write_as_others(tmp_path)
    assert main(["index", "--input", str(tmp_path)]) == 1
    assert "train-0.tar holds classes (.cls): name them with --labels" in capsys.readouterr().err
    assert main(["index", "--input", str(tmp_path), "--labels", "a", "b"]) == 1
    assert "sample train2 can't be used: its cls b'2' is no number from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize("number", [b"", b"-1", b"1.5", b"one", b"\xc2\xb2"])
def test_what_is_no_class_is_told(tmp_path, capsys, number):
    write_tar(tmp_path / "train-0.tar", [("a.png", encode(GREY)), ("a.cls", number)])
    assert main(["index", "--input", str(tmp_path), "--labels", "a", "b"]) == 1
    assert "is no number from 0 to 1" in capsys.readouterr().err


def test_labels_of_the_json_go_before_a_class(tmp_path):
    members = [
        ("a.jpg", encode(GREY, "JPEG")),
        ("a.cls", b"1\n"),
        ("a.json", {"labels": [1, None]}),
        ("b.jpeg", encode(COLOUR, "JPEG")),
    ]
    write_tar(tmp_path / "train-0.tar", members)
    make_index(tmp_path, find_tars(tmp_path), Contents("image", Labels(names=("a", "b")), {}))
    with Shards(tmp_path, "train") as shards:
        one, two = shards.read(np.arange(2))
    assert one["labels"][0] == 1 and np.isnan(one["labels"][1]) and np.isnan(two["labels"]).all()
    assert one["image"].shape == (33, 41) and two["image"].shape == (33, 41, 3)


def test_two_images_of_one_sample_are_told(tmp_path, capsys):
    write_tar(tmp_path / "train-0.tar", [("a.jpg", encode(GREY, "JPEG")), ("a.png", encode(GREY))])
    assert main(["index", "--input", str(tmp_path)]) == 1
    assert "it holds several images (jpg, png): keep one of them" in capsys.readouterr().err


def test_what_a_folder_holds_is_told(tmp_path, capsys):
    write_as_others(tmp_path)
    write_as_others(tmp_path, "val", 2)
    assert inspect_shards([str(tmp_path), "--index", "--labels", "a", "b", "c"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("images of 16 x 16-21, RGB, 8 bits")
    assert "sizes, the most frequent: 16 x 16 in 1" in told and "and 1 more" in told
    assert "channels: 6 RGB; 6 of 8 bits; of one shade throughout: 0" in told
    assert "between train and val: 2 contents and 0 patients are in both" in told
    index, _ = load_index(tmp_path)
    found = inspect(tmp_path, index, verify=True)
    assert not found.faults and as_text(found) + "\n" == told
    faults = inspect(tmp_path, index.model_copy(update={"blank": 1}), verify=True).faults
    assert [fault.why for fault in faults] == ["tells blank 1, and the tars hold 0"]
