"""Which runs a command asks for."""

import pytest

from src.cluster.wanted import read_batch, wanted_configs


def variants(*sweeps, seeds=(), file="c.yaml"):
    return [(one.variant, one.swept) for one in wanted_configs(file, None, [], sweeps, seeds)]


def test_one_config_is_one_run_in_its_own_folder():
    assert variants() == [("", ())]


def test_a_grid_has_every_combination_and_names_its_folders():
    assert variants("optimization.lr=1e-4,3e-4", seeds=[0, 1]) == [
        ("optimization.lr-1e-4_seed-0", ("optimization.lr=1e-4", "seed=0")),
        ("optimization.lr-1e-4_seed-1", ("optimization.lr=1e-4", "seed=1")),
        ("optimization.lr-3e-4_seed-0", ("optimization.lr=3e-4", "seed=0")),
        ("optimization.lr-3e-4_seed-1", ("optimization.lr=3e-4", "seed=1")),
    ]


def test_commas_in_brackets_and_quotes_belong_to_a_value():
    assert [swept for _, swept in variants("data.leads=[I, II],[V1]", 'x="a,b"')] == [
        ("data.leads=[I, II]", 'x="a,b"'),
        ("data.leads=[V1]", 'x="a,b"'),
    ]


def test_names_of_folders_hold_no_slash_and_no_blank():
    assert [variant for variant, _ in variants("data.root=/a/b c,[x]")] == ["data.root-a-b-c", "data.root-x"]


@pytest.mark.parametrize(
    ("sweeps", "seeds", "told"),
    [
        (["optimization.lr"], [], "write --sweep key.path=value,value"),
        (["a=1,,2"], [], "a value is empty"),
        (["a=[1,2"], [], "a bracket is not closed"),
        (["a=1,1"], [], "--sweep a: 1 is given twice"),
        ([], [3, 3], "--seeds: 3 is given twice"),
        (["seed=1"], [2], "seed is swept twice"),
        (["logging.folder=a,b"], [], "has a folder of its own already"),
        (["a=" + "x" * 300], [], "sweep less"),
    ],
)
def test_what_can_not_be_swept_is_refused(sweeps, seeds, told):
    with pytest.raises(ValueError, match=told):
        variants(*sweeps, seeds=seeds)


def test_a_batch_lists_configs_with_settings_below_those_of_the_command(tmp_path):
    batch = tmp_path / "b.yaml"
    batch.write_text("- a.yaml\n- {fname: b.yaml, set: [seed=1]}\n")
    first, second = wanted_configs(None, batch, ["seed=2"], [], [])
    assert (str(first.file), first.overrides) == ("a.yaml", ("seed=2",))
    assert (str(second.file), second.overrides) == ("b.yaml", ("seed=1", "seed=2"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a list of configs"),
        ("fname: a.yaml", "a list of configs"),
        ("- {file: a.yaml}", "entry 1: write the path"),
        ("- a.yaml\n- 3", "entry 2: write the path"),
        ("- {fname: a.yaml, set: seed=1}", "set must be a list"),
    ],
)
def test_a_batch_that_is_none_is_refused(tmp_path, text, told):
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_batch(tmp_path / "b.yaml")


def test_a_batch_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--batch-launch .*no.yaml can't be read"):
        read_batch(tmp_path / "no.yaml")
