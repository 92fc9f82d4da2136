"""Windows of HU."""

import numpy as np
import pytest

from src.transforms.ct_windows import PRESETS, Window, apply_windows, parse_window


def test_windows_are_as_radiologists_give_them():
    lung = parse_window("lung")
    assert (lung.low, lung.high) == (-1350, 150)
    assert parse_window("liver=60,160") == Window("liver", 60, 160)
    assert parse_window("-600,1500") == Window("-600,1500", -600, 1500)
    for name, window in PRESETS.items():
        assert parse_window(name) is window and window.name == name


@pytest.mark.parametrize("text", ["", "lungs", "1", "1,2,3", "1,0", "1,-5", "nan,5", "1,inf", "=1,2", " =1,2", "a=b,c"])
def test_other_words_are_no_window(text):
    with pytest.raises(ValueError, match="NAME=CENTER,WIDTH"):
        parse_window(text)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_each_window_is_a_channel(kind):
    ct = np.array([-2000, -1350, -600, 150, 3000], kind).reshape(1, 1, 1, 5)
    ct = np.concatenate([ct, ct + kind(75)])
    found = apply_windows(ct, (parse_window("lung"), parse_window("mediastinum")))
    assert found.shape == (4, 1, 1, 5) and found.dtype == np.float32
    assert np.allclose(found[0, 0, 0], [0, 0, 0.5, 1, 1])
    assert np.allclose(found[1, 0, 0], [0, 0, 0, (150 + 125) / 350, 1])
    assert np.allclose(found[2, 0, 0], [0, 0.05, 0.55, 1, 1])
