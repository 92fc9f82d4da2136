"""Whose a run folder is: the experiment that has trained there, or the probe that has its results there, and no other;
free of torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.config.experiment import ExperimentConfig, RunConfig
from src.config.identity import completed, first_difference, identity
from src.run.folder import RunFolder

FREE_OF_PROBE = ("logging", "engine")
"""Sections that may differ when a probe is run again in its folder."""
CHECKSUMS = ("data_sha256", "weights_sha256")
"""What a probe's results tell of beside its config: of the data, by split, and of each encoder."""


def refuse_another_run(
    place: Path, trained: dict[str, Any], trained_on: str, config: ExperimentConfig, data_sha256: str | None
) -> None:
    """Compare what a folder was trained with to a config; data_sha256 is None where the data are not compared.

    Raises:
        ValueError: they are another experiment's, or other data's; names the key and both values.
    """
    difference = first_difference(completed(trained, config), identity(config))
    if difference is not None:
        key, before, after = difference
        raise ValueError(
            f"{place} was trained with {key} = {before}, but the config says {after}; put {key} back to continue, or "
            f"set another logging.folder (and init_from, to start from old weights)"
        )
    if data_sha256 is not None and trained_on != data_sha256:
        raise ValueError(
            f"{place} was trained on other shards than those in {_places(config)}: "
            f"their index.json differs; restore it to continue, or set another logging.folder"
        )


def probe_identity(config: RunConfig) -> dict[str, Any]:
    """What makes two probes the same, as far as their configs tell."""
    tree = config.model_dump(mode="json")
    return {name: value for name, value in tree.items() if name not in FREE_OF_PROBE}


def refuse_another_probe(folder: RunFolder, own: Mapping[str, Any]) -> None:
    """Compare a probe with the results that its folder holds; `own` is its identity, with CHECKSUMS where known.

    Raises:
        ValueError: they are another probe's, and the first key that differs; or the folder is a training run's.
    """
    path = folder.root / "results.json"
    if path.exists():
        try:
            of_results = dict(json.loads(path.read_text())["identity"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged: remove it to run the probe again") from None
        known = {name: value for name, value in of_results.items() if name in own or name not in CHECKSUMS}
        difference = first_difference(known, own)
        if difference is not None:
            key, before, after = difference
            raise ValueError(
                f"{path} holds the results of a probe with {key} = {before}, but the config says {after}; set another "
                f"logging.folder"
            )
    elif folder.checkpoints.exists():
        raise ValueError(f"logging.folder: {folder.root} is the folder of a training run; name another for the probe")


def _places(config: ExperimentConfig) -> str:
    """What the checksum of the data stands for."""
    others = [f"data.mixture.{name} {source.root}" for name, source in config.data.mixture.items()]
    goes_by = "" if config.data.balance == "none" else f" or has other {config.data.balance} than data.balance went by"
    return " or ".join([f"data.root {config.data.root}", *others]) + goes_by
