"""JEPA as one module: the student sees the context, the predictor guesses what the teacher sees at the targets.

Assran et al. 2023 (I-JEPA, arXiv 2301.08243); on ECG: Weimann & Conrad 2024 (arXiv 2410.13867).

Features are kept from collapse by a teacher that follows slowly, by a regulariser (SIGReg or VICReg), or by both.
Without a teacher the student predicts features of its own and learns from both sides, as LeJEPA (arXiv 2511.08544)
stops no gradient.

Where ECGs end early, the batch says so by `keep` [B, T], and tokens without signal are looked at by nobody and are not
predicted (`Counted`).
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.losses.config import SIGRegConfig
from src.losses.regression import feature_regression
from src.losses.regularizer import regularize, regularizer_coefficients
from src.models.build import build_encoder
from src.models.config import TransformerConfig
from src.models.padding import mean_token, valid_tokens
from src.models.predictor import Predictor
from src.models.projection import Projection
from src.models.vit import VisionTransformer, gather_tokens
from ssls.jepa.config import LossConfig, ModelConfig
from ssls.jepa.padding import Counted, counted

# B batch, C channels, T samples of a lead, L tokens, K context tokens, M target blocks, N tokens of a block, D width

STEP = "step"
"""The step of each sample of a batch for SIGReg, [B] integers, from which every rank draws the same directions."""


class MaskNames(NamedTuple):
    """What a kind of mask is called in a batch and among the losses."""

    context: str
    targets: str
    branches: str
    """Which branches of the student each sample goes through, where it drops some."""
    loss: str


def mask_names(kinds: int) -> list[MaskNames]:
    """The only kind has no number."""
    if kinds == 1:
        return [MaskNames("context", "targets", "branches", "prediction")]
    return [MaskNames(f"context_{n}", f"targets_{n}", f"branches_{n}", f"prediction_{n}") for n in range(kinds)]


def rows_name(view: str) -> str:
    """What the rows of a view are called that a regulariser looks at, [B] bool among its features."""
    return f"rows of {view}"


class View(NamedTuple):
    """Tokens that the student has of each sample; of padding and of rows nothing is told where there is none."""

    tokens_BLD: Tensor
    valid_BL: Tensor | None
    rows_B: Tensor | None = None
    """Samples that a regulariser looks at."""


class JEPA(nn.Module):
    """Student encoder, EMA teacher if any, predictor, projection of a regulariser; all that a checkpoint holds."""

    def __init__(
        self,
        model: ModelConfig,
        loss: LossConfig,
        kinds: int = 1,
        modality: str = "ecg",
        seed: int = 0,
        padded: bool = False,
    ) -> None:
        """`kinds` of masks, each with a context and targets of its own in the batch beside the input `modality`.

        `padded`: batches may have `keep`. A regulariser is told its rows then, in each micro-batch alike.
        """
        super().__init__()
        self.loss, self.modality, self.seed, self.padded = loss, modality, seed, padded
        self.names = mask_names(kinds)
        self.coefficients = {name.loss: 1.0 / kinds for name in self.names}
        self.student = build_encoder(model.encoder)
        if model.teacher.kind == "ema":
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        for key in model.teacher.unused():
            warnings.warn(f"model.teacher.{key} has no effect: there is no teacher", stacklevel=2)
        self.exported = "teacher" if model.teacher.kind == "ema" else "student"
        """Which network embeds, and is the encoder that a run leaves behind."""
        positions = model.encoder.positions if isinstance(model.encoder, TransformerConfig) else "sincos"
        self.predictor = Predictor(model.predictor, self.student.width, model.encoder.grid, positions)
        self.contrastive, self.contrast_trains = loss.regularizer is not None, False
        if loss.regularizer is not None:
            self.coefficients |= regularizer_coefficients(loss.regularizer)
            self.projection = Projection(self.student.width, loss.regularizer.projection)

    def forward(self, batch: dict[str, Tensor], mode: str = "train") -> dict[str, Any]:
        """The one door: `train` gives sums of losses, and `features` where a regulariser looks at them in `contrast`.

        `embed` gives the `tokens` of the encoder that is exported and, from them, `targets`. Both are [B, L, D]:
        `targets` are what the predictor is asked for. With `keep` in the batch also which are `valid`, [B, L].
        """
        if mode == "train":
            return self.prediction_losses(batch)
        if mode == "contrast":
            return self.regularizer_losses(batch)
        assert mode == "embed", mode
        with torch.no_grad():
            tokens_BLD, valid_BL = self.whole(batch), self.valid(batch)
            valid = {} if valid_BL is None else {"valid": valid_BL}
            return {"tokens": tokens_BLD, "targets": as_targets(tokens_BLD)} | valid

    def weights(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """What each sum runs over: the targets of a prediction, the rows of a regulariser (the mean over its views)."""
        B, targets, rows = len(batch[self.modality]), [], []
        for name in self.names:
            counts = self.counted(batch, name)
            targets.append(batch[name.targets].numel() if counts is None else int(counts.targets_BMN.sum()))
            rows.append(B if counts is None else int(counts.rows_B.sum()))
        rows += [B] if self.exported == "student" else []
        weights = dict.fromkeys(self.coefficients, sum(rows) / len(rows))
        return weights | {name.loss: float(count) for name, count in zip(self.names, targets, strict=True)}

    def valid(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Which tokens [B, L] hold signal; None where all do."""
        if "keep" not in batch:
            return None
        assert self.padded, "a batch has padding, and a regulariser would not be told of its rows"
        return valid_tokens(batch["keep"], self.student.config)

    def counted(self, batch: dict[str, Tensor], name: MaskNames) -> Counted | None:
        """What counts under a kind of mask; None where all does."""
        valid_BL = self.valid(batch)
        return None if valid_BL is None else counted(valid_BL, batch[name.context], batch[name.targets])

    def prediction_losses(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """For each kind of mask the sum over its target tokens of the distance between prediction and teacher.

        With a regulariser also `features`: what it looks at of each view, and SIGReg's step.
        """
        whole_BLD = self.whole(batch)
        wanted_BLD = as_targets(whole_BLD)
        views = {} if self.exported == "teacher" else {"whole": View(whole_BLD, self.valid(batch))}
        sums: dict[str, Any] = {}
        for kind, name in enumerate(self.names):
            counts = self.counted(batch, name)
            seen_BKD, loss_BMN = self.predict(batch, kind, wanted_BLD, None if counts is None else counts.seen_BL)
            sums[name.loss] = (loss_BMN if counts is None else loss_BMN * counts.targets_BMN).sum()
            padding = (None, None) if counts is None else (counts.context_BK, counts.rows_B)
            views[name.context] = View(seen_BKD, *padding)
        return sums | ({"features": self.features(batch, views)} if self.contrastive else {})

    def predict(
        self, batch: dict[str, Tensor], kind: int, wanted_BLD: Tensor, valid_BL: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The student's context [B, K, D] under a kind of mask, and the loss of each target token [B, M, N]."""
        name, token = self.names[kind], kind if len(self.predictor.mask_tokens) > 1 else 0
        context_BK, targets_BMN = batch[name.context], batch[name.targets]
        seen_BKD = self.see(batch[self.modality], context_BK, batch.get(name.branches), valid_BL)
        predicted_BMND = self.predictor(seen_BKD, context_BK, targets_BMN, token, valid_BL)
        wanted_BMND = gather_tokens(wanted_BLD, targets_BMN.flatten(1)).view_as(predicted_BMND)
        return seen_BKD, feature_regression(predicted_BMND, wanted_BMND, self.loss.kind)

    def features(self, batch: dict[str, Tensor], views: dict[str, View]) -> dict[str, Tensor]:
        """What a regulariser looks at of each view, [B, F], of which rows if inputs are padded, and SIGReg's step."""
        pooled = {
            name: self.projection(mean_token(view.tokens_BLD.float(), view.valid_BL)).float()
            for name, view in views.items()
        }
        told = {STEP: batch[STEP]} if isinstance(self.loss.regularizer, SIGRegConfig) else {}
        if self.padded:
            all_B = torch.ones(len(batch[self.modality]), dtype=torch.bool, device=batch[self.modality].device)
            told |= {rows_name(name): all_B if view.rows_B is None else view.rows_B for name, view in views.items()}
        return pooled | told

    def regularizer_losses(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the features of all the rank's rows; every kind of mask is a view, and without a teacher the whole too."""
        assert self.loss.regularizer is not None
        rows = {name: features.get(rows_name(name)) for name, values in features.items() if values.is_floating_point()}
        views = [features[name] if rows_B is None else features[name][rows_B] for name, rows_B in rows.items()]
        step = int(features[STEP][0]) if STEP in features else 0  # of the directions: VICReg has none
        return regularize(self.loss.regularizer, views, self.seed, step)

    def see(
        self,
        signal: Tensor,
        context_BK: Tensor,
        branches_BN2: Tensor | None = None,
        valid_BL: Tensor | None = None,
    ) -> Tensor:
        """The student's features [B, K, D] of the context; what it can't leave out is zero in the signal it sees."""
        if isinstance(self.student, VisionTransformer):
            tokens_BKD: Tensor = self.student(signal, context_BK, valid_BL, branches_BN2)
            return tokens_BKD
        hidden = hide(signal, context_BK, self.student.config.grid)
        return gather_tokens(self.student(hidden, valid_BL=valid_BL), context_BK)

    def whole(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, L, D] of every token: the teacher's, or without one the student's, with their gradient."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.exported == "student"):
            tokens_BLD: Tensor = self.get_submodule(self.exported)(batch[self.modality], valid_BL=self.valid(batch))
        return tokens_BLD


def hide(signal: Tensor, context_BK: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The signal [B, C, *sides] with zeros in the parts of all tokens but the context's; the last may be cut short."""
    B, L = len(context_BK), math.prod(grid)
    seen_BL = torch.zeros(B, L, dtype=signal.dtype, device=signal.device).scatter(1, context_BK, 1.0)
    seen = seen_BL.view(B, 1, *grid)
    for axis, (side, tokens) in enumerate(zip(signal.shape[2:], grid, strict=True), 2):
        seen = seen.repeat_interleave(-(-side // tokens), axis).narrow(axis, 0, side)
    return signal * seen


def as_targets(tokens_BLD: Tensor) -> Tensor:
    """Tokens normalised over their width, without parameters."""
    return F.layer_norm(tokens_BLD.float(), tokens_BLD.shape[-1:])
