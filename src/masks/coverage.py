"""How often each token is context and target, as numbers and as a picture.

python -m src.masks.coverage --output docs [--tokens 50 200] [--seconds 10]

draws docs/masks_ecg.png for the first number of tokens and prints the tables of docs/masks.md.

Legend: B batch, L tokens of the grid, R rows of the strip of examples.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from src.masks.config import MaskConfig
from src.masks.sampler import Masks, MaskSampler
from src.randomness import Streams

STYLES: tuple[str, ...] = get_args(MaskConfig.model_fields["style"].annotation)
NEITHER, CONTEXT, TARGET = range(3)
COLOURS = ("#e3e3e3", "#0072b2", "#e69f00")  # of Okabe & Ito's set, told apart by colour-blind readers and in grey
EXAMPLES = 12  # rows of a strip


class Coverage(NamedTuple):
    """Frequencies over all samples of all steps."""

    context_L: NDArray[np.float64]
    target_L: NDArray[np.float64]
    context_tokens: float
    """Mean number of context tokens."""


def sampler_of(style: str, grid: tuple[int, ...], seed: int, batch: int = 128) -> MaskSampler:
    """The default sizes in a style; `batch` is for legacy_ijepa, the only style that depends on it."""
    keys = {"style": style} | ({"legacy_batch": batch} if style == "legacy_ijepa" else {})
    return MaskSampler(MaskConfig.model_validate(keys), grid, seed)


def batch_of_step(sampler: MaskSampler, step: int, batch: int) -> Masks:
    """The masks of one step, whose samples no other step holds."""
    samples_B = step * batch + np.arange(batch)
    return sampler(step, Streams.of_samples(sampler.seed, np.zeros_like(samples_B), samples_B))


def labels(masks: Masks, length: int) -> NDArray[np.int8]:
    """NEITHER, CONTEXT or TARGET for each token, [B, L]."""
    labels_BL = np.full((len(masks.context_BK), length), NEITHER, np.int8)
    np.put_along_axis(labels_BL, masks.targets_BMT.reshape(len(labels_BL), -1), TARGET, axis=1)
    np.put_along_axis(labels_BL, masks.context_BK, CONTEXT, axis=1)
    return labels_BL


def coverage(sampler: MaskSampler, steps: int, batch: int) -> Coverage:
    """How often a token is context and target in the first `steps` batches: a function of its arguments."""
    counts = np.zeros((3, sampler.length), np.int64)
    for step in range(steps):
        labels_BL = labels(batch_of_step(sampler, step, batch), sampler.length)
        counts += np.stack([np.count_nonzero(labels_BL == kind, axis=0) for kind in (NEITHER, CONTEXT, TARGET)])
    shares = counts / (steps * batch)
    return Coverage(shares[CONTEXT], shares[TARGET], float(shares[CONTEXT].sum()))


def examples(sampler: MaskSampler) -> NDArray[np.int8]:
    """Labels of the first sample of each of the first steps, [R, L]."""
    return np.concatenate([labels(batch_of_step(sampler, step, 1), sampler.length) for step in range(EXAMPLES)])


def landmarks(frequency_L: NDArray[np.float64]) -> dict[str, float]:
    """What to look at along an ECG: its ends, where truncation and missing places show, its middle and the mean."""
    length = len(frequency_L)
    return {
        "first": frequency_L[0],
        "middle": frequency_L[length // 2],
        "last": frequency_L[-1],
        "mean of the last tenth": frequency_L[-math.ceil(length / 10) :].mean(),
        "mean of all": frequency_L.mean(),
    }


def coverage_table(tokens: int, coverages: dict[str, Coverage]) -> str:
    """Markdown: a row for each style and role of a token."""
    rows = [
        (style, role, *(f"{value:.3f}" for value in landmarks(frequency_L).values()))
        for style, found in coverages.items()
        for role, frequency_L in (("context", found.context_L), ("target", found.target_L))
    ]
    return markdown((f"{tokens} tokens", "token is", *landmarks(np.zeros(1))), rows)


def batch_table(tokens: int, batches: Iterable[int], coverages: dict[str, list[Coverage]]) -> str:
    """Markdown: mean number of context tokens of each style, a column for each batch size."""
    rows = [(style, *(f"{found.context_tokens:.1f}" for found in row)) for style, row in coverages.items()]
    return markdown((f"{tokens} tokens", *(f"batch {batch}" for batch in batches)), rows)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and whose others are right-aligned."""
    head = list(head)
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(tokens: int, steps: int, batch: int, seed: int) -> tuple[str, dict[str, Coverage]]:
    """Both markdown tables of an ECG of so many tokens, and the coverage at `batch` that they were made from."""
    found = {
        style: [coverage(sampler_of(style, (tokens,), seed, size), steps, size) for size in (1, batch)]
        for style in STYLES
    }
    coverages = {style: row[-1] for style, row in found.items()}
    return f"{coverage_table(tokens, coverages)}\n\n{batch_table(tokens, (1, batch), found)}", coverages


def plot(coverages: dict[str, Coverage], examples: dict[str, NDArray[np.int8]], seconds: float, path: Path) -> None:
    """A PNG: for each style the coverage along an ECG of so many seconds and, below, a row for each example [R, L]."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(11, 5.4), layout="constrained")
    panels = figure.subplots(2, len(coverages), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
    for (style, found), lines, strip in zip(coverages.items(), *panels, strict=True):
        edges = np.linspace(0.0, seconds, len(found.context_L) + 1)
        lines.stairs(found.context_L, edges, baseline=None, color=COLOURS[CONTEXT], linewidth=2)
        lines.stairs(found.target_L, edges, baseline=None, color=COLOURS[TARGET], linewidth=2)
        lines.set_title(f"{style}\n{found.context_tokens:.1f} context tokens on average", fontsize=10.5)
        lines.set(ylim=(0.0, 1.0), xlim=(0.0, seconds))
        lines.grid(alpha=0.3)
        rows = len(examples[style])
        strip.pcolormesh(edges, np.arange(rows + 1), examples[style], cmap=ListedColormap(COLOURS), vmin=0, vmax=2)
        strip.hlines(np.arange(1, rows), 0.0, seconds, color="white", linewidth=1.5)
        strip.set(ylim=(rows, 0), yticks=[], xlabel="time in the ECG (s)")
    panels[0, 0].set_ylabel("share of samples in which\na token is context, target")
    panels[1, 0].set_ylabel(f"{EXAMPLES} example masks")
    tokens = len(next(iter(coverages.values())).context_L)
    figure.suptitle(
        f"What is shown and what is predicted, along an ECG of {seconds:g} s in {tokens} tokens", fontsize=13
    )
    legend = [Patch(color=COLOURS[kind]) for kind in (CONTEXT, TARGET, NEITHER)]
    figure.legend(legend, ["context", "target", "neither"], loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m src.masks.coverage", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of masks_ecg.png")
    parser.add_argument("--tokens", type=int, nargs="+", default=[50, 200], help="default: 50 200; the first is drawn")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the ECG; default: %(default)s")
    parser.add_argument("--steps", type=int, default=200, help="batches to average over; default: %(default)s")
    parser.add_argument("--batch", type=int, default=128, help="samples in a batch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture and print the tables; sizes that do not fit end as one sentence and exit code 1."""
    parsed = parse(arguments)
    path = parsed.output / "masks_ecg.png"
    try:
        for tokens in parsed.tokens:
            text, coverages = tables(tokens, parsed.steps, parsed.batch, parsed.seed)
            print(text, end="\n\n")
            if tokens == parsed.tokens[0]:
                samplers = {style: sampler_of(style, (tokens,), parsed.seed, parsed.batch) for style in STYLES}
                plot(coverages, {style: examples(sampler) for style, sampler in samplers.items()}, parsed.seconds, path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
