"""What an index says of volumes, against numpy; and what must not be indexed."""

import io
import json

import numpy as np
import pytest

from src.data.load_index import load_index
from src.data.modalities import MODALITIES
from src.data.modalities.ct import GatherCTs
from src.data.npz import pack_npz, unpack_npz
from src.data.shards import Shards
from src.transforms.ct_windows import PRESETS, Window
from tests.data.archive import build
from tests.data.conftest import write_tar
from tests.data.volumes import chest
from tools.inspect_shards import main as inspect

WINDOWS = (PRESETS["lung"], PRESETS["mediastinum"], Window("liver", 60, 160))


def seen_in(windows, ct_CDHW):
    """[C, windows, voxels] in 0 .. 1."""
    flat = ct_CDHW.reshape(len(ct_CDHW), 1, -1).astype(np.float64)
    low = np.array([window.center - window.width / 2 for window in windows])[:, None]
    return np.clip((flat - low) / np.array([window.width for window in windows])[:, None], 0, 1)


def sample(array, **meta):
    return {"ct": array, "meta": {"orientation": "SPL", "spacing": [2, 1, 1], **meta}}


def gathered(samples, windows=WINDOWS):
    found = GatherCTs(windows)
    for split, one in samples:
        found.add(split, one)
    return found.facts()


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("channels", [1, 2])
def test_statistics_are_numpys_over_all_training_voxels(kind, channels):
    shapes = [(6, 8, 10), (9, 7, 5), (4, 20, 6)]
    volumes = [np.stack([chest(shape, seed + 10 * c) for c in range(channels)]) for seed, shape in enumerate(shapes)]
    volumes = [volume.astype(kind) + (0.25 if kind is np.float32 else 0) for volume in volumes]
    volumes = [volume.astype(kind) for volume in volumes]
    other = chest((6, 8, 10), 9)[None].repeat(channels, 0).astype(kind) * 2
    facts = gathered([*(("train", sample(volume)) for volume in volumes), ("val", sample(other))])
    seen = np.concatenate([seen_in(WINDOWS, v).reshape(channels * 3, -1) for v in volumes], 1)
    found = facts["statistics"]
    assert np.allclose(found.mean, seen.mean(1), atol=1e-6) and np.allclose(found.std, seen.std(1), atol=1e-6)
    assert found.count == sum(volume[0].size for volume in volumes)
    assert found.low == min(v.min() for v in volumes) and found.high == max(v.max() for v in volumes)
    assert facts["channels"] == channels and facts["shapes"] == ((4, 7, 5), (9, 20, 10))


def test_extremes_of_int16_are_counted():
    values = np.array([-32768, 32767, 0, 0], np.int16).reshape(1, 2, 2, 1).repeat(2, 3)
    facts = gathered([("train", sample(values))], (Window("all", 0, 65536),))
    assert np.isclose(facts["statistics"].mean[0], np.mean([0, 65535 / 65536, 0.5, 0.5]))


def test_what_differs_is_told():
    facts = gathered(
        [("val", sample(chest((4, 5, 6))[None])), ("val", sample(chest((5, 4, 7))[None], spacing=[1, 3, 1]))]
    )
    assert facts["spacing"] == ((1, 1, 1), (2, 3, 1)) and facts["shapes"] == ((4, 4, 6), (5, 5, 7))
    assert facts["orientation"] == "SPL" and facts["statistics"] is None
    one, other = sample(chest((4, 5, 6))[None], spacing=None), sample(chest((4, 5, 6))[None], orientation=None)
    facts = gathered([("val", one), ("val", other)])
    assert facts["spacing"] is None and facts["orientation"] is None and facts["orientations"] == {"SPL": 1}
    facts = gathered([("val", sample(chest((4, 5, 6))[None], orientation=code)) for code in ("RAS", "LPS", "RAS")])
    assert facts["orientation"] is None and facts["orientations"] == {"LPS": 1, "RAS": 2}


@pytest.mark.parametrize(
    ("array", "meta", "wanted"),
    [
        (np.zeros((1, 1, 2, 2), np.int16), {}, "a single slice is no volume"),
        (np.zeros((2, 2, 2, 2), np.int16), {}, "has 2 channels, that of the folder 1"),
        (np.zeros((1, 2, 2, 2), np.int16), {"spacing": [1, 2]}, "three positive numbers of mm"),
        (np.zeros((1, 2, 2, 2), np.int16), {"spacing": [1, 2, 0]}, "three positive numbers of mm"),
        (np.zeros((1, 2, 2, 2), np.int16), {"spacing": "1 2 3"}, "three positive numbers of mm"),
        (np.zeros((1, 2, 2, 2), np.int16), {"orientation": 5}, "three letters"),
        (np.zeros((1, 2, 2, 2), np.int16), {"orientation": "Zebedee"}, "three letters"),
    ],
)
def test_samples_that_must_not_be_trained_on(array, meta, wanted):
    with pytest.raises(ValueError, match=wanted):
        gathered([("train", sample(chest((4, 5, 6))[None])), ("train", sample(array, **meta))])


def test_windows_must_differ_and_be_there():
    with pytest.raises(ValueError, match="two windows are called lung"):
        GatherCTs((PRESETS["lung"], PRESETS["lung"]))
    with pytest.raises(ValueError, match="needs a window at least"):
        GatherCTs(())


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_are_packed_as_numpy_reads_them(compress):
    for array in (
        chest((4, 5, 6))[None],
        chest((4, 5, 6))[None].astype(np.float32) / 3,
        chest((4, 5, 6)).T.astype(">i2"),
    ):
        packed = pack_npz("ct", array, compress)
        assert packed == pack_npz("ct", array.copy(), compress)
        with np.load(io.BytesIO(packed), allow_pickle=False) as file:
            assert file.files == ["ct"] and np.array_equal(file["ct"], array)
        found = unpack_npz(memoryview(packed), "ct", 1 << 20)
        assert np.array_equal(found, array) and not found.flags.writeable
    assert len(pack_npz("ct", np.zeros((1, 50, 50, 50), np.int16), True)) < 2000 < len(pack_npz("ct", np.zeros(1000)))


def decode(data):
    return MODALITIES["ct"].decode([("ct.npz", memoryview(data))], {})["ct"]


def test_members_that_are_no_volume():
    volume = chest((4, 5, 6))[None]
    assert np.array_equal(decode(pack_npz("anything", volume)), volume)
    for array, wanted in (
        (volume[0], r"shape \[4, 5, 6\] is not"),
        (volume[:, :0], "is not"),
        (np.zeros((17, 2, 2, 2), np.int16), "is not"),
        (volume.astype(np.int32), "type int32 is neither"),
        (volume.astype(np.float64), "type float64 is neither"),
        (np.full((1, 2, 2, 2), np.nan, np.float32), "NaN or infinite"),
        (np.full((1, 2, 2, 2), np.inf, np.float32), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=wanted):
            decode(pack_npz("ct", array))
    good = pack_npz("ct", volume, compress=True)
    for bad in (b"", b"PK", good[:-30], good[:60] + bytes([good[60] ^ 0xFF]) + good[61:]):
        with pytest.raises(ValueError):
            decode(bad)
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="unpickled"):
        decode(stream.getvalue())


@pytest.mark.parametrize("name", ["ct", "odd", "a-longer-name"])
def test_a_volume_that_is_not_deflated_is_a_view(name):
    volume = chest((4, 5, 6))[None]
    for packed in (pack_npz(name, volume), savez(**{name: volume}), savez(**{name: volume.astype(np.float32)})):
        data = bytearray(packed)
        found = decode(data)
        assert np.array_equal(found, volume) and found.flags.aligned
        assert found.flags.owndata or np.shares_memory(found, np.frombuffer(data, np.uint8))
    assert np.shares_memory(decode(data := pack_npz("ct", volume)), np.frombuffer(data, np.uint8))


def savez(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_no_byte_of_a_volume_changes_unseen():
    """Each byte in turn: it is refused, or what numpy reads is what was packed; names and times may differ."""
    volume = chest((2, 3, 4))[None]
    good = pack_npz("ct", volume)
    for place in range(len(good)):
        for bit in (0x01, 0x80):
            bad = good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]
            try:
                assert np.array_equal(decode(bad), volume), place
            except ValueError:
                continue


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("src.data.modalities.ct.LARGEST_VOLUME", 1 << 20)
    bomb = pack_npz("ct", np.zeros((1, 200, 200, 200), np.int16), compress=True)
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="unpacks to 16,000,128 bytes, more than 1,048,576"):
        decode(bomb)


def test_tars_of_others_are_indexed(tmp_path, capsys):
    """As any WebDataset user writes them, without spacing and orientation."""
    stream = io.BytesIO()
    np.savez(stream, chest((4, 5, 6))[None].astype(np.float32))
    members = [("a.ct.npz", stream.getvalue()), ("a.txt", b"No nodule."), ("b.ct.npz", stream.getvalue())]
    write_tar(tmp_path / "train-0.tar", members)
    code, out, err = build(capsys, "index", "--input", tmp_path)
    assert code == 0, err
    index, _ = load_index(tmp_path)
    assert index.modality == "ct" and index.orientation is None and index.spacing is None
    assert (
        "left and right may differ from one to the next" in out and "windows lung -600,1500, mediastinum 40,400" in out
    )
    with Shards(tmp_path, "train") as shards:
        first, _ = shards.read(np.arange(2))
    assert first["text"] == "No nodule." and np.array_equal(first["ct"][0], chest((4, 5, 6)).astype(np.float32))
    code, _, err = build(capsys, "index", "--input", tmp_path, "--leads", "I")
    assert code == 1


def test_inspection_tells_of_volumes(tmp_path, capsys):
    for split, seed in (("train", 0), ("val", 1)):
        meta = {"orientation": "SPL", "spacing": [2.5, 1, 1]}
        volumes = [pack_npz("ct", chest((4 + seed, 5, 6), seed)[None]), json.dumps(meta).encode()]
        write_tar(tmp_path / f"{split}-0.tar", [("x" + split + ".ct.npz", volumes[0]), (f"x{split}.json", volumes[1])])
    assert build(capsys, "index", "--input", tmp_path)[0] == 0
    assert inspect([str(tmp_path), "--verify", "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert "shapes: 4 x 5 x 6 voxels; orientations: SPL in 1" in out and "spacing: 2.5 x 1 x 1 mm" in out
    found = json.loads((tmp_path / "found.json").read_text())
    seen = seen_in((PRESETS["lung"], PRESETS["mediastinum"]), chest((5, 5, 6), 1)[None])[0].mean(1)
    assert np.allclose(found["splits"]["val"]["contents"]["statistics"]["mean"], seen, atol=1e-6)
