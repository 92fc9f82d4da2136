"""How often each token is context and target, as numbers and as pictures, beside the published sampler.

python -m src.masks.coverage --output docs                  draws the pictures of docs/masks.md and prints its tables
python -m src.masks.coverage --output DIR --grid 14 14      of another grid: tokens of an ECG, rows and columns of an
                                                            image, or tubelets, rows and columns of a video

One number draws lines along an ECG, two maps of an image with the default masks, three maps of a video with V-JEPA's
short and long tubes.
"""

# L tokens of the grid

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.masks.counts import TUBES, Coverage, coverage, examples, sampler_of, styles_of
from src.masks.sampler import MaskSampler

Grid = tuple[int, ...]
GRIDS: tuple[Grid, ...] = ((50,), (16, 16), (14, 14), (8, 14, 14))
"""An ECG of 10 s; an image of 224 pixels in patches of 14 and of 16; 16 frames of one in tubelets of 2 x 16 x 16."""
EXAMPLES = 12  # rows of a strip
AXES = ("tubelet", "row", "column")


def samplers_of(grid: Grid, seed: int, batch: int) -> dict[str, MaskSampler]:
    """What is set beside each other on a grid: the styles, or V-JEPA's kinds, each also with I-JEPA's faults."""
    if len(grid) < 3:
        return {style: sampler_of(style, grid, seed, batch) for style in styles_of(grid)}
    return {
        f"{style}, {tubes} tubes": sampler_of(style, grid, seed, batch, tubes)
        for tubes in TUBES
        for style in ("complement", "legacy_ijepa")
    }


def landmarks(frequency_L: NDArray[np.float64], grid: Grid) -> dict[str, float]:
    """What to look at: the ends of each axis, where truncation and missing places show, its middle and the mean."""
    if len(grid) == 1:
        last = {"mean of the last tenth": frequency_L[-math.ceil(len(frequency_L) / 10) :].mean()}
        found = dict(zip(("first", "middle", "last"), _ends(frequency_L), strict=True)) | last
        return found | {"mean of all": frequency_L.mean()}
    shares, found = frequency_L.reshape(grid), {}
    for axis, name in enumerate(AXES[-len(grid) :]):
        along = shares.mean(tuple(other for other in range(len(grid)) if other != axis))
        found |= {
            f"{place} {name}": share for place, share in zip(("first", "middle", "last"), _ends(along), strict=True)
        }
    return found | {"mean of all": frequency_L.mean()}


def _ends(along: NDArray[np.float64]) -> tuple[float, float, float]:
    return along[0], along[len(along) // 2], along[-1]


def named(grid: Grid) -> str:
    """The grid in words."""
    return f"{grid[0]} tokens" if len(grid) == 1 else " x ".join(map(str, grid))


def coverage_table(grid: Grid, coverages: dict[str, Coverage]) -> str:
    """Markdown: a row for each style and role of a token."""
    rows = [
        (style, role, *(f"{value:.3f}" for value in landmarks(frequency_L, grid).values()))
        for style, found in coverages.items()
        for role, frequency_L in (("context", found.context_L), ("target", found.target_L))
    ]
    return markdown((named(grid), "token is", *landmarks(np.zeros(math.prod(grid)), grid)), rows)


def batch_table(grid: Grid, batches: Iterable[int], coverages: dict[str, list[Coverage]]) -> str:
    """Markdown: mean number of context tokens of each style, a column for each batch size."""
    rows = [(style, *(f"{found.context_tokens:.1f}" for found in row)) for style, row in coverages.items()]
    return markdown((named(grid), *(f"batch {batch}" for batch in batches)), rows)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and whose others are right-aligned."""
    head = list(head)
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(grid: Grid, steps: int, batch: int, seed: int) -> tuple[str, dict[str, Coverage]]:
    """Both markdown tables of a grid, and the coverage at `batch` that they were made from."""
    each = {size: samplers_of(grid, seed, size) for size in (1, batch)}
    found = {name: [coverage(each[size][name], steps, size) for size in each] for name in each[batch]}
    coverages = {name: row[-1] for name, row in found.items()}
    return f"{coverage_table(grid, coverages)}\n\n{batch_table(grid, each, found)}", coverages


def picture(grid: Grid, coverages: dict[str, Coverage], seed: int, batch: int, seconds: float, path: Path) -> None:
    """Draw the picture of a grid as a PNG."""
    from src.masks import pictures

    rows = {name: examples(sampler, EXAMPLES) for name, sampler in samplers_of(grid, seed, batch).items()}
    if len(grid) == 1:
        figure = pictures.ecg_picture(coverages, rows, seconds)
    elif len(grid) == 2:
        figure = pictures.image_picture(coverages, rows, (grid[0], grid[1]))
    else:
        figure = pictures.video_picture(coverages, rows, (grid[0], grid[1], grid[2]))
    pictures.save(figure, path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m src.masks.coverage", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the pictures")
    shown = ", ".join(named(grid) for grid in GRIDS)
    add("--grid", type=int, nargs="+", action="append", metavar="SIDE", help=f"may come often; default: {shown}")
    add("--seconds", type=float, default=10.0, help="length of an ECG; default: %(default)s")
    add("--steps", type=int, help="batches to average over; default: 200, of a video 40")
    add("--batch", type=int, default=128, help="samples in a batch; default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Draw the pictures and print the tables; sizes that do not fit end as one sentence and exit code 1."""
    parsed = parse(arguments)
    try:
        for grid in map(tuple, parsed.grid or GRIDS):
            steps = parsed.steps or steps_of(grid)
            text, coverages = tables(grid, steps, parsed.batch, parsed.seed)
            print(text, end="\n\n")
            path = parsed.output / f"masks_{'x'.join(map(str, grid))}.png"
            picture(grid, coverages, parsed.seed, parsed.batch, parsed.seconds, path)
            print(f"wrote {path}", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def steps_of(grid: Grid) -> int:
    """Batches to average over: the many tokens of a video take longer and err less, as their frames are alike."""
    return 200 if len(grid) < 3 else 40


if __name__ == "__main__":
    sys.exit(main())
