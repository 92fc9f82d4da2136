"""Every objective keeps every promise on every engine; `tools.contract` holds the list."""

from pathlib import Path

import pytest

from tools.contract import COLUMNS, HEAD, cells, trainings

pytestmark = pytest.mark.distributed


def marks(name, cell):
    """One objective on one modality is tried with all that there is: what differs in others is no engine's code.

    These are trained by two ranks of each engine, and kept, moved and exported by one engine; docs/matrix.md and
    `-m slow` have the others.
    """
    often = name == "jepa-ecg" or cell.row.startswith("2") or (cell.column == "fsdp" and cell.row[0] not in "14")
    return () if often else pytest.mark.slow


PROMISES = [
    pytest.param(
        name, cell.row, cell.column, id=f"{name}-{cell.column}-{cell.row.replace(' ', '_')}", marks=marks(name, cell)
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
    (cell,) = [cell for cell in cells(trainings()[name], folder / name) if (cell.row, cell.column) == (row, column)]
    assert cell.keep()


def test_the_page_is_of_this_list():
    page = (Path(__file__).resolve().parents[2] / "docs" / "matrix.md").read_text()
    assert page.startswith(HEAD), "made by an earlier command: make it again"
    assert f"| | {' | '.join(COLUMNS)} |" in page
    for name, config in trainings().items():
        assert f"## {name}\n" in page
        assert all(f"| {cell.row} |" in page for cell in cells(config, Path()))
