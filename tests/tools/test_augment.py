"""The picture of the augmentations, from a config alone."""

import sys
from pathlib import Path

import pytest

from tools.augment import main

DEBUG = "configs/jepa/ecg_debug.yaml"


def draw(folder: Path, *words: str, config: str = DEBUG) -> int:
    return main(
        ["--fname", config, "--set", f"data.root={folder / 'shards'}", "--output", str(folder / "x.png"), *words]
    )


def test_a_config_and_nothing_else_gives_a_picture_of_its_first_record(tmp_path: Path) -> None:
    assert draw(tmp_path, "--seconds", "3", "--leads", "V1", "II") == 0
    first = (tmp_path / "x.png").read_bytes()
    assert first.startswith(b"\x89PNG\r\n\x1a\n") and len(first) > 20_000
    assert "matplotlib.pyplot" not in sys.modules
    assert draw(tmp_path, "--seconds", "3", "--leads", "V1", "II") == 0
    assert (tmp_path / "x.png").read_bytes() == first, "the same every time"
    strong = ["--set", "data.transform.noise.std=0.5"]
    assert draw(tmp_path, "--seconds", "3", "--leads", "V1", "II", *strong) == 0
    assert (tmp_path / "x.png").read_bytes() != first, "the config's strength"


def test_leads_that_have_no_vectorcardiogram_have_a_picture_all_the_same(tmp_path: Path) -> None:
    assert draw(tmp_path, "--set", "data.leads=[I, V1]", "model.encoder.leads=2") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key", "nobody"], "error: --key: "),
        (["--image", "x.png"], "error: --image does something only with --transform"),
        (["--window", "1"], "error: --window does something only with --volume"),
        (["--leads", "X"], "error: --leads: X is not in data.leads (I, II"),
        (["--seconds", "0"], "error: --seconds"),
        (["--set", "data.transform.noise.std=-1"], "error: --set data.transform.noise.std=-1"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    assert draw(tmp_path, *words) == 1
    told = capsys.readouterr().err
    assert told.startswith(message) and told.count("\n") == 1 and not (tmp_path / "x.png").exists()


def test_a_config_that_does_not_train_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--fname", "configs/probe/ecg_debug.yaml", "--output", str(tmp_path / "x.png")]) == 1
    assert "probe has no augmentations" in capsys.readouterr().err
