"""What a config file means: YAML values, bases, overrides, and the way back to YAML."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from src.config import ExperimentConfig, dump_config, load_config
from tests.config.toy import COMPLETE, Config, load, write

NASTY_TEXTS = [
    *(
        "1e-3",
        "5",
        "-0",
        "010",
        "1_000",
        "0x1f",
        "1:30",
        ".inf",
        ".nan",
        ".5",
        "5.",
        "+1e3",
        "null",
        "~",
        "",
        " ",
        "true",
    ),
    *(
        "No",
        "on",
        "y",
        "<<",
        "=",
        "2020-01-01",
        "2020-01-01 10:00:00",
        "a: b",
        "a #b",
        "#",
        "- a",
        "[a",
        "{a",
        "'",
        '"',
    ),
    *(
        "!a",
        "&a",
        "*a",
        "@a",
        "%a",
        "`",
        "\\",
        "a\nb",
        "a\n\n b\n",
        "\ttab",
        "tab\t",
        "\r\n",
        "\x00",
        "\x85",
        "\u2028",
        "\ufeff",
    ),
    *("Prüfung", "心电图", "🫀", "a" * 300, "a b " * 60, "|", ">", "?", "---", "...", ":", ",", "key:"),
]


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, *overrides: str) -> Config:
    write(Path(), experiment=text)
    return load(Path("experiment.yaml"), *overrides)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("+3", 3.0)])
def test_numbers_follow_yaml_1_2(text: str, value: float) -> None:
    assert loaded(COMPLETE, f"optimization.lr={text}").optimization.lr == value


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "010", "0x10", "1_000", "1:30"])
def test_words_and_numbers_of_yaml_1_1_are_text(text: str) -> None:
    assert loaded(COMPLETE, f"data.split={text}").data.split == text


def test_lists_fill_tuples_and_whole_numbers_fill_floats() -> None:
    config = loaded(COMPLETE, "optimization.betas=[0, 1]", "data.leads=[I, II]")
    assert config.optimization.betas == (0.0, 1.0)
    assert config.data.leads == ("I", "II")


def test_anchors_and_merge_keys_work() -> None:
    config = loaded(COMPLETE + "sources: [&first {root: a, weight: 2}, {<<: *first, root: b}]\n")
    assert [(source.root, source.weight) for source in config.sources] == [("a", 2.0), ("b", 2.0)]


def test_overlay_merges_sections_and_replaces_everything_else() -> None:
    write(
        Path(), base=COMPLETE + "notes: {a: x, b: y}\nsources: [{root: a}, {root: b}]\nmask: {size: 2, kind: block}\n"
    )
    config = loaded("base: base.yaml\nnotes: {b: z}\nsources: [{root: c}]\nmask: null\ndata: {batch_size: 2}\n")
    assert config.notes == {"a": "x", "b": "z"}
    assert [source.root for source in config.sources] == ["c"]
    assert config.mask is None
    assert (config.data.root, config.data.batch_size) == ("shards", 2)


def test_section_replaces_the_null_of_a_base() -> None:
    write(Path(), base=COMPLETE + "mask: null\n")
    assert loaded("base: base.yaml\nmask: {kind: tube, length: 2}\n").mask is not None


def test_bases_chain_and_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    write(tmp_path, root=COMPLETE)
    write(tmp_path / "published", large="base: ../root.yaml\nseed: 1\nmodel: {width: 16}\n")
    config = loaded("base: published/large.yaml\nseed: 2\n")
    assert (config.seed, config.model.width, config.data.batch_size) == (2, 16, 8)


def test_overrides_come_last_and_the_last_of_them_wins() -> None:
    config = loaded(
        COMPLETE, "optimization.lr=1", "optimization.lr=2", "logging.folder=a=b", "notes={k: v}", "mask.kind=block"
    )
    assert (config.optimization.lr, config.logging.folder, config.notes) == (2.0, "a=b", {"k": "v"})
    assert config.mask is not None


def test_override_opens_a_section_that_is_null() -> None:
    resolved = dump_config(loaded(COMPLETE))
    assert "synthetic: null" in resolved
    synthetic = loaded(resolved, "data.synthetic.samples=3").data.synthetic
    assert synthetic is not None
    assert synthetic.samples == 3


def test_dump_shows_each_default_and_loads_to_an_equal_config() -> None:
    config = loaded(COMPLETE)
    text = dump_config(config)
    assert "betas: [0.9, 0.999]" in text
    assert "max_skipped: 10" in text
    assert loaded(text) == config


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_any_text_survives_dump_and_load(text: str) -> None:
    config = Config.model_validate(
        {**yaml.safe_load(COMPLETE.replace("1e-3", "0.001")), "notes": {text: text, "k": text}}
    )
    assert loaded(dump_config(config)) == config


def test_random_values_survive_dump_and_load() -> None:
    draw = random.Random(0)
    base = loaded(COMPLETE)
    for _ in range(50):
        text = "".join(draw.choice("abe01.-+:#'\"[]{}, \n\\&*!|>%@`~") for _ in range(draw.randrange(12)))
        optimization = base.optimization.model_copy(
            update={"lr": draw.uniform(0.1, 10) * 10.0 ** draw.randint(-300, 300)}
        )
        config = base.model_copy(
            update={"notes": {text: text}, "optimization": optimization, "seed": draw.getrandbits(70)}
        )
        assert loaded(dump_config(config)) == config


def test_dump_reads_the_same_in_plain_yaml() -> None:
    config = loaded(COMPLETE).model_copy(update={"notes": {text: text for text in NASTY_TEXTS}})
    assert yaml.safe_load(dump_config(config))["notes"] == config.notes


PUBLISHED = sorted(
    path
    for path in Path(__file__).parents[2].glob("configs/*/*.yaml")
    if path.parent.name not in ("transforms", "prompts")
)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_configs_load_and_survive_a_dump(path: Path) -> None:
    def schema_of(objective: str) -> type[ExperimentConfig]:
        return import_module(f"ssls.{objective}.config").Config

    config = load_config(path, [], schema_of)
    Path("resolved.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(Path("resolved.yaml"), [], schema_of) == config
