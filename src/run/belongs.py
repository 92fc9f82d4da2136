"""Whose a run folder is: the experiment that has trained there, and no other; free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.config.experiment import ExperimentConfig
from src.config.identity import completed, first_difference, identity


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


def _places(config: ExperimentConfig) -> str:
    """What the checksum of the data stands for."""
    others = [f"data.mixture.{name} {source.root}" for name, source in config.data.mixture.items()]
    goes_by = "" if config.data.balance == "none" else f" or has other {config.data.balance} than data.balance went by"
    return " or ".join([f"data.root {config.data.root}", *others]) + goes_by
