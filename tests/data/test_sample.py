"""Bytes become samples exactly, and nothing is unpickled."""

import io
import json
from contextlib import suppress

import numpy as np
import pytest

from src.data.arrays import decode_npy
from src.data.millivolt import to_millivolt
from src.data.modalities.ecg import ECG
from src.data.sample import Row, decode_meta, decode_sample
from tests.data.conftest import npy

EVERY_INT16 = np.arange(-32768, 32768, dtype=np.int16)


@pytest.mark.parametrize("scale", [0.005, 0.001, 1 / 200, 1 / 204.8, 0.00488, 1 / 3, 0.1, 1e-6, 2.44140625e-4, 7e5])
def test_every_int16_comes_back_from_millivolt_exactly(scale):
    ecg = to_millivolt(EVERY_INT16[None], [scale])[0]
    assert ecg.dtype == np.float32
    assert np.array_equal(np.rint(ecg / np.float32(scale)).astype(np.int64), EVERY_INT16)
    assert np.array_equal(np.rint(ecg / scale).astype(np.int64), EVERY_INT16)


@pytest.mark.parametrize("gain", [200.0, 1000.0, 204.8, 2963.77, 7247.0, 1.052e4, 0.7, 12.84])
def test_millivolts_are_the_nearest_float32_to_units_by_gain(gain):
    leads = np.stack([EVERY_INT16, EVERY_INT16])
    assert np.array_equal(to_millivolt(leads, [1 / gain] * 2)[1], (EVERY_INT16 / gain).astype(np.float32))
    assert np.array_equal(to_millivolt(leads, [1 / gain, 1 / 3])[0], (EVERY_INT16 / gain).astype(np.float32))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f4", "<f2", "<f8", "i1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(2, 5), (1, 1), (12, 3)])
def test_npy_is_read_as_numpy_reads_it(dtype, order, shape):
    array = np.asarray(np.random.default_rng(0).integers(-100, 100, shape), dtype, order=order)
    data = npy(array)
    found, expected = decode_npy(memoryview(data)), np.load(io.BytesIO(data))
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_npy_of_version_2_is_read():
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(6).reshape(2, 3), version=(2, 0))
    assert np.array_equal(decode_npy(memoryview(stream.getvalue())), [[0, 1, 2], [3, 4, 5]])


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


def test_objects_are_refused_not_unpickled():
    with pytest.raises(ValueError, match="would have to be unpickled"):
        decode_npy(memoryview(npy(np.array([[Bomb()]]))))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:40],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: b"PK" + data[2:],
        lambda data: data[:6] + b"\x09" + data[7:],
        lambda data: data[:20] + b"\xff" + data[21:],
    ],
)
def test_broken_npy_is_a_value_error(spoil):
    with pytest.raises(ValueError, match=r".+"):
        decode_npy(memoryview(spoil(npy(np.zeros((2, 3), np.int16)))))


def decode(array, meta, labels=0):
    data, text = npy(array), (meta if isinstance(meta, str) else json.dumps(meta)).encode()
    row = Row(b"k", 0, len(data) + len(text), 0, (len(data), len(text)), (-1, -1), ((0, len(data)),))
    return decode_sample(row, data + text, labels, ECG, ("ecg.npy",))


def test_whatever_is_wrong_with_an_npy_is_a_value_error():
    """numpy's own parser raises TokenError, SyntaxError and TypeError as well."""
    rng, whole = np.random.default_rng(0), npy(np.zeros((2, 12), np.int16))
    for _ in range(2000):
        damaged = bytearray(whole)
        for place in rng.integers(0, 128, rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        with suppress(ValueError):
            decode_npy(memoryview(bytes(damaged)))


def test_sample_has_millivolt_labels_with_nan_and_the_rest_of_its_json():
    sample = decode(np.array([[2, 4], [10, -10]], np.int16), {"scale": [0.5, 0.1], "labels": [1, None], "id": "7"}, 2)
    assert np.allclose(sample["ecg"], [[1, 2], [1, -1]])
    assert np.array_equal(sample["labels"], np.array([1, np.nan], np.float32), equal_nan=True)
    assert sample["meta"] == {"scale": [0.5, 0.1], "id": "7"}


def test_labels_are_nan_where_the_json_has_none():
    assert np.isnan(decode(np.zeros((1, 2), np.float32), {}, 3)["labels"]).tolist() == [True] * 3
    assert decode(np.zeros((1, 2), np.float32), {})["labels"].shape == (0,)


def test_float_ecg_is_a_writable_copy_in_millivolt():
    values = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    sample = decode(values, {})
    assert np.array_equal(sample["ecg"], values)
    sample["ecg"][0, 0] = 9


@pytest.mark.parametrize(
    ("array", "meta", "labels", "sentence"),
    [
        (np.zeros((1, 2), np.int16), {}, 0, "int16 needs scale"),
        (np.zeros((1, 2), np.int16), {"scale": [0.1, 0.1]}, 0, "each of 1 leads"),
        (np.zeros((1, 2), np.int16), {"scale": [0.0]}, 0, "positive"),
        (np.zeros((1, 2), np.int16), {"scale": 0.1}, 0, "not a list of numbers"),
        (np.zeros((1, 2), np.int16), {"scale": [[0.1]]}, 0, "not a list of numbers"),
        (np.zeros((1, 2), np.int16), {"scale": ["a"]}, 0, "positive"),
        (np.zeros((1, 2), np.float32), {"scale": [0.1]}, 0, "mV already"),
        (np.zeros((1, 2), np.int32), {"scale": [0.1]}, 0, "int32"),
        (np.zeros((1, 2), np.complex64), {}, 0, "complex64"),
        (np.zeros(5, np.float32), {}, 0, r"shape \[5\]"),
        (np.zeros((2, 0), np.float32), {}, 0, r"shape \[2, 0\]"),
        (np.zeros((1, 2), np.float32), {"labels": [1]}, 2, "not 2 numbers"),
        (np.zeros((1, 2), np.float32), {"labels": 1}, 1, "not 1 numbers"),
        (np.zeros((1, 2), np.float32), {"labels": [[1]]}, 1, "not 1 numbers"),
        (np.zeros((1, 2), np.float32), {"labels": [{}]}, 1, "not 1 numbers"),
        (np.zeros((1, 2), np.float32), "[]", 0, "not an object"),
        (np.zeros((1, 2), np.float32), "{", 0, "can't be read"),
    ],
)
def test_what_does_not_fit_is_told(array, meta, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        decode(array, meta, labels)


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "a", "scale": [0.001, 1e-3, 4.8828125e-06], "rate": 100.0, "age": null, "ok": true}',
        ' {"twice": 1, "twice": 2}\n',
        '{"half a pair": "\\ud800", "grün": "\\u00fc\\ud83d\\ude00"}',
        '{"large": 123456789012345678901234567890, "beyond": 1e400, "lost": NaN, "low": -Infinity}',
        '{"deep": {"deeper": [{}, [], [[-0.0]]]}}',
    ],
)
def test_a_json_is_what_pythons_own_parser_makes_of_it(text):
    assert repr(decode_meta(memoryview(text.encode()))) == repr(json.loads(text))


def test_numbers_of_a_json_are_exact():
    numbers = np.random.default_rng(0).integers(0, 1 << 64, 20_000, dtype=np.uint64).view(np.float64)
    told = json.dumps({"numbers": numbers[np.isfinite(numbers)].tolist()})
    assert decode_meta(memoryview(told.encode())) == json.loads(told)


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a": 01}', b"[1,]", b'{"a": 1}x', b'"\x01"', b'{"a": "\xff"}', b"\xef\xbb\xbf{}"]
)
def test_what_is_no_json_is_told_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"^the json can't be read \("):
        decode_meta(memoryview(text))
