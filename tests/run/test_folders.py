"""A folder that is replaced is the old one or the new one."""

import pytest

from src.files import replacing_folder


def test_a_folder_takes_its_place_when_it_is_whole_and_allowed(tmp_path):
    folder, asked = tmp_path / "head", []
    for content in ("first", "second"):
        with replacing_folder(folder, lambda: asked.append(folder.exists())) as draft:
            (draft / "deeper").mkdir()
            (draft / "deeper" / "weights").write_text(content)
            assert folder.exists() == (content == "second")
        assert (folder / "deeper" / "weights").read_text() == content
    assert asked == [False, False, True, True] and list(tmp_path.iterdir()) == [folder]


def test_what_fails_or_is_forbidden_leaves_the_old_one(tmp_path):
    folder = tmp_path / "head"
    with replacing_folder(folder) as draft:
        (draft / "weights").write_text("old")
    with pytest.raises(KeyError), replacing_folder(folder) as draft:
        (draft / "weights").write_text("half")
        raise KeyError
    once = [None]
    with pytest.raises(IndexError), replacing_folder(folder, once.pop) as draft:
        (draft / "weights").write_text("an orphan's")
    assert (folder / "weights").read_text() == "old"
    with replacing_folder(folder) as draft:
        assert not list(draft.iterdir())
    assert not list(folder.iterdir()) and list(tmp_path.iterdir()) == [folder]
