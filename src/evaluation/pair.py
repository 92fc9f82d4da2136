"""A pair of towers that a run leaves behind: ECGs and texts as vectors of one space.

pair = load_pair("runs/mine")
ecg = pair.embed_ecg(ecgs)              # [B, C, T] in mV -> [B, F] of length 1
text = pair.embed_text(["normal ECG"])  # [1, F] of length 1
ecg @ text.T                            # cosines

Beside encoder/ a run leaves text/ (the text tower and both heads) and tokenizer/.
"""

# B records or texts, C leads, T samples of a lead, D width of a tower, F features of the joint space

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from src.config.section import Section
from src.config.transforms import TokenizerConfig
from src.data.sample import Sample
from src.evaluation.encoder import CONFIG, WEIGHTS, Encoder, export_folder, load_encoder
from src.files import replacing_folder
from src.models.joint import JointHead
from src.models.text import TextTower
from src.models.text_config import AnyTextConfig, JointHeadConfig
from src.text.tokenize import Tokenize

Features = NDArray[np.float32]
TEXT, TOKENIZER = "text", "tokenizer"
CALL = 64
"""Texts in one forward of `Pair.embed_text`."""


class PairSection(Section):
    """text/config.json: what rebuilds the text tower and the heads."""

    text: AnyTextConfig
    ecg_head: JointHeadConfig
    text_head: JointHeadConfig
    vocabulary: PositiveInt
    """Tokens that the tokenizer has."""
    length: PositiveInt
    """Tokens of every text."""


@dataclass(frozen=True)
class PairPart:
    """What of an objective is left behind beside the encoder: networks called text, text_head and ecg_head."""

    section: PairSection
    tokenize: Tokenize
    networks: ClassVar[tuple[str, ...]] = ("text", "text_head", "ecg_head")

    @classmethod
    def of(cls, text: AnyTextConfig, ecg_head: JointHeadConfig, text_head: JointHeadConfig, tokenize: Tokenize) -> Self:
        """Of the sections that these were built from."""
        section = PairSection(
            text=text.carried(),
            ecg_head=ecg_head,
            text_head=text_head,
            vocabulary=tokenize.size,
            length=tokenize.length,
        )
        return cls(section, tokenize)

    def write(self, run: Path, weights: Mapping[str, Mapping[str, Tensor]], allowed: Callable[[], object]) -> None:
        """text/ and tokenizer/ of a run folder, the tokenizer first; `allowed` as of `export_encoder`."""
        with replacing_folder(run / TOKENIZER, allowed) as draft:
            self.tokenize.save(draft)
        named = {f"{name}.{key}": tensor for name, of in weights.items() for key, tensor in of.items()}
        told = json.dumps(self.section.model_dump(mode="json"), indent=1) + "\n"
        export_folder(run / TEXT, named, {CONFIG: told}, allowed)


class Pair(nn.Module):
    """An encoder of ECGs, a text tower, and what maps both into the space in which they were compared."""

    def __init__(self, encoder: Encoder, section: PairSection, tokenize: Tokenize) -> None:
        super().__init__()
        self.encoder, self.section, self.tokenize = encoder, section, tokenize
        self.text = TextTower(section.text.drawn(), section.vocabulary)
        self.ecg_head = JointHead(encoder.config.token_width, section.ecg_head)
        self.text_head = JointHead(self.text.width, section.text_head)

    def embed_ecg(
        self,
        ecg_BCT: NDArray[np.floating] | Tensor,
        windows: int | None = None,
        lead_keep_BC: NDArray[np.bool_] | None = None,
    ) -> Features:
        """Joint features [B, F] of whole records in mV; arguments and errors are those of `Encoder.embed`.

        The vectors of several windows are averaged before they are mapped.
        """
        return self._join(self.encoder.embed(ecg_BCT, "mean", windows, lead_keep_BC))

    def embed_samples(self, samples: Sequence[Sample], windows: int | None = None) -> Features:
        """The same of samples out of shards."""
        return self._join(self.encoder.embed_samples(samples, "mean", windows))

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Features:
        """Joint features [B, F] of texts, in any order and number.

        Raises:
            ValueError: a text is empty, or the tokenizer fails at one.
        """
        device, found = self._device, []
        for start in range(0, len(texts), CALL):
            part = texts[start : start + CALL]
            if empty := [number for number, text in enumerate(part, start) if not text.strip()]:
                raise ValueError(f"text {empty[0]} is empty: leave it out")
            ids_BL, keep_BL = (torch.from_numpy(array).to(device) for array in self.tokenize(part))
            vectors_BD = self.text(ids_BL, keep_BL)
            found.append(F.normalize(self.text_head(vectors_BD).float(), dim=-1).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def _join(self, features_BD: Features) -> Features:
        joint_BF = self.ecg_head(torch.from_numpy(features_BD).to(self._device))
        joined: Features = F.normalize(joint_BF.float(), dim=-1).cpu().numpy()
        return joined

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


def load_pair(run: Path | str) -> Pair:
    """The pair of a run folder; in evaluation mode, on the CPU, without gradients.

    Raises:
        ValueError: it left none, or a part of it is missing or damaged; names the file.
    """
    run = Path(run)
    path = run / TEXT / CONFIG
    if not path.is_file():
        raise ValueError(f"{run} holds no pair ({path} is missing): name the run folder of a finished meclip run")
    try:
        section = PairSection.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({error.errors()[0]['msg']}); finish the run again") from None
    tokenize = Tokenize(TokenizerConfig(tokenizer=str(run / TOKENIZER), length=section.length))
    if tokenize.size != section.vocabulary:
        raise ValueError(
            f"{run / TOKENIZER} has {tokenize.size} tokens, but the text tower was trained with {section.vocabulary}: "
            "finish the run again"
        )
    pair = Pair(load_encoder(run / "encoder"), section, tokenize)
    _load(pair, run / TEXT / WEIGHTS)
    return pair.eval().requires_grad_(False)


def _load(pair: Pair, path: Path) -> None:
    try:
        found: dict[str, Any] = load_file(path)
        for name in PairPart.networks:
            of_network = {key: tensor for key, tensor in found.items() if key.startswith(f"{name}.")}
            pair.get_submodule(name).load_state_dict(
                {key.removeprefix(f"{name}."): tensor for key, tensor in of_network.items()}
            )
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise ValueError(f"{path} does not fit {CONFIG} or is damaged ({reason}); finish the run again") from None
