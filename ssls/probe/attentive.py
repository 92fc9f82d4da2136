"""The attentive heads of a probe: tokens kept while they are trained on, settings chosen without the test records."""

# N records, F features, K labels, classes or targets

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.distributed.ranks import barrier
from src.evaluation.attentive import Chosen, Examples, Training, choose_probe, grid
from src.evaluation.features import Door, Records
from src.evaluation.targets import Cases, Target
from src.evaluation.tokens import Tokens, keep_tokens
from src.run.logs import Progress
from src.run.run import Run
from ssls.probe.config import Config
from ssls.probe.heads import Fitted, thresholds


@contextmanager
def token_folder(run: Run) -> Iterator[Path]:
    """A folder of this attempt's in the run folder, which all ranks see; it is gone behind, and so are older ones'."""
    root = run.folder.root
    if run.ranks.first:
        for leftover in root.glob("tokens.attempt-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        (root / f"tokens.attempt-{run.attempt}").mkdir()
    barrier()
    try:
        yield root / f"tokens.attempt-{run.attempt}"
    finally:
        if run.ranks.first:
            shutil.rmtree(root / f"tokens.attempt-{run.attempt}", ignore_errors=True)


def fit_attentive(
    config: Config, run: Run, door: Door, records: Mapping[str, Records], cases: Mapping[str, Cases], target: Target
) -> tuple[dict[str, NDArray[np.float32]], Fitted | None]:
    """Pooled features [N, F] of each split, and on rank 0 the head: the encoder reads each record once for both.

    Ranks divide the records, then the settings; the one that is best predicts the test records on rank 0.

    Raises:
        ValueError: there is no room for the tokens, or every probe has diverged.
    """
    tokens, pooled = {}, {}
    with token_folder(run) as folder:
        for name, of_split in records.items():
            path, size = folder / name, config.data.batch_size
            tokens[name], pooled[name] = keep_tokens(door, of_split, path, config.features.pool, size, run.ranks)
        how = Training(
            task=target.task,
            config=config.head.attentive,
            seed=config.seed,
            ranks=run.ranks,
            engine=config.engine,
            balanced=config.head.balanced,
            bar=partial(Progress, 0, shown=run.ranks.first),
        )
        probes, count = len(grid(how.config)), len(records["train"])
        run.say(f"training {probes} attentive probes at once on the tokens of {count:,} records")
        search = _choose(config, tokens, cases, how)
        if search.head is None:
            return pooled, None
        run.say(told(search))
        tests = [name for name in tokens if name not in ("train", "validation")]
        predictions = {name: search.head.predict(tokens[name], how) for name in tests}
        return pooled, Fitted(predictions, _thresholds(search, cases, target, config), search.head, search)


def _choose(config: Config, tokens: Mapping[str, Tokens], cases: Mapping[str, Cases], how: Training) -> Chosen:
    examples = {name: Examples(tokens[name], cases[name].truth_NK) for name in ("train", "validation") if name in cases}
    criterion = None if config.head.criterion == "auto" else config.head.criterion
    patients_N, folds = cases["train"].patients_N, config.head.folds
    return choose_probe(examples["train"], examples.get("validation"), patients_N, folds, how, criterion)


def _thresholds(
    search: Chosen, cases: Mapping[str, Cases], target: Target, config: Config
) -> NDArray[np.float64] | None:
    if target.task != "multilabel":
        return None
    return thresholds(search.held_out_NK, cases.get("validation", cases["train"]), config.head)


def told(search: Chosen) -> str:
    """The choice in a sentence."""
    setting, score = search.settings[search.place], search.scores[search.place]
    return (
        f"of {len(search.settings)} attentive probes lr {setting.lr:g} with weight decay {setting.weight_decay:g} is "
        f"best on held-out records, {score:.3f}"
    )
