"""Small shards folders, made anew for tests that damage them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from src.data.builders.mitbih import read_beats
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from tests.data.archive import signal, write_wfdb

LEADS = ("I", "II", "V1")
SCALE = [0.005, 0.001, 0.0048828125]


def records(count=20, samples=40, seed=0, **changes):
    """Int16 records, the last quarter for validation, two of each patient; every third has an unknown label."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        patient = number // 2
        record = {
            "split": "val" if patient >= count * 3 // 8 else "train",
            "key": f"ecg-{number:04d}",
            "signal_CT": rng.integers(-32768, 32768, (len(LEADS), samples), np.int16),
            "meta": {
                "id": str(number),
                "patient_id": str(patient),
                "labels": [number % 2, None if number % 3 == 0 else 1],
                "scale": SCALE,
            },
        }
        yield Record(**{**record, **changes})


def describe(leads=LEADS, rate=100.0):
    return Description(tuple(leads), rate, Labels(names=("even", "known")), {"made": "for a test"})


@pytest.fixture
def folder(tmp_path) -> Path:
    """20 records in tars of 6."""
    write_shards(tmp_path / "shards", records(), describe(), samples_per_shard=6)
    return tmp_path / "shards"


@pytest.fixture
def archive(tmp_path) -> Path:
    """Two good WFDB records of two patients, in the folders of the patients."""
    write_wfdb(tmp_path / "ecgs" / "anna", "one", signal(1))
    write_wfdb(tmp_path / "ecgs" / "bert", "two", signal(2))
    return tmp_path / "ecgs"


@pytest.fixture(scope="session")
def beats_npz(medssl_data) -> Path:
    path = medssl_data / "ecg" / "mitdb" / "beats.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="session")
def mitdb(beats_npz, tmp_path_factory) -> Path:
    """All beats as shards; not to be changed."""
    root = tmp_path_factory.mktemp("mitdb") / "shards"
    beats = read_beats(beats_npz)
    write_shards(root, beats.records(), beats.description())
    return root


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write_tar(path, members, **settings):
    """A tar of (name, bytes), as anyone might write it; dicts become JSON, arrays .npy."""
    with tarfile.open(path, "w", **settings) as tar:
        for name, content in members:
            if isinstance(content, np.ndarray):
                content = npy(content)
            elif isinstance(content, dict):
                content = json.dumps(content).encode()
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path
