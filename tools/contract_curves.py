"""The picture of docs/matrix.md: runs that went on under another engine, beside the undisturbed one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FLOOR = 1e-9
"""Equal losses are drawn here, since a logarithm has no zero."""


def draw_moves(undisturbed: Path, moved: Mapping[str, Path], picture: Path) -> None:
    """Losses of every step above; below, how far each moved run is from the undisturbed one, relatively.

    A moved run is drawn from the step at which its second engine took over.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whole = _losses(undisturbed)
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5.5), height_ratios=(3, 2))
    above.plot(list(whole), list(whole.values()), color="black", label="plain, undisturbed")
    for number, (name, folder) in enumerate(moved.items()):
        losses = _losses(folder)
        start = max(json.loads(path.read_text())["start"] for path in (folder / "attempts").iterdir())
        steps = [step for step in losses if step >= start]
        style = {"marker": "ovs^Dx+"[number % 7], "color": f"C{number}", "fillstyle": "none", "label": name}
        above.plot(steps, [losses[step] for step in steps], linestyle="none", **style)
        apart = [max(abs(losses[step] - whole[step]) / abs(whole[step]), FLOOR) for step in steps]
        below.plot(steps, apart, linewidth=0.7, **style)
    above.set_ylabel("loss")
    above.legend(fontsize="small", frameon=False)
    below.set(yscale="log", xlabel="step", ylabel="relative difference")
    below.set_xticks(list(whole)[::2])
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _losses(folder: Path) -> dict[int, float]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records}
