"""What the run's masks show of a real record of its own split: the samples of the first step, as training drew them."""

# C leads or channels, T samples of a lead, B samples of a batch, K context tokens, M target blocks, N tokens of a block

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from src.config.data import DataConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.config.inputs import pads
from src.config.transforms import CTTransformConfig
from src.data.broken import BrokenSample
from src.data.ecg_shards import ECGShards
from src.data.inputs import open_shards, preprocessing_of, sources_of
from src.data.make_plan import make_plan
from src.data.order import batch_positions
from src.data.sample import Sample
from src.data.shards import Shards
from src.data.sources import Sources
from src.masks.config import MaskConfig
from src.masks.sampler import Masks, MaskSampler
from src.models.any_config import read_encoder_section
from src.models.config import EncoderSection, LeadEncoderConfig
from src.randomness import Streams, derive_seed
from src.report.facts import known_grid, mask_words, patch_words
from src.report.masked import MaskedPlane, masked_planes
from src.report.paper import ecg_on_paper, masked_ecg
from src.report.read import RunData, last_part, lookup
from src.transforms.plain import CTPreprocessing, ImagePreprocessing, VideoPreprocessing

EXAMPLES = 3
SHOWN_LEADS = ("II", "V1", "V5")
"""Of twelve: a limb lead, a right and a left chest lead; elsewhere the first three."""
PLANES = 3
"""Of a video or a volume: the first tokens along its first axis, those in the middle and the last."""
NAMES = {"ecg": "ECG", "image": "image", "video": "video", "ct": "CT volume"}
Record = NDArray[np.floating]


class Kind(NamedTuple):
    """The masks of one kind, of which a run may have several."""

    words: str
    figures: tuple[tuple[Markup, str], ...]
    """One for each sample, with its caption."""


@dataclass(frozen=True)
class MaskPictures:
    """Figures of one run."""

    name: str
    """What a record is."""
    tokens: str
    kinds: tuple[Kind, ...]
    blocks: int
    """Targets of a sample, at most."""
    shown: str = ""
    """What of the record the figures leave out, as a sentence."""
    all_leads: Markup | None = None
    """The same ECG without masks, where the figures leave leads out."""

    @property
    def on_paper(self) -> bool:
        """Whether figures are ECGs on their paper."""
        return self.name == NAMES["ecg"]


class _Run(NamedTuple):
    """What of a config is needed here."""

    data: DataConfig
    encoder: EncoderSection
    kinds: tuple[MaskConfig, ...]
    seed: int

    @property
    def grid(self) -> tuple[int, ...]:
        """Of the masks: where tokens are of one lead, they are over time and the same on all leads."""
        return self.encoder.grid[1:] if isinstance(self.encoder, LeadEncoderConfig) else self.encoder.grid


def mask_pictures(run: RunData, show_ecg: bool = True) -> MaskPictures:
    """The masks of the run's first samples over the first of these records, named nowhere, or on empty paper.

    Raises:
        ValueError: why there is nothing to draw, as a sentence.
    """
    asked = _asked(run.config)
    try:
        with open_shards(asked.data, asked.data.split) as shards:
            sources = sources_of(asked.data, shards)
            streams, first = _first_samples(asked, sources)
            record = _record(asked, shards, _read(sources, first)) if show_ecg else None
            rate = shards.sampling_rate if isinstance(shards, ECGShards) else 1.0
    except (ValueError, OSError, TypeError, KeyError):
        name = last_part(asked.data.root)
        raise ValueError(f"The shards {name} can't be read from here, so the masks can't be drawn.") from None
    masks = _masks(asked, streams)
    if isinstance(asked.data.transform, ECGTransformConfig):
        return _over_an_ecg(asked, masks, record, rate)
    return _over_a_picture(asked, masks, record)


def _asked(config: dict[str, Any]) -> _Run:
    if "mask" not in config or lookup(config, "model", "encoder") is None:
        raise ValueError("This run has no masks: its config has no mask or no model.encoder.")
    try:
        kinds = [MaskConfig.model_validate_json(json.dumps(kind)) for kind in (config["mask"], *_more(config))]
        encoder = read_encoder_section(json.dumps(config["model"]["encoder"]))
        known_grid(encoder)
    except (ValueError, TypeError):
        raise ValueError("The config's mask or model.encoder is not one that this version can read.") from None
    try:
        data = DataConfig.model_validate_json(json.dumps(config["data"]))
        return _Run(data.model_copy(update={"cache": None}), encoder, tuple(kinds), int(config.get("seed", 0)))
    except (ValueError, TypeError, KeyError):
        raise ValueError("The config does not tell where the shards are.") from None


def _more(config: dict[str, Any]) -> list[Any]:
    more = config.get("more_masks")
    return more if isinstance(more, list) else []


def _first_samples(asked: _Run, sources: Sources) -> tuple[Streams, NDArray[np.int64]]:
    """The streams of the first samples of step 0, and the number of the first of them."""
    positions = batch_positions(0, asked.data.batch_size)[:EXAMPLES]
    epochs_B, numbers_B = make_plan(asked.data, sources, asked.seed).order(positions)
    return Streams.of_samples(asked.seed, epochs_B, numbers_B), numbers_B[:1]


def _read(sources: Sources, numbers: NDArray[np.int64]) -> Sample:
    sample = sources.read_each(numbers, lambda shard: None)[0]
    if isinstance(sample, BrokenSample):
        raise sample
    return sample


def _masks(asked: _Run, streams: Streams) -> list[Masks]:
    """Of each kind, by the seeds and streams of training (ssls/jepa/train.py)."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys without effect were told when the run began
        for number, kind in enumerate(asked.kinds):
            seed = derive_seed(asked.seed, f"mask {number}") if number else asked.seed
            of_kind = streams.fork(f"mask {number}" if number else "mask")
            found.append(MaskSampler(kind, asked.grid, seed)(0, of_kind))
    return found


def _record(asked: _Run, shards: Shards, sample: Sample) -> Record:
    """An ECG [C, T] in mV; else what the encoder sees, 0 .. 1, [*sides] or [*sides, 3], a CT in its first window."""
    if "ecg" in sample:
        return sample["ecg"]
    preprocessing = preprocessing_of(asked.data, shards, asked.encoder)
    window = preprocessing.windows_of(sample, 1)[0]
    if isinstance(preprocessing, CTPreprocessing):
        return window[0] * preprocessing.windows[0].std + preprocessing.windows[0].mean
    assert isinstance(preprocessing, ImagePreprocessing | VideoPreprocessing)
    values = np.moveaxis(window, 0, -1) * np.array(preprocessing.std) + np.array(preprocessing.mean)
    return values[..., 0] if values.shape[-1] == 1 else np.clip(values, 0.0, 1.0)


def _over_an_ecg(asked: _Run, kinds: Sequence[Masks], ecg_CT: Record | None, rate: float) -> MaskPictures:
    leads, length = list(asked.data.leads), asked.encoder.sides[0]
    if ecg_CT is None:
        leads, ecg_CT = [""], np.full((1, length), np.nan)
    lacking = length - ecg_CT.shape[1]
    if lacking > 0 and not pads(asked.data):
        raise ValueError("The record is shorter than what the encoder takes.")
    begin = max(-lacking // 2, 0)
    ecg_CT = ecg_CT[:, begin : begin + length]
    if lacking > 0:  # no line where there is no signal
        ecg_CT = np.pad(ecg_CT, ((0, 0), (0, lacking)), constant_values=np.nan)
    shown = _shown(leads)
    names, patch, of_lead = [leads[lead] for lead in shown], -(-length // asked.grid[-1]), ""
    if asked.grid != asked.encoder.grid:
        of_lead = f" of the {asked.grid[0]} tokens of each lead"

    def draw(context_K: NDArray[np.int64], targets_MN: NDArray[np.int64], title: str) -> Markup:
        return masked_ecg(ecg_CT[shown], rate, names, patch, context_K, targets_MN, title)

    return MaskPictures(
        name=NAMES["ecg"],
        tokens=f"{' x '.join(map(str, asked.encoder.grid))} tokens along {length / rate:g} s",
        kinds=_kinds(asked, kinds, draw, of_lead),
        blocks=max(masks.targets_BMT.shape[1] for masks in kinds),
        shown="A token is of one lead; masks are over time and the same on all leads." if of_lead else "",
        all_leads=ecg_on_paper(ecg_CT, rate, leads) if len(shown) < len(leads) else None,
    )


def _shown(leads: list[str]) -> list[int]:
    if set(SHOWN_LEADS) <= set(leads):
        return [leads.index(lead) for lead in SHOWN_LEADS]
    return list(range(min(len(leads), len(SHOWN_LEADS))))


def _over_a_picture(asked: _Run, kinds: Sequence[Masks], picture: Record | None) -> MaskPictures:
    grid, sides, modality = asked.encoder.grid, asked.encoder.sides, asked.data.transform.modality
    if len(grid) == 2:  # one plane
        grid, sides = (1, *grid), (1, *sides)
        picture = None if picture is None else picture[None]
    step = -(-sides[0] // grid[0])
    places = np.unique(np.linspace(0, grid[0] - 1, PLANES).round().astype(int)).tolist()
    unit = "" if modality == "image" else "frame" if modality == "video" else "slice"

    def draw(context_K: NDArray[np.int64], targets_MN: NDArray[np.int64], title: str) -> Markup:
        context = _chosen(context_K[None], grid)[0]
        targets = _chosen(targets_MN, grid)
        planes = []
        for place in places:
            begin, end = place * step, min((place + 1) * step, sides[0])
            seen = None if picture is None else picture[(begin + end - 1) // 2]
            told = _stretch(unit, begin + 1, end) if unit else ""
            planes.append(MaskedPlane(told, (sides[1], sides[2]), seen, context[place], targets[:, place]))
        return masked_planes(planes, title)

    return MaskPictures(
        name=NAMES[modality],
        tokens=f"{' x '.join(map(str, asked.encoder.grid))} tokens of {patch_words(asked.encoder, modality)}",
        kinds=_kinds(asked, kinds, draw),
        blocks=max(masks.targets_BMT.shape[1] for masks in kinds),
        shown=_shown_planes(asked.data, unit, len(places), grid[0], picture is not None),
    )


def _chosen(tokens_XN: NDArray[np.int64], grid: tuple[int, ...]) -> NDArray[np.bool_]:
    """Lists of tokens as [X, *grid], True where a token is among them."""
    chosen_XL = np.zeros((len(tokens_XN), math.prod(grid)), np.bool_)
    np.put_along_axis(chosen_XL, tokens_XN, True, axis=1)
    return chosen_XL.reshape(-1, *grid)


def _stretch(unit: str, first: int, last: int) -> str:
    return f"{unit} {first}" if first == last else f"{unit}s {first} to {last}"


def _shown_planes(data: DataConfig, unit: str, planes: int, depth: int, shows: bool) -> str:
    """What of a video or a volume the figures show."""
    if not unit:
        return ""
    words = f"Of the tokens along the {unit}s, {planes} of {depth} are drawn" if planes < depth else ""
    window = ""
    if shows and isinstance(data.transform, CTTransformConfig):
        low, high = (data.transform.windows[0].center + sign * data.transform.windows[0].width / 2 for sign in (-1, 1))
        window = f" in the window from {low:,.0f} to {high:,.0f} HU"
    middle = f"each over its middle {unit}{window}" if shows else ""
    return f"{words or 'All tokens are drawn'}{', ' if middle else ''}{middle}." if words or middle else ""


def _kinds(asked: _Run, kinds: Sequence[Masks], draw: Any, of_lead: str = "") -> tuple[Kind, ...]:
    found = []
    for config, masks in zip(asked.kinds, kinds, strict=True):
        figures = []
        for sample, (context_K, targets_MN) in enumerate(zip(masks.context_BK, masks.targets_BMT, strict=True), 1):
            hidden = len(np.unique(targets_MN))
            neither = math.prod(asked.grid) - len(context_K) - hidden
            caption = f"{len(context_K)} context, {hidden} target, {neither} neither{of_lead}"
            figures.append((draw(context_K, targets_MN, f"Masks of sample {sample}: {caption}"), caption))
        found.append(Kind(mask_words(config.model_dump()), tuple(figures)))
    return tuple(found)
