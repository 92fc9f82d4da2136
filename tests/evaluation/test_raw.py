"""The floor under every encoder: statistics of the amplitudes, or the samples themselves."""

import numpy as np
import pandas as pd
import pytest

from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.evaluation.raw import amplitudes, raw_features

LEADS = ("I", "II", "V1")


def make(root, lengths):
    rng = np.random.default_rng(0)
    records = [
        Record("train", f"ecg-{number}", rng.normal(size=(3, length)).astype(np.float32), {"id": str(number)})
        for number, length in enumerate(lengths)
    ]
    write_shards(root, records, Description(LEADS, 100.0, Labels(names=()), {"made": "for a test"}))
    return ECGShards(root, "train", LEADS), [record.signal_CT for record in records]


def test_amplitudes_are_pandas_summary_of_each_lead():
    ecg = np.random.default_rng(1).normal(0.2, 1.5, (3, 400)).astype(np.float32)
    table = pd.DataFrame(ecg.T.astype(np.float64))
    expected = [table.mean(), table.std(ddof=0), table.min(), table.max(), table.quantile(0.05), table.quantile(0.95)]
    np.testing.assert_allclose(amplitudes(ecg), np.concatenate(expected), rtol=1e-4, atol=1e-5)
    assert amplitudes(np.zeros((12, 5), np.float32)).shape == (72,)


def test_rows_are_the_records_asked_for_in_that_order(tmp_path):
    shards, ecgs = make(tmp_path / "shards", [40] * 9)
    chosen = np.array([7, 0, 3])
    found = raw_features(shards, chosen, "samples")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [ecgs[number].reshape(-1) for number in chosen])
    np.testing.assert_allclose(
        raw_features(shards, chosen, "amplitudes"), [amplitudes(ecgs[number]) for number in chosen], rtol=1e-6
    )


def test_records_of_different_length_have_amplitudes_and_no_samples_in_common(tmp_path):
    shards, _ = make(tmp_path / "shards", [40, 50])
    assert raw_features(shards, np.arange(2), "amplitudes").shape == (2, 18)
    with pytest.raises(ValueError, match=r"rows\.raw is samples, but the records of .* have 40 to 50 samples: set it"):
        raw_features(shards, np.arange(2), "samples")
