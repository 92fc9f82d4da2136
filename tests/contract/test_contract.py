"""Every objective keeps every promise on every engine; `tools.contract` holds the list."""

from pathlib import Path

import pytest

from tools.contract import COLUMNS, HEAD, cells, trainings

pytestmark = pytest.mark.distributed


KINDS = ("plain", "ddp", "fsdp")
"""Engines that hold an objective as it is, average it, and cut it into shards."""
KILLED = ("byol-ecg", "meclip-ecg", "translate-ecg")


def often(name, cell):
    """Whether a cell is tried each time; docs/matrix.md and `-m slow` have the others.

    JEPA on ECGs is trained by one and two ranks of all engines, and all is promised of torch's shards and DeepSpeed's
    (tests/distributed/test_engines.py has four ranks of all, test_kills.py the others' kills). What differs in others
    is no engine's code: they are trained by two ranks, and where the objective is another one too it is measured and
    exported in shards; those with a second network or a tokenizer, whose tests in tests/ssls kill none, are killed and
    go on as well. Of pictures videos stand for all.
    """
    trains = cell.row[0] in "124"
    if name == "jepa-ecg":
        return cell.row[0] in "12" or (not trains and cell.column in ("fsdp", "zero2"))
    if name in ("jepa-image", "jepa-ct"):
        return False
    if trains:
        return cell.row[0] == "2" and cell.column in KINDS
    kept = ("health", "the exported") + (("stopped",) if name in KILLED else ())
    return cell.row.startswith(kept) and cell.column == "fsdp" and not name.startswith("jepa")


PROMISES = [
    pytest.param(
        name,
        cell.row,
        cell.column,
        id=f"{name}-{cell.column}-{cell.row.replace(' ', '_')}",
        marks=() if often(name, cell) else pytest.mark.slow,
    )
    for name, config in trainings().items()
    for cell in cells(config, Path())
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all, since promises share their runs."""
    return tmp_path_factory.mktemp("contract")


@pytest.mark.parametrize(("name", "row", "column"), PROMISES)
@pytest.mark.timeout(600)
def test_the_promise_is_kept(folder, name, row, column):
    kinds = tuple(COLUMNS) if name == "jepa-ecg" else KINDS
    (cell,) = [of for of in cells(trainings()[name], folder / name, kinds) if (of.row, of.column) == (row, column)]
    assert cell.keep()


def test_the_page_is_of_this_list():
    page = (Path(__file__).resolve().parents[2] / "docs" / "matrix.md").read_text()
    assert page.startswith(HEAD), "made by an earlier command: make it again"
    assert f"| | {' | '.join(COLUMNS)} |" in page
    for name, config in trainings().items():
        assert f"## {name}\n" in page
        assert all(f"| {cell.row} |" in page for cell in cells(config, Path()))
