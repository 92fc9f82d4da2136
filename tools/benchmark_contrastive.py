"""Memory of the contrastive losses as ranks are added, each rank with as many rows: `tools.benchmark contrastive`.

python -m tools.benchmark_contrastive TASK    one rank; `tools.benchmark` starts it
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from src.distributed.processes import die_with_parent
from src.distributed.ranks import Ranks, gather_objects, join, leave
from src.distributed.variables import LAUNCHER
from src.losses.contrastive.clip import clip
from src.losses.contrastive.ntxent import nt_xent
from src.losses.contrastive.siglip import siglip
from src.run.launch import launch

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
LOSSES = (
    "SigLIP, ring",
    "SigLIP, gather",
    "SigLIP, open_clip bidir",
    "SigLIP, open_clip gather",
    "CLIP",
    "CLIP, share",
    "CLIP, open_clip",
    "NT-Xent",
)


def benchmark_contrastive(arguments: argparse.Namespace) -> Iterator[str]:
    """Peak memory of one forward and backward of each loss alone, in the rank that needs most."""
    yield "Peak of the tensors alive at once, MiB, in one forward and backward of the loss alone, beside the features:"
    yield f"two sides of {arguments.rows} x {arguments.width} in fp32 on every rank. The rank that needs most, on CPUs"
    yield f"over gloo, whose own buffers are not counted. SigLIP here in blocks of {arguments.block}.\n"
    found = {ranks: _run(arguments, ranks) for ranks in arguments.ranks}
    yield f"| loss | {' | '.join(f'{ranks} ranks' if ranks > 1 else '1 rank' for ranks in found)} |"
    yield f"| --- |{' ---: |' * len(found)}"
    for name in arguments.losses:
        if any(name in peaks for peaks in found.values()):
            yield f"| {name} | {' | '.join(f'{peaks[name] / 2**20:.1f}' for peaks in found.values())} |"
        else:
            yield f"| {name} | {' | '.join('not installed' for _ in found)} |"


def _run(arguments: argparse.Namespace, ranks: int) -> dict[str, int]:
    """Bytes of each loss, from a group of so many ranks.

    Raises:
        ValueError: the group failed; it has told why.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        task = {"answer": str(answer)}
        task |= {name: getattr(arguments, name) for name in ("losses", "rows", "width", "block")}
        sys.argv = ["-m", "tools.benchmark_contrastive", json.dumps(task)]
        if launch(["cpu"] * ranks):
            raise ValueError(f"the losses of {ranks} ranks could not be measured; see above")
        found: dict[str, int] = json.loads(answer.read_text())
    return found


def open_clip_losses() -> ModuleType | None:
    """The losses of open_clip, if it is installed.

    Their file is run by itself: the package imports torchvision, which a loss does not need.
    """
    found = importlib.util.find_spec("open_clip")
    if found is None or found.submodule_search_locations is None:
        return None
    path = Path(found.submodule_search_locations[0]) / "loss.py"
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses_of(ranks: Ranks, rows: int, block: int) -> dict[str, Loss]:
    """Every loss that is installed, of sides, scale and bias; the sum over this rank's rows."""
    ids = torch.arange(ranks.rank * rows, (ranks.rank + 1) * rows) // 2
    found: dict[str, Loss] = {
        "SigLIP, ring": lambda x, y, s, b: siglip(x, y, s, b, block=block),
        "SigLIP, gather": lambda x, y, s, b: siglip(x, y, s, b, transport="gather", block=block),
        "CLIP": lambda x, y, s, b: clip(x, y, s),
        "CLIP, share": lambda x, y, s, b: clip(x, y, s, ids, "share"),
        "NT-Xent": lambda x, y, s, b: nt_xent(x, y, 1 / s),
    }
    if (published := open_clip_losses()) is not None:
        where = {"rank": ranks.rank, "world_size": ranks.world_size}
        softmax: Any = published.ClipLoss(local_loss=True, gather_with_grad=True, **where)
        found["CLIP, open_clip"] = lambda x, y, s, b: rows * softmax(F.normalize(x), F.normalize(y), s)
        bidir: Any = published.SigLipLoss(dist_impl="bidir", **where)
        found["SigLIP, open_clip bidir"] = lambda x, y, s, b: rows * bidir(F.normalize(x), F.normalize(y), s, b)
        gather: Any = published.SigLipLoss(dist_impl="gather", **where)
        found["SigLIP, open_clip gather"] = lambda x, y, s, b: rows * gather(F.normalize(x), F.normalize(y), s, b)
    return found


def peak(loss: Loss, rows: int, width: int) -> tuple[float, int]:
    """The loss, and the bytes of tensors alive at once in its forward and backward, the gradients among them."""
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.randn(rows, width, generator=draw).requires_grad_() for _ in range(2))
    numbers = [torch.tensor([number], requires_grad=True) for number in (10.0, -10.0)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        total = loss(first, second, *numbers)
        total.backward()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return total.item(), max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]")


def main() -> None:
    """One rank."""
    task = argparse.Namespace(**json.loads(sys.argv[1]))
    ranks = join(600.0)
    found, values = {}, {}
    for name, loss in losses_of(ranks, task.rows, task.block).items():
        if name in task.losses:
            values[name], own = peak(loss, task.rows, task.width)
            found[name] = max(gather_objects(own))
    for kind in ("SigLIP", "CLIP"):
        alike = [value for name, value in values.items() if name.split(",")[0] == kind and "share" not in name]
        assert all(math.isclose(value, alike[0], rel_tol=1e-4) for value in alike), values
    if ranks.first:
        Path(task.answer).write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    die_with_parent(int(os.environ[LAUNCHER]))
    main()
    sys.stdout.flush()
    os._exit(0)  # a gloo process sometimes aborts after all Python code has finished
