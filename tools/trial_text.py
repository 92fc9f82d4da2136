"""What the reports of the 500-record part of PTB-XL teach an encoder of its ECGs, by each way with duplicates."""

# N records, F features of the joint space, T different texts

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.inputs import shards_for
from src.evaluation.pair import load_pair
from src.evaluation.results import cell_text
from src.evaluation.retrieval import NOTE, embed_split, patients_of
from src.evaluation.texts import galleries
from src.metrics.retrieval import Retrieved, constant_answer, pooled, retrieve, with_intervals
from tools.trial_encoders import FOLDS, PTBXL500, folds, markdown, pooled_table, probe, train, written

CONFIG = "configs/meclip/ecg_ptbxl_small.yaml"
MODES = ("ignore", "exclude", "share")
TOLD = ("recall_any@1", "recall_any@5", "recall_any@10", "median_rank", "map", "ndcg@10")
CONSTANT = "constant answer"
ONE_LOSS = "With ids of equal texts exclude and share are one loss: what they differ in is rounding."
ECG, TEXT = "ecg_to_text", "text_to_ecg"


def meclip(words: argparse.Namespace) -> str:
    """Reports of PTB-XL: five folds of patients, three ways with equal reports; retrieval, and NORM or not."""
    for folder, fold in folds(words):
        for mode in MODES:
            words_of_mode = argparse.Namespace(**{**vars(words), "set": [f"loss.duplicates={mode}", *words.set]})
            train(words_of_mode, CONFIG, folder / "shards", folder / mode, fold)
            probe(words, PTBXL500, folder / "shards", [folder / mode], folder / f"probe-{mode}", fold)
    folders = [words.output / f"fold-{fold}" for fold in range(FOLDS)]
    return written(words, f"meclip on ptbxl500, {FOLDS} folds", "\n\n".join([_retrieval(folders), *_probes(folders)]))


@dataclass(frozen=True)
class Searched:
    """What the modes find among the records of a fold."""

    found: dict[tuple[str, str], Retrieved]
    """By direction and mode."""
    text_N: NDArray[np.int64]
    """The number of each record's text."""
    texts: int
    patients: list[str]


def _searched(folder: Path) -> Searched:
    """Each mode's pair on the fold's own records, which no tower has seen."""
    found: dict[tuple[str, str], Retrieved] = {}
    for mode in MODES:
        pair = load_pair(folder / mode)
        shards = shards_for(pair.encoder.preprocessing, folder / "shards", "test")
        ecg_NF, reports = embed_split(pair, shards, None, 64)
        known, of_all = galleries(reports), patients_of(shards)
        ecg_NF, text_TF = ecg_NF[known.rows_N], pair.embed_text(known.texts)
        found[ECG, mode] = retrieve(ecg_NF, known.text_N, text_TF, known.text_T)
        found[TEXT, mode] = retrieve(text_TF, known.text_T, ecg_NF, known.text_N)
    found[ECG, CONSTANT] = constant_answer(known.text_N, known.text_T)
    return Searched(found, known.text_N, len(known.texts), [of_all[row] for row in known.rows_N])


def _retrieval(folders: list[Path]) -> str:
    """Queries of all folds together, each in the gallery of its own fold: towers of two folds share no space."""
    folds = [_searched(folder) for folder in folders]
    patients = [patient for fold in folds for patient in fold.patients]
    starts = np.cumsum([0, *(fold.texts for fold in folds)])
    text_N = np.concatenate([fold.text_N + start for fold, start in zip(folds, starts, strict=False)])
    galleries_of = ", ".join(f"{len(fold.text_N)} ECGs and {fold.texts} reports" for fold in folds)
    lines = [f"Retrieval out of fold; the galleries are {galleries_of}. {NOTE} {ONE_LOSS}"]
    for direction, owner_N in ((ECG, np.arange(len(text_N))), (TEXT, text_N)):
        names = [name for at, name in folds[0].found if at == direction]
        metrics = {name: pooled([fold.found[direction, name] for fold in folds]).metrics() for name in names}
        lines += [f"\n| {direction} | {' | '.join(TOLD)} |", f"| --- | {' | '.join('---:' for _ in TOLD)} |"]
        for name, of_queries in metrics.items():
            cells = with_intervals(of_queries, owner_N, patients)
            lines.append(f"| {name} | {' | '.join(cell_text(cells[metric]) for metric in TOLD)} |")
        compared = [(mode, MODES[0]) for mode in MODES[1:]] + [(mode, CONSTANT) for mode in MODES if CONSTANT in names]
        for one, other in compared:
            apart = {name: metrics[one][name] - metrics[other][name] for name in metrics[one] if name != "rank"}
            cells = with_intervals(apart, owner_N, patients)
            told = [cell_text(cells[metric]) if metric in cells else "" for metric in TOLD]
            lines.append(f"| {one} - {other} | {' | '.join(told)} |")
    return "\n".join(lines)


def _probes(folders: list[Path]) -> list[str]:
    """NORM or not by a probe of each mode's encoder, pooled out of fold."""
    told = ["NORM or not, linear probe, pooled out of fold. Labels and reports of PTB-XL come from the same readers."]
    for mode in MODES:
        table = pooled_table([folder / f"probe-{mode}" / "predictions" / "fold" for folder in folders])
        told.append(f"{mode}:\n\n{markdown(table, 'labels', ('auroc', 'average_precision'))}")
    return told
