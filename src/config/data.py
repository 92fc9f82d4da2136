"""The `data` section, typed: where samples come from, in which order, and how many make a batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag, model_validator

from src.config.ecg_transforms import ECGTransformConfig
from src.config.section import Section
from src.config.transforms import CTTransformConfig, ImageTransformConfig, Side, VideoTransformConfig

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
Weight = Annotated[float, Field(gt=0.0, le=1e9)]


def modality(transform: Any) -> str:
    """Of a section data.transform, whether it is validated yet or not: an ECG's does not need to say so."""
    told = transform.get("modality", "ecg") if isinstance(transform, dict) else getattr(transform, "modality", "ecg")
    return told if isinstance(told, str) else repr(told)


AnyTransform = Annotated[
    Annotated[ECGTransformConfig, Tag("ecg")]
    | Annotated[ImageTransformConfig, Tag("image")]
    | Annotated[VideoTransformConfig, Tag("video")]
    | Annotated[CTTransformConfig, Tag("ct")],
    Discriminator(modality),
]
"""What samples go through between shard and model; `modality` tells which they are."""


def is_address(root: str) -> bool:
    """Whether shards lie behind an address (https://...); a path and file://... are folders of this machine."""
    return "://" in root and not root.startswith("file://")


class SyntheticConfig(Section):
    """A few made-up samples, written as shards into data.root when nothing is there yet: for a first try without
    data. They are of the modality of data.transform."""

    samples: PositiveInt = 64
    length: PositiveInt = 500
    """Samples of each lead of an ECG."""
    shortest: PositiveInt | None = None
    """Of ECGs of different lengths, each as likely as any other, from this to `length`; null makes all alike."""
    sampling_rate: PositiveFloat = 100.0
    """Hz, of ECGs; of videos it is 25."""
    reports: bool = False
    """Write a report with most ECGs, in English or German; many are alike."""
    sides: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)] | None = None
    """Size of what is no ECG: [height, width] of images, [frames, height, width] of videos, [D, H, W] of CT volumes."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _shortest_first(self) -> Self:
        if self.shortest is not None and self.shortest > self.length:
            raise ValueError(f"shortest {self.shortest} is more than length {self.length}: lower it")
        return self


class CacheConfig(Section):
    """Where shards that lie elsewhere are kept on this machine; several runs may share it."""

    folder: str
    """On a local disk."""
    size: Annotated[float, Field(gt=0.0, le=1e9)]
    """GB (10^9 bytes) that its shards may take together; those that were not used for longest make room."""


def check_cache(cache: CacheConfig | None, roots: Sequence[str], why: str) -> None:
    """Refuse addresses without a cache, and a cache without addresses, where `why` says what the roots are instead."""
    remote = any(map(is_address, roots))
    if remote and cache is None:
        raise ValueError(
            "data.cache is missing though data.root is an address: give it the folder and the size in GB that copies "
            "of its shards may take"
        )
    if cache is not None and not remote:
        raise ValueError(f"data.cache does nothing where {why}: leave it out")


class SourceConfig(Section):
    """Another folder of shards that is mixed in."""

    root: str
    """Folder or address of its shards: those of data.root in modality, leads and sampling rate."""
    split: str = "train"
    weight: Weight = 1.0
    """Its share of the positions, beside data.weight and the weights of the others."""


class DataConfig(Section):
    """Where samples come from and how many make a batch."""

    root: str
    """Folder of tar shards with their index.json (python -m tools.build_shards), or its address (http, s3, gs)."""
    split: str = "train"
    mixture: dict[str, SourceConfig] = {}
    """Other sources by name; data.root stays what statistics and evaluation are of. Each has epochs of its own."""
    weight: Weight = 1.0
    """Share of data.root in a mixture."""
    balance: Literal["none", "labels", "patients"] = "none"
    """labels: each label as often as any other, a sample with several for each of them; patients: each patient once in
    a round, with another of its samples each time."""
    cache: CacheConfig | None = None
    """Needed where data.root is an address (http, https, s3, gs)."""
    window: PositiveInt | None = None
    """Shards whose samples are shuffled together, one window after the other; null shuffles all."""
    lanes: PositiveInt = 1
    """Ranges of an epoch that are walked through side by side, each by its part of the batch, which they divide: set
    it to the number of ranks or a multiple, so that each reads shards of its own."""
    broken: NonNegativeInt = 10
    """So many broken samples are skipped, each giving its place to the next of its epoch; one more ends the run."""
    timeout: Annotated[float, Field(gt=0.0, le=1e6)] = 600.0
    """Seconds without a batch after which a rank ends the run and says what its workers are at; below engine.timeout,
    after which it would end without saying why."""
    batch_size: PositiveInt
    """Global: samples of one optimizer step over all ranks."""
    micro_batch_size: PositiveInt | None = None
    """Largest number of samples in one forward of one rank; null takes the rank's whole share."""
    workers: NonNegativeInt = 0
    """Loader processes of each rank; 0 loads in the rank's own process."""
    leads: tuple[str, ...] = STANDARD_LEADS
    """Leads of ECGs in the order the model sees them; shards in another order are refused."""
    transform: AnyTransform = ECGTransformConfig()
    """What samples go through between shard and model; its modality, ecg where it has none, tells what they are."""
    synthetic: SyntheticConfig | None = None
    """Make these samples if data.root holds none."""

    @model_validator(mode="after")
    def _orders_go_together(self) -> Self:
        if self.batch_size % self.lanes:
            raise ValueError(f"data.lanes {self.lanes} must divide data.batch_size {self.batch_size}")
        if self.mixture and self.lanes > 1:
            raise ValueError("data.lanes is for one source: leave it 1 where data.mixture names others")
        if self.balance != "none" and (self.mixture or self.window is not None or self.lanes > 1):
            raise ValueError(
                f"data.balance {self.balance} picks single samples: it goes with no data.mixture, data.window or "
                "data.lanes"
            )
        if wrong := [name for name in self.mixture if not SOURCE.fullmatch(name) or name == "root"]:
            raise ValueError(
                f"data.mixture can't name a source {wrong[0]!r}: use a letter, then up to 63 letters, digits, - and _, "
                "and another name than root, which is data.root's"
            )
        if self.weight != 1.0 and not self.mixture:
            raise ValueError("data.weight does nothing without data.mixture: leave it out")
        return self

    @model_validator(mode="after")
    def _keys_of_one_modality(self) -> Self:
        kind, made = self.transform.modality, self.synthetic
        if kind != "ecg" and self.leads != STANDARD_LEADS:
            raise ValueError(f"data.leads is for ECGs, and data.transform.modality is {kind}: leave data.leads out")
        axes = {"ecg": 0, "image": 2}.get(kind, 3)
        if made is not None and len(made.sides or ()) != axes:
            raise ValueError(
                "data.synthetic.sides is for what is no ECG: leave it out, and set length"
                if kind == "ecg"
                else f"data.synthetic.sides must have {axes} numbers where data.transform.modality is {kind}"
            )
        for key in ("shortest", "reports"):
            if made is not None and getattr(made, key) and kind != "ecg":
                raise ValueError(
                    f"data.synthetic.{key} is for ECGs, not for data.transform.modality {kind}: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _remote_shards_are_cached(self) -> Self:
        if self.synthetic is not None and is_address(self.root):
            raise ValueError("data.synthetic writes shards, and data.root is an address: name a local folder")
        roots = [self.root, *(source.root for source in self.mixture.values())]
        check_cache(self.cache, roots, "data.root is a folder of this machine")
        return self
