"""embeddings.npz of a run folder: features to be drawn, with labels and keys; nothing in it is pickled."""

# N records, F features, K labels

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def save_embeddings(
    path: Path,
    features_NF: NDArray[np.float32],
    random_NF: NDArray[np.float32] | None,
    labels_NK: NDArray[np.floating],
    label_names: Sequence[str],
    keys: Sequence[str],
) -> None:
    """Write features, those of the random encoder (if there are any), labels (NaN unknown) and keys."""
    with path.open("wb") as file:
        np.savez(
            file,
            features=features_NF,
            **({} if random_NF is None else {"random_init": random_NF}),  # type: ignore[arg-type]
            labels=labels_NK,
            label_names=np.array(label_names, np.str_),
            keys=np.array(keys, np.str_),
        )
