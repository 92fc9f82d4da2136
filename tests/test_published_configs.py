"""The configs with published settings: as large as published, scheduled as published, and their overlays train."""

import math
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml

from src.config import load_config
from src.masks.block import on_all
from src.masks.sampler import MaskSampler
from src.models.config import LeadEncoderConfig
from src.optimization.schedules import count_steps, learning_rate, linear, warmup_steps, weight_decay
from src.randomness import Streams
from ssls.jepa.model import JEPA
from ssls.objectives import schema_of
from tests.commands import lines
from tests.config.record_reads import experiment
from tests.masks.reference import stretches
from tools.build_shards import parse

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
PAGE = (ROOT / "docs" / "jepa.md").read_text()
IMAGENET_1K, IMAGENET_22K = 1_281_167, 14_197_122
CODE15_AND_SHAOXING = 130_900 + 45_055  # what Kim's training logs count
CHESTS = 10_000


class Published(NamedTuple):
    """What a config must come to."""

    encoder: int
    """Parameters: those of `vit` below, by arithmetic alone."""
    rounded: float | None
    """Millions of parameters in the paper; None where there is no paper."""
    samples: int
    """Of the training split, which only counts where a run is as long as so many epochs."""
    batch: int
    steps: int
    warmup: int
    lr: tuple[float, float, float]
    """Of the first step, the first one after the warm-up, and the last."""
    weight_decay: tuple[float, float]
    momentum: tuple[float, float]
    grid: tuple[int, ...]
    context: list[float]
    """Mean share of the tokens that are context, for each kind of mask."""


def vit(width: int, depth: int, mlp: int, numbers: int, registers: int = 0) -> int:
    """Parameters of a vision transformer without class token or head, whose patches hold so many numbers."""
    attention, block_norms = 4 * (width * width + width), 2 * 2 * width
    return (
        numbers * width + width  # patch embedding
        + registers * width
        + depth * (attention + 2 * width * mlp + mlp + width + block_norms)
        + 2 * width  # last norm
    )  # fmt: skip


IJEPA = {"batch": 2048, "weight_decay": (0.04, 0.4), "momentum": (0.996, 1.0), "context": [0.46]}
IJEPA_RATES = (2e-4, 1e-3, 1e-6)
WEIMANN = {
    "samples": 800_000,
    "batch": 2048,
    "steps": 100_000,
    "warmup": 10_000,
    "lr": (1e-6, 1e-3, 1e-6),
    "weight_decay": (0.01, 0.1),
    "momentum": (0.998, 0.9995),
    "grid": (200,),
    "context": [0.2],
}
PUBLISHED = {
    "in1k_vith14_ep300": Published(
        encoder=vit(1280, 32, 5120, 3 * 14 * 14),  # 630,434,560
        rounded=632,
        samples=IMAGENET_1K,
        steps=187_671,
        warmup=25_023,
        lr=IJEPA_RATES,
        grid=(16, 16),
        **IJEPA,
    ),
    "in1k_vith16-448_ep300": Published(
        encoder=vit(1280, 32, 5120, 3 * 16 * 16),  # 630,664,960
        rounded=632,
        samples=IMAGENET_1K,
        steps=187_671,
        warmup=25_023,
        lr=IJEPA_RATES,
        grid=(28, 28),
        **IJEPA,
    ),
    "in22k_vitg16_ep44": Published(
        encoder=vit(1408, 40, 6144, 3 * 16 * 16),  # 1,011,092,608
        rounded=1011,
        samples=IMAGENET_22K,
        steps=305_017,
        warmup=20_797,
        lr=IJEPA_RATES,
        grid=(14, 14),
        **IJEPA,
    ),
    "jepa/video_vjepa2_vitl16": Published(
        encoder=vit(1024, 24, 4096, 3 * 2 * 16 * 16),  # 303,885,312
        rounded=304,
        samples=22_000_000,
        batch=3072,
        steps=240_000,
        warmup=12_000,
        lr=(1e-4, 5.25e-4, 5.25e-4),
        weight_decay=(0.04, 0.04),
        momentum=(0.99925, 0.99925),
        grid=(8, 16, 16),
        context=[0.38, 0.19],
    ),
    "jepa/ecg_weimann_vits": Published(
        encoder=vit(384, 8, 1536, 12 * 25, registers=1),  # 14,312,448
        rounded=14.3,
        **WEIMANN,
    ),
    "jepa/ecg_weimann_vitxs": Published(
        encoder=vit(192, 8, 768, 12 * 25, registers=1),  # 3,617,280
        rounded=3.6,
        **WEIMANN,
    ),
    "jepa/ecg_kim_vitb": Published(
        encoder=vit(768, 12, 3072, 50),  # 85,095,168
        rounded=85.1,
        samples=CODE15_AND_SHAOXING,
        batch=64,
        steps=274_930,
        warmup=13_746,
        lr=(1e-6, 5.5e-5, 1e-6),
        weight_decay=(0.05, 0.05),
        momentum=(0.996, 1.0),
        grid=(8, 50),
        context=[0.42],
    ),
    "jepa/ct_chest_vitb": Published(
        encoder=vit(768, 12, 3072, 2 * 8 * 16 * 16),  # 88,202,496
        rounded=None,
        samples=CHESTS,
        batch=256,
        steps=11_719,
        warmup=1562,
        lr=(1e-4, 3e-4, 1e-6),
        weight_decay=(0.04, 0.4),
        momentum=(0.998, 1.0),
        grid=(12, 10, 10),
        context=[0.42, 0.28],
    ),
}
WITHOUT_BIASES = {"jepa/ecg_weimann_vits": 14_277_888, "jepa/ecg_weimann_vitxs": 3_600_000}
"""Learnable parameters of the encoder, as the public configs of Weimann & Conrad count them."""
SIZE = {
    "data.transform.size",
    "data.transform.clip.frames",
    *(f"model.encoder.{key}" for key in ("input", "length", "width", "depth", "heads")),
    *(f"model.predictor.{key}" for key in ("width", "depth", "heads")),
}
DATA = {f"data.{key}" for key in ("root", "batch_size", "micro_batch_size", "workers")}
MADE = {f"data.synthetic.{key}" for key in ("samples", "sides", "length", "sampling_rate")}
STEPS = {f"optimization.{key}" for key in ("epochs", "steps", "warmup_epochs", "warmup_steps")}
PLACES = {"base", "logging.folder", "logging.every"}
full = pytest.mark.parametrize("name", PUBLISHED)


def config_of(name, *settings):
    return load_config(CONFIGS / f"{name}.yaml", list(settings), schema_of)


def on_meta(config):
    """The whole JEPA without memory: ViT-g and its teacher would take 8 GB."""
    with torch.device("meta"):
        return JEPA(config.model, config.loss, 1 + len(config.more_masks), config.data.transform.modality)


def masks_of(config, samples):
    """A sampler for each kind of mask, over time alone where leads share it, and what it draws for so many samples."""
    encoder = config.model.encoder
    grid = encoder.grid[1:] if isinstance(encoder, LeadEncoderConfig) else encoder.grid
    streams = Streams.of_samples(config.seed, np.zeros(samples, np.int64), np.arange(samples))
    for kind in (config.mask, *config.more_masks):
        sampler = MaskSampler(kind, grid, config.seed)
        yield sampler, sampler(0, streams)


def full_batch(config, names):
    """Two samples of the config's size without memory, with masks and the branches that drop path keeps."""
    encoder = config.model.encoder
    batch = {config.data.transform.modality: torch.empty(2, encoder.channels, *encoder.sides, device="meta")}
    leads = encoder.grid[0] if isinstance(encoder, LeadEncoderConfig) else 1
    for name, (sampler, masks) in zip(names, masks_of(config, 2), strict=True):
        for key, tokens in ((name.context, masks.context_BK), (name.targets, masks.targets_BMT)):
            batch[key] = torch.from_numpy(on_all(tokens, leads, sampler.length)).to("meta")
        if encoder.drop_path:
            batch[name.branches] = torch.ones(2, encoder.size[1], 2, dtype=torch.bool, device="meta")
    return batch


def count(module, but=()):
    """Parameters, less those whose names end with one of these."""
    return sum(
        parameter.numel() for name, parameter in module.named_parameters() if not but or not name.endswith(tuple(but))
    )


def leaves(values, above=""):
    """Dotted names of all keys that hold no mapping."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def test_every_published_config_is_told_of_here_and_has_an_overlay():
    found = {path.stem for path in CONFIGS.glob("*.yaml")}
    found |= {f"jepa/{path.stem}" for path in (CONFIGS / "jepa").glob("*_vit*.yaml")}
    assert found == {*PUBLISHED, *(f"{name}_debug" for name in PUBLISHED)}


@full
def test_the_encoder_is_as_large_as_published(name):
    config, wanted = config_of(name), PUBLISHED[name]
    model = on_meta(config)
    assert count(model.student) == count(model.teacher) == wanted.encoder
    assert model.student.config.grid == wanted.grid
    if wanted.rounded is not None:
        assert wanted.encoder == pytest.approx(wanted.rounded * 1e6, rel=0.005)


@full
def test_at_full_size_every_loss_is_there_and_every_parameter_gets_a_gradient(name):
    config = config_of(name)
    model = on_meta(config)
    losses = model(full_batch(config, model.names))
    assert len(losses) == 1 + len(config.more_masks)
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []


def test_the_numbers_of_parameters_are_those_of_the_arithmetic_done_once():
    sizes = [published.encoder for published in PUBLISHED.values()]
    assert sizes == [
        630_434_560,
        630_664_960,
        1_011_092_608,
        303_885_312,
        14_312_448,
        3_617_280,
        85_095_168,
        88_202_496,
    ]


def test_a_vit_h_is_what_the_vision_transformers_paper_counts_with_its_class_token_positions_and_head():
    """632 M in table 1 of arXiv 2010.11929."""
    class_token, positions, head = 1280, (16 * 16 + 1) * 1280, 1280 * 1000 + 1000
    assert round((PUBLISHED["in1k_vith14_ep300"].encoder + class_token + positions + head) / 1e6) == 632


@pytest.mark.parametrize("name", WITHOUT_BIASES)
def test_without_biases_the_encoder_has_exactly_as_many_parameters_as_its_authors_count(name):
    assert count(on_meta(config_of(name)).student, [".bias"]) == WITHOUT_BIASES[name]


def test_kims_encoder_and_predictor_have_as_many_parameters_as_his_training_logs_count():
    model = on_meta(config_of("jepa/ecg_kim_vitb"))
    learnable = count(model.student, ["qkv.bias"]) + count(model.predictor, ["qkv.bias"])
    assert f"{learnable / 1e6:.2f}" == "96.30"


@full
def test_schedules_begin_peak_and_end_as_published(name):
    config, wanted = config_of(name), PUBLISHED[name]
    optimization, batch = config.optimization, config.data.batch_size
    assert batch == wanted.batch
    steps = count_steps(optimization, batch, wanted.samples)
    warmup = warmup_steps(optimization, batch, wanted.samples)
    assert (steps, warmup) == (wanted.steps, wanted.warmup)
    rate, decay = learning_rate(optimization, warmup, steps), weight_decay(optimization, steps)
    momentum = linear(config.model.teacher.momentum, config.model.teacher.final_momentum, steps)
    assert (rate(0), rate(warmup), rate(steps - 1)) == pytest.approx(wanted.lr)
    assert rate(warmup - 1) == pytest.approx(wanted.lr[1], rel=0.01) and rate(warmup - 1) < rate(warmup)
    assert max(rate(step) for step in range(0, steps, 997)) <= wanted.lr[1] * (1 + 1e-9)
    assert (decay(0), decay(steps - 1)) == pytest.approx(wanted.weight_decay)
    assert (momentum(0), momentum(steps - 1)) == pytest.approx(wanted.momentum)


@full
def test_masks_show_as_much_as_is_meant(name):
    """Means over 60 steps, of shares whose standard deviation is below 0.08."""
    config = config_of(name)
    for (sampler, masks), context in zip(masks_of(config, 4), PUBLISHED[name].context, strict=True):
        assert sampler.config.unused(len(sampler.grid)) == []
        counts = [sampler.sizes(step).context_tokens for step in range(60)]
        assert sum(counts) / len(counts) / sampler.length == pytest.approx(context, abs=0.03)
        assert min(counts) >= 10
        hidden, shown = masks.targets_BMT.reshape(4, -1), masks.context_BK
        assert all(not set(row) & set(seen) for row, seen in zip(hidden.tolist(), shown.tolist(), strict=True))


@pytest.mark.parametrize("name", ["jepa/ecg_weimann_vits", "jepa/ecg_weimann_vitxs"])
def test_weimanns_masks_keep_31_to_50_of_200_tokens_and_hide_runs_of_10_or_more(name):
    ((sampler, masks),) = masks_of(config_of(name), 500)
    kept = [sampler.sizes(step).context_tokens for step in range(1000)]
    assert (min(kept), max(kept)) == (31, 50) and sum(kept) / len(kept) == pytest.approx(40.5, abs=0.8)
    hidden = [stretches(set(tokens)) for tokens in masks.targets_BMT[:, 0].tolist()]
    assert min(len(run) for runs in hidden for run in runs) == 10


@pytest.mark.parametrize("name", ["in1k_vith14_ep300", "in1k_vith16-448_ep300", "in22k_vitg16_ep44"])
def test_the_published_masks_are_two_settings_away_as_the_config_says(name):
    told = [word for line in (CONFIGS / f"{name}.yaml").read_text().splitlines() for word in line.split()]
    settings = [word for word in told if word.startswith("mask.")]
    config = config_of(name, *settings)
    assert config.mask.style == "legacy_ijepa"
    assert config.mask.legacy_batch == config.data.micro_batch_size


@full
def test_an_overlay_changes_nothing_but_size_data_and_steps(name):
    overlay = yaml.safe_load((CONFIGS / f"{name}_debug.yaml").read_text())
    assert overlay["base"] == f"{Path(name).name}.yaml"
    assert set(leaves(overlay)) <= SIZE | DATA | MADE | STEPS | PLACES


@full
def test_an_overlay_trains_in_seconds(name, tmp_path):
    places = [f"logging.folder={tmp_path / 'run'}", f"data.root={tmp_path / 'shards'}"]
    experiment(config_of(f"{name}_debug", *places), check=False)
    records = lines(tmp_path / "run" / "metrics.jsonl")
    assert len(records) >= 3 and all(math.isfinite(record["loss"]) for record in records)
    assert (tmp_path / "run" / "encoder" / "model.safetensors").is_file()


@full
def test_the_command_that_builds_its_shards_is_one(name):
    """Flags that exist, and the folder that the config reads; a config on another one's shards tells none."""
    path = CONFIGS / f"{name}.yaml"
    comments = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    told = re.findall(r"python -m tools\.build_shards (.*?--output \S+)", " ".join(comments).replace("\\ ", ""))
    if "base" in yaml.safe_load(path.read_text()) and not told:
        return
    (command,) = told
    assert str(parse(shlex.split(command)).output) == config_of(name).data.root


def test_the_page_on_jepa_tells_of_every_published_config_with_its_size_and_length():
    rows = {
        row[0].strip(" `").removeprefix("configs/").removesuffix(".yaml"): " ".join(row)
        for line in PAGE.splitlines()
        if line.startswith("| `configs/")
        for row in [line.strip("|").split("|")]
    }
    assert rows.keys() == PUBLISHED.keys()
    for name, row in rows.items():
        config, millions = config_of(name), PUBLISHED[name].encoder / 1e6
        assert f"{millions:,.0f} M" in row or f"{millions:.1f} M" in row
        predictor = config.model.predictor
        assert f"{predictor.depth} x {predictor.width}" in row or "the same" in row
        length = config.optimization
        assert f"{length.epochs or length.steps:,} " in row or "the same" in row


def test_the_config_that_the_page_on_jepa_begins_with_is_valid(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    _, block = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    text = textwrap.dedent("   " + block.lstrip())
    (name,) = re.findall(r"^# (configs/\S+)$", text, re.MULTILINE)
    (tmp_path / name).write_text(text)
    config = load_config(tmp_path / name, [], schema_of)
    assert count(on_meta(config).student) == vit(384, 12, 1536, 16 * 16)


def test_the_config_of_the_page_on_jepa_for_ecgs_of_different_lengths_is_valid(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    block, _ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "configs/jepa/lengths.yaml").write_text(f"base: ecg_debug.yaml\n{block}")
    config = load_config(tmp_path / "configs/jepa/lengths.yaml", [], schema_of)
    assert config.data.transform.short == "pad" and config.model.encoder.grid == (200,)
