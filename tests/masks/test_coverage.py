"""Coverage is counted right, and docs/masks.md says what the code does now."""

import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from src.masks.counts import (
    CONTEXT,
    NEITHER,
    STYLES,
    TARGET,
    batch_of_step,
    coverage,
    examples,
    labels,
    sampler_of,
    styles_of,
)
from src.masks.coverage import GRIDS, landmarks, main, steps_of, tables
from src.masks.sampler import Masks
from tests.masks.reference import draw, indicators, p_same_mean
from tests.masks.test_sampler import p_flip

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def page() -> str:
    return (DOCS / "masks.md").read_text()


def test_labels_name_each_token() -> None:
    masks = Masks(np.array([[0, 2], [1, 5]]), np.array([[[3, 4], [4, 5]], [[2, 3], [2, 3]]]))
    wanted = [[CONTEXT, NEITHER, CONTEXT, TARGET, TARGET, TARGET], [NEITHER, CONTEXT, TARGET, TARGET, NEITHER, CONTEXT]]
    np.testing.assert_array_equal(labels(masks, 6), wanted)


@pytest.mark.parametrize(("style", "grid"), [(style, grid) for grid in [(40,), (7, 8)] for style in styles_of(grid)])
def test_coverage_agrees_with_counting_one_token_after_the_other(style: str, grid: tuple[int, ...]) -> None:
    sampler, length = sampler_of(style, grid, seed=4), int(np.prod(grid))
    context, target = [0] * length, [0] * length
    for step in range(3):
        masks = batch_of_step(sampler, step, 5)
        for context_K, targets_MT in zip(masks.context_BK.tolist(), masks.targets_BMT.tolist(), strict=True):
            for token in range(length):
                context[token] += token in context_K
                target[token] += any(token in block for block in targets_MT)
    found = coverage(sampler, steps=3, batch=5)
    np.testing.assert_allclose(found.context_L, np.array(context) / 15, rtol=1e-12)
    np.testing.assert_allclose(found.target_L, np.array(target) / 15, rtol=1e-12)
    assert found.context_tokens == pytest.approx(sum(context) / 15)


def test_landmarks_of_a_ramp() -> None:
    assert list(landmarks(np.arange(50.0), (50,)).values()) == [0.0, 25.0, 49.0, 47.0, 24.5]


def test_landmarks_of_a_volume_are_means_over_the_other_axes() -> None:
    found = landmarks(np.arange(24.0), (2, 3, 4))
    assert [found[f"{place} tubelet"] for place in ("first", "last")] == [5.5, 17.5]
    assert [found[f"{place} row"] for place in ("first", "middle", "last")] == [7.5, 11.5, 15.5]
    assert [found[f"{place} column"] for place in ("first", "middle", "last")] == [10.0, 12.0, 13.0]
    assert found["mean of all"] == 11.5


def test_examples_are_of_different_steps() -> None:
    examples_RL = examples(sampler_of("multiblock", (50,), seed=0), 12)
    assert examples_RL.shape == (12, 50) and len(np.unique((examples_RL == CONTEXT).sum(1))) > 4


@pytest.mark.parametrize("grid", [(200,), *GRIDS])
def test_the_tables_of_the_page_are_what_the_code_gives(grid: tuple[int, ...], page: str) -> None:
    text, _ = tables(grid, steps_of(grid), batch=128, seed=0)
    for table in text.split("\n\n"):
        assert table in page


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("tokens", [50, 200])
def test_the_p_values_of_the_page_are_what_the_code_gives(style: str, tokens: int, page: str) -> None:
    row = re.search(rf"^\| {style} \| {tokens} \| ([\d.-]+(?: \| [\d.-]+){{3}}) \|$", page, re.MULTILINE)
    assert row, "no such row"
    printed = [np.nan if cell.strip() == "-" else float(cell) for cell in row[1].split("|")]
    np.testing.assert_allclose(p_values(style, tokens), printed, atol=0.006)


def p_values(style: str, tokens: int) -> list[float]:
    """Context and target against the definition, then each against its mirror image (not for legacy_ijepa)."""
    sampler, rng = sampler_of(style, (tokens,), seed=0), random.Random(0)
    labels_BL = labels(batch_of_step(sampler, 0, 4000), tokens)
    wanted = [draw((tokens,), sampler.sizes(0), 4, rng, style) for _ in range(2000)]
    ours = [(labels_BL == kind).astype(float) for kind in (CONTEXT, TARGET)]
    theirs = [indicators(list(sets), tokens) for sets in zip(*wanted, strict=True)]
    same = [p_same_mean(*pair) for pair in zip(ours, theirs, strict=True)]
    mirrored = [np.nan if style == "legacy_ijepa" else p_flip(covered_BL, (tokens,), 0) for covered_BL in ours]
    return same + mirrored


@pytest.mark.parametrize("grid", GRIDS)
def test_the_pictures_of_the_page_are_small_pngs(grid: tuple[int, ...], page: str) -> None:
    name = f"masks_{'x'.join(map(str, grid))}.png"
    assert f"]({name})" in page
    assert_is_a_small_png(DOCS / name)


@pytest.mark.parametrize("grid", [(40,), (9, 10), (3, 9, 10)])
def test_the_module_writes_a_picture_and_prints_the_tables_of_a_grid(
    grid: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sides = [str(side) for side in grid]
    assert main(["--output", str(tmp_path / "new"), "--grid", *sides, "--steps", "2", "--batch", "20"]) == 0
    assert capsys.readouterr().out.strip() == tables(grid, 2, 20, seed=0)[0]
    assert_is_a_small_png(tmp_path / "new" / f"masks_{'x'.join(sides)}.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_too_few_tokens_are_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--output", str(tmp_path), "--grid", "16"]) == 1
    assert capsys.readouterr().err.startswith("error: mask.min_context: ")


def assert_is_a_small_png(path: Path) -> None:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert 600 <= width <= 2000 and 400 <= height <= 1400 and 10_000 < len(data) < 200_000
