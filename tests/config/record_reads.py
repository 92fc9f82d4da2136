"""Which config keys does the code read? Runs experiments in this process and writes down every read of a field.

python -m tests.config.record_reads OUTPUT FOLDER    writes [section class, field] pairs of all EXPERIMENTS as JSON
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import FrameType

import numpy as np
import torch
import yaml

from src.config import ExperimentConfig, RunConfig, Section, load_config
from src.config.data import STANDARD_LEADS
from src.config.transforms import TokenizerConfig
from src.data.ecg_shards import ECGShards
from src.data.modalities import MODALITIES
from src.distributed.ranks import Ranks
from src.run.rank import make_run
from src.text.tokenize import Tokenize
from src.text.vocabulary import train_tokenizer
from src.transforms.show_ecg import AUGMENTATIONS
from ssls.objectives import schema_of
from tests.data.servers import WebServer

ROOT = Path(__file__).resolve().parents[2]
CODE = tuple(str(ROOT / name) for name in ("src", "ssls", "main.py"))
ROOMS = (
    *("attentive", "data", "ecg_transforms", "engine", "experiment", "optimization"),
    *("pairs", "scores", "supervised", "target", "transforms"),
)
DECLARATIONS = "config.py", *(f"src/config/{room}.py" for room in ROOMS)
"""Files that declare sections: a section's own checks are no use of its keys, its properties are."""

PROPERTIES = property, cached_property
PASSED_THROUGH = __file__, functools.__file__
"""Between a property and who asked for it: the record here, and cached_property."""

SHORT = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=4"]
# Settings over configs/<objective>/ecg_debug.yaml, and whether it is a --check; later ones may use earlier ones.
AUGMENTED = [f"data.transform.{name}.probability=1" for name in AUGMENTATIONS]
SAVING = ["checkpoint.every=1", "checkpoint.keep_last=1", "checkpoint.keep_every=2"]
MIXED = ["data.mixture.other.root={trained}/shards", "data.mixture.other.weight=2", "data.weight=2"]
CACHED = ["data.cache.folder={folder}/cache", "data.cache.size=1"]
EXPERIMENTS = {
    "saving": ([*SHORT, *SAVING, "optimization.warmup_steps=2", "evaluation.every=2"], False),
    "started": ([*SHORT, "init_from={folder}/saving", "engine.precision=bf16", "data.micro_batch_size=5"], False),
    "skipping": ([*SHORT, "optimization.lr=1e30", "data.workers=1"], False),
    "wandb": (["optimization.epochs=1", "optimization.warmup_epochs=0", "logging.wandb.mode=offline"], False),
    "checked": (SHORT, True),
    "mixed": ([*SHORT, *MIXED], True),
    "augmented": ([*SHORT, *AUGMENTED], True),
    "remote": ([*SHORT, "data.synthetic=null", "data.root={address}", *CACHED], False),
    "fsdp": ([*SHORT, "engine.name=fsdp", "checkpoint.background=true"], False),
    "zero": ([*SHORT, "engine.name=deepspeed", "engine.zero_stage=1"], False),
}
MASKED = {
    "complement": ([*SHORT, "mask.style=complement", "mask.targets=3", "loss.kind=l1"], True),
    "legacy": ([*SHORT, "mask.style=legacy_ijepa", "mask.legacy_batch=16"], True),
    "runs": ([*SHORT, "mask.style=runs", "mask.shortest=5"], True),
    "sigreg": ([*SHORT, "model.teacher.kind=none", "loss.regularizer.kind=sigreg"], True),
    "vicreg": ([*SHORT, "loss.regularizer.kind=vicreg", "loss.regularizer.projection=[8, 4]"], True),
}
TUNED = {
    "saving": EXPERIMENTS["saving"],
    "attentive": (
        [*SHORT, "model.head.pool=attentive", "model.head.heads=2", "model.head.dropout=0.1", "loss.focal.gamma=1"]
        + ["loss.label_smoothing=0.1", "evaluation.every=2", "early_stopping.patience=1", "scores.groups=[heart_rate]"]
        + ["scores.edges.heart_rate=[90]"],
        False,
    ),
    "frozen": ([*SHORT, "init_from={folder}/saving", "model.freeze=[stem]"], True),
}
# Over the debug configs of other modalities.
ALWAYS = "data.transform.{}.probability=1"
SPACE = ("resized_crop", "flip_horizontal", "flip_vertical", "blur")
COLORS = ("color_jitter", "grayscale", "solarize")
VALUES = ("randaugment", "gamma", "contrast", "brightness", "speckle", "noise")
BODIES = ("rotation", "scale", "translation", "flip_depth", "flip_height", "flip_width", "attenuation", "noise")
IN_COLORS = ["data.transform.channels=3", "data.transform.mean=[0.5,0.5,0.5]", "data.transform.std=[0.2,0.2,0.2]"]
RANDAUGMENT = ["data.transform.randaugment.operations=[rotate]"]
TRAINED = ([*SHORT, "evaluation.every=2"], False)
HIT = {
    "image_debug": [*IN_COLORS, "model.encoder.colors=3", *map(ALWAYS.format, SPACE + COLORS)],
    "video_debug": [*RANDAUGMENT, *map(ALWAYS.format, SPACE + VALUES)],
    "ct_debug": [*map(ALWAYS.format, ("window_jitter", *BODIES))],
}
OTHERS = {stem: {"trained": TRAINED, "hit": ([*SHORT, *hit], True)} for stem, hit in HIT.items()}
LEADS = {"name": "ecg_lead_tiny", "leads": 12, "length": 400, "patch": 10, "width": 16, "depth": 1, "heads": 2}
LEADS |= {"drop_path": 0.1, "mlp_ratio": 2.0, "registers": 1, "positions": "learned"}
RESNET = {"name": "resnet1d_18", "leads": 12, "length": 400, "depths": [1, 1, 1, 1], "widths": [4, 4, 4, 4]}
HIDDEN = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
S4 = {"name": "s4", "leads": 12, "length": 400, "patch": 10, "width": 16, "depth": 1}
# Of what does not train: settings over its debug config; `{trained}` is a folder in which the JEPA has left its run.
PROBES = {
    "remote": (["data.root={address}", *CACHED], False),
    "labels": (["rows.raw=amplitudes", "scores.groups=[heart_rate]", "scores.edges.heart_rate=[90]"], False),
    "column": (["target.column=heart_rate", "rows.scores.rate={trained}/scores.csv", "rows.ceiling=rate"], False),
    "attentive": (["head.kind=attentive", "head.folds=2", "head.attentive.epochs=1"], False),
}
TRANSLATED = {
    "trained": ([*SHORT, "evaluation.every=2", "evaluation.patience=3", "tests.test.split=val"], False),
    "frozen": ([*SHORT, "init_from={trained}/saving", "model.encoder=null", "model.frozen=true"], True),
}
# Sections that all objectives have are read by the first's experiments; another has those of its own keys alone.
FEW = {"trained": TRAINED}
PAIRED = {"second": ([*SHORT, "pairs.second={{noise: {{probability: 1.0}}}}"], True)}
LEARNED = {"learned": ([*SHORT, "loss.learn_temperature=true"], True)}
LABELLED = {"labels": ([*SHORT, "loss.ids=labels", "loss.overlap=0.5", "loss.duplicates=share"], True)}
OF_OBJECTIVE = {
    "jepa": EXPERIMENTS | MASKED,
    "probe": PROBES,
    "simclr": FEW | PAIRED | LEARNED,
    "byol": FEW | PAIRED,
    "meclip": FEW | LABELLED,
    "finetune": TUNED,
    "translate": TRANSLATED,
}

Reads = set[tuple[str, str]]


def name_of(section: type) -> str:
    return f"{section.__module__}.{section.__qualname__}"


def user_of(section: Section, frame: FrameType | None) -> str:
    """The file that reads a field: behind a property of the section it is the file that asked for the property."""
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.endswith(DECLARATIONS) and not isinstance(getattr(type(section), function, None), PROPERTIES):
            return ""
        if not file.endswith(DECLARATIONS) and file not in PASSED_THROUGH:
            return file
        frame = frame.f_back
    return ""


@contextmanager
def recorded() -> Iterator[Reads]:
    """Collects (section class, field) for each field that the project's code reads; dumping a config reads nothing."""
    reads: Reads = set()

    def read(section: Section, name: str) -> object:
        if name in type(section).__pydantic_fields__ and user_of(section, sys._getframe()).startswith(CODE):
            reads.add((name_of(type(section)), name))
        return object.__getattribute__(section, name)

    Section.__getattribute__ = read  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        del Section.__getattribute__  # type: ignore[misc]


def experiment(config: RunConfig, check: bool) -> None:
    """One experiment on one CPU rank, as a rank would run it."""
    run = make_run(config, Ranks(0, 1, torch.device("cpu")), check)
    importlib.import_module(f"ssls.{config.objective}.train").main(config, run)
    run.close(0)


def main(output: Path, folder: Path) -> None:
    trained = folder / "jepa" / "ecg_debug"
    others = [*write_other_encoders(folder), write_other_towers(folder)]
    debug = [path for name in MODALITIES for path in (ROOT / "configs").glob(f"*/{name}_debug.yaml")]
    first = ROOT / "configs" / "jepa" / "ecg_debug.yaml"  # others start from what it leaves
    configs = sorted(debug, key=lambda path: (path != first, not trains(path), path))
    with WebServer(trained / "shards", folder / "requests") as server, recorded() as reads:
        for path in configs:
            root = folder / path.parent.name / path.stem
            shards = (root if trains(path) else trained) / "shards"
            experiments = OTHERS[path.stem] if path.stem in OTHERS else OF_OBJECTIVE.get(path.parent.name, FEW)
            for name, (settings, check) in experiments.items():
                places = [f"logging.folder={root / name}", f"data.root={shards}"]
                given = [word.format(folder=root, trained=trained, address=server.address) for word in settings]
                given += [] if trains(path) else [f"init_from={trained / 'saving'}"]
                experiment(load_config(path, [*places, *given], schema_of), check)
            write_scores(trained)
        for number, path in enumerate(others):
            places = [f"logging.folder={folder / str(number)}", f"data.root={folder / path.stem}"]
            experiment(load_config(path, [*SHORT, *places], schema_of), True)
    output.write_text(json.dumps(sorted(reads)))


def write_other_encoders(folder: Path) -> list[Path]:
    """Configs of encoders that are no ViT of ours; JEPA takes none with BatchNorm."""
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(**HIDDEN, image_size=32, patch_size=4, num_channels=1)).save_pretrained(folder / "vit")
    backbone = {"name": "transformers", "folder": str(folder / "vit"), "input": [32, 32]}
    found = []
    ecg, image = "jepa/ecg_debug", "jepa/image_debug"
    for stem, encoder in ((ecg, S4), (ecg, LEADS), (image, backbone), ("finetune/ecg_debug", RESNET)):
        config = yaml.safe_load((ROOT / "configs" / f"{stem}.yaml").read_text())
        config["model"]["encoder"] = encoder
        found.append(folder / f"{encoder['name']}.yaml")
        found[-1].write_text(yaml.safe_dump(config))
    return found


def write_other_towers(folder: Path) -> Path:
    """A config of a text tower, and of an encoder of ECGs, that are no transformers of ours."""
    from transformers import BertConfig, BertModel

    texts = folder / "bert"
    Tokenize(TokenizerConfig(length=8), train_tokenizer(["sinus rhythm"], 300)).save(texts)
    BertModel(BertConfig(**HIDDEN, vocab_size=300, max_position_embeddings=32)).save_pretrained(texts)
    config = yaml.safe_load((ROOT / "configs" / "meclip" / "ecg_debug.yaml").read_text())
    config["model"]["encoder"] = {"name": "resnet1d_18", "leads": 12, "length": 400, "widths": [8, 8, 8, 8]}
    config["model"]["text"] = {"name": "transformers", "folder": str(texts), "frozen": True}
    config["model"]["tokenizer"] = {"tokenizer": str(texts), "length": 24}
    (folder / "towers.yaml").write_text(yaml.safe_dump(config))
    return folder / "towers.yaml"


def trains(path: Path) -> bool:
    """Whether a config's objective is trained step by step."""
    return issubclass(schema_of(path.parent.name), ExperimentConfig)


def write_scores(trained: Path) -> None:
    """Somebody's guess at the heart rate of every ECG."""
    found = ECGShards(trained / "shards", "val", STANDARD_LEADS)
    rows = [f"{key},{place + 60}" for place, key in enumerate(found.keys(np.arange(len(found))))]
    (trained / "scores.csv").write_text("\n".join(["id,heart_rate", *rows]) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
