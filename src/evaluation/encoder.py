"""The encoder that a run leaves behind: exported, and loaded again from wherever it lies.

encoder = load_encoder("runs/mine")
features = encoder.embed(ecgs)          # [B, C, T] in mV at encoder.preprocessing.sampling_rate -> [B, F]
features = encoder.embed_samples(samples)       # of any modality, out of shards
"""

# B records, C channels, T samples of a lead, W windows of a record, L tokens, D width, F features

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from src.checkpoints.manifest import MANIFEST
from src.checkpoints.read import Checkpoint, checkpoint_folders, newest_checkpoint, open_checkpoint
from src.data.sample import Sample
from src.evaluation.features import Pool, as_batch, at_once, average_windows, pool_given, split
from src.files import always, replacing_folder
from src.models.any_config import read_encoder_section
from src.models.build import build_encoder
from src.models.config import EncoderSection
from src.models.padding import valid_tokens
from src.models.resize import resized
from src.transforms.plain import AnyPreprocessing, read_preprocessing
from src.transforms.preprocessing import Preprocessing

WEIGHTS, CONFIG, PREPROCESSING = "model.safetensors", "config.json", "preprocessing.json"
Features = NDArray[np.float32]
S = TypeVar("S")
CALL = 64
"""Windows in one forward of `Encoder.embed`."""


@dataclass(frozen=True)
class EncoderPart:
    """Which network of an objective is the encoder, the section that rebuilds it, and how its input is made."""

    network: str
    config: EncoderSection
    preprocessing: AnyPreprocessing

    def describe(self) -> dict[str, Any]:
        """As JSON, for a checkpoint's manifest."""
        return {
            "network": self.network,
            "config": self.config.carried().model_dump(mode="json"),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
        }


class Encoder(nn.Module):
    """An encoder with the preprocessing that it was trained with."""

    def __init__(self, config: EncoderSection, preprocessing: AnyPreprocessing) -> None:
        """With the weights that torch's generator draws, and no others."""
        super().__init__()
        self.config, self.preprocessing = config.drawn(), preprocessing
        self.network = build_encoder(self.config)

    def forward(self, windows: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] of windows [B, C, *sides] that went through `preprocessing`; of padding they mean nothing.

        `valid_BL` are those of `given`; without it all tokens hold signal.
        """
        tokens: Tensor = self.network(windows, valid_BL=valid_BL)
        return tokens

    def given(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The `tokens` [B, L, D] of windows by their modality; with `keep` beside these also which are `valid`."""
        windows = batch[self.preprocessing.modality]
        if "keep" not in batch:
            return {"tokens": self(windows)}
        valid_BL = valid_tokens(batch["keep"], self.config)
        return {"tokens": self(windows, valid_BL), "valid": valid_BL}

    def sha256(self) -> str:
        """Of the weights by name, the config and the preprocessing: what makes its features what they are."""
        digest = hashlib.sha256(self.config.model_dump_json().encode() + self.preprocessing.model_dump_json().encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def embed(
        self,
        ecg_BCT: NDArray[np.floating] | Tensor,
        pool: Pool = "mean",
        windows: int | None = None,
        lead_keep_BC: NDArray[np.bool_] | None = None,
    ) -> Features:
        """Features [B, F] of whole records in mV at `preprocessing.sampling_rate`, leads as in `preprocessing.leads`.

        Each is cut into `windows` evenly spaced windows (None covers it), whose pooled tokens are averaged; a shorter
        one is a single window, padded, where the encoder was trained so (`preprocessing.short`). Leads with
        `lead_keep_BC` False are missing; without it those that are flat are, as in shards. Images, videos and CT
        volumes come out of shards, by `embed_samples`.

        Raises:
            ValueError: other leads, records shorter than the encoder's window where these are refused, or values that
                are not finite; an encoder of another modality.
        """
        if not isinstance(self.preprocessing, Preprocessing):
            raise ValueError(f"the encoder takes {self.preprocessing.modality}, not ECGs: use embed_samples")
        ecg_BCT = np.asarray(ecg_BCT)
        if ecg_BCT.ndim != 3 or not len(ecg_BCT):
            raise ValueError(f"the ECGs have shape {list(ecg_BCT.shape)}; the encoder takes [records, leads, samples]")
        kept_BC = (ecg_BCT != ecg_BCT[:, :, :1]).any(2) if lead_keep_BC is None else lead_keep_BC
        records = enumerate(zip(ecg_BCT, kept_BC, strict=True))
        cut = [self.preprocessing.prepare(ecg_CT, keep_C, windows, f"record {n}") for n, (ecg_CT, keep_C) in records]
        return self._embed(cut, [ecg_BCT.shape[2]] * len(ecg_BCT), pool)

    def embed_samples(self, samples: Sequence[Sample], pool: Pool = "mean", windows: int | None = None) -> Features:
        """Features [B, F] of samples out of shards, whose lengths may differ; errors name the sample."""
        cut = [self.preprocessing.windows_of(sample, windows) for sample in samples]
        ecgs = isinstance(self.preprocessing, Preprocessing)
        return self._embed(cut, [sample["ecg"].shape[1] for sample in samples] if ecgs else None, pool)

    @torch.no_grad()
    def _embed(self, windows_BWC: list[NDArray[np.float32]], lengths_B: Sequence[int] | None, pool: Pool) -> Features:
        """Windows of all records in calls of equal size; of each record the mean over its windows."""
        device = next(self.network.parameters()).device
        calls = split(as_batch(self.preprocessing, windows_BWC, lengths_B), at_once(windows_BWC[0][0].size, CALL))
        on_device = ({name: tensor.to(device) for name, tensor in call.items()} for call in calls)
        pooled = torch.cat([pool_given(self.given(call), pool) for call in on_device]).cpu().numpy()
        return average_windows(pooled, windows_BWC)


def export_encoder(
    folder: Path, weights: Mapping[str, Tensor], part: EncoderPart, allowed: Callable[[], object] = always
) -> None:
    """Write weights, config and preprocessing into `folder`, replacing an older export only when all are complete.

    `allowed` is called first, and before that, and raises where it must not be replaced any more.
    """
    sections = {CONFIG: part.config.carried(), PREPROCESSING: part.preprocessing}
    told = {name: json.dumps(section.model_dump(mode="json"), indent=1) + "\n" for name, section in sections.items()}
    export_folder(folder, weights, told, allowed)


def export_folder(
    folder: Path,
    weights: Mapping[str, Tensor],
    told: Mapping[str, str],
    allowed: Callable[[], object] = always,
) -> None:
    """Write weights and texts by their names, as `export_encoder` does."""
    with replacing_folder(folder, allowed) as draft:
        save_file(dict(weights), draft / WEIGHTS)
        for name, text in told.items():
            (draft / name).write_text(text)


def load_encoder(path: Path | str, sides: Sequence[int] | None = None) -> Encoder:
    """The encoder in an exported `encoder/` folder, in a checkpoint, or in a run folder: its export, else its newest
    whole checkpoint.

    In evaluation mode, on the CPU, without gradients. `sides` are those of its input, where they are to be others than
    it was trained with: [samples] of ECGs, [H, W], or [frames or slices, H, W] (src/models/resize.py).

    Raises:
        ValueError: none of these, or damaged, which names the file; sides that it can't have.
    """
    path = Path(path)
    folder = next((place for place in (path, path / "encoder") if (place / WEIGHTS).is_file()), None)
    encoder = _from_export(folder) if folder is not None else _from_checkpoint(find_checkpoint(path))
    if sides is not None and tuple(sides) != encoder.config.sides:
        encoder = _of_sides(encoder, tuple(sides))
    return encoder.eval().requires_grad_(False)


def random_encoder(like: Encoder, seed: int) -> Encoder:
    """The same architecture with the weights that `seed` draws; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(like.config, like.preprocessing).eval().requires_grad_(False)


def _of_sides(encoder: Encoder, sides: tuple[int, ...]) -> Encoder:
    """The same weights for inputs of another size."""
    old = encoder.config
    if len(sides) != len(old.sides):
        raise ValueError(f"the encoder's input has {len(old.sides)} sides, {list(old.sides)}, not {list(sides)}")
    size = {"length": sides[0]} if len(sides) == 1 else {"input": sides}
    try:
        new = type(old).model_validate({**old.model_dump(), **size})
    except ValidationError as error:
        raise ValueError(f"the encoder's input can't be {list(sides)}: {error.errors()[0]['msg']}") from None
    other = Encoder(new, encoder.preprocessing.of_sides(sides))
    other.network.load_state_dict(resized(encoder.network.state_dict(), old, new))
    return other


def _from_export(folder: Path) -> Encoder:
    encoder = Encoder(
        _section(folder / CONFIG, read_encoder_section),
        _section(folder / PREPROCESSING, read_preprocessing),
    )
    try:
        encoder.network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise ValueError(
            f"{folder / WEIGHTS} does not fit {CONFIG} or is damaged ({reason}); export it again"
        ) from None
    return encoder


def _section(path: Path, read: Callable[[bytes], S]) -> S:
    try:
        return read(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: finish the run again with this version, which exports it") from None
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({error.errors()[0]['msg']}); export the encoder again") from None


def find_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint, or the newest whole one of a run folder.

    Raises:
        ValueError: neither of these, or damaged.
    """
    if (path / MANIFEST).is_file():
        return open_checkpoint(path)
    if not checkpoint_folders(path / "checkpoints"):
        raise ValueError(f"{path} holds no encoder: name an exported encoder/ folder, a checkpoint or a run folder")
    newest, damages = newest_checkpoint(path / "checkpoints")
    if newest is None:
        raise ValueError(f"no checkpoint of {path} is whole: {'; '.join(map(str, damages))}")
    return newest


def _from_checkpoint(checkpoint: Checkpoint) -> Encoder:
    part = checkpoint.manifest.encoder
    if part is None:
        raise ValueError(f"{checkpoint.folder} does not say which of its networks is the encoder; export the run's")
    encoder = Encoder(
        read_encoder_section(json.dumps(part["config"])), read_preprocessing(json.dumps(part["preprocessing"]))
    )
    state = encoder.network.state_dict()
    kinds = {name: "model" for name, _ in encoder.network.named_parameters()}
    for name, tensor in state.items():
        tensor.copy_(checkpoint.read(kinds.get(name, "buffer"), f"{part['network']}.{name}", tuple(tensor.shape)))
    return encoder
