"""Mixtures and balanced orders: shares are met, and each source, label and patient keeps epochs of its own."""

import numpy as np
import pytest
import torch

from src.config.data import DataConfig
from src.data.balanced import ByPatients, by_labels
from src.data.ecg_shards import ECGShards
from src.data.groups import NO_LABEL, label_groups, patients_of
from src.data.index import Labels
from src.data.inputs import sources_of
from src.data.loader import Loader
from src.data.mixture import CYCLE, Mixture, apportion
from src.data.order import Order
from src.data.sources import Sources
from src.data.write_shards import Description, Record, write_shards
from src.distributed.ranks import Ranks


def mixture(seed=0, weights=(3.0, 1.0, 0.5), sizes=(1000, 70_000, 90)):
    orders = [Order(number, [size]) for number, size in enumerate(sizes)]
    return Mixture(seed, orders, weights, (np.cumsum(sizes) - sizes).tolist()), orders


def test_shares_are_those_of_the_weights():
    mixed, _ = mixture()
    sources = mixed.deal(np.arange(3 * CYCLE))[0]
    for cycle in range(3):
        shares = np.bincount(sources[cycle * CYCLE : (cycle + 1) * CYCLE]) / CYCLE
        assert np.abs(shares - np.array([3, 1, 0.5]) / 4.5).max() < 1 / CYCLE
    early = np.bincount(sources[:4096]) / 4096
    assert np.abs(early - np.array([3, 1, 0.5]) / 4.5).max() < 0.03


def test_each_source_takes_its_own_sequence_one_after_the_other():
    mixed, orders = mixture()
    positions = np.arange(CYCLE + 1000)
    epochs, samples = mixed.order(positions)
    sources, own = mixed.deal(positions)
    starts = [0, 1000, 71_000]
    for number, order in enumerate(orders):
        here = sources == number
        assert np.array_equal(own[here], np.arange(here.sum()))
        own_epochs, own_samples = order.order(np.arange(here.sum()))
        assert np.array_equal(epochs[here], own_epochs)
        assert np.array_equal(samples[here] - starts[number], own_samples)
    assert epochs[sources == 2].max() > 50 > epochs[sources == 0].max() > epochs[sources == 1].max() == 0


def test_a_position_alone_gets_what_it_gets_among_others():
    mixed, _ = mixture(5)
    positions = np.array([0, 17, CYCLE - 1, CYCLE, 9 * CYCLE + 3])
    together = [part.tolist() for part in mixed.order(positions)]
    alone = [mixture(5)[0].order(np.array([position])) for position in positions]
    assert together == [[int(part[0]) for part in parts] for parts in zip(*alone, strict=True)]
    assert [mixed.instead(int(position), 0) for position in positions] == together[1]


def test_what_stands_instead_is_of_the_same_source():
    mixed, _ = mixture()
    sources, _ = mixed.deal(np.arange(50))
    for position in np.flatnonzero(sources == 2)[:3].tolist():
        walk = [mixed.instead(position, places) for places in range(90)]
        assert sorted(walk) == list(range(71_000, 71_090))


@pytest.mark.parametrize(
    ("weights", "places", "expected"),
    [
        ([1, 1], 4, [2, 2]),
        ([1, 1, 1], 4, [2, 1, 1]),
        ([6, 3, 1], 10, [6, 3, 1]),
        ([53, 24, 23], 10, [5, 3, 2]),
        ([1e9, 1.0], 10, [9, 1]),
        ([1, 1e9, 1.0], 3, [1, 1, 1]),
    ],
)
def test_apportionment(weights, places, expected):
    assert apportion(weights, places).tolist() == expected


def test_more_sources_than_places_are_refused():
    with pytest.raises(ValueError, match="5 sources can't be mixed: 4 is the most"):
        apportion([1.0] * 5, 4)


def test_labels_come_equally_often_and_each_one_through_all_its_samples():
    groups = {"rare": np.array([4]), "some": np.array([0, 2, 4]), "common": np.arange(10, 200)}
    balanced = by_labels(1, groups)
    assert np.bincount(balanced.deal(np.arange(CYCLE))[0]).tolist() == [21846, 21845, 21845]
    positions = np.arange(3000)
    (epochs, samples), (sources, _) = balanced.order(positions), balanced.deal(positions)
    for number, members in enumerate(groups.values()):
        of_label = samples[sources == number]
        for start in range(0, 5 * len(members), len(members)):
            assert sorted(of_label[start : start + len(members)].tolist()) == sorted(members.tolist())
    draws = set(zip(epochs.tolist(), samples.tolist(), strict=True))
    assert len(draws) == len(positions)  # those of sample 4, which has two labels, too


def test_patients_come_once_in_a_round_and_their_samples_in_turn():
    patients = np.array([0, 0, 0, 1, 2, 2, 1, 0, 3])
    balanced = ByPatients(7, patients)
    rounds, samples = balanced.order(np.arange(4 * 12))
    seen = {patient: [] for patient in range(4)}
    orders = set()
    for number in range(12):
        drawn = samples[rounds == number]
        assert sorted(patients[drawn].tolist()) == [0, 1, 2, 3]
        orders.add(tuple(patients[drawn].tolist()))
        for sample in drawn.tolist():
            seen[int(patients[sample])].append(sample)
    assert len(orders) > 6
    for patient, drawn in seen.items():
        count = int((patients == patient).sum())
        for start in range(0, 12, count):
            assert len(set(drawn[start : start + count])) == count
    assert len({ByPatients(seed, patients).order(np.arange(4))[1].tobytes() for seed in range(30)}) > 20
    walk = [balanced.instead(5, places) for places in range(4)]
    assert sorted(patients[walk].tolist()) == [0, 1, 2, 3]
    assert walk[0] == samples[5]


LEADS = ("I", "II")


def folder(root, count, labels, first=0, rate=100.0, patients=None, names=("a", "b")):
    """A split of records whose values are their numbers from `first`."""
    records = [
        Record(
            split="train",
            key=f"record-{number}",
            signal_CT=np.full((2, 8), first + number, np.int16),
            meta={
                "id": str(number),
                **({} if patients is None else {"patient_id": patients[number]}),
                "labels": labels[number % len(labels)],
                "scale": [1.0, 1.0],
            },
        )
        for number in range(count)
    ]
    write_shards(root, records, Description(LEADS, rate, Labels(names=names, kind="multilabel"), {}))
    return root


class Values:
    def __call__(self, step, samples, streams):
        return {"value": [int(sample["ecg"][0, 0]) for sample in samples], "draw": streams.uniform("x").tolist()}


def load(config, steps=40, world_size=1):
    shards = ECGShards(config.root, config.split, config.leads)
    ranks = [Ranks(rank, world_size, torch.device("cpu")) for rank in range(world_size)]
    loaders = [Loader(config, sources_of(config, shards), Values(), rank, seed=3) for rank in ranks]
    loaded = zip(*(loader.steps(0, steps) for loader in loaders), strict=True)
    micro = [batch for parts in loaded for part in parts for batch in part]
    return loaders[0], [[value for batch in micro for value in batch[name]] for name in ("value", "draw", "keys")]


def test_a_run_mixes_folders_by_weight_on_any_number_of_ranks(tmp_path):
    root, other = folder(tmp_path / "a", 30, [[0, 1]]), folder(tmp_path / "b", 10, [[0, 1]], first=1000)
    source = {"root": str(other), "weight": 3.0}
    config = DataConfig.model_validate(
        {"root": str(root), "batch_size": 40, "leads": LEADS, "mixture": {"clinic": source}}, strict=False
    )
    loader, (values, draws, keys) = load(config)
    assert loader.samples == 40
    assert 0.68 < np.mean(np.array(values) >= 1000) < 0.82
    assert all((value >= 1000) == key.startswith("clinic:record-") for value, key in zip(values, keys, strict=True))
    for limits, count in (((0, 1000), 30), ((1000, 2000), 10)):
        own = [value for value in values if limits[0] <= value < limits[1]]
        assert sorted(own[:count]) == sorted(own[count : 2 * count]) == list(range(limits[0], limits[0] + count))
    assert len(set(draws)) == len(draws)
    assert load(config, world_size=4)[1] == [values, draws, keys]
    assert loader.sha256 not in (ECGShards(root, "train", LEADS).sha256, ECGShards(other, "train", LEADS).sha256)


def test_labels_of_a_mixture_are_those_of_the_main_folder_by_name(tmp_path):
    root = ECGShards(folder(tmp_path / "a", 2, [[1, 0]]), "train", LEADS)
    swapped = folder(tmp_path / "b", 2, [[1, None]], names=("b", "c"))
    sources = Sources(root, {"clinic": ECGShards(swapped, "train", LEADS)})
    found = [sample["labels"].tolist() for sample in sources.read_each(np.arange(4), lambda shard: None)]
    assert str(found) == "[[1.0, 0.0], [1.0, 0.0], [nan, 1.0], [nan, 1.0]]"


def test_the_checksum_of_a_balanced_run_tells_other_labels(tmp_path):
    config = {"batch_size": 4, "leads": LEADS, "balance": "labels"}
    sums = set()
    for name, labels in (("a", [[0, 1], [1, 0]]), ("b", [[1, 0], [0, 1]])):
        root = folder(tmp_path / name, 4, labels)
        shards = ECGShards(root, "train", LEADS)
        shards.sha256 = "the same"
        loader = Loader(DataConfig(root=str(root), **config), shards, Values(), Ranks(0, 1, torch.device("cpu")), 3)
        sums.add(loader.sha256)
    assert len(sums) == 2
    assert "the same" not in sums


def test_another_rate_in_a_mixture_is_refused(tmp_path):
    root, other = folder(tmp_path / "a", 3, [[0, 1]]), folder(tmp_path / "b", 3, [[0, 1]], rate=500.0)
    config = DataConfig.model_validate(
        {"root": str(root), "batch_size": 4, "leads": LEADS, "mixture": {"clinic": {"root": str(other)}}}, strict=False
    )
    with pytest.raises(ValueError, match=r"data\.mixture\.clinic: .* is at 500 Hz, data\.root .* at 100 Hz"):
        sources_of(config, ECGShards(root, "train", LEADS))


def test_groups_of_a_folder(tmp_path):
    root = folder(tmp_path / "a", 6, [[1, 0], [1, 1], [0, 0], [None, None], [None, 0], [0, 0]], patients="xyxzzy")
    shards = ECGShards(root, "train", LEADS)
    found = {name: samples.tolist() for name, samples in label_groups(shards).items()}
    assert found == {"a": [0, 1], "b": [1], NO_LABEL: [2, 4, 5]}
    assert patients_of(shards).tolist() == [0, 1, 0, 2, 2, 1]


@pytest.mark.parametrize(
    ("balance", "complaint"),
    [("labels", "has no labels in split train"), ("patients", "sample record-0 has no patient_id")],
)
def test_balance_needs_what_it_balances(tmp_path, balance, complaint):
    root = folder(tmp_path / "a", 3, [[None, None]])
    config = DataConfig(root=str(root), batch_size=2, leads=LEADS, balance=balance)
    with pytest.raises(ValueError, match=complaint):
        load(config)


def test_a_balanced_run(tmp_path):
    root = folder(tmp_path / "a", 50, [[0, 1]] * 24 + [[1, 0]], patients=[str(number // 10) for number in range(50)])
    config = DataConfig(root=str(root), batch_size=40, leads=LEADS, balance="labels")
    values = np.array(load(config)[1][0])
    assert 0.42 < np.isin(values, [24, 49]).mean() < 0.58
    patients = np.array(load(config.model_copy(update={"balance": "patients"}))[1][0]) // 10
    assert np.bincount(patients).tolist() == [320] * 5


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"lanes": 3}, "data.lanes 3 must divide data.batch_size 4"),
        ({"lanes": 2, "mixture": {"b": {"root": "b"}}}, "data.lanes is for one source"),
        ({"balance": "labels", "window": 2}, "data.balance labels picks single samples"),
        ({"balance": "patients", "mixture": {"b": {"root": "b"}}}, "data.balance patients picks single samples"),
        ({"weight": 2.0}, "data.weight does nothing without data.mixture"),
        ({"mixture": {"root": {"root": "b"}}}, "data.mixture can't name a source 'root'"),
        ({"mixture": {"a:b": {"root": "b"}}}, "data.mixture can't name a source 'a:b'"),
        ({"mixture": {"b": {"root": "b"}}, "weight": float("inf")}, "less than or equal to 1000000000"),
        ({"timeout": float("inf")}, "less than or equal to 1000000"),
    ],
)
def test_orders_that_do_not_go_together_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        DataConfig.model_validate({"root": "a", "batch_size": 4, **settings})
