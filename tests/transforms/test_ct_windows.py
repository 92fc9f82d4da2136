"""Windows of HU."""

import pytest

from src.transforms.ct_windows import PRESETS, Window, parse_window


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
