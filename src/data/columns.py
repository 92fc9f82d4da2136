"""A table as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(head: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterable[str]:
    """A head and rows, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for first, *others in (head, *cells):
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield f"{first.ljust(widths[0])}  {numbers}"
