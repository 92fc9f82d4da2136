"""The trained encoder as a folder of its own: weights, and the config section that rebuilds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.config.sections import Section
from src.files import sync


def export_encoder(folder: Path, weights: dict[str, Tensor], section: Section) -> None:
    """Write model.safetensors and config.json into `folder`, replacing an older export only when both are complete."""
    draft, old = folder.with_name(folder.name + ".draft"), folder.with_name(folder.name + ".old")
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file(weights, draft / "model.safetensors")
    (draft / "config.json").write_text(json.dumps(section.model_dump(mode="json"), indent=1) + "\n")
    for path in (*draft.iterdir(), draft):
        sync(path)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
