"""One input of each sample, whatever its modality: made-up samples, what fits them and what is refused."""

import json

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS, DataConfig, SyntheticConfig
from src.config.inputs import check_input, check_one_each
from src.data.inputs import InputBatch, open_shards, preprocessing_of, shards_for, sources_of
from src.data.synthetic import make_synthetic
from src.models.any_config import read_encoder_section
from src.randomness import Streams
from src.transforms.plain import plain_part

SIDES = {"image": [28, 30], "video": [12, 28, 30], "ct": [12, 26, 30]}
TRANSFORMS = {
    "image": {"modality": "image", "size": 24, "channels": 1, "mean": [0.4], "std": [0.2]},
    "video": {
        "modality": "video",
        "size": 24,
        "channels": 1,
        "mean": [0.4],
        "std": [0.2],
        "clip": {"frames": 4, "stride": 2},
    },
    "ct": {"modality": "ct", "size": [8, 24, 24]},
}
ENCODERS = {
    "image": {"name": "vit_tiny", "colors": 1, "input": [24, 24], "patch": [8, 8]},
    "video": {"name": "vit_tiny", "colors": 1, "input": [4, 24, 24], "patch": [2, 8, 8]},
    "ct": {"name": "vit_tiny", "colors": 2, "input": [8, 24, 24], "patch": [4, 8, 8]},
}
SHAPES = {"image": (1, 24, 24), "video": (1, 4, 24, 24), "ct": (2, 8, 24, 24)}
KINDS = list(SIDES)


def data_of(root, modality, **keys):
    made = {"samples": 12, "sides": SIDES[modality]}
    words = {"root": str(root), "batch_size": 4, "synthetic": made, "transform": TRANSFORMS[modality]} | keys
    return DataConfig.model_validate_json(json.dumps(words))


def encoder_of(modality, **keys):
    return read_encoder_section(json.dumps(ENCODERS[modality] | keys))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    for modality in KINDS:
        open_shards(data_of(root / modality, modality)).close()
    return root


def streams_of(samples):
    return Streams.of_samples(0, np.zeros(len(samples), np.int64), np.array(samples))


@pytest.mark.parametrize("modality", KINDS)
def test_a_batch_has_one_input_of_each_sample(folder, modality):
    data, encoder = data_of(folder / modality, modality), encoder_of(modality)
    check_input(data, encoder)
    check_one_each(data)
    shards = open_shards(data)
    make = InputBatch(data, preprocessing_of(data, shards, encoder), 0)

    def batch(numbers):
        streams = streams_of(numbers)
        read = shards.read(np.array(numbers))
        if make.prepare is not None:
            read = [make.prepare(sample, streams[row : row + 1]) for row, sample in enumerate(read)]
        return make(0, read, streams)[modality].numpy()

    assert (make.prepare is None) == (modality == "image"), "an image is decoded when it is read"
    together = batch([0, 3, 5])
    assert together.shape == (3, *SHAPES[modality])
    assert np.array_equal(batch([3])[0], together[1]), "a sample does not depend on the others"


@pytest.mark.parametrize("modality", KINDS)
def test_made_up_samples_are_of_two_sizes_of_chambers(folder, modality):
    data = data_of(folder / modality, modality)
    with open_shards(data) as shards:
        samples = shards.read(np.arange(len(shards)))
        assert shards.label_names == ("large",)
        assert [sample["labels"][0] for sample in samples] == [float(s["meta"]["radius"] >= 0.25) for s in samples]
        bright = [float(plain_part(data.transform).windows_of(sample, 1)[:, 0].mean()) for sample in samples]
    radii = [sample["meta"]["radius"] for sample in samples]
    assert abs(np.corrcoef(radii, bright)[0, 1]) > 0.7, "the chamber is in the pixels"


@pytest.mark.parametrize("modality", KINDS)
def test_made_up_samples_are_a_function_of_their_config(folder, tmp_path, modality):
    made = SyntheticConfig(samples=12, sides=tuple(SIDES[modality]))
    make_synthetic(tmp_path / "again", made, STANDARD_LEADS, modality)
    names = sorted(path.name for path in (folder / modality).iterdir())
    assert [path.name for path in sorted((tmp_path / "again").iterdir())] == names
    assert all((folder / modality / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    with pytest.raises(ValueError, match="holds other shards"):
        make_synthetic(tmp_path / "again", made.model_copy(update={"seed": 1}), STANDARD_LEADS, modality)


def test_shards_of_another_modality_are_refused(folder):
    with pytest.raises(ValueError, match=r"holds samples of the modality image, but ct is asked for"):
        open_shards(data_of(folder / "image", "ct", synthetic=None))
    with pytest.raises(ValueError, match=r"holds samples of the modality image, expected are ECGs"):
        open_shards(DataConfig(root=str(folder / "image"), batch_size=4))
    with pytest.raises(ValueError, match="modality video, but image is asked for"):
        shards_for(plain_part(data_of("x", "image").transform), folder / "video", "train")
    mixed = {"other": {"root": str(folder / "video")}}
    with pytest.raises(ValueError, match="modality video, but image is asked for"):
        data = data_of(folder / "image", "image", mixture=mixed)
        sources_of(data, open_shards(data))


def test_a_mixture_of_images_has_the_samples_of_both(folder):
    data = data_of(folder / "image", "image", mixture={"other": {"root": str(folder / "image"), "split": "val"}})
    main = open_shards(data)
    assert len(sources_of(data, main)) == len(main) + len(open_shards(data, "val"))


def test_channels_of_cts_are_those_of_their_shards_times_windows(folder):
    data = data_of(folder / "ct", "ct")
    with pytest.raises(
        ValueError, match=r"model.encoder.colors is 3, but the CTs .* 1 channels in 2 windows: set it to 2"
    ):
        preprocessing_of(data, open_shards(data), encoder_of("ct", colors=3))


@pytest.mark.parametrize(
    ("modality", "encoder", "message"),
    [
        ("image", {"input": [32, 32]}, r"takes inputs of 32 x 32, but data.transform.size makes images of 24 x 24"),
        ("image", {"colors": 3}, r"model.encoder.colors is 3, but data.transform.channels is 1"),
        ("video", {"input": [8, 24, 24]}, r"inputs of 8 x 24 x 24, but .*clip.frames .* make clips of 4 x 24 x 24"),
        ("ct", {"input": [16, 24, 24]}, r"inputs of 16 x 24 x 24, but .*size makes CT volumes of 8 x 24 x 24"),
    ],
)
def test_an_encoder_of_another_input_is_refused(modality, encoder, message):
    with pytest.raises(ValueError, match=message):
        check_input(data_of("x", modality), encoder_of(modality, **encoder))


def test_an_encoder_of_images_is_not_for_ecgs():
    data = DataConfig(root="x", batch_size=4)
    with pytest.raises(ValueError, match=r"takes inputs of 2 axes \(24 x 24\), but data has ECGs"):
        check_input(data, encoder_of("image"))


@pytest.mark.parametrize(
    ("modality", "keys", "message"),
    [
        ("video", {"videos": 2}, "data.transform.videos makes several videos of a study"),
        ("video", {"clip": {"frames": 4, "clips": 2}}, "data.transform.clip.clips makes several clips of a video"),
        ("ct", {"patches": 2}, "data.transform.patches makes several parts of a volume"),
    ],
)
def test_several_inputs_of_a_sample_are_refused_where_one_is_taken(modality, keys, message):
    with pytest.raises(ValueError, match=message):
        check_one_each(data_of("x", modality, transform=TRANSFORMS[modality] | keys))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"short": "pad"}, r"data.transform.short: pad is not for this objective, .*: leave it out"),
        ({"lengths": [100], "short": "pad"}, r"data.transform.lengths is not for this objective, .*: leave it out$"),
    ],
)
def test_ecgs_of_several_lengths_are_refused_unless_padding_is_left_out_of_all(transform, message):
    data = DataConfig.model_validate_json(json.dumps({"root": "x", "batch_size": 4, "transform": transform}))
    with pytest.raises(ValueError, match=message):
        check_one_each(data)
    check_one_each(DataConfig(root="x", batch_size=4))
    if "lengths" in transform:
        return
    encoders = {"s4": True, "ecg_tiny": True, "ecg_lead_tiny": True, "resnet1d_18": False}
    for name, knows in encoders.items():
        keys = {"name": name, "length": 400} | ({} if name.startswith("resnet") else {"patch": 10})
        encoder = read_encoder_section(json.dumps(keys))
        if knows:
            check_one_each(data, encoder)
        else:
            with pytest.raises(ValueError, match="short is pad, but the encoder .* can't be told what is padding"):
                check_one_each(data, encoder)


def test_a_batch_tells_where_ecgs_end_only_where_one_is_short(tmp_path):
    words = {"root": str(tmp_path), "batch_size": 4, "synthetic": {"samples": 12, "length": 500, "shortest": 200}}
    data = DataConfig.model_validate_json(json.dumps(words | {"transform": {"short": "pad"}}))
    encoder = read_encoder_section('{"name": "ecg_tiny", "length": 400, "patch": 10}')
    shards = open_shards(data)
    make = InputBatch(data, preprocessing_of(data, shards, encoder), 0)
    lengths = [sample["ecg"].shape[1] for sample in shards.read(np.arange(len(shards)))]
    long, short = [n for n, length in enumerate(lengths) if length >= 400][0], int(np.argmin(lengths))
    assert lengths[short] < 400
    for numbers in ([long], [long, short]):
        batch = make(0, shards.read(np.array(numbers)), streams_of(numbers))
        assert batch.keys() == {"ecg", "keep"} - ({"keep"} if short not in numbers else set())
    assert batch["keep"].sum(1).tolist() == [400, lengths[short]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"synthetic": {"samples": 4, "sides": [8, 8], "shortest": 4}}, "data.synthetic.shortest is for ECGs"),
        ({"leads": ["I"]}, "data.leads is for ECGs, and data.transform.modality is image"),
        (
            {"synthetic": {"samples": 4}},
            "sides must have 2 numbers where data.transform.modality is image",
        ),
        ({"transform": {}}, "data.synthetic.sides is for what is no ECG"),
        ({"transform": {"modality": "xray"}}, "'ecg', 'image', 'video', 'ct'"),
    ],
)
def test_keys_of_another_modality_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        data_of("x", "image", **keys)
