"""Reports of samples, by the encoder, the decoder and the tokenizer that a run has left behind.

writer = load_writer("runs/mine")
texts = writer.write(samples)       # out of shards, greedily
"""

# B samples, T tokens of a text, L encoder tokens

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from src.config.transforms import TokenizerConfig
from src.data.sample import Sample
from src.evaluation.encoder import CONFIG, WEIGHTS, Encoder, export_folder, load_encoder
from src.evaluation.features import Records
from src.files import always
from src.models.decoder import Decoder
from src.models.decoder_config import DecoderConfig
from src.models.generate import Sampling, beam_search, greedy, sample
from src.randomness import Streams, name_key
from src.text.special import SpecialTokens
from src.text.tokenize import Tokenize

DECODER, TOKENIZER = "decoder", "tokenizer"
"""Folders of a run."""


def inputs_of(records: Records, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """The one window of each sample that is translated, the middle of a longer one, as a batch by its modality."""
    return records.batch(samples, [records.windows_of(sample)[:1] for sample in samples])


class Writer(nn.Module):
    """An encoder, and what writes of its tokens."""

    def __init__(self, encoder: Encoder, decoder: Decoder, tokenize: Tokenize) -> None:
        super().__init__()
        self.encoder, self.decoder, self.tokenize = encoder, decoder, tokenize

    @torch.no_grad()
    def write(
        self,
        records: Records,
        samples: Sequence[Sample],
        beams: int = 1,
        length_penalty: float = 1.0,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[str]:
        """A text for each sample: drawn, where it is said how, else the likeliest that so many beams find.

        What is drawn for a sample depends on the seed and its key alone.

        Raises:
            ValueError: a sample does not fit the encoder.
        """
        device, decoder = self.decoder.positions.device, self.decoder
        batch = {name: value.to(device) for name, value in inputs_of(records, samples).items()}
        given = self.encoder.given(batch)
        write, special = decoder.begin(given["tokens"], given.get("valid"), beams), decoder.special
        if sampling is not None:
            keys_B = np.array([name_key(sample["key"]) >> 1 for sample in samples], np.int64)
            streams = Streams.of_samples(seed, np.zeros_like(keys_B), keys_B)
            uniforms_BT = torch.from_numpy(streams.uniform("tokens", decoder.length)).to(device)
            texts = sample(write, special, uniforms_BT, sampling)
        elif beams == 1:
            texts = greedy(write, special, decoder.length, device)
        else:
            texts = beam_search(write, beams, special, decoder.length, device, length_penalty)
        return [self.tokenize.text(ids) for ids in texts.ids_BT.tolist()]


def export_decoder(
    folder: Path, weights: Mapping[str, Tensor], decoder: Decoder, allowed: Callable[[], object] = always
) -> None:
    """Write a decoder's weights and what rebuilds it, as `export_encoder` does."""
    described = {
        "decoder": decoder.config.model_dump(mode="json"),
        "special": asdict(decoder.special),
        "length": decoder.length,
        "encoder_width": decoder.norm_encoded.normalized_shape[0],
    }
    export_folder(folder, weights, {CONFIG: json.dumps(described, indent=1) + "\n"}, allowed)


def load_decoder(folder: Path) -> Decoder:
    """The decoder of an exported `decoder/` folder, on the CPU.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    try:
        told = json.loads((folder / CONFIG).read_text())
        config, special = DecoderConfig.model_validate(told["decoder"]), SpecialTokens(**told["special"])
        decoder = Decoder(config, special, told["length"], told["encoder_width"])
        decoder.load_state_dict(load_file(folder / WEIGHTS))
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing: name the run folder of a finished translation") from None
    except (SafetensorError, RuntimeError, OSError, ValidationError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise ValueError(f"{folder} is damaged ({reason}): finish the run again") from None
    return decoder


def load_writer(run: Path | str) -> Writer:
    """What a finished run of translation has left, in evaluation mode, on the CPU, without gradients.

    Raises:
        ValueError: it is not one, or damaged.
    """
    run = Path(run)
    decoder = load_decoder(run / DECODER)
    tokenize = Tokenize(TokenizerConfig(tokenizer=str(run / TOKENIZER), length=decoder.length))
    return Writer(load_encoder(run), decoder, tokenize).eval().requires_grad_(False)
