"""The plan that a config asks for."""

from __future__ import annotations

from src.config.data import DataConfig
from src.data.balanced import ByPatients, by_labels
from src.data.groups import label_groups, patients_of
from src.data.mixture import Mixture
from src.data.order import Order
from src.data.plan import Plan
from src.data.sources import MAIN, Sources
from src.randomness import derive_seed


def make_plan(config: DataConfig, sources: Sources, seed: int) -> Plan:
    """The plan of a run.

    Raises:
        ValueError: data.balance where samples have no labels or patients.
    """
    main = sources.parts[MAIN]
    if config.balance == "labels":
        return by_labels(seed, label_groups(main))
    if config.balance == "patients":
        return ByPatients(seed, patients_of(main))
    if not config.mixture:
        return Order(seed, main.sizes, config.window, config.lanes, config.batch_size)
    orders = [
        Order(seed if name == MAIN else derive_seed(seed, "source", name), part.sizes, config.window)
        for name, part in sources.parts.items()
    ]
    weights = [config.weight if name == MAIN else config.mixture[name].weight for name in sources.parts]
    return Mixture(seed, orders, weights, sources.offsets)
