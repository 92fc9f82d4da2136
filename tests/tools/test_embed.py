"""python -m tools.embed: an array and a table of equal rows, as an encoder and the shards give them."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import torch

from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder
from src.models.config import EncoderConfig
from src.transforms.preprocessing import Preprocessing
from tests.commands import refuse, succeed
from tools.embed import main

LEADS = ("I", "II", "V1")
METAS = [
    {"age": 50, "sex": "f", "flag": True, "mixed": 3},
    {"age": 61.5, "sex": "m", "flag": 1, "mixed": "three"},
    {"sex": None, "note": "übel", "gaps": {"I": 1.0}},
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Shards of eleven records in tars of four, and an encoder."""
    root = tmp_path_factory.mktemp("embed")
    rng = np.random.default_rng(0)
    records = [
        Record(
            split="val" if number >= 9 else "train",
            key=f"ecg-{number}",
            signal_CT=rng.normal(0, 0.4, (3, 100 + 17 * number)).astype(np.float32),
            meta={
                "id": f"i{number}",
                "patient_id": f"p{number}",
                "labels": [number % 2, None if number % 3 else 1],
                **METAS[number % 3],
            },
        )
        for number in range(11)
    ]
    description = Description(LEADS, 100.0, Labels(names=("odd", "third")), {"made": "for a test"})
    write_shards(root / "shards", records, description, samples_per_shard=4)
    config = EncoderConfig(name="ecg_tiny", leads=3, length=100, patch=10, width=16, depth=1, heads=2)
    preprocessing = Preprocessing(leads=LEADS, sampling_rate=100.0, length=100, normalize="sample", clip=5.0)
    torch.manual_seed(2)
    encoder = Encoder(config, preprocessing)
    export_encoder(root / "encoder", encoder.network.state_dict(), EncoderPart("teacher", config, preprocessing))
    return root


def words(places, output, *more):
    return ["--encoder", str(places / "encoder"), "--shards", str(places / "shards"), "--output", str(output), *more]


def embed(capsys, *given):
    """(exit code, stdout, stderr)."""
    code = main([str(word) for word in given])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("pool", ["mean", "mean+std", "tokens"])
@pytest.mark.parametrize("windows", [None, 2])
def test_rows_are_the_split_in_its_order_as_the_encoder_embeds_it(places, tmp_path, capsys, pool, windows):
    given = words(places, tmp_path / "out", "--split", "train", "--pool", pool, "--batch-size", "4")
    code, out, err = embed(capsys, *given, *(["--windows", windows] if windows else []))
    assert code == 0 and not err and "9 records" in out
    features = np.load(tmp_path / "out" / "features.npy")
    table = pyarrow.parquet.read_table(tmp_path / "out" / "records.parquet").to_pandas()
    samples = ECGShards(places / "shards", "train", LEADS).read(np.arange(9))
    expected = load_encoder(places / "encoder").embed_samples(samples, pool, windows)
    assert features.dtype == np.float32 and features.shape == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert table.key.tolist() == [sample["key"] for sample in samples]
    assert table.id.tolist() == [f"i{number}" for number in range(9)]
    assert table.patient_id.tolist() == [f"p{number}" for number in range(9)]


def test_the_table_holds_labels_and_the_metadata_that_fits_a_cell(places, tmp_path, capsys):
    """A column of numbers stays one, one of several kinds becomes words; lists and the like are left out."""
    assert embed(capsys, *words(places, tmp_path, "--split", "val"))[0] == 0
    assert embed(capsys, *words(places, tmp_path / "train", "--split", "train"))[0] == 0
    table = pyarrow.parquet.read_table(tmp_path / "train" / "records.parquet")
    rows = table.to_pylist()
    assert [row["label/odd"] for row in rows] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert [row["label/third"] for row in rows] == [1, None, None] * 3
    assert [row["age"] for row in rows] == [50.0, 61.5, None] * 3
    assert [row["sex"] for row in rows] == ["f", "m", None] * 3
    assert [row["mixed"] for row in rows] == ["3", "three", None] * 3
    assert [row["flag"] for row in rows] == ["True", "1", None] * 3
    assert [row["note"] for row in rows] == [None, None, "übel"] * 3
    assert not {"gaps", "leads", "labels"} & set(table.column_names)


def test_a_folder_that_is_taken_is_refused_and_stays(places, tmp_path, capsys):
    (tmp_path / "theirs").write_text("hers")
    code, _, err = embed(capsys, *words(places, tmp_path, "--split", "val"))
    assert code == 1 and f"error: --output: {tmp_path} is there already; name a new folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    code, _, err = embed(capsys, *words(places, tmp_path / "theirs", "--split", "val"))
    assert code == 1 and "is there already" in err and (tmp_path / "theirs").read_text() == "hers"


def changed(places, tmp_path, **values):
    """The encoder, as if it had been trained on other ECGs."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in (places / "encoder").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "preprocessing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"sampling_rate": 500.0},
            "but the encoder was trained at 500 Hz: build the shards with",
        ),
        ({"leads": ["I", "II", "V2"]}, "[I, II, V2]"),
        ({"length": 120}, "sample ecg-0 has 100 samples of each lead; the encoder needs 120 or more"),
    ],
)
def test_an_encoder_of_other_ecgs_is_told_in_a_sentence(places, tmp_path, capsys, values, message):
    given = words(places, tmp_path / "out", "--split", "train")
    given[1] = str(changed(places, tmp_path, **values))
    code, _, err = embed(capsys, *given)
    assert code == 1 and err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "nowhere"], "has no split nowhere"),
        (["--split", "val", "--windows", "0"], "--batch-size and --windows must be 1 or more"),
        (["--split", "val", "--batch-size", "0"], "--batch-size and --windows must be 1 or more"),
        (["--split", "val", "--device", "abacus"], "abacus is not a device; use cpu or cuda:0"),
        (["--split", "val", "--device", "cuda:77"], "cuda:77 is not there; this machine has"),
    ],
)
def test_flags_that_cannot_be_are_told_in_a_sentence(places, tmp_path, capsys, more, message):
    code, _, err = embed(capsys, *words(places, tmp_path / "out", *more))
    assert code == 1 and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_a_sentence(places, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _, err = embed(capsys, *words(places, tmp_path / "file" / "out", "--split", "val"))
    assert code == 1 and err.startswith("error: ") and len(err.splitlines()) == 1


@pytest.mark.distributed
def test_the_command_runs_from_the_repositorys_root(places, tmp_path):
    given = ["tools.embed", *words(places, tmp_path / "out", "--split", "val")]
    assert "2 records, 16 features each" in succeed(*given, script="-m")
    assert "is there already" in refuse(*given, script="-m")
