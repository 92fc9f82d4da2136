"""What a user reads after a mistake: the file, the key, the value, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.config import ConfigError
from tests.config.toy import COMPLETE, load, write

JARGON = (
    "pydantic",
    "http",
    "type=",
    "Input should",
    "literal",
    "union",
    "discriminator",
    "Value error",
    "Traceback",
    "NoneType",
)

# Laid over a complete config -> the whole message.
MISTAKES = {
    "data: {bath_size: 3}": "x.yaml: unknown key data.bath_size; did you mean data.batch_size?",
    "lr: 3": "x.yaml: unknown key lr; did you mean optimization.lr?",
    "epoch: 3": "x.yaml: unknown key epoch; did you mean optimization.epochs?",
    "data: {clip: 1}": "x.yaml: unknown key data.clip; did you mean data.transform.clip or optimization.clip?",
    "engine: {zero: 3}": "x.yaml: unknown key engine.zero; engine has name, precision, zero_stage, offload, replicas, "
    "deepspeed, recompute, compile, timeout",
    "evaluation: {x: 1}": "x.yaml: unknown key evaluation.x; evaluation has every, split, samples, windows, alarm",
    "data.split: a": "x.yaml: unknown key data.split; a key with dots is for --set, "
    "in a file write its parts as nested sections",
    "sources: [{root: a, wieght: 1}]": "x.yaml: unknown key sources[0].wieght; did you mean sources[0].weight?",
    "data: {batch_size: '8'}": 'x.yaml: data.batch_size must be a whole number above 0, not the text "8"; write 8',
    "data: {batch_size: true}": "x.yaml: data.batch_size must be a whole number above 0, not true",
    "data: {batch_size: 0}": "x.yaml: data.batch_size must be a whole number above 0, not 0",
    "optimization: {steps: 1e5}": "x.yaml: optimization.steps must be a whole number above 0 or null, "
    "not 100000.0; write 100000",
    "optimization: {lr: '1e-3'}": 'x.yaml: optimization.lr must be a number above 0, not the text "1e-3"; write 0.001',
    "optimization: {lr: -3.0}": "x.yaml: optimization.lr must be a number above 0, not -3.0",
    "optimization: {lr: .nan}": "x.yaml: optimization.lr is nan; write a finite number",
    "optimization: {clip: .inf}": "x.yaml: optimization.clip is inf; write a finite number",
    "optimization: {clip: 1e999}": "x.yaml: optimization.clip is inf; write a finite number",
    "optimization: {betas: [1]}": "x.yaml: optimization.betas must be a list of 2 entries, "
    "each of them a number from 0 to 1, not the list [1]",
    "optimization: {betas: [1, 2]}": "x.yaml: optimization.betas[1] must be a number from 0 to 1, not 2",
    "logging: {audit: yes}": 'x.yaml: logging.audit must be true or false, not the text "yes"; write true',
    "logging: {audit: 1}": "x.yaml: logging.audit must be true or false, not 1",
    "engine: {name: dpd}": "x.yaml: engine.name must be auto, plain, ddp, fsdp or deepspeed, not the text "
    '"dpd"; did you mean ddp?',
    "engine: ddp": 'x.yaml: engine must be a section, not the text "ddp"',
    "engine:": "x.yaml: engine must be a section, not null; leave it out for the defaults",
    "data: []": "x.yaml: data must be a section with root and batch_size, not the list []",
    "data: {split: 2020}": "x.yaml: data.split must be text, not 2020; put it in quotes",
    "data: {split: 2020-01-01}": "x.yaml: data.split is 2020-01-01, which is a date in YAML; put it in quotes",
    "seed: 2020-99-99": "x.yaml: seed is 2020-99-99, which is a date in YAML; put it in quotes",
    "data: {leads: I}": 'x.yaml: data.leads must be a list of entries, each of them text, not the text "I"',
    "data: {leads: [I, 3]}": "x.yaml: data.leads[1] must be text, not 3; put it in quotes",
    "data: {synthetic: {samples: 0}}": "x.yaml: data.synthetic.samples must be a whole number above 0, not 0",
    "data: {synthetic: 3}": "x.yaml: data.synthetic must be a section or null, not 3",
    "model: {width: 9}": "x.yaml: model: width 9 must be divisible by heads 2",
    "model: {temperature: lerned}": "x.yaml: model.temperature must be a number or learned, "
    'not the text "lerned"; did you mean learned?',
    "mask: {}": "x.yaml: mask.kind is missing; write block or tube",
    "mask: {kind: tub}": 'x.yaml: mask.kind must be block or tube, not the text "tub"; did you mean tube?',
    "mask: {kind: tube}": "x.yaml: mask.length is missing; write a whole number above 0",
    "mask: {kind: tube, lenght: 3}": "x.yaml: unknown key mask.lenght; did you mean mask.length?",
    "mask: {kind: block, size: a}": 'x.yaml: mask.size must be a whole number above 0, not the text "a"',
    "mask: 3": "x.yaml: mask must be a section or null, not 3",
    "sources: {root: a}": "x.yaml: sources must be a list of entries, each of them a section with root, not a mapping",
    "sources: [{}]": "x.yaml: sources[0].root is missing; write text",
    "notes: [a]": 'x.yaml: notes must be a mapping from names, each to text, not the list ["a"]',
    "objective: tyo": "x.yaml: there is no objective tyo; did you mean toy?",
    "objective: 3": "x.yaml: objective must be the name of a folder of ssls/, not 3",
    "data: {1: a}": "x.yaml: the key 1 of data is not text; put it in quotes",
    "seed: 1\nseed: 2": "x.yaml, line 3: the key seed is given twice; remove one",
    "data:\n  root: a\n  root: a": "x.yaml, line 4: the key root is given twice; remove one",
    "data:\n\troot: a": "x.yaml, line 3: not valid YAML; a tab can't stand here, indent with spaces",
    "notes: {a: b\nseed: 3": "x.yaml, line 3: not valid YAML; "
    "in a mapping {a: 1, b: 2} a comma or the closing } is missing",
    "seed: 'a": "x.yaml, line 2: not valid YAML; a quote is not closed, or a \\ in double quotes has to be doubled",
    "data:\n    root: a\n  split: b": "x.yaml, line 4: not valid YAML; "
    "this line's indent does not fit the lines above it",
    "notes: {a: b: c}": "x.yaml, line 2: not valid YAML; in a mapping {a: 1, b: 2} a comma or the closing } is missing",
    "data: a: b": "x.yaml, line 2: not valid YAML; there is a ': ' too many or the indent is wrong; "
    "quote text that holds ': '",
    "seed: !!python/object/apply:os.getcwd []": "x.yaml, line 2: not valid YAML; tags (!name) are not supported; "
    "quote text that starts with '!'",
    "seed: *a": "x.yaml, line 2: not valid YAML; *name refers to nothing; quote text that starts with '*'",
    "notes: &a {a: *a}": "x.yaml: it is nested too deep, or an alias (*name) holds itself",
    "notes: !!set {a}": "x.yaml: notes is a set; a config has no such values",
}

# --set -> the message after the override's own text.
WRONG_OVERRIDES = {
    "optimization.lr": "there is no '='; write --set key.path=value",
    "=3": "a part of the key is empty; write --set key.path=value",
    "data..root=3": "a part of the key is empty; write --set key.path=value",
    "data.root.x=3": 'data.root is the text "shards", which has no keys; set data.root as a whole',
    "optimization.lrr=3": "unknown key optimization.lrr; did you mean optimization.lr?",
    "optimization.lr=[1": "not valid YAML; in a list [a, b] a comma or the closing ] is missing",
    "optimization.lr=": "optimization.lr must be a number above 0, not null",
    "data.split=1": "data.split must be text, not 1; "
    "put it in quotes inside another pair, because the shell removes the outer one",
    "base=other.yaml": "base can't be set here; write it in a YAML file",
}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(text: str | bytes, *overrides: str, file: str = "x.yaml") -> str:
    Path(file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(Path(file), *overrides)
    assert isinstance(caught.value, ValueError)
    assert not [word for word in JARGON if word in str(caught.value)]
    return str(caught.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_file_is_told_in_one_sentence(mistake: str) -> None:
    write(Path(), base=COMPLETE)
    assert message(f"base: base.yaml\n{mistake}\n") == MISTAKES[mistake]


@pytest.mark.parametrize("override", WRONG_OVERRIDES)
def test_mistake_in_an_override_names_the_override(override: str) -> None:
    assert message(COMPLETE, override) == f"--set {override}: {WRONG_OVERRIDES[override]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yaml is empty; a config needs at least `base: other.yaml` or `objective: name`"),
        ("# nothing\n", "x.yaml is empty; a config needs at least `base: other.yaml` or `objective: name`"),
        ("- a", 'x.yaml holds the list ["a"]; a config is a mapping of lines `key: value`'),
        (b"\xff\xfe\x00", "x.yaml is not UTF-8 text; give the path of a YAML file"),
        (b"a: \x00", "x.yaml: it holds characters that YAML does not allow; write plain text"),
        ("seed: " + "9" * 5000, "x.yaml: a number has thousands of digits or a tag (!!name) does not fit its value"),
        ("seed: 1", "x.yaml: objective is missing; write the name of a folder of ssls/"),
        ("objectiv: toy", "x.yaml: unknown key objectiv; did you mean objective?"),
        ("base: [a.yaml]", 'x.yaml: base must be the path of one YAML file, not the list ["a.yaml"]'),
        ("base: nope.yaml", "x.yaml: base nope.yaml is not a file; write its path relative to ./ or an absolute one"),
        ("base: .", "x.yaml: base . is not a file; write its path relative to ./ or an absolute one"),
    ],
)
def test_file_that_is_no_config_is_told(text: str | bytes, expected: str) -> None:
    assert message(text) == expected


def test_path_that_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"^nope\.yaml does not exist; give the path"):
        load(Path("nope.yaml"))
    with pytest.raises(ConfigError, match=r"^folder is a folder; give the path of a YAML file in it$"):
        load(Path("folder"))


def test_error_in_a_base_names_the_base() -> None:
    write(Path(), base=COMPLETE + "model: {width: eight}\n", middle="base: base.yaml\nseed: 1\n")
    assert message("base: middle.yaml\nmodel: {heads: 1}\n").startswith("base.yaml: model.width must be")


def test_corrected_base_no_longer_counts() -> None:
    write(Path(), base=COMPLETE + "model: {width: eight}\n")
    assert message("base: base.yaml\nmodel: {width: nine}\n").startswith("x.yaml: model.width must be")


def test_keys_that_contradict_each_other_name_both_their_files() -> None:
    write(Path(), base=COMPLETE)
    told = "exactly one of optimization.epochs and optimization.steps must be set"
    assert message("base: base.yaml\noptimization: {epochs: 3}\n") == f"base.yaml and x.yaml: {told}"
    assert message(COMPLETE, "optimization.epochs=3") == f"x.yaml and --set optimization.epochs=3: {told}"


def test_circle_of_bases_is_refused_with_its_path() -> None:
    write(Path(), a="base: x.yaml\n")
    told = "a.yaml: base leads back to a file that is based on this one (x.yaml -> a.yaml -> x.yaml); remove one base"
    assert message("base: a.yaml\n") == told
    assert "(x.yaml -> x.yaml)" in message("base: ./x.yaml\n")


def test_each_fault_has_a_line_and_a_misspelt_key_is_not_missing_too() -> None:
    text = COMPLETE.replace("batch_size", "bath_size").replace("lr: 1e-3", "lr: fast")
    assert message(text.replace("folder: runs/toy", "")).splitlines() == [
        "x.yaml: unknown key data.bath_size; did you mean data.batch_size?",
        'x.yaml: optimization.lr must be a number above 0, not the text "fast"',
        "x.yaml: logging.folder is missing; write text",
    ]


def test_missing_section_says_what_it_needs() -> None:
    told = message("objective: toy\noptimization: {steps: 1, lr: 1}\nlogging: {folder: a}\n")
    assert told == "x.yaml: data is missing; write a section with root and batch_size"
